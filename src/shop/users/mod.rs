//! Users of a shop: who may pay from a balance. A user exists in one shop and one mode.

mod store;

#[cfg(test)]
mod tests;

use chain::{Amount, AssetId};
use uuid::Uuid;

use clock::Instant;
use db::{self, Tx};
use ids::{Shop, UserId};
use money::ledger::{self, Account, EntryLine, JournalEntry, PostError};
use money::pricing::Currency;

/// Decimal places of the balance in CNY: the order's amount is taken as it is.
pub const CNY_DECIMALS: u8 = 2;
/// Decimal places of the USD/crypto balance.
pub const USD_DECIMALS: u8 = 6;

const NAME_LENGTH_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active,
    Disabled,
}

db::text_enum!(State { Active => "active", Disabled => "disabled" });

#[derive(Debug, Clone)]
pub struct NewUser {
    pub public_id: Uuid,
    pub name: String,
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub public_id: String,
    pub name: String,
    pub state: State,
    pub created_at: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a name is 1 to {NAME_LENGTH_MAX} characters")]
    BadName,
    #[error("another user has this name")]
    NameTaken,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// The asset of a balance in a currency.
pub fn balance_asset(currency: Currency) -> AssetId {
    AssetId::fiat(currency.as_str())
}

pub async fn create(tx: &mut Tx, now: Instant, shop: Shop, new: NewUser) -> Result<UserId, CreateError> {
    if !(1..=NAME_LENGTH_MAX).contains(&new.name.chars().count()) {
        return Err(CreateError::BadName);
    }
    let user = store::insert_user(tx, now, shop, &new).await?.ok_or(CreateError::NameTaken)?;
    if let Some(email) = &new.email {
        store::insert_contact(tx, user, email).await?;
    }
    Ok(user)
}

pub async fn find_by_name(tx: &mut Tx, shop: Shop, name: &str) -> Result<Option<User>, db::Error> {
    store::find_by_name(tx, shop, name).await
}

/// All users of a shop, by name.
pub async fn list(tx: &mut Tx, shop: Shop) -> Result<Vec<User>, db::Error> {
    store::list(tx, shop).await
}

/// A disabled user's tokens open nothing; the balance stays.
pub async fn set_state(tx: &mut Tx, user: UserId, state: State) -> Result<(), db::Error> {
    store::set_state(tx, user, state).await
}

/// What the user can spend, in base units of `asset`.
pub async fn available_balance(tx: &mut Tx, shop: Shop, user: UserId, asset: &AssetId) -> Result<Amount, db::Error> {
    Ok(ledger::balance(tx, shop.mode, &Account::User(user), asset).await?.available())
}

/// The operator gives a user credit; `entry` names it once for ever, so that a repeated call does not give twice.
pub async fn credit(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    user: UserId,
    asset: AssetId,
    amount: Amount,
    entry: &str,
) -> Result<(), PostError> {
    let line = EntryLine { debit: Account::OperatorEquity, credit: Account::User(user), asset, amount };
    ledger::book(tx, now, &[JournalEntry::post(shop.mode, entry, "credit by the operator", vec![line])]).await
}
