//! Users: registered buyers with balances from which they pay. A user belongs to one shop in one mode.

mod store;

#[cfg(test)]
mod tests;

use chain::{Amount, AssetId};
use uuid::Uuid;

use access::tokens::{self, Token};
use clock::Instant;
use db::{self, Tx};
use ids::{Shop, UserId};
use money::ledger::{self, Account, EntryLine, JournalEntry, PostError};
use money::pricing::Currency;
use records::audit_log::{self, Action, Actor};

/// Decimal places of a CNY balance; as many as a CNY price has.
pub const CNY_DECIMALS: u8 = 2;
/// Decimal places of a USD balance, which is topped up with crypto assets.
pub const USD_DECIMALS: u8 = 6;

const NAME_LENGTH_MAX: usize = 200;
const REFERENCE_LENGTH_MAX: usize = 100;

/// The state of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active,
    /// The user's tokens are refused.
    Disabled,
}

db::text_enum!(State { Active => "active", Disabled => "disabled" });

/// A user to be created.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub public_id: Uuid,
    /// Unique within the shop.
    pub name: String,
    pub email: Option<String>,
}

/// A stored user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub public_id: String,
    pub name: String,
    pub state: State,
    pub created_at: Instant,
}

/// Credit that an operator gives to a user.
#[derive(Debug, Clone)]
pub struct Credit {
    /// CNY or USD.
    pub currency: Currency,
    /// Base units of the balance; see [`balance_decimals`].
    pub amount: Amount,
    /// The operator's name for this credit. A reference is accepted once for each user.
    pub reference: String,
}

/// The reason why a user was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a name has 1 to {NAME_LENGTH_MAX} characters")]
    BadName,
    #[error("another user has this name")]
    NameTaken,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// The reason why a credit was not booked.
#[derive(Debug, thiserror::Error)]
pub enum CreditError {
    #[error("balances are in CNY or USD, not in {0}")]
    BadCurrency(Currency),
    #[error("a reference has 1 to {REFERENCE_LENGTH_MAX} characters")]
    BadReference,
    #[error("this user already received credit under the reference `{0}`")]
    ReferenceUsed(String),
    #[error(transparent)]
    Post(PostError),
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Returns the asset of a balance in a currency.
pub fn balance_asset(currency: Currency) -> AssetId {
    AssetId::fiat(currency.as_str())
}

/// Returns the decimal places of a balance in a currency; `None` when users have no balance in it.
pub fn balance_decimals(currency: Currency) -> Option<u8> {
    match currency {
        Currency::CNY => Some(CNY_DECIMALS),
        Currency::USD => Some(USD_DECIMALS),
        _ => None,
    }
}

/// Creates a user and records the action in the audit log.
pub async fn create(tx: &mut Tx, now: Instant, actor: &Actor, shop: Shop, new: NewUser) -> Result<UserId, CreateError> {
    if !(1..=NAME_LENGTH_MAX).contains(&new.name.chars().count()) {
        return Err(CreateError::BadName);
    }
    let user = store::insert_user(tx, now, shop, &new).await?.ok_or(CreateError::NameTaken)?;
    if let Some(email) = &new.email {
        store::insert_contact(tx, user, email).await?;
    }
    audit_log::record(tx, now, actor, Action::UserCreate, &new.name, "").await?;
    Ok(user)
}

/// Returns the user with this name; `None` when the shop has none.
pub async fn find_by_name(tx: &mut Tx, shop: Shop, name: &str) -> Result<Option<User>, db::Error> {
    store::find_by_name(tx, shop, name).await
}

/// Returns the users of a shop, by name.
pub async fn list(tx: &mut Tx, shop: Shop) -> Result<Vec<User>, db::Error> {
    store::list(tx, shop).await
}

/// Disables or enables a user and records the action in the audit log. The balance of a disabled user stays.
pub async fn set_state(tx: &mut Tx, now: Instant, actor: &Actor, user: &User, state: State) -> Result<(), db::Error> {
    store::set_state(tx, user.id, state).await?;
    audit_log::record(tx, now, actor, Action::UserSetState, &user.name, state.as_str()).await
}

/// Returns the amount that the user can spend, in base units of `asset`.
pub async fn available_balance(tx: &mut Tx, shop: Shop, user: UserId, asset: &AssetId) -> Result<Amount, db::Error> {
    Ok(ledger::balance(tx, shop.mode, &Account::User(user), asset).await?.available())
}

/// Credits the user's balance from the operator's equity, records the action in the audit log, and returns the new balance.
pub async fn credit(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    user: &User,
    credit: Credit,
) -> Result<Amount, CreditError> {
    let Credit { currency, amount, reference } = credit;
    let decimals = balance_decimals(currency).ok_or(CreditError::BadCurrency(currency))?;
    if !(1..=REFERENCE_LENGTH_MAX).contains(&reference.len()) {
        return Err(CreditError::BadReference);
    }
    let asset = balance_asset(currency);
    let line =
        EntryLine { debit: Account::OperatorEquity, credit: Account::User(user.id), asset: asset.clone(), amount };
    // The ledger books an entry of this name once, so that a repeated command credits nothing.
    let entry = format!("user/{}/credit/{reference}", user.id);
    let entry = JournalEntry::post(shop.mode, entry, "credit by the operator", vec![line]);
    // PostgreSQL sends the entry together with the next query, so that the query may return the error of the entry.
    let booked = match ledger::book(tx, now, &[entry]).await {
        Ok(()) => available_balance(tx, shop, user.id, &asset).await.map_err(PostError::Db),
        Err(error) => Err(error),
    };
    let balance = booked.map_err(|error| match error {
        PostError::Db(db::Error::Constraint { kind: db::Constraint::Unique, .. }) => {
            CreditError::ReferenceUsed(reference.clone())
        }
        error => CreditError::Post(error),
    })?;
    let detail = format!("{} {currency}, reference {reference}", amount.to_decimal(decimals));
    audit_log::record(tx, now, actor, Action::UserCredit, &user.name, &detail).await?;
    Ok(balance)
}

/// Issues an access token to the user and records the action in the audit log. Without `expires_at` the token is valid until
/// it is revoked.
pub async fn issue_token(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    user: &User,
    token: &Token,
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    tokens::issue(tx, now, user.id, token, expires_at).await?;
    audit_log::record(tx, now, actor, Action::TokenIssue, &user.name, "").await
}

/// Revokes all access tokens of the user, records the action in the audit log, and returns the number of revoked tokens.
pub async fn revoke_tokens(tx: &mut Tx, now: Instant, actor: &Actor, user: &User) -> Result<u64, db::Error> {
    let revoked = tokens::revoke_all(tx, now, user.id).await?;
    audit_log::record(tx, now, actor, Action::TokenRevoke, &user.name, &revoked.to_string()).await?;
    Ok(revoked)
}
