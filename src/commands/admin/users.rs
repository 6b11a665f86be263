//! The commands `settled admin user …`, `settled admin token …` and `settled admin credit`.

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use chain::Amount;

use crate::commands::admin::merchants::require_shop;
use crate::commands::admin::owner::{Owner, ShopName};
use crate::commands::admin::parse::parse_currency;
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;
use access::tokens::Token;
use db::Tx;
use ids::Shop;
use money::pricing::Currency;
use shop::orders;
use shop::users::{self, State, User};

const DAY_MS: i64 = 86_400_000;

/// The subcommands of `settled admin user`.
#[derive(Subcommand)]
pub enum Command {
    /// Add a user.
    Create(Create),
    /// Disable a user, whose tokens are then refused, or enable the user again.
    Set(Set),
    /// List all users of a merchant with their balances.
    List(Owner),
}

/// The subcommands of `settled admin token`.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Issue a token. It is shown once and cannot be shown again.
    Issue(Issue),
    /// Revoke all tokens of a user.
    Revoke(Revoke),
}

/// The data of the user to create.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Create {
    /// Name of the user, unique at this merchant.
    pub name: String,
    /// E-mail address of the user.
    #[arg(long)]
    pub email: Option<String>,
    #[command(flatten)]
    pub owner: Owner,
}

/// Selects a user and the new state.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Set {
    /// Name of the user.
    pub name: String,
    /// Disable the user; the tokens of the user are then refused.
    #[arg(long, conflicts_with = "enable", required_unless_present = "enable")]
    pub disable: bool,
    /// Enable the user again.
    #[arg(long)]
    pub enable: bool,
    #[command(flatten)]
    pub owner: Owner,
}

/// Selects the user who gets the token, and its lifetime.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Issue {
    /// Name of the user.
    pub user: String,
    /// Number of days until the token expires; by default it is valid until it is revoked.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    #[command(flatten)]
    pub owner: Owner,
}

/// Selects the user whose tokens are revoked.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct Revoke {
    /// Name of the user.
    pub user: String,
    #[command(flatten)]
    pub owner: Owner,
}

/// The amount to credit, and the user who gets it.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct CreditUser {
    /// Name of the user.
    pub user: String,
    /// Amount to add to the balance, such as 100.00.
    #[arg(long)]
    pub amount: String,
    /// Currency of the balance: CNY (two decimal places) or USD (six decimal places).
    #[arg(long, value_name = "CNY|USD")]
    pub currency: String,
    /// Your own name for this credit, such as the number of an invoice. A user can be credited only once with the same
    /// reference.
    #[arg(long)]
    pub reference: String,
    #[command(flatten)]
    pub owner: Owner,
}

impl Command {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::Create(create) => AdminOperation::CreateUser(create),
            Command::Set(set) => AdminOperation::SetUser(set),
            Command::List(owner) => AdminOperation::ListUsers(owner),
        }
    }
}

impl TokenCommand {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            TokenCommand::Issue(issue) => AdminOperation::IssueToken(issue),
            TokenCommand::Revoke(revoke) => AdminOperation::RevokeTokens(revoke),
        }
    }
}

/// Creates a user. Fails when the e-mail address is invalid or the name is taken.
pub async fn create_user(context: &Context, new: Create) -> Result<String, String> {
    let shop_name = new.owner.resolve_with_checkout_defaults(&context.config);
    let hint = shop_name.clone();
    if new.email.as_deref().is_some_and(|email| !orders::is_deliverable_email(email)) {
        return Err("the e-mail address is not valid".into());
    }
    let (now, actor, name) = (context.clock.now(), context.actor.clone(), new.name.clone());
    context
        .db
        .write("create_user", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                let user = users::NewUser { public_id: Uuid::new_v4(), name: new.name, email: new.email };
                users::create_user(tx, now, &actor, shop, user).await.map_err(AdminError::from_refusal)
            })
        })
        .await?;
    Ok(format!(
        "User `{name}` was created. A token for it: {}.",
        hint.format_hint(&format!("admin token issue {name}"))
    ))
}

/// Disables or enables a user.
pub async fn disable_or_enable_user(context: &Context, set: Set) -> Result<String, String> {
    let shop_name = set.owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let state = if set.disable { State::Disabled } else { State::Active };
    let message = format!("User `{}` is {}.", set.name, state.as_str());
    context
        .db
        .write("set_user_state", move |tx| {
            Box::pin(async move {
                let (_, user) = require_shop_and_user(tx, &shop_name, &set.name).await?;
                Ok::<_, AdminError>(users::set_user_state(tx, now, &actor, &user, state).await?)
            })
        })
        .await?;
    Ok(message)
}

