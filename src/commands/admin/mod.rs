//! `settled admin …`: what an operator creates and changes by hand. Every change is written down with who made it, in the
//! transaction that makes it.

pub mod chains;
pub mod coupons;
mod file;
pub mod merchants;
pub mod orders;
pub mod products;
pub mod reviews;
pub mod stock;
pub mod users;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use chain::Amount;

use crate::commands::context::Context;
use crate::commands::exit::CommandError;
use crate::commands::installation::Installation;
use crate::commands::operation::{self, Operation};
use crate::commands::out::print_line;
use db::{self, Tx};
use ids::{Mode, Shop};
use money::pricing::{Currency, Fiat};
use shop::merchants as shops;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    installation: Installation,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Shops whose goods are sold.
    #[command(subcommand)]
    Merchant(merchants::Verb),
    /// Buyers with a balance.
    #[command(subcommand)]
    User(users::Verb),
    /// What a user pays from a balance with.
    #[command(subcommand)]
    Token(users::TokenVerb),
    /// Give a user credit: a posting from the operator's equity.
    Credit(users::Credit),
    /// What is sold.
    #[command(subcommand)]
    Product(products::Verb),
    /// The goods: lines of text that are each delivered once.
    #[command(subcommand)]
    Stock(stock::Verb),
    /// Discounts for who knows the code.
    #[command(subcommand)]
    Coupon(coupons::Verb),
    /// What was bought, and how it is paid.
    #[command(subcommand)]
    Order(orders::Verb),
    /// What waits for a person: money or facts that no rule decides.
    #[command(subcommand)]
    Review(reviews::Verb),
    /// Chains that are followed.
    #[command(subcommand)]
    Chain(chains::Verb),
}

/// What can be asked of a daemon.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    ListMerchants,
    CreateMerchant(merchants::Create),
    CreateUser(users::Create),
    SetUser(users::Set),
    ListUsers(Owner),
    IssueToken(users::Issue),
    RevokeTokens(users::Revoke),
    Credit(users::Credit),
    PutProducts(Owner, Vec<products::NewProduct>),
    ListProducts(Owner),
    SetProduct(products::Set),
    ImportStock(stock::Import),
    ListStock(stock::List),
    WithdrawStock(stock::Withdraw),
    PutCoupons(Owner, Vec<coupons::NewCoupon>),
    ListCoupons(Owner),
    DeactivateCoupon(coupons::Deactivate),
    ShowOrder(orders::Named),
    CancelOrder(orders::Named),
    ConfirmOrder(orders::Named),
    ListReviews(reviews::List),
    CloseReview(reviews::Close),
    ResumeChain(chains::Resume),
    ListUnspent(chains::Unspent),
}

/// Whose objects are meant.
#[derive(Clone, clap::Args, Serialize, Deserialize)]
pub struct Owner {
    /// Slug of the merchant.
    #[arg(long, default_value = "shop")]
    pub merchant: String,
    /// Real money or simulated chains.
    #[arg(long, value_name = "live|test", default_value = "live", value_parser = mode)]
    pub mode: Mode,
}

pub async fn run(args: Args) -> Result<(), CommandError> {
    let acts = match args.noun {
        Noun::Merchant(verb) => vec![verb.act()],
        Noun::User(verb) => vec![verb.act()],
        Noun::Token(verb) => vec![verb.act()],
        Noun::Credit(credit) => vec![Act::Credit(credit)],
        Noun::Product(verb) => vec![verb.act()?],
        Noun::Stock(verb) => verb.acts()?,
        Noun::Coupon(verb) => vec![verb.act()?],
        Noun::Order(verb) => vec![verb.act()],
        Noun::Review(verb) => vec![verb.act()],
        Noun::Chain(verb) => vec![verb.act()],
    };
    for act in acts {
        print_line(operation::execute(&args.installation, act).await?);
    }
    Ok(())
}

impl Operation for Act {
    const NAME: &'static str = "admin";
    type Context = Context;
    type Output = String;

    async fn execute(self, context: &Context) -> Result<String, String> {
        execute(context, self).await
    }
}

/// Does one act. The answer and the error are sentences for the operator.
pub async fn execute(context: &Context, act: Act) -> Result<String, String> {
    match act {
        Act::ListMerchants => merchants::list(context).await,
        Act::CreateMerchant(new) => merchants::create(context, new).await,
        Act::CreateUser(new) => users::create(context, new).await,
        Act::SetUser(set) => users::set(context, set).await,
        Act::ListUsers(owner) => users::list(context, owner).await,
        Act::IssueToken(issue) => users::issue(context, issue).await,
        Act::RevokeTokens(revoke) => users::revoke(context, revoke).await,
        Act::Credit(credit) => users::credit(context, credit).await,
        Act::PutProducts(owner, products) => products::put(context, owner, products).await,
        Act::ListProducts(owner) => products::list(context, owner).await,
        Act::SetProduct(set) => products::set(context, set).await,
        Act::ImportStock(import) => stock::import(context, import).await,
        Act::ListStock(list) => stock::list(context, list).await,
        Act::WithdrawStock(withdraw) => stock::withdraw(context, withdraw).await,
        Act::PutCoupons(owner, coupons) => coupons::put(context, owner, coupons).await,
        Act::ListCoupons(owner) => coupons::list(context, owner).await,
        Act::DeactivateCoupon(deactivate) => coupons::deactivate(context, deactivate).await,
        Act::ShowOrder(named) => orders::show(context, named).await,
        Act::CancelOrder(named) => orders::cancel(context, named).await,
        Act::ConfirmOrder(named) => orders::confirm(context, named).await,
        Act::ListReviews(list) => reviews::list(context, list).await,
        Act::CloseReview(close) => reviews::close(context, close).await,
        Act::ResumeChain(resume) => chains::resume(context, resume).await,
        Act::ListUnspent(unspent) => chains::unspent(context, unspent).await,
    }
}

/// Why an act was not done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Rejected(String),
    #[error("database: {0}")]
    Db(#[from] db::Error),
}

impl Refused {
    fn because(cause: impl ToString) -> Refused {
        Refused::Rejected(cause.to_string())
    }
}

impl From<Refused> for String {
    fn from(refused: Refused) -> String {
        refused.to_string()
    }
}

/// The shop that is meant, when its merchant exists.
async fn shop_of(tx: &mut Tx, owner: &Owner) -> Result<Shop, Refused> {
    let merchant = shops::find_by_slug(tx, &owner.merchant).await?.ok_or_else(|| {
        let slug = &owner.merchant;
        Refused::Rejected(format!(
            "there is no merchant `{slug}`; create it with `settled admin merchant create {slug}`"
        ))
    })?;
    Ok(Shop { merchant: merchant.id, mode: owner.mode })
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "live" => Ok(Mode::Live),
        "test" => Ok(Mode::Test),
        _ => Err("it is `live` or `test`".into()),
    }
}

/// `0.50` as 50 minor units; signs, exponents and third places are refused.
fn minor_units(text: &str) -> Result<i64, String> {
    let units = Amount::parse_decimal(text, 2).map_err(|e| e.to_string())?.units();
    i64::try_from(units).map_err(|_| format!("{text} is more than anything costs"))
}

/// The other way: `0.5 CNY`.
fn fiat(price: Fiat) -> String {
    format!("{} {}", price.to_decimal(), price.currency)
}

fn currency(code: &str) -> Result<Currency, String> {
    Currency::new(code).ok_or_else(|| format!("`{code}` is not a currency such as CNY"))
}
