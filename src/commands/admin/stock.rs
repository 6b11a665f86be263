//! The commands `settled admin stock …`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::import_file::{Format, ImportFile};
use crate::commands::admin::merchants::require_shop;
use crate::commands::admin::products::require_product;
use crate::commands::admin::{AdminError, AdminOperation, Owner};
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use ids::StockItemId;
use shop::stock::{self, IMPORT_LINES_MAX, ItemSummary};

/// The maximum total length of the lines in one request, in bytes. It keeps the request below the size limit of the
/// control socket.
const BYTES_MAX: usize = 1024 * 1024;
/// The maximum number of items in one listing. It keeps the response below the size limit of the control socket.
const LISTED_MAX: u32 = 10_000;

/// The subcommands of `settled admin stock`.
#[derive(Subcommand)]
pub enum Command {
    /// Add items to the stock of a product: the lines of a text file, a JSON array of strings, or the column `line` of
    /// a CSV file. A line that the product already has, or had, is skipped.
    Import(Files),
    /// List the items of a product by number, with their import time. The text of an item is never shown.
    List(List),
    /// Take an item off sale for good.
    Withdraw(Withdraw),
}

/// The import file, and the product to which its lines are added.
#[derive(clap::Args)]
pub struct Files {
    /// Id or slug of the product.
    product: String,
    #[command(flatten)]
    source: ImportFile,
    #[command(flatten)]
    owner: Owner,
}

/// One request of `stock import`. A large import is split into several requests.
#[derive(Serialize, Deserialize)]
pub struct Import {
    /// The merchant and the mode of the product.
    pub owner: Owner,
    /// Id or slug of the product.
    pub product: String,
    /// The texts of the items, at most 1 MiB in total.
    pub lines: Vec<String>,
}

/// Selects the product and the items to list.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct List {
    /// Id or slug of the product.
    pub product: String,
    /// Also list items that are reserved, delivered or withdrawn.
    #[arg(long)]
    pub all: bool,
    /// Maximum number of items to list.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(LISTED_MAX)))]
    pub limit: u32,
    /// List only items after this number, to continue a listing.
    #[arg(long, value_name = "ITEM", default_value_t = 0)]
    pub after: i64,
    #[command(flatten)]
    pub owner: Owner,
}

/// Selects the item to withdraw.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Withdraw {
    /// Number of the item, as shown by `stock list`.
    pub item: i64,
}

impl Command {
    /// Returns the operations that this command requests. The subcommand `import` reads its file; a large import needs
    /// several operations.
    pub fn read_files_into_operations(self) -> Result<Vec<AdminOperation>, CommandError> {
        match self {
            Command::List(list) => Ok(vec![AdminOperation::ListStock(list)]),
            Command::Withdraw(withdraw) => Ok(vec![AdminOperation::WithdrawStock(withdraw)]),
            Command::Import(files) => {
                let lines = read_stock_lines(&files.source)?;
                if lines.is_empty() {
                    return Err(CommandError::general_error("there are no lines to import"));
                }
                let new_import = |lines| Import { owner: files.owner.clone(), product: files.product.clone(), lines };
                Ok(split_lines_into_requests(lines)
                    .into_iter()
                    .map(|lines| AdminOperation::ImportStock(new_import(lines)))
                    .collect())
            }
        }
    }
}

fn read_stock_lines(source: &ImportFile) -> Result<Vec<String>, CommandError> {
    let text = source.read_file_text()?;
    match source.detect_format() {
        Format::Json => source.parse_json_array(&text),
        Format::Csv => {
            source.parse_csv_file(&text)?.iter_mut().map(|record| record.take_required_field("line")).collect()
        }
        Format::Lines => Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect()),
    }
}

/// Splits the lines of an import into parts. Each part fits into one request.
fn split_lines_into_requests(lines: Vec<String>) -> Vec<Vec<String>> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        bytes += line.len();
        match parts.last_mut() {
            Some(part) if part.len() < IMPORT_LINES_MAX && bytes <= BYTES_MAX => part.push(line),
            Some(_) | None => {
                bytes = line.len();
                parts.push(vec![line]);
            }
        }
    }
    parts
}

/// Imports one part in one database transaction: all of its lines, or none when one fails.
pub async fn encrypt_and_import_stock_lines(context: &Context, import: Import) -> Result<String, String> {
    let (now, actor, envelope) = (context.clock.now(), context.actor.clone(), context.envelope.clone());
    let Import { owner, product, lines } = import;
    let (slug, sku) = context
        .db
        .read("require_product", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &owner).await?;
                let product = require_product(tx, shop, &product).await?;
                Ok::<_, AdminError>((product.slug, product.sku))
            })
        })
        .await?;
    let items = stock::validate_and_encrypt_lines(&envelope, sku, lines.iter().map(String::as_str))
        .map_err(|e| e.to_string())?;
    let product_slug = slug.clone();
    let result = context
        .db
        .write("import_stock_items", move |tx| {
            Box::pin(async move {
                Ok::<_, AdminError>(stock::import_stock_items(tx, now, &actor, &product_slug, sku, items).await?)
            })
        })
        .await?;
    Ok(format!("{} items were added to `{slug}`; {} duplicates were skipped.", result.added, result.duplicates))
}

/// Returns one line for each item, sorted by number. Items are sold in this sequence.
pub async fn list_stock_items_page(context: &Context, list: List) -> Result<String, String> {
    let limit = list.limit.clamp(1, LISTED_MAX);
    let (product, all) = (list.product.clone(), list.all);
    let items = context
        .db
        .read("list_stock_items", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &list.owner).await?;
                let sku = require_product(tx, shop, &list.product).await?.sku;
                // Fetch one item more than the limit. If it exists, the listing is incomplete.
                let (after, fetched_max) = (StockItemId(list.after), limit.saturating_add(1));
                Ok::<_, AdminError>(match all {
                    true => stock::list_items_in_any_state(tx, sku, after, fetched_max).await?,
                    false => stock::list_items_in_stock(tx, sku, after, fetched_max).await?,
                })
            })
        })
        .await?;
    let shown = &items[..items.len().min(usize::try_from(limit).unwrap_or(usize::MAX))];
    let Some(last) = shown.last() else { return Ok(format!("There are no such items of `{product}`.")) };
    let format_item =
        |item: &ItemSummary| format!("{}\t{}\timported {}", item.id, item.state.as_str(), item.imported_at);
    let mut lines: Vec<String> = shown.iter().map(format_item).collect();
    lines.extend((items.len() > shown.len()).then(|| format!("and more: continue with --after {}", last.id)));
    Ok(lines.join("\n"))
}

/// Withdraws an item from sale. Fails when the item is not in stock.
pub async fn withdraw_stock_item(context: &Context, withdraw: Withdraw) -> Result<String, String> {
    let (now, actor, item) = (context.clock.now(), context.actor.clone(), withdraw.item);
    let is_withdrawn = context
        .db
        .write("withdraw_stock_item", move |tx| {
            Box::pin(async move {
                Ok::<_, AdminError>(stock::withdraw_stock_item(tx, now, &actor, StockItemId(item)).await?)
            })
        })
        .await?;
    if is_withdrawn { Ok(format!("Item {item} is off sale.")) } else { Err(format!("item {item} is not in stock")) }
}
