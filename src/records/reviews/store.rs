//! All SQL of reviews.

use crate::reviews::{ClosingReason, Kind};
use chain::Amount;
use clock::Instant;
use db::{self, Tx, execute, row, rows};

/// A review as the operator sees it.
#[derive(Debug, Clone)]
pub struct Review {
    pub kind: Kind,
    pub subject: String,
    pub detail: String,
    pub opened_at: Instant,
}

/// A closed review is opened again with the new detail and amount; an open one stays as it is.
pub async fn insert_or_reopen_review(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    detail: &str,
    amount: Option<Amount>,
) -> Result<(), db::Error> {
    execute!(
        tx,
        "insert into reviews (kind, subject, detail, amount, opened_at) values ($1, $2, $3, $4, $5)
         on conflict (kind, subject) do update set detail = excluded.detail, amount = excluded.amount,
         opened_at = excluded.opened_at, closed_at = null, closing_reason = null, closing_note = null
         where reviews.closed_at is not null",
        kind,
        subject,
        detail,
        amount,
        now
    )?;
    Ok(())
}

/// Returns false when no such review is open.
pub async fn close_review(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    reason: ClosingReason,
    note: &str,
) -> Result<bool, db::Error> {
    let closed = execute!(
        tx,
        "update reviews set closed_at = $3, closing_reason = $4, closing_note = $5
         where kind = $1 and subject = $2 and closed_at is null",
        kind,
        subject,
        now,
        reason,
        note
    )?;
    Ok(closed == 1)
}

/// Returns why a review was closed, and the amount that it was about; `None` when it is open or never existed.
pub async fn find_closed_review(
    tx: &mut Tx,
    kind: Kind,
    subject: &str,
) -> Result<Option<(ClosingReason, Option<Amount>)>, db::Error> {
    let found = row!(
        tx,
        "select closing_reason, amount from reviews where kind = $1 and subject = $2 and closed_at is not null",
        kind,
        subject
    )?;
    found.map(|row| Ok((row.get("closing_reason")?, row.get("amount")?))).transpose()
}

pub async fn list_oldest_open_reviews(tx: &mut Tx, limit: i64) -> Result<Vec<Review>, db::Error> {
    let found = rows!(
        tx,
        "select kind, subject, detail, opened_at from reviews where closed_at is null order by opened_at, id limit $1",
        limit
    )?;
    let review = |row: &db::Row| {
        Ok(Review {
            kind: row.get("kind")?,
            subject: row.get("subject")?,
            detail: row.get("detail")?,
            opened_at: row.get("opened_at")?,
        })
    };
    found.iter().map(review).collect()
}

pub async fn count_open_reviews(tx: &mut Tx) -> Result<u64, db::Error> {
    let counted = row!(tx, "select count(*) as n from reviews where closed_at is null")?;
    counted.ok_or(db::Error::UnexpectedRowCount { expected: 1, found: 0 })?.get("n")
}
