//! The command `settled admin stock import`. All lines are validated before the first one is sent to the database. The
//! lines are then stored in parts, each in a transaction of its own, and the last step puts all of them in stock at once:
//! a file is imported whole or not at all, and buyers never wait for a large import.

use serde::{Deserialize, Serialize};

use crate::commands::admin::AdminError;
use crate::commands::admin::import_file::{Format, ImportFile};
use crate::commands::admin::merchants::require_shop;
use crate::commands::admin::owner::Owner;
use crate::commands::admin::products::require_product;
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::installation::Installation;
use crate::commands::operation::{self, Operation};
use crate::commands::output::print_line_or_exit;
use clock::Instant;
use ids::SkuId;
use shop::stock::{self, BadLine, IMPORT_LINES_MAX};

/// The maximum total length of the lines in one request, in bytes. It keeps the request below the size limit of the
/// control socket.
const BYTES_MAX: usize = 1024 * 1024;

/// The import file, and the product to which its lines are added.
#[derive(clap::Args)]
pub struct Import {
    /// Id or slug of the product.
    product: String,
    #[command(flatten)]
    source: ImportFile,
    #[command(flatten)]
    owner: Owner,
}

/// One step of an import. The client repeats `Stage` for each part of the file, and ends with `Publish` or, after an error,
/// with `Discard`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportStep {
    /// Stores lines that buyers cannot get yet.
    Stage(ImportedProduct, Vec<String>),
    /// Puts all stored lines in stock.
    Publish(ImportedProduct),
    /// Deletes the stored lines.
    Discard(ImportedProduct),
}

/// A product, and the import that adds lines to its stock.
#[derive(Clone, Serialize, Deserialize)]
pub struct ImportedProduct {
    /// The merchant and the mode of the product.
    pub owner: Owner,
    /// Id or slug of the product.
    pub product: String,
    /// The time at which the import began, in Unix milliseconds, which identifies the import; `None` in its first step.
    pub import_at: Option<i64>,
}

/// The result of one step of an import.
#[derive(Serialize, Deserialize)]
pub struct StepResult {
    /// The slug of the product.
    pub slug: String,
    /// The time at which the import began, for the next steps.
    pub import_at: i64,
    /// The number of lines that this step stored, put in stock or deleted.
    pub added: u64,
    /// The number of lines that this step skipped, because the product has or had an item with the same text.
    pub duplicates: u64,
    /// Text to append to the message, with a leading space: buyers do not see the product, because its mode (test or live)
    /// is not the one of the checkout surface. Empty when the modes are equal.
    pub note: String,
}

/// A line of the import file.
struct FileLine {
    /// The number of the line in a text or CSV file, or of the entry in a JSON array, counted from 1.
    number: usize,
    text: String,
}

impl Import {
    /// Imports the whole file, prints the progress of a large one, and prints the result.
    ///
    /// # Errors
    /// Fails when a line is invalid, or when a step fails. Nothing is imported then.
    pub async fn import_file_and_print(self, installation: &Installation) -> Result<(), CommandError> {
        let lines = self.read_and_validate_all_lines()?;
        let total = lines.len();
        let parts = split_lines_into_parts(lines);
        let is_large = parts.len() > 1;
        let mut target = ImportedProduct { owner: self.owner, product: self.product, import_at: None };
        let (mut stored, mut duplicates) = (0, 0);
        for part in parts {
            stored += part.len();
            let stage = ImportStep::Stage(target.clone(), part);
            let result = execute_step_or_discard_import(installation, &target, stage).await?;
            target.import_at = Some(result.import_at);
            duplicates += result.duplicates;
            if is_large {
                print_line_or_exit(format_args!("{stored} of {total} lines are stored, and none is for sale yet."));
            }
        }
        let result = execute_step_or_discard_import(installation, &target, ImportStep::Publish(target.clone())).await?;
        let StepResult { slug, added, note, .. } = result;
        print_line_or_exit(format_args!(
            "{added} items were added to `{slug}`; {duplicates} duplicates were skipped.{note}"
        ));
        Ok(())
    }

    /// Reads the file and returns the trimmed texts of all its lines. Fails when a line is invalid, and when there are
    /// none.
    fn read_and_validate_all_lines(&self) -> Result<Vec<String>, CommandError> {
        let (lines, noun) = self.read_numbered_lines()?;
        if lines.is_empty() {
            return Err(CommandError::general_error("there are no lines to import"));
        }
        let refused = |number: usize, problem: BadLine| {
            let file = self.source.display_name();
            CommandError::general_error(format!("{file}: {noun} {number} {problem}; nothing was imported"))
        };
        let validate = |line: FileLine| match stock::trim_and_validate_line(&line.text) {
            Ok(text) if text.len() == line.text.len() => Ok(line.text),
            Ok(text) => Ok(text.to_owned()),
            Err(problem) => Err(refused(line.number, problem)),
        };
        lines.into_iter().map(validate).collect()
    }

