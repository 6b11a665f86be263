//! What reached our addresses. Facts and cursor move in one transaction; money is in the ledger first, what an invoice
//! makes of it comes second, and no credit outlives its block.

pub mod machine;
mod store;

use std::collections::BTreeSet;

use chain::{AssetKind, Block, BlockRef, ChainId, Header, Height, Part, Place, Tip, Transfer, TxId};

use crate::clock::Instant;
use crate::db::{self, Tx};
use crate::ids::{DepositId, InvoiceId};
use crate::money::coins::Chain;
use crate::money::invoices::{self, Use, machine::use_of};
use crate::money::ledger::{self, Account, Leg, PostError, Suspense};
use crate::money::payments::{self, Change};

pub use machine::{Position, State};
pub use store::Cursor;

/// Deposits advanced in one transaction; the next call goes on.
const ADVANCE_MAX: i64 = 2_000;

/// How long after the window's end a block still counts as in time: clocks of chains and of people differ.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    pub ms: i64,
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
    used: Use,
    hold: crate::ids::PostingSeq,
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

/// Stores blocks that follow the cursor with every transfer in them, and moves the cursor.
pub async fn apply(
    tx: &mut Tx,
    now: Instant,
    chain: &Chain,
    grace: Grace,
    from: BlockRef,
    blocks: &[Block],
    keep: u64,
) -> Result<Vec<Change>, PostError> {
    let Some(last) = blocks.last() else { return Ok(Vec::new()) };
    store::lock_cursor(tx, &chain.id).await?;
    let mut changes = Vec::new();
    for block in blocks {
        for transfer in &block.transfers {
            changes.extend(see(tx, now, chain, grace, &block.header, transfer).await?);
        }
    }
    let headers: Vec<Header> = blocks.iter().map(|block| block.header).collect();
    let oldest_kept = last.header.height.saturating_sub(keep);
    store::insert_blocks(
        tx,
        &chain.id,
        &headers[headers.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX))..],
    )
    .await?;
    store::delete_blocks_below(tx, &chain.id, oldest_kept).await?;
    store::set_cursor(tx, &chain.id, from, &last.header).await?;
    Ok(changes)
}

/// What became of a rise of balance that was found outside the scan.
#[derive(Debug)]
pub enum Rise {
    Booked(Option<Change>),
    /// The block is not on the branch that is followed.
    Elsewhere,
    /// Meanwhile something was booked on the address: look again.
    Outdated,
}

/// Books money that no block showed, in the block that brought it. Compared again with what is booked by now, under the
/// cursor's lock: neither the scan nor another look at the balance can book it a second time.
pub async fn book_rise(
    tx: &mut Tx,
    now: Instant,
    chain: &Chain,
    grace: Grace,
    at: BlockRef,
    suspect: &Suspect,
    rise: chain::Amount,
) -> Result<Rise, PostError> {
    store::lock_cursor(tx, &chain.id).await?;
    let Some(header) = store::find_block(tx, &chain.id, at).await? else { return Ok(Rise::Elsewhere) };
    let current = store::find_suspect(tx, suspect.invoice).await?;
    if current.is_none_or(|current| current.explained != suspect.explained) {
        return Ok(Rise::Outdated);
    }
    let transfer = Transfer {
        txid: TxId([0; 32]),
        place: Place { tx_index: suspect.number(), part: Part::Probe },
        asset: suspect.asset_id(&chain.id),
        to: suspect.address.key,
        from: None,
        amount: rise,
    };
    Ok(Rise::Booked(see(tx, now, chain, grace, &header, &transfer).await?))
}

