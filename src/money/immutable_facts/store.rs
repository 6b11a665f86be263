//! All SQL of immutable_facts facts.

use std::collections::BTreeMap;

use clock::Instant;
use db::{self, Tx, execute, row, rows};

pub async fn insert_or_find(tx: &mut Tx, now: Instant, name: &str, fact: &str) -> Result<String, db::Error> {
    execute!(
        tx,
        "insert into pinned_facts (name, fact, pinned_at) values ($1, $2, $3) on conflict (name) do nothing",
        name,
        fact,
        now
    )?;
    let stored = row!(tx, "select fact from pinned_facts where name = $1", name)?;
    stored.ok_or_else(|| db::Error::Statement("a immutable_facts fact vanished".into()))?.get("fact")
}

pub async fn list(tx: &mut Tx) -> Result<BTreeMap<String, String>, db::Error> {
    let found = rows!(tx, "select name, fact from pinned_facts order by name")?;
    found.iter().map(|row| Ok((row.get("name")?, row.get("fact")?))).collect()
}
