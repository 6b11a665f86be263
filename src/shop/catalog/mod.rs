//! The catalog: products with their SKUs, prices and texts. Buyers see active products only.

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

/// The default maximum quantity of a product in one order.
pub const MAX_QUANTITY: u32 = 200;

/// The code of the SKU of a product without variants.
pub const ONLY_SKU: &str = "default";

const SLUG_LENGTH_MAX: usize = 100;

/// The state of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active,
    Inactive,
}

db::text_enum!(State { Active => "active", Inactive => "inactive" });

/// A product for buyers, with the stock and the price in one currency of its first active SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub id: ProductId,
    pub public_id: String,
    pub slug: String,
    pub state: State,
    pub min_quantity: u32,
    pub max_quantity: u32,
    pub sku: SkuId,
    /// Number of units that are available.
    pub stock: u64,
    /// The price of one unit at quantity 1.
    pub unit_price: Fiat,
    pub texts: LocalizedTexts,
}

/// A product for operators, with its prices in all currencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductWithPrices {
    pub id: ProductId,
    pub public_id: String,
    pub slug: String,
    pub state: State,
    pub min_quantity: u32,
    pub max_quantity: u32,
    pub sku: SkuId,
    /// Number of units that are available.
    pub stock: u64,
    /// The price of one unit at quantity 1 in each currency, by currency code. Empty when the product has no price.
    pub unit_prices: Vec<Fiat>,
}

/// Texts of a product by field (`name` or `description`) and language tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalizedTexts(BTreeMap<(String, String), String>);

impl LocalizedTexts {
    /// Returns the texts with one more.
    pub fn with(mut self, field: &str, language: &str, body: &str) -> LocalizedTexts {
        self.0.insert((field.to_owned(), language.to_owned()), body.to_owned());
        self
    }

    /// Returns the text of a field in a language; `None` when there is none.
    pub fn get(&self, field: &str, language: &str) -> Option<&str> {
        self.0.get(&(field.to_owned(), language.to_owned())).map(String::as_str)
    }
}

/// A unit price that applies from a quantity on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceTier {
    pub from_quantity: u32,
    /// Minor units of the currency.
    pub unit_price: i64,
}

/// A product to be created.
#[derive(Debug, Clone)]
pub struct NewProduct {
    pub public_id: Uuid,
    pub slug: String,
    pub min_quantity: u32,
    pub max_quantity: u32,
    /// Products are listed by ascending position.
    pub position: i64,
    pub currency: Currency,
    pub tiers: Vec<PriceTier>,
    pub texts: LocalizedTexts,
}

/// A product to be created or changed. A field that is `None` or empty keeps its stored or default value.
#[derive(Debug, Clone)]
pub struct ProductChange {
    /// The product to change; a new slug creates a product.
    pub slug: String,
    pub currency: Currency,
    /// The price of one unit, in minor units.
    pub unit_price: i64,
    pub min_quantity: Option<u32>,
    pub max_quantity: Option<u32>,
    /// The position of a new product.
    pub position: i64,
    pub texts: LocalizedTexts,
}

/// The reason why a product was not created or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("a slug has 1 to {SLUG_LENGTH_MAX} characters, each of a-z, 0-9 or -, and is not a UUID")]
    BadSlug,
    #[error("another product has this slug")]
    SlugTaken,
    #[error("the minimum quantity must be at least 1 and at most the maximum; they would be {min} and {max}")]
    BadLimits { min: u32, max: u32 },
    #[error("price tiers must start at quantity 1, have each quantity once, and not be negative")]
    BadTiers,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// A SKU that can be ordered, with its price, stock and quantity limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderableSku {
    pub product: ProductId,
    pub sku: SkuId,
    pub min_quantity: u32,
    pub max_quantity: u32,
    /// Number of units in stock at the time of the query. Concurrent orders may take them.
    pub stock: u64,
    pub unit_price: Fiat,
}

/// The way in which the quantity determines the unit price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PricingScheme {
    /// The price at quantity 1, for any quantity.
    PerUnit,
    /// The price of the tier with the largest `from_quantity` that does not exceed the quantity.
    Tiered,
}

/// Returns the active products that have a price in this currency, by position.
pub async fn list_active(tx: &mut Tx, shop: Shop, currency: Currency) -> Result<Vec<Product>, db::Error> {
    store::list_active(tx, shop, currency).await
}

/// Returns all products, also inactive ones and ones without a price, by position.
pub async fn list_with_prices(tx: &mut Tx, shop: Shop) -> Result<Vec<ProductWithPrices>, db::Error> {
    store::list_with_prices(tx, shop).await
}

/// Returns the active product with this public id or slug, if it has a price in this currency.
pub async fn find_active(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    id_or_slug: &str,
) -> Result<Option<Product>, db::Error> {
    let found = find(tx, shop, currency, id_or_slug).await?;
    Ok(found.filter(|product| product.state == State::Active))
}

/// Returns the product with this public id or slug, also an inactive one, if it has a price in this currency.
pub async fn find(tx: &mut Tx, shop: Shop, currency: Currency, id_or_slug: &str) -> Result<Option<Product>, db::Error> {
    match id_or_slug.parse::<Uuid>() {
        // A UUID can be written in several ways; the hyphenated lower-case form is stored.
        Ok(id) => store::find_by_public_id(tx, shop, currency, &id.to_string()).await,
        Err(_) if is_slug(id_or_slug) => store::find_by_slug(tx, shop, currency, id_or_slug).await,
        Err(_) => Ok(None),
    }
}

