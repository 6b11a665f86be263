//! The operator's inbox: money and facts that no rule decides, each waiting for a person.
//!
//! There is at most one review for a kind and a subject. A review that was closed is opened again when its cause comes back.

mod store;

use std::fmt;
use std::str::FromStr;

use crate::audit_log::{self, Action, Actor};
use chain::Amount;
use clock::Instant;
use db::{self, FromValue, Tx};

pub use store::Review;

/// The reason for a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// More was paid than the invoice asked for.
    PaymentSurplus,
    /// An invoice expired with part payments.
    PaymentShort,
    /// The payment of an order lost its block.
    PaymentReversed,
    /// A deposit that no invoice asked for: surplus, late or in another asset.
    DepositUnallocated,
    /// A transfer whose amount is too large to be booked.
    DepositOutOfRange,
    /// A deposit's output was spent by a transaction that the daemon did not make.
    DepositSpent,
    /// A balance that exceeds its deposits by more than can be booked.
    BalanceOutOfRange,
    /// An invoice expired although no endpoint returned the balance of its address.
    BalanceUnverified,
    /// A rescan found a transfer that may be booked already, from the balance of its address.
    RescanPossibleDuplicate,
    /// Two endpoints of a chain show different blocks.
    ChainDisputed,
    /// A chain is halted until the operator resumes it.
    ChainHalted,
    /// An order was paid after it ended.
    OrderPaidLate,
    /// A paid order waits for the key of its goods.
    OrderUnreadable,
    /// An order was delivered, and its money vanished for good.
    OrderUnpaid,
    /// A paid order could not be delivered.
    OrderUndeliverable,
    /// A mail to a buyer was not delivered: the mailbox does not exist, or every attempt of five days failed.
    MailUndeliverable,
    /// Stock is encrypted under a key that is missing.
    StockUnreadable,
}

db::text_enum!(Kind {
    PaymentSurplus => "payment.surplus",
    PaymentShort => "payment.short",
    PaymentReversed => "payment.reversed",
    DepositUnallocated => "deposit.unallocated",
    DepositOutOfRange => "deposit.out_of_range",
    DepositSpent => "deposit.spent",
    BalanceOutOfRange => "balance.out_of_range",
    BalanceUnverified => "balance.unverified",
    RescanPossibleDuplicate => "rescan.possible_duplicate",
    ChainDisputed => "chain.disputed",
    ChainHalted => "chain.halted",
    OrderPaidLate => "order.paid_late",
    OrderUnreadable => "order.unreadable",
    OrderUnpaid => "order.unpaid",
    OrderUndeliverable => "order.undeliverable",
    MailUndeliverable => "mail.undeliverable",
    StockUnreadable => "stock.unreadable",
});

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind of review.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind of review `{0}`")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Kind, UnknownKind> {
        Kind::from_value(&db::Value::from(text)).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// The reason why a review is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosingReason {
    /// The operator decided.
    Decided,
    /// The cause is over.
    Resolved,
    /// The money or fact that it was about vanished with its block.
    Retracted,
}

db::text_enum!(ClosingReason { Decided => "decided", Resolved => "resolved", Retracted => "retracted" });

/// Opens a review unless one of this kind and subject is open. `subject` names what it is about, such as `invoice/7`;
/// `detail` is a sentence for the operator.
pub async fn open_review(tx: &mut Tx, now: Instant, kind: Kind, subject: &str, detail: &str) -> Result<(), db::Error> {
    store::insert_or_reopen_review(tx, now, kind, subject, detail, None).await
}

/// Opens a review about `amount` base units, unless one is open or the operator already decided on this amount or a larger
/// one.
pub async fn open_review_for_amount(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    detail: &str,
    amount: Amount,
) -> Result<(), db::Error> {
    match store::find_closed_review(tx, kind, subject).await? {
        Some((ClosingReason::Decided, Some(decided))) if amount <= decided => Ok(()),
        Some(_) | None => store::insert_or_reopen_review(tx, now, kind, subject, detail, Some(amount)).await,
    }
}

/// Closes a review because its cause is over; does nothing when none is open.
pub async fn resolve_review(tx: &mut Tx, now: Instant, kind: Kind, subject: &str, note: &str) -> Result<(), db::Error> {
    store::close_review(tx, now, kind, subject, ClosingReason::Resolved, note).await?;
    Ok(())
}

/// Closes a review because the money or fact that it was about vanished. Returns false when no such review is open, for
/// example because the operator decided before.
pub async fn retract_review(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    note: &str,
) -> Result<bool, db::Error> {
    store::close_review(tx, now, kind, subject, ClosingReason::Retracted, note).await
}

/// Closes a review that an operator decided and records the action in the audit log. Returns false when no review of this
/// kind and subject is open.
pub async fn close_review_by_operator(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    kind: Kind,
    subject: &str,
    note: &str,
) -> Result<bool, db::Error> {
    let is_closed = store::close_review(tx, now, kind, subject, ClosingReason::Decided, note).await?;
    if is_closed {
        audit_log::record_action(tx, now, actor, Action::ReviewClose, subject, &format!("{kind}: {note}")).await?;
    }
    Ok(is_closed)
}

/// Returns the open reviews, oldest first.
pub async fn list_open_reviews(tx: &mut Tx, limit: i64) -> Result<Vec<Review>, db::Error> {
    store::list_open_reviews(tx, limit).await
}

/// Returns the number of open reviews.
pub async fn count_open_reviews(tx: &mut Tx) -> Result<u64, db::Error> {
    store::count_open_reviews(tx).await
}
