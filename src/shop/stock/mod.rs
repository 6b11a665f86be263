//! Stock: encrypted items, each a line of text that is delivered at most once. The column `skus.available` always
//! equals the number of items in stock, because a transaction locks the row of the SKU before it changes the
//! column or an item. Staged items are not in stock yet, so adding and deleting them needs no lock.

mod store;

#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

use crate::catalog;
use clock::Instant;
use db::{self, ResultRef, Tx};
use envelope::{DecryptError, Envelope};
use ids::{LineId, SkuId, StockItemId};
use records::audit_log::{self, Action, Actor};
use records::reviews;

pub use store::CountMismatch;

/// The maximum number of lines, each one stock item, in one import.
pub const IMPORT_LINES_MAX: usize = 5_000;
/// The maximum length of one line, which is one stock item, in bytes.
pub const LINE_BYTES_MAX: usize = 8_192;

/// The purpose under which stock items are encrypted; see [`Envelope::encrypt`].
const PURPOSE: &str = "stock";

/// The kind of the review for stock items that cannot be decrypted.
const UNREADABLE: reviews::Kind = reviews::Kind::StockUnreadable;

/// The state of a stock item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The item belongs to an import that is not complete yet. Buyers cannot get the item.
    Staged,
    /// The item is available for orders.
    InStock,
    /// The item is reserved for an order line.
    Reserved,
    /// The item was delivered to the buyer of an order line.
    Delivered,
    /// An operator withdrew the item from sale permanently.
    Withdrawn,
}

db::text_enum!(State {
    Staged => "staged",
    InStock => "in_stock",
    Reserved => "reserved",
    Delivered => "delivered",
    Withdrawn => "withdrawn",
});

/// A stock item to import: the encrypted line, and a keyed digest by which duplicate lines are recognized.
pub struct NewItem {
    ciphertext: Vec<u8>,
    digest: [u8; 32],
}

/// The result of an import: the number of added lines and the number of skipped lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportResult {
    /// The number of lines that were added to the stock.
    pub added: u64,
    /// The number of lines that were skipped, because the SKU already has an item with the same text, in any state.
    pub duplicates: u64,
}

/// The reason why lines were not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The line with this number, counted from 1, is empty or too long.
    #[error("line {number} {problem}")]
    BadLine { number: usize, problem: BadLine },
    /// The import has more than [`IMPORT_LINES_MAX`] lines.
    #[error("one import has at most {IMPORT_LINES_MAX} lines; this one has at least {found}")]
    TooMany { found: usize },
}

/// The reason why a text cannot be a stock item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// The text has only whitespace.
    #[error("is empty")]
    Empty,
    /// The text has more than [`LINE_BYTES_MAX`] bytes.
    #[error("has {0} bytes; an item has at most {LINE_BYTES_MAX} bytes")]
    TooLong(usize),
}

/// The reason why items were not reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The SKU has fewer available items than the order line needs.
    #[error("there are not enough items in stock")]
    Insufficient,
    /// The database failed. The caller retries after a conflict.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// An encrypted stock item.
#[derive(Debug)]
pub struct SealedItem {
    /// The SKU of the item. Decryption fails with another SKU.
    pub sku: SkuId,
    /// The encrypted line. The first five bytes identify the key that encrypted it.
    pub ciphertext: Vec<u8>,
}

/// A stock item without its text, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemSummary {
    pub id: StockItemId,
    pub state: State,
    /// The time of the import.
    pub imported_at: Instant,
}

/// Returns the text that is sold for a line of an import: the line without whitespace and byte order marks at both
/// ends. Some editors write a byte order mark at the start of a file; without this step, the buyer of the first item
/// would get the mark.
///
/// # Errors
/// Fails when the text is empty or too long.
pub fn trim_and_validate_line(line: &str) -> Result<&str, BadLine> {
    let text = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    match text.len() {
        0 => Err(BadLine::Empty),
        1..=LINE_BYTES_MAX => Ok(text),
        length => Err(BadLine::TooLong(length)),
    }
}

/// Encrypts the lines of an import, after removing the whitespace at both ends of each line. Fails when a line is empty
/// or too long, or when the import has too many lines. The encryption takes time, so this function must be called
/// before the transaction of the import.
pub fn validate_and_encrypt_lines<'a>(
    envelope: &Envelope,
    sku: SkuId,
    lines: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<NewItem>, ImportError> {
    let mut items = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let line = trim_and_validate_line(line).map_err(|problem| ImportError::BadLine { number, problem })?;
        if number > IMPORT_LINES_MAX {
            return Err(ImportError::TooMany { found: number });
        }
        items.push(NewItem {
            ciphertext: envelope.encrypt(PURPOSE, &format_envelope_owner(sku), line.as_bytes()),
            digest: envelope.digest(PURPOSE, line.as_bytes()),
        });
    }
    Ok(items)
}

