//! All SQL of reviews.

use crate::reviews::{ClosingReason, Kind};
use chain::Amount;
use clock::Instant;
use db::{self, Tx, execute, row, rows};

/// An open review, as the operator sees it.
#[derive(Debug, Clone)]
pub struct Review {
    /// The reason why the operator has to decide.
    pub kind: Kind,
    /// The object that the review is about, such as `invoice/7`.
    pub subject: String,
    /// A sentence that explains the case to the operator.
    pub detail: String,
    /// The time when the review was opened, or was opened again.
    pub opened_at: Instant,
}

/// Inserts an open review. When the review exists and is closed, it is opened again with the new detail and amount.
/// When the review is open, it stays unchanged.
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

/// Closes the open review of this kind and subject, and returns true. Returns false when no such review is open.
pub async fn close_review_if_open(
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

/// Returns the reason why a review was closed, and the amount in base units that the review was about. `None` when the
/// review is open or does not exist.
pub async fn find_closing_reason_and_amount(
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

/// Returns at most `limit` open reviews, oldest first.
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

/// Returns the number of open reviews.
pub async fn count_open_reviews(tx: &mut Tx) -> Result<u64, db::Error> {
    let counted = row!(tx, "select count(*) as n from reviews where closed_at is null")?;
    counted.ok_or(db::Error::UnexpectedRowCount { expected: 1, found: 0 })?.get("n")
}
