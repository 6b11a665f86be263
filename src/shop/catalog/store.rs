//! All SQL of products, SKUs, prices and product texts.

use crate::catalog::{LocalizedTexts, NewProduct, OrderableSku, PriceTier, Product, ProductWithPrices, State};
use clock::Instant;
use db::{self, ResultRef, Row, Tx, execute, expect_changed, queued, row, rows};
use ids::{ProductId, Shop, SkuId};
use money::pricing::{Currency, Fiat};

/// The maximum number of rows that one list query returns. A product takes one row for each of its texts, or for each
/// currency in which it has a price.
const LIST_ROWS_MAX: u32 = 100_000;

/// Returns the active products of a shop with a price in this currency, sorted by position.
pub async fn list_active_priced_products(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
) -> Result<Vec<Product>, db::Error> {
    let found = rows!(
        tx,
        "select p.id, p.public_id, p.slug, p.state, p.min_quantity, p.max_quantity, s.id as sku_id, s.available,
            c.unit_price, t.field, t.language, t.body
         from products p
         join skus s on s.id = (select min(id) from skus where product_id = p.id and state = 'active')
         join sku_prices c on c.sku_id = s.id and c.currency = $3 and c.from_quantity = 1
         left join localized_texts t on t.subject = 'product:' || p.id
         where p.merchant_id = $1 and p.mode = $2 and p.state = 'active'
         order by p.position, p.id, t.field, t.language limit $4",
        shop.merchant,
        shop.mode,
        currency,
        LIST_ROWS_MAX
    )?;
    group_text_rows_by_product(currency, &found)
}

/// The SQL that selects products with their unit prices at quantity 1: one row for each currency, or one row for a
/// product without a price.
macro_rules! select_products_with_prices {
    ($condition:literal) => {
        concat!(
            "select p.id, p.public_id, p.slug, p.state, p.min_quantity, p.max_quantity, s.id as sku_id, s.available,
                p.merchant_id, p.mode, c.currency, c.unit_price
             from products p
             join skus s on s.id = (select min(id) from skus where product_id = p.id and state = 'active')
             left join sku_prices c on c.sku_id = s.id and c.from_quantity = 1
             where ",
            $condition
        )
    };
}

/// Returns all products of a shop, including inactive products and products without a price, sorted by position.
pub async fn list_all_products(tx: &mut Tx, shop: Shop) -> Result<Vec<ProductWithPrices>, db::Error> {
    let found = rows!(
        tx,
        select_products_with_prices!(
            "p.merchant_id = $1 and p.mode = $2 order by p.position, p.id, c.currency limit $3"
        ),
        shop.merchant,
        shop.mode,
        LIST_ROWS_MAX
    )?;
    group_price_rows_by_product(&found)
}

/// Returns the product with this public id, a UUID in hyphenated lower-case form, active or not, and its prices in all
/// currencies; `None` when the shop has no such product.
//
// The statement searches by the public id alone, and the shop is compared afterwards: PostgreSQL without table statistics
// could choose the index on merchant, mode and slug, and then read all products of the shop.
pub async fn find_product_in_any_state_by_id(
    tx: &mut Tx,
    shop: Shop,
    public_id: &str,
) -> Result<Option<ProductWithPrices>, db::Error> {
    let found = rows!(tx, select_products_with_prices!("p.public_id = $1 order by c.currency"), public_id)?;
    Ok(group_price_rows_by_product(discard_rows_of_other_shop(&found, shop)?)?.pop())
}

/// Returns the product with this slug, active or not, and its prices in all currencies; `None` when the shop has no
/// such product.
pub async fn find_product_in_any_state_by_slug(
    tx: &mut Tx,
    shop: Shop,
    slug: &str,
) -> Result<Option<ProductWithPrices>, db::Error> {
    let found = rows!(
        tx,
        select_products_with_prices!("p.merchant_id = $1 and p.mode = $2 and p.slug = $3 order by c.currency"),
        shop.merchant,
        shop.mode,
        slug
    )?;
    Ok(group_price_rows_by_product(&found)?.pop())
}

/// Returns the given rows of one product, or no rows when the product belongs to another shop.
fn discard_rows_of_other_shop(rows: &[Row], shop: Shop) -> Result<&[Row], db::Error> {
    let Some(first) = rows.first() else { return Ok(&[]) };
    let owner = Shop { merchant: first.get("merchant_id")?, mode: first.get("mode")? };
    Ok(if owner == shop { rows } else { &[] })
}

