//! All SQL of merchants.

use crate::clock::Instant;
use crate::db::{self, Tx, row, rows};
use crate::ids::MerchantId;

#[derive(Debug, Clone)]
pub struct Merchant {
    pub id: MerchantId,
    pub public_id: String,
    pub slug: String,
    pub name: String,
}

/// `None` when the slug is taken.
pub async fn insert_merchant(tx: &mut Tx, now: Instant, slug: &str, name: &str) -> Result<Option<Merchant>, db::Error> {
    let inserted = row!(
        tx,
        "insert into merchants (public_id, slug, name, created_at) values ($1, $2, $3, $4)
         on conflict (slug) do nothing returning id, public_id, slug, name",
        uuid::Uuid::new_v4().to_string(),
        slug,
        name,
        now
    )?;
    inserted.as_ref().map(merchant).transpose()
}

pub async fn find_by_slug(tx: &mut Tx, slug: &str) -> Result<Option<Merchant>, db::Error> {
    let found = row!(tx, "select id, public_id, slug, name from merchants where slug = $1", slug)?;
    found.as_ref().map(merchant).transpose()
}

pub async fn list(tx: &mut Tx) -> Result<Vec<Merchant>, db::Error> {
    let found = rows!(tx, "select id, public_id, slug, name from merchants order by id limit 10000")?;
    found.iter().map(merchant).collect()
}

fn merchant(row: &db::Row) -> Result<Merchant, db::Error> {
    Ok(Merchant {
        id: row.get("id")?,
        public_id: row.get("public_id")?,
        slug: row.get("slug")?,
        name: row.get("name")?,
    })
}
