//! The commands `settled admin product …`.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::csv::CsvRecord;
use crate::commands::admin::import_file::ImportFile;
use crate::commands::admin::merchants::require_shop;
use crate::commands::admin::owner::Owner;
use crate::commands::admin::parse::{parse_currency, parse_language_tag, parse_price_in_minor_units};
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use db::Tx;
use ids::Shop;
use money::pricing::Fiat;
use shop::catalog::{self, LocalizedTexts, ProductChange, ProductWithPrices, State};

/// The currency of a price when the operator gives no currency.
const DEFAULT_CURRENCY: &str = "CNY";

/// The subcommands of `settled admin product`.
#[derive(Subcommand)]
pub enum Command {
    /// Create a product, or change the product with this slug. Values that are not given stay unchanged.
    Put(Put),
    /// Create or change all products of a file: a JSON array, or a CSV file with the columns slug and price, and
    /// optionally currency, min_quantity, max_quantity, free (true for a price of 0), name_LANGUAGE and
    /// description_LANGUAGE. Values that are not given stay unchanged.
    Import(Import),
    /// Activate or deactivate a product.
    Set(Set),
    /// List all products of a merchant.
    List(Owner),
}

/// The product to create or change, its names, and its merchant and mode.
#[derive(clap::Args)]
pub struct Put {
    #[command(flatten)]
    product: ProductInput,
    /// Name in a language, such as `en=Mailbox`; repeat the option for more languages.
    #[arg(long = "name", value_name = "LANGUAGE=TEXT", value_parser = parse_language_and_text)]
    names: Vec<(String, String)>,
    #[command(flatten)]
    owner: Owner,
}

/// A product as it is written on the command line and in import files.
#[derive(clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductInput {
    /// Name of the product in URLs: a-z, 0-9 and -.
    pub slug: String,
    /// Price of one unit, such as 0.50.
    #[arg(long)]
    pub price: String,
    /// Currency of the price. Prices in other currencies stay unchanged.
    #[arg(long, default_value = DEFAULT_CURRENCY)]
    #[serde(default = "default_currency")]
    pub currency: String,
    /// Minimum quantity of one order; 1 by default for a new product.
    #[arg(long)]
    pub min_quantity: Option<u32>,
    /// Maximum quantity of one order; 200 by default for a new product.
    #[arg(long)]
    pub max_quantity: Option<u32>,
    /// Give the product away. A price of 0 is refused without this option, because it is usually a mistake.
    #[arg(long)]
    #[serde(default)]
    pub free: bool,
    /// The product names by language tag, such as `en` or `zh-CN`.
    #[arg(skip)]
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// The product descriptions by language tag, such as `en` or `zh-CN`.
    #[arg(skip)]
    #[serde(default)]
    pub descriptions: BTreeMap<String, String>,
}

/// The import file, and the merchant and mode of its products.
#[derive(clap::Args)]
pub struct Import {
    #[command(flatten)]
    source: ImportFile,
    #[command(flatten)]
    owner: Owner,
}

/// Selects a product and its new state.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Set {
    /// Id or slug of the product.
    pub product: String,
    /// Deactivate the product, which is then no longer listed and sold.
    #[arg(long, conflicts_with = "active", required_unless_present = "active")]
    pub inactive: bool,
    /// Activate the product, which is then listed and sold.
    #[arg(long)]
    pub active: bool,
    #[command(flatten)]
    pub owner: Owner,
}

impl Command {
    /// Returns the operation that this subcommand requests. The subcommand `import` reads its file first.
    pub fn into_operation_reading_import_file(self) -> Result<AdminOperation, CommandError> {
        match self {
            Command::Put(put) => {
                let product = ProductInput { names: put.names.into_iter().collect(), ..put.product };
                Ok(AdminOperation::PutProducts(put.owner, vec![product]))
            }
            Command::Import(import) => Ok(AdminOperation::PutProducts(
                import.owner,
                import.source.read_json_or_csv_records("products", parse_product_record)?,
            )),
            Command::Set(set) => Ok(AdminOperation::SetProduct(set)),
            Command::List(owner) => Ok(AdminOperation::ListProducts(owner)),
        }
    }
}

fn parse_product_record(mut record: CsvRecord) -> Result<ProductInput, CommandError> {
    let mut product = ProductInput {
        slug: record.take_required_field("slug")?,
        price: record.take_required_field("price")?,
        currency: record.take_field("currency").unwrap_or_else(default_currency),
        min_quantity: record.take_number_field("min_quantity")?,
        max_quantity: record.take_number_field("max_quantity")?,
        free: record.take_flag_field("free")?,
        names: BTreeMap::new(),
        descriptions: BTreeMap::new(),
    };
    for (column, text) in record.fields.into_iter().filter(|(_, text)| !text.is_empty()) {
        if let Some(language) = column.strip_prefix("name_") {
            product.names.insert(language.to_owned(), text);
        } else if let Some(language) = column.strip_prefix("description_") {
            product.descriptions.insert(language.to_owned(), text);
        } else if !PLAIN_COLUMNS.contains(&column.as_str()) {
            return Err(CommandError::general_error(format!("{}: unknown column `{column}`", record.name)));
        }
    }
    Ok(product)
}

/// The fixed column names of a CSV file. All other column names end in a language tag, such as `name_en`.
const PLAIN_COLUMNS: [&str; 6] = ["slug", "price", "currency", "min_quantity", "max_quantity", "free"];

fn default_currency() -> String {
    DEFAULT_CURRENCY.into()
}

