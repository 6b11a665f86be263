//! All SQL of deposits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chain::{
    Address, AddressKey, Amount, AssetId, AssetKind, BlockHash, BlockRef, ChainId, Height, OutPoint, Spend, Transfer,
    TransferIndex, TxId, TxPart,
};

use crate::cursors::Position;
use crate::deposits::corroboration::{CheckResult, CheckedDeposit};
use crate::deposits::second_source::InvoicePrice;
use crate::deposits::{BalanceCheck, Deposit, Grace, NewDeposit, State, UnspentOutput};
use crate::invoices::{self, Disposition};
use crate::pricing::Fiat;
use clock::Instant;
use db::{self, Tx, batch_row, deferred_for_each, execute, row, rows, rows_for_each};
use ids::{DepositId, InvoiceId};
use records::reviews;

/// Returns those transactions in `late` that were seen by the instant given with each of them, either in a block that a
/// reorg removed later or as an unconfirmed transfer.
pub async fn filter_late_transactions_seen_in_time(
    tx: &mut Tx,
    late: &[(InvoiceId, TxId, Instant)],
) -> Result<HashSet<(InvoiceId, TxId)>, db::Error> {
    let given = late.iter().map(|(invoice, txid, until)| batch_row![*invoice, txid.0, until.unix_seconds(), *until]);
    let found = rows_for_each!(
        tx,
        given.collect(),
        "with given (invoice bigint, txid bytea, until_s bigint, until_ms bigint)
         select d.invoice_id, d.txid from given, deposits d
         where d.invoice_id = given.invoice and d.txid = given.txid and d.state = 'orphaned' and d.block_time <= given.until_s
         union all select s.invoice_id, s.txid from given, unconfirmed s
         where s.invoice_id = given.invoice and s.txid = given.txid and s.first_seen_at <= given.until_ms"
    )?;
    found.iter().map(|row| Ok((row.get("invoice_id")?, TxId(row.get("txid")?)))).collect()
}

/// Returns the transactions of `old` that were seen after the lease of their address, although they are in a block as low
/// as the lease now: a reorg removed a deposit that was not older than the lease, or the node showed an unconfirmed
/// transfer.
pub async fn list_transactions_seen_after_lease(
    tx: &mut Tx,
    old: &[(InvoiceId, TxId)],
) -> Result<HashSet<(InvoiceId, TxId)>, db::Error> {
    let found = rows_for_each!(
        tx,
        old.iter().map(|(invoice, txid)| batch_row![*invoice, txid.0]).collect(),
        "with given (invoice bigint, txid bytea)
         select d.invoice_id, d.txid from given, deposits d
         where d.invoice_id = given.invoice and d.txid = given.txid and d.state = 'orphaned' and d.disposition <> 'before_lease'
         union all select s.invoice_id, s.txid from given, unconfirmed s
         where s.invoice_id = given.invoice and s.txid = given.txid"
    )?;
    found.iter().map(|row| Ok((row.get("invoice_id")?, TxId(row.get("txid")?)))).collect()
}

/// Returns those transfers in `small` that an invoice counted in a block that a reorg removed later.
pub async fn filter_transfers_counted_before_reorg(
    tx: &mut Tx,
    small: &[(InvoiceId, TxId, Amount)],
) -> Result<HashSet<(InvoiceId, TxId, Amount)>, db::Error> {
    let found = rows_for_each!(
        tx,
        small.iter().map(|(invoice, txid, amount)| batch_row![*invoice, txid.0, amount]).collect(),
        "with given (invoice bigint, txid bytea, amount bytea)
         select d.invoice_id, d.txid, d.amount from given, deposits d
         where d.invoice_id = given.invoice and d.txid = given.txid and d.amount = given.amount and d.state = 'orphaned'
         and d.disposition in ('counted', 'short')"
    )?;
    found.iter().map(|row| Ok((row.get("invoice_id")?, TxId(row.get("txid")?), row.get("amount")?))).collect()
}

