//! All SQL of stock.

use crate::stock::{ItemSummary, SealedItem, State};
use clock::Instant;
use db::{self, Bind, ResultRef, Row, Tx, execute, expect_changed, queued, row, rows};
use ids::{LineId, SkuId, StockItemId};

/// The maximum number of SKUs that [`list_stock_count_mismatches`] returns.
const MISMATCHES_MAX: u32 = 100;

/// The maximum number of keys for which [`list_one_item_of_each_key`] returns an item.
const KEYS_MAX: u32 = 1_000;

/// The maximum number of items in each state that [`list_newest_in_each_state_of_key`] returns. The items are samples that show
/// if a key works: it is unlikely that all of them are damaged.
const SAMPLES_MAX: u32 = 8;

/// A SKU whose column `available` differs from the number of its items in stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountMismatch {
    /// The SKU whose column `available` is wrong.
    pub sku: SkuId,
    /// The value of the column `skus.available`.
    pub available: u64,
    /// The number of items in the state `in_stock`.
    pub in_stock: u64,
}

/// Locks the row of a SKU until the end of the transaction.
pub async fn lock_sku(tx: &mut Tx, sku: SkuId) -> Result<(), db::Error> {
    let found = row!(tx, "select id from skus where id = $1 for update", sku)?;
    expect_changed(u64::from(found.is_some()), 1)
}

/// Inserts a stock item in the state `in_stock` and returns true. Returns false when the SKU already has an item with
/// this digest.
pub async fn insert_stock_item_if_new(
    tx: &mut Tx,
    now: Instant,
    sku: SkuId,
    ciphertext: Vec<u8>,
    digest: [u8; 32],
) -> Result<bool, db::Error> {
    let n = execute!(
        tx,
        "insert into stock_items (sku_id, state, ciphertext, digest, imported_at) values ($1, $2, $3, $4, $5)
         on conflict (sku_id, digest) do nothing",
        sku,
        State::InStock,
        ciphertext,
        digest,
        now
    )?;
    Ok(n == 1)
}

/// Inserts a stock item in the state `staged` and returns true. A staged item of another import with the same digest
/// becomes an item of this import instead. Returns false when the SKU has another item with this digest.
pub async fn insert_or_adopt_staged_item(
    tx: &mut Tx,
    import_at: Instant,
    sku: SkuId,
    ciphertext: Vec<u8>,
    digest: [u8; 32],
) -> Result<bool, db::Error> {
    let n = execute!(
        tx,
        "insert into stock_items (sku_id, state, ciphertext, digest, imported_at) values ($1, $2, $3, $4, $5)
         on conflict (sku_id, digest) do update set ciphertext = excluded.ciphertext, imported_at = excluded.imported_at
         where stock_items.state = 'staged' and stock_items.imported_at <> excluded.imported_at",
        sku,
        State::Staged,
        ciphertext,
        digest,
        import_at
    )?;
    Ok(n == 1)
}

/// Puts the staged items of an import in stock and returns their number.
pub async fn mark_staged_items_in_stock(tx: &mut Tx, sku: SkuId, import_at: Instant) -> Result<u64, db::Error> {
    execute!(
        tx,
        "update stock_items set state = 'in_stock' where sku_id = $1 and imported_at = $2 and state = 'staged'",
        sku,
        import_at
    )
}

/// Deletes the staged items of an import and returns their number.
pub async fn delete_staged_items(tx: &mut Tx, sku: SkuId, import_at: Instant) -> Result<u64, db::Error> {
    execute!(tx, "delete from stock_items where sku_id = $1 and imported_at = $2 and state = 'staged'", sku, import_at)
}

/// Queues the statement that reserves the oldest items in stock of a SKU for an order line. `sku` is the result of the
/// previous statement; when this result has no row, no item is reserved. The items are sorted by `imported_at` first,
/// because the index of the items in stock has this order. Sorted by `id` alone, PostgreSQL would read all items ever
/// sold through the primary key.
pub fn queue_reservation_of_oldest_items(
    tx: &mut Tx,
    sku: ResultRef<SkuId>,
    line: Bind,
    quantity: u32,
) -> ResultRef<StockItemId> {
    queued!(
        tx,
        "with chosen as materialized (
            select id from stock_items where sku_id = $1 and state = 'in_stock' order by imported_at, id limit $3
            for update skip locked)
         update stock_items set state = 'reserved', order_line_id = $2 where id in (select id from chosen)
         returning id",
        sku,
        line,
        quantity
    )
}

/// Puts the reserved items of an order line back in stock. Fails unless the line has `quantity` reserved items.
pub async fn mark_reserved_items_in_stock(tx: &mut Tx, line: LineId, quantity: u32) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "update stock_items set state = 'in_stock', order_line_id = null where order_line_id = $1 and state = 'reserved'",
        line
    )?;
    expect_changed(n, u64::from(quantity))
}

