//! The demo's shop: three products with generated items, a user with a balance, and a coupon. The demo creates them
//! with the operations of `settled admin`. Each start of the demo restocks products that are sold out.

use std::collections::BTreeMap;
use std::path::Path;

use crate::commands::admin::coupons::CouponInput;
use crate::commands::admin::owner::Owner;
use crate::commands::admin::products::ProductInput;
use crate::commands::admin::{self, AdminOperation};
use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::private_files::write_private_file;
use ids::{Mode, Shop};
use shop::{catalog, merchants};

/// The slug of the demo's merchant.
pub const MERCHANT: &str = "demo";
/// The name of the demo's user.
pub const USER: &str = "alice";
/// The code of the demo's coupon.
pub const COUPON: &str = "WELCOME10";
/// The slug of the product that the printed walk-through uses for its first order.
pub const FIRST: &str = "mailbox-usa-fresh";

const TOKEN: &str = "demo-user.token";
const ITEMS: usize = 300;

/// A product that the demo creates in its shop.
struct Sample {
    slug: &'static str,
    zh: &'static str,
    en: &'static str,
    price: &'static str,
    min_quantity: u32,
    /// The beginning of each generated item.
    item_prefix: &'static str,
}

const SAMPLES: [Sample; 3] = [
    Sample {
        slug: FIRST,
        zh: "企业/教育邮箱",
        en: "Business / Education Mailbox",
        price: "0.50",
        min_quantity: 1,
        item_prefix: "box",
    },
    Sample {
        slug: "vpn-one-month",
        zh: "VPN 一个月",
        en: "VPN, One Month",
        price: "19.90",
        min_quantity: 1,
        item_prefix: "vpn",
    },
    Sample {
        slug: "game-key", zh: "游戏激活码", en: "Game Key", price: "128.00", min_quantity: 1, item_prefix: "key"
    },
];

/// Creates the missing parts of the demo's shop, restocks sold-out products, and returns an access token of the demo's
/// user: the token stored in `folder` or, at the first start, a new one.
pub async fn create_missing_shop_and_load_token(context: &Context, folder: &Path) -> Result<String, CommandError> {
    let merchant = context
        .db
        .read("find_merchant_by_slug", |tx| {
            Box::pin(async move { merchants::find_merchant_by_slug(tx, MERCHANT).await })
        })
        .await?;
    if merchant.is_none() {
        let name = Some("Demo Shop".to_owned());
        execute_shop_operation(
            context,
            AdminOperation::CreateMerchant(admin::merchants::Create { slug: MERCHANT.into(), name }),
        )
        .await?;
    }
    create_and_restock_sold_out_products(context).await?;
    let token = folder.join(TOKEN);
    if let Ok(token) = std::fs::read_to_string(&token) {
        return Ok(token.trim().to_owned());
    }
    let issued = create_demo_user_and_issue_token(context).await?;
    write_private_file(&token, &issued)?;
    Ok(issued)
}

/// Creates the demo's user with its balances, the coupon and an access token, and returns the token. All errors except
/// those about the token are only logged, because after an interrupted start the user, a balance or the coupon may
/// exist already.
async fn create_demo_user_and_issue_token(context: &Context) -> Result<String, CommandError> {
    let user = admin::users::Create { name: USER.into(), email: None, owner: new_demo_owner() };
    let mut refusals = Vec::new();
    refusals.extend(admin::execute_admin_operation(context, AdminOperation::CreateUser(user)).await.err());
    for (amount, currency) in [("1000.00", "CNY"), ("500.00", "USD")] {
        let (user, amount, reference) = (USER.to_owned(), amount.to_owned(), format!("welcome {currency}"));
        let credit =
            admin::users::CreditUser { user, amount, currency: currency.into(), reference, owner: new_demo_owner() };
        refusals.extend(admin::execute_admin_operation(context, AdminOperation::Credit(credit)).await.err());
    }
    let coupon = CouponInput::from_code_and_percent(COUPON, "10");
    refusals.extend(
        admin::execute_admin_operation(context, AdminOperation::PutCoupons(new_demo_owner(), vec![coupon])).await.err(),
    );
    for refusal in refusals {
        tracing::debug!("part of the demo's shop already exists: {refusal}");
    }
    execute_shop_operation(
        context,
        AdminOperation::IssueToken(admin::users::Issue { user: USER.into(), days: None, owner: new_demo_owner() }),
    )
    .await
}

/// Creates the missing products of the demo, and adds 300 random items to each product that is new or sold out.
async fn create_and_restock_sold_out_products(context: &Context) -> Result<(), CommandError> {
    let products = context
        .db
        .read("list_demo_products", |tx| {
            Box::pin(async move {
                let Some(merchant) = merchants::find_merchant_by_slug(tx, MERCHANT).await? else {
                    return Ok(Vec::new());
                };
                let shop = Shop { merchant: merchant.id, mode: Mode::Test };
                catalog::list_all_products(tx, shop).await
            })
        })
        .await?;
    for sample in &SAMPLES {
        let stored = products.iter().find(|product| product.slug == sample.slug);
        if stored.is_none() {
            execute_shop_operation(
                context,
                AdminOperation::PutProducts(new_demo_owner(), vec![to_new_product(sample)]),
            )
            .await?;
        }
        if stored.is_none_or(|product| product.stock == 0) {
            let lines = (0..ITEMS).map(|_| generate_item(sample)).collect();
            admin::stock_import::import_lines_in_one_transaction(context, new_demo_owner(), sample.slug.into(), lines)
                .await
                .map_err(|e| CommandError::error_with_context("the demo's shop", e))?;
        }
    }
    Ok(())
}

fn to_new_product(sample: &Sample) -> ProductInput {
    let names = [("zh", sample.zh), ("en", sample.en)];
    ProductInput {
        slug: sample.slug.into(),
        price: sample.price.into(),
        currency: "CNY".into(),
        min_quantity: Some(sample.min_quantity),
        max_quantity: None,
        names: names.into_iter().map(|(language, text)| (language.to_owned(), text.to_owned())).collect(),
        descriptions: BTreeMap::new(),
        free: false,
    }
}

/// Returns a random item for the stock of a product.
fn generate_item(sample: &Sample) -> String {
    let [name, secret]: [u64; 2] = [rand::random(), rand::random()];
    format!("{}-{:08x}@demo.example----{secret:016x}", sample.item_prefix, name >> 32)
}

fn new_demo_owner() -> Owner {
    Owner { merchant: Some(MERCHANT.into()), mode: Some(Mode::Test) }
}

async fn execute_shop_operation(context: &Context, operation: AdminOperation) -> Result<String, CommandError> {
    admin::execute_admin_operation(context, operation)
        .await
        .map_err(|e| CommandError::error_with_context("the demo's shop", e))
}
