//! An exclusive lock on a file, which the kernel releases when the process ends. Only one daemon may use a data folder,
//! and only one may serve an SQLite database.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Name of the lock file in a data folder.
const DATA_FOLDER_FILE: &str = "lock";
/// Maximum length of the owner's name in a lock file, in bytes.
const OWNER_LENGTH_MAX: u64 = 100;

/// The right of this process to use a data folder, which no other process has at the same time. When the value is
/// dropped, the lock is released.
#[derive(Debug)]
pub struct DataFolderLock {
    _file: FileLock,
}

/// The reason why a data folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderLockError {
    /// Another process has the lock. `holder` names it, such as `process 7`.
    #[error("{} is used by another process ({holder})", folder.display())]
    Held { folder: PathBuf, holder: String },
    /// The lock file cannot be opened, locked or written.
    #[error("cannot lock {}: {source}", folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

impl DataFolderLock {
    /// Locks the folder without waiting, by locking the file `lock` in it, and writes the id of this process into that
    /// file.
    ///
    /// # Errors
    /// [`DataFolderLockError::Held`] while another process has the lock.
    pub fn lock_data_folder(folder: &Path) -> Result<DataFolderLock, DataFolderLockError> {
        let owner = format!("process {}", std::process::id());
        match FileLock::lock_file(&folder.join(DATA_FOLDER_FILE), &owner) {
            Ok(file) => Ok(DataFolderLock { _file: file }),
            Err(FileLockError::Held { holder }) => Err(DataFolderLockError::Held { folder: folder.to_owned(), holder }),
            Err(FileLockError::Io(source)) => Err(DataFolderLockError::Io { folder: folder.to_owned(), source }),
        }
    }
}

/// An exclusive lock on a file; the file contains the name of the lock's owner. When the value is dropped, the lock is
/// released.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// The reason why a file could not be locked.
pub(crate) enum FileLockError {
    /// Another process has the lock. `holder` is the text in the file, or `unknown`.
    Held { holder: String },
    /// The file cannot be opened, locked or written.
    Io(io::Error),
}

impl FileLock {
    /// Locks the file without waiting and writes the owner's name into it. The file is created if needed.
    pub fn lock_file(path: &Path, owner: &str) -> Result<FileLock, FileLockError> {
        let mut options = OpenOptions::new();
        // Do not truncate the file when it is opened: until this process has the lock, the text names the process that
        // holds it.
        let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(path).map_err(FileLockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(FileLockError::Held { holder: read_owner_name(&mut file) });
            }
            Err(error) => return Err(FileLockError::Io(error.into())),
        }
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{owner}"));
        written.map_err(FileLockError::Io)?;
        Ok(FileLock { _file: file })
    }
}

/// Returns the owner's name in a lock file; `unknown` when the file is empty or cannot be read.
fn read_owner_name(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(OWNER_LENGTH_MAX).read_to_string(&mut text);
    if read.is_ok() && !text.trim().is_empty() { text.trim().to_owned() } else { "unknown".to_owned() }
}
