//! All SQL of merchants.

use crate::merchants::Merchant;
use clock::Instant;
use db::{self, Row, Tx, row, rows};
use ids::MerchantId;

/// Inserts a merchant and returns its id; `None` when another merchant has the slug.
pub async fn insert_merchant_if_slug_free(
    tx: &mut Tx,
    now: Instant,
    public_id: &str,
    slug: &str,
    name: &str,
) -> Result<Option<MerchantId>, db::Error> {
    let inserted = row!(
        tx,
        "insert into merchants (public_id, slug, name, created_at) values ($1, $2, $3, $4)
         on conflict (slug) do nothing returning id",
        public_id,
        slug,
        name,
        now
    )?;
    inserted.map(|row| row.get("id")).transpose()
}

/// Returns the merchant with this slug; `None` when no merchant has it.
pub async fn find_merchant_by_slug(tx: &mut Tx, slug: &str) -> Result<Option<Merchant>, db::Error> {
    let found = row!(tx, "select id, public_id, slug, name, created_at from merchants where slug = $1", slug)?;
    found.as_ref().map(parse_merchant).transpose()
}

/// Returns at most `limit` merchants, sorted by id, so that the oldest merchant comes first.
pub async fn list_merchants(tx: &mut Tx, limit: u32) -> Result<Vec<Merchant>, db::Error> {
    let found = rows!(tx, "select id, public_id, slug, name, created_at from merchants order by id limit $1", limit)?;
    found.iter().map(parse_merchant).collect()
}

fn parse_merchant(row: &Row) -> Result<Merchant, db::Error> {
    Ok(Merchant {
        id: row.get("id")?,
        public_id: row.get("public_id")?,
        slug: row.get("slug")?,
        name: row.get("name")?,
        created_at: row.get("created_at")?,
    })
}
