//! All SQL of immutable facts.

use std::collections::BTreeMap;

use clock::Instant;
use db::{self, Tx, execute, row, rows};

/// Inserts the fact when its name is not stored yet. Returns the stored value, which differs from `value` when the fact
/// has changed since it was first recorded.
pub async fn find_or_insert_fact(tx: &mut Tx, now: Instant, name: &str, value: &str) -> Result<String, db::Error> {
    execute!(
        tx,
        "insert into immutable_facts (name, value, recorded_at) values ($1, $2, $3) on conflict (name) do nothing",
        name,
        value,
        now
    )?;
    let stored = row!(tx, "select value from immutable_facts where name = $1", name)?;
    stored.ok_or_else(|| db::Error::Statement("an immutable fact vanished".into()))?.get("value")
}

/// Returns the values of all facts by name.
pub async fn list_facts(tx: &mut Tx) -> Result<BTreeMap<String, String>, db::Error> {
    let found = rows!(tx, "select name, value from immutable_facts order by name")?;
    found.iter().map(|row| Ok((row.get("name")?, row.get("value")?))).collect()
}