/// Returns the text of a stock item. Bytes that are not UTF-8 are replaced by the character U+FFFD.
pub fn decrypt_stock_item(envelope: &Envelope, item: &SealedItem) -> Result<Zeroizing<String>, DecryptError> {
    let bytes = envelope.decrypt(PURPOSE, &format_envelope_owner(item.sku), &item.ciphertext)?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Adds items to the stock of a SKU and records the action in the audit log. An item is skipped when the SKU already
/// has an item with the same text.
pub async fn import_stock_items(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    product_slug: &str,
    sku: SkuId,
    items: Vec<NewItem>,
) -> Result<ImportResult, db::Error> {
    store::lock_sku(tx, sku).await?;
    let mut result = ImportResult::default();
    for item in items {
        match store::insert_stock_item_if_new(tx, now, sku, item.ciphertext, item.digest).await? {
            true => result.added += 1,
            false => result.duplicates += 1,
        }
    }
    catalog::add_to_available_count(tx, sku, result.added).await?;
    audit_log::record_action(tx, now, actor, Action::StockImport, product_slug, &result.added.to_string()).await?;
    Ok(result)
}

/// Adds items of an import that consists of several transactions. Buyers cannot get these items before
/// [`publish_staged_items`]. `import_at` is the time at which the import began; it identifies the import among the
/// imports of the SKU. An item is skipped when the SKU already has an item with the same text. A staged item of an
/// earlier, unfinished import is not skipped: it becomes an item of this import.
pub async fn stage_items_skipping_duplicates(
    tx: &mut Tx,
    sku: SkuId,
    import_at: Instant,
    items: Vec<NewItem>,
) -> Result<ImportResult, db::Error> {
    let mut result = ImportResult::default();
    for item in items {
        match store::insert_or_adopt_staged_item(tx, import_at, sku, item.ciphertext, item.digest).await? {
            true => result.added += 1,
            false => result.duplicates += 1,
        }
    }
    Ok(result)
}

/// Puts all staged items of an import in stock and records the action in the audit log. Returns the number of the items.
pub async fn publish_staged_items(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    product_slug: &str,
    sku: SkuId,
    import_at: Instant,
) -> Result<u64, db::Error> {
    store::lock_sku(tx, sku).await?;
    let added = store::mark_staged_items_in_stock(tx, sku, import_at).await?;
    catalog::add_to_available_count(tx, sku, added).await?;
    audit_log::record_action(tx, now, actor, Action::StockImport, product_slug, &added.to_string()).await?;
    Ok(added)
}

/// Deletes the staged items of an import that failed, and returns the number of deleted items.
pub async fn delete_staged_items(tx: &mut Tx, sku: SkuId, import_at: Instant) -> Result<u64, db::Error> {
    store::delete_staged_items(tx, sku, import_at).await
}

/// The stock items that queued statements will reserve for an order line.
#[derive(Debug)]
pub struct Reservation {
    sku: ResultRef<SkuId>,
    items: ResultRef<StockItemId>,
    quantity: u32,
}

/// Queues the statements that reserve `quantity` items of a SKU for an order line. The statements lock the row of the
/// SKU until the end of the transaction, and other transactions for the same SKU wait. So queue these statements as the
/// last statements of the transaction.
pub fn queue_item_reservation(tx: &mut Tx, sku: SkuId, line: impl Into<db::Bind>, quantity: u32) -> Reservation {
    let sku = catalog::queue_subtraction_if_enough_available(tx, sku, quantity);
    let items = store::queue_reservation_of_oldest_items(tx, sku, line.into(), quantity);
    Reservation { sku, items, quantity }
}

impl Reservation {
    /// Fails when the queued statements did not reserve all items. Call this function after the statements have run.
    ///
    /// # Errors
    /// [`ReserveError::Insufficient`] when the SKU has too few items, and a conflict when a retry may find the items.
    /// The caller must roll the transaction back after either error.
    pub fn ensure_fully_reserved(&self, tx: &Tx) -> Result<(), ReserveError> {
        if tx.row_count_of(self.sku) == 0 {
            return Err(ReserveError::Insufficient);
        }
        if tx.row_count_of(self.items) == u64::from(self.quantity) {
            return Ok(());
        }
        // On PostgreSQL the statement may have waited for the row of the SKU. Items that another transaction released
        // during this wait are counted in `skus.available`, but the snapshot of the statement does not contain them. A
        // retry of the transaction finds these items.
        Err(ReserveError::Db(db::Error::Conflict("items were released while they were being reserved".into())))
    }
}

/// Puts the reserved items of an order line back in stock. Fails unless the line has `quantity` reserved items.
pub async fn release_reserved_items(tx: &mut Tx, sku: SkuId, line: LineId, quantity: u32) -> Result<(), db::Error> {
    catalog::add_to_available_count(tx, sku, u64::from(quantity)).await?;
    store::mark_reserved_items_in_stock(tx, line, quantity).await
}

/// Marks the reserved items of an order line as delivered and returns them.
pub async fn mark_reserved_items_delivered(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    store::mark_items_delivered(tx, line).await
}

/// Returns the delivered items of an order line, sorted by id.
pub async fn list_delivered_items(tx: &mut Tx, line: LineId) -> Result<Vec<SealedItem>, db::Error> {
    store::list_delivered_items(tx, line).await
}

/// Returns at most `limit` items of a SKU that are in stock, in the order in which they will be sold, beginning after
/// the item `after`.
pub async fn list_items_in_stock(
    tx: &mut Tx,
    sku: SkuId,
    after: StockItemId,
    limit: u32,
) -> Result<Vec<ItemSummary>, db::Error> {
    store::list_items_in_stock(tx, sku, after, limit).await
}

/// Returns at most `limit` items of a SKU in any state with ids above `after`, sorted by id.
pub async fn list_items_in_any_state(
    tx: &mut Tx,
    sku: SkuId,
    after: StockItemId,
    limit: u32,
) -> Result<Vec<ItemSummary>, db::Error> {
    store::list_items_in_any_state(tx, sku, after, limit).await
}

/// Withdraws a stock item from sale permanently and records the action in the audit log. Returns false, and changes
/// nothing, when the item is not in stock.
pub async fn withdraw_stock_item(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    item: StockItemId,
) -> Result<bool, db::Error> {
    let Some(sku) = store::find_sku_of_stock_item(tx, item).await? else { return Ok(false) };
    store::lock_sku(tx, sku).await?;
    if !store::mark_item_withdrawn(tx, item).await? {
        return Ok(false);
    }
    let taken = catalog::queue_subtraction_if_enough_available(tx, sku, 1);
    tx.run_queued().await?;
    db::expect_changed(tx.row_count_of(taken), 1)?;
    audit_log::record_action(tx, now, actor, Action::StockWithdraw, &item.to_string(), "").await?;
    Ok(true)
}

/// Returns at most 100 SKUs whose column `available` differs from the number of their items in stock. Such a difference
/// arises only when something other than this program changes the database.
pub async fn list_stock_count_mismatches(tx: &mut Tx) -> Result<Vec<CountMismatch>, db::Error> {
    store::list_stock_count_mismatches(tx).await
}

/// An encryption key that is needed to decrypt stored stock items. The key ring may lack this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInUse {
    /// The id of the key in the key ring, which holds the encryption keys.
    pub id: u32,
    /// The error when one item was decrypted with the key as a test; `None` when the key decrypted the item.
    pub error: Option<DecryptError>,
}

