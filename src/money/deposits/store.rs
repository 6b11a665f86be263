//! All SQL of deposits, cursors and recent blocks.

use chain::{
    Address, AddressKey, Amount, AssetId, AssetKind, BlockHash, BlockRef, ChainId, Header, Height, Transfer, TxId,
};

use crate::clock::Instant;
use crate::db::{self, Tx, execute, row, rows};
use crate::ids::{DepositId, InvoiceId, PostingSeq};
use crate::money::deposits::{Deposit, Position, State, Suspect};
use crate::money::invoices::{Invoice, Use};

/// A chain's persisted position.
#[derive(Debug, Clone)]
pub struct Cursor {
    pub recent: Vec<BlockRef>,
    pub final_height: Height,
    /// Block time of the cursor, unix seconds.
    pub time: i64,
    pub halted: Option<String>,
}

/// The cursor's row alone.
pub struct At {
    pub height: Height,
    pub final_height: Height,
}

pub async fn find_cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<Cursor>, db::Error> {
    let found = row!(tx, "select final_height, time, halted from cursors where chain = $1", chain.as_str())?;
    let Some(found) = found else { return Ok(None) };
    let recent = rows!(tx, "select height, hash from blocks where chain = $1 order by height", chain.as_str())?;
    let recent = recent
        .iter()
        .map(|row| Ok(BlockRef { height: row.get("height")?, hash: BlockHash(row.get("hash")?) }))
        .collect::<Result<_, db::Error>>()?;
    Ok(Some(Cursor {
        recent,
        final_height: found.get("final_height")?,
        time: found.get("time")?,
        halted: found.get("halted")?,
    }))
}

/// Everything that books or takes back deposits of a chain starts here, so that no two of them overlap.
pub async fn lock_cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<At>, db::Error> {
    let found = row!(tx, "select height, final_height from cursors where chain = $1 for update", chain.as_str())?;
    found.map(|row| Ok(At { height: row.get("height")?, final_height: row.get("final_height")? })).transpose()
}

pub async fn insert_cursor(tx: &mut Tx, chain: &ChainId, header: &Header) -> Result<(), db::Error> {
    execute!(
        tx,
        "insert into cursors (chain, height, hash, time, final_height, since_height) values ($1, $2, $3, $4, 0, $2)",
        chain.as_str(),
        header.height,
        header.hash.0,
        header.time
    )?;
    Ok(())
}

/// Moves the cursor from where the caller believes it is.
pub async fn set_cursor(tx: &mut Tx, chain: &ChainId, from: BlockRef, to: &Header) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update cursors set height = $4, hash = $5, time = $6 where chain = $1 and height = $2 and hash = $3",
        chain.as_str(),
        from.height,
        from.hash.0,
        to.height,
        to.hash.0,
        to.time
    )?;
    db::expect_changed(changed, 1)
}

