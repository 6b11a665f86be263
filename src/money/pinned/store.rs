//! All SQL of pinned facts.

use crate::clock::Instant;
use crate::db::{self, Tx, execute, row};

pub async fn insert_or_find(tx: &mut Tx, now: Instant, name: &str, fact: &str) -> Result<String, db::Error> {
    execute!(
        tx,
        "insert into pinned_facts (name, fact, pinned_at) values ($1, $2, $3) on conflict (name) do nothing",
        name,
        fact,
        now
    )?;
    let stored = row!(tx, "select fact from pinned_facts where name = $1", name)?;
    stored.ok_or_else(|| db::Error::Statement("a pinned fact vanished".into()))?.get("fact")
}
