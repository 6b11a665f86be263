//! The catalog: products with their SKUs, prices and texts. Buyers see only active products.

pub mod languages;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use uuid::Uuid;

use clock::Instant;
use db::{self, Tx};
use ids::{ProductId, Shop, SkuId};
use money::pricing::{Currency, Fiat};
use records::audit_log::{self, Action, Actor};

pub(crate) use store::{add_to_available_count, queue_subtraction_if_enough_available};

/// The default maximum quantity of a product in one order.
pub const MAX_QUANTITY: u32 = 200;

/// The SKU code of a product without variants.
pub const ONLY_SKU: &str = "default";

/// The maximum length of a slug, in bytes.
const SLUG_LENGTH_MAX: usize = 100;

/// The state of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Buyers see the product and can order it.
    Active,
    /// Only operators see the product, and it cannot be ordered.
    Inactive,
}

db::text_enum!(State { Active => "active", Inactive => "inactive" });

/// A product as buyers see it. `stock` and `unit_price` belong to the first active SKU of the product, and `unit_price`
/// is in the currency that the caller asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub id: ProductId,
    /// The public id, which the APIs use: a UUID in hyphenated lower-case form.
    pub public_id: String,
    /// The readable name of the product in URLs and on the command line. It is unique within the shop.
    pub slug: String,
    pub state: State,
    /// The minimum quantity in one order.
    pub min_quantity: u32,
    /// The maximum quantity in one order.
    pub max_quantity: u32,
    /// The product's first active SKU. An order for the product reserves items of this SKU.
    pub sku: SkuId,
    /// The number of units of the SKU that are available for new orders.
    pub stock: u64,
    /// The price of one unit when the buyer orders 1 unit.
    pub unit_price: Fiat,
    /// The names and descriptions of the product in all languages.
    pub texts: LocalizedTexts,
}

/// A product as operators see it: active or not, with its prices in all currencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductWithPrices {
    pub id: ProductId,
    /// The public id, which the APIs use: a UUID in hyphenated lower-case form.
    pub public_id: String,
    /// The readable name of the product in URLs and on the command line. It is unique within the shop.
    pub slug: String,
    pub state: State,
    /// The minimum quantity in one order.
    pub min_quantity: u32,
    /// The maximum quantity in one order.
    pub max_quantity: u32,
    /// The product's first active SKU. An order for the product reserves items of this SKU.
    pub sku: SkuId,
    /// The number of units of the SKU that are available for new orders.
    pub stock: u64,
    /// The price of one unit when the buyer orders 1 unit: one element for each currency, sorted by currency code.
    /// Empty when the product has no price.
    pub unit_prices: Vec<Fiat>,
}

/// The texts of a product by field (`name` or `description`) and language tag, such as `en`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalizedTexts(BTreeMap<(String, String), String>);

impl LocalizedTexts {
    /// Returns these texts with one text added, which replaces the text of the same field and language. The language is a
    /// tag in [canonical form](languages::normalize_language_tag).
    pub fn with_text(mut self, field: &str, language: &str, body: &str) -> LocalizedTexts {
        self.0.insert((field.to_owned(), language.to_owned()), body.to_owned());
        self
    }

    /// Returns the text of a field in a language such as `zh`. A product without such a text may have one in a variant of
    /// the language, such as `zh-CN`; the text of the alphabetically first variant is returned then. `None` when the
    /// product has neither.
    pub fn find_text_in_language_or_variant(&self, field: &str, language: &str) -> Option<&str> {
        let exact = self.0.get(&(field.to_owned(), language.to_owned()));
        let is_variant = |stored: &(String, String)| stored.0 == field && languages::is_variant_of(&stored.1, language);
        let variant = || self.0.iter().find(|(stored, _)| is_variant(stored)).map(|(_, text)| text);
        exact.or_else(variant).map(String::as_str)
    }
}

/// A price tier: the price of one unit in an order of at least `from_quantity` units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceTier {
    /// The smallest quantity to which this price applies.
    pub from_quantity: u32,
    /// The price of one unit, in minor units of the currency.
    pub unit_price: i64,
}

