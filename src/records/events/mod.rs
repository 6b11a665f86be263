//! The append-only log of events. An event is written in the transaction that causes it, and never changes. Webhook
//! deliveries and the event API read the log.

mod store;

use clock::Instant;
use db::{self, Batch, Tx};
use ids::Shop;

/// Records one event. `kind` is a dotted name such as `order.paid`, `subject` is the public id of the object, and
/// `body` is JSON text without personal data and goods.
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

/// Like [`record`], but adds the statement to a batch instead of running it.
pub fn record_in(links: &mut Batch, now: Instant, shop: Shop, kind: &'static str, subject: &str, body: &str) {
    store::insert_event_in(links, now, shop, kind, subject, body);
}