/// One movement in a block of our branch: a deposit, a hold in the ledger, and a use that the invoice gives it.
async fn see(
    tx: &mut Tx,
    now: Instant,
    chain: &Chain,
    grace: Grace,
    header: &Header,
    transfer: &Transfer,
) -> Result<Option<Change>, PostError> {
    let Some(target) = store::find_target(tx, &chain.id, transfer.to).await? else { return Ok(None) };
    if !ledger::is_postable(transfer.amount) {
        // A token that can be minted at will must not stop the chain.
        let detail = format!("{} base units of {} in block {}", transfer.amount, transfer.asset, header.height);
        crate::reviews::open(tx, now, "deposit.absurd", &format!("invoice/{target}"), &detail).await?;
        return Ok(None);
    }
    let invoice = invoices::lock(tx, target).await?;
    let window_end = invoice.expires_at.plus_ms(grace.ms);
    // What was in time once is in time, also when a reorganisation mines it again later.
    let in_time = Instant::from_unix_seconds(header.time) <= window_end
        || store::was_seen_until(tx, invoice.id, transfer.txid, window_end).await?;
    let used = use_of(invoice.state, invoice.asset == transfer.asset, in_time);
    let confirm_height = header.height + u64::from(invoice.confirmations) - 1;
    let Some(id) = store::insert_deposit(tx, now, &chain.id, header, transfer, &invoice, used, confirm_height).await?
    else {
        return Ok(None);
    };
    let leg = Leg {
        debit: Account::OnChain(chain.id.clone()),
        credit: Account::MerchantIncoming(invoice.shop.merchant),
        asset: transfer.asset.clone(),
        amount: transfer.amount,
    };
    let hold = ledger::hold(tx, now, chain.mode, &format!("deposit/{id}/seen"), "deposit seen", &leg).await?;
    store::set_hold(tx, id, hold).await?;
    if used == Use::Counted && invoice.state == invoices::State::Open {
        payments::advance(tx, now, invoice.payment, payments::State::Confirming).await?;
        return Ok(Some(Change::Confirming(invoice.payment)));
    }
    Ok(None)
}

/// An invoice's address, and what its deposits explain of its balance.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub invoice: InvoiceId,
    pub id: crate::ids::AddressId,
    pub address: chain::Address,
    /// What the invoice asks for.
    pub asset: AssetKind,
    /// Sum of its deposits in that asset.
    pub explained: chain::Amount,
    /// Unexplained money came after this height.
    pub since: Height,
}

impl Suspect {
    /// A number for the place of a probed deposit, unique among the addresses of a chain.
    pub fn number(&self) -> u32 {
        u32::try_from(self.id.0 & 0x7fff_ffff).expect("31 bits")
    }