/// A product to be created.
#[derive(Debug, Clone)]
pub struct NewProduct {
    /// The public id, which the APIs use. The caller generates it.
    pub public_id: Uuid,
    /// The readable name of the product in URLs and on the command line: 1 to 100 of the characters a-z, 0-9 and `-`.
    pub slug: String,
    /// The minimum quantity in one order; at least 1.
    pub min_quantity: u32,
    /// The maximum quantity in one order; not below `min_quantity`.
    pub max_quantity: u32,
    /// The position in the product list, which is sorted by this number in ascending order.
    pub position: i64,
    /// The currency of the prices in `tiers`.
    pub currency: Currency,
    /// The price tiers of the product in `currency`. One of them starts at quantity 1.
    pub tiers: Vec<PriceTier>,
    /// The names and descriptions of the product in all languages.
    pub texts: LocalizedTexts,
}

/// The data of a product to create or to change. When a field is `None` or empty, an existing product keeps its stored
/// value, and a new product gets the default.
#[derive(Debug, Clone)]
pub struct ProductChange {
    /// The slug of the product to change. When no product has this slug, a new product is created.
    pub slug: String,
    /// The currency of `unit_price`.
    pub currency: Currency,
    /// The price of one unit, in minor units of the currency. This price replaces all price tiers of the product in
    /// this currency.
    pub unit_price: i64,
    /// The minimum quantity in one order; the default is 1.
    pub min_quantity: Option<u32>,
    /// The maximum quantity in one order; the default is [`MAX_QUANTITY`].
    pub max_quantity: Option<u32>,
    /// The position of a new product in the product list. An existing product keeps its position.
    pub position: i64,
    /// The texts to add. Each replaces the stored text of the same field and language.
    pub texts: LocalizedTexts,
}

/// The reason why a product was not created or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The slug has an invalid length or character, or is a UUID.
    #[error("a slug has 1 to {SLUG_LENGTH_MAX} characters, each of a-z, 0-9 or -, and is not a UUID")]
    BadSlug,
    /// Another product of the shop has the slug.
    #[error("another product has this slug")]
    SlugTaken,
    /// The minimum quantity is 0 or above the maximum.
    #[error("the minimum quantity must be at least 1 and at most the maximum; they would be {min} and {max}")]
    BadLimits { min: u32, max: u32 },
    /// The price tiers are invalid: none starts at quantity 1, two start at the same quantity, or a price is negative.
    #[error("price tiers must start at quantity 1, have each quantity once, and not be negative")]
    BadTiers,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// A SKU that buyers can order, with its stock, quantity limits and price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderableSku {
    /// The product of the SKU.
    pub product: ProductId,
    /// The SKU whose items the order line reserves.
    pub sku: SkuId,
    /// The minimum quantity in one order.
    pub min_quantity: u32,
    /// The maximum quantity in one order.
    pub max_quantity: u32,
    /// The number of units in stock when the query ran. Concurrent orders may reserve some of these units afterwards.
    pub stock: u64,
    /// The price of one unit for the requested quantity.
    pub unit_price: Fiat,
}

/// The rule that selects the price tier for an ordered quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PricingScheme {
    /// The price of the tier for quantity 1 applies to every quantity.
    PerUnit,
    /// The price of the tier with the largest `from_quantity` that does not exceed the ordered quantity applies.
    Tiered,
}

/// Returns the active products of a shop that have a price in this currency, sorted by position.
pub async fn list_active_priced_products(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
) -> Result<Vec<Product>, db::Error> {
    store::list_active_priced_products(tx, shop, currency).await
}

/// Returns all products of a shop, including inactive products and products without a price, sorted by position.
pub async fn list_all_products(tx: &mut Tx, shop: Shop) -> Result<Vec<ProductWithPrices>, db::Error> {
    store::list_all_products(tx, shop).await
}