pub async fn set_final_height(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<(), db::Error> {
    execute!(tx, "update cursors set final_height = $2 where chain = $1", chain.as_str(), height)?;
    Ok(())
}

pub async fn set_halted(tx: &mut Tx, chain: &ChainId, why: Option<&str>) -> Result<(), db::Error> {
    execute!(tx, "update cursors set halted = $2 where chain = $1", chain.as_str(), why)?;
    Ok(())
}

pub async fn insert_blocks(tx: &mut Tx, chain: &ChainId, headers: &[Header]) -> Result<(), db::Error> {
    for header in headers {
        execute!(
            tx,
            "insert into blocks (chain, height, hash, time) values ($1, $2, $3, $4)",
            chain.as_str(),
            header.height,
            header.hash.0,
            header.time
        )?;
    }
    Ok(())
}

/// `None` when it is not on the branch that we follow, or too old to be kept.
pub async fn find_block(tx: &mut Tx, chain: &ChainId, at: BlockRef) -> Result<Option<Header>, db::Error> {
    let found = row!(
        tx,
        "select time from blocks where chain = $1 and height = $2 and hash = $3",
        chain.as_str(),
        at.height,
        at.hash.0
    )?;
    let header = |time| Header { height: at.height, hash: at.hash, parent: at.hash, time };
    found.map(|row| row.get("time").map(header)).transpose()
}

pub async fn delete_blocks_below(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<(), db::Error> {
    execute!(tx, "delete from blocks where chain = $1 and height < $2", chain.as_str(), height)?;
    Ok(())
}

pub async fn delete_blocks_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<(), db::Error> {
    execute!(tx, "delete from blocks where chain = $1 and height > $2", chain.as_str(), height)?;
    Ok(())
}

pub async fn find_target(tx: &mut Tx, chain: &ChainId, key: AddressKey) -> Result<Option<InvoiceId>, db::Error> {
    let found = row!(
        tx,
        "select i.id from addresses a join invoices i on i.address_id = a.id where a.chain = $1 and a.key = $2",
        chain.as_str(),
        key.0
    )?;
    found.map(|row| row.get("id")).transpose()
}

/// `None` when exactly this movement is booked already.
#[expect(clippy::too_many_arguments, reason = "each is a column")]
pub async fn insert_deposit(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    header: &Header,
    transfer: &Transfer,
    invoice: &Invoice,
    used: Use,
    confirm_height: Height,
) -> Result<Option<DepositId>, db::Error> {
    let inserted = row!(
        tx,
        "insert into deposits (chain, height, tx_index, part, block_hash, block_time, txid, asset, address_id, invoice_id,
         amount, sender, state, use, confirm_height, seen_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         on conflict (chain, height, tx_index, part) where state <> 'orphaned' do nothing returning id",
        chain.as_str(),
        header.height,
        transfer.place.tx_index,
        transfer.place.part.code(),
        header.hash.0,
        header.time,
        transfer.txid.0,
        transfer.asset.as_str(),
        invoice.address_id,
        invoice.id,
        transfer.amount,
        transfer.from.as_deref(),
        State::Seen,
        used,
        confirm_height,
        now
    )?;
    inserted.map(|row| row.get("id")).transpose()
}

/// Whether this transaction reached the invoice before: in a block until `limit` that vanished, or on its way by then.
pub async fn was_seen_until(tx: &mut Tx, invoice: InvoiceId, txid: TxId, limit: Instant) -> Result<bool, db::Error> {
    let found = row!(
        tx,
        "select 1 as one from deposits where invoice_id = $1 and txid = $2 and state = 'orphaned' and block_time <= $3
         union all select 1 as one from sightings where invoice_id = $1 and txid = $2 and first_seen_at <= $4 limit 1",
        invoice,
        txid.0,
        limit.unix_seconds(),
        limit
    )?;
    Ok(found.is_some())
}

pub async fn set_use(tx: &mut Tx, id: DepositId, used: Use) -> Result<(), db::Error> {
    let changed = execute!(tx, "update deposits set use = $2 where id = $1", id, used)?;
    db::expect_changed(changed, 1)
}

pub async fn set_hold(tx: &mut Tx, id: DepositId, hold: PostingSeq) -> Result<(), db::Error> {
    let changed = execute!(tx, "update deposits set hold_seq = $2 where id = $1", id, hold)?;
    db::expect_changed(changed, 1)
}

/// Deposits that a position confirms or finishes, oldest first.
pub async fn lock_advancing(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
    limit: i64,
) -> Result<Vec<Deposit>, db::Error> {
    let mut found = rows!(
        tx,
        "select id, invoice_id, height, confirm_height, asset, amount, state, use, hold_seq from deposits
         where chain = $1 and state = 'seen' and (confirm_height <= $2 or height <= $3) order by id limit $4 for update",
        chain.as_str(),
        position.cursor,
        position.last,
        limit
    )?;
    found.extend(rows!(
        tx,
        "select id, invoice_id, height, confirm_height, asset, amount, state, use, hold_seq from deposits
         where chain = $1 and state = 'confirmed' and height <= $2 order by id limit $3 for update",
        chain.as_str(),
        position.last,
        limit
    )?);
    found.iter().map(deposit).collect()
}

/// Deposits above a height that are not final, oldest first.
pub async fn lock_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<Vec<Deposit>, db::Error> {
    let found = rows!(
        tx,
        "select id, invoice_id, height, confirm_height, asset, amount, state, use, hold_seq from deposits
         where chain = $1 and height > $2 and state <> 'orphaned' order by id for update",
        chain.as_str(),
        height
    )?;
    found.iter().map(deposit).collect()
}

fn deposit(row: &db::Row) -> Result<Deposit, db::Error> {
    Ok(Deposit {
        id: row.get("id")?,
        invoice: row.get("invoice_id")?,
        height: row.get("height")?,
        confirm_height: row.get("confirm_height")?,
        asset: AssetId::stored(&row.get::<String>("asset")?),
        amount: row.get("amount")?,
        state: row.get("state")?,
        used: row.get("use")?,
        hold: row.get("hold_seq")?,
    })
}

pub async fn set_state(tx: &mut Tx, now: Instant, deposit: &Deposit, to: State) -> Result<(), db::Error> {
    let changed = match to {
        State::Seen => return Ok(()),
        State::Confirmed => execute!(
            tx,
            "update deposits set state = $3, confirmed_at = $4 where id = $1 and state = $2",
            deposit.id,
            deposit.state,
            to,
            now
        )?,
        State::Final => execute!(
            tx,
            "update deposits set state = $3, confirmed_at = coalesce(confirmed_at, $4), final_at = $4
             where id = $1 and state = $2",
            deposit.id,
            deposit.state,
            to,
            now
        )?,
        State::Orphaned => execute!(
            tx,
            "update deposits set state = $3, orphaned_at = $4 where id = $1 and state = $2",
            deposit.id,
            deposit.state,
            to,
            now
        )?,
    };
    db::expect_changed(changed, 1)
}

pub async fn count_unfinished(tx: &mut Tx, chain: &ChainId) -> Result<u64, db::Error> {
    let found = row!(
        tx,
        "select (select count(*) from deposits where chain = $1 and state = 'seen')
              + (select count(*) from deposits where chain = $1 and state = 'confirmed') as unfinished",
        chain.as_str()
    )?;
    found.map_or(Ok(0), |row| row.get("unfinished"))
}

pub async fn list_native_open(tx: &mut Tx, chain: &ChainId, limit: i64) -> Result<Vec<InvoiceId>, db::Error> {
    let native = AssetId::of(chain, &AssetKind::Native);
    let found = rows!(
        tx,
        "select id from invoices where chain = $1 and asset = $2 and state = 'open' order by expires_at limit $3",
        chain.as_str(),
        native.as_str(),
        limit
    )?;
    found.iter().map(|row| row.at(0)).collect()
}

/// An invoice's address with the sum of what was booked on it, from the oldest kept block or its newest deposit on.
pub async fn find_suspect(tx: &mut Tx, invoice: InvoiceId) -> Result<Option<Suspect>, db::Error> {
    let found = row!(
        tx,
        "select a.id, a.key, a.text, i.chain, i.asset,
         (select min(b.height) from blocks b where b.chain = i.chain) as oldest
         from invoices i join addresses a on a.id = i.address_id where i.id = $1",
        invoice
    )?;
    let Some(found) = found else { return Ok(None) };
    let (chain, asset): (String, String) = (found.get("chain")?, found.get("asset")?);
    let booked = rows!(
        tx,
        "select amount, height from deposits where invoice_id = $1 and asset = $2 and state <> 'orphaned'",
        invoice,
        &asset
    )?;
    let mut since: Height = found.get::<Option<Height>>("oldest")?.unwrap_or(0);
    let mut amounts = Vec::with_capacity(booked.len());
    for deposit in &booked {
        amounts.push(deposit.get::<Amount>("amount")?);
        since = since.max(deposit.get("height")?);
    }
    let out_of_range = || db::Error::Value { column: "amount".into(), reason: "the sum leaves the range".into() };
    let asset = match asset.strip_prefix(&format!("{chain}/")) {
        Some("native") => AssetKind::Native,
        Some(contract) => AssetKind::Token { contract: contract.to_owned() },
        None => return Err(db::Error::Value { column: "asset".into(), reason: "it is not of the chain".into() }),
    };
    Ok(Some(Suspect {
        invoice,
        id: found.get("id")?,
        address: Address { key: AddressKey(found.get("key")?), text: found.get("text")? },
        asset,
        explained: Amount::sum(amounts).ok_or_else(out_of_range)?,
        since,
    }))
}
