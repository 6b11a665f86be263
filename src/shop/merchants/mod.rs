//! Merchants: the owners of shops. Every product, order and ledger account belongs to one merchant in one mode.

mod store;

#[cfg(test)]
mod tests;

use uuid::Uuid;

use clock::Instant;
use db::{self, Tx};
use ids::MerchantId;
use records::audit_log::{self, Action, Actor};

const SLUG_LENGTH_MAX: usize = 64;
const NAME_LENGTH_MAX: usize = 200;

/// Maximum number of merchants that [`list`] returns.
pub const LIST_MAX: u32 = 1_000;

/// A stored merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    pub id: MerchantId,
    pub public_id: String,
    /// The name in the configuration and on the command line.
    pub slug: String,
    pub name: String,
    pub created_at: Instant,
}

/// The reason why a merchant was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a slug has 1 to {SLUG_LENGTH_MAX} characters, each of a-z, 0-9 or -")]
    BadSlug,
    #[error("a name has 1 to {NAME_LENGTH_MAX} characters")]
    BadName,
    #[error("another merchant has this slug")]
    SlugTaken,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Creates a merchant and records the action in the audit log.
pub async fn create(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    public_id: Uuid,
    slug: &str,
    name: &str,
) -> Result<MerchantId, CreateError> {
    let slug_fits = slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !slug_fits || !(1..=SLUG_LENGTH_MAX).contains(&slug.len()) {
        return Err(CreateError::BadSlug);
    }
    if !(1..=NAME_LENGTH_MAX).contains(&name.chars().count()) {
        return Err(CreateError::BadName);
    }
    let inserted = store::insert_merchant(tx, now, &public_id.to_string(), slug, name).await?;
    let merchant = inserted.ok_or(CreateError::SlugTaken)?;
    audit_log::record(tx, now, actor, Action::MerchantCreate, slug, name).await?;
    Ok(merchant)
}

/// Returns the merchant with this slug; `None` when there is none.
pub async fn find_by_slug(tx: &mut Tx, slug: &str) -> Result<Option<Merchant>, db::Error> {
    store::find_by_slug(tx, slug).await
}

/// Returns at most [`LIST_MAX`] merchants, oldest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<Merchant>, db::Error> {
    store::list(tx, LIST_MAX).await
}
