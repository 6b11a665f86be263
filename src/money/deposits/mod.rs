//! What reached our addresses. Facts and cursor move in one transaction; money is in the ledger first, what an invoice
//! makes of it comes second, and no credit outlives its block.

pub mod machine;
pub mod rescan;
mod batch;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use chain::{
    AssetKind, Block, BlockHash, BlockRef, ChainId, Header, Height, OutPoint, Transfer, TransferIndex, TxId, TxPart,
};

use crate::assets::FollowedChain;
use crate::deposits::batch::DepositBatch;
use crate::invoices::{self, Disposition, Effects, Invoice, Retraction};
use crate::ledger::{Account, Entry, Leg, PostError, Suspense};
use crate::payments::Change;
use clock::Instant;
use db::{self, Tx};
use ids::{AddressId, DepositId, InvoiceId};
use records::audit_log::{self, Action, Actor};

pub use machine::{Position, State};
pub use store::Cursor;

/// Deposits advanced in one transaction; the next call goes on.
const ADVANCE_MAX: i64 = 2_000;

/// Deposits stay below this power of two: more than the supply of any token that is worth something, and so far below what a
/// posting carries that sums of them cannot leave the range of amounts. What is above is a token that can be minted at will.
const BITS_MAX: usize = 112;

/// Whether a movement becomes a deposit. Any other is a review and no money.
fn is_bookable(amount: chain::Amount) -> bool {
    !amount.is_zero() && amount.units().bit_len() <= BITS_MAX
}

/// How long after the window's end a block still counts as in time: clocks of chains and of people differ.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    pub ms: i64,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub grace: Grace,
    /// So many of the newest blocks stay stored, for reorganisations.
    pub keep: u64,
}

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
    /// The ledger's entry that holds it from the first sight on.
    fn hold(&self) -> String {
        format!("deposit/{}/seen", self.id)
    }

    /// Where it goes when no invoice counts it.
    fn suspense(&self) -> Option<Suspense> {
        match self.used {
            Disposition::Counted => None,
            Disposition::Short => Some(Suspense::Short),
            Disposition::Surplus => Some(Suspense::Surplus),
            Disposition::Late => Some(Suspense::Late),
            Disposition::Foreign => Some(Suspense::Foreign),
            Disposition::Dust => Some(Suspense::Dust),
        }
    }
}

/// A deposit that is not stored yet, with all that its row tells.
#[derive(Debug)]
struct NewDeposit {
    /// Without an id.
    deposit: Deposit,
    /// What it is when it is stored.
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
        // Another chain than the invoice's has depths of its own.
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

/// A coin to spend later, where a chain has outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unspent {
    pub output: OutPoint,
    pub amount: chain::Amount,
    /// Of the block that has it.
    pub height: Height,
    pub state: State,
    /// Canonical text.
    pub address: String,
    /// Of the address below its account key.
    pub index: u32,
}

