//! Folders and files that only their owner can access.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::commands::command_error::CommandError;

/// Creates the folder, and missing folders above it, so that only its owner can access it. An existing folder keeps its
/// permissions.
pub fn create_private_folder_if_missing(folder: &Path) -> Result<(), CommandError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| {
        CommandError::error_with_context(format!("the data folder {} cannot be created", folder.display()), e)
    })
}

/// Writes `text` and a line feed to a new file that only its owner can read. An existing file is removed first, so a
/// crash can leave no file.
pub fn write_private_file(path: &Path, text: &str) -> Result<(), CommandError> {
    let failed = |e: std::io::Error| CommandError::error_with_context(path.display(), e);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(failed)
}