/// Returns the dust of these invoices that arrived in time and in the requested asset, oldest first. Orphaned deposits
/// are left out.
pub async fn list_countable_dust_in_time(
    tx: &mut Tx,
    grace: Grace,
    invoices: &BTreeSet<InvoiceId>,
) -> Result<Vec<Deposit>, db::Error> {
    let found = rows_for_each!(
        tx,
        invoices.iter().map(|invoice| batch_row![*invoice]).collect(),
        "with given (invoice bigint)
         select d.id, d.invoice_id, d.height, d.confirm_height, d.asset, d.amount, d.state, d.disposition, d.corroboration,
         d.single_source_usd_cents
         from given, deposits d join invoices i on i.id = d.invoice_id
         where d.invoice_id = given.invoice and d.disposition = 'dust' and d.state <> 'orphaned' and d.asset = i.asset
         and d.block_time * 1000 <= i.expires_at + $1 order by d.id",
        grace.ms
    )?;
    found.iter().map(parse_deposit_row).collect()
}

/// Changes the disposition of these deposits from dust to counted.
pub async fn set_dust_counted(tx: &mut Tx, dust: &[Deposit]) -> Result<(), db::Error> {
    deferred_for_each!(
        tx,
        dust.iter().map(|deposit| batch_row![deposit.id]).collect(),
        "with given (id bigint)
         update deposits set disposition = 'counted' from given where deposits.id = given.id and disposition = 'dust'"
    )
}

/// Returns the block height and the value in US cents of each counted deposit in the blocks at these heights. The value
/// is `None` when the price of the invoice in USD is unknown. Orphaned deposits are left out.
pub async fn list_counted_deposit_values(
    tx: &mut Tx,
    chain: &ChainId,
    heights: &BTreeSet<Height>,
) -> Result<Vec<(Height, Option<i64>)>, db::Error> {
    let found = rows_for_each!(
        tx,
        heights.iter().map(|height| batch_row![*height]).collect(),
        "with given (height bigint)
         select d.height, d.amount, i.price_usd, i.amount_due from given, deposits d join invoices i on i.id = d.invoice_id
         where d.chain = $1 and d.height = given.height and d.state <> 'orphaned' and d.disposition = 'counted'",
        chain.as_str()
    )?;
    let value = |row: &db::Row| {
        let value = invoices::share_of_price_in_cents_rounded_up(
            row.get("price_usd")?,
            row.get("amount")?,
            row.get("amount_due")?,
        );
        Ok((row.get("height")?, value))
    };
    found.iter().map(value).collect()
}

/// Raises the confirm height of deposits that are still seen, so that they need at least the confirmations in `depths`,
/// which maps a block height to a number of confirmations. A higher confirm height is not lowered.
pub async fn raise_confirm_heights(
    tx: &mut Tx,
    chain: &ChainId,
    depths: &BTreeMap<Height, u32>,
) -> Result<(), db::Error> {
    let given = depths.iter().map(|(height, depth)| batch_row![*height, height + u64::from(*depth) - 1]);
    rows_for_each!(
        tx,
        given.collect(),
        "with given (height bigint, confirm_height bigint)
         update deposits set confirm_height = given.confirm_height from given
         where chain = $1 and deposits.height = given.height and state = 'seen'
         and deposits.confirm_height < given.confirm_height returning id",
        chain.as_str()
    )?;
    Ok(())
}

/// Returns true when a deposit or an unclaimed transfer that is not orphaned is stored for this transfer of the block at
/// `height`.
pub async fn is_transfer_booked(
    tx: &mut Tx,
    chain: &ChainId,
    height: Height,
    place: TransferIndex,
) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select 1 as one from deposits
         where chain = $1 and height = $2 and tx_index = $3 and part = $4 and state <> 'orphaned'
         union all select 1 as one from unclaimed_transfers
         where chain = $1 and height = $2 and tx_index = $3 and part = $4 and state <> 'orphaned'",
        chain.as_str(),
        height,
        place.tx_index,
        place.part.code()
    )?;
    Ok(found.is_some())
}

/// Returns the invoice of the address when a balance check has booked money of this asset at `height` or above;
/// otherwise `None`. The query has no condition on the chain of the deposit: the asset id already contains the chain,
/// and with such a condition the database would read all later deposits of the chain.
pub async fn find_invoice_with_balance_increase_since(
    tx: &mut Tx,
    chain: &ChainId,
    key: AddressKey,
    asset: &AssetId,
    height: Height,
) -> Result<Option<InvoiceId>, db::Error> {
    let found = row!(
        tx,
        "select d.invoice_id from addresses a join invoices i on i.address_id = a.id join deposits d on d.invoice_id = i.id
         where a.chain = $1 and a.key = $2 and d.asset = $3 and d.part = $4 and d.height >= $5
         and d.state <> 'orphaned' limit 1",
        chain.as_str(),
        key.0,
        asset.as_str(),
        TxPart::BalanceIncrease.code(),
        height
    )?;
    found.map(|row| row.get("invoice_id")).transpose()
}

