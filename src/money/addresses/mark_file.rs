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
        /// What is wrong.
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
        match written.as_ref() {
            Some(last) => mark.raise_to(last),
            None => {
                if let Some(earlier) = self.read_if_present()? {
                    mark.raise_to(&earlier);
                }
            }
        }
        if written.as_ref() == Some(&mark) {
            return Ok(());
        }
        let (path, text) = (self.path.clone(), mark.to_file_text());
        let replaced = tokio::task::spawn_blocking(move || replace_file_and_sync(&path, &text)).await;
        let replaced = replaced.unwrap_or_else(|e| Err(io::Error::other(e)));
        replaced.map_err(|source| MarkFileError::Io { path: self.path.clone(), source })?;
        *written = Some(mark);
        Ok(())
    }
}

/// Writes a new file beside `path`, syncs it, renames it to `path` and syncs the folder. A missing folder is created;
/// only its owner can access it.
fn replace_file_and_sync(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
