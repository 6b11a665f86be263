//! Stock: secret lines, each delivered at most once. `skus.available` always equals the lines in stock, because every
//! change of both holds the SKU's row.

mod store;

#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

use clock::Instant;
use db::{self, Batch, BatchResult, ResultRef, Tx};
use envelope::{Envelope, OpenError};
use ids::{LineId, SkuId, StockItemId};
use records::reviews;

pub use store::CountMismatch;

/// Lines of one import; more are imported in several.
pub const IMPORT_MAX: usize = 5_000;
pub const LINE_BYTES_MAX: usize = 8_192;

const PURPOSE: &str = "stock";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    InStock,
    Reserved,
    Delivered,
    Withdrawn,
}

db::text_enum!(State {
    InStock => "in_stock",
    Reserved => "reserved",
    Delivered => "delivered",
    Withdrawn => "withdrawn",
});

/// A line as it is stored: encrypted, and with a keyed digest that knows it again.
pub struct NewItem {
    sealed: Vec<u8>,
    digest: [u8; 32],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportResult {
    pub added: u64,
    /// Lines that this SKU has, or had, already.
    pub duplicates: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("line {number} is empty or has more than {LINE_BYTES_MAX} bytes")]
    BadLine { number: usize },
    #[error("{found} lines in one import; at most {IMPORT_MAX}")]
    TooMany { found: usize },
}

#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    #[error("there are not enough items in stock")]
    Insufficient,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// A delivered line as it is stored.
#[derive(Debug)]
pub struct SealedItem {
    pub sku: SkuId,
    pub sealed: Vec<u8>,
}

/// An item as its operator sees it: never what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub id: StockItemId,
    pub state: State,
    pub imported_at: Instant,
}

/// Encrypts lines before the transaction that imports them; outer blanks do not count.
pub fn encrypt_lines<'a>(
    envelope: &Envelope,
    sku: SkuId,
    lines: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<NewItem>, ImportError> {
    let mut sealed = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let line = line.trim();
        if line.is_empty() || line.len() > LINE_BYTES_MAX {
            return Err(ImportError::BadLine { number });
        }
        if number > IMPORT_MAX {
            return Err(ImportError::TooMany { found: number });
        }
        sealed.push(NewItem {
            sealed: envelope.seal(PURPOSE, &owner(sku), line.as_bytes()),
            digest: envelope.digest(PURPOSE, line.as_bytes()),
        });
    }
    Ok(sealed)
}

