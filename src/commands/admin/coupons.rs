//! Coupons, one at a time or from a file.

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::file::{Record, Source};
use crate::commands::admin::{Act, Owner, Refused, currency, minor_units, products, shop_of};
use crate::commands::context::Context;
use crate::commands::exit::CommandError;
use clock::Instant;
use db::Tx;
use ids::Shop;
use records::audit_log::{self, Action};
use shop::coupons::{self, Discount, Terms};

#[derive(Subcommand)]
pub enum Verb {
    /// Add a coupon.
    Create(Create),
    /// Add all coupons of a file: a JSON array, or a CSV file with the columns code, percent or fixed, and any of currency,
    /// min_amount, product, max_uses, starts_at and ends_at.
    Import(Import),
    /// End a coupon; orders that have it keep it.
    Deactivate(Deactivate),
    /// Show all coupons of a merchant.
    List(Owner),
}

#[derive(clap::Args)]
pub struct Create {
    #[command(flatten)]
    coupon: NewCoupon,
    #[command(flatten)]
    owner: Owner,
}

/// A coupon as files and commands describe it.
#[derive(clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCoupon {
    /// What buyers type; case does not count.
    pub code: String,
    /// Percent of the order, such as 10 or 2.5.
    #[arg(long, conflicts_with = "fixed", required_unless_present = "fixed")]
    pub percent: Option<String>,
    /// A fixed discount, such as 5.00.
    #[arg(long)]
    pub fixed: Option<String>,
    /// Currency of the orders it is for.
    #[arg(long, default_value = "CNY")]
    #[serde(default = "usual_currency")]
    pub currency: String,
    /// The least an order must be worth before the discount.
    #[arg(long)]
    pub min_amount: Option<String>,
    /// Id or slug of the only product it is for.
    #[arg(long)]
    pub product: Option<String>,
    /// How often it can be used; without it there is no bound.
    #[arg(long)]
    pub max_uses: Option<u32>,
    /// When it begins, such as 2026-02-11T12:00:00Z.
    #[arg(long)]
    pub starts_at: Option<String>,
    /// When it is over.
    #[arg(long)]
    pub ends_at: Option<String>,
}

#[derive(clap::Args)]
pub struct Import {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Deactivate {
    pub code: String,
    #[command(flatten)]
    pub owner: Owner,
}

impl NewCoupon {
    /// Percent of every order, for everybody, for ever.
    pub fn percent(code: &str, percent: &str) -> NewCoupon {
        NewCoupon {
            code: code.to_owned(),
            percent: Some(percent.to_owned()),
            fixed: None,
            currency: usual_currency(),
            min_amount: None,
            product: None,
            max_uses: None,
            starts_at: None,
            ends_at: None,
        }
    }
}

impl Verb {
    pub fn act(self) -> Result<Act, CommandError> {
        match self {
            Verb::Create(create) => Ok(Act::PutCoupons(create.owner, vec![create.coupon])),
            Verb::Import(import) => Ok(Act::PutCoupons(import.owner, import.source.records("coupons", of_record)?)),
            Verb::Deactivate(deactivate) => Ok(Act::DeactivateCoupon(deactivate)),
            Verb::List(owner) => Ok(Act::ListCoupons(owner)),
        }
    }
}

fn of_record(mut record: Record) -> Result<NewCoupon, CommandError> {
    let coupon = NewCoupon {
        code: record.need("code")?,
        percent: record.take("percent"),
        fixed: record.take("fixed"),
        currency: record.take("currency").unwrap_or_else(usual_currency),
        min_amount: record.take("min_amount"),
        product: record.take("product"),
        max_uses: record.number("max_uses")?,
        starts_at: record.take("starts_at"),
        ends_at: record.take("ends_at"),
    };
    match record.fields.iter().find(|(_, text)| !text.is_empty()) {
        Some((column, _)) => Err(CommandError::failed(format!("{}: there is no column `{column}`", record.name))),
        None => Ok(coupon),
    }
}

fn usual_currency() -> String {
    "CNY".into()
}

/// All of them, or none.
pub async fn put(context: &Context, owner: Owner, coupons: Vec<NewCoupon>) -> Result<String, String> {
    let (now, actor, count) = (context.clock.now(), context.actor.clone(), coupons.len());
    context
        .db
        .write("create_coupons", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &owner).await?;
                for coupon in coupons {
                    let code = coupon.code.clone();
                    let refused = |e: Refused| Refused::Rejected(format!("coupon `{code}`: {e}"));
                    let new = coupons::NewCoupon {
                        code: code.clone(),
                        terms: terms(tx, shop, &coupon).await.map_err(refused)?,
                        max_uses: coupon.max_uses,
                    };
                    coupons::create(tx, now, shop, new).await.map_err(|e| refused(Refused::because(e)))?;
                    audit_log::record(tx, now, &actor, Action::CouponCreate, &code, "").await?;
                }
                Ok::<_, Refused>(())
            })
        })
        .await?;
    Ok(format!("{count} coupons were created."))
}

