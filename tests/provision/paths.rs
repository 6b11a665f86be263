//! Paths of the repository and of the cache under `target/provision`, and helpers for files in the cache.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Returns the root of the repository from which this crate was built.
pub fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate is in the folder tests/provision")
        .to_path_buf()
}

/// Returns the folder `target/provision/{name}` and creates it if it does not exist.
pub fn create_cache_folder(name: &str) -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository_root().join("target"), |dir| repository_root().join(dir));
    let folder = target.join("provision").join(name);
    fs::create_dir_all(&folder).map_err(|cause| Error::context(format!("creating {}", folder.display()), cause))?;
    Ok(folder)
}

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|cause| Error::context(format!("reading {}", path.display()), cause))
}

/// Writes a temporary file and renames it, so that other test processes never read a part of it.
pub fn write_atomically(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().expect("the path of a file has a parent");
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|file| {
        fs::write(file.path(), content)?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|cause| Error::context(format!("writing {}", path.display()), cause))
}

/// Opens a file that serves as a lock between test processes. A lock on it ends when the file is dropped or the process
/// ends.
pub fn open_lock_file(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|cause| Error::context(format!("opening {}", path.display()), cause))
}

/// Waits for the exclusive lock on `path`. The lock is held until the returned file is dropped.
pub fn lock_exclusive(path: &Path) -> Result<File> {
    let file = open_lock_file(path)?;
    file.lock().map_err(|cause| Error::context(format!("locking {}", path.display()), cause))?;
    Ok(file)
}

/// Returns a file name made from a hash of the content. Changed content gets another name, so a cached file is never
/// out of date.
pub fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    const_hex::encode(&hash.finalize()[..8])
}

/// Returns the program named by the environment variable `variable`, or else the program `name` on PATH. `None` if neither
/// exists.
pub fn find_program(variable: &str, name: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        // A relative path is relative to the repository, because cargo starts each test binary in the folder of its package.
        let path = repository_root().join(path);
        return if path.is_file() {
            Ok(Some(path))
        } else {
            Err(Error::new(format!(
                "the environment variable {variable} is set to {}, which is not a file; correct or unset it",
                path.display()
            )))
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// Returns the last 25 lines of a log.
pub fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
