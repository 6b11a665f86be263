//! The commands `settled admin stock …`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::merchants::require_shop;
use crate::commands::admin::owner::Owner;
use crate::commands::admin::products::require_product;
use crate::commands::admin::stock_import::Import;
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::installation::Installation;
use crate::commands::operation;
use crate::commands::output::print_line_or_exit;
use ids::StockItemId;
use shop::stock::{self, ItemSummary};

/// The maximum number of items in one listing. It keeps the response below the size limit of the control socket.
const LISTED_MAX: u32 = 10_000;

/// The subcommands of `settled admin stock`.
#[derive(Subcommand)]
pub enum Command {
    /// Add items to the stock of a product: the lines of a text file, a JSON array of strings, or the column `line` of
    /// a CSV file. A line that the product already has, or had, is skipped. The file is imported whole or not at all.
    Import(Import),
    /// List the items of a product by number, with their import time. The text of an item is never shown.
    List(List),
    /// Take an item off sale permanently.
    Withdraw(Withdraw),
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

/// Executes `settled admin stock …` and prints its output.
pub async fn execute_stock_command_and_print(
    installation: &Installation,
    command: Command,
) -> Result<(), CommandError> {
    let operation = match command {
        Command::Import(import) => return import.import_file_and_print(installation).await,
        Command::List(list) => AdminOperation::ListStock(list),
        Command::Withdraw(withdraw) => AdminOperation::WithdrawStock(withdraw),
    };
    print_line_or_exit(operation::execute_in_daemon_or_locally(installation, operation).await?);
    Ok(())
}

/// Returns one line for each item after number `list.after`, up to `list.limit` items: the items in stock in the order
/// in which they are sold or, with `--all`, the items in any state sorted by number.
pub async fn list_stock_items_page(context: &Context, list: List) -> Result<String, String> {
    let limit = list.limit.clamp(1, LISTED_MAX);
    let (product, all, shop_name) =
        (list.product.clone(), list.all, list.owner.resolve_with_checkout_defaults(&context.config));
    let items = context
        .db
        .read("list_stock_items", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                let sku = require_product(tx, shop, &list.product).await?.sku;
                // Fetch one item more than the limit. If this item exists, the listing is incomplete.
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
