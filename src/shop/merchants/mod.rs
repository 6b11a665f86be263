//! Shops: whose products are sold. One installation, one operator, many merchants.

mod store;

use crate::clock::Instant;
use crate::db::{self, Tx};

pub use store::Merchant;

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("`{0}` is not a slug (1 to 64 of a-z, 0-9 and -)")]
    BadSlug(String),
    #[error("there is a merchant `{0}` already")]
    Exists(String),
    #[error(transparent)]
    Db(#[from] db::Error),
}

pub async fn create(tx: &mut Tx, now: Instant, slug: &str, name: &str) -> Result<Merchant, CreateError> {
    let fits = (1..=64).contains(&slug.len())
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        return Err(CreateError::BadSlug(slug.to_owned()));
    }
    store::insert_merchant(tx, now, slug, name).await?.ok_or_else(|| CreateError::Exists(slug.to_owned()))
}

pub async fn find_by_slug(tx: &mut Tx, slug: &str) -> Result<Option<Merchant>, db::Error> {
    store::find_by_slug(tx, slug).await
}

pub async fn list(tx: &mut Tx) -> Result<Vec<Merchant>, db::Error> {
    store::list(tx).await
}
