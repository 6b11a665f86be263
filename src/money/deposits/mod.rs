//! Deposits: transfers to the addresses of invoices.
//!
//! One database transaction stores the deposits of a block together with the cursor. The ledger books the money before
//! an invoice uses it. When a reorg removes a block, the ledger reverses all credits from its deposits.

pub mod machine;
pub mod rescan;
mod batch;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use chain::{
    AssetKind, Block, BlockHash, BlockRef, ChainId, Header, Height, OutPoint, Transfer, TransferIndex, TxId, TxPart,
};

use crate::assets::FollowedChain;
use crate::deposits::batch::DepositBatch;
use crate::effects::{self, Effects, PaymentListener, Retraction, ReviewChange, ReviewRequest};
use crate::invoices::{self, Disposition, Invoice, InvoiceUpdate};
use crate::ledger::{Account, EntryLine, JournalEntry, PostError, Suspense};
use clock::Instant;
use db::{self, Tx};
use ids::{AddressId, DepositId, InvoiceId};
use records::audit_log::{self, Action, Actor};
use records::reviews;

pub use machine::{Position, State};
pub use store::Cursor;
pub(crate) use store::set_deposit_dispositions;

/// The maximum number of stored deposits that one database transaction confirms or makes final. The next call handles
/// the rest.
const ADVANCE_MAX: i64 = 2_000;

/// The maximum size of a deposit, in bits: amounts are below 2^112 base units. No token of value has such a supply;
/// only tokens that anyone can mint without limit have larger transfers. Sums of smaller deposits never overflow an
/// amount.
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
pub struct Limits {
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
}

impl Deposit {
    /// Returns the name of the journal entry that holds the amount in the ledger until the deposit is confirmed.
    fn hold_entry_name(&self) -> String {
        format!("deposit/{}/seen", self.id)
    }

    /// Returns the reason why the deposit is in a suspense account; `None` when its invoice counts the deposit.
    fn suspense_reason(&self) -> Option<Suspense> {
        self.used.suspense_reason()
    }
}

/// A deposit that is not stored yet.
#[derive(Debug)]
struct NewDeposit {
    /// The deposit; its id is 0 until it is stored.
    deposit: Deposit,
    /// The state in which the deposit is stored.
    to: State,
    /// The address that received the transfer.
    address: AddressId,
    /// The hash of the block, and its time in Unix seconds.
    block: (BlockHash, i64),
    txid: TxId,
    /// The transaction index and the part of the transaction; together they identify the transfer in its block.
    place: TransferIndex,
    /// The sending address; `None` on chains whose transfers have no single sender, such as Bitcoin.
    sender: Option<String>,
}

impl NewDeposit {
    fn new(
        chain: &FollowedChain,
        header: &Header,
        transfer: &Transfer,
        invoice: &Invoice,
        used: Disposition,
    ) -> NewDeposit {
        // The required confirmations in the invoice apply to its own chain only. A sibling chain needs its own number.
        let confirmations =
            if invoice.chain == chain.id { invoice.confirmations } else { chain.depths.required_confirmations(None) };
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

/// An unspent output of a deposit, on chains with outputs such as Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unspent {
    /// The transaction and the index of the output.
    pub output: OutPoint,
    /// Base units of the native asset.
    pub amount: chain::Amount,
    /// The height of the block with the deposit.
    pub height: Height,
    /// The state of the deposit.
    pub state: State,
    /// The receiving address, in the canonical form of its chain.
    pub address: String,
    /// The BIP 32 child index from which the address was derived, below its account key.
    pub index: u32,
}

/// Returns at most `limit` outputs of deposits that no block has spent, oldest first.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_unspent_outputs(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<Unspent>, db::Error> {
    store::list_unspent_outputs(tx, chain, limit).await
}

/// Returns the position from which the follower of a chain continues; `None` before the first start.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<Cursor>, db::Error> {
    store::find_cursor(tx, chain).await
}

/// Starts to follow a chain after the block `header`. No address may have been issued on the chain before.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn start_following_chain(tx: &mut Tx, chain: &ChainId, header: &Header) -> Result<(), db::Error> {
    store::insert_cursor(tx, chain, header).await?;
    store::insert_blocks(tx, chain, std::slice::from_ref(header)).await
}

