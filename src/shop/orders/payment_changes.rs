//! The effects of payment changes on orders. A payment changes when it is received, expires, is reversed by a reorg, or
//! is lost because it was not confirmed again.

use futures_util::future::BoxFuture;

use crate::coupons;
use crate::fulfilment;
use crate::orders::{
    LineState, Order, OrderDetails, State, advance_order_state, format_audit_detail, record_order_event, store,
};
use crate::stock;
use clock::Instant;
use db::{self, Locked, Tx};
use ids::{CouponId, OrderId, PaymentId};
use money::effects::PaymentListener;
use money::invoices;
use money::ledger::PostError;
use money::payments::{self, PaymentChange};
use records::audit_log::{self, Action, Actor};
use records::{events, reviews};

/// The maximum number of external payments that one database transaction expires.
const EXPIRED_PER_RUN_MAX: u32 = 100;

/// The listener that passes payment changes from `money` to the orders of the payments.
#[derive(Debug, Clone, Copy)]
pub struct PaymentChangeHandler;

impl PaymentListener for PaymentChangeHandler {
    fn on_payment_changes<'a>(
        &'a self,
        tx: &'a mut Tx,
        now: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>> {
        Box::pin(apply_payment_changes_to_orders(tx, now, changes))
    }
}

/// Applies each payment change to its order, in the database transaction that changed the payments.
pub(super) async fn apply_payment_changes_to_orders(
    tx: &mut Tx,
    now: Instant,
    changes: &[PaymentChange],
) -> Result<(), db::Error> {
    let mut unpaid = Vec::new();
    for change in changes {
        match *change {
            PaymentChange::Confirming(_) => {}
            PaymentChange::Paid(payment) => mark_paid_and_schedule_or_open_review(tx, now, payment).await?,
            PaymentChange::Expired(payment) => unpaid.extend(lock_unpaid_order_of_newest_payment(tx, payment).await?),
            PaymentChange::Lost(payment) => {
                unpaid.extend(unschedule_lost_order_or_open_review(tx, now, payment).await?)
            }
            PaymentChange::Reversed(payment) => unschedule_and_review_or_retract_review(tx, now, payment).await?,
        }
    }
    end_or_fail_orders_and_release_stock(tx, now, unpaid, State::Expired, events::Kind::OrderExpired).await
}

/// Expires at most 100 pending external payments whose orders' payment window has ended, together with their orders,
/// and returns the number of expired payments. Orders with an on-chain payment expire with their invoices instead.
pub async fn expire_external_payments_and_orders(tx: &mut Tx, now: Instant) -> Result<usize, db::Error> {
    let mut changes = Vec::new();
    for payment in store::list_overdue_external_payments(tx, now, EXPIRED_PER_RUN_MAX).await? {
        changes.extend(payments::close_pending_external_payment(tx, now, payment, false).await?);
    }
    apply_payment_changes_to_orders(tx, now, &changes).await?;
    Ok(changes.len())
}

/// Marks the external payment of an order as received by its provider, which also marks the order as paid. Returns
/// false, and changes nothing, when the newest payment of the order is not a pending external payment.
pub async fn mark_external_payment_received(tx: &mut Tx, now: Instant, id: OrderId) -> Result<bool, db::Error> {
    let Some(payment) = payments::find_newest_payment(tx, id).await? else { return Ok(false) };
    let change = payments::close_pending_external_payment(tx, now, payment, true).await?;
    apply_payment_changes_to_orders(tx, now, change.as_slice()).await?;
    Ok(change.is_some())
}

/// Does the same as [`mark_external_payment_received`] after an operator saw the payment at the provider, and records
/// the action in the audit log.
pub async fn mark_external_payment_received_by_operator(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    order: &OrderDetails,
) -> Result<bool, db::Error> {
    let OrderDetails { order, status } = order;
    let is_confirmed = mark_external_payment_received(tx, now, order.id).await?;
    if is_confirmed {
        let detail = format_audit_detail(order, status.method);
        audit_log::record_action(tx, now, actor, Action::OrderConfirm, &order.order_no, &detail).await?;
    }
    Ok(is_confirmed)
}

/// Locks the row of the order that a payment belongs to and returns the order. Fails when the payment or the order does
/// not exist.
async fn lock_order_of_payment(tx: &mut Tx, payment: PaymentId) -> Result<Locked<Order>, db::Error> {
    let missing = || db::Error::Statement(format!("payment {payment} or its order does not exist"));
    let order = payments::find_order_of_payment(tx, payment).await?.ok_or_else(missing)?;
    store::lock_order(tx, order).await?.ok_or_else(missing)
}

/// Marks the order of a payment as paid and schedules its delivery. When the order has ended, a review is opened
/// instead. When another payment has already paid the order, the money of this second payment is moved to the surplus
/// account and a review is opened.
async fn mark_paid_and_schedule_or_open_review(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    if was_paid_otherwise(&order, payment) {
        return set_second_payment_aside_and_open_review(tx, now, &order, payment).await;
    }
    let confirmed_again = "the payment was confirmed again";
    match order.state {
        State::Created | State::AwaitingPayment => {
            let order = store::set_paid_by_in_memory(order, payment);
            let order = advance_order_state(tx, now, order, State::Paid).await?;
            db::expect_changed(schedule_delivery_if_missing(tx, now, order.id).await?, 1)?;
            record_order_event(tx, now, &order, events::Kind::OrderPaid);
            Ok(())
        }
        // The payment is confirmed again after a reorg had reversed it before the delivery. Schedule the delivery
        // again.
        State::Paid | State::Processing => {
            schedule_delivery_if_missing(tx, now, order.id).await?;
            reviews::resolve_review_if_open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, confirmed_again)
                .await
        }
        State::PartiallyDelivered | State::Delivered | State::Completed | State::Failed | State::Refunded => {
            reviews::resolve_review_if_open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, confirmed_again)
                .await
        }
        // The order ended and its stock was released before the payment arrived, so an operator decides if the order
        // can still be delivered.
        State::Expired | State::Cancelled => {
            let detail = format!("order {} was paid after it had ended", order.order_no);
            reviews::open_or_reopen_review(tx, now, reviews::Kind::OrderPaidLate, &order.public_id, &detail).await
        }
    }
}