/// Outputs of ours that no block has spent, oldest first.
pub async fn list_unspent(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<Unspent>, db::Error> {
    store::list_unspent(tx, chain, limit).await
}

/// Where the chain's follower goes on, with the recent branch; `None` before the first start.
pub async fn cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<Cursor>, db::Error> {
    store::find_cursor(tx, chain).await
}

/// Begins to follow a chain above `header`. No address was issued on it before.
pub async fn start(tx: &mut Tx, chain: &ChainId, header: &Header) -> Result<(), db::Error> {
    store::insert_cursor(tx, chain, header).await?;
    store::insert_blocks(tx, chain, std::slice::from_ref(header)).await
}

/// How far a chain has come for its deposits, with this cursor. `mark` is the height of the block of our branch that the chain
/// itself calls final.
pub fn position(chain: &FollowedChain, cursor: Height, mark: Option<Height>) -> Position {
    Position { cursor, last: machine::final_height(cursor, mark, chain.depths.last, chain.depths.least) }
}

/// What a chain's follower learns from a stored step.
#[derive(Debug)]
pub struct Applied {
    /// Highest height that cannot vanish.
    pub final_height: Height,
    /// Whether deposits are still on their way to being final.
    pub unfinished: bool,
    pub changes: Vec<Change>,
}

/// Stores blocks that follow the cursor, if any, with every transfer in them, and moves the cursor; then confirms and
/// finishes what is deep enough at `reached`, and settles the invoices that it pays. Without a position deposits are seen and
/// none moves on.
pub async fn apply(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    limits: Limits,
    from: BlockRef,
    blocks: &[Block],
    reached: Option<Position>,
) -> Result<Applied, PostError> {
    let before = lock_cursor(tx, chain, reached.unwrap_or(Position::NONE)).await?;
    if before.height != from.height {
        let moved = format!("the cursor of {} is at {}, not at {}", chain.id, before.height, from.height);
        return Err(db::Error::Statement(moved).into());
    }
    // Whatever is final stays so.
    let reached = reached.map(|reached| Position { last: reached.last.max(before.final_height), ..reached });
    let final_height = reached.map_or(before.final_height, |reached| reached.last);

    let mut round = DepositBatch::new(now, chain);
    let mut movements = Vec::new();
    for block in blocks {
        movements.extend(block.transfers.iter().map(|transfer| (block.header, transfer)));
    }
    round.see(tx, limits.grace, &movements).await?;
    if let (true, Some(reached)) = (before.due, reached) {
        round.take_older(tx, reached, ADVANCE_MAX).await?;
    }
    let stored = round.store(tx, reached).await?;
    spend(tx, now, chain, blocks).await?;

    if let Some(last) = blocks.last() {
        let kept = usize::try_from(limits.keep).unwrap_or(usize::MAX);
        let headers: Vec<Header> = blocks.iter().rev().take(kept).map(|block| block.header).collect();
        store::insert_blocks(tx, &chain.id, &headers).await?;
        store::delete_blocks_below(tx, &chain.id, last.header.height.saturating_sub(limits.keep)).await?;
        store::set_cursor(tx, &chain.id, from, &last.header, final_height).await?;
    } else if final_height > before.final_height {
        store::set_final_height(tx, &chain.id, final_height).await?;
    }
    let unfinished = match (before.unfinished, stored.unfinished, stored.finished) {
        (true, false, true) => lock_cursor(tx, chain, Position::NONE).await?.unfinished,
        (before, added, _) => before || added,
    };
    Ok(Applied { final_height, unfinished, changes: stored.changes })
}

/// Marks what blocks of our branch spend of our outputs. Nothing here spends yet, so whoever did has the keys, and the ledger
/// does not know what for.
async fn spend(tx: &mut Tx, now: Instant, chain: &FollowedChain, blocks: &[Block]) -> Result<(), db::Error> {
    let of_block =
        |block: &'_ Block| block.spends.iter().map(|spend| (block.header.height, *spend)).collect::<Vec<_>>();
    let spends: Vec<_> = blocks.iter().flat_map(of_block).collect();
    for (deposit, by) in store::set_spent(tx, &chain.id, &spends).await? {
        let detail = format!("transaction {by} on {} spends it, and none of ours does", chain.id);
        records::reviews::open(tx, now, "deposit.spent", &format!("deposit/{deposit}"), &detail).await?;
    }
    Ok(())
}

/// What became of a rise of balance that was found outside the scan.
#[derive(Debug)]
pub enum UnexplainedCredit {
    Booked(Option<Change>),
    /// The block is not on the branch that is followed.
    Elsewhere,
    /// Meanwhile something was booked on the address: look again.
    Outdated,
}

/// Books money that no block showed, in the block that brought it. Compared again with what is booked by now, under the
/// cursor's lock: neither the scan nor another look at the balance can book it a second time.
pub async fn book_unexplained_credit(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    grace: Grace,
    at: BlockRef,
    check: &BalanceCheck,
    rise: chain::Amount,
) -> Result<UnexplainedCredit, PostError> {
    lock_cursor(tx, chain, Position::NONE).await?;
    let Some(header) = store::find_block(tx, &chain.id, at).await? else { return Ok(UnexplainedCredit::Elsewhere) };
    let current = store::find_balance_check(tx, check.invoice).await?;
    if current.is_none_or(|current| current.explained != check.explained) {
        return Ok(UnexplainedCredit::Outdated);
    }
    // The balance of such an address says nothing any more, and nobody is asked for it again: see `store::find_balance_check`.
    if !is_bookable(rise) {
        let detail = format!("its balance is {rise} base units of {} more than is booked", check.asset_id(&chain.id));
        records::reviews::open(tx, now, "balance.absurd", &format!("invoice/{}", check.invoice), &detail).await?;
        return Ok(UnexplainedCredit::Booked(None));
    }
    let transfer = Transfer {
        txid: TxId([0; 32]),
        index: TransferIndex { tx_index: check.number(), part: TxPart::BalanceIncrease },
        asset: check.asset_id(&chain.id),
        to: check.address.key,
        from: None,
        amount: rise,
    };
    let mut round = DepositBatch::new(now, chain);
    round.see(tx, grace, &[(header, &transfer)]).await?;
    Ok(UnexplainedCredit::Booked(round.store(tx, None).await?.changes.pop()))
}

/// An invoice's address, and what its deposits explain of its balance.
#[derive(Debug, Clone)]
pub struct BalanceCheck {
    pub invoice: InvoiceId,
    pub id: ids::AddressId,
    pub address: chain::Address,
    /// What the invoice asks for.
    pub asset: AssetKind,
    /// Sum of its deposits in that asset.
    pub explained: chain::Amount,
    /// Unexplained money came after this height.
    pub since: Height,
}

impl BalanceCheck {
    /// A number for the place of a probed deposit, unique among the addresses of a chain.
    pub fn number(&self) -> u32 {
        u32::try_from(self.id.0 & 0x7fff_ffff).expect("31 bits")
    }

    pub fn asset_id(&self, chain: &ChainId) -> chain::AssetId {
        chain::AssetId::on_chain(chain, &self.asset)
    }
}

/// The cursor and the open invoices in the native coin.
pub async fn list_native_open(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<(Option<BlockRef>, Vec<InvoiceId>), db::Error> {
    let cursor = store::find_cursor(tx, chain).await?;
    let invoices = store::list_native_open(tx, chain, limit).await?;
    Ok((cursor.and_then(|cursor| cursor.recent.last().copied()), invoices))
}

/// The addresses of invoices, with what is booked on them.
pub async fn list_balance_checks(tx: &mut Tx, invoices: &[InvoiceId]) -> Result<Vec<BalanceCheck>, db::Error> {
    let mut checks = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        checks.extend(store::find_balance_check(tx, *invoice).await?);
    }
    Ok(checks)
}

/// The highest block with deposits that a position moves on, if there are any.
pub async fn newest_due(tx: &mut Tx, chain: &ChainId, position: Position) -> Result<Option<Height>, db::Error> {
    store::find_newest_due(tx, chain, position).await
}

/// Whether a rewind to a height takes back money that counts.
pub async fn has_confirmed_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    store::has_confirmed_above(tx, chain, height).await
}

