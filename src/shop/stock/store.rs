//! All SQL of stock.

use crate::stock::{Item, SealedItem, State};
use clock::Instant;
use db::{self, Batch, Bind, ResultRef, Row, Tx, execute, expect_changed, row, rows, statement};
use ids::{LineId, SkuId, StockItemId};

/// Findings of one audit.
const MISMATCHES_MAX: u32 = 100;

/// Keys that are tried at a start.
const KEYS_MAX: u32 = 1_000;

/// Items of one key that are tried, of each state: more than anybody damages by hand.
const SAMPLES_MAX: u32 = 8;

/// A SKU that counts wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountMismatch {
    pub sku: SkuId,
    pub available: u64,
    pub in_stock: u64,
}

pub async fn lock_sku(tx: &mut Tx, sku: SkuId) -> Result<(), db::Error> {
    let found = row!(tx, "select id from skus where id = $1 for update", sku)?;
    expect_changed(u64::from(found.is_some()), 1)
}

/// False when the SKU knows the line already.
pub async fn insert_item(
    tx: &mut Tx,
    now: Instant,
    sku: SkuId,
    sealed: Vec<u8>,
    digest: [u8; 32],
) -> Result<bool, db::Error> {
    let n = execute!(
        tx,
        "insert into stock_items (sku_id, state, ciphertext, digest, imported_at) values ($1, $2, $3, $4, $5)
         on conflict (sku_id, digest) do nothing",
        sku,
        State::InStock,
        sealed,
        digest,
        now
    )?;
    Ok(n == 1)
}

pub async fn add_available(tx: &mut Tx, sku: SkuId, quantity: u64) -> Result<(), db::Error> {
    let n = execute!(tx, "update skus set available = available + $2 where id = $1", sku, quantity)?;
    expect_changed(n, 1)
}

/// False when there are not as many. The row stays locked, so that the items can be chosen.
pub async fn take_available(tx: &mut Tx, sku: SkuId, quantity: u32) -> Result<bool, db::Error> {
    let n =
        execute!(tx, "update skus set available = available - $2 where id = $1 and available >= $2", sku, quantity)?;
    Ok(n == 1)
}

/// No row when there are not as many.
pub fn take_available_in(links: &mut Batch, sku: SkuId, quantity: u32) -> ResultRef<SkuId> {
    statement!(
        links,
        "update skus set available = available - $2 where id = $1 and available >= $2 returning id",
        sku,
        quantity
    )
}

/// None, when the SKU had not as many.
pub fn set_reserved(links: &mut Batch, sku: ResultRef<SkuId>, line: Bind, quantity: u32) -> ResultRef<StockItemId> {
    statement!(
        links,
        "with chosen as materialized (
            select id from stock_items where sku_id = $1 and state = 'in_stock' order by id limit $3
            for update skip locked)
         update stock_items set state = 'reserved', order_line_id = $2 where id in (select id from chosen)
         returning id",
        sku,
        line,
        quantity
    )
}

pub async fn set_released(tx: &mut Tx, line: LineId, quantity: u32) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "update stock_items set state = 'in_stock', order_line_id = null where order_line_id = $1 and state = 'reserved'",
        line
    )?;
    expect_changed(n, u64::from(quantity))
}

pub async fn set_delivered(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    let changed = rows!(
        tx,
        "update stock_items set state = 'delivered' where order_line_id = $1 and state = 'reserved' returning sku_id, ciphertext",
        line
    )?;
    changed.iter().map(delivered).collect()
}

pub async fn list_delivered(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    let found = rows!(
        tx,
        "select sku_id, ciphertext from stock_items where order_line_id = $1 and state = 'delivered' order by id",
        line
    )?;
    found.iter().map(delivered).collect()
}

