//! Products, one at a time or from a file.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commands::admin::file::{Record, Source};
use crate::commands::admin::{Act, Owner, Refused, currency, fiat, minor_units, shop_of};
use crate::commands::context::Context;
use crate::commands::exit::CommandError;
use clock::Instant;
use db::Tx;
use ids::Shop;
use records::audit_log::{self, Action};
use shop::catalog::{self, EditError, LocalizedTexts, PriceTier, ProductWithPrices, State};

const CURRENCY: &str = "CNY";

#[derive(Subcommand)]
pub enum Verb {
    /// Add a product, or change the one with this slug to what is given here; what is left out stays as it is.
    Put(Put),
    /// Put all products of a file: a JSON array, or a CSV file with the columns slug, price, and any of currency,
    /// min_quantity, max_quantity, name_LANGUAGE and description_LANGUAGE. What is left out stays as it is.
    Import(Import),
    /// Offer a product, or take it off.
    Set(Set),
    /// Show all products of a merchant.
    List(Owner),
}

#[derive(clap::Args)]
pub struct Put {
    #[command(flatten)]
    product: NewProduct,
    /// Name in a language, such as `en=Mailbox`; repeat it for more.
    #[arg(long = "name", value_name = "LANGUAGE=TEXT", value_parser = in_language)]
    names: Vec<(String, String)>,
    #[command(flatten)]
    owner: Owner,
}

/// A product as files and commands describe it.
#[derive(clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProduct {
    /// How addresses call it: a-z, 0-9 and -.
    pub slug: String,
    /// Price of one unit, such as 0.50.
    #[arg(long)]
    pub price: String,
    /// Currency of the price; prices in others stay.
    #[arg(long, default_value = CURRENCY)]
    #[serde(default = "usual_currency")]
    pub currency: String,
    /// Smallest quantity of one order; 1 where a new product says nothing.
    #[arg(long)]
    pub min_quantity: Option<u32>,
    /// Largest quantity of one order; 200 where a new product says nothing.
    #[arg(long)]
    pub max_quantity: Option<u32>,
    /// Names by language.
    #[arg(skip)]
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// Descriptions by language.
    #[arg(skip)]
    #[serde(default)]
    pub descriptions: BTreeMap<String, String>,
}

#[derive(clap::Args)]
pub struct Import {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Set {
    /// Id or slug.
    pub product: String,
    #[arg(long, conflicts_with = "active", required_unless_present = "active")]
    pub inactive: bool,
    #[arg(long)]
    pub active: bool,
    #[command(flatten)]
    pub owner: Owner,
}

impl Verb {
    pub fn act(self) -> Result<Act, CommandError> {
        match self {
            Verb::Put(put) => {
                let product = NewProduct { names: put.names.into_iter().collect(), ..put.product };
                Ok(Act::PutProducts(put.owner, vec![product]))
            }
            Verb::Import(import) => Ok(Act::PutProducts(import.owner, import.source.records("products", of_record)?)),
            Verb::Set(set) => Ok(Act::SetProduct(set)),
            Verb::List(owner) => Ok(Act::ListProducts(owner)),
        }
    }
}

fn of_record(mut record: Record) -> Result<NewProduct, CommandError> {
    let mut product = NewProduct {
        slug: record.need("slug")?,
        price: record.need("price")?,
        currency: record.take("currency").unwrap_or_else(usual_currency),
        min_quantity: record.number("min_quantity")?,
        max_quantity: record.number("max_quantity")?,
        names: BTreeMap::new(),
        descriptions: BTreeMap::new(),
    };
    for (column, text) in record.fields.into_iter().filter(|(_, text)| !text.is_empty()) {
        if let Some(language) = column.strip_prefix("name_") {
            product.names.insert(language.to_owned(), text);
        } else if let Some(language) = column.strip_prefix("description_") {
            product.descriptions.insert(language.to_owned(), text);
        } else if !KNOWN.contains(&column.as_str()) {
            return Err(CommandError::failed(format!("{}: there is no column `{column}`", record.name)));
        }
    }
    Ok(product)
}

const KNOWN: [&str; 5] = ["slug", "price", "currency", "min_quantity", "max_quantity"];

fn usual_currency() -> String {
    CURRENCY.into()
}

fn in_language(text: &str) -> Result<(String, String), String> {
    let (language, text) = text.split_once('=').ok_or("write it as `en=Mailbox`")?;
    Ok((language.to_owned(), text.to_owned()))
}

/// All of them, or none.
pub async fn put(context: &Context, owner: Owner, products: Vec<NewProduct>) -> Result<String, String> {
    let (now, actor, count) = (context.clock.now(), context.actor.clone(), products.len());
    let created = context
        .db
        .write("put_products", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &owner).await?;
                let mut created = 0;
                for (position, product) in (1..).zip(products) {
                    let slug = product.slug.clone();
                    let refused = |e: Refused| Refused::Rejected(format!("product `{slug}`: {e}"));
                    let made = put_one(tx, now, shop, position, &product).await.map_err(refused)?;
                    let action = if made { Action::ProductCreate } else { Action::ProductChange };
                    audit_log::record(tx, now, &actor, action, &slug, &product.price).await?;
                    created += usize::from(made);
                }
                Ok::<_, Refused>(created)
            })
        })
        .await?;
    Ok(format!("{created} products were created, {} were changed.", count - created))
}