/// Returns the position of a chain whose cursor is at the height `cursor`. `mark` is the height that the node reports
/// as final; `None` when the node reports no final block, or when that block is on another branch.
pub fn compute_position(chain: &FollowedChain, cursor: Height, mark: Option<Height>) -> Position {
    Position { cursor, last: machine::compute_final_height(cursor, mark, chain.depths.last, chain.depths.least) }
}

/// Books the deposits of one chain and reports payment changes to the listener. All functions that can change a
/// payment are methods of this type, so that every payment change reaches the listener.
#[derive(Clone)]
pub struct DepositService {
    chain: FollowedChain,
    limits: Limits,
    listener: Arc<dyn PaymentListener>,
}

/// The result of storing blocks.
#[derive(Debug)]
pub struct Applied {
    /// The highest final height.
    pub final_height: Height,
    /// True when the chain has deposits that are not final yet.
    pub unfinished: bool,
}

/// The result of booking the part of a balance that deposits do not explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnexplainedCredit {
    /// The credit was booked, or it was too large to be booked and a review was opened.
    Booked,
    /// The block is not on the branch that the follower has read, so nothing was booked.
    OffBranch,
    /// Since `check` was read, another deposit to the address was booked. The caller has to compare the balance again.
    Outdated,
}

impl DepositService {
    /// Returns the service of one chain. `listener` receives every payment change.
    pub fn new(chain: FollowedChain, limits: Limits, listener: Arc<dyn PaymentListener>) -> DepositService {
        DepositService { chain, limits, listener }
    }

    /// Returns the chain whose deposits the service books.
    pub fn chain(&self) -> &FollowedChain {
        &self.chain
    }

    /// Returns the limits that the service was created with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Stores blocks that follow the cursor at `from` together with their deposits, and moves the cursor. Then it
    /// confirms or finalizes the deposits with enough confirmations at the position `reached`, and settles the invoices
    /// that these deposits pay. When `reached` is `None`, new deposits are stored as seen and no deposit is confirmed.
    ///
    /// # Errors
    /// Returns an error when the cursor is not at `from`, when the chain was never started, and when the ledger
    /// rejects an entry.
    pub async fn apply_blocks(
        &self,
        tx: &mut Tx,
        now: Instant,
        from: BlockRef,
        blocks: &[Block],
        reached: Option<Position>,
    ) -> Result<Applied, PostError> {
        let chain = &self.chain;
        let before = lock_existing_cursor(tx, chain, reached.unwrap_or(Position::NONE)).await?;
        if before.height != from.height {
            let moved = format!("the cursor of {} is at {}, not at {}", chain.id, before.height, from.height);
            return Err(db::Error::Statement(moved).into());
        }
        // A final height stays final, even when the node later reports a lower final height.
        let reached = reached.map(|reached| Position { last: reached.last.max(before.final_height), ..reached });
        let final_height = reached.map_or(before.final_height, |reached| reached.last);

        let mut batch = DepositBatch::new(now, chain);
        let mut transfers = Vec::new();
        for block in blocks {
            transfers.extend(block.transfers.iter().map(|transfer| (block.header, transfer)));
        }
        batch.add_received_transfers(tx, self.limits.grace, &transfers).await?;
        if let (true, Some(reached)) = (before.due, reached) {
            batch.add_advancing_deposits(tx, reached, ADVANCE_MAX).await?;
        }
        let mut stored = batch.store_deposits(tx, reached).await?;
        mark_spent_outputs(tx, chain, blocks, &mut stored.effects).await?;
        let changes = effects::apply_effects(tx, now, stored.effects).await?;

        if let Some(last) = blocks.last() {
            let kept = usize::try_from(self.limits.keep).unwrap_or(usize::MAX);
            let headers: Vec<Header> = blocks.iter().rev().take(kept).map(|block| block.header).collect();
            store::insert_blocks(tx, &chain.id, &headers).await?;
            store::delete_blocks_below(tx, &chain.id, last.header.height.saturating_sub(self.limits.keep)).await?;
            store::move_cursor(tx, &chain.id, from, &last.header, final_height).await?;
        } else if final_height > before.final_height {
            store::set_final_height(tx, &chain.id, final_height).await?;
        }
        let unfinished = match (before.unfinished, stored.unfinished, stored.finished) {
            (true, false, true) => lock_existing_cursor(tx, chain, Position::NONE).await?.unfinished,
            (before, added, _) => before || added,
        };
        changes.dispatch_to_listener(tx, now, &*self.listener).await?;
        Ok(Applied { final_height, unfinished })
    }

