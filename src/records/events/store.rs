//! All SQL of the event log.

use crate::events::Kind;
use clock::Instant;
use db::{self, Batch, ResultRef, Tx, execute, statement};
use ids::Shop;

/// Inserts an event.
pub async fn insert_event(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    kind: Kind,
    subject: &str,
    body: &str,
) -> Result<(), db::Error> {
    let inserted = execute!(
        tx,
        "insert into events (merchant_id, mode, kind, subject, payload, occurred_at) values ($1, $2, $3, $4, $5, $6)",
        shop.merchant,
        shop.mode,
        kind,
        subject,
        body,
        now
    )?;
    db::expect_changed(inserted, 1)
}

/// Adds the insertion of an event to a batch; its id is the sequence number of the event.
pub fn insert_event_in(
    links: &mut Batch,
    now: Instant,
    shop: Shop,
    kind: Kind,
    subject: &str,
    body: &str,
) -> ResultRef<i64> {
    statement!(
        links,
        "insert into events (merchant_id, mode, kind, subject, payload, occurred_at) values ($1, $2, $3, $4, $5, $6)
         returning seq as id",
        shop.merchant,
        shop.mode,
        kind,
        subject,
        body,
        now
    )
}