/// Returns one line for each user of the merchant, with the balances of the user.
pub async fn list_users_with_balances(context: &Context, owner: Owner) -> Result<String, String> {
    let shop_name = owner.resolve_with_checkout_defaults(&context.config);
    let lines = context
        .db
        .read("list_users", move |tx| {
            Box::pin(async move {
                let shop = require_shop(tx, &shop_name).await?;
                let mut lines = Vec::new();
                for user in users::list_users(tx, shop).await? {
                    let mut line = format!("{}\t{}", user.name, user.state.as_str());
                    for currency in [Currency::CNY, Currency::USD] {
                        let asset = users::to_balance_asset(currency);
                        let balance = users::load_available_balance(tx, shop, user.id, &asset).await?;
                        line += &format!("\t{}", format_balance(balance, currency));
                    }
                    lines.push(line);
                }
                Ok::<_, AdminError>(lines)
            })
        })
        .await?;
    Ok(if lines.is_empty() { "There is no user yet.".into() } else { lines.join("\n") })
}

/// Issues an access token and returns its text, which cannot be shown again.
pub async fn issue_access_token(context: &Context, issue: Issue) -> Result<String, String> {
    let shop_name = issue.owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let expires_at = issue.days.map(|days| now.plus_ms(i64::from(days).saturating_mul(DAY_MS)));
    let token = Token::generate(&mut rand::rng());
    let revealed = token.reveal_token().to_owned();
    context
        .db
        .write("issue_user_token", move |tx| {
            Box::pin(async move {
                let (_, user) = require_shop_and_user(tx, &shop_name, &issue.user).await?;
                Ok::<_, AdminError>(users::issue_user_token(tx, now, &actor, &user, &token, expires_at).await?)
            })
        })
        .await?;
    Ok(revealed)
}

/// Revokes all tokens of a user.
pub async fn revoke_all_tokens(context: &Context, revoke: Revoke) -> Result<String, String> {
    let shop_name = revoke.owner.resolve_with_checkout_defaults(&context.config);
    let (now, actor, name) = (context.clock.now(), context.actor.clone(), revoke.user.clone());
    let count = context
        .db
        .write("revoke_user_tokens", move |tx| {
            Box::pin(async move {
                let (_, user) = require_shop_and_user(tx, &shop_name, &revoke.user).await?;
                Ok::<_, AdminError>(users::revoke_all_user_tokens(tx, now, &actor, &user).await?)
            })
        })
        .await?;
    Ok(format!("{count} tokens of `{name}` were revoked."))
}

/// Credits a user's balance and returns a message with the new balance.
pub async fn credit_user(context: &Context, credit: CreditUser) -> Result<String, String> {
    let shop_name = credit.owner.resolve_with_checkout_defaults(&context.config);
    let currency = parse_currency(&credit.currency)?;
    let decimals = users::find_balance_decimals(currency)
        .ok_or_else(|| format!("balances are in CNY or USD, not in {}", credit.currency))?;
    let amount = Amount::parse_decimal(&credit.amount, decimals).map_err(|e| e.to_string())?;
    let message = format!("`{}` was credited {} {currency}", credit.user, credit.amount);
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let balance = context
        .db
        .write("credit_user_balance", move |tx| {
            Box::pin(async move {
                let (shop, user) = require_shop_and_user(tx, &shop_name, &credit.user).await?;
                let credit = users::Credit { currency, amount, reference: credit.reference };
                users::credit_user_balance(tx, now, &actor, shop, &user, credit).await.map_err(AdminError::from_refusal)
            })
        })
        .await?;
    Ok(format!("{message}; the balance is {}.", format_balance(balance, currency)))
}

/// Formats a balance, such as `1000 CNY`.
fn format_balance(balance: Amount, currency: Currency) -> String {
    let decimals = users::find_balance_decimals(currency).unwrap_or_default();
    format!("{} {currency}", balance.to_decimal(decimals))
}

/// Returns the user with this name, and the shop of the merchant. Fails when either does not exist.
async fn require_shop_and_user(tx: &mut Tx, shop_name: &ShopName, name: &str) -> Result<(Shop, User), AdminError> {
    let shop = require_shop(tx, shop_name).await?;
    let user = users::find_user_by_name(tx, shop, name).await?;
    let missing = || {
        let ShopName { merchant, mode, .. } = shop_name;
        AdminError::Refused(format!("merchant `{merchant}` has no user `{name}` in {} mode", mode.as_str()))
    };
    Ok((shop, user.ok_or_else(missing)?))
}
