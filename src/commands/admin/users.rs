//! Users, their tokens and their credit.

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use chain::Amount;

use crate::commands::admin::{Act, Owner, Refused, shop_of};
use crate::commands::context::Context;
use access::tokens::{self, Token};
use db::{self, Tx};
use ids::Shop;
use money::ledger::PostError;
use money::pricing::Currency;
use records::audit_log::{self, Action};
use shop::users::{self, State, User};

const DAY_MS: i64 = 86_400_000;

#[derive(Subcommand)]
pub enum Verb {
    /// Add a user.
    Create(Create),
    /// Disable a user, whose tokens then open nothing, or enable one again.
    Set(Set),
    /// Show all users of a merchant with their balances.
    List(Owner),
}

#[derive(Subcommand)]
pub enum TokenVerb {
    /// Make a token and show it, once.
    Issue(Issue),
    /// End every token of a user.
    Revoke(Revoke),
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Create {
    /// A name of its own at this merchant.
    pub name: String,
    #[arg(long)]
    pub email: Option<String>,
    #[command(flatten)]
    pub owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Set {
    pub name: String,
    #[arg(long, conflicts_with = "enable", required_unless_present = "enable")]
    pub disable: bool,
    #[arg(long)]
    pub enable: bool,
    #[command(flatten)]
    pub owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Issue {
    /// Name of the user.
    pub user: String,
    /// Days until it ends; without it, it holds until it is revoked.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    #[command(flatten)]
    pub owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Revoke {
    /// Name of the user.
    pub user: String,
    #[command(flatten)]
    pub owner: Owner,
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Credit {
    /// Name of the user.
    pub user: String,
    /// How much, such as 100.00.
    #[arg(long)]
    pub amount: String,
    /// CNY (two decimal places), or USD (six): the balance that crypto payments are taken from.
    #[arg(long, value_name = "CNY|USD")]
    pub currency: String,
    /// A name for this credit, such as the number of an invoice: the same one never gives twice.
    #[arg(long)]
    pub reference: String,
    #[command(flatten)]
    pub owner: Owner,
}

impl Verb {
    pub fn act(self) -> Act {
        match self {
            Verb::Create(create) => Act::CreateUser(create),
            Verb::Set(set) => Act::SetUser(set),
            Verb::List(owner) => Act::ListUsers(owner),
        }
    }
}

impl TokenVerb {
    pub fn act(self) -> Act {
        match self {
            TokenVerb::Issue(issue) => Act::IssueToken(issue),
            TokenVerb::Revoke(revoke) => Act::RevokeTokens(revoke),
        }
    }
}

pub async fn create(context: &Context, new: Create) -> Result<String, String> {
    if new.email.as_ref().is_some_and(|email| email.parse::<email_address::EmailAddress>().is_err()) {
        return Err("the e-mail address is none".into());
    }
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let name = new.name.clone();
    context
        .db
        .write("create_user", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &new.owner).await?;
                let user = users::NewUser { public_id: Uuid::new_v4(), name: new.name.clone(), email: new.email };
                users::create(tx, now, shop, user).await.map_err(Refused::because)?;
                Ok::<_, Refused>(audit_log::record(tx, now, &actor, Action::UserCreate, &new.name, "").await?)
            })
        })
        .await?;
    Ok(format!("User `{name}` was created. A token for it: `settled admin token issue {name}`."))
}

pub async fn set(context: &Context, set: Set) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let state = if set.disable { State::Disabled } else { State::Active };
    let said = format!("User `{}` is {}.", set.name, state.as_str());
    context
        .db
        .write("set_user", move |tx| {
            Box::pin(async move {
                let (_, user) = find(tx, &set.owner, &set.name).await?;
                users::set_state(tx, user.id, state).await?;
                Ok::<_, Refused>(
                    audit_log::record(tx, now, &actor, Action::UserSetState, &set.name, state.as_str()).await?,
                )
            })
        })
        .await?;
    Ok(said)
}

pub async fn list(context: &Context, owner: Owner) -> Result<String, String> {
    let lines = context
        .db
        .read("list_users", move |tx| {
            Box::pin(async move {
                let shop = shop_of(tx, &owner).await?;
                let mut lines = Vec::new();
                for user in users::list(tx, shop).await? {
                    let (cny, usd) = (
                        balance(tx, shop, &user, Currency::CNY).await?,
                        balance(tx, shop, &user, Currency::USD).await?,
                    );
                    lines.push(format!("{}\t{}\t{cny} CNY\t{usd} USD", user.name, user.state.as_str()));
                }
                Ok::<_, Refused>(lines)
            })
        })
        .await?;
    Ok(if lines.is_empty() { "There is no user yet.".into() } else { lines.join("\n") })
}