/// Two endpoints show different blocks: a person should know, and nothing that rests on them moves on.
pub async fn dispute(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    records::reviews::open(tx, now, "chain.disputed", chain.as_str(), why).await
}

/// They show the same again.
pub async fn agree(tx: &mut Tx, now: Instant, chain: &ChainId) -> Result<(), db::Error> {
    records::reviews::close(tx, now, "chain.disputed", chain.as_str(), "endpoints agree again").await
}

/// Goes back to the fork: everything above it is taken back by new postings.
pub async fn rewind(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    from: BlockRef,
    to: BlockRef,
) -> Result<Vec<Change>, PostError> {
    let before = lock_cursor(tx, chain, Position::NONE).await?;
    let mut changes = Vec::new();
    for deposit in store::lock_above(tx, &chain.id, to.height).await?.into_iter().rev() {
        changes.extend(orphan(tx, now, chain, deposit).await?);
    }
    for (deposit, output) in store::set_unspent_above(tx, &chain.id, to.height).await? {
        // After a restart nobody looked for it any more.
        chain.watched.insert_outputs([output]);
        let note = "the block that spent it was taken back";
        records::reviews::close(tx, now, "deposit.spent", &format!("deposit/{deposit}"), note).await?;
    }
    store::delete_blocks_above(tx, &chain.id, to.height).await?;
    let not_kept = || db::Error::Statement(format!("block {} of {} is not kept", to.height, chain.id));
    let header = store::find_block(tx, &chain.id, to).await?.ok_or_else(not_kept)?;
    store::set_cursor(tx, &chain.id, from, &header, before.final_height).await?;
    Ok(changes)
}

