//! Reviews: cases that no rule of the daemon decides, such as money that no invoice requested. The operator decides
//! each case.
//!
//! For each kind and subject (the object that the review is about) at most one review is stored. When the cause of a
//! closed review occurs again, the same review is opened again.

mod store;

use std::fmt;
use std::str::FromStr;

use crate::audit_log::{self, Action, Actor};
use chain::Amount;
use clock::Instant;
use db::{self, FromValue, Tx};

pub use store::Review;

/// The kind of a review: the reason why the operator has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The buyer paid more than the amount due of the invoice.
    PaymentSurplus,
    /// An invoice expired after it had received only partial payments.
    PaymentShort,
    /// A second payment arrived for an order that another payment had already paid.
    PaymentSecond,
    /// A reorg removed money of a paid order.
    PaymentReversed,
    /// A deposit is counted for no invoice: the invoice was already paid, the deposit came late, or the deposit is in
    /// another asset.
    DepositUnallocated,
    /// A transfer reached an address of our account key that belongs to no invoice of the database.
    DepositUnclaimed,
    /// The amount of a transfer is too large to be booked.
    DepositOutOfRange,
    /// An endpoint of another provider does not show the transfer of a deposit.
    DepositContradicted,
    /// No endpoint of another provider can show the transfer of a deposit, and the value of the deposit is above the
    /// maximum that is confirmed without such a second endpoint.
    DepositUncorroborated,
    /// A transaction that the daemon did not create spent the output of a deposit.
    DepositSpent,
    /// Addresses had money before they were issued: another database has issued them before.
    AddressUsedBefore,
    /// The balance of an address exceeds its booked deposits by an amount that is too large to be booked.
    BalanceOutOfRange,
    /// An invoice expired before any endpoint had returned the balance of its address.
    BalanceUnverified,
    /// A rescan found a transfer that may be booked already: a balance check has booked money of the same address
    /// without knowing its transaction.
    RescanPossibleDuplicate,
    /// Two endpoints of a chain report different blocks at the same height.
    ChainDisputed,
    /// The follower stopped reading a chain, until the operator resumes the chain.
    ChainHalted,
    /// An order was paid after it had expired or was cancelled.
    OrderPaidLate,
    /// The goods of a paid order cannot be decrypted, because their key is missing.
    OrderUnreadable,
    /// A reorg removed the money of an order permanently after the order was delivered.
    OrderUnpaid,
    /// A paid order could not be delivered.
    OrderUndeliverable,
    /// A mail to a buyer was not delivered: the mailbox does not exist, or every attempt of five days failed.
    MailUndeliverable,
    /// Stock items cannot be decrypted, because their key is missing.
    StockUnreadable,
}

db::text_enum!(Kind {
    PaymentSurplus => "payment.surplus",
    PaymentShort => "payment.short",
    PaymentSecond => "payment.second",
    PaymentReversed => "payment.reversed",
    DepositUnallocated => "deposit.unallocated",
    DepositUnclaimed => "deposit.unclaimed",
    DepositOutOfRange => "deposit.out_of_range",
    DepositContradicted => "deposit.contradicted",
    DepositUncorroborated => "deposit.uncorroborated",
    DepositSpent => "deposit.spent",
    AddressUsedBefore => "address.used_before",
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

/// The error for a text that is not the name of a review kind.
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
    /// The operator closed the review.
    Decided,
    /// The cause of the review does not exist any more.
    Resolved,
    /// A reorg removed the money that the review was about.
    Retracted,
}

db::text_enum!(ClosingReason { Decided => "decided", Resolved => "resolved", Retracted => "retracted" });

/// Opens a review, or opens a closed review of this kind and subject again. Does nothing when the review is already
/// open. `subject` is the object that the review is about, such as `invoice/7`. `detail` is a sentence for the
/// operator.
pub async fn open_or_reopen_review(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    detail: &str,
) -> Result<(), db::Error> {
    store::insert_or_reopen_review(tx, now, kind, subject, detail, None).await
}

/// Opens a review about `amount` base units, or opens the closed review of this kind and subject again. Does nothing
/// when the review is already open, or when the operator has already decided on this amount or a larger amount.
pub async fn open_review_unless_decided(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    detail: &str,
    amount: Amount,
) -> Result<(), db::Error> {
    match store::find_closing_reason_and_amount(tx, kind, subject).await? {
        Some((ClosingReason::Decided, Some(decided))) if amount <= decided => Ok(()),
        Some(_) | None => store::insert_or_reopen_review(tx, now, kind, subject, detail, Some(amount)).await,
    }
}

/// Closes a review because its cause has ended. Does nothing when no review of this kind and subject is open.
pub async fn resolve_review_if_open(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    note: &str,
) -> Result<(), db::Error> {
    store::close_review_if_open(tx, now, kind, subject, ClosingReason::Resolved, note).await?;
    Ok(())
}

/// Closes a review because a reorg removed the money that the review is about, and returns true. Returns false when no
/// review of this kind and subject is open, for example because the operator has already closed it.
pub async fn retract_review_if_open(
    tx: &mut Tx,
    now: Instant,
    kind: Kind,
    subject: &str,
    note: &str,
) -> Result<bool, db::Error> {
    store::close_review_if_open(tx, now, kind, subject, ClosingReason::Retracted, note).await
}

/// Closes a review that the operator has decided, records the action in the audit log, and returns true. Returns false
/// when no review of this kind and subject is open.
pub async fn close_review_by_operator(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    kind: Kind,
    subject: &str,
    note: &str,
) -> Result<bool, db::Error> {
    let is_closed = store::close_review_if_open(tx, now, kind, subject, ClosingReason::Decided, note).await?;
    if is_closed {
        audit_log::record_action(tx, now, actor, Action::ReviewClose, subject, &format!("{kind}: {note}")).await?;
    }
    Ok(is_closed)
}

/// Returns at most `limit` open reviews, oldest first.
pub async fn list_oldest_open_reviews(tx: &mut Tx, limit: i64) -> Result<Vec<Review>, db::Error> {
    store::list_oldest_open_reviews(tx, limit).await
}

/// Returns the number of open reviews.
pub async fn count_open_reviews(tx: &mut Tx) -> Result<u64, db::Error> {
    store::count_open_reviews(tx).await
}