/// Returns the product with this public id or slug, also an inactive one or one without a price.
pub async fn find_with_prices(
    tx: &mut Tx,
    shop: Shop,
    id_or_slug: &str,
) -> Result<Option<ProductWithPrices>, db::Error> {
    match id_or_slug.parse::<Uuid>() {
        Ok(id) => store::find_with_prices_by_public_id(tx, shop, &id.to_string()).await,
        Err(_) if is_slug(id_or_slug) => store::find_with_prices_by_slug(tx, shop, id_or_slug).await,
        Err(_) => Ok(None),
    }
}

/// Returns the SKU of an active product by the public id of the product, with the price for this quantity. `None` when the
/// product is inactive or has no price in this currency.
pub async fn find_orderable_sku(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    public_id: Uuid,
    quantity: u32,
    pricing_scheme: PricingScheme,
) -> Result<Option<OrderableSku>, db::Error> {
    let reached = match pricing_scheme {
        PricingScheme::PerUnit => 1,
        // Quantity 0 gets the price of the first tier; the caller refuses the quantity.
        PricingScheme::Tiered => quantity.max(1),
    };
    store::find_orderable_sku(tx, shop, currency, &public_id.to_string(), reached).await
}

/// Creates an active product with one SKU and no stock.
pub async fn create(tx: &mut Tx, now: Instant, shop: Shop, new: NewProduct) -> Result<(ProductId, SkuId), EditError> {
    check_slug(&new.slug)?;
    check_limits(new.min_quantity, new.max_quantity)?;
    check_tiers(&new.tiers)?;
    let product = store::insert_product(tx, now, shop, &new).await?.ok_or(EditError::SlugTaken)?;
    let sku = store::insert_sku(tx, product, ONLY_SKU).await?;
    set_prices(tx, sku, new.currency, &new.tiers).await?;
    set_texts(tx, product, &new.texts).await?;
    Ok((product, sku))
}

/// Creates the product with this slug, or changes it, and records the action in the audit log. Returns true when it was
/// created.
pub async fn create_or_change(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    change: ProductChange,
) -> Result<bool, EditError> {
    let ProductChange { slug, currency, unit_price, min_quantity, max_quantity, position, texts } = change;
    let tiers = vec![PriceTier { from_quantity: 1, unit_price }];
    let price = Fiat::new(currency, unit_price).to_decimal().to_string();
    let stored = find_with_prices(tx, shop, &slug).await?;
    let (stored_min, stored_max) =
        stored.as_ref().map_or((1, MAX_QUANTITY), |product| (product.min_quantity, product.max_quantity));
    let (min_quantity, max_quantity) = (min_quantity.unwrap_or(stored_min), max_quantity.unwrap_or(stored_max));
    if let Some(product) = stored {
        set_limits(tx, product.id, min_quantity, max_quantity).await?;
        set_prices(tx, product.sku, currency, &tiers).await?;
        set_texts(tx, product.id, &texts).await?;
        audit_log::record(tx, now, actor, Action::ProductChange, &slug, &price).await?;
        return Ok(false);
    }
    let public_id = Uuid::new_v4();
    let new = NewProduct { public_id, slug, min_quantity, max_quantity, position, currency, tiers, texts };
    let slug = new.slug.clone();
    create(tx, now, shop, new).await?;
    audit_log::record(tx, now, actor, Action::ProductCreate, &slug, &price).await?;
    Ok(true)
}

/// Sets the minimum and maximum quantity of a product in one order.
pub async fn set_limits(
    tx: &mut Tx,
    product: ProductId,
    min_quantity: u32,
    max_quantity: u32,
) -> Result<(), EditError> {
    check_limits(min_quantity, max_quantity)?;
    Ok(store::set_limits(tx, product, min_quantity, max_quantity).await?)
}

/// Replaces all price tiers of a SKU in one currency.
pub async fn set_prices(tx: &mut Tx, sku: SkuId, currency: Currency, tiers: &[PriceTier]) -> Result<(), EditError> {
    check_tiers(tiers)?;
    store::delete_prices(tx, sku, currency).await?;
    for tier in tiers {
        store::insert_price(tx, sku, currency, *tier).await?;
    }
    Ok(())
}

/// Adds texts to a product. A text replaces the stored text of the same field and language.
pub async fn set_texts(tx: &mut Tx, product: ProductId, texts: &LocalizedTexts) -> Result<(), db::Error> {
    for ((field, language), body) in &texts.0 {
        store::set_text(tx, product, field, language, body).await?;
    }
    Ok(())
}

/// Activates or deactivates a product and records the action in the audit log. Existing orders are not affected.
pub async fn set_state(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    product: ProductId,
    slug: &str,
    state: State,
) -> Result<(), db::Error> {
    store::set_state(tx, product, state).await?;
    audit_log::record(tx, now, actor, Action::ProductSetState, slug, state.as_str()).await
}

fn is_slug(text: &str) -> bool {
    (1..=SLUG_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Refuses a slug that is a UUID, because it could be the public id of another product.
fn check_slug(slug: &str) -> Result<(), EditError> {
    if is_slug(slug) && slug.parse::<Uuid>().is_err() { Ok(()) } else { Err(EditError::BadSlug) }
}

fn check_limits(min_quantity: u32, max_quantity: u32) -> Result<(), EditError> {
    let is_valid = (1..=max_quantity).contains(&min_quantity);
    if is_valid { Ok(()) } else { Err(EditError::BadLimits { min: min_quantity, max: max_quantity }) }
}

fn check_tiers(tiers: &[PriceTier]) -> Result<(), EditError> {
    let mut quantities: Vec<u32> = tiers.iter().map(|tier| tier.from_quantity).collect();
    quantities.sort_unstable();
    let is_unique = quantities.windows(2).all(|pair| pair[0] < pair[1]);
    let is_non_negative = tiers.iter().all(|tier| tier.unit_price >= 0);
    if is_unique && is_non_negative && quantities.first() == Some(&1) { Ok(()) } else { Err(EditError::BadTiers) }
}