    /// Reads the file and returns its lines with their numbers, and the noun for a line in messages: `line` or, for a
    /// JSON array, `entry`. Empty lines of a text file are skipped, but they count in the line numbers.
    fn read_numbered_lines(&self) -> Result<(Vec<FileLine>, &'static str), CommandError> {
        let text = self.source.read_text_from_file_or_stdin()?;
        Ok(match self.source.format_by_option_or_extension() {
            Format::Json => {
                let texts = (1..).zip(self.source.parse_json_array(&text)?);
                (texts.map(|(number, text)| FileLine { number, text }).collect(), "entry")
            }
            Format::Csv => {
                let mut records = self.source.parse_csv_file(&text)?;
                let lines = records.iter_mut().map(|record| {
                    let text = record.take_required_field("line")?;
                    Ok::<_, CommandError>(FileLine { number: record.line, text })
                });
                (lines.collect::<Result<_, _>>()?, "line")
            }
            Format::Lines => {
                let lines = (1..).zip(split_text_into_lines(&text));
                let filled = lines.filter(|(_, text)| stock::trim_and_validate_line(text) != Err(BadLine::Empty));
                (filled.map(|(number, text)| FileLine { number, text: text.to_owned() }).collect(), "line")
            }
        })
    }
}

/// Splits a text at its line ends: a line feed, a carriage return, or a carriage return with a line feed.
fn split_text_into_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Splits the lines of an import into parts. Each part fits into one request, by its number of lines and by its bytes.
fn split_lines_into_parts(lines: Vec<String>) -> Vec<Vec<String>> {
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

/// Executes a step of an import. When the step fails, the lines that the earlier steps stored are deleted.
async fn execute_step_or_discard_import(
    installation: &Installation,
    target: &ImportedProduct,
    step: ImportStep,
) -> Result<StepResult, CommandError> {
    let outcome = operation::execute_in_daemon_or_locally(installation, step).await;
    if outcome.is_err() && target.import_at.is_some() {
        // When this request fails too, the stored lines are not for sale, and the next import of the same file uses
        // them.
        let discard = ImportStep::Discard(target.clone());
        let _discarded = operation::execute_in_daemon_or_locally(installation, discard).await;
    }
    outcome
}

impl Operation for ImportStep {
    const NAME: &'static str = "stock-import";
    type Context = Context;
    type Output = StepResult;

    async fn execute(self, context: &Context) -> Result<StepResult, String> {
        let (ImportStep::Stage(target, _) | ImportStep::Publish(target) | ImportStep::Discard(target)) = &self;
        let (slug, sku) = require_slug_and_sku(context, target).await?;
        let import_at = target.import_at.map_or_else(|| context.clock.now(), Instant);
        let note = target.owner.resolve_with_checkout_defaults(&context.config).note_if_checkout_sells_other_mode();
        let (now, actor, product_slug) = (context.clock.now(), context.actor.clone(), slug.clone());
        let result = match self {
            ImportStep::Stage(_, lines) => {
                let items = stock::validate_and_encrypt_lines(&context.envelope, sku, lines.iter().map(String::as_str))
                    .map_err(|e| e.to_string())?;
                let staged = context.db.write("stage_stock_items", move |tx| {
                    Box::pin(async move { stock::stage_items_skipping_duplicates(tx, sku, import_at, items).await })
                });
                staged.await
            }
            ImportStep::Publish(_) => {
                let published = context.db.write("publish_stock_items", move |tx| {
                    Box::pin(async move {
                        stock::publish_staged_items(tx, now, &actor, &product_slug, sku, import_at).await
                    })
                });
                published.await.map(|added| stock::ImportResult { added, duplicates: 0 })
            }
            ImportStep::Discard(_) => {
                let deleted = context.db.write("delete_staged_stock_items", move |tx| {
                    Box::pin(async move { stock::delete_staged_items(tx, sku, import_at).await })
                });
                deleted.await.map(|added| stock::ImportResult { added, duplicates: 0 })
            }
        };
        let stock::ImportResult { added, duplicates } = result.map_err(AdminError::Db)?;
        Ok(StepResult { slug, import_at: import_at.0, added, duplicates, note })
    }
}

/// Returns the slug and the SKU of the product. Fails when the merchant or the product does not exist.
async fn require_slug_and_sku(context: &Context, target: &ImportedProduct) -> Result<(String, SkuId), AdminError> {
    let (shop_name, product) = (target.owner.resolve_with_checkout_defaults(&context.config), target.product.clone());
    let found = context.db.read("require_product", move |tx| {
        Box::pin(async move {
            let shop = require_shop(tx, &shop_name).await?;
            let product = require_product(tx, shop, &product).await?;
            Ok::<_, AdminError>((product.slug, product.sku))
        })
    });
    found.await
}

/// Imports lines in one database transaction, without the steps of a large file.
pub async fn import_lines_in_one_transaction(
    context: &Context,
    owner: Owner,
    product: String,
    lines: Vec<String>,
) -> Result<stock::ImportResult, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let (slug, sku) = require_slug_and_sku(context, &ImportedProduct { owner, product, import_at: None }).await?;
    let items = stock::validate_and_encrypt_lines(&context.envelope, sku, lines.iter().map(String::as_str))
        .map_err(|e| e.to_string())?;
    let imported = context.db.write("import_stock_items", move |tx| {
        Box::pin(async move { stock::import_stock_items(tx, now, &actor, &slug, sku, items).await })
    });
    Ok(imported.await.map_err(AdminError::Db)?)
}

#[cfg(test)]
mod tests {
    use super::split_text_into_lines;

    #[test]
    fn every_kind_of_line_end_is_one_line_end() {
        for text in ["a\nb\n\nc", "a\r\nb\r\n\r\nc", "a\rb\r\rc", "a\nb\r\n\rc"] {
            assert_eq!(split_text_into_lines(text).collect::<Vec<_>>(), ["a", "b", "", "c"], "{text:?}");
        }
    }
}