/// Inserts deposits in the state that their field `to` contains, and returns the inserted deposits with their ids. A
/// transfer that is already booked is neither inserted nor returned.
pub async fn insert_unbooked_deposits(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    fresh: Vec<NewDeposit>,
) -> Result<Vec<NewDeposit>, db::Error> {
    let given = fresh.iter().map(|fresh| {
        let ((hash, time), Deposit { invoice, height, confirm_height, asset, amount, used, corroboration, .. }) =
            (fresh.block, &fresh.deposit);
        let reached = |state: bool| state.then_some(now);
        batch_row![
            *height,
            fresh.place.tx_index,
            fresh.place.part.code(),
            hash.0,
            time,
            fresh.txid.0,
            asset.as_str(),
            fresh.address,
            *invoice,
            amount,
            fresh.sender.as_deref(),
            fresh.to,
            *used,
            *corroboration,
            *confirm_height,
            reached(fresh.to != State::Seen),
            reached(fresh.to == State::Final)
        ]
    });
    let inserted = rows_for_each!(
        tx,
        given.collect(),
        "with given (height bigint, tx_index bigint, part bigint, block_hash bytea, block_time bigint, txid bytea, asset text,
         address bigint, invoice bigint, amount bytea, sender text, state text, used text, corroboration text, confirm_height bigint,
         confirmed_at bigint, final_at bigint)
         insert into deposits (chain, height, tx_index, part, block_hash, block_time, txid, asset, address_id, invoice_id,
         amount, sender, state, disposition, corroboration, confirm_height, seen_at, confirmed_at, final_at)
         select $1, given.height, given.tx_index, given.part, given.block_hash, given.block_time, given.txid, given.asset,
         given.address, given.invoice, given.amount, given.sender, given.state, given.used, given.corroboration, given.confirm_height, $2,
         given.confirmed_at, given.final_at from given where true
         on conflict (chain, height, tx_index, part) where state <> 'orphaned' do nothing
         returning id, height, tx_index, part",
        chain.as_str(),
        now
    )?;
    let place = |row: &db::Row| Ok(((row.get("height")?, row.get("tx_index")?, row.get("part")?), row.get("id")?));
    let mut ids: HashMap<(Height, u32, i64), DepositId> =
        inserted.iter().map(place).collect::<Result<_, db::Error>>()?;
    let stored = fresh.into_iter().filter_map(|mut fresh| {
        let place = (fresh.deposit.height, fresh.place.tx_index, fresh.place.part.code());
        fresh.deposit.id = ids.remove(&place)?;
        Some(fresh)
    });
    Ok(stored.collect())
}

/// Locks and returns at most `limit` seen deposits that `position` confirms or makes final, and at most `limit`
/// confirmed deposits that `position` makes final, each oldest first. Deposits that wait for a second source are left
/// out.
pub async fn lock_advancing_deposits(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
    limit: i64,
) -> Result<Vec<Deposit>, db::Error> {
    let found = rows!(
        tx,
        "with seen as (
             select id, invoice_id, height, confirm_height, asset, amount, state, disposition, corroboration,
             single_source_usd_cents from deposits
             where chain = $1 and state = 'seen' and (confirm_height <= $2 or height <= $3)
             and (corroboration = 'shown' or single_source_usd_cents is not null) order by id limit $4 for update),
         confirmed as (
             select id, invoice_id, height, confirm_height, asset, amount, state, disposition, corroboration,
             single_source_usd_cents from deposits
             where chain = $1 and state = 'confirmed' and height <= $3 order by id limit $4 for update)
         select id, invoice_id, height, confirm_height, asset, amount, state, disposition, corroboration,
             single_source_usd_cents from seen
         union all select id, invoice_id, height, confirm_height, asset, amount, state, disposition, corroboration,
             single_source_usd_cents from confirmed",
        chain.as_str(),
        position.cursor,
        position.last,
        limit
    )?;
    found.iter().map(parse_deposit_row).collect()
}

