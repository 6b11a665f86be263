//! The size of the write-ahead log. The writer makes a checkpoint when the log has twice as many pages as the database,
//! but at least 1,000 and at most 16,384 pages. No other connection makes checkpoints.
//!
//! A checkpoint writes each changed page once, at most the whole database. So a small database needs only a small log, and
//! a large one gains from a long log, in which most pages change several times. A load like that of orders, from an empty
//! database up to 25 MiB in commits of 16 orders, ran at 90 % of the speed that a log of 64 MiB allows; logs of 4 and
//! 16 MiB allowed 68 % and 80 % (2026-11-30).

use rusqlite::Connection;

use crate::Error;
use crate::sqlite::statement::to_error;

/// A checkpoint is made when the log has this many pages for each page of the database.
const LOG_PAGES_PER_PAGE: i64 = 2;
/// The least number of pages in the log before a checkpoint: 4 MiB, SQLite's own default.
const LOG_PAGES_MIN: i64 = 1_000;
/// The largest number of pages in the log before a checkpoint: 64 MiB.
const LOG_PAGES_MAX: i64 = 16_384;
/// Size of the header before each page in the log.
const FRAME_HEADER_BYTES: i64 = 24;
/// Commits after which the writer adapts the size of the log to the size of the database.
pub const COMMITS_PER_ADJUSTMENT: u32 = 64;

/// Sets the number of log pages after which a checkpoint is made. While a long read delays checkpoints, the log file
/// can grow further; the next complete checkpoint cuts it to a quarter above this size.
pub fn limit_log_size_by_database_size(connection: &Connection) -> Result<(), Error> {
    let bound = || {
        let number = |row: &rusqlite::Row<'_>| row.get(0);
        let pages: i64 = connection.query_row("pragma page_count", [], number)?;
        let page_bytes: i64 = connection.query_row("pragma page_size", [], number)?;
        let log_pages = pages.saturating_mul(LOG_PAGES_PER_PAGE).clamp(LOG_PAGES_MIN, LOG_PAGES_MAX);
        connection.pragma_update(None, "wal_autocheckpoint", log_pages)?;
        // The limit is a quarter above the usual size of the log, so that an ordinary checkpoint does not cut the file.
        let log_bytes = log_pages.saturating_mul(page_bytes.saturating_add(FRAME_HEADER_BYTES));
        connection.pragma_update(None, "journal_size_limit", log_bytes.saturating_add(log_bytes / 4))
    };
    bound().map_err(|e| to_error(&e))
}
