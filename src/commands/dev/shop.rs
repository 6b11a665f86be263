//! The demo's shop: three products with generated goods, a buyer with a balance, a coupon. It is made by the same acts that
//! an operator has, and what sold out is filled up at the next start.

use std::collections::BTreeMap;
use std::path::Path;

use crate::commands::admin::coupons::NewCoupon;
use crate::commands::admin::products::NewProduct;
use crate::commands::admin::{self, Act, Owner};
use crate::commands::context::Context;
use crate::commands::dev::keys::write_private;
use crate::commands::exit::CommandError;
use ids::{Mode, Shop};
use shop::{catalog, merchants};

pub const MERCHANT: &str = "demo";
pub const USER: &str = "alice";
pub const COUPON: &str = "WELCOME10";
/// Slug of the product that the walk-through buys.
pub const FIRST: &str = "mailbox-usa-fresh";

const TOKEN: &str = "demo-user.token";
const ITEMS: usize = 300;

struct Sample {
    slug: &'static str,
    zh: &'static str,
    en: &'static str,
    price: &'static str,
    min_quantity: u32,
    /// How its goods begin.
    line: &'static str,
}

const SAMPLES: [Sample; 3] = [
    Sample {
        slug: FIRST,
        zh: "企业/教育邮箱",
        en: "Business / Education Mailbox",
        price: "0.50",
        min_quantity: 1,
        line: "box",
    },
    Sample {
        slug: "vpn-one-month",
        zh: "VPN 一个月",
        en: "VPN, One Month",
        price: "19.90",
        min_quantity: 1,
        line: "vpn",
    },
    Sample { slug: "game-key", zh: "游戏激活码", en: "Game Key", price: "128.00", min_quantity: 1, line: "key" },
];

/// Makes what is missing and returns a token of the demo's user.
pub async fn open(context: &Context, folder: &Path) -> Result<String, CommandError> {
    let known =
        context.db.read("find_demo", |tx| Box::pin(async move { merchants::find_by_slug(tx, MERCHANT).await })).await?;
    if known.is_none() {
        let name = Some("Demo Shop".to_owned());
        act(context, Act::CreateMerchant(admin::merchants::Create { slug: MERCHANT.into(), name })).await?;
    }
    fill_up(context).await?;
    let token = folder.join(TOKEN);
    if let Ok(token) = std::fs::read_to_string(&token) {
        return Ok(token.trim().to_owned());
    }
    let issued = greet(context).await?;
    write_private(&token, &issued)?;
    Ok(issued)
}

/// The first start was cut short when some of this is there already; what was refused as known is as good as done.
async fn greet(context: &Context) -> Result<String, CommandError> {
    let user = admin::users::Create { name: USER.into(), email: None, owner: owner() };
    let mut refused = Vec::new();
    refused.extend(admin::execute(context, Act::CreateUser(user)).await.err());
    for (amount, currency) in [("1000.00", "CNY"), ("500.00", "USD")] {
        let (user, amount, reference) = (USER.to_owned(), amount.to_owned(), format!("welcome {currency}"));
        let credit = admin::users::Credit { user, amount, currency: currency.into(), reference, owner: owner() };
        refused.extend(admin::execute(context, Act::Credit(credit)).await.err());
    }
    let coupon = NewCoupon::percent(COUPON, "10");
    refused.extend(admin::execute(context, Act::PutCoupons(owner(), vec![coupon])).await.err());
    for refusal in refused {
        tracing::debug!("the demo's shop has it already: {refusal}");
    }
    act(context, Act::IssueToken(admin::users::Issue { user: USER.into(), days: None, owner: owner() })).await
}

async fn fill_up(context: &Context) -> Result<(), CommandError> {
    let products = context
        .db
        .read("list_demo_products", |tx| {
            Box::pin(async move {
                let Some(merchant) = merchants::find_by_slug(tx, MERCHANT).await? else { return Ok(Vec::new()) };
                let shop = Shop { merchant: merchant.id, mode: Mode::Test };
                catalog::list_with_prices(tx, shop).await
            })
        })
        .await?;
    for sample in &SAMPLES {
        let known = products.iter().find(|product| product.slug == sample.slug);
        if known.is_none() {
            act(context, Act::PutProducts(owner(), vec![product(sample)])).await?;
        }
        if known.is_none_or(|product| product.stock == 0) {
            let lines = (0..ITEMS).map(|_| goods(sample)).collect();
            let import = admin::stock::Import { owner: owner(), product: sample.slug.into(), lines };
            act(context, Act::ImportStock(import)).await?;
        }
    }
    Ok(())
}

fn product(sample: &Sample) -> NewProduct {
    let names = [("zh", sample.zh), ("en", sample.en)];
    NewProduct {
        slug: sample.slug.into(),
        price: sample.price.into(),
        currency: "CNY".into(),
        min_quantity: Some(sample.min_quantity),
        max_quantity: None,
        names: names.into_iter().map(|(language, text)| (language.to_owned(), text.to_owned())).collect(),
        descriptions: BTreeMap::new(),
    }
}

fn goods(sample: &Sample) -> String {
    let [name, secret]: [u64; 2] = [rand::random(), rand::random()];
    format!("{}-{:08x}@demo.example----{secret:016x}", sample.line, name >> 32)
}

fn owner() -> Owner {
    Owner { merchant: MERCHANT.into(), mode: Mode::Test }
}

async fn act(context: &Context, act: Act) -> Result<String, CommandError> {
    admin::execute(context, act).await.map_err(|e| CommandError::with_context("the demo's shop", e))
}