/// True when it is new.
async fn put_one(tx: &mut Tx, now: Instant, shop: Shop, position: i64, product: &NewProduct) -> Result<bool, Refused> {
    let currency = currency(&product.currency).map_err(Refused::Rejected)?;
    let unit_price = minor_units(&product.price).map_err(Refused::Rejected)?;
    let (tiers, texts) = (vec![PriceTier { from_quantity: 1, unit_price }], texts(product));
    let known = catalog::find_with_prices(tx, shop, &product.slug).await?;
    let stored = known.as_ref().map_or((1, catalog::MAX_QUANTITY), |known| (known.min_quantity, known.max_quantity));
    let min_quantity = product.min_quantity.unwrap_or(stored.0);
    let max_quantity = product.max_quantity.unwrap_or(stored.1);
    let refused = |e: EditError| match e {
        EditError::BadLimits => Refused::Rejected(format!("{e}: it would be {min_quantity} to {max_quantity}")),
        EditError::BadSlug | EditError::SlugTaken | EditError::BadTiers | EditError::Db(_) => Refused::because(e),
    };
    if let Some(known) = known {
        catalog::set_limits(tx, known.id, min_quantity, max_quantity).await.map_err(refused)?;
        catalog::set_prices(tx, known.sku, currency, &tiers).await.map_err(refused)?;
        catalog::set_texts(tx, known.id, &texts).await?;
        return Ok(false);
    }
    let public_id = Uuid::new_v4();
    let slug = product.slug.clone();
    let new = catalog::NewProduct { public_id, slug, min_quantity, max_quantity, position, currency, tiers, texts };
    catalog::create(tx, now, shop, new).await.map_err(refused)?;
    Ok(true)
}

fn texts(product: &NewProduct) -> LocalizedTexts {
    let names = product.names.iter().map(|(language, text)| ("name", language, text));
    let descriptions = product.descriptions.iter().map(|(language, text)| ("description", language, text));
    names
        .chain(descriptions)
        .fold(LocalizedTexts::default(), |texts, (field, language, text)| texts.with(field, language, text))
}

pub async fn set(context: &Context, set: Set) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let state = if set.inactive { State::Inactive } else { State::Active };
    let said = format!("Product `{}` is {}.", set.product, state.as_str());
    context
        .db
        .write("set_product", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &set.owner).await?;
                let product = find(tx, shop, &set.product).await?;
                catalog::set_state(tx, product.id, state).await?;
                Ok::<_, Refused>(
                    audit_log::record(tx, now, &actor, Action::ProductSetState, &product.slug, state.as_str()).await?,
                )
            })
        })
        .await?;
    Ok(said)
}

pub async fn list(context: &Context, owner: Owner) -> Result<String, String> {
    let products = context
        .db
        .read("list_products", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &owner).await?;
                Ok::<_, Refused>(catalog::list_with_prices(tx, shop).await?)
            })
        })
        .await?;
    if products.is_empty() {
        return Ok("There is no product yet; add one with `settled admin product put SLUG --price 0.50`.".into());
    }
    let lines: Vec<String> = products.iter().map(line).collect();
    Ok(lines.join("\n"))
}

fn line(product: &ProductWithPrices) -> String {
    let ProductWithPrices { public_id, slug, state, min_quantity, max_quantity, stock, unit_prices, .. } = product;
    let prices: Vec<String> = unit_prices.iter().map(|price| fiat(*price)).collect();
    let prices = if prices.is_empty() { "no price".into() } else { prices.join(", ") };
    let state = state.as_str();
    format!("{slug}\t{public_id}\t{state}\t{prices}\t{stock} in stock\torders of {min_quantity} to {max_quantity}")
}

pub(super) async fn find(tx: &mut Tx, shop: Shop, id_or_slug: &str) -> Result<ProductWithPrices, Refused> {
    let product = catalog::find_with_prices(tx, shop, id_or_slug).await?;
    product.ok_or_else(|| Refused::Rejected(format!("there is no product `{id_or_slug}`")))
}
