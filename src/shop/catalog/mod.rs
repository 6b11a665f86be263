//! What is sold: products with their SKUs, prices and texts. A product that is inactive is as good as absent for buyers.

mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use uuid::Uuid;

use clock::Instant;
use db::{self, Tx};
use ids::{ProductId, Shop, SkuId};
use money::pricing::{Currency, Fiat};

/// The largest quantity of one order where a product says nothing else.
pub const MAX_QUANTITY: u32 = 200;

/// The only SKU of a product that has no variants.
pub const ONLY_SKU: &str = "default";

const SLUG_LENGTH_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active,
    Inactive,
}

db::text_enum!(State { Active => "active", Inactive => "inactive" });

/// A product as a buyer sees it: with the stock and the price of its first active SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub id: ProductId,
    pub public_id: String,
    pub slug: String,
    pub state: State,
    pub min_quantity: u32,
    pub max_quantity: u32,
    pub sku: SkuId,
    /// Units that can be ordered now.
    pub stock: u64,
    /// Of one unit, whatever the quantity.
    pub unit_price: Fiat,
    pub texts: LocalizedTexts,
}

/// A product as its operator sees it: whatever it costs, in whichever currencies, or in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductWithPrices {
    pub id: ProductId,
    pub public_id: String,
    pub slug: String,
    pub state: State,
    pub min_quantity: u32,
    pub max_quantity: u32,
    pub sku: SkuId,
    /// Units that can be ordered now.
    pub stock: u64,
    /// Of one unit, in the order of their currencies.
    pub unit_prices: Vec<Fiat>,
}

/// LocalizedTexts by field (`name`, `description`) and language tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalizedTexts(BTreeMap<(String, String), String>);

impl LocalizedTexts {
    pub fn with(mut self, field: &str, language: &str, body: &str) -> LocalizedTexts {
        self.0.insert((field.to_owned(), language.to_owned()), body.to_owned());
        self
    }

    pub fn get(&self, field: &str, language: &str) -> Option<&str> {
        self.0.get(&(field.to_owned(), language.to_owned())).map(String::as_str)
    }
}

/// A unit price from a quantity on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceTier {
    pub from_quantity: u32,
    /// Minor units.
    pub unit_price: i64,
}

#[derive(Debug, Clone)]
pub struct NewProduct {
    pub public_id: Uuid,
    pub slug: String,
    pub min_quantity: u32,
    pub max_quantity: u32,
    /// Products are listed in the order of their positions.
    pub position: i64,
    pub currency: Currency,
    pub tiers: Vec<PriceTier>,
    pub texts: LocalizedTexts,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("a slug is 1 to {SLUG_LENGTH_MAX} of a-z, 0-9 and -, and is no UUID")]
    BadSlug,
    #[error("another product has this slug")]
    SlugTaken,
    #[error("the minimum quantity is at least 1 and at most the maximum")]
    BadLimits,
    #[error("prices start at quantity 1, name each quantity once and are not negative")]
    BadTiers,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// What an order needs to know of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderableSku {
    pub product: ProductId,
    pub sku: SkuId,
    pub min_quantity: u32,
    pub max_quantity: u32,
    /// Units in stock when it was looked up; others may want them too.
    pub stock: u64,
    pub unit_price: Fiat,
}

/// Which prices an order goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PricingScheme {
    /// The price of one unit, whatever the quantity: for surfaces that know no other.
    PerUnit,
    /// That of the greatest `from_quantity` that the quantity reaches.
    Tiered,
}

/// Active products in their order.
pub async fn list_active(tx: &mut Tx, shop: Shop, currency: Currency) -> Result<Vec<Product>, db::Error> {
    store::list_active(tx, shop, currency).await
}

/// All products in their order, active or not, with a price or without.
pub async fn list_with_prices(tx: &mut Tx, shop: Shop) -> Result<Vec<ProductWithPrices>, db::Error> {
    store::list_with_prices(tx, shop).await
}

