//! Deposits: the transfers that arrived at our addresses. The deposits of a block and the cursor are stored in one transaction;
//! money is in the ledger before an invoice uses it, and no credit outlives its block.

#![deny(missing_docs)]

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

/// Maximum number of older deposits advanced in one transaction; the next call goes on.
const ADVANCE_MAX: i64 = 2_000;

/// Deposits stay below 2^112 base units. That is more than the supply of any token of value, and so far below the largest posting
/// that sums of deposits cannot leave the range of amounts. Larger transfers are of tokens that can be minted without limit.
const BITS_MAX: usize = 112;

/// Returns whether a transfer is booked as a deposit. Zero amounts and amounts of 2^112 or more are not.
fn is_bookable(amount: chain::Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= BITS_MAX
}

/// The time after the end of a window in which a block still counts as in time, because the clocks of chains and of buyers differ.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// Milliseconds.
    pub ms: i64,
}

/// The limits of a [`DepositService`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time after a window in which a block still counts as in time.
    pub grace: Grace,
    /// The number of newest blocks that stay stored, and so the deepest reorganisation that can be followed.
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
    /// Returns the name of the journal entry that holds the deposit until it is confirmed.
    fn hold(&self) -> String {
        format!("deposit/{}/seen", self.id)
    }

    /// Returns the suspense account of the deposit; `None` when its invoice counts it.
    fn suspense(&self) -> Option<Suspense> {
        self.used.suspense()
    }
}

/// A deposit that is not stored yet.
#[derive(Debug)]
struct NewDeposit {
    /// Its id is 0 until it is stored.
    deposit: Deposit,
    /// The state in which it is stored.
    to: State,
    address: AddressId,
    block: (BlockHash, i64),
    txid: TxId,
    place: TransferIndex,
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
        // The invoice fixed the confirmations of its own chain only.
        let confirmations =
            if invoice.chain == chain.id { invoice.confirmations } else { chain.depths.confirmations(None) };
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

/// An unspent output of a deposit, on chains that have outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unspent {
    /// The output.
    pub output: OutPoint,
    /// Base units.
    pub amount: chain::Amount,
    /// The height of its block.
    pub height: Height,
    /// The state of the deposit.
    pub state: State,
    /// Canonical text.
    pub address: String,
    /// The index of the address below its account key.
    pub index: u32,
}

/// Returns at most `limit` deposited outputs that no block has spent, oldest first.
pub async fn list_unspent(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<Unspent>, db::Error> {
    store::list_unspent(tx, chain, limit).await
}

/// Returns the position at which the chain's follower goes on, with the recent branch; `None` before the first start.
pub async fn cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<Cursor>, db::Error> {
    store::find_cursor(tx, chain).await
}

/// Starts to follow a chain above `header`. No address may have been issued on it before.
pub async fn start(tx: &mut Tx, chain: &ChainId, header: &Header) -> Result<(), db::Error> {
    store::insert_cursor(tx, chain, header).await?;
    store::insert_blocks(tx, chain, std::slice::from_ref(header)).await
}

/// Returns the position of a chain whose cursor is at height `cursor`. `mark` is the height of the block that the chain itself
/// calls final, where it does and the block is on our branch.
pub fn position(chain: &FollowedChain, cursor: Height, mark: Option<Height>) -> Position {
    Position { cursor, last: machine::final_height(cursor, mark, chain.depths.last, chain.depths.least) }
}

/// Books the deposits of one chain and reports changed payments to the listener. All verbs that can change a payment are
/// methods, so that none of them runs without the listener.
#[derive(Clone)]
pub struct DepositService {
    chain: FollowedChain,
    limits: Limits,
    listener: Arc<dyn PaymentListener>,
}

/// The result of storing blocks.
#[derive(Debug)]
pub struct Applied {
    /// The highest height that cannot vanish any more.
    pub final_height: Height,
    /// The chain has deposits that are not final yet.
    pub unfinished: bool,
}

/// The result of booking a balance that exceeds the booked deposits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnexplainedCredit {
    /// The credit was booked, or a review was opened because it is too large to be booked.
    Booked,
    /// The block is not on the branch that is followed, so nothing was booked.
    OffBranch,
    /// A deposit was booked on the address meanwhile: the caller has to compare again.
    Outdated,
}

