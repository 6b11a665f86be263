//! The double-entry ledger. Postings never change: each hold is posted or voided exactly once by a later posting, and
//! mistakes are corrected by new postings.
//!
//! Invariants:
//! - A posting has one debit, one credit and one asset, so debits equal credits in every asset.
//! - The balance of a non-negative account is never below zero: its posted credits minus its posted and held debits are
//!   zero or more. Every database transaction that posts to the account locks and updates its balance row.
//! - All other accounts may go below zero. Database transactions do not touch their balance rows; [`roll_up_balances`]
//!   updates these rows later, so that concurrent transactions do not wait for each other.
//! - All postings form one hash chain, so [`crate::audit`] finds every posting that was changed later.

mod accounts;
mod journal_entries;
mod balances;
mod hash_chain;
mod store;

#[cfg(test)]
mod tests;

use chain::Amount;

use crate::ledger::journal_entries::AMOUNT_BITS_MAX;
use ids::AccountId;

pub use accounts::{Account, Suspense};
pub use balances::{Balance, find_balance_or_zero, roll_up_balances};
pub use hash_chain::append_postings_to_hash_chain;
pub use journal_entries::{EntryLine, JournalEntry, book_journal_entries, split_into_postable_amounts};

pub(crate) use balances::{BalanceChange, Side};
pub(crate) use hash_chain::GENESIS_HASH;
pub(crate) use store::{
    StoredPosting, list_hashed_postings_after, list_postings_of_entries, list_postings_without_hash,
    list_resolutions_of_holds,
};

/// The kind of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostingKind {
    /// Changes the posted sums of both accounts at once, without a hold.
    Posted,
    /// Creates a hold of the amount on both accounts.
    Pending,
    /// Ends a hold: posts its amount or a part of it, and releases the rest.
    Post,
    /// Voids a hold: releases its whole amount.
    Void,
}

db::text_enum!(PostingKind { Posted => "posted", Pending => "pending", Post => "post", Void => "void" });

/// The reason why journal entries were not booked. The ledger then stores none of the entries.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// A non-negative account would go below zero. `available` is its balance before the posting.
    #[error("available balance is {available}")]
    Insufficient {
        /// The amount that the account could spend before the posting, in base units.
        available: Amount,
    },
    /// The amount of a posting is zero, or 2^127 or more. The field is the amount.
    #[error("an amount of {0} is zero, or 2^{AMOUNT_BITS_MAX} or more")]
    BadAmount(Amount),
    /// No hold has this name, or the hold was already posted or voided.
    #[error("hold `{0}` is not open")]
    NoHold(String),
    /// The entry posts more than the held amount.
    #[error("the hold covers only {held}")]
    AboveHold {
        /// The amount that the hold covers, in base units.
        held: Amount,
    },
    /// The balance of the account would exceed 256 bits. The field is the id of the account.
    #[error("the balance of account {0} would leave the range of amounts")]
    OutOfRange(AccountId),
    /// The database failed. A unique violation means that the name of an entry was used before.
    #[error(transparent)]
    Db(#[from] db::Error),
}