/// The line in plain text: for its buyer.
pub fn decrypt_item(envelope: &Envelope, item: &SealedItem) -> Result<Zeroizing<String>, OpenError> {
    let bytes = envelope.open(PURPOSE, &owner(item.sku), &item.sealed)?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Adds lines. The same line of the same SKU is counted as a duplicate, whatever became of the first.
pub async fn import(tx: &mut Tx, now: Instant, sku: SkuId, lines: Vec<NewItem>) -> Result<ImportResult, db::Error> {
    store::lock_sku(tx, sku).await?;
    let mut imported = ImportResult::default();
    for line in lines {
        match store::insert_item(tx, now, sku, line.sealed, line.digest).await? {
            true => imported.added += 1,
            false => imported.duplicates += 1,
        }
    }
    store::add_available(tx, sku, imported.added).await?;
    Ok(imported)
}

/// Items that a chain sets aside.
#[derive(Debug)]
pub struct Reservation {
    sku: ResultRef<SkuId>,
    items: ResultRef<StockItemId>,
    quantity: u32,
}

/// Sets items aside for a line of an order. The SKU's row is locked from here to the end of the transaction: what stands
/// behind it in the chain holds up whoever wants the same.
pub fn reserve(links: &mut Batch, sku: SkuId, line: impl Into<db::Bind>, quantity: u32) -> Reservation {
    let sku = store::take_available_in(links, sku, quantity);
    let items = store::set_reserved(links, sku, line.into(), quantity);
    Reservation { sku, items, quantity }
}

impl Reservation {
    /// All of them, or the transaction must not be stored.
    pub fn ensure_complete(&self, done: &BatchResult) -> Result<(), ReserveError> {
        if done.rows(self.sku) == 0 {
            return Err(ReserveError::Insufficient);
        }
        if done.rows(self.items) == u64::from(self.quantity) {
            return Ok(());
        }
        // PostgreSQL: the count was waited for, and what came back meanwhile is not seen by a statement that began before.
        Err(ReserveError::Db(db::Error::Conflict("items came back while they were reserved".into())))
    }
}

/// Puts the reserved items of a line back: its order ended unpaid.
pub async fn release(tx: &mut Tx, sku: SkuId, line: LineId, quantity: u32) -> Result<(), db::Error> {
    store::add_available(tx, sku, u64::from(quantity)).await?;
    store::set_released(tx, line, quantity).await
}

/// Hands the reserved items of a line out, and returns them.
pub async fn deliver(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    store::set_delivered(tx, line).await
}

/// What was handed out for a line, in the order of its items.
pub async fn list_delivered(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    store::list_delivered(tx, line).await
}

/// Items of a SKU that can be sold, by number, from behind `after` on.
pub async fn list_in_stock(tx: &mut Tx, sku: SkuId, after: StockItemId, limit: u32) -> Result<Vec<Item>, db::Error> {
    store::list_in_stock(tx, sku, after, limit).await
}

/// The same with those that are sold, reserved or withdrawn.
pub async fn list(tx: &mut Tx, sku: SkuId, after: StockItemId, limit: u32) -> Result<Vec<Item>, db::Error> {
    store::list(tx, sku, after, limit).await
}

/// Takes an item that is in stock off sale for ever; false when it is not in stock.
pub async fn withdraw(tx: &mut Tx, item: StockItemId) -> Result<bool, db::Error> {
    let Some(sku) = store::find_sku(tx, item).await? else { return Ok(false) };
    store::lock_sku(tx, sku).await?;
    if !store::set_withdrawn(tx, item).await? {
        return Ok(false);
    }
    store::take_available(tx, sku, 1).await
}

/// SKUs whose count of available items is not the number of items in stock: none, unless somebody changed the database
/// by hand.
pub async fn list_count_mismatches(tx: &mut Tx) -> Result<Vec<CountMismatch>, db::Error> {
    store::list_count_mismatches(tx).await
}

/// A key under which items are stored, and whether the one of that name in the ring reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInUse {
    pub id: u32,
    pub error: Option<OpenError>,
}

/// The keys of all items, each tried on one of them.
pub async fn list_keys_in_use(tx: &mut Tx, envelope: &Envelope) -> Result<Vec<KeyInUse>, db::Error> {
    let mut keys = Vec::new();
    for item in store::list_one_of_each_key(tx).await? {
        let Some(id) = Envelope::key_of(&item.sealed) else { continue };
        keys.push(KeyInUse { id, error: decrypt_item(envelope, &item).err() });
    }
    Ok(keys)
}

/// Whether the key that an item was sealed under reads others. Then an item that it refuses is damaged; else somebody put
/// another key in its place.
pub async fn key_opens_other_items(tx: &mut Tx, envelope: &Envelope, item: &SealedItem) -> Result<bool, db::Error> {
    let others = store::list_of_key(tx, &item.sealed).await?;
    Ok(others.iter().any(|other| decrypt_item(envelope, other).is_ok()))
}

/// Opens a review for each key without which items cannot be read, closes those of keys that are back, and returns what is
/// missing. Orders go on, because money that is on its way does: what cannot be read is not handed out meanwhile.
pub async fn review_missing_keys(tx: &mut Tx, now: Instant, envelope: &Envelope) -> Result<Vec<KeyInUse>, db::Error> {
    let mut missing = Vec::new();
    for key in list_keys_in_use(tx, envelope).await? {
        let subject = format!("key/{}", key.id);
        let Some(error) = &key.error else {
            reviews::resolve(tx, now, reviews::Kind::StockUnreadable, &subject, "the key is there again").await?;
            continue;
        };
        reviews::open(tx, now, reviews::Kind::StockUnreadable, &subject, &format!("stock cannot be read: {error}"))
            .await?;
        missing.push(key);
    }
    Ok(missing)
}

fn owner(sku: SkuId) -> String {
    format!("sku:{sku}")
}