    /// Moves the cursor back from `from` to `to`, the common ancestor of both branches. Reverses every deposit above
    /// `to` by new postings.
    ///
    /// # Errors
    /// Returns an error when the cursor is not at `from`, when the block `to` is no longer stored, and when the ledger
    /// rejects an entry.
    pub async fn rewind_cursor_and_deposits(
        &self,
        tx: &mut Tx,
        now: Instant,
        from: BlockRef,
        to: BlockRef,
    ) -> Result<(), PostError> {
        let chain = &self.chain;
        let before = lock_existing_cursor(tx, chain, Position::NONE).await?;
        let deposits = store::lock_deposits_above(tx, &chain.id, to.height).await?;
        let mut invoices =
            invoices::lock_invoices(tx, &deposits.iter().map(|deposit| deposit.invoice).collect()).await?;
        let mut effects = Effects::default();
        for deposit in deposits.into_iter().rev() {
            let missing = || db::Error::Statement(format!("invoice {} does not exist", deposit.invoice));
            let invoice = invoices.get_mut(&deposit.invoice).ok_or_else(missing)?;
            reverse_orphaned_deposit(tx, now, chain, &deposit, invoice, &mut effects).await?;
        }
        effects.invoices = invoices.into_values().collect();
        for (deposit, output) in store::set_outputs_unspent_above(tx, &chain.id, to.height).await? {
            // After a restart the watch set contains only unspent outputs. This output is unspent again, so add it.
            chain.watched.insert_outputs([output]);
            effects.reviews.push(ReviewChange::Retract(Retraction {
                kind: reviews::Kind::DepositSpent,
                subject: format!("deposit/{deposit}"),
                note: "a reorg removed the block that spent the output",
                replacement: None,
            }));
        }
        store::delete_blocks_above(tx, &chain.id, to.height).await?;
        let not_kept = || db::Error::Statement(format!("block {} of {} is not kept", to.height, chain.id));
        let header = store::find_block_header(tx, &chain.id, to).await?.ok_or_else(not_kept)?;
        let changes = effects::apply_effects(tx, now, effects).await?;
        store::move_cursor(tx, &chain.id, from, &header, before.final_height).await?;
        Ok(changes.dispatch_to_listener(tx, now, &*self.listener).await?)
    }

    /// Books `credit`, the base units by which the balance of an address exceeds its booked deposits. The money arrived
    /// in the block `at`. This function locks the cursor and reads the deposits again, so that neither the follower nor
    /// a second balance check can book the same money twice.
    ///
    /// # Errors
    /// Returns an error when the chain was never started, and when the ledger rejects an entry.
    pub async fn book_unexplained_credit(
        &self,
        tx: &mut Tx,
        now: Instant,
        at: BlockRef,
        check: &BalanceCheck,
        credit: chain::Amount,
    ) -> Result<UnexplainedCredit, PostError> {
        let chain = &self.chain;
        lock_existing_cursor(tx, chain, Position::NONE).await?;
        let Some(header) = store::find_block_header(tx, &chain.id, at).await? else {
            return Ok(UnexplainedCredit::OffBranch);
        };
        let current = store::find_balance_check(tx, check.invoice).await?;
        if current.is_none_or(|current| current.explained != check.explained) {
            return Ok(UnexplainedCredit::Outdated);
        }
        let mut batch = DepositBatch::new(now, chain);
        // `store::find_balance_check` leaves out invoices with this review, so the address is not checked again.
        if !is_bookable_amount(credit) {
            let asset = check.asset_id(&chain.id);
            batch.add_review_request(ReviewRequest {
                kind: reviews::Kind::BalanceOutOfRange,
                subject: format!("invoice/{}", check.invoice),
                detail: format!("its balance is {credit} base units of {asset} more than is booked"),
                amount: None,
            });
        } else {
            let transfer = Transfer {
                txid: TxId([0; 32]),
                index: TransferIndex { tx_index: check.synthetic_tx_index(), part: TxPart::BalanceIncrease },
                asset: check.asset_id(&chain.id),
                to: check.address.key,
                from: None,
                amount: credit,
            };
            batch.add_received_transfers(tx, self.limits.grace, &[(header, &transfer)]).await?;
        }
        let stored = batch.store_deposits(tx, None).await?;
        let changes = effects::apply_effects(tx, now, stored.effects).await?;
        changes.dispatch_to_listener(tx, now, &*self.listener).await?;
        Ok(UnexplainedCredit::Booked)
    }