/// Returns one product for each group of rows with the same product id. The rows of one product must be adjacent: one
/// row for each currency, or one row for a product without a price.
fn group_price_rows_by_product(rows: &[Row]) -> Result<Vec<ProductWithPrices>, db::Error> {
    let mut products: Vec<ProductWithPrices> = Vec::new();
    for row in rows {
        let id: ProductId = row.get("id")?;
        if products.last().is_none_or(|last| last.id != id) {
            products.push(ProductWithPrices {
                id,
                public_id: row.get("public_id")?,
                slug: row.get("slug")?,
                state: row.get("state")?,
                min_quantity: row.get("min_quantity")?,
                max_quantity: row.get("max_quantity")?,
                sku: row.get("sku_id")?,
                stock: row.get("available")?,
                unit_prices: Vec::new(),
            });
        }
        if let (Some(product), Some(currency)) = (products.last_mut(), row.get::<Option<Currency>>("currency")?) {
            product.unit_prices.push(Fiat::new(currency, row.get("unit_price")?));
        }
    }
    Ok(products)
}

/// Returns the product with this public id, a UUID in hyphenated lower-case form, active or not; `None` when the shop
/// has no such product or the product has no price in this currency.
pub async fn find_priced_product_any_state_by_id(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    public_id: &str,
) -> Result<Option<Product>, db::Error> {
    let found = rows!(
        tx,
        "select p.id, p.public_id, p.slug, p.state, p.min_quantity, p.max_quantity, s.id as sku_id, s.available,
            p.merchant_id, p.mode, c.unit_price, t.field, t.language, t.body
         from products p
         join skus s on s.id = (select min(id) from skus where product_id = p.id and state = 'active')
         join sku_prices c on c.sku_id = s.id and c.currency = $2 and c.from_quantity = 1
         left join localized_texts t on t.subject = 'product:' || p.id
         where p.public_id = $1 order by t.field, t.language",
        public_id,
        currency
    )?;
    Ok(group_text_rows_by_product(currency, discard_rows_of_other_shop(&found, shop)?)?.pop())
}

/// Returns the product with this slug, active or not; `None` when the shop has no such product or the product has no
/// price in this currency.
pub async fn find_priced_product_any_state_by_slug(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    slug: &str,
) -> Result<Option<Product>, db::Error> {
    let found = rows!(
        tx,
        "select p.id, p.public_id, p.slug, p.state, p.min_quantity, p.max_quantity, s.id as sku_id, s.available,
            c.unit_price, t.field, t.language, t.body
         from products p
         join skus s on s.id = (select min(id) from skus where product_id = p.id and state = 'active')
         join sku_prices c on c.sku_id = s.id and c.currency = $3 and c.from_quantity = 1
         left join localized_texts t on t.subject = 'product:' || p.id
         where p.slug = $4 and p.merchant_id = $1 and p.mode = $2 order by t.field, t.language",
        shop.merchant,
        shop.mode,
        currency,
        slug
    )?;
    Ok(group_text_rows_by_product(currency, &found)?.pop())
}

/// Returns one product for each group of rows with the same product id. The rows of one product must be adjacent: one
/// row for each text, or one row for a product without texts.
fn group_text_rows_by_product(currency: Currency, rows: &[Row]) -> Result<Vec<Product>, db::Error> {
    let mut products: Vec<Product> = Vec::new();
    for row in rows {
        let id: ProductId = row.get("id")?;
        if products.last().is_none_or(|last| last.id != id) {
            products.push(Product {
                id,
                public_id: row.get("public_id")?,
                slug: row.get("slug")?,
                state: row.get("state")?,
                min_quantity: row.get("min_quantity")?,
                max_quantity: row.get("max_quantity")?,
                sku: row.get("sku_id")?,
                stock: row.get("available")?,
                unit_price: Fiat::new(currency, row.get("unit_price")?),
                texts: LocalizedTexts::default(),
            });
        }
        if let (Some(product), Some(field)) = (products.last_mut(), row.get::<Option<String>>("field")?) {
            product.texts.0.insert((field, row.get("language")?), row.get("body")?);
        }
    }
    Ok(products)
}

/// Returns the first active SKU of the active product with this public id. The price of the SKU is the price of the
/// tier with the largest `from_quantity` that does not exceed `tier_quantity`. `None` when the product does not exist,
/// is inactive, or has no such tier in this currency.
pub async fn find_orderable_sku(
    tx: &mut Tx,
    shop: Shop,
    currency: Currency,
    public_id: &str,
    tier_quantity: u32,
) -> Result<Option<OrderableSku>, db::Error> {
    let found = row!(
        tx,
        "select p.id, s.id as sku_id, s.available, p.min_quantity, p.max_quantity, p.merchant_id, p.mode, c.unit_price
         from products p
         join skus s on s.id = (select min(id) from skus where product_id = p.id and state = 'active')
         join sku_prices c on c.sku_id = s.id and c.currency = $2
         where p.public_id = $1 and p.state = 'active' and c.from_quantity <= $3
         order by c.from_quantity desc limit 1",
        public_id,
        currency,
        tier_quantity
    )?;
    let Some(row) = found else { return Ok(None) };
    if (Shop { merchant: row.get("merchant_id")?, mode: row.get("mode")? }) != shop {
        return Ok(None);
    }
    Ok(Some(OrderableSku {
        product: row.get("id")?,
        sku: row.get("sku_id")?,
        min_quantity: row.get("min_quantity")?,
        max_quantity: row.get("max_quantity")?,
        stock: row.get("available")?,
        unit_price: Fiat::new(currency, row.get("unit_price")?),
    }))
}

