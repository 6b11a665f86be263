//! The clock of the demo. It runs ahead of the system clock, and the demo stores the difference in its data folder.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::commands::command_error::CommandError;
use crate::commands::private_files::write_private_file;
use clock::Clock;

/// The file that contains how many milliseconds the demo's clock is ahead of the system clock.
const CLOCK_FILE: &str = "clock-ahead-ms";

/// Returns a clock that is ahead of the system clock by the duration stored in `folder`, or by nothing when none is
/// stored. So a new run of the demo never starts at an earlier time than the previous run ended.
pub fn load_demo_clock(folder: &Path) -> Result<Clock, CommandError> {
    let file = folder.join(CLOCK_FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let ms = text.trim().parse().map_err(|e| CommandError::error_with_context(file.display(), e))?;
            Ok(Clock::ahead(ms))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Clock::ahead(0)),
        Err(e) => Err(CommandError::error_with_context(file.display(), e)),
    }
}

/// Advances the clock by `ms` milliseconds, and stores in `folder` by how much it is now ahead of the system clock.
pub fn advance_and_store_demo_clock(clock: &Clock, folder: &Path, ms: i64) -> Result<(), CommandError> {
    clock.advance_ms_unless_system(ms);
    match clock {
        Clock::Ahead(total) => write_private_file(&folder.join(CLOCK_FILE), &total.load(Ordering::SeqCst).to_string()),
        Clock::System | Clock::Manual(_) => Ok(()),
    }
}
