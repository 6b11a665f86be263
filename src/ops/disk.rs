//! Checks the free space on the disk of the data folder.

use std::path::Path;

const MIB: u64 = 1024 * 1024;
/// The free space, in bytes, below which `/readyz` reports a problem.
const FREE_BYTES_MIN: u64 = 256 * MIB;

/// Returns the problem of the disk; `None` when at least 256 MiB are free. That the free space cannot be read is also a
/// problem.
pub fn find_disk_problem(folder: &Path) -> Option<String> {
    match free_disk_bytes(folder) {
        Ok(free) if free < FREE_BYTES_MIN => {
            Some(format!("only {} MiB are free for the data folder; free some space", free / MIB))
        }
        Ok(_) => None,
        Err(error) => Some(format!("the free space of the data folder cannot be read: {error}")),
    }
}

/// Returns the number of bytes that this process may still write to the file system of `folder`.
pub fn free_disk_bytes(folder: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
