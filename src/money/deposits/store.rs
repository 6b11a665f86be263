//! All SQL of deposits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chain::{
    Address, AddressKey, Amount, AssetId, AssetKind, ChainId, Height, OutPoint, Spend, TransferIndex, TxId, TxPart,
};

use crate::cursors::Position;
use crate::deposits::{BalanceCheck, Deposit, Grace, NewDeposit, State, UnspentOutput};
use crate::invoices::{self, Disposition};
use clock::Instant;
use db::{self, Tx, batch_row, deferred_for_each, execute, row, rows, rows_for_each};
use ids::{DepositId, InvoiceId};
use records::reviews;

/// Returns those transactions of `late` that were seen in time. Each element of `late` has its own last instant. A
/// transaction is in time when it was in a block that a reorg has removed, or was an unconfirmed transfer, at or before
/// this instant.
pub async fn list_transactions_seen_in_time(
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

/// Returns those transfers of `small` that an invoice counted before a reorg removed their block.
pub async fn list_previously_counted_transfers(
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

/// Returns the dust of these invoices that arrived in time and in the asset that the invoice requests, oldest first.
pub async fn list_dust_in_time(
    tx: &mut Tx,
    grace: Grace,
    invoices: &BTreeSet<InvoiceId>,
) -> Result<Vec<Deposit>, db::Error> {
    let found = rows_for_each!(
        tx,
        invoices.iter().map(|invoice| batch_row![*invoice]).collect(),
        "with given (invoice bigint)
         select d.id, d.invoice_id, d.height, d.confirm_height, d.asset, d.amount, d.state, d.disposition
         from given, deposits d join invoices i on i.id = d.invoice_id
         where d.invoice_id = given.invoice and d.disposition = 'dust' and d.state <> 'orphaned' and d.asset = i.asset
         and d.block_time * 1000 <= i.expires_at + $1 order by d.id",
        grace.ms
    )?;
    found.iter().map(parse_deposit_row).collect()
}

/// Changes the disposition of dust to counted.
pub async fn set_dust_counted(tx: &mut Tx, dust: &[Deposit]) -> Result<(), db::Error> {
    deferred_for_each!(
        tx,
        dust.iter().map(|deposit| batch_row![deposit.id]).collect(),
        "with given (id bigint)
         update deposits set disposition = 'counted' from given where deposits.id = given.id and disposition = 'dust'"
    )
}

/// Returns the block height, the amount, the price in US cents and the amount due of each counted deposit of the blocks
/// at these heights.
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
        let value =
            invoices::compute_value_in_usd_cents(row.get("price_usd")?, row.get("amount")?, row.get("amount_due")?);
        Ok((row.get("height")?, value))
    };
    found.iter().map(value).collect()
}

/// Raises the height at which the unconfirmed deposits of blocks are confirmed, where it is lower. `depths` has the
/// required confirmations by block height.
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

/// Returns true when a deposit that is not orphaned is stored for this transfer of the block at `height`.
pub async fn is_transfer_booked(
    tx: &mut Tx,
    chain: &ChainId,
    height: Height,
    place: TransferIndex,
) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select 1 as one from deposits
         where chain = $1 and height = $2 and tx_index = $3 and part = $4 and state <> 'orphaned'",
        chain.as_str(),
        height,
        place.tx_index,
        place.part.code()
    )?;
    Ok(found.is_some())
}