/// Locks and returns the deposits in blocks above `height` that are not orphaned, oldest first.
pub async fn lock_unorphaned_deposits_above(
    tx: &mut Tx,
    chain: &ChainId,
    height: Height,
) -> Result<Vec<Deposit>, db::Error> {
    let found = rows!(
        tx,
        "select id, invoice_id, height, confirm_height, asset, amount, state, disposition, corroboration,
             single_source_usd_cents from deposits
         where chain = $1 and height > $2 and state <> 'orphaned' order by id for update",
        chain.as_str(),
        height
    )?;
    found.iter().map(parse_deposit_row).collect()
}

/// Locks and returns the deposit of `chain` with this id; `None` when there is none.
pub async fn lock_deposit(tx: &mut Tx, chain: &ChainId, id: DepositId) -> Result<Option<Deposit>, db::Error> {
    let found = row!(
        tx,
        "select id, invoice_id, height, confirm_height, asset, amount, state, disposition, corroboration,
             single_source_usd_cents from deposits where id = $1 and chain = $2 for update",
        id,
        chain.as_str()
    )?;
    found.as_ref().map(parse_deposit_row).transpose()
}

/// Returns the chain of the deposit with this id; `None` when there is none.
pub async fn find_deposit_chain(tx: &mut Tx, id: DepositId) -> Result<Option<ChainId>, db::Error> {
    let found = row!(tx, "select chain from deposits where id = $1", id)?;
    let Some(found) = found else { return Ok(None) };
    let name: String = found.get("chain")?;
    let unknown = |error| db::Error::Value { column: "chain".into(), reason: format!("{error}") };
    ChainId::parse(&name).map(Some).map_err(unknown)
}

fn parse_deposit_row(row: &db::Row) -> Result<Deposit, db::Error> {
    Ok(Deposit {
        id: row.get("id")?,
        invoice: row.get("invoice_id")?,
        height: row.get("height")?,
        confirm_height: row.get("confirm_height")?,
        asset: AssetId::from_stored(&row.get::<String>("asset")?),
        amount: row.get("amount")?,
        state: row.get("state")?,
        used: row.get("disposition")?,
        corroboration: row.get("corroboration")?,
        single_source_usd_cents: row.get("single_source_usd_cents")?,
    })
}

/// Stores for each output of a deposit the transaction and the block height that spend it. Returns the deposits whose
/// outputs were not yet marked with this transaction, each with the transaction.
pub async fn set_outputs_spent(
    tx: &mut Tx,
    chain: &ChainId,
    spends: &[(Height, Spend)],
) -> Result<Vec<(DepositId, TxId)>, db::Error> {
    let given = spends.iter().map(|(height, Spend { output, spent_by })| {
        batch_row![output.txid.0, TxPart::Output(output.vout).code(), spent_by.0, *height]
    });
    let spent = rows_for_each!(
        tx,
        given.collect(),
        "with given (txid bytea, part bigint, spending_txid bytea, height bigint)
         update deposits set spending_txid = given.spending_txid, spent_height = given.height from given
         where chain = $1 and deposits.txid = given.txid and deposits.part = given.part
         and deposits.part >= 12884901888 and deposits.part < 17179869184 and state <> 'orphaned'
         and (deposits.spending_txid is null or deposits.spending_txid <> given.spending_txid)
         returning id, deposits.spending_txid",
        chain.as_str()
    )?;
    spent.iter().map(|row| Ok((row.get_at(0)?, TxId(row.get_at(1)?)))).collect()
}

/// Marks the outputs that were spent in blocks above `height` as unspent. Returns these outputs with their deposits.
pub async fn set_outputs_unspent_above(
    tx: &mut Tx,
    chain: &ChainId,
    height: Height,
) -> Result<Vec<(DepositId, OutPoint)>, db::Error> {
    let unspent = rows!(
        tx,
        "update deposits set spending_txid = null, spent_height = null where chain = $1 and spent_height > $2
         returning id, txid, part",
        chain.as_str(),
        height
    )?;
    unspent.iter().map(|row| Ok((row.get("id")?, parse_deposit_outpoint(row)?))).collect()
}

fn parse_deposit_outpoint(row: &db::Row) -> Result<OutPoint, db::Error> {
    let vout = row.get::<i64>("part")? - TxPart::OUTPUT_CODES.start;
    let no_output = |_| db::Error::Value { column: "part".into(), reason: "not an output".into() };
    Ok(OutPoint { txid: TxId(row.get("txid")?), vout: u32::try_from(vout).map_err(no_output)? })
}

