//! Merchants: the owners of shops. Every product, order and ledger account belongs to one merchant and one mode.

mod store;

#[cfg(test)]
mod tests;

use uuid::Uuid;

use clock::Instant;
use db::{self, Tx};
use ids::MerchantId;
use records::audit_log::{self, Action, Actor};

/// The maximum length of a merchant's slug, in bytes.
const SLUG_LENGTH_MAX: usize = 64;
/// The maximum length of a merchant's name, in characters.
const NAME_LENGTH_MAX: usize = 200;

/// The maximum number of merchants that [`list_merchants`] returns.
pub const LIST_MAX: u32 = 1_000;

/// A stored merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    pub id: MerchantId,
    /// The public id, which the APIs use: a UUID in hyphenated lower-case form.
    pub public_id: String,
    /// The unique short name by which the configuration and the command line refer to the merchant: 1 to 64 of the
    /// characters a-z, 0-9 and `-`.
    pub slug: String,
    /// The name that buyers and operators see.
    pub name: String,
    pub created_at: Instant,
}

/// The reason why a merchant was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateMerchantError {
    /// The slug has an invalid length or character.
    #[error("a slug has 1 to {SLUG_LENGTH_MAX} characters, each of a-z, 0-9 or -")]
    BadSlug,
    /// The name is empty or too long.
    #[error("a name has 1 to {NAME_LENGTH_MAX} characters")]
    BadName,
    /// Another merchant has the slug.
    #[error("another merchant has this slug")]
    SlugTaken,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Creates a merchant and records the action in the audit log. Fails when the slug or the name is invalid, or when
/// another merchant has the slug.
pub async fn create_merchant(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    public_id: Uuid,
    slug: &str,
    name: &str,
) -> Result<MerchantId, CreateMerchantError> {
    let slug_fits = slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !slug_fits || !(1..=SLUG_LENGTH_MAX).contains(&slug.len()) {
        return Err(CreateMerchantError::BadSlug);
    }
    if !(1..=NAME_LENGTH_MAX).contains(&name.chars().count()) {
        return Err(CreateMerchantError::BadName);
    }
    let inserted = store::insert_merchant_if_slug_free(tx, now, &public_id.to_string(), slug, name).await?;
    let merchant = inserted.ok_or(CreateMerchantError::SlugTaken)?;
    audit_log::record_action(tx, now, actor, Action::MerchantCreate, slug, name).await?;
    Ok(merchant)
}

/// Returns the merchant with this slug; `None` when no merchant has it.
pub async fn find_merchant_by_slug(tx: &mut Tx, slug: &str) -> Result<Option<Merchant>, db::Error> {
    store::find_merchant_by_slug(tx, slug).await
}

/// Returns at most [`LIST_MAX`] merchants, sorted by the time of their creation, the oldest first.
pub async fn list_merchants(tx: &mut Tx) -> Result<Vec<Merchant>, db::Error> {
    store::list_merchants(tx, LIST_MAX).await
}
