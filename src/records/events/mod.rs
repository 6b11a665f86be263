//! The append-only log of facts for API clients. Each event is written in the transaction that caused it; webhook deliveries
//! read the log, and nothing changes it.

mod store;

use clock::Instant;
use db::Tx;
use ids::Shop;

/// The kind of an event, as API clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    OrderCreated,
    OrderPaid,
    /// Everything was delivered.
    OrderCompleted,
    /// The payment window ended without enough money.
    OrderExpired,
    OrderCancelled,
    /// A paid order could not be delivered, or its money vanished before it was.
    OrderFailed,
    /// The order was delivered, and its money vanished for good.
    OrderUnpaid,
    /// The payment lost its block; it may be confirmed again.
    PaymentReversed,
}

db::text_enum!(Kind {
    OrderCreated => "order.created",
    OrderPaid => "order.paid",
    OrderCompleted => "order.completed",
    OrderExpired => "order.expired",
    OrderCancelled => "order.cancelled",
    OrderFailed => "order.failed",
    OrderUnpaid => "order.unpaid",
    PaymentReversed => "payment.reversed",
});

/// Records one event. `subject` is the public id of the order or payment that it is about; `body` is JSON without personal
/// data and without goods. The statement is queued: it runs with the next statements of the transaction.
pub fn queue_event(tx: &mut Tx, now: Instant, shop: Shop, kind: Kind, subject: &str, body: &str) {
    store::queue_event_insert(tx, now, shop, kind, subject, body);
}
