//! Users: registered buyers who can pay from balances. A user belongs to one shop in one mode.

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

/// The number of decimal places of a CNY balance. CNY prices have the same number of decimal places.
pub const CNY_DECIMALS: u8 = 2;
/// The number of decimal places of a USD balance, which is topped up with crypto assets.
pub const USD_DECIMALS: u8 = 6;

/// The maximum length of a user name, in characters.
const NAME_LENGTH_MAX: usize = 200;
/// The maximum length of a credit reference, in bytes.
const REFERENCE_LENGTH_MAX: usize = 100;

/// The state of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The user can authenticate and pay.
    Active,
    /// The user cannot authenticate: the surfaces refuse the user's access tokens.
    Disabled,
}

db::text_enum!(State { Active => "active", Disabled => "disabled" });

/// A user to create.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The public id, which the APIs use. The caller generates it.
    pub public_id: Uuid,
    /// The name, which is unique within the shop; 1 to 200 characters.
    pub name: String,
    /// The e-mail address of the user; `None` when the operator does not know it.
    pub email: Option<String>,
}

/// A stored user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// The public id, which the APIs use: a UUID in hyphenated lower-case form.
    pub public_id: String,
    /// The name, which is unique within the shop.
    pub name: String,
    /// The state of the user. A disabled user cannot authenticate.
    pub state: State,
    pub created_at: Instant,
}

/// An amount that an operator adds to a user's balance.
#[derive(Debug, Clone)]
pub struct Credit {
    /// The currency of the balance to credit: CNY or USD.
    pub currency: Currency,
    /// The amount to add, in base units; [`find_balance_decimals`] returns the number of decimal places.
    pub amount: Amount,
    /// The operator's own reference for this credit, 1 to 100 bytes. Each user can be credited only once under the same
    /// reference.
    pub reference: String,
}

/// The reason why a user was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateUserError {
    /// The name is empty or too long.
    #[error("a name has 1 to {NAME_LENGTH_MAX} characters")]
    BadName,
    /// Another user of the shop has the name.
    #[error("another user has this name")]
    NameTaken,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// The reason why a credit was not booked.
