//! Merchants: whose shop it is. Everything that is sold, owed or earned belongs to one, in one mode.

mod store;

#[cfg(test)]
mod tests;

use uuid::Uuid;

use clock::Instant;
use db::{self, Tx};
use ids::MerchantId;

const SLUG_LENGTH_MAX: usize = 64;
const NAME_LENGTH_MAX: usize = 200;

/// Merchants of one list.
pub const LIST_MAX: u32 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    pub id: MerchantId,
    pub public_id: String,
    /// How configuration and command line name it.
    pub slug: String,
    pub name: String,
    pub created_at: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a slug is 1 to {SLUG_LENGTH_MAX} of a-z, 0-9 and -")]
    BadSlug,
    #[error("a name is 1 to {NAME_LENGTH_MAX} characters")]
    BadName,
    #[error("another merchant has this slug")]
    SlugTaken,
    #[error(transparent)]
    Db(#[from] db::Error),
}

pub async fn create(
    tx: &mut Tx,
    now: Instant,
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
    store::insert_merchant(tx, now, &public_id.to_string(), slug, name).await?.ok_or(CreateError::SlugTaken)
}

pub async fn find_by_slug(tx: &mut Tx, slug: &str) -> Result<Option<Merchant>, db::Error> {
    store::find_by_slug(tx, slug).await
}

/// Oldest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<Merchant>, db::Error> {
    store::list(tx, LIST_MAX).await
}