fn parse_language_and_text(text: &str) -> Result<(String, String), String> {
    let (language, text) = text.split_once('=').ok_or("a name has the form `en=Mailbox`")?;
    Ok((parse_language_tag(language)?, text.to_owned()))
}

/// Creates or changes the products in one database transaction: either all of them or, when one fails, none.
pub async fn create_or_change_products(
    context: &Context,
    owner: Owner,
    products: Vec<ProductInput>,
) -> Result<String, String> {
    let shop_name = owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor, count) = (context.clock.now(), context.actor.clone(), products.len());
    let note = shop_name.note_if_checkout_sells_other_mode();
    let (created, hidden) = context
        .db
        .write("create_or_change_products", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                let (mut created, mut hidden) = (0, Vec::new());
                for (position, product) in (1..).zip(products) {
                    let slug = product.slug.clone();
                    let refused = |cause: String| AdminError::Refused(format!("product `{slug}`: {cause}"));
                    let change = product.parse_into_product_change(position).map_err(refused)?;
                    let is_new = catalog::create_or_change_product(tx, now, &actor, shop, change).await;
                    created += usize::from(is_new.map_err(|e| refused(e.to_string()))?);
                    let stored = require_product(tx, shop, &slug).await?;
                    hidden.extend((!has_checkout_price(&stored)).then_some(slug));
                }
                Ok::<_, AdminError>((created, hidden))
            })
        })
        .await?;
    let mut message = format!("{created} products were created, {} were changed.{note}", count - created);
    for slug in hidden {
        let currency = checkout::CURRENCY;
        message += &format!(
            "\n`{slug}` has no price in {currency}, so buyers do not see it; add one with --currency {currency}."
        );
    }
    Ok(message)
}

impl ProductInput {
    fn parse_into_product_change(self, position: i64) -> Result<ProductChange, String> {
        let currency = parse_currency(&self.currency)?;
        let mut texts = LocalizedTexts::default();
        for (field, by_language) in [("name", &self.names), ("description", &self.descriptions)] {
            for (language, text) in by_language {
                texts = texts.with_text(field, &parse_language_tag(language)?, text);
            }
        }
        let unit_price = parse_price_in_minor_units(&self.price, currency)?;
        match (unit_price, self.free) {
            (0, false) => {
                return Err("the price is 0; to give the product away, add --free, or `free` in a file".into());
            }
            (1.., true) => return Err("a free product has a price of 0".into()),
            _ => {}
        }
        Ok(ProductChange {
            currency,
            unit_price,
            slug: self.slug,
            min_quantity: self.min_quantity,
            max_quantity: self.max_quantity,
            position,
            texts,
        })
    }
}

/// Activates or deactivates a product.
pub async fn activate_or_deactivate_product(context: &Context, set: Set) -> Result<String, String> {
    let shop_name = set.owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let state = if set.inactive { State::Inactive } else { State::Active };
    let message = format!("Product `{}` is {}.", set.product, state.as_str());
    context
        .db
        .write("set_product_state", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                let product = require_product(tx, shop, &set.product).await?;
                Ok::<_, AdminError>(
                    catalog::set_product_state(tx, now, &actor, product.id, &product.slug, state).await?,
                )
            })
        })
        .await?;
    Ok(message)
}

/// Returns one line for each product of the merchant.
pub async fn list_products_with_prices(context: &Context, owner: Owner) -> Result<String, String> {
    let shop_name = owner.resolve_with_checkout_defaults(&context.config);
    let hint = shop_name.clone();
    let products = context
        .db
        .read("list_products_with_prices", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                Ok::<_, AdminError>(catalog::list_all_products(tx, shop).await?)
            })
        })
        .await?;
    if products.is_empty() {
        let put = hint.format_hint("admin product put SLUG --price 0.50");
        return Ok(format!("There is no product yet; add one with {put}."));
    }
    let lines: Vec<String> = products.iter().map(format_product).collect();
    Ok(lines.join("\n"))
}

fn format_product(product: &ProductWithPrices) -> String {
    let ProductWithPrices { public_id, slug, state, min_quantity, max_quantity, stock, unit_prices, .. } = product;
    let prices: Vec<String> = unit_prices.iter().map(|price| format_price(*price)).collect();
    let prices = if prices.is_empty() { "no price".into() } else { prices.join(", ") };
    let state = match (state, has_checkout_price(product)) {
        (State::Active, false) => format!("active, but hidden: no price in {}", checkout::CURRENCY),
        (state, _) => state.as_str().to_owned(),
    };
    format!("{slug}\t{public_id}\t{state}\t{prices}\t{stock} in stock\torders of {min_quantity} to {max_quantity}")
}

/// Returns true when the product has a price in the currency of the checkout surface. The surface hides products
/// without such a price.
fn has_checkout_price(product: &ProductWithPrices) -> bool {
    product.unit_prices.iter().any(|price| price.currency == checkout::CURRENCY)
}

/// Returns the active or inactive product with this public id or slug. Fails when the shop has no such product.
pub(super) async fn require_product(
    tx: &mut Tx,
    shop: Shop,
    id_or_slug: &str,
) -> Result<ProductWithPrices, AdminError> {
    let product = catalog::find_product_in_any_state(tx, shop, id_or_slug).await?;
    product.ok_or_else(|| AdminError::Refused(format!("there is no product `{id_or_slug}`")))
}

/// Formats a price, such as `0.5 CNY`.
pub fn format_price(price: Fiat) -> String {
    format!("{} {}", price.to_decimal(), price.currency)
}