/// One item of each key that items were sealed under: version and id of the key are the first five bytes. The newest that
/// is for sale or was sold and not handed out, if there is one: whether those can be read is what matters. Walks from key to
/// key through an index, so that a start does not read all of the stock.
pub async fn list_one_of_each_key(tx: &mut Tx) -> Result<Vec<SealedItem>, db::Error> {
    let found = rows!(
        tx,
        "with recursive heads (head) as (
             select (select substr(i.ciphertext, 1, 5) from stock_items i order by substr(i.ciphertext, 1, 5) limit 1)
             union all
             select (select substr(i.ciphertext, 1, 5) from stock_items i where substr(i.ciphertext, 1, 5) > heads.head
                     order by substr(i.ciphertext, 1, 5) limit 1)
             from heads where heads.head is not null)
         select i.sku_id, i.ciphertext from heads join stock_items i on i.id = coalesce(
             (select x.id from stock_items x where substr(x.ciphertext, 1, 5) = heads.head and x.state = 'in_stock'
              order by x.id desc limit 1),
             (select x.id from stock_items x where substr(x.ciphertext, 1, 5) = heads.head and x.state = 'reserved'
              order by x.id desc limit 1),
             (select x.id from stock_items x where substr(x.ciphertext, 1, 5) = heads.head limit 1))
         limit $1",
        KEYS_MAX
    )?;
    found.iter().map(delivered).collect()
}

/// Some of the items that begin with the same bytes as one of them: that were sealed under the same key. The newest in each
/// state, which are found through an index.
pub async fn list_of_key(tx: &mut Tx, sealed: &[u8]) -> Result<Vec<SealedItem>, db::Error> {
    let mut items = Vec::new();
    for state in [State::InStock, State::Reserved, State::Delivered, State::Withdrawn] {
        let found = rows!(
            tx,
            "select sku_id, ciphertext from stock_items where substr(ciphertext, 1, 5) = substr($1, 1, 5) and state = $2
             order by id desc limit $3",
            sealed.to_vec(),
            state,
            SAMPLES_MAX
        )?;
        for row in &found {
            items.push(delivered(row)?);
        }
    }
    Ok(items)
}

fn delivered(row: &Row) -> Result<SealedItem, db::Error> {
    Ok(SealedItem { sku: row.get("sku_id")?, sealed: row.get("ciphertext")? })
}

pub async fn list_in_stock(tx: &mut Tx, sku: SkuId, after: StockItemId, limit: u32) -> Result<Vec<Item>, db::Error> {
    let found = rows!(
        tx,
        "select id, state, imported_at from stock_items where sku_id = $1 and state = 'in_stock' and id > $2
         order by id limit $3",
        sku,
        after,
        limit
    )?;
    found.iter().map(item).collect()
}

pub async fn list(tx: &mut Tx, sku: SkuId, after: StockItemId, limit: u32) -> Result<Vec<Item>, db::Error> {
    let found = rows!(
        tx,
        "select id, state, imported_at from stock_items where sku_id = $1 and id > $2 order by id limit $3",
        sku,
        after,
        limit
    )?;
    found.iter().map(item).collect()
}

fn item(row: &Row) -> Result<Item, db::Error> {
    Ok(Item { id: row.get("id")?, state: row.get("state")?, imported_at: row.get("imported_at")? })
}

pub async fn find_sku(tx: &mut Tx, item: StockItemId) -> Result<Option<SkuId>, db::Error> {
    let found = row!(tx, "select sku_id from stock_items where id = $1", item)?;
    found.map(|row| row.get("sku_id")).transpose()
}

pub async fn set_withdrawn(tx: &mut Tx, item: StockItemId) -> Result<bool, db::Error> {
    let n = execute!(tx, "update stock_items set state = 'withdrawn' where id = $1 and state = 'in_stock'", item)?;
    Ok(n == 1)
}

pub async fn list_count_mismatches(tx: &mut Tx) -> Result<Vec<CountMismatch>, db::Error> {
    let found = rows!(
        tx,
        "select s.id, s.available, count(i.id) as in_stock from skus s
         left join stock_items i on i.sku_id = s.id and i.state = 'in_stock'
         group by s.id, s.available having s.available <> count(i.id) order by s.id limit $1",
        MISMATCHES_MAX
    )?;
    let mismatch = |row: &Row| {
        Ok(CountMismatch { sku: row.get("id")?, available: row.get("available")?, in_stock: row.get("in_stock")? })
    };
    found.iter().map(mismatch).collect()
}
