//! Events: an append-only log of facts for API clients, such as "the order was paid". The database transaction that
//! causes an event also inserts the event. Stored events never change.

mod store;

use clock::Instant;
use db::Tx;
use ids::Shop;

/// The kind of an event. API clients see its text, such as `order.paid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A buyer placed an order.
    OrderCreated,
    /// An order was paid.
    OrderPaid,
    /// All goods of an order were delivered.
    OrderCompleted,
    /// The payment window of an order ended without enough money.
    OrderExpired,
    /// An unpaid order was cancelled.
    OrderCancelled,
    /// A paid order could not be delivered, or a reorg removed its money permanently before the delivery.
    OrderFailed,
    /// A reorg removed the money of an order permanently after the order was delivered.
    OrderUnpaid,
    /// A reorg removed money of a payment that was paid in full. The transaction of the buyer may still be mined and
    /// confirmed again.
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

/// Queues the statement that inserts an event; the statement runs together with the next statement of the database
/// transaction. `subject` is the public id of the order or payment that the event is about. `body` is JSON and contains
/// neither personal data nor goods.
pub fn queue_event(tx: &mut Tx, now: Instant, shop: Shop, kind: Kind, subject: &str, body: &str) {
    store::queue_event_insert(tx, now, shop, kind, subject, body);
}