/// Returns at most `limit` outputs of deposits that no block has spent, oldest first.
pub async fn list_unspent_outputs(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<UnspentOutput>, db::Error> {
    let found = rows!(
        tx,
        "select d.txid, d.part, d.amount, d.height, d.state, a.text as address, a.derivation_index from deposits d
         join addresses a on a.id = d.address_id
         where d.chain = $1 and d.part >= 12884901888 and d.part < 17179869184 and d.state <> 'orphaned' and d.spending_txid is null
         order by d.id limit $2",
        chain.as_str(),
        limit
    )?;
    let unspent = |row: &db::Row| {
        Ok(UnspentOutput {
            output: parse_deposit_outpoint(row)?,
            amount: row.get("amount")?,
            height: row.get("height")?,
            state: row.get("state")?,
            address: row.get("address")?,
            index: row.get("derivation_index")?,
        })
    };
    found.iter().map(unspent).collect()
}

/// Returns at most `limit` unspent outputs of deposits whose ids are above `after`. Each output comes with the id of
/// its deposit; the result is in the order of these ids.
pub async fn list_unspent_outpoints_after(
    tx: &mut Tx,
    chain: &ChainId,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, OutPoint)>, db::Error> {
    let found = rows!(
        tx,
        "select id, txid, part from deposits
         where chain = $1 and part >= 12884901888 and part < 17179869184 and state <> 'orphaned' and spending_txid is null
           and id > $2 order by id limit $3",
        chain.as_str(),
        after,
        limit
    )?;
    found.iter().map(|row| Ok((row.get("id")?, parse_deposit_outpoint(row)?))).collect()
}

/// Stores the new state of each deposit whose state changes, with its disposition and the time of the change. A deposit
/// whose state stays the same is not written.
pub async fn set_changed_states_and_dispositions(
    tx: &mut Tx,
    now: Instant,
    deposits: &[(Deposit, State)],
) -> Result<(), db::Error> {
    let moved = deposits.iter().filter(|(deposit, to)| deposit.state != *to);
    deferred_for_each!(
        tx,
        moved.map(|(deposit, to)| batch_row![deposit.id, deposit.state, *to, deposit.used]).collect(),
        "with given (id bigint, was text, state text, used text)
         update deposits set state = given.state, disposition = given.used, confirmed_at = coalesce(confirmed_at, $1),
         final_at = case when given.state = 'final' then $1 end
         from given where deposits.id = given.id and deposits.state = given.was",
        now
    )
}

/// Marks a deposit as orphaned. Fails when the stored state differs from `deposit.state`.
pub async fn set_deposit_orphaned(tx: &mut Tx, now: Instant, deposit: &Deposit) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update deposits set state = 'orphaned', orphaned_at = $3 where id = $1 and state = $2",
        deposit.id,
        deposit.state,
        now
    )?;
    db::expect_changed(changed, 1)
}

