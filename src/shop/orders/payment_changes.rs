//! What becomes of an order when something became of its payment.

use crate::coupons;
use crate::orders::{LineState, Order, State, advance, record, store};
use crate::stock;
use clock::Instant;
use db::{self, Locked, Tx};
use ids::{CouponId, PaymentId};
use money::payments;
use records::{events, reviews};

async fn lock_order_of_payment(tx: &mut Tx, payment: PaymentId) -> Result<Locked<Order>, db::Error> {
    let missing = || db::Error::Statement(format!("payment {payment} or its order does not exist"));
    let order = payments::find_order(tx, payment).await?.ok_or_else(missing)?;
    store::lock_order(tx, order).await?.ok_or_else(missing)
}

pub(super) async fn apply_paid(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    match order.state {
        State::Created | State::AwaitingPayment => {
            let order = advance(tx, now, order, State::Paid).await?;
            store::insert_fulfilment(tx, now, order.id).await?;
            record(tx, now, &order, events::Kind::OrderPaid).await
        }
        // Its money had vanished with a block and came back before the goods were handed out.
        State::Paid | State::Processing => {
            store::insert_fulfilment_again(tx, now, order.id).await?;
            reviews::resolve(
                tx,
                now,
                reviews::Kind::PaymentReversed,
                &order.public_id,
                "the payment was confirmed again",
            )
            .await
        }
        State::PartiallyDelivered | State::Delivered | State::Completed | State::Failed | State::Refunded => {
            reviews::resolve(
                tx,
                now,
                reviews::Kind::PaymentReversed,
                &order.public_id,
                "the payment was confirmed again",
            )
            .await
        }
        // The stock went back: whether there is enough for it now is for a person to say.
        State::Expired | State::Cancelled => {
            let detail = format!("order {} was paid after it ended", order.order_no);
            reviews::open(tx, now, reviews::Kind::OrderPaidLate, &order.public_id, &detail).await
        }
    }
}

/// The order stays what it is: goods that were handed out cannot be taken back, and a person decides.
pub(super) async fn apply_reversed(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    // What was not handed out yet waits until the money is back.
    store::delete_fulfilment(tx, order.id).await?;
    let detail = format!("the payment of order {} ({}) lost its block", order.order_no, order.state.as_str());
    reviews::open(tx, now, reviews::Kind::PaymentReversed, &order.public_id, &detail).await?;
    record(tx, now, &order, events::Kind::PaymentReversed).await
}

/// The order whose last hope this payment was.
pub(super) async fn lock_expired_order(tx: &mut Tx, payment: PaymentId) -> Result<Option<Locked<Order>>, db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    let is_newest = payments::find_newest(tx, order.id).await? == Some(payment);
    Ok((is_newest && order.state.is_unpaid()).then_some(order))
}

/// The order that ends because the money that paid it is gone for good. One whose goods are out stays what it is, and a
/// person decides.
pub(super) async fn apply_lost(
    tx: &mut Tx,
    now: Instant,
    payment: PaymentId,
) -> Result<Option<Locked<Order>>, db::Error> {
    let order = lock_order_of_payment(tx, payment).await?;
    match order.state {
        State::Created | State::AwaitingPayment => Ok(Some(order)),
        State::Paid | State::Processing => {
            store::delete_fulfilment(tx, order.id).await?;
            let note = "the money did not come back, and the order has failed";
            reviews::resolve(tx, now, reviews::Kind::PaymentReversed, &order.public_id, note).await?;
            reviews::resolve(tx, now, reviews::Kind::OrderUnreadable, &order.public_id, note).await?;
            Ok(Some(order))
        }
        State::PartiallyDelivered | State::Delivered | State::Completed | State::Refunded => {
            let (number, state) = (&order.order_no, order.state.as_str());
            let detail =
                format!("order {number} is {state}, and its money vanished with a block and did not come back");
            reviews::open(tx, now, reviews::Kind::OrderUnpaid, &order.public_id, &detail).await?;
            let note = "the money did not come back: see the review order.unpaid";
            reviews::resolve(tx, now, reviews::Kind::PaymentReversed, &order.public_id, note).await?;
            record(tx, now, &order, events::Kind::OrderUnpaid).await?;
            Ok(None)
        }
        State::Expired | State::Cancelled | State::Failed => {
            reviews::resolve(tx, now, reviews::Kind::PaymentReversed, &order.public_id, "the order had ended already")
                .await?;
            Ok(None)
        }
    }
}

/// Coupons first, then stock, both in the order of their ids: as creating orders locks them. What was paid once cannot go
/// back to unpaid: it has failed.
pub(super) async fn end_unpaid(
    tx: &mut Tx,
    now: Instant,
    orders: Vec<Locked<Order>>,
    to: State,
    kind: events::Kind,
) -> Result<(), db::Error> {
    let mut coupons: Vec<CouponId> = orders.iter().filter_map(|order| order.coupon).collect();
    coupons.sort_unstable();
    let mut lines = Vec::new();
    for order in orders {
        let of_order = store::list_lines(tx, &order).await?;
        if order.state.is_unpaid() {
            let order = advance(tx, now, order, to).await?;
            record(tx, now, &order, kind).await?;
        } else {
            for line in &of_order {
                store::set_line_state(tx, now, line.id, LineState::Failed).await?;
            }
            let order = advance(tx, now, order, State::Failed).await?;
            record(tx, now, &order, events::Kind::OrderFailed).await?;
        }
        lines.extend(of_order);
    }
    for coupon in coupons {
        coupons::release_use(tx, coupon).await?;
    }
    lines.sort_unstable_by_key(|line| line.sku);
    for line in lines {
        stock::release(tx, line.sku, line.id, line.quantity).await?;
    }
    Ok(())
}