    /// Expires invoices whose window has ended; [`invoices::list_expirable_invoices`] returns the candidates.
    /// `unverified` is the reason why the balances of their addresses could not be compared with the deposits; when it
    /// is given, each expired invoice gets a review.
    ///
    /// # Errors
    /// Returns an error when the ledger rejects an entry.
    pub async fn expire_invoices(
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

/// Marks the outputs of deposits that the blocks spend, and opens a review for each of them. The daemon never spends
/// outputs, so another program with access to the keys made the transaction.
async fn mark_spent_outputs(
    tx: &mut Tx,
    chain: &FollowedChain,
    blocks: &[Block],
    effects: &mut Effects,
) -> Result<(), db::Error> {
    let spends_of =
        |block: &'_ Block| block.spends.iter().map(|spend| (block.header.height, *spend)).collect::<Vec<_>>();
    let spends: Vec<_> = blocks.iter().flat_map(spends_of).collect();
    for (deposit, by) in store::set_outputs_spent(tx, &chain.id, &spends).await? {
        effects.reviews.push(ReviewChange::Open(ReviewRequest {
            kind: reviews::Kind::DepositSpent,
            subject: format!("deposit/{deposit}"),
            detail: format!("transaction {by} on {} spends it, but the daemon never spends outputs", chain.id),
            amount: None,
        }));
    }
    Ok(())
}

/// The address of an invoice, with the part of the address balance that comes from booked deposits.
#[derive(Debug, Clone)]
pub struct BalanceCheck {
    /// The invoice that the address belongs to.
    pub invoice: InvoiceId,
    /// The id of the address in the database.
    pub id: ids::AddressId,
    /// The address whose balance is checked.
    pub address: chain::Address,
    /// The asset that the invoice requests.
    pub asset: AssetKind,
    /// The sum of the deposits in this asset, in base units.
    pub explained: chain::Amount,
    /// The block height after which any unbooked money arrived.
    pub since: Height,
}

impl BalanceCheck {
    /// Returns the number that a deposit without a known transaction stores as its transaction index. The number is
    /// unique among the addresses of a chain.
    ///
    /// # Panics
    /// Never: the value has 31 bits.
    pub fn synthetic_tx_index(&self) -> u32 {
        u32::try_from(self.id.0 & 0x7fff_ffff).expect("31 bits")
    }

    /// Returns the id of the asset on `chain`.
    pub fn asset_id(&self, chain: &ChainId) -> chain::AssetId {
        chain::AssetId::on_chain(chain, &self.asset)
    }
}

/// Returns the last block that the follower has read, and at most `limit` open invoices in the native asset of the
/// chain. The block is `None` before the follower first starts.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_open_native_invoices(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<(Option<BlockRef>, Vec<InvoiceId>), db::Error> {
    let cursor = store::find_cursor(tx, chain).await?;
    let invoices = store::list_open_native_invoices(tx, chain, limit).await?;
    Ok((cursor.and_then(|cursor| cursor.recent.last().copied()), invoices))
}

/// Returns the addresses of invoices with the sums of their booked deposits. Invoices whose balance is too large to be
/// booked are left out.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_balance_checks(tx: &mut Tx, invoices: &[InvoiceId]) -> Result<Vec<BalanceCheck>, db::Error> {
    let mut checks = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        checks.extend(store::find_balance_check(tx, *invoice).await?);
    }
    Ok(checks)
}

/// Returns the height of the highest block with deposits that `position` confirms or makes final; `None` when there
/// are none.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_highest_due_deposit(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
) -> Result<Option<Height>, db::Error> {
    store::find_highest_due_deposit(tx, chain, position).await
}

/// Returns true when a rewind to `height` would reverse a confirmed deposit.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn has_confirmed_deposit_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    store::has_confirmed_deposit_above(tx, chain, height).await
}

/// Opens a review because two endpoints of the chain report different blocks. The follower confirms no deposits until
/// they agree.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn open_disputed_review(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    reviews::open(tx, now, reviews::Kind::ChainDisputed, chain.as_str(), why).await
}