/// Returns the active product with this public id or slug; `None` when the shop has no such product or the product has
/// no price in this currency.
pub async fn find_active_priced_product(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    id_or_slug: &str,
) -> Result<Option<Product>, db::Error> {
    let found = find_priced_product_in_any_state(tx, shop, currency, id_or_slug).await?;
    Ok(found.filter(|product| product.state == State::Active))
}

/// Returns the product with this public id or slug, active or not; `None` when the shop has no such product or the
/// product has no price in this currency.
pub async fn find_priced_product_in_any_state(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    id_or_slug: &str,
) -> Result<Option<Product>, db::Error> {
    match id_or_slug.parse::<Uuid>() {
        // A UUID can be written in several ways. The database stores the hyphenated lower-case form, so convert the id
        // to this form.
        Ok(id) => store::find_priced_product_any_state_by_id(tx, shop, currency, &id.to_string()).await,
        Err(_) if has_slug_syntax(id_or_slug) => {
            store::find_priced_product_any_state_by_slug(tx, shop, currency, id_or_slug).await
        }
        Err(_) => Ok(None),
    }
}

/// Returns the product with this public id or slug, active or not, with a price or without; `None` when the shop has no
/// such product.
pub async fn find_product_in_any_state(
    tx: &mut Tx,
    shop: Shop,
    id_or_slug: &str,
) -> Result<Option<ProductWithPrices>, db::Error> {
    match id_or_slug.parse::<Uuid>() {
        Ok(id) => store::find_product_in_any_state_by_id(tx, shop, &id.to_string()).await,
        Err(_) if has_slug_syntax(id_or_slug) => store::find_product_in_any_state_by_slug(tx, shop, id_or_slug).await,
        Err(_) => Ok(None),
    }
}

/// Returns the first active SKU of the active product with this public id, with the unit price for this quantity.
/// `None` when the product does not exist, is inactive, or has no price in this currency.
pub async fn find_orderable_sku(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    public_id: Uuid,
    quantity: u32,
    pricing_scheme: PricingScheme,
) -> Result<Option<OrderableSku>, db::Error> {
    let tier_quantity = match pricing_scheme {
        PricingScheme::PerUnit => 1,
        // A quantity of 0 gets the price of the first tier here. The caller refuses such an order later.
        PricingScheme::Tiered => quantity.max(1),
    };
    store::find_orderable_sku(tx, shop, currency, &public_id.to_string(), tier_quantity).await
}

/// Creates an active product with one SKU, its price tiers and its texts, and returns the ids of both. The product has
/// no stock.
pub async fn create_product_without_stock(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    new: NewProduct,
) -> Result<(ProductId, SkuId), EditError> {
    validate_slug(&new.slug)?;
    validate_quantity_limits(new.min_quantity, new.max_quantity)?;
    validate_price_tiers(&new.tiers)?;
    let product = store::insert_product_if_slug_free(tx, now, shop, &new).await?.ok_or(EditError::SlugTaken)?;
    let sku = store::insert_sku(tx, product, ONLY_SKU).await?;
    replace_price_tiers(tx, sku, new.currency, &new.tiers).await?;
    upsert_product_texts(tx, product, &new.texts).await?;
    Ok((product, sku))
}

