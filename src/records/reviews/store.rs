//! All SQL of reviews.

use clock::Instant;
use db::{self, Tx, execute, row, rows};

/// An open review.
#[derive(Debug, Clone)]
pub struct Review {
    /// The reason, a dotted name such as `payment.short`.
    pub kind: String,
    /// The object of the review, such as `invoice/7`; unique among the reviews of a kind.
    pub subject: String,
    /// The facts, in sentences for the operator.
    pub detail: String,
    /// The time at which the review was opened, or opened again after it was closed.
    pub opened_at: Instant,
}

/// A closed review.
#[derive(Debug, Clone)]
pub struct Closed {
    /// The facts, in sentences for the operator.
    pub detail: String,
    /// The reason for closing the review.
    pub note: String,
}

/// Inserts an open review, or opens a closed one of this kind and subject again. An open one stays unchanged.
pub async fn insert_review(
    tx: &mut Tx,
    now: Instant,
    kind: &'static str,
    subject: &str,
    detail: &str,
) -> Result<(), db::Error> {
    // A closed review is opened again when its cause comes back.
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

/// Closes a review. Returns false when no review of this kind and subject is open.
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

/// Returns the review of this kind and subject if it is closed; `None` when it is open or does not exist.
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

/// Returns at most `limit` open reviews, oldest first.
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

/// Returns the number of open reviews.
pub async fn count_open(tx: &mut Tx) -> Result<u64, db::Error> {
    let counted = row!(tx, "select count(*) as n from reviews where closed_at is null")?;
    counted.ok_or(db::Error::UnexpectedRowCount { expected: 1, found: 0 })?.get("n")
}
