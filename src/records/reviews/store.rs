//! All SQL of reviews.

use clock::Instant;
use db::{self, Tx, execute, row, rows};

#[derive(Debug, Clone)]
pub struct Review {
    pub kind: String,
    pub subject: String,
    pub detail: String,
    pub opened_at: Instant,
}

/// What a review that is closed was about, and why it is.
#[derive(Debug, Clone)]
pub struct Closed {
    pub detail: String,
    pub note: String,
}

pub async fn insert_review(
    tx: &mut Tx,
    now: Instant,
    kind: &'static str,
    subject: &str,
    detail: &str,
) -> Result<(), db::Error> {
    // A review that was closed opens again when its cause comes back.
    execute!(
        tx,
        "insert into reviews (kind, subject, detail, opened_at) values ($1, $2, $3, $4)
         on conflict (kind, subject) do update set detail = excluded.detail, opened_at = excluded.opened_at,
         closed_at = null, closing_note = null where reviews.closed_at is not null",
        kind,
        subject,
        detail,
        now
    )?;
    Ok(())
}

/// False when none is open.
pub async fn set_closed(tx: &mut Tx, now: Instant, kind: &str, subject: &str, note: &str) -> Result<bool, db::Error> {
    let closed = execute!(
        tx,
        "update reviews set closed_at = $3, closing_note = $4 where kind = $1 and subject = $2 and closed_at is null",
        kind,
        subject,
        now,
        note
    )?;
    Ok(closed == 1)
}

pub async fn find_closed(tx: &mut Tx, kind: &str, subject: &str) -> Result<Option<Closed>, db::Error> {
    let found = row!(
        tx,
        "select detail, closing_note from reviews where kind = $1 and subject = $2 and closed_at is not null",
        kind,
        subject
    )?;
    let closed = |row: db::Row| {
        let note: Option<String> = row.get("closing_note")?;
        Ok(Closed { detail: row.get("detail")?, note: note.unwrap_or_default() })
    };
    found.map(closed).transpose()
}

pub async fn list_open(tx: &mut Tx, limit: i64) -> Result<Vec<Review>, db::Error> {
    let found = rows!(
        tx,
        "select kind, subject, detail, opened_at from reviews where closed_at is null order by opened_at, id limit $1",
        limit
    )?;
    found
        .iter()
        .map(|row| {
            Ok(Review {
                kind: row.get("kind")?,
                subject: row.get("subject")?,
                detail: row.get("detail")?,
                opened_at: row.get("opened_at")?,
            })
        })
        .collect()
}

pub async fn count_open(tx: &mut Tx) -> Result<u64, db::Error> {
    let counted = row!(tx, "select count(*) as n from reviews where closed_at is null")?;
    counted.ok_or(db::Error::UnexpectedRowCount { expected: 1, found: 0 })?.get("n")
}