impl DepositService {
    /// Creates the service of one chain. `listener` learns of every payment that changes.
    pub fn new(chain: FollowedChain, limits: Limits, listener: Arc<dyn PaymentListener>) -> DepositService {
        DepositService { chain, limits, listener }
    }

    /// Returns the chain whose deposits are booked.
    pub fn chain(&self) -> &FollowedChain {
        &self.chain
    }

    /// Returns the limits that the service was created with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Stores blocks that follow the cursor, which stands at `from`, with every transfer in them, and moves the cursor. Then
    /// confirms and finishes the deposits that are deep enough at `reached`, and settles the invoices that they pay. Without
    /// a position, deposits are stored as seen and none is confirmed.
    ///
    /// # Errors
    ///
    /// Fails when the cursor is not at `from`, when the chain was never started, and when the ledger refuses an entry.
    pub async fn apply_blocks(
        &self,
        tx: &mut Tx,
        now: Instant,
        from: BlockRef,
        blocks: &[Block],
        reached: Option<Position>,
    ) -> Result<Applied, PostError> {
        let chain = &self.chain;
        let before = lock_cursor(tx, chain, reached.unwrap_or(Position::NONE)).await?;
        if before.height != from.height {
            let moved = format!("the cursor of {} is at {}, not at {}", chain.id, before.height, from.height);
            return Err(db::Error::Statement(moved).into());
        }
        // A height that is final stays final, even when the node reports a lower one later.
        let reached = reached.map(|reached| Position { last: reached.last.max(before.final_height), ..reached });
        let final_height = reached.map_or(before.final_height, |reached| reached.last);

        let mut batch = DepositBatch::new(now, chain);
        let mut transfers = Vec::new();
        for block in blocks {
            transfers.extend(block.transfers.iter().map(|transfer| (block.header, transfer)));
        }
        batch.classify(tx, self.limits.grace, &transfers).await?;
        if let (true, Some(reached)) = (before.due, reached) {
            batch.take_older(tx, reached, ADVANCE_MAX).await?;
        }
        let mut stored = batch.store(tx, reached).await?;
        spend(tx, chain, blocks, &mut stored.effects).await?;
        let changes = effects::apply(tx, now, stored.effects).await?;

        if let Some(last) = blocks.last() {
            let kept = usize::try_from(self.limits.keep).unwrap_or(usize::MAX);
            let headers: Vec<Header> = blocks.iter().rev().take(kept).map(|block| block.header).collect();
            store::insert_blocks(tx, &chain.id, &headers).await?;
            store::delete_blocks_below(tx, &chain.id, last.header.height.saturating_sub(self.limits.keep)).await?;
            store::set_cursor(tx, &chain.id, from, &last.header, final_height).await?;
        } else if final_height > before.final_height {
            store::set_final_height(tx, &chain.id, final_height).await?;
        }
        let unfinished = match (before.unfinished, stored.unfinished, stored.finished) {
            (true, false, true) => lock_cursor(tx, chain, Position::NONE).await?.unfinished,
            (before, added, _) => before || added,
        };
        changes.dispatch(tx, now, &*self.listener).await?;
        Ok(Applied { final_height, unfinished })
    }

