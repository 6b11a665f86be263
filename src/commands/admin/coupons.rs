//! The commands `settled admin coupon …`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::csv::CsvRecord;
use crate::commands::admin::import_file::ImportFile;
use crate::commands::admin::merchants::require_shop;
use crate::commands::admin::owner::Owner;
use crate::commands::admin::parse::{
    parse_currency, parse_instant, parse_percent_in_basis_points, parse_price_in_minor_units,
};
use crate::commands::admin::products::require_product;
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use db::Tx;
use ids::Shop;
use money::pricing::Fiat;
use rust_decimal::Decimal;
use shop::catalog::{self, ProductWithPrices};
use shop::coupons::{self, Discount, Terms};

/// The subcommands of `settled admin coupon`.
#[derive(Subcommand)]
pub enum Command {
    /// Create a coupon.
    Create(Create),
    /// Create all coupons of a file: a JSON array, or a CSV file with the columns code and percent or fixed, and
    /// optionally currency, min_amount, product, max_uses, starts_at and ends_at.
    Import(Import),
    /// Deactivate a coupon. Orders that used it keep their discount.
    Deactivate(Deactivate),
    /// List all active coupons of a merchant.
    List(Owner),
}

/// The coupon to create, and its merchant and mode.
#[derive(clap::Args)]
pub struct Create {
    #[command(flatten)]
    coupon: CouponInput,
    #[command(flatten)]
    owner: Owner,
}

/// A coupon as it is written on the command line and in import files.
#[derive(clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouponInput {
    /// The code that buyers enter. Upper and lower case are the same.
    pub code: String,
    /// Discount in percent of the order, such as 10 or 2.5.
    #[arg(long, conflicts_with = "fixed", required_unless_present = "fixed")]
    pub percent: Option<String>,
    /// Fixed discount, an amount such as 5.00.
    #[arg(long)]
    pub fixed: Option<String>,
    /// Currency of the orders for which the coupon is valid.
    #[arg(long, default_value = "CNY")]
    #[serde(default = "default_currency")]
    pub currency: String,
    /// Minimum amount of the order before the discount.
    #[arg(long)]
    pub min_amount: Option<String>,
    /// Id or slug of the only product for which the coupon is valid.
    #[arg(long)]
    pub product: Option<String>,
    /// Maximum number of uses; unlimited by default.
    #[arg(long)]
    pub max_uses: Option<u32>,
    /// Time from which the coupon is valid, such as 2026-02-11T12:00:00Z.
    #[arg(long)]
    pub starts_at: Option<String>,
    /// Time from which the coupon is no longer valid.
    #[arg(long)]
    pub ends_at: Option<String>,
}

/// The import file, and the merchant and mode of its coupons.
#[derive(clap::Args)]
pub struct Import {
    #[command(flatten)]
    source: ImportFile,
    #[command(flatten)]
    owner: Owner,
}

/// Selects the coupon to deactivate.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Deactivate {
    /// Code of the coupon.
    pub code: String,
    #[command(flatten)]
    pub owner: Owner,
}

impl CouponInput {
    /// Returns a coupon that gives a percentage off any order in CNY, with no minimum amount, no limit of uses and no
    /// dates. `percent` is a decimal such as `2.5`.
    pub fn from_code_and_percent(code: &str, percent: &str) -> CouponInput {
        CouponInput {
            code: code.to_owned(),
            percent: Some(percent.to_owned()),
            fixed: None,
            currency: default_currency(),
            min_amount: None,
            product: None,
            max_uses: None,
            starts_at: None,
            ends_at: None,
        }
    }
}

impl Command {
    /// Returns the operation that this subcommand requests. The subcommand `import` reads its file first.
    pub fn into_operation_reading_import_file(self) -> Result<AdminOperation, CommandError> {
        match self {
            Command::Create(create) => Ok(AdminOperation::PutCoupons(create.owner, vec![create.coupon])),
            Command::Import(import) => Ok(AdminOperation::PutCoupons(
                import.owner,
                import.source.read_json_or_csv_records("coupons", parse_coupon_record)?,
            )),
            Command::Deactivate(deactivate) => Ok(AdminOperation::DeactivateCoupon(deactivate)),
            Command::List(owner) => Ok(AdminOperation::ListCoupons(owner)),
        }
    }
}

fn parse_coupon_record(mut record: CsvRecord) -> Result<CouponInput, CommandError> {
    let coupon = CouponInput {
        code: record.take_required_field("code")?,
        percent: record.take_field("percent"),
        fixed: record.take_field("fixed"),
        currency: record.take_field("currency").unwrap_or_else(default_currency),
        min_amount: record.take_field("min_amount"),
        product: record.take_field("product"),
        max_uses: record.take_number_field("max_uses")?,
        starts_at: record.take_field("starts_at"),
        ends_at: record.take_field("ends_at"),
    };
    match record.fields.iter().find(|(_, text)| !text.is_empty()) {
        Some((column, _)) => Err(CommandError::general_error(format!("{}: unknown column `{column}`", record.name))),
        None => Ok(coupon),
    }
}

fn default_currency() -> String {
    "CNY".into()
}

