//! All SQL of unclaimed transfers.

use chain::{AssetId, ChainId, Height, Transfer};

use crate::unclaimed::FinalTransfer;
use clock::Instant;
use db::{self, Tx, row, rows};

/// Inserts a transfer in the state `seen` and returns its id; `None` when it is already stored.
pub async fn insert_unknown_transfer(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    height: Height,
    transfer: &Transfer,
) -> Result<Option<i64>, db::Error> {
    let inserted = row!(
        tx,
        "insert into unclaimed_transfers (chain, height, tx_index, part, txid, asset, address_key, amount, state, seen_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, 'seen', $9)
         on conflict (chain, height, tx_index, part) where state <> 'orphaned' do nothing returning id",
        chain.as_str(),
        height,
        transfer.index.tx_index,
        transfer.index.part.code(),
        transfer.txid.0,
        transfer.asset.as_str(),
        transfer.to.0,
        transfer.amount,
        now
    )?;
    inserted.map(|row| row.get("id")).transpose()
}

/// Marks the seen transfers up to `height` as final and returns them.
pub async fn set_seen_transfers_final(
    tx: &mut Tx,
    chain: &ChainId,
    height: Height,
) -> Result<Vec<FinalTransfer>, db::Error> {
    let changed = rows!(
        tx,
        "update unclaimed_transfers set state = 'final' where chain = $1 and height <= $2 and state = 'seen'
         returning id, asset, amount",
        chain.as_str(),
        height
    )?;
    let finished = |row: &db::Row| {
        Ok(FinalTransfer {
            id: row.get("id")?,
            asset: AssetId::from_stored(&row.get::<String>("asset")?),
            amount: row.get("amount")?,
        })
    };
    changed.iter().map(finished).collect()
}

/// Marks the seen transfers above `height` as orphaned and returns their ids.
pub async fn set_seen_transfers_orphaned(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<Vec<i64>, db::Error> {
    let changed = rows!(
        tx,
        "update unclaimed_transfers set state = 'orphaned' where chain = $1 and height > $2 and state = 'seen'
         returning id",
        chain.as_str(),
        height
    )?;
    changed.iter().map(|row| row.get("id")).collect()
}