/// Returns the address of an invoice with its initial balance and its booked deposits. Any unbooked money arrived after the
/// oldest stored block and after the block at which the initial balance was read. `None` when an earlier check found that
/// the balance is too large to be booked, or when no node could return the initial balance.
pub async fn find_balance_check_in_range(tx: &mut Tx, invoice: InvoiceId) -> Result<Option<BalanceCheck>, db::Error> {
    let found = row!(
        tx,
        "select a.id, a.key, a.text, i.chain, i.asset,
         (select min(b.height) from blocks b where b.chain = i.chain) as oldest
         from invoices i join addresses a on a.id = i.address_id where i.id = $1
         and not exists (select 1 from reviews r where r.kind = $2 and r.subject = 'invoice/' || i.id)",
        invoice,
        reviews::Kind::BalanceOutOfRange
    )?;
    let Some(found) = found else { return Ok(None) };
    let (chain, asset): (String, String) = (found.get("chain")?, found.get("asset")?);
    let (read_at, initial) = match find_balance_before_issue(tx, invoice, &AssetId::from_stored(&asset)).await? {
        BalanceBeforeIssue::Unknown => return Ok(None),
        BalanceBeforeIssue::NotRead => (0, None),
        BalanceBeforeIssue::Read { height, amount } => (height, Some(amount)),
    };
    let booked = rows!(
        tx,
        // Money that arrived before the address was issued is unclaimed. It explains the balance and pays no invoice. After
        // a reorg, a transfer may be mined below the block of the initial balance although that balance does not contain
        // it. Therefore deposits of every height count: a balance is rather explained twice than booked twice.
        "select amount, height from deposits where invoice_id = $1 and asset = $2 and state <> 'orphaned'
         union all
         select u.amount, u.height from invoices i join addresses a on a.id = i.address_id
         join unclaimed_transfers u on u.chain = a.chain and u.address_key = a.key
         where i.id = $1 and u.asset = $2 and u.state <> 'orphaned'",
        invoice,
        &asset
    )?;
    let deposit = |row: &db::Row| Ok((row.get("height")?, row.get("amount")?));
    let deposits: Vec<(Height, Amount)> = booked.iter().map(deposit).collect::<Result<_, db::Error>>()?;
    if Amount::checked_sum(deposits.iter().map(|(_, amount)| *amount)).is_none() {
        return Err(db::Error::Value { column: "amount".into(), reason: "the sum leaves the range".into() });
    }
    let asset = match asset.strip_prefix(&format!("{chain}/")) {
        Some("native") => AssetKind::Native,
        Some(contract) => AssetKind::Token { contract: contract.to_owned() },
        None => return Err(db::Error::Value { column: "asset".into(), reason: "an asset of another chain".into() }),
    };
    Ok(Some(BalanceCheck {
        invoice,
        id: found.get("id")?,
        address: Address { key: AddressKey(found.get("key")?), text: found.get("text")? },
        asset,
        initial,
        deposits,
        oldest: found.get::<Option<Height>>("oldest")?.unwrap_or(0).max(read_at),
    }))
}

/// Returns at most `limit` deposits, with their blocks and transfers, for which a second source must be asked now: they
/// have enough confirmations at `position`, no second source has shown them, and their time `check_after` has passed.
/// Deposits that were confirmed without a second source after `since` are included. The amount of a
/// [`TxPart::BalanceIncrease`] is the balance that its address must have after the block.
pub async fn list_unchecked_deposits(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    position: Position,
    since: Instant,
    limit: i64,
) -> Result<Vec<(DepositId, BlockRef, Transfer)>, db::Error> {
    let found = rows!(
        tx,
        "with waiting as (
             select * from deposits where chain = $1 and state = 'seen' and (confirm_height <= $2 or height <= $3)
             and corroboration <> 'shown' and single_source_usd_cents is null and check_after <= $4
             order by check_after, id limit $6),
         confirmed as (
             select * from deposits where chain = $1 and single_source_usd_cents is not null and confirmed_at > $5
             and state in ('confirmed', 'final') and corroboration <> 'shown' and check_after <= $4
             order by check_after, id limit $6),
         unchecked as (select * from waiting union all select * from confirmed)
         select d.id, d.height, d.block_hash, d.txid, d.tx_index, d.part, d.asset, d.amount, d.sender, d.invoice_id, a.key
         from unchecked d join addresses a on a.id = d.address_id
         order by case when d.state = 'seen' then 0 else 1 end, d.check_after, d.id limit $6",
        chain.as_str(),
        position.cursor,
        position.last,
        now,
        since,
        limit
    )?;
    let mut unchecked = Vec::with_capacity(found.len());
    for row in &found {
        let (id, block, mut transfer) = parse_transfer_row(row)?;
        if transfer.index.part == TxPart::BalanceIncrease {
            transfer.amount =
                compute_balance_after(tx, id, row.get("invoice_id")?, &transfer.asset, block.height).await?;
        }
        unchecked.push((id, block, transfer));
    }
    Ok(unchecked)
}

/// Returns the deposits that a second source has shown, or that were confirmed without one, of these blocks, receivers and
/// assets, with their blocks and transfers. Increases of balances are left out, because no block shows them.
pub async fn list_evidenced_deposits(
    tx: &mut Tx,
    chain: &ChainId,
    asked: &BTreeSet<(Height, BlockHash, AddressKey, AssetId)>,
) -> Result<Vec<(DepositId, BlockRef, Transfer)>, db::Error> {
    let found = rows_for_each!(
        tx,
        asked.iter().map(|(height, hash, to, asset)| batch_row![*height, hash.0, to.0, asset.as_str()]).collect(),
        "with given (height bigint, block_hash bytea, receiver bytea, asset text)
         select d.id, d.height, d.block_hash, d.txid, d.tx_index, d.part, d.asset, d.amount, d.sender, a.key
         from given, deposits d, addresses a
         where d.chain = $1 and d.height = given.height and d.block_hash = given.block_hash and d.state <> 'orphaned'
         and d.asset = given.asset and a.id = d.address_id and a.key = given.receiver
         and d.part <> $2 and (d.corroboration = 'shown' or d.single_source_usd_cents is not null)",
        chain.as_str(),
        TxPart::BalanceIncrease.code()
    )?;
    found.iter().map(parse_transfer_row).collect()
}