/// The active product with this public id or slug.
pub async fn find_active(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    id_or_slug: &str,
) -> Result<Option<Product>, db::Error> {
    let found = find(tx, shop, currency, id_or_slug).await?;
    Ok(found.filter(|product| product.state == State::Active))
}

/// The product with this public id or slug, active or not, if it has a price in this currency.
pub async fn find(tx: &mut Tx, shop: Shop, currency: Currency, id_or_slug: &str) -> Result<Option<Product>, db::Error> {
    match id_or_slug.parse::<Uuid>() {
        // A UUID has several spellings; one of them is stored.
        Ok(id) => store::find_by_public_id(tx, shop, currency, &id.to_string()).await,
        Err(_) if is_slug(id_or_slug) => store::find_by_slug(tx, shop, currency, id_or_slug).await,
        Err(_) => Ok(None),
    }
}

/// The product with this public id or slug, active or not, with a price or without.
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

/// What an active product costs and asks for, by its public id only.
pub async fn find_orderable_sku(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    public_id: Uuid,
    quantity: u32,
    prices: PricingScheme,
) -> Result<Option<OrderableSku>, db::Error> {
    let reached = match prices {
        PricingScheme::PerUnit => 1,
        // No quantity reaches the first tier from below: that it is too small is for the caller to say.
        PricingScheme::Tiered => quantity.max(1),
    };
    store::find_orderable_sku(tx, shop, currency, &public_id.to_string(), reached).await
}

/// An active product with its only SKU, without stock.
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

pub async fn set_limits(
    tx: &mut Tx,
    product: ProductId,
    min_quantity: u32,
    max_quantity: u32,
) -> Result<(), EditError> {
    check_limits(min_quantity, max_quantity)?;
    Ok(store::set_limits(tx, product, min_quantity, max_quantity).await?)
}

/// Replaces all prices of a SKU in one currency.
pub async fn set_prices(tx: &mut Tx, sku: SkuId, currency: Currency, tiers: &[PriceTier]) -> Result<(), EditError> {
    check_tiers(tiers)?;
    store::delete_prices(tx, sku, currency).await?;
    for tier in tiers {
        store::insert_price(tx, sku, currency, *tier).await?;
    }
    Ok(())
}

/// Adds texts, or replaces those of the same field and language.
pub async fn set_texts(tx: &mut Tx, product: ProductId, texts: &LocalizedTexts) -> Result<(), db::Error> {
    for ((field, language), body) in &texts.0 {
        store::set_text(tx, product, field, language, body).await?;
    }
    Ok(())
}

/// Offers a product, or takes it off; orders that exist go on.
pub async fn set_state(tx: &mut Tx, product: ProductId, state: State) -> Result<(), db::Error> {
    store::set_state(tx, product, state).await
}

fn is_slug(text: &str) -> bool {
    (1..=SLUG_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A slug that is a UUID could hide another product.
fn check_slug(slug: &str) -> Result<(), EditError> {
    if is_slug(slug) && slug.parse::<Uuid>().is_err() { Ok(()) } else { Err(EditError::BadSlug) }
}

fn check_limits(min_quantity: u32, max_quantity: u32) -> Result<(), EditError> {
    if (1..=max_quantity).contains(&min_quantity) { Ok(()) } else { Err(EditError::BadLimits) }
}

fn check_tiers(tiers: &[PriceTier]) -> Result<(), EditError> {
    let mut quantities: Vec<u32> = tiers.iter().map(|tier| tier.from_quantity).collect();
    quantities.sort_unstable();
    let once = quantities.windows(2).all(|pair| pair[0] < pair[1]);
    let positive = tiers.iter().all(|tier| tier.unit_price >= 0);
    if once && positive && quantities.first() == Some(&1) { Ok(()) } else { Err(EditError::BadTiers) }
}