/// Marks the reserved items of an order line as delivered and returns them.
pub async fn mark_items_delivered(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    let changed = rows!(
        tx,
        "update stock_items set state = 'delivered' where order_line_id = $1 and state = 'reserved' returning sku_id, ciphertext",
        line
    )?;
    changed.iter().map(parse_sealed_item).collect()
}

/// Returns the delivered items of an order line, sorted by id.
pub async fn list_delivered_items(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    let found = rows!(
        tx,
        "select sku_id, ciphertext from stock_items where order_line_id = $1 and state = 'delivered' order by id",
        line
    )?;
    found.iter().map(parse_sealed_item).collect()
}

/// Returns one stock item for each encryption key. The first five bytes of a ciphertext are the version and the id of
/// its key. The query prefers the newest item in stock, then the newest reserved item, because items in these states
/// will still be decrypted for a delivery. The query steps from key to key through an index, so that it does not read
/// all items.
pub async fn list_one_item_of_each_key(tx: &mut Tx) -> Result<Vec<SealedItem>, db::Error> {
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
    found.iter().map(parse_sealed_item).collect()
}

/// Returns the newest stock items in each state that are encrypted with the key of `ciphertext`. The query uses an
/// index on the first five bytes of the ciphertexts.
pub async fn list_newest_in_each_state_of_key(tx: &mut Tx, ciphertext: &[u8]) -> Result<Vec<SealedItem>, db::Error> {
    let mut items = Vec::new();
    for state in [State::Staged, State::InStock, State::Reserved, State::Delivered, State::Withdrawn] {
        let found = rows!(
            tx,
            "select sku_id, ciphertext from stock_items where substr(ciphertext, 1, 5) = substr($1, 1, 5) and state = $2
             order by id desc limit $3",
            ciphertext.to_vec(),
            state,
            SAMPLES_MAX
        )?;
        for row in &found {
            items.push(parse_sealed_item(row)?);
        }
    }
    Ok(items)
}

fn parse_sealed_item(row: &Row) -> Result<SealedItem, db::Error> {
    Ok(SealedItem { sku: row.get("sku_id")?, ciphertext: row.get("ciphertext")? })
}

/// Returns at most `limit` items of a SKU that are in stock and are sold after the item `after`, in the order in which
/// they are sold.
pub async fn list_items_in_stock(
    tx: &mut Tx,
    sku: SkuId,
    after: StockItemId,
    limit: u32,
) -> Result<Vec<ItemSummary>, db::Error> {
    let found = rows!(
        tx,
        "select id, state, imported_at from stock_items where sku_id = $1 and state = 'in_stock'
            and (imported_at, id) > (coalesce((select imported_at from stock_items where id = $2), 0), $2)
         order by imported_at, id limit $3",
        sku,
        after,
        limit
    )?;
    found.iter().map(parse_item_summary).collect()
}

/// Returns at most `limit` items of a SKU in any state with ids above `after`, sorted by id.
pub async fn list_items_in_any_state(
    tx: &mut Tx,
    sku: SkuId,
    after: StockItemId,
    limit: u32,
) -> Result<Vec<ItemSummary>, db::Error> {
    let found = rows!(
        tx,
        "select id, state, imported_at from stock_items where sku_id = $1 and id > $2 order by id limit $3",
        sku,
        after,
        limit
    )?;
    found.iter().map(parse_item_summary).collect()
}

fn parse_item_summary(row: &Row) -> Result<ItemSummary, db::Error> {
    Ok(ItemSummary { id: row.get("id")?, state: row.get("state")?, imported_at: row.get("imported_at")? })
}

/// Returns the SKU of a stock item; `None` when the item does not exist.
pub async fn find_sku_of_stock_item(tx: &mut Tx, item: StockItemId) -> Result<Option<SkuId>, db::Error> {
    let found = row!(tx, "select sku_id from stock_items where id = $1", item)?;
    found.map(|row| row.get("sku_id")).transpose()
}

/// Sets the state of a stock item to `withdrawn` and returns true. Returns false when the item is not in stock.
pub async fn mark_item_withdrawn(tx: &mut Tx, item: StockItemId) -> Result<bool, db::Error> {
    let n = execute!(tx, "update stock_items set state = 'withdrawn' where id = $1 and state = 'in_stock'", item)?;
    Ok(n == 1)
}

/// Returns the SKUs whose column `available` differs from the number of their items in stock.
pub async fn list_stock_count_mismatches(tx: &mut Tx) -> Result<Vec<CountMismatch>, db::Error> {
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
