//! All SQL of the event log.

use crate::events::Kind;
use clock::Instant;
use db::{ResultRef, Tx, queued};
use ids::Shop;

/// Queues the statement that inserts an event. The returned reference stands for the sequence number of the event,
/// which is known after the statement has run.
pub fn queue_event_insert(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    kind: Kind,
    subject: &str,
    body: &str,
) -> ResultRef<i64> {
    queued!(
        tx,
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