    /// Rewinds the cursor from `from` to the fork at `to`: every deposit above the fork is taken back by new postings.
    ///
    /// # Errors
    ///
    /// Fails when the cursor is not at `from`, when the block at `to` is not stored any more, and when the ledger refuses an
    /// entry.
    pub async fn rewind(&self, tx: &mut Tx, now: Instant, from: BlockRef, to: BlockRef) -> Result<(), PostError> {
        let chain = &self.chain;
        let before = lock_cursor(tx, chain, Position::NONE).await?;
        let deposits = store::lock_above(tx, &chain.id, to.height).await?;
        let mut invoices = invoices::lock(tx, &deposits.iter().map(|deposit| deposit.invoice).collect()).await?;
        let mut effects = Effects::default();
        for deposit in deposits.into_iter().rev() {
            let missing = || db::Error::Statement(format!("invoice {} does not exist", deposit.invoice));
            let invoice = invoices.get_mut(&deposit.invoice).ok_or_else(missing)?;
            orphan(tx, now, chain, &deposit, invoice, &mut effects).await?;
        }
        effects.invoices = invoices.into_values().collect();
        for (deposit, output) in store::set_unspent_above(tx, &chain.id, to.height).await? {
            // A spent output is not watched after a restart.
            chain.watched.insert_outputs([output]);
            effects.reviews.push(ReviewChange::Retract(Retraction {
                kind: reviews::Kind::DepositSpent,
                subject: format!("deposit/{deposit}"),
                note: "the block that spent it was taken back",
                replacement: None,
            }));
        }
        store::delete_blocks_above(tx, &chain.id, to.height).await?;
        let not_kept = || db::Error::Statement(format!("block {} of {} is not kept", to.height, chain.id));
        let header = store::find_block(tx, &chain.id, to).await?.ok_or_else(not_kept)?;
        let changes = effects::apply(tx, now, effects).await?;
        store::set_cursor(tx, &chain.id, from, &header, before.final_height).await?;
        Ok(changes.dispatch(tx, now, &*self.listener).await?)
    }

    /// Books `credit` base units by which a balance exceeds the deposits that are booked, in the block `at` that brought
    /// them. The deposits are compared again under the cursor's lock, so that neither the scan nor a second balance check
    /// can book the same money twice.
    ///
    /// # Errors
    ///
    /// Fails when the chain was never started, and when the ledger refuses an entry.
    pub async fn book_unexplained_credit(
        &self,
        tx: &mut Tx,
        now: Instant,
        at: BlockRef,
        check: &BalanceCheck,
        credit: chain::Amount,
    ) -> Result<UnexplainedCredit, PostError> {
        let chain = &self.chain;
        lock_cursor(tx, chain, Position::NONE).await?;
        let Some(header) = store::find_block(tx, &chain.id, at).await? else { return Ok(UnexplainedCredit::OffBranch) };
        let current = store::find_balance_check(tx, check.invoice).await?;
        if current.is_none_or(|current| current.explained != check.explained) {
            return Ok(UnexplainedCredit::Outdated);
        }
        let mut batch = DepositBatch::new(now, chain);
        // An address whose balance is out of range is not checked again: see `store::find_balance_check`.
        if !is_bookable(credit) {
            let asset = check.asset_id(&chain.id);
            batch.request_review(ReviewRequest {
                kind: reviews::Kind::BalanceOutOfRange,
                subject: format!("invoice/{}", check.invoice),
                detail: format!("its balance is {credit} base units of {asset} more than is booked"),
                amount: None,
            });
        } else {
            let transfer = Transfer {
                txid: TxId([0; 32]),
                index: TransferIndex { tx_index: check.number(), part: TxPart::BalanceIncrease },
                asset: check.asset_id(&chain.id),
                to: check.address.key,
                from: None,
                amount: credit,
            };
            batch.classify(tx, self.limits.grace, &[(header, &transfer)]).await?;
        }
        let stored = batch.store(tx, None).await?;
        let changes = effects::apply(tx, now, stored.effects).await?;
        changes.dispatch(tx, now, &*self.listener).await?;
        Ok(UnexplainedCredit::Booked)
    }

