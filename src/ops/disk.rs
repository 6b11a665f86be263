//! Checks the free space on the disk of the data folder.

use std::collections::BTreeMap;
use std::path::Path;

const MIB: u64 = 1024 * 1024;
/// Free space below which the daemon reports that it is not ready, in bytes.
const FREE_BYTES_MIN: u64 = 256 * MIB;

/// Returns the problem of the disk under the key `disk`; an empty map when enough space is free.
pub fn find_disk_problems(folder: &Path) -> BTreeMap<String, String> {
    let mut problems = BTreeMap::new();
    match free_disk_bytes(folder) {
        Ok(free) if free < FREE_BYTES_MIN => {
            let problem = format!("only {} MiB are free for the data folder; free some space", free / MIB);
            problems.insert("disk".into(), problem);
        }
        Ok(_) => {}
        Err(error) => {
            let problem = format!("the free space of the data folder cannot be read: {error}");
            problems.insert("disk".into(), problem);
        }
    }
    problems
}

/// Returns the bytes that this process may still write to the file system of `folder`.
pub fn free_disk_bytes(folder: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
