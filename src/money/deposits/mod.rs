//! Deposits: transfers to the addresses of invoices.
//!
//! One database transaction stores the deposits of a block and moves the cursor past the block. The ledger books the
//! money of a deposit before an invoice uses it. When a reorg removes a block, the ledger reverses all credits from the
//! deposits of the block.

pub mod machine;
pub mod second_source;
mod block_sums;
mod new_deposit;
mod batch;
mod apply_blocks;
mod corroboration;
mod rewind;
mod rejection;
mod rescan;
mod balance_check;
mod outputs;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use chain::{ChainId, Height};

use crate::assets::FollowedChain;
use crate::effects::PaymentListener;
use crate::invoices::{self, Disposition};
use crate::ledger::{PostError, Suspense};
use clock::Instant;
use db::{self, Tx};
use ids::{DepositId, InvoiceId};

pub use apply_blocks::AppliedBlocks;
pub use balance_check::{
    BalanceCheck, UnexplainedCredit, list_balance_checks_in_range, list_open_native_invoices_and_cursor,
};
pub use corroboration::{BlockToCorroborate, list_blocks_to_corroborate};
pub use machine::{Corroboration, State};
pub use outputs::{UnspentOutput, list_unspent_outputs, watch_unspent_outputs};
pub use rejection::{RejectError, find_deposit_chain};
pub use rescan::{RescanError, Rescanned};
pub use second_source::SingleSourceLimit;
pub(crate) use store::replace_disposition_of_deposits;

use new_deposit::NewDeposit;

/// The maximum size of a deposit, in bits: amounts are below 2^112 base units. No token of value has such a supply;
/// only tokens that anyone can mint without limit have larger transfers. The limit also makes sure that a sum of
/// deposits does not overflow an amount.
const BITS_MAX: usize = 112;

/// Returns true when a transfer of `amount` base units is booked as a deposit: from 1 to 2^112 − 1.
fn is_bookable_amount(amount: chain::Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= BITS_MAX
}

/// The time after the end of a payment window during which deposits are still in time, because block times are not
/// exact.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// The duration in milliseconds.
    pub ms: i64,
}

/// The limits of a [`DepositService`].
#[derive(Debug, Clone, Copy)]
pub struct DepositLimits {
    /// The time after the end of a payment window during which deposits are still in time.
    pub grace: Grace,
    /// The number of recent blocks that are stored. The follower cannot rewind further than these blocks.
    pub keep: u64,
}

/// A stored deposit.
#[derive(Debug, Clone)]
struct Deposit {
    id: DepositId,
    invoice: InvoiceId,
    height: Height,
    confirm_height: Height,
    asset: chain::AssetId,
    amount: chain::Amount,
    state: State,
    used: Disposition,
    corroboration: Corroboration,
    /// The value, in US cents, of a deposit that was confirmed without a second source; `None` for all others.
    single_source_usd_cents: Option<i64>,
}

impl Deposit {
    /// Returns the name of the journal entry that holds the amount in the ledger until the deposit is confirmed.
    fn hold_entry_name(&self) -> String {
        format!("deposit/{}/seen", self.id)
    }

    /// Returns true when the deposit cannot be confirmed, however many confirmations it has: no second source shows it
    /// yet, and it was not confirmed without a second source.
    fn waits_for_second_source(&self) -> bool {
        let shown = self.corroboration == Corroboration::Shown || self.single_source_usd_cents.is_some();
        self.state == State::Seen && !shown
    }

    /// Returns the reason why the deposit is in a suspense account; `None` when its invoice counts the deposit.
    fn suspense_reason(&self) -> Option<Suspense> {
        self.used.suspense_reason()
    }
}

/// Books the deposits of one chain, and reports payment changes to the listener. All functions that can change a
/// payment because of deposits are methods of this type, so that every payment change reaches the listener.
#[derive(Clone)]
pub struct DepositService {
    chain: FollowedChain,
    limits: DepositLimits,
    /// The value of deposits that may be confirmed while no second source can be asked; `None` on chains that need no
    /// second source.
    second_source: Option<SingleSourceLimit>,
    listener: Arc<dyn PaymentListener>,
}

impl DepositService {
    /// Returns the service of one chain. `listener` receives every payment change.
    pub fn new(chain: FollowedChain, limits: DepositLimits, listener: Arc<dyn PaymentListener>) -> DepositService {
        DepositService { chain, limits, second_source: None, listener }
    }

    /// Returns the service of a chain on which an endpoint of another provider must show each deposit before the
    /// deposit is confirmed. `limit` is the value of deposits that may be confirmed while no such endpoint can be
    /// asked.
    pub fn require_second_source(self, limit: SingleSourceLimit) -> DepositService {
        DepositService { second_source: Some(limit), ..self }
    }

    /// Returns true when an endpoint of another provider must show each deposit before it is confirmed.
    pub fn needs_second_source(&self) -> bool {
        self.second_source.is_some()
    }

    /// Returns the chain whose deposits the service books.
    pub fn chain(&self) -> &FollowedChain {
        &self.chain
    }

    /// Returns the limits that the service was created with.
    pub fn limits(&self) -> DepositLimits {
        self.limits
    }

    /// Expires the invoices in `invoices` whose payment window has ended; [`invoices::list_expirable_invoices`] returns
    /// the candidates. Invoices that are closed or have a deposit that is not confirmed are skipped. `unverified` is
    /// the reason why the balances of their addresses could not be compared with the deposits; if it is given, each
    /// expired invoice gets a review.
    ///
    /// # Errors
    /// Returns an error when the ledger refuses an entry.
    pub async fn expire_ended_invoices(
        &self,
        tx: &mut Tx,
        now: Instant,
        invoices: &BTreeSet<InvoiceId>,
        unverified: Option<&str>,
    ) -> Result<(), PostError> {
        let changes = invoices::expire_ended_invoices(tx, now, invoices, unverified).await?;
        Ok(changes.dispatch_to_listener(tx, now, &*self.listener).await?)
    }
}

/// Returns true when a rewind to `height` would reverse a confirmed deposit. Final deposits are not considered, because
/// a rewind never reverses them.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn has_confirmed_deposit_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    store::has_confirmed_deposit_above(tx, chain, height).await
}