/// Closes the review that [`open_disputed_review`] opened, because the endpoints report the same blocks again.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn resolve_disputed_review(tx: &mut Tx, now: Instant, chain: &ChainId) -> Result<(), db::Error> {
    reviews::resolve(tx, now, reviews::Kind::ChainDisputed, chain.as_str(), "endpoints agree again").await
}

/// Halts the chain until the operator resumes it, and opens a review.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn halt_chain(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    store::set_halt_reason(tx, chain, Some(why)).await?;
    reviews::open(tx, now, reviews::Kind::ChainHalted, chain.as_str(), why).await
}

/// Returns the reason why the chain is halted; `None` when it is not halted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_halt_reason(tx: &mut Tx, chain: &ChainId) -> Result<Option<String>, db::Error> {
    store::find_halt_reason(tx, chain).await
}

/// Resumes a halted chain, closes its review and records the action in the audit log. Returns the reason of the halt;
/// `None` when the chain was not halted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn resume_chain(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    chain: &ChainId,
) -> Result<Option<String>, db::Error> {
    store::lock_cursor(tx, chain, Position::NONE).await?;
    let Some(reason) = store::find_halt_reason(tx, chain).await? else { return Ok(None) };
    store::set_halt_reason(tx, chain, None).await?;
    let note = format!("{actor} resumed it");
    reviews::resolve(tx, now, reviews::Kind::ChainHalted, chain.as_str(), &note).await?;
    audit_log::record(tx, now, actor, Action::ChainResume, chain.as_str(), &reason).await?;
    Ok(Some(reason))
}

/// Reverses a deposit whose block was removed by a reorg: voids its hold or reverses its posting, and undoes the
/// settlement that counted the deposit.
async fn reverse_orphaned_deposit(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    deposit: &Deposit,
    invoice: &mut InvoiceUpdate,
    effects: &mut Effects,
) -> Result<(), db::Error> {
    match deposit.state {
        State::Seen | State::Confirmed => {}
        State::Final | State::Orphaned => return Ok(()),
    }
    let entry = format!("deposit/{}/orphaned", deposit.id);
    let before = invoices::sum_received_deposits(tx, invoice).await?.confirmed;
    store::set_deposit_orphaned(tx, now, deposit).await?;
    if deposit.state == State::Seen {
        effects.entries.push(JournalEntry::new_void_hold_entry(entry, "deposit orphaned", deposit.hold_entry_name()));
    } else {
        let left = before.saturating_sub(deposit.amount);
        let lost = deposit.used == Disposition::Counted && invoice.unsettle_invoice(before, left, effects);
        let line = EntryLine {
            debit: match deposit.suspense_reason() {
                None => Account::MerchantIncoming(invoice.shop.merchant),
                Some(suspense) => Account::Suspense(invoice.shop.merchant, suspense),
            },
            credit: Account::OnChain(chain.id.clone()),
            asset: deposit.asset.clone(),
            amount: deposit.amount,
        };
        effects.entries.push(JournalEntry::new_post_entry(chain.mode, entry, "deposit orphaned", vec![line]));
        // The reorg removed the money that these reviews are about. They are closed, so that the operator does not
        // return it to the buyer.
        match deposit.used {
            Disposition::Counted | Disposition::Dust => {}
            Disposition::Short => invoice.retract_short_payment_review(left, effects),
            Disposition::Surplus | Disposition::Late | Disposition::Foreign => {
                effects.reviews.push(ReviewChange::Retract(Retraction {
                    kind: reviews::Kind::DepositUnallocated,
                    subject: format!("deposit/{}", deposit.id),
                    note: "a reorg removed the block of the deposit",
                    replacement: None,
                }));
            }
        }
        if deposit.used == Disposition::Counted && !lost {
            invoice.settle_invoice_again(now, left, effects);
        }
    }
    // If all other counted deposits are final, the invoice's money now becomes available.
    if invoices::sum_counted_deposits(tx, &BTreeSet::from([invoice.id]))
        .await?
        .values()
        .all(|counted| counted.all_final)
    {
        invoice.release_credited_amount(now, effects);
    }
    Ok(())
}

async fn lock_existing_cursor(
    tx: &mut Tx,
    chain: &FollowedChain,
    position: Position,
) -> Result<store::CursorRow, db::Error> {
    let not_followed = || db::Error::Statement(format!("{} is not followed yet", chain.id));
    store::lock_cursor(tx, &chain.id, position).await?.ok_or_else(not_followed)
}
