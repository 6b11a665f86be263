//! The file with the high-water mark of the address indices. It is replaced as a whole and synced, so that it is complete
//! after a crash, and it never goes back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use crate::addresses::AddressMark;
use crate::addresses::store;
use db::{self, Db};

/// The file with the high-water mark.
#[derive(Debug)]
pub struct MarkFile {
    path: PathBuf,
    /// The mark that this process wrote last; `None` before it wrote one.
    written: Mutex<Option<AddressMark>>,
}

/// The reason why the mark file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MarkFileError {
    /// The file, or its folder, cannot be read, created or written.
    #[error(
        "the address mark {}: {source}; give the user of the daemon write access to its folder, or name another place in \
         [data] mark_path",
        path.display()
    )]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The text of the file is damaged.
    #[error(
        "the address mark {} is damaged: {reason}; restore it from a copy, or move it away and run \
         `settled restore --skip N`",
        path.display()
    )]
    Damaged {
        /// The path of the file.
        path: PathBuf,
        /// The reason why the text cannot be used: the line that is wrong or missing.
        reason: String,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

impl MarkFile {
    /// Returns the mark file at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> MarkFile {
        MarkFile { path, written: Mutex::const_new(None) }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; `None` when it does not exist.
    ///
    /// # Errors
    /// [`MarkFileError`] when the file cannot be read or is damaged.
    pub fn read_if_present(&self) -> Result<Option<AddressMark>, MarkFileError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => AddressMark::parse_file_text(&text)
                .map(Some)
                .map_err(|reason| MarkFileError::Damaged { path: self.path.clone(), reason }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(MarkFileError::Io { path: self.path.clone(), source }),
        }
    }

    /// Copies the mark of the database to the file, and returns when it is on the disk. Does nothing when this process
    /// wrote the same mark last. The mark in the file never goes back.
    ///
    /// # Errors
    /// [`MarkFileError`] when the database fails or the file cannot be written.
    pub async fn copy_database_mark(&self, db: &Db) -> Result<(), MarkFileError> {
        let mut written = self.written.lock().await;
        let mut mark =
            db.read("load_database_mark", |tx| Box::pin(async move { store::load_database_mark(tx).await })).await?;
        if let Some(last) = written.as_ref() {
            mark.raise_to(last);
            if *last == mark {
                return Ok(());
            }
        }
        let path = self.path.clone();
        let raised = tokio::task::spawn_blocking(move || lock_and_raise_file(&path, mark)).await;
        let failed = |e| Err(MarkFileError::Io { path: self.path.clone(), source: io::Error::other(e) });
        *written = Some(raised.unwrap_or_else(failed)?);
        Ok(())
    }
}

/// Raises the mark in the file to `mark`, and returns the mark that the file has then. Several daemons may share the file,
/// so it is read again and replaced under a lock: a daemon that was slow does not take back what another has written. A
/// missing folder is created; only its owner can access it.
fn lock_and_raise_file(path: &Path, mut mark: AddressMark) -> Result<AddressMark, MarkFileError> {
    let failed = |source| MarkFileError::Io { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(add_ending(path, ".lock"));
    let lock = lock.map_err(failed)?;
    lock.lock().map_err(failed)?;
    if let Some(earlier) = MarkFile::new(path.to_owned()).read_if_present()? {
        mark.raise_to(&earlier);
    }
    replace_file_and_sync(path, folder, &mark.to_file_text()).map_err(failed)?;
    Ok(mark)
}

fn add_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Writes a new file beside `path`, syncs it, renames it to `path` and syncs the folder.
fn replace_file_and_sync(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let new = add_ending(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_daemon_does_not_take_back_the_mark_of_another() {
        let folder = std::env::temp_dir().join(format!("settled-mark-{}", std::process::id()));
        let path = folder.join("addresses");
        let at_epoch = |epoch| AddressMark { epoch, ..AddressMark::default() };
        assert_eq!(lock_and_raise_file(&path, at_epoch(2)).unwrap().epoch, 2);
        assert_eq!(lock_and_raise_file(&path, at_epoch(1)).unwrap().epoch, 2);
        assert_eq!(MarkFile::new(path).read_if_present().unwrap().unwrap().epoch, 2);
        fs::remove_dir_all(folder).unwrap();
    }
}
