//! Reviews: cases that no rule decides, so the operator must, such as money that no invoice asked for.

mod store;

use crate::audit_log::{self, Action, Actor};
use clock::Instant;
use db::{self, Tx};

pub use store::{Closed, Review};

/// Opens a review unless one of this kind and subject is open. A closed one is opened again.
pub async fn open(tx: &mut Tx, now: Instant, kind: &'static str, subject: &str, detail: &str) -> Result<(), db::Error> {
    store::insert_review(tx, now, kind, subject, detail).await
}

/// Closes a review whose cause has gone or was decided. Does nothing when no review of this kind and subject is open.
pub async fn close(tx: &mut Tx, now: Instant, kind: &'static str, subject: &str, note: &str) -> Result<(), db::Error> {
    store::set_closed(tx, now, kind, subject, note).await?;
    Ok(())
}

/// Closes a review because its object does not exist any more, such as a deposit after a reorg. Returns false when no
/// such review is open, for example because an operator has closed it.
pub async fn retract(
    tx: &mut Tx,
    now: Instant,
    kind: &'static str,
    subject: &str,
    note: &str,
) -> Result<bool, db::Error> {
    store::set_closed(tx, now, kind, subject, note).await
}

/// Returns the closed review of this kind and subject; `None` when it is open or never existed.
pub async fn find_closed(tx: &mut Tx, kind: &'static str, subject: &str) -> Result<Option<Closed>, db::Error> {
    store::find_closed(tx, kind, subject).await
}

/// Closes a review that an operator decided and records the action in the audit log. Returns false when no review of
/// this kind and subject is open.
pub async fn close_by_operator(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    kind: &str,
    subject: &str,
    note: &str,
) -> Result<bool, db::Error> {
    let is_closed = store::set_closed(tx, now, kind, subject, note).await?;
    if is_closed {
        audit_log::record(tx, now, actor, Action::ReviewClose, subject, &format!("{kind}: {note}")).await?;
    }
    Ok(is_closed)
}

/// Returns at most `limit` open reviews, oldest first.
pub async fn list_open(tx: &mut Tx, limit: i64) -> Result<Vec<Review>, db::Error> {
    store::list_open(tx, limit).await
}

/// Returns the number of open reviews.
pub async fn count_open(tx: &mut Tx) -> Result<u64, db::Error> {
    store::count_open(tx).await
}