/// The chain stands still until a person looks.
pub async fn halt(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    store::set_halted(tx, chain, Some(why)).await?;
    records::reviews::open(tx, now, "chain.halted", chain.as_str(), why).await
}

/// Why the chain stands still, if it does.
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
    records::reviews::close(tx, now, "chain.halted", chain.as_str(), &note).await?;
    audit_log::record(tx, now, actor, Action::ChainResume, chain.as_str(), &reason).await?;
    Ok(Some(reason))
}

async fn orphan(tx: &mut Tx, now: Instant, chain: &FollowedChain, deposit: Deposit) -> Result<Vec<Change>, PostError> {
    match deposit.state {
        State::Seen | State::Confirmed => {}
        State::Final | State::Orphaned => return Ok(Vec::new()),
    }
    let entry = format!("deposit/{}/orphaned", deposit.id);
    let mut effects = Effects::default();
    let mut invoice = invoices::lock_one(tx, deposit.invoice).await?;
    let before = invoices::received(tx, &invoice).await?.confirmed;
    store::set_orphaned(tx, now, &deposit).await?;
    if deposit.state == State::Seen {
        effects.entries.push(Entry::void(entry, "deposit orphaned", deposit.hold()));
    } else {
        let left = before.saturating_sub(deposit.amount);
        let lost = deposit.used == Disposition::Counted && invoice.unsettle(before, left, &mut effects);
        let leg = Leg {
            debit: match deposit.suspense() {
                None => Account::MerchantIncoming(invoice.shop.merchant),
                Some(suspense) => Account::Suspense(invoice.shop.merchant, suspense),
            },
            credit: Account::OnChain(chain.id.clone()),
            asset: deposit.asset.clone(),
            amount: deposit.amount,
        };
        effects.entries.push(Entry::posted(chain.mode, entry, "deposit orphaned", vec![leg]));
        // What vanished must not be paid back by hand: nobody is asked about it any more.
        match deposit.used {
            Disposition::Counted | Disposition::Dust => {}
            Disposition::Short => invoice.lose_short(left, &mut effects),
            Disposition::Surplus | Disposition::Late | Disposition::Foreign => effects.answered.push(Retraction {
                kind: "deposit.apart",
                subject: format!("deposit/{}", deposit.id),
                note: "its block vanished, and the money with it",
                instead: None,
            }),
        }
        if deposit.used == Disposition::Counted && !lost {
            // What is left may be enough: settled anew, and for the seller nothing has changed.
            invoice.settle(now, left, &mut effects);
            effects.changes.clear();
        }
    }
    // It may have been the last that was not final.
    if invoices::counted(tx, &BTreeSet::from([invoice.id])).await?.values().all(|counted| counted.all_final) {
        invoice.release(now, &mut effects);
    }
    invoices::store(tx, now, vec![invoice], effects).await
}

async fn lock_cursor(tx: &mut Tx, chain: &FollowedChain, position: Position) -> Result<store::CursorRow, db::Error> {
    let not_followed = || db::Error::Statement(format!("{} is not followed yet", chain.id));
    store::lock_cursor(tx, &chain.id, position).await?.ok_or_else(not_followed)
}
