//! Where things are: the repository, and the folder under `target` that keeps what was downloaded or compiled.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The root of the repository this crate was built from.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lives in tests/provision").to_path_buf()
}

/// `target/provision/{name}`, created.
pub fn folder(name: &str) -> Result<PathBuf> {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), |dir| repository().join(dir));
    let folder = target.join("provision").join(name);
    fs::create_dir_all(&folder).map_err(|cause| Error::context(format!("creating {}", folder.display()), cause))?;
    Ok(folder)
}

pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|cause| Error::context(format!("reading {}", path.display()), cause))
}

/// Writes through a new file and a rename, so that another test process never sees half of it.
pub fn write(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().expect("a file has a folder");
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|file| {
        fs::write(file.path(), content)?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|cause| Error::context(format!("writing {}", path.display()), cause))
}

/// Opens a file that serves as a lock between test processes; the lock goes when the file is dropped or the process dies.
pub fn lock_file(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|cause| Error::context(format!("opening {}", path.display()), cause))
}

/// Waits until no other process holds `path`, and holds it until the returned file is dropped.
pub fn exclusive(path: &Path) -> Result<File> {
    let file = lock_file(path)?;
    file.lock().map_err(|cause| Error::context(format!("locking {}", path.display()), cause))?;
    Ok(file)
}

/// A name for content: changed content gets a new name, so caches never need to be emptied.
pub fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    const_hex::encode(&hash.finalize()[..8])
}

/// A program named by `variable`, or found on PATH under `name`.
pub fn program(variable: &str, name: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        // Relative to the repository, because cargo starts each test binary in the folder of its own package.
        let path = repository().join(path);
        return if path.is_file() {
            Ok(Some(path))
        } else {
            Err(Error::new(format!("{variable} names {}, which is not a file; correct or unset it", path.display())))
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// The end of a log, for an error message.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
