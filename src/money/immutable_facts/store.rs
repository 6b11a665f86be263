//! All SQL of immutable_facts facts.

use std::collections::BTreeMap;

use clock::Instant;
use db::{self, Tx, execute, row, rows};

pub async fn insert_or_find(tx: &mut Tx, now: Instant, name: &str, fact: &str) -> Result<String, db::Error> {
    execute!(
        tx,
        "insert into immutable_facts (name, value, recorded_at) values ($1, $2, $3) on conflict (name) do nothing",
        name,
        fact,
        now
    )?;
    let stored = row!(tx, "select value from immutable_facts where name = $1", name)?;
    stored.ok_or_else(|| db::Error::Statement("a immutable_facts fact vanished".into()))?.get("value")
}

pub async fn list(tx: &mut Tx) -> Result<BTreeMap<String, String>, db::Error> {
    let found = rows!(tx, "select name, value from immutable_facts order by name")?;
    found.iter().map(|row| Ok((row.get("name")?, row.get("value")?))).collect()
}