    /// Ends the windows of invoices; see [`invoices::list_expirable`] for the candidates. `unverified` says why the balances
    /// of their addresses could not be compared with the deposits before; with it, each invoice that expires gets a review.
    ///
    /// # Errors
    ///
    /// Fails when the ledger refuses an entry.
    pub async fn expire_invoices(
        &self,
        tx: &mut Tx,
        now: Instant,
        invoices: &BTreeSet<InvoiceId>,
        unverified: Option<&str>,
    ) -> Result<(), PostError> {
        let changes = invoices::expire(tx, now, invoices, unverified).await?;
        Ok(changes.dispatch(tx, now, &*self.listener).await?)
    }
}

/// Marks our outputs that the blocks spend. The daemon does not spend outputs itself, so each spend was made outside it by a
/// holder of the keys: the operator gets a review.
async fn spend(tx: &mut Tx, chain: &FollowedChain, blocks: &[Block], effects: &mut Effects) -> Result<(), db::Error> {
    let spends_of =
        |block: &'_ Block| block.spends.iter().map(|spend| (block.header.height, *spend)).collect::<Vec<_>>();
    let spends: Vec<_> = blocks.iter().flat_map(spends_of).collect();
    for (deposit, by) in store::set_spent(tx, &chain.id, &spends).await? {
        effects.reviews.push(ReviewChange::Open(ReviewRequest {
            kind: reviews::Kind::DepositSpent,
            subject: format!("deposit/{deposit}"),
            detail: format!("transaction {by} on {} spends it, and none of ours does", chain.id),
            amount: None,
        }));
    }
    Ok(())
}

/// The address of an invoice with the part of its balance that is booked.
#[derive(Debug, Clone)]
pub struct BalanceCheck {
    /// The invoice.
    pub invoice: InvoiceId,
    /// The id of its address.
    pub id: ids::AddressId,
    /// Its address.
    pub address: chain::Address,
    /// The asset that the invoice asks for.
    pub asset: AssetKind,
    /// The sum of its deposits in that asset, in base units.
    pub explained: chain::Amount,
    /// The height after which money that is not booked must have arrived.
    pub since: Height,
}

impl BalanceCheck {
    /// Returns a number that stands in for the transaction index of a deposit without a transaction: unique among the addresses
    /// of a chain.
    ///
    /// # Panics
    ///
    /// Never: 31 bits fit.
    pub fn number(&self) -> u32 {
        u32::try_from(self.id.0 & 0x7fff_ffff).expect("31 bits")
    }

    /// Returns the id of the asset on a chain.
    pub fn asset_id(&self, chain: &ChainId) -> chain::AssetId {
        chain::AssetId::on_chain(chain, &self.asset)
    }
}

/// Returns the cursor and at most `limit` open invoices in the native asset.
pub async fn list_native_open(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<(Option<BlockRef>, Vec<InvoiceId>), db::Error> {
    let cursor = store::find_cursor(tx, chain).await?;
    let invoices = store::list_native_open(tx, chain, limit).await?;
    Ok((cursor.and_then(|cursor| cursor.recent.last().copied()), invoices))
}

/// Returns the addresses of invoices with the sums that are booked on them.
pub async fn list_balance_checks(tx: &mut Tx, invoices: &[InvoiceId]) -> Result<Vec<BalanceCheck>, db::Error> {
    let mut checks = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        checks.extend(store::find_balance_check(tx, *invoice).await?);
    }
    Ok(checks)
}

/// Returns the height of the highest block with deposits that `position` confirms or makes final; `None` when there is none.
pub async fn find_highest_due(tx: &mut Tx, chain: &ChainId, position: Position) -> Result<Option<Height>, db::Error> {
    store::find_highest_due(tx, chain, position).await
}

/// Returns whether a rewind to a height takes back a confirmed deposit.
pub async fn has_confirmed_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    store::has_confirmed_above(tx, chain, height).await
}