/// Returns the id, the block and the transfer of a deposit.
fn parse_transfer_row(row: &db::Row) -> Result<(DepositId, BlockRef, Transfer), db::Error> {
    let unknown = || db::Error::Value { column: "part".into(), reason: "no part has this code".into() };
    let part = TxPart::from_code(row.get("part")?).ok_or_else(unknown)?;
    let transfer = Transfer {
        txid: TxId(row.get("txid")?),
        index: TransferIndex { tx_index: row.get("tx_index")?, part },
        asset: AssetId::from_stored(&row.get::<String>("asset")?),
        to: AddressKey(row.get("key")?),
        from: row.get("sender")?,
        amount: row.get("amount")?,
    };
    let block = BlockRef { height: row.get("height")?, hash: BlockHash(row.get("block_hash")?) };
    Ok((row.get("id")?, block, transfer))
}

/// Returns the balance in an asset that the address of an invoice must have after the block at `height`: its initial
/// balance, and the deposits up to that block, without those that are contradicted. The deposit `id` counts in any
/// case.
async fn compute_balance_after(
    tx: &mut Tx,
    id: DepositId,
    invoice: InvoiceId,
    asset: &AssetId,
    height: Height,
) -> Result<Amount, db::Error> {
    let initial = match find_balance_before_issue(tx, invoice, asset).await? {
        BalanceBeforeIssue::NotRead | BalanceBeforeIssue::Unknown => Amount::ZERO,
        BalanceBeforeIssue::Read { amount, .. } => amount,
    };
    let found = rows!(
        tx,
        "select amount from deposits where invoice_id = $1 and asset = $2 and height <= $3
         and state <> 'orphaned' and (id = $4 or corroboration <> 'contradicted')
         union all
         select u.amount from invoices i join addresses a on a.id = i.address_id
         join unclaimed_transfers u on u.chain = a.chain and u.address_key = a.key
         where i.id = $1 and u.asset = $2 and u.state <> 'orphaned' and u.height <= $3",
        invoice,
        asset.as_str(),
        height,
        id
    )?;
    let amounts = found.iter().map(|row| row.get("amount")).collect::<Result<Vec<Amount>, db::Error>>()?;
    let out_of_range = || db::Error::Value { column: "amount".into(), reason: "the sum leaves the range".into() };
    Amount::checked_sum(amounts.into_iter().chain([initial])).ok_or_else(out_of_range)
}

/// The balance that an address had before it was issued.
enum BalanceBeforeIssue {
    /// The balances of its lease have not been read yet.
    NotRead,
    /// No node could return the balance.
    Unknown,
    /// The balance in base units, and the height of the block after which it was read. Both are 0 for an address without a
    /// lease.
    Read { height: Height, amount: Amount },
}

/// Returns the balance in an asset that the address of an invoice had before it was issued.
async fn find_balance_before_issue(
    tx: &mut Tx,
    invoice: InvoiceId,
    asset: &AssetId,
) -> Result<BalanceBeforeIssue, db::Error> {
    let found = row!(
        tx,
        "select l.first_index, l.balances_height, s.asset as initial_asset, s.amount as initial_amount
         from invoices i join addresses a on a.id = i.address_id
         left join address_leases l on l.account_id = a.account_id and l.first_index = (
             select max(first_index) from address_leases where account_id = a.account_id and first_index <= a.derivation_index)
         left join initial_balances s
             on s.account_id = a.account_id and s.derivation_index = a.derivation_index and s.asset = $2
         where i.id = $1",
        invoice,
        asset.as_str()
    )?;
    let Some(found) = found else { return Ok(BalanceBeforeIssue::NotRead) };
    if found.get::<Option<i64>>("first_index")?.is_none() {
        return Ok(BalanceBeforeIssue::Read { height: 0, amount: Amount::ZERO });
    }
    let Some(height) = found.get::<Option<Height>>("balances_height")? else { return Ok(BalanceBeforeIssue::NotRead) };
    // Balances of zero have no row.
    if found.get::<Option<String>>("initial_asset")?.is_none() {
        return Ok(BalanceBeforeIssue::Read { height, amount: Amount::ZERO });
    }
    let amount: Option<Amount> = found.get("initial_amount")?;
    Ok(amount.map_or(BalanceBeforeIssue::Unknown, |amount| BalanceBeforeIssue::Read { height, amount }))
}

