//! One daemon per data folder: an exclusive lock on a file in it, which the kernel gives back when the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const FILE: &str = "lock";

/// Held as long as it lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is used by another process ({holder})", folder.display())]
    Held { folder: PathBuf, holder: String },
    #[error("cannot lock {}: {source}", folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

impl DataLock {
    pub fn acquire(folder: &Path) -> Result<DataLock, LockError> {
        let failed = |source: io::Error| LockError::Io { folder: folder.to_owned(), source };
        let mut options = OpenOptions::new();
        // Not truncated: the text belongs to whoever holds the lock.
        let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(folder.join(FILE)).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { folder: folder.to_owned(), holder: holder(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let claim =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        claim.map_err(failed)?;
        Ok(DataLock { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text);
    if read.is_ok() && !text.trim().is_empty() { format!("process {}", text.trim()) } else { "unknown".to_owned() }
}
