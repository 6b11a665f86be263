//! The settings and the version of the server, without which it is not used.

use crate::{Error, Row};

/// The oldest usable version of PostgreSQL, as the server numbers it: 140000 for 14.0.
const OLDEST_VERSION: i64 = 140_000;

/// Refuses a server that is too old, that may lose commits, or whose encoding is not UTF-8. `settings` is the row that
/// [`super::Engine`] selects.
pub fn refuse_unsuitable_server(settings: &Row) -> Result<(), Error> {
    let version: i64 = settings.get("version")?;
    if version < OLDEST_VERSION {
        return Err(Error::Unsupported(format!(
            "PostgreSQL {} is not supported; upgrade the server to version 14 or newer",
            version / 10_000
        )));
    }
    if settings.get::<String>("durable")? == "off" {
        return Err(Error::Unsupported(
            "`synchronous_commit` is off, so the server could lose committed transactions; set it to on".into(),
        ));
    }
    let encoding: String = settings.get("encoding")?;
    if encoding != "UTF8" {
        return Err(Error::Unsupported(format!(
            "the encoding of the database is {encoding}; create a database with encoding UTF8"
        )));
    }
    Ok(())
}