/// Opens the review that two endpoints of the chain show different blocks. No deposit is confirmed meanwhile.
pub async fn dispute(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    reviews::open(tx, now, reviews::Kind::ChainDisputed, chain.as_str(), why).await
}

/// Closes the review of [`dispute`]: the endpoints show the same blocks again.
pub async fn agree(tx: &mut Tx, now: Instant, chain: &ChainId) -> Result<(), db::Error> {
    reviews::resolve(tx, now, reviews::Kind::ChainDisputed, chain.as_str(), "endpoints agree again").await
}

/// Halts the chain until the operator resumes it.
pub async fn halt(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    store::set_halted(tx, chain, Some(why)).await?;
    reviews::open(tx, now, reviews::Kind::ChainHalted, chain.as_str(), why).await
}

/// Returns why the chain is halted; `None` when it is not.
pub async fn halted(tx: &mut Tx, chain: &ChainId) -> Result<Option<String>, db::Error> {
    store::find_halted(tx, chain).await
}

/// Resumes a halted chain, closes its review and records the action in the audit log. Returns the reason of the halt; `None`
/// when the chain is not halted.
pub async fn resume(tx: &mut Tx, now: Instant, actor: &Actor, chain: &ChainId) -> Result<Option<String>, db::Error> {
    store::lock_cursor(tx, chain, Position::NONE).await?;
    let Some(reason) = store::find_halted(tx, chain).await? else { return Ok(None) };
    store::set_halted(tx, chain, None).await?;
    let note = format!("{actor} resumed it");
    reviews::resolve(tx, now, reviews::Kind::ChainHalted, chain.as_str(), &note).await?;
    audit_log::record(tx, now, actor, Action::ChainResume, chain.as_str(), &reason).await?;
    Ok(Some(reason))
}

/// Takes a deposit back whose block vanished.
async fn orphan(
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
    let before = invoices::received(tx, invoice).await?.confirmed;
    store::set_orphaned(tx, now, deposit).await?;
    if deposit.state == State::Seen {
        effects.entries.push(JournalEntry::void_hold(entry, "deposit orphaned", deposit.hold()));
    } else {
        let left = before.saturating_sub(deposit.amount);
        let lost = deposit.used == Disposition::Counted && invoice.unsettle(before, left, effects);
        let line = EntryLine {
            debit: match deposit.suspense() {
                None => Account::MerchantIncoming(invoice.shop.merchant),
                Some(suspense) => Account::Suspense(invoice.shop.merchant, suspense),
            },
            credit: Account::OnChain(chain.id.clone()),
            asset: deposit.asset.clone(),
            amount: deposit.amount,
        };
        effects.entries.push(JournalEntry::post(chain.mode, entry, "deposit orphaned", vec![line]));
        // The operator must not pay vanished money back by hand, so its review is closed.
        match deposit.used {
            Disposition::Counted | Disposition::Dust => {}
            Disposition::Short => invoice.lose_short(left, effects),
            Disposition::Surplus | Disposition::Late | Disposition::Foreign => {
                effects.reviews.push(ReviewChange::Retract(Retraction {
                    kind: reviews::Kind::DepositUnallocated,
                    subject: format!("deposit/{}", deposit.id),
                    note: "its block vanished, and the money with it",
                    replacement: None,
                }));
            }
        }
        if deposit.used == Disposition::Counted && !lost {
            invoice.settle_again(now, left, effects);
        }
    }
    // This may have been the last counted deposit that was not final.
    if invoices::counted(tx, &BTreeSet::from([invoice.id])).await?.values().all(|counted| counted.all_final) {
        invoice.release(now, effects);
    }
    Ok(())
}

async fn lock_cursor(tx: &mut Tx, chain: &FollowedChain, position: Position) -> Result<store::CursorRow, db::Error> {
    let not_followed = || db::Error::Statement(format!("{} is not followed yet", chain.id));
    store::lock_cursor(tx, &chain.id, position).await?.ok_or_else(not_followed)
}