/// Inserts an active product and returns its id; `None` when another product of the shop has the slug.
pub async fn insert_product_if_slug_free(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    new: &NewProduct,
) -> Result<Option<ProductId>, db::Error> {
    let inserted = row!(
        tx,
        "insert into products
            (public_id, merchant_id, mode, slug, state, min_quantity, max_quantity, position, created_at)
         values ($1, $2, $3, $4, 'active', $5, $6, $7, $8)
         on conflict (merchant_id, mode, slug) do nothing returning id",
        new.public_id.to_string(),
        shop.merchant,
        shop.mode,
        &new.slug,
        new.min_quantity,
        new.max_quantity,
        new.position,
        now
    )?;
    inserted.map(|row| row.get("id")).transpose()
}

/// Inserts an active SKU without stock and returns the id of the SKU.
pub async fn insert_sku(tx: &mut Tx, product: ProductId, code: &str) -> Result<SkuId, db::Error> {
    let inserted = row!(
        tx,
        "insert into skus (product_id, code, state, available) values ($1, $2, 'active', 0) returning id",
        product,
        code
    )?;
    inserted.ok_or(db::Error::UnexpectedRowCount { expected: 1, found: 0 })?.get("id")
}

/// Sets the minimum and maximum quantity of a product that one order may contain.
pub async fn set_quantity_limits(
    tx: &mut Tx,
    product: ProductId,
    min_quantity: u32,
    max_quantity: u32,
) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "update products set min_quantity = $2, max_quantity = $3 where id = $1",
        product,
        min_quantity,
        max_quantity
    )?;
    expect_changed(n, 1)
}

/// Deletes all price tiers of a SKU in one currency and returns the number of deleted tiers.
pub async fn delete_price_tiers(tx: &mut Tx, sku: SkuId, currency: Currency) -> Result<u64, db::Error> {
    execute!(tx, "delete from sku_prices where sku_id = $1 and currency = $2", sku, currency)
}

/// Inserts one price tier of a SKU. Fails when the SKU already has a tier with this currency and quantity.
pub async fn insert_price_tier(tx: &mut Tx, sku: SkuId, currency: Currency, tier: PriceTier) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "insert into sku_prices (sku_id, currency, from_quantity, unit_price) values ($1, $2, $3, $4)",
        sku,
        currency,
        tier.from_quantity,
        tier.unit_price
    )?;
    expect_changed(n, 1)
}

/// Inserts a text of a product, or replaces the stored text with the same field and language.
pub async fn upsert_product_text(
    tx: &mut Tx,
    product: ProductId,
    field: &str,
    language: &str,
    body: &str,
) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "insert into localized_texts (subject, field, language, body) values ($1, $2, $3, $4)
         on conflict (subject, field, language) do update set body = excluded.body",
        format!("product:{product}"),
        field,
        language,
        body
    )?;
    expect_changed(n, 1)
}

/// Sets the state of a product.
pub async fn set_product_state(tx: &mut Tx, product: ProductId, state: State) -> Result<(), db::Error> {
    let n = execute!(tx, "update products set state = $2 where id = $1", product, state)?;
    expect_changed(n, 1)
}

/// Adds `quantity` to the column `skus.available`, the number of items of the SKU that are available for orders.
pub async fn add_to_available_count(tx: &mut Tx, sku: SkuId, quantity: u64) -> Result<(), db::Error> {
    let n = execute!(tx, "update skus set available = available + $2 where id = $1", sku, quantity)?;
    expect_changed(n, 1)
}

/// Queues the statement that subtracts `quantity` from the column `skus.available`, the number of available items of
/// the SKU. When fewer items are available, the statement changes nothing and returns no row. The statement locks the
/// row of the SKU until the end of the transaction, so that the next statement can choose the items.
pub fn queue_subtraction_if_enough_available(tx: &mut Tx, sku: SkuId, quantity: u32) -> ResultRef<SkuId> {
    queued!(
        tx,
        "update skus set available = available - $2 where id = $1 and available >= $2 returning id",
        sku,
        quantity
    )
}