    pub fn asset_id(&self, chain: &ChainId) -> chain::AssetId {
        chain::AssetId::of(chain, &self.asset)
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
pub async fn find_suspects(tx: &mut Tx, invoices: &[InvoiceId]) -> Result<Vec<Suspect>, db::Error> {
    let mut suspects = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        suspects.extend(store::find_suspect(tx, *invoice).await?);
    }
    Ok(suspects)
}

/// Confirms and finishes what has become deep enough, and settles the invoices that it pays. Returns the final height, and
/// how many deposits are still on their way.
pub async fn advance(
    tx: &mut Tx,
    now: Instant,
    chain: &Chain,
    tip: &Tip,
) -> Result<(Position, u64, Vec<Change>), PostError> {
    let Some(cursor) = store::lock_cursor(tx, &chain.id).await? else {
        return Ok((Position { cursor: 0, last: 0 }, 0, Vec::new()));
    };
    let last = machine::final_height(cursor.height, tip.finalized, chain.depths.last, chain.depths.least);
    let last = last.max(cursor.final_height);
    let position = Position { cursor: cursor.height, last };
    let mut settle = BTreeSet::new();
    let mut release = BTreeSet::new();
    for deposit in store::lock_advancing(tx, &chain.id, position, ADVANCE_MAX).await? {
        let to = machine::advance(deposit.state, deposit.height, deposit.confirm_height, position);
        if deposit.state == State::Seen && to != State::Seen {
            let used = confirm(tx, now, chain, &deposit).await?;
            if used == Use::Counted {
                settle.insert(deposit.invoice);
            }
        }
        if to == State::Final {
            release.insert(deposit.invoice);
        }
        store::set_state(tx, now, &deposit, to).await?;
    }
    let mut changes = Vec::new();
    for invoice in settle {
        changes.extend(invoices::settle(tx, now, invoice).await?);
    }
    for invoice in release {
        invoices::release(tx, now, invoice).await?;
    }
    if last > cursor.final_height {
        store::set_final_height(tx, &chain.id, last).await?;
    }
    let unfinished = store::count_unfinished(tx, &chain.id).await?;
    Ok((position, unfinished, changes))
}

/// Goes back to the fork: everything above it is taken back by new postings.
pub async fn rewind(
    tx: &mut Tx,
    now: Instant,
    chain: &Chain,
    from: BlockRef,
    to: BlockRef,
) -> Result<Vec<Change>, PostError> {
    store::lock_cursor(tx, &chain.id).await?;
    let mut changes = Vec::new();
    for deposit in store::lock_above(tx, &chain.id, to.height).await?.into_iter().rev() {
        changes.extend(orphan(tx, now, chain, deposit).await?);
    }
    store::delete_blocks_above(tx, &chain.id, to.height).await?;
    let not_kept = || db::Error::Statement(format!("block {} of {} is not kept", to.height, chain.id));
    let header = store::find_block(tx, &chain.id, to).await?.ok_or_else(not_kept)?;
    store::set_cursor(tx, &chain.id, from, &header).await?;
    Ok(changes)
}

/// The chain stands still until a person looks.
pub async fn halt(tx: &mut Tx, now: Instant, chain: &ChainId, why: &str) -> Result<(), db::Error> {
    store::set_halted(tx, chain, Some(why)).await?;
    crate::reviews::open(tx, now, "chain.halted", chain.as_str(), why).await
}

/// The held money is posted; what no invoice asks for goes to its suspense account at once. Returns how it is used: what was
/// to be counted is surplus if earlier money has paid the invoice meanwhile.
async fn confirm(tx: &mut Tx, now: Instant, chain: &Chain, deposit: &Deposit) -> Result<Use, PostError> {
    let id = deposit.id;
    ledger::post_hold(tx, now, &format!("deposit/{id}/confirmed"), "deposit confirmed", deposit.hold, None).await?;
    let invoice = invoices::lock(tx, deposit.invoice).await?;
    let used = match (deposit.used, invoice.state) {
        (Use::Counted, invoices::State::Paid) => Use::Surplus,
        (used, _) => used,
    };
    if used != deposit.used {
        store::set_use(tx, id, used).await?;
    }
    let Some(suspense) = suspense_of(used) else { return Ok(used) };
    let merchant = invoice.shop.merchant;
    let leg = Leg {
        debit: Account::MerchantIncoming(merchant),
        credit: Account::Suspense(merchant, suspense),
        asset: deposit.asset.clone(),
        amount: deposit.amount,
    };
    ledger::post(tx, now, chain.mode, &format!("deposit/{id}/apart"), "deposit set apart", &[leg]).await?;
    let detail = format!("{} base units of {} ({})", deposit.amount, deposit.asset, used.as_str());
    crate::reviews::open(tx, now, "deposit.apart", &format!("deposit/{id}"), &detail).await?;
    Ok(used)
}

async fn orphan(tx: &mut Tx, now: Instant, chain: &Chain, deposit: Deposit) -> Result<Option<Change>, PostError> {
    let id = deposit.id;
    let entry = format!("deposit/{id}/orphaned");
    match deposit.state {
        State::Seen => {
            ledger::void_hold(tx, now, &entry, "deposit orphaned", deposit.hold).await?;
            store::set_state(tx, now, &deposit, State::Orphaned).await?;
            Ok(None)
        }
        State::Confirmed => {
            let invoice = invoices::lock(tx, deposit.invoice).await?;
            let before = invoices::received(tx, &invoice).await?.confirmed;
            store::set_state(tx, now, &deposit, State::Orphaned).await?;
            let mut change = None;
            if deposit.used == Use::Counted {
                let left = before.saturating_sub(deposit.amount);
                change = invoices::unsettle(tx, now, deposit.invoice, before, left).await?;
            }
            let merchant = invoice.shop.merchant;
            let leg = Leg {
                debit: match suspense_of(deposit.used) {
                    None => Account::MerchantIncoming(merchant),
                    Some(suspense) => Account::Suspense(merchant, suspense),
                },
                credit: Account::OnChain(chain.id.clone()),
                asset: deposit.asset.clone(),
                amount: deposit.amount,
            };
            ledger::post(tx, now, chain.mode, &entry, "deposit orphaned", &[leg]).await?;
            if deposit.used == Use::Counted && change.is_none() {
                // What is left is enough: settled anew, and for the seller nothing has changed.
                invoices::settle(tx, now, deposit.invoice).await?;
            }
            Ok(change)
        }
        State::Final | State::Orphaned => Ok(None),
    }
}

fn suspense_of(used: Use) -> Option<Suspense> {
    match used {
        Use::Counted => None,
        Use::Short => Some(Suspense::Short),
        Use::Surplus => Some(Suspense::Surplus),
        Use::Late => Some(Suspense::Late),
        Use::Foreign => Some(Suspense::Foreign),
    }
}
