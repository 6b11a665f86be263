//! The append-only log of what happened, written in the transaction that caused it. Deliveries read it; nothing changes it.

mod store;

use clock::Instant;
use db::{self, Batch, Tx};
use ids::Shop;

/// Records one fact. `kind` is a dotted name (`order.paid`), `subject` the public id of what it is about, `body` JSON text
/// without personal data or goods.
pub async fn record(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    kind: &'static str,
    subject: &str,
    body: &str,
) -> Result<(), db::Error> {
    store::insert_event(tx, now, shop, kind, subject, body).await
}

/// The same, as a link of a chain.
pub fn record_in(links: &mut Batch, now: Instant, shop: Shop, kind: &'static str, subject: &str, body: &str) {
    store::insert_event_in(links, now, shop, kind, subject, body);
}