pub async fn issue(context: &Context, issue: Issue) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let expires_at = issue.days.map(|days| now.plus_ms(i64::from(days).saturating_mul(DAY_MS)));
    let token = Token::draw(&mut rand::rng());
    let shown = token.reveal().to_owned();
    context
        .db
        .write("issue_token", move |tx| {
            Box::pin(async move {
                let (_, user) = find(tx, &issue.owner, &issue.user).await?;
                tokens::issue(tx, now, user.id, &token, expires_at).await?;
                Ok::<_, Refused>(audit_log::record(tx, now, &actor, Action::TokenIssue, &issue.user, "").await?)
            })
        })
        .await?;
    Ok(shown)
}

pub async fn revoke(context: &Context, revoke: Revoke) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let user = revoke.user.clone();
    let ended = context
        .db
        .write("revoke_tokens", move |tx| {
            Box::pin(async move {
                let (_, user) = find(tx, &revoke.owner, &revoke.user).await?;
                let ended = tokens::revoke_all(tx, now, user.id).await?;
                audit_log::record(tx, now, &actor, Action::TokenRevoke, &revoke.user, &ended.to_string()).await?;
                Ok::<_, Refused>(ended)
            })
        })
        .await?;
    Ok(format!("{ended} tokens of `{user}` were ended."))
}

pub async fn credit(context: &Context, credit: Credit) -> Result<String, String> {
    let (currency, decimals) = balance_currency(&credit.currency)?;
    let amount = Amount::parse_decimal(&credit.amount, decimals).map_err(|e| e.to_string())?;
    if credit.reference.is_empty() || credit.reference.len() > 100 {
        return Err("a reference has 1 to 100 characters".into());
    }
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let said = format!("`{}` has {} {currency} more", credit.user, credit.amount);
    let balance = context
        .db
        .write("credit_user", move |tx| {
            Box::pin(async move {
                let (shop, user) = find(tx, &credit.owner, &credit.user).await?;
                let entry = format!("user/{}/credit/{}", user.id, credit.reference);
                let asset = users::balance_asset(currency);
                users::credit(tx, now, shop, user.id, asset, amount, &entry)
                    .await
                    .map_err(|e| given(&credit.reference, &e))?;
                let detail = format!("{} {currency}, reference {}", credit.amount, credit.reference);
                audit_log::record(tx, now, &actor, Action::UserCredit, &credit.user, &detail).await?;
                balance(tx, shop, &user, currency).await
            })
        })
        .await?;
    Ok(format!("{said}; the balance is {balance} {currency}."))
}

/// The usual mistake has a sentence of its own.
fn given(reference: &str, error: &PostError) -> Refused {
    if let PostError::Db(db::Error::Constraint { kind: db::Constraint::Unique, .. }) = error {
        return Refused::Rejected(format!("this user was given credit under the reference `{reference}` before"));
    }
    Refused::because(error)
}

fn balance_currency(code: &str) -> Result<(Currency, u8), String> {
    match code {
        "CNY" => Ok((Currency::CNY, users::CNY_DECIMALS)),
        "USD" => Ok((Currency::USD, users::USD_DECIMALS)),
        _ => Err(format!("balances are in CNY or USD, not in {code}")),
    }
}

async fn balance(tx: &mut Tx, shop: Shop, user: &User, currency: Currency) -> Result<String, Refused> {
    let decimals = if currency == Currency::CNY { users::CNY_DECIMALS } else { users::USD_DECIMALS };
    let available = users::available_balance(tx, shop, user.id, &users::balance_asset(currency)).await?;
    Ok(available.to_decimal(decimals))
}

async fn find(tx: &mut Tx, owner: &Owner, name: &str) -> Result<(Shop, User), Refused> {
    let shop = shop_of(tx, owner).await?;
    let user = users::find_by_name(tx, shop, name).await?;
    let missing = || {
        Refused::Rejected(format!("merchant `{}` has no user `{name}` in {} mode", owner.merchant, owner.mode.as_str()))
    };
    Ok((shop, user.ok_or_else(missing)?))
}
