//! Deposits: transfers to the addresses of invoices.
//!
//! One database transaction stores the deposits of a block together with the cursor. The ledger books the money before
//! an invoice uses it. When a reorg removes a block, the ledger reverses all credits from its deposits.

pub mod machine;
mod block_sums;
mod batch;
mod apply_blocks;
mod rewind;
mod rescan;
mod balance_check;
mod outputs;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use chain::{BlockHash, ChainId, Header, Height, Transfer, TransferIndex, TxId};

use crate::assets::FollowedChain;
use crate::cursors::Position;
use crate::effects::PaymentListener;
use crate::invoices::{self, Disposition, Invoice};
use crate::ledger::{PostError, Suspense};
use clock::Instant;
use db::{self, Tx};
use ids::{AddressId, DepositId, InvoiceId};

pub use apply_blocks::AppliedBlocks;
pub use balance_check::{BalanceCheck, UnexplainedCredit, list_bookable_balance_checks, list_open_native_invoices};
pub use machine::State;
pub use outputs::{UnspentOutput, list_unspent_outputs, watch_unspent_outputs};
pub use rescan::{RescanError, Rescanned};
pub(crate) use store::set_disposition_of_invoice_deposits;

/// The maximum size of a deposit, in bits: amounts are below 2^112 base units. No token of value has such a supply;
/// only tokens that anyone can mint without limit have larger transfers. Sums of smaller deposits never overflow an
/// amount.
const BITS_MAX: usize = 112;

/// Returns true when a transfer of `amount` base units is booked as a deposit: from 1 to 2^112 − 1.
fn is_bookable_amount(amount: chain::Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= BITS_MAX
}

/// The grace time of payment windows: a deposit that is mined at most this long after the end of the window is still in
/// time. It is needed because block times are not exact.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// The duration of the grace time, in milliseconds.
    pub ms: i64,
}

/// The limits of a [`DepositService`].
#[derive(Debug, Clone, Copy)]
pub struct DepositLimits {
    /// The grace time of payment windows: a deposit that is mined at most this long after the end of the window is
    /// still in time.
    pub grace: Grace,
    /// The number of recent blocks that are stored. After a reorg, the follower cannot go back further than these
    /// blocks.
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
}

impl Deposit {
    /// Returns the name of the journal entry that holds the amount in the ledger until the deposit is confirmed.
    fn hold_entry_name(&self) -> String {
        format!("deposit/{}/seen", self.id)
    }

    /// Returns the reason why the money of the deposit belongs in a suspense account; `None` when the invoice counts
    /// the deposit.
    fn suspense_reason(&self) -> Option<Suspense> {
        self.used.suspense_reason()
    }
}

/// A deposit that is not stored yet.
#[derive(Debug)]
struct NewDeposit {
    /// The deposit; its id is 0 until it is stored.
    deposit: Deposit,
    /// The state in which the deposit will be inserted.
    to: State,
    /// The address that received the transfer.
    address: AddressId,
    /// The hash of the block, and its time in Unix seconds.
    block: (BlockHash, i64),
    txid: TxId,
    /// The index of the transaction in its block, and the part of the transaction. Together they identify the transfer
    /// in its block.
    place: TransferIndex,
    /// The sending address; `None` on chains whose transfers have no single sender, such as Bitcoin.
    sender: Option<String>,
}

impl NewDeposit {
    /// Returns a deposit that is not stored. It needs the confirmations of its invoice or, if that is more, those of all
    /// deposits of its block together.
    fn new(
        chain: &FollowedChain,
        header: &Header,
        transfer: &Transfer,
        invoice: &Invoice,
        used: Disposition,
        block_confirmations: u32,
    ) -> NewDeposit {
        // `invoice.confirmations` applies only to the chain of the invoice. On another chain of the family, the deposit
        // needs the confirmations of that chain.
        let confirmations =
            if invoice.chain == chain.id { invoice.confirmations } else { chain.depths.required_confirmations(None) };
        let confirmations = confirmations.max(block_confirmations);
        let deposit = Deposit {
            id: DepositId(0),
            invoice: invoice.id,
            height: header.height,
            confirm_height: header.height + u64::from(confirmations) - 1,
            asset: transfer.asset.clone(),
            amount: transfer.amount,
            state: State::Seen,
            used,
        };
        NewDeposit {
            deposit,
            to: State::Seen,
            address: invoice.address_id,
            block: (header.hash, header.time),
            txid: transfer.txid,
            place: transfer.index,
            sender: transfer.from.clone(),
        }
    }
}

/// Books the deposits of one chain and reports payment changes to the listener. Every function that can change a
/// payment is a method of this type, so that the listener hears of every change.
#[derive(Clone)]
pub struct DepositService {
    chain: FollowedChain,
    limits: DepositLimits,
    listener: Arc<dyn PaymentListener>,
}

impl DepositService {
    /// Returns the service that books the deposits of one chain. `listener` is told about every payment change.
    pub fn new(chain: FollowedChain, limits: DepositLimits, listener: Arc<dyn PaymentListener>) -> DepositService {
        DepositService { chain, limits, listener }
    }

    /// Returns the chain whose deposits the service books.
    pub fn chain(&self) -> &FollowedChain {
        &self.chain
    }

    /// Returns the limits that the service was created with.
    pub fn limits(&self) -> DepositLimits {
        self.limits
    }

    /// Expires invoices whose window has ended; [`invoices::list_expirable_invoices`] returns the candidates. When the
    /// balances of their addresses could not be compared with the deposits, `unverified` is the reason, and each
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

/// Returns the height of the highest block with deposits that `position` confirms or makes final; `None` when there
/// are none.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_highest_due_height(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
) -> Result<Option<Height>, db::Error> {
    store::find_highest_due_height(tx, chain, position).await
}

/// Returns true when a rewind to `height` would reverse a confirmed deposit.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn has_confirmed_deposit_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    store::has_confirmed_deposit_above(tx, chain, height).await
}