/// Creates the product with this slug, or changes it when it exists, and records the action in the audit log. The price
/// replaces all price tiers of the product in this currency. Returns true when the product was created.
pub async fn create_or_change_product(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    change: ProductChange,
) -> Result<bool, EditError> {
    let ProductChange { slug, currency, unit_price, min_quantity, max_quantity, position, texts } = change;
    let tiers = vec![PriceTier { from_quantity: 1, unit_price }];
    let price = Fiat::new(currency, unit_price).to_decimal().to_string();
    let stored = find_product_in_any_state(tx, shop, &slug).await?;
    let (stored_min, stored_max) =
        stored.as_ref().map_or((1, MAX_QUANTITY), |product| (product.min_quantity, product.max_quantity));
    let (min_quantity, max_quantity) = (min_quantity.unwrap_or(stored_min), max_quantity.unwrap_or(stored_max));
    if let Some(product) = stored {
        set_quantity_limits(tx, product.id, min_quantity, max_quantity).await?;
        replace_price_tiers(tx, product.sku, currency, &tiers).await?;
        upsert_product_texts(tx, product.id, &texts).await?;
        audit_log::record_action(tx, now, actor, Action::ProductChange, &slug, &price).await?;
        return Ok(false);
    }
    let public_id = Uuid::new_v4();
    let new = NewProduct { public_id, slug, min_quantity, max_quantity, position, currency, tiers, texts };
    let slug = new.slug.clone();
    create_product_without_stock(tx, now, shop, new).await?;
    audit_log::record_action(tx, now, actor, Action::ProductCreate, &slug, &price).await?;
    Ok(true)
}

/// Sets the minimum and maximum quantity of a product that one order may contain.
pub async fn set_quantity_limits(
    tx: &mut Tx,
    product: ProductId,
    min_quantity: u32,
    max_quantity: u32,
) -> Result<(), EditError> {
    validate_quantity_limits(min_quantity, max_quantity)?;
    Ok(store::set_quantity_limits(tx, product, min_quantity, max_quantity).await?)
}

/// Replaces all price tiers of a SKU in one currency with `tiers`.
pub async fn replace_price_tiers(
    tx: &mut Tx,
    sku: SkuId,
    currency: Currency,
    tiers: &[PriceTier],
) -> Result<(), EditError> {
    validate_price_tiers(tiers)?;
    store::delete_price_tiers(tx, sku, currency).await?;
    for tier in tiers {
        store::insert_price_tier(tx, sku, currency, *tier).await?;
    }
    Ok(())
}

/// Adds texts to a product. Each text replaces the stored text of the product with the same field and language.
pub async fn upsert_product_texts(tx: &mut Tx, product: ProductId, texts: &LocalizedTexts) -> Result<(), db::Error> {
    for ((field, language), body) in &texts.0 {
        store::upsert_product_text(tx, product, field, language, body).await?;
    }
    Ok(())
}

/// Activates or deactivates a product and records the action in the audit log. Existing orders are not affected.
pub async fn set_product_state(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    product: ProductId,
    slug: &str,
    state: State,
) -> Result<(), db::Error> {
    store::set_product_state(tx, product, state).await?;
    audit_log::record_action(tx, now, actor, Action::ProductSetState, slug, state.as_str()).await
}

/// Returns true when the length and the characters of the text are valid for a slug.
fn has_slug_syntax(text: &str) -> bool {
    (1..=SLUG_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Fails when the slug has invalid syntax or is a UUID. A slug that is a UUID is forbidden, because it could equal the
/// public id of another product.
fn validate_slug(slug: &str) -> Result<(), EditError> {
    if has_slug_syntax(slug) && slug.parse::<Uuid>().is_err() { Ok(()) } else { Err(EditError::BadSlug) }
}

/// Fails when the minimum quantity is 0 or above the maximum quantity.
fn validate_quantity_limits(min_quantity: u32, max_quantity: u32) -> Result<(), EditError> {
    let is_valid = (1..=max_quantity).contains(&min_quantity);
    if is_valid { Ok(()) } else { Err(EditError::BadLimits { min: min_quantity, max: max_quantity }) }
}

/// Fails unless one price tier starts at quantity 1, all tiers start at different quantities, and no price is negative.
fn validate_price_tiers(tiers: &[PriceTier]) -> Result<(), EditError> {
    let mut quantities: Vec<u32> = tiers.iter().map(|tier| tier.from_quantity).collect();
    quantities.sort_unstable();
    let is_unique = quantities.windows(2).all(|pair| pair[0] < pair[1]);
    let may_not_go_below_zero = tiers.iter().all(|tier| tier.unit_price >= 0);
    if is_unique && may_not_go_below_zero && quantities.first() == Some(&1) { Ok(()) } else { Err(EditError::BadTiers) }
}
