//! The effects of payment changes on orders.

use crate::coupons;
use crate::fulfilment;
use crate::orders::{LineState, Order, State, advance_order_state, record_order_event, store};
use crate::stock;
use clock::Instant;
use db::{self, Locked, Tx};
use ids::{CouponId, OrderId, PaymentId};
use money::payments;
use records::{events, reviews};

/// Locks the order of a payment and returns the order. Fails when the payment or the order does not exist.
async fn lock_order_of_payment(tx: &mut Tx, payment: PaymentId) -> Result<Locked<Order>, db::Error> {
    let missing = || db::Error::Statement(format!("payment {payment} or its order does not exist"));
    let order = payments::find_order_of_payment(tx, payment).await?.ok_or_else(missing)?;
    store::lock_order(tx, order).await?.ok_or_else(missing)
}

/// Marks the order as paid and schedules its delivery. A payment for an order that has ended opens a review instead.
pub(super) async fn apply_payment_paid(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    let confirmed_again = "the payment was confirmed again";
    match order.state {
        State::Created | State::AwaitingPayment => {
            let order = advance_order_state(tx, now, order, State::Paid).await?;
            db::expect_changed(schedule_fulfilment(tx, now, order.id).await?, 1)?;
            record_order_event(tx, now, &order, events::Kind::OrderPaid);
            Ok(())
        }
        // A reorg reversed the payment before the items were delivered; now the payment is confirmed again.
        State::Paid | State::Processing => {
            schedule_fulfilment(tx, now, order.id).await?;
            reviews::resolve_review_if_open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, confirmed_again)
                .await
        }
        State::PartiallyDelivered | State::Delivered | State::Completed | State::Failed | State::Refunded => {
            reviews::resolve_review_if_open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, confirmed_again)
                .await
        }
        // The reserved stock was released, so an operator decides if the order can still be delivered.
        State::Expired | State::Cancelled => {
            let detail = format!("order {} was paid after it had ended", order.order_no);
            reviews::open_or_reopen_review(tx, now, reviews::Kind::OrderPaidLate, &order.public_id, &detail).await
        }
    }
}

/// Schedules the delivery of an order and returns the number of inserted rows: 0 when the delivery is already
/// scheduled.
async fn schedule_fulfilment(tx: &mut Tx, now: Instant, order: OrderId) -> Result<u64, db::Error> {
    let scheduled = fulfilment::schedule_delivery(tx, now, order);
    tx.run_queued().await?;
    Ok(tx.row_count_of(scheduled))
}

/// Suspends the delivery of an order whose payment was reversed by a reorg, and opens a review. The order keeps its
/// state, because delivered items cannot be taken back.
pub(super) async fn apply_payment_reversed(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    fulfilment::suspend_delivery(tx, order.id).await?;
    let detail = format!("a reorg reversed the payment of order {} ({})", order.order_no, order.state.as_str());
    reviews::open_or_reopen_review(tx, now, reviews::Kind::PaymentReversed, &order.public_id, &detail).await?;
    record_order_event(tx, now, &order, events::Kind::PaymentReversed);
    Ok(())
}

/// Returns the unpaid order of an expired payment, with its row locked; `None` when the order is paid, has ended, or
/// has a newer payment.
pub(super) async fn lock_order_of_expired_payment(
    tx: &mut Tx,
    payment: PaymentId,
) -> Result<Option<Locked<Order>>, db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    let is_newest = payments::find_newest_payment(tx, order.id).await? == Some(payment);
    Ok((is_newest && order.state.is_unpaid()).then_some(order))
}

/// Handles a payment that a reorg reversed and that was not confirmed again in time. Returns the order when the order
/// was not delivered yet, so that the caller ends it. For a delivered order, opens a review and returns `None`.
pub(super) async fn apply_payment_lost(
    tx: &mut Tx,
    now: Instant,
    payment: PaymentId,
) -> Result<Option<Locked<Order>>, db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    match order.state {
        State::Created | State::AwaitingPayment => Ok(Some(order)),
        State::Paid | State::Processing => {
            fulfilment::suspend_delivery(tx, order.id).await?;
            let note = "the payment was not confirmed again, so the order has failed";
            reviews::resolve_review_if_open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, note).await?;
            reviews::resolve_review_if_open(tx, now, reviews::Kind::OrderUnreadable, &order.public_id, note).await?;
            Ok(Some(order))
        }
        State::PartiallyDelivered | State::Delivered | State::Completed | State::Refunded => {
            let (number, state) = (&order.order_no, order.state.as_str());
            let detail =
                format!("order {number} is {state}, but a reorg reversed its payment and it was not confirmed again");
            reviews::open_or_reopen_review(tx, now, reviews::Kind::OrderUnpaid, &order.public_id, &detail).await?;
            let note = "the payment was not confirmed again: see the review order.unpaid";
            reviews::resolve_review_if_open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, note).await?;
            record_order_event(tx, now, &order, events::Kind::OrderUnpaid);
            Ok(None)
        }
        State::Expired | State::Cancelled | State::Failed => {
            reviews::resolve_review_if_open(
                tx,
                now,
                reviews::Kind::PaymentReversed,
                &order.public_id,
                "the order had already ended",
            )
            .await?;
            Ok(None)
        }
    }
}

/// Ends orders without a valid payment and releases their coupons and stock. An unpaid order moves to the state `to`,
/// with an event of the given kind. An order whose payment was lost fails instead.
///
/// Coupons are locked before SKUs, and each in the order of their ids. The creation of an order locks them in the same
/// sequence, so that the transactions cannot deadlock.
pub(super) async fn end_orders_without_payment(
    tx: &mut Tx,
    now: Instant,
    orders: Vec<Locked<Order>>,
    to: State,
    event_kind: events::Kind,
) -> Result<(), db::Error> {
    let mut coupons: Vec<CouponId> = orders.iter().filter_map(|order| order.coupon).collect();
    coupons.sort_unstable();
    let mut lines = Vec::new();
    for order in orders {
        let order_lines = store::list_order_lines(tx, &order).await?;
        if order.state.is_unpaid() {
            let order = advance_order_state(tx, now, order, to).await?;
            record_order_event(tx, now, &order, event_kind);
        } else {
            for line in &order_lines {
                store::set_order_line_state(tx, now, line.id, LineState::Failed).await?;
            }
            let order = advance_order_state(tx, now, order, State::Failed).await?;
            record_order_event(tx, now, &order, events::Kind::OrderFailed);
        }
        lines.extend(order_lines);
    }
    for coupon in coupons {
        coupons::release_coupon_use(tx, coupon).await?;
    }
    lines.sort_unstable_by_key(|line| line.sku);
    for line in lines {
        stock::release_reserved_items(tx, line.sku, line.id, line.quantity).await?;
    }
    Ok(())
}