#[derive(Debug, thiserror::Error)]
pub enum CreditError {
    /// Users cannot have balances in this currency.
    #[error("balances are in CNY or USD, not in {0}")]
    BadCurrency(Currency),
    /// The reference is empty or too long.
    #[error("a reference has 1 to {REFERENCE_LENGTH_MAX} bytes of text")]
    BadReference,
    /// The user was already credited under this reference.
    #[error("this user already received credit under the reference `{0}`")]
    ReferenceUsed(String),
    /// The ledger refused the journal entry.
    #[error(transparent)]
    Post(PostError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Returns the ledger asset in which balances of a currency are booked.
pub fn to_balance_asset(currency: Currency) -> AssetId {
    AssetId::fiat(currency.as_str())
}

/// Returns the number of decimal places of balances in a currency; `None` when users cannot have balances in this
/// currency.
pub fn find_balance_decimals(currency: Currency) -> Option<u8> {
    match currency {
        Currency::CNY => Some(CNY_DECIMALS),
        Currency::USD => Some(USD_DECIMALS),
        _ => None,
    }
}

/// Creates a user and records the action in the audit log.
pub async fn create_user(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    new: NewUser,
) -> Result<UserId, CreateUserError> {
    if !(1..=NAME_LENGTH_MAX).contains(&new.name.chars().count()) {
        return Err(CreateUserError::BadName);
    }
    let user = store::insert_user_if_name_free(tx, now, shop, &new).await?.ok_or(CreateUserError::NameTaken)?;
    if let Some(email) = &new.email {
        store::insert_user_contact(tx, user, email).await?;
    }
    audit_log::record_action(tx, now, actor, Action::UserCreate, &new.name, "").await?;
    Ok(user)
}

/// Returns the user with this name; `None` when the shop has no such user.
pub async fn find_user_by_name(tx: &mut Tx, shop: Shop, name: &str) -> Result<Option<User>, db::Error> {
    store::find_user_by_name(tx, shop, name).await
}

/// Returns at most 10,000 users of a shop, sorted by name.
pub async fn list_users(tx: &mut Tx, shop: Shop) -> Result<Vec<User>, db::Error> {
    store::list_users(tx, shop).await
}

/// Disables or enables a user and records the action in the audit log. The balance of a disabled user does not change.
pub async fn set_user_state(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    user: &User,
    state: State,
) -> Result<(), db::Error> {
    store::set_user_state(tx, user.id, state).await?;
    audit_log::record_action(tx, now, actor, Action::UserSetState, &user.name, state.as_str()).await
}

/// Returns the balance that a user can spend, in base units of `asset`.
pub async fn load_available_balance(
    tx: &mut Tx,
    shop: Shop,
    user: UserId,
    asset: &AssetId,
) -> Result<Amount, db::Error> {
    Ok(ledger::find_balance_or_zero(tx, shop.mode, &Account::User(user), asset).await?.available_amount())
}

/// Credits the user's balance, debits the operator's equity account, records the action in the audit log, and returns
/// the new available balance in base units. Fails with [`CreditError::ReferenceUsed`] when the user was already
/// credited under the same reference.
pub async fn credit_user_balance(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    user: &User,
    credit: Credit,
) -> Result<Amount, CreditError> {
    let Credit { currency, amount, reference } = credit;
    let decimals = find_balance_decimals(currency).ok_or(CreditError::BadCurrency(currency))?;
    if !(1..=REFERENCE_LENGTH_MAX).contains(&reference.len()) {
        return Err(CreditError::BadReference);
    }
    let asset = to_balance_asset(currency);
    let line =
        EntryLine { debit: Account::OperatorEquity, credit: Account::User(user.id), asset: asset.clone(), amount };
    // The ledger books a journal entry with this name only once, so a repeated command does not credit the user again.
    let entry = format!("user/{}/credit/{reference}", user.id);
    let entry = JournalEntry::new_post_entry(shop.mode, entry, "credit by the operator", vec![line]);
    // On PostgreSQL the statements of the journal entry are sent together with the next query, so an error of the
    // journal entry may appear as the error of this query.
    let booked = match ledger::book_journal_entries(tx, now, &[entry]).await {
        Ok(()) => load_available_balance(tx, shop, user.id, &asset).await.map_err(PostError::Db),
        Err(error) => Err(error),
    };
    let balance = booked.map_err(|error| match error {
        PostError::Db(db::Error::Constraint { kind: db::Constraint::Unique, .. }) => {
            CreditError::ReferenceUsed(reference.clone())
        }
        error @ (PostError::Insufficient { .. }
        | PostError::BadAmount(_)
        | PostError::NoHold(_)
        | PostError::AboveHold { .. }
        | PostError::OutOfRange(_)
        | PostError::Db(_)) => CreditError::Post(error),
    })?;
    let detail = format!("{} {currency}, reference {reference}", amount.to_decimal(decimals));
    audit_log::record_action(tx, now, actor, Action::UserCredit, &user.name, &detail).await?;
    Ok(balance)
}

/// Stores an access token that the caller generated, so that it is valid for the user from now on, and records the
/// action in the audit log. When `expires_at` is `None`, the token is valid until it is revoked.
pub async fn issue_user_token(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    user: &User,
    token: &Token,
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    tokens::store_token_hash(tx, now, user.id, token, expires_at).await?;
    audit_log::record_action(tx, now, actor, Action::TokenIssue, &user.name, "").await
}

/// Revokes all access tokens of the user, records the action in the audit log, and returns the number of revoked
/// tokens.
pub async fn revoke_all_user_tokens(tx: &mut Tx, now: Instant, actor: &Actor, user: &User) -> Result<u64, db::Error> {
    let revoked = tokens::revoke_all_tokens_of_user(tx, now, user.id).await?;
    audit_log::record_action(tx, now, actor, Action::TokenRevoke, &user.name, &revoked.to_string()).await?;
    Ok(revoked)
}