/// Creates the coupons in one database transaction: either all of them or, when one fails, none.
pub async fn create_coupons(context: &Context, owner: Owner, coupons: Vec<CouponInput>) -> Result<String, String> {
    let shop_name = owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor, count) = (context.clock.now(), context.actor.clone(), coupons.len());
    let note = shop_name.note_if_checkout_sells_other_mode();
    context
        .db
        .write("create_coupons", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                for coupon in coupons {
                    let code = coupon.code.clone();
                    let refused =
                        |cause: &dyn ToString| AdminError::Refused(format!("coupon `{code}`: {}", cause.to_string()));
                    let terms = parse_terms_and_find_product(tx, shop, &coupon).await.map_err(|e| refused(&e))?;
                    let new = coupons::NewCoupon { code: code.clone(), terms, max_uses: coupon.max_uses };
                    coupons::create_coupon(tx, now, &actor, shop, new).await.map_err(|e| refused(&e))?;
                }
                Ok::<_, AdminError>(())
            })
        })
        .await?;
    Ok(format!("{count} coupons were created.{note}"))
}

async fn parse_terms_and_find_product(tx: &mut Tx, shop: Shop, coupon: &CouponInput) -> Result<Terms, AdminError> {
    let currency = parse_currency(&coupon.currency).map_err(AdminError::Refused)?;
    let parse_price = |text: &str| parse_price_in_minor_units(text, currency).map_err(AdminError::Refused);
    let discount = match (&coupon.percent, &coupon.fixed) {
        (Some(percent), None) => {
            Discount::Percent(parse_percent_in_basis_points(percent).map_err(AdminError::Refused)?)
        }
        (None, Some(fixed)) => Discount::Fixed(parse_price(fixed)?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(AdminError::Refused("a coupon has either `percent` or `fixed`".into()));
        }
    };
    let product = match &coupon.product {
        Some(product) => Some(require_product(tx, shop, product).await?.id),
        None => None,
    };
    let min_amount = coupon.min_amount.as_deref().map_or(Ok(0), parse_price)?;
    let parse_time =
        |text: &Option<String>| text.as_deref().map(parse_instant).transpose().map_err(AdminError::Refused);
    Ok(Terms {
        discount,
        currency,
        min_amount,
        product,
        starts_at: parse_time(&coupon.starts_at)?,
        ends_at: parse_time(&coupon.ends_at)?,
    })
}

/// Deactivates a coupon. Fails when no active coupon has the code.
pub async fn deactivate_coupon(context: &Context, deactivate: Deactivate) -> Result<String, String> {
    let shop_name = deactivate.owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor, code) = (context.clock.now(), context.actor.clone(), deactivate.code.clone());
    let is_deactivated = context
        .db
        .write("deactivate_coupon", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                Ok::<_, AdminError>(coupons::deactivate_coupon(tx, now, &actor, shop, &deactivate.code).await?)
            })
        })
        .await?;
    if is_deactivated {
        Ok(format!("Coupon `{code}` is deactivated."))
    } else {
        Err(format!("there is no coupon `{code}`"))
    }
}

/// Returns one line for each active coupon of the merchant.
pub async fn list_active_coupons(context: &Context, owner: Owner) -> Result<String, String> {
    let shop_name = owner.resolve_with_checkout_defaults(&context.config);
    let (coupons, products) = context
        .db
        .read("list_active_coupons", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                let coupons = coupons::list_active_coupons(tx, shop).await?;
                Ok::<_, AdminError>((coupons, catalog::list_all_products(tx, shop).await?))
            })
        })
        .await?;
    let lines: Vec<String> = coupons.iter().map(|(code, coupon)| format_coupon(code, coupon, &products)).collect();
    Ok(if lines.is_empty() { "There is no coupon yet.".into() } else { lines.join("\n") })
}

/// Returns one line with the code, the discount, the uses and the conditions of a coupon. `products` are all products
/// of the shop; the slug of the only product for which the coupon is valid is taken from them.
fn format_coupon(code: &str, coupon: &coupons::Coupon, products: &[ProductWithPrices]) -> String {
    let Terms { discount, currency, min_amount, product, starts_at, ends_at } = &coupon.terms;
    let format_amount = |minor: i64| Fiat::new(*currency, minor).to_decimal();
    let discount = match discount {
        // Basis points are hundredths of a percent.
        Discount::Percent(points) => format!("{} %", Decimal::new(*points, 2).normalize()),
        Discount::Fixed(minor) => format!("{} {currency}", format_amount(*minor)),
    };
    let limit = coupon.max_uses.map_or_else(|| "no limit".into(), |max| format!("of {max}"));
    let mut text = format!("{code}\t{discount}\tused {}, {limit}", coupon.uses);
    for (word, at) in [("from", starts_at), ("until", ends_at)] {
        text += &at.map_or_else(String::new, |at| format!("\t{word} {at}"));
    }
    if *min_amount > 0 {
        text += &format!("\tfrom {} {currency}", format_amount(*min_amount));
    }
    if let Some(only) = product {
        let slug = products.iter().find(|product| product.id == *only).map_or("a deleted product", |p| p.slug.as_str());
        text += &format!("\tonly {slug}");
    }
    text
}