async fn terms(tx: &mut Tx, shop: Shop, coupon: &NewCoupon) -> Result<Terms, Refused> {
    let value = match (&coupon.percent, &coupon.fixed) {
        // Hundredths of a percent are basis points.
        (Some(percent), None) => Discount::Percent(minor_units(percent).map_err(Refused::Rejected)?),
        (None, Some(fixed)) => Discount::Fixed(minor_units(fixed).map_err(Refused::Rejected)?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Refused::Rejected("it has either `percent` or `fixed`".into()));
        }
    };
    let product = match &coupon.product {
        Some(product) => Some(products::find(tx, shop, product).await?.id),
        None => None,
    };
    let min_amount = coupon.min_amount.as_deref().map_or(Ok(0), minor_units).map_err(Refused::Rejected)?;
    Ok(Terms {
        value,
        currency: currency(&coupon.currency).map_err(Refused::Rejected)?,
        min_amount,
        product,
        starts_at: coupon.starts_at.as_deref().map(instant).transpose()?,
        ends_at: coupon.ends_at.as_deref().map(instant).transpose()?,
    })
}

fn instant(text: &str) -> Result<Instant, Refused> {
    let parsed = text.parse::<jiff::Timestamp>();
    let refused = |_| Refused::Rejected(format!("`{text}` is no time such as 2026-02-11T12:00:00Z"));
    parsed.map(|at| Instant(at.as_millisecond())).map_err(refused)
}

pub async fn deactivate(context: &Context, deactivate: Deactivate) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let said = format!("Coupon `{}` is over.", deactivate.code);
    context
        .db
        .write("deactivate_coupon", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &deactivate.owner).await?;
                let coupon = coupons::find(tx, shop, &deactivate.code).await?;
                let missing = || Refused::Rejected(format!("there is no coupon `{}`", deactivate.code));
                coupons::deactivate(tx, coupon.ok_or_else(missing)?.id).await?;
                Ok::<_, Refused>(
                    audit_log::record(tx, now, &actor, Action::CouponDeactivate, &deactivate.code, "").await?,
                )
            })
        })
        .await?;
    Ok(said)
}

pub async fn list(context: &Context, owner: Owner) -> Result<String, String> {
    let all = context
        .db
        .read("list_coupons", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &owner).await?;
                Ok::<_, Refused>(coupons::list(tx, shop).await?)
            })
        })
        .await?;
    let line = |(code, coupon): &(String, coupons::Coupon)| {
        let worth = match coupon.terms.value {
            Discount::Percent(points) => {
                format!("{} %", money::pricing::Fiat::new(coupon.terms.currency, points).to_decimal())
            }
            Discount::Fixed(minor) => money::pricing::Fiat::new(coupon.terms.currency, minor).to_decimal().to_string(),
        };
        let bound = coupon.max_uses.map_or_else(|| "no bound".into(), |max| format!("of {max}"));
        format!("{code}\t{worth} {}\tused {}, {bound}", coupon.terms.currency, coupon.uses)
    };
    let lines: Vec<String> = all.iter().map(line).collect();
    Ok(if lines.is_empty() { "There is no coupon yet.".into() } else { lines.join("\n") })
}