/// Returns true when the order was paid by another payment than this one, or from a balance.
fn was_paid_otherwise(order: &Order, payment: PaymentId) -> bool {
    match order.state {
        State::Created | State::AwaitingPayment | State::Expired | State::Cancelled => false,
        State::Paid
        | State::Processing
        | State::PartiallyDelivered
        | State::Delivered
        | State::Completed
        | State::Failed
        | State::Refunded => order.paid_by != Some(payment),
    }
}

/// Moves the money of a second payment to the surplus account and opens a review, so that an operator returns the
/// money. The money of an external payment is held by its provider, so for such a payment only the review is opened.
async fn set_second_payment_aside_and_open_review(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    payment: PaymentId,
) -> Result<(), db::Error> {
    let moved = invoices::move_settlement_to_surplus(tx, now, payment).await.map_err(|error| match error {
        PostError::Db(error) => error,
        PostError::Insufficient { .. }
        | PostError::BadAmount(_)
        | PostError::NoHold(_)
        | PostError::AboveHold { .. }
        | PostError::OutOfRange(_) => db::Error::Statement(format!("the second payment {payment}: {error}")),
    })?;
    let what =
        moved.map_or_else(|| "an external payment".into(), |(amount, asset)| format!("{amount} base units of {asset}"));
    let detail = format!("order {} was paid already and has now received {what} by a second payment", order.order_no);
    reviews::open_or_reopen_review(tx, now, reviews::Kind::PaymentSecond, &review_subject(payment), &detail).await
}

/// Returns the subject of reviews about a payment.
fn review_subject(payment: PaymentId) -> String {
    format!("payment/{payment}")
}

/// Schedules the delivery of an order. Returns the number of inserted rows: 1, or 0 when the delivery is already
/// scheduled.
async fn schedule_delivery_if_missing(tx: &mut Tx, now: Instant, order: OrderId) -> Result<u64, db::Error> {
    let scheduled = fulfilment::queue_delivery_schedule(tx, now, order);
    tx.run_queued().await?;
    Ok(tx.row_count_of(scheduled))
}

/// Deletes the scheduled delivery of an order whose payment was reversed by a reorg, and opens a review. The order
/// keeps its state, because delivered items cannot be taken back. When the order was paid by another payment than the
/// reversed one, only the review of the reversed payment is closed.
async fn unschedule_and_review_or_retract_review(
    tx: &mut Tx,
    now: Instant,
    payment: PaymentId,
) -> Result<(), db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    if was_paid_otherwise(&order, payment) {
        let note = "a reorg reversed the second payment";
        reviews::retract_review_if_open(tx, now, reviews::Kind::PaymentSecond, &review_subject(payment), note).await?;
        return Ok(());
    }
    fulfilment::unschedule_delivery(tx, order.id).await?;
    let detail = format!("a reorg reversed the payment of order {} ({})", order.order_no, order.state.as_str());
    reviews::open_or_reopen_review(tx, now, reviews::Kind::PaymentReversed, &order.public_id, &detail).await?;
    record_order_event(tx, now, &order, events::Kind::PaymentReversed);
    Ok(())
}

/// Locks the order of a payment and returns the order. Returns `None` when the order is already paid or has ended, or
/// when the order has a newer payment.
async fn lock_unpaid_order_of_newest_payment(
    tx: &mut Tx,
    payment: PaymentId,
) -> Result<Option<Locked<Order>>, db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    let is_newest = payments::find_newest_payment(tx, order.id).await? == Some(payment);
    Ok((is_newest && order.state.is_unpaid()).then_some(order))
}

/// Locks the order of a payment that a reorg reversed and that was not confirmed again in time. An order that is not
/// delivered yet is returned, without its scheduled delivery, so that the caller ends the order. For a delivered order,
/// a review is opened and the result is `None`. For an order that has ended or that another payment has paid, the result
/// is `None`.
async fn unschedule_lost_order_or_open_review(
    tx: &mut Tx,
    now: Instant,
    payment: PaymentId,
) -> Result<Option<Locked<Order>>, db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    if was_paid_otherwise(&order, payment) {
        return Ok(None);
    }
    match order.state {
        State::Created | State::AwaitingPayment => Ok(Some(order)),
        State::Paid | State::Processing => {
            fulfilment::unschedule_delivery(tx, order.id).await?;
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
/// and an event of the kind `event_kind` is recorded. An order whose payment was lost moves to the state `failed`.
///
/// Coupons are locked before SKUs, and each in the order of their ids. The creation of an order locks them in the same
/// sequence, so that the transactions cannot deadlock.
pub(super) async fn end_or_fail_orders_and_release_stock(
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
                store::set_order_line_state_and_time(tx, now, line.id, LineState::Failed).await?;
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