/// Returns the deposits with these ids, each with its number of failed checks and the price of its invoice, oldest
/// first. Orphaned deposits are left out. The caller must hold the lock of the cursor, so that the deposits do not
/// change.
pub async fn list_unorphaned_deposits_with_prices(
    tx: &mut Tx,
    ids: impl Iterator<Item = DepositId>,
) -> Result<Vec<CheckedDeposit>, db::Error> {
    let found = rows_for_each!(
        tx,
        ids.map(|id| batch_row![id]).collect(),
        "with given (id bigint)
         select d.id, d.invoice_id, d.height, d.confirm_height, d.asset, d.amount, d.state, d.disposition, d.corroboration,
         d.single_source_usd_cents, d.failed_checks, i.asset as invoice_asset, i.amount_due, i.currency, i.price
         from given, deposits d, invoices i where d.id = given.id and d.state <> 'orphaned' and i.id = d.invoice_id"
    )?;
    let checked = |row: &db::Row| {
        Ok(CheckedDeposit {
            deposit: parse_deposit_row(row)?,
            failed_checks: row.get("failed_checks")?,
            invoice: InvoicePrice {
                asset: AssetId::from_stored(&row.get::<String>("invoice_asset")?),
                due: row.get("amount_due")?,
                price: Fiat::new(row.get("currency")?, row.get("price")?),
            },
        })
    };
    let mut checked = found.iter().map(checked).collect::<Result<Vec<_>, db::Error>>()?;
    checked.sort_by_key(|checked| checked.deposit.id);
    Ok(checked)
}

/// Returns the total value, in US cents, of the deposits that were confirmed without a second source after `since` and
/// that no second source has shown later.
/// Deposits that a reorg removed count, so that an endpoint cannot give itself the limit back.
pub async fn sum_single_source_usd_cents_since(tx: &mut Tx, chain: &ChainId, since: Instant) -> Result<i64, db::Error> {
    let found = row!(
        tx,
        "select cast(coalesce(sum(single_source_usd_cents), 0) as bigint) as cents from deposits
         where chain = $1 and single_source_usd_cents is not null and confirmed_at > $2
         and corroboration <> 'shown'",
        chain.as_str(),
        since
    )?;
    found.map_or(Ok(0), |row| row.get("cents"))
}

/// Stores the results of checks by second sources.
pub async fn set_check_results(tx: &mut Tx, results: &[CheckResult]) -> Result<(), db::Error> {
    let given = results.iter().map(|result| {
        let CheckResult { id, corroboration, failed_checks, check_after, single_source_usd_cents } = result;
        batch_row![*id, *corroboration, i64::from(*failed_checks), *check_after, *single_source_usd_cents]
    });
    deferred_for_each!(
        tx,
        given.collect(),
        "with given (id bigint, corroboration text, failed_checks bigint, check_after bigint, cents bigint)
         update deposits set corroboration = given.corroboration, failed_checks = given.failed_checks,
         check_after = given.check_after, single_source_usd_cents = given.cents
         from given where deposits.id = given.id"
    )
}

/// Returns true when a deposit in a block above `height` is confirmed but not final.
pub async fn has_confirmed_deposit_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select 1 as one from deposits where chain = $1 and state = 'confirmed' and height > $2 limit 1",
        chain.as_str(),
        height
    )?;
    Ok(found.is_some())
}

/// Changes the disposition `from` to `to` for all deposits of an invoice that are not orphaned.
pub async fn replace_disposition_of_deposits(
    tx: &mut Tx,
    invoice: InvoiceId,
    from: Disposition,
    to: Disposition,
) -> Result<(), db::Error> {
    execute!(
        tx,
        "update deposits set disposition = $3 where invoice_id = $1 and disposition = $2 and state <> 'orphaned'",
        invoice,
        from,
        to
    )?;
    Ok(())
}
