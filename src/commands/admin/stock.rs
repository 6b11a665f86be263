//! Goods.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::file::{Format, Source};
use crate::commands::admin::{Act, Owner, Refused, products, shop_of};
use crate::commands::context::Context;
use crate::commands::exit::CommandError;
use ids::StockItemId;
use records::audit_log::{self, Action};
use shop::stock::{self, IMPORT_MAX, Item};

/// Of one request, so that it fits the control socket whatever stands in the lines.
const BYTES_MAX: usize = 1024 * 1024;
/// Items of one answer, which has a length that it may not pass.
const LISTED_MAX: u32 = 10_000;

#[derive(Subcommand)]
pub enum Verb {
    /// Add lines to the stock of a product: one in each line of a file, a JSON array of strings, or the column `line` of a
    /// CSV file. A line that was imported before is counted and left out.
    Import(Files),
    /// Show the numbers of a product's items with when they were imported, never what stands in them.
    List(List),
    /// Take an item off sale for ever.
    Withdraw(Withdraw),
}

#[derive(clap::Args)]
pub struct Files {
    /// Id or slug of the product.
    product: String,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    owner: Owner,
}

#[derive(Serialize, Deserialize)]
pub struct Import {
    pub owner: Owner,
    pub product: String,
    pub lines: Vec<String>,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct List {
    /// Id or slug of the product.
    pub product: String,
    /// Also items that are reserved, delivered or withdrawn.
    #[arg(long)]
    pub all: bool,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(LISTED_MAX)))]
    pub limit: u32,
    /// Only items behind this number: to go on where a list ended.
    #[arg(long, value_name = "ITEM", default_value_t = 0)]
    pub after: i64,
    #[command(flatten)]
    pub owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Withdraw {
    /// Number of the item, as `stock list` shows it.
    pub item: i64,
}

impl Verb {
    pub fn acts(self) -> Result<Vec<Act>, CommandError> {
        match self {
            Verb::List(list) => Ok(vec![Act::ListStock(list)]),
            Verb::Withdraw(withdraw) => Ok(vec![Act::WithdrawStock(withdraw)]),
            Verb::Import(files) => {
                let lines = read(&files.source)?;
                if lines.is_empty() {
                    return Err(CommandError::failed("there is no line to import"));
                }
                let import = |lines| Import { owner: files.owner.clone(), product: files.product.clone(), lines };
                Ok(parts(lines).into_iter().map(|lines| Act::ImportStock(import(lines))).collect())
            }
        }
    }
}

fn read(source: &Source) -> Result<Vec<String>, CommandError> {
    let text = source.text()?;
    match source.format() {
        Format::Json => source.json(&text),
        Format::Csv => source.csv(&text)?.iter_mut().map(|record| record.need("line")).collect(),
        Format::Lines => Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect()),
    }
}

fn parts(lines: Vec<String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        bytes += line.len();
        match parts.last_mut() {
            Some(part) if part.len() < IMPORT_MAX && bytes <= BYTES_MAX => part.push(line),
            Some(_) | None => {
                bytes = line.len();
                parts.push(vec![line]);
            }
        }
    }
    parts
}

/// All lines, or none.
pub async fn import(context: &Context, import: Import) -> Result<String, String> {
    let (now, actor, envelope) = (context.clock.now(), context.actor.clone(), context.envelope.clone());
    let Import { owner, product, lines } = import;
    let (slug, sku) = context
        .db
        .read("find_product", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &owner).await?;
                let product = products::find(tx, shop, &product).await?;
                Ok::<_, Refused>((product.slug, product.sku))
            })
        })
        .await?;
    let sealed = stock::encrypt_lines(&envelope, sku, lines.iter().map(String::as_str)).map_err(|e| e.to_string())?;
    let subject = slug.clone();
    let imported = context
        .db
        .write("import_stock", move |tx| {
            Box::pin(async move {
                let imported = stock::import(tx, now, sku, sealed).await?;
                audit_log::record(tx, now, &actor, Action::StockImport, &subject, &imported.added.to_string()).await?;
                Ok::<_, Refused>(imported)
            })
        })
        .await?;
    Ok(format!("{} items were added to `{slug}`, {} it had before.", imported.added, imported.duplicates))
}

/// Oldest first, as they are sold.
pub async fn list(context: &Context, list: List) -> Result<String, String> {
    let limit = list.limit.clamp(1, LISTED_MAX);
    let (product, all) = (list.product.clone(), list.all);
    let items = context
        .db
        .read("list_stock", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &list.owner).await?;
                let sku = products::find(tx, shop, &list.product).await?.sku;
                // One more than is shown says whether there are more.
                let (after, ask) = (StockItemId(list.after), limit.saturating_add(1));
                Ok::<_, Refused>(match all {
                    true => stock::list(tx, sku, after, ask).await?,
                    false => stock::list_in_stock(tx, sku, after, ask).await?,
                })
            })
        })
        .await?;
    let shown = &items[..items.len().min(usize::try_from(limit).unwrap_or(usize::MAX))];
    let Some(last) = shown.last() else { return Ok(format!("`{product}` has nothing in stock there.")) };
    let line = |item: &Item| format!("{}\t{}\timported {}", item.id, item.state.as_str(), item.imported_at);
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    lines.extend((items.len() > shown.len()).then(|| format!("and more: go on with --after {}", last.id)));
    Ok(lines.join("\n"))
}

pub async fn withdraw(context: &Context, withdraw: Withdraw) -> Result<String, String> {
    let (now, actor, item) = (context.clock.now(), context.actor.clone(), withdraw.item);
    let withdrawn = context
        .db
        .write("withdraw_stock", move |tx| {
            Box::pin(async move {
                let withdrawn = stock::withdraw(tx, StockItemId(item)).await?;
                if withdrawn {
                    audit_log::record(tx, now, &actor, Action::StockWithdraw, &item.to_string(), "").await?;
                }
                Ok::<_, Refused>(withdrawn)
            })
        })
        .await?;
    if withdrawn { Ok(format!("Item {item} is off sale.")) } else { Err(format!("item {item} is not in stock")) }
}