/// Returns the keys with which stored items are encrypted, at most 1,000. Each key is tested by decrypting one item.
pub async fn list_and_test_stock_keys(tx: &mut Tx, envelope: &Envelope) -> Result<Vec<KeyInUse>, db::Error> {
    let mut keys = Vec::new();
    for item in store::list_one_item_of_each_key(tx).await? {
        let Some(id) = Envelope::find_key_id(&item.ciphertext) else { continue };
        keys.push(KeyInUse { id, error: decrypt_stock_item(envelope, &item).err() });
    }
    Ok(keys)
}

/// Returns true when the key of `item` decrypts at least one of the newest items that have the same key; then an item
/// that the key cannot decrypt is damaged. Returns false when the key decrypts none of them; then the key ring holds a
/// different key under this id.
pub async fn can_key_decrypt_other_items(
    tx: &mut Tx,
    envelope: &Envelope,
    item: &SealedItem,
) -> Result<bool, db::Error> {
    let others = store::list_newest_in_each_state_of_key(tx, &item.ciphertext).await?;
    Ok(others.iter().any(|other| decrypt_stock_item(envelope, other).is_ok()))
}

/// Opens a review for each key that cannot decrypt its stock items, resolves the reviews of restored keys, and returns
/// the keys that cannot decrypt. The shop still accepts new orders for these items, but does not deliver the items.
pub async fn sync_missing_key_reviews(
    tx: &mut Tx,
    now: Instant,
    envelope: &Envelope,
) -> Result<Vec<KeyInUse>, db::Error> {
    let mut missing = Vec::new();
    for key in list_and_test_stock_keys(tx, envelope).await? {
        let subject = format!("key/{}", key.id);
        let Some(error) = &key.error else {
            reviews::resolve_review_if_open(tx, now, UNREADABLE, &subject, "the key was restored").await?;
            continue;
        };
        reviews::open_or_reopen_review(tx, now, UNREADABLE, &subject, &format!("stock cannot be decrypted: {error}"))
            .await?;
        missing.push(key);
    }
    Ok(missing)
}

/// Returns the text that binds the ciphertexts of a SKU to this SKU, such as `sku:5`; see [`Envelope::encrypt`]. A
/// ciphertext that is moved to another SKU cannot be decrypted.
fn format_envelope_owner(sku: SkuId) -> String {
    format!("sku:{sku}")
}