/// Returns the invoice of an address when a balance check has booked money of this asset for the address at `height` or
/// above; otherwise `None`. The query has no condition on the deposit's chain: the asset id already contains the chain,
/// and with such a condition the database would read all later deposits of the chain.
pub async fn find_invoice_with_balance_increase(
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

/// Inserts deposits, each in its state `to`, and returns the inserted deposits with their ids. A transfer that is
/// already booked is neither inserted nor returned.
pub async fn insert_unbooked_deposits(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    fresh: Vec<NewDeposit>,
) -> Result<Vec<NewDeposit>, db::Error> {
    let given = fresh.iter().map(|fresh| {
        let ((hash, time), Deposit { invoice, height, confirm_height, asset, amount, used, .. }) =
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
            *confirm_height,
            reached(fresh.to != State::Seen),
            reached(fresh.to == State::Final)
        ]
    });
    let inserted = rows_for_each!(
        tx,
        given.collect(),
        "with given (height bigint, tx_index bigint, part bigint, block_hash bytea, block_time bigint, txid bytea, asset text,
         address bigint, invoice bigint, amount bytea, sender text, state text, used text, confirm_height bigint,
         confirmed_at bigint, final_at bigint)
         insert into deposits (chain, height, tx_index, part, block_hash, block_time, txid, asset, address_id, invoice_id,
         amount, sender, state, disposition, confirm_height, seen_at, confirmed_at, final_at)
         select $1, given.height, given.tx_index, given.part, given.block_hash, given.block_time, given.txid, given.asset,
         given.address, given.invoice, given.amount, given.sender, given.state, given.used, given.confirm_height, $2,
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

/// Locks the deposits that have enough confirmations at `position` for their next state, and returns them, oldest
/// first: at most `limit` that become confirmed, and at most `limit` that become final.
pub async fn lock_advancing_deposits(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
    limit: i64,
) -> Result<Vec<Deposit>, db::Error> {
    let found = rows!(
        tx,
        "with seen as (
             select id, invoice_id, height, confirm_height, asset, amount, state, disposition from deposits
             where chain = $1 and state = 'seen' and (confirm_height <= $2 or height <= $3) order by id limit $4 for update),
         confirmed as (
             select id, invoice_id, height, confirm_height, asset, amount, state, disposition from deposits
             where chain = $1 and state = 'confirmed' and height <= $3 order by id limit $4 for update)
         select id, invoice_id, height, confirm_height, asset, amount, state, disposition from seen
         union all select id, invoice_id, height, confirm_height, asset, amount, state, disposition from confirmed",
        chain.as_str(),
        position.cursor,
        position.last,
        limit
    )?;
    found.iter().map(parse_deposit_row).collect()
}

/// Locks the deposits above `height` that are not orphaned, and returns them, oldest first.
pub async fn lock_unorphaned_deposits_above(
    tx: &mut Tx,
    chain: &ChainId,
    height: Height,
) -> Result<Vec<Deposit>, db::Error> {
    let found = rows!(
        tx,
        "select id, invoice_id, height, confirm_height, asset, amount, state, disposition from deposits
         where chain = $1 and height > $2 and state <> 'orphaned' order by id for update",
        chain.as_str(),
        height
    )?;
    found.iter().map(parse_deposit_row).collect()
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
    })
}

/// Marks outputs of deposits as spent by a block. Returns the deposits that were not marked before, each with the
/// transaction that spends its output.
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

/// Marks outputs as unspent that were spent in blocks above `height`. Returns these outputs with their deposits.
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

/// Returns at most `limit` outputs of deposits that are unspent in all blocks that the follower has read, oldest first.
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

/// Returns at most `limit` unspent outputs of deposits with ids above `after`, each with the id of its deposit, in the
/// order of the ids.
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

/// Stores the new state of each deposit whose state changes. A deposit without a change is not written.
pub async fn set_changed_deposit_states(
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

/// Returns the address of an invoice with its booked deposits and the height of the oldest stored block. `None` when an
/// earlier check found that the balance is too large to be booked.
pub async fn find_bookable_balance_check(tx: &mut Tx, invoice: InvoiceId) -> Result<Option<BalanceCheck>, db::Error> {
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
    let booked = rows!(
        tx,
        "select amount, height from deposits where invoice_id = $1 and asset = $2 and state <> 'orphaned'",
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
        deposits,
        oldest: found.get::<Option<Height>>("oldest")?.unwrap_or(0),
    }))
}

/// Returns the height of the highest block with deposits that become confirmed or final at `position`; `None` when
/// there are none.
pub async fn find_highest_due_height(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
) -> Result<Option<Height>, db::Error> {
    let found = row!(
        tx,
        "select max(height) as height from (
             select max(height) as height from deposits where chain = $1 and state = 'seen' and confirm_height <= $2
             union all select max(height) as height from deposits where chain = $1 and state = 'seen' and height <= $3
             union all select max(height) as height from deposits where chain = $1 and state = 'confirmed' and height <= $3
         ) due",
        chain.as_str(),
        position.cursor,
        position.last
    )?;
    found.map_or(Ok(None), |row| row.get("height"))
}

/// Returns true when a confirmed deposit is above `height`.
pub async fn has_confirmed_deposit_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select 1 as one from deposits where chain = $1 and state = 'confirmed' and height > $2 limit 1",
        chain.as_str(),
        height
    )?;
    Ok(found.is_some())
}

/// Changes the disposition of an invoice's deposits that are not orphaned.
pub async fn set_disposition_of_invoice_deposits(
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
