//! The machine below the daemon: the disk that holds its data.

use std::collections::BTreeMap;
use std::path::Path;

/// Less than this left on the disk and nothing can be promised.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// What is wrong, by part.
pub fn problems(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    match free_bytes(folder) {
        Ok(free) if free < FREE_BYTES_MIN => {
            found.insert("disk".into(), format!("{} MiB are left for the data folder; make room", free / 1024 / 1024));
        }
        Ok(_) => {}
        Err(error) => {
            found.insert("disk".into(), format!("the data folder cannot be looked at: {error}"));
        }
    }
    found
}

/// What this process may still write there.
pub fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
