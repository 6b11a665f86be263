//! The delivery of paid orders. A paid order has one row in the table `fulfilments` until it is delivered. The database
//! transaction that delivers the order also deletes the row. So after a crash an order is either undelivered and has a
//! row, or was delivered once and has no row. While the payment of an order is reversed, the order has no row.

pub mod retry_schedule;
mod store;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::StreamExt;

use crate::orders::{self, LineState, Order, State};
use crate::stock::{self, SealedItem};
use clock::Instant;
use db::{self, Bind, Db, Locked, ResultRef, Tx};
use envelope::{DecryptError, Envelope};
use ids::OrderId;
use records::{events, reviews};

use retry_schedule::{FailureCause, NextStep};

/// The kind of the review for an order that waits for a missing encryption key.
const UNREADABLE: reviews::Kind = reviews::Kind::OrderUnreadable;

/// The maximum number of orders that one run of the delivery worker delivers. Further orders wait for the next run.
const ORDERS_PER_RUN_MAX: u32 = 256;
/// The maximum number of orders that are delivered at the same time, each in its own transaction. SQLite commits such
/// transactions together; PostgreSQL needs one connection for each of them.
const CONCURRENT_DELIVERIES: usize = 8;

/// The settings of the e-mail to the buyer. The e-mail never contains the delivered items, because e-mail is not
/// confidential.
#[derive(Debug, Clone)]
pub struct EmailTemplates {
    /// The URL of the page where buyers look up their orders; `{order_no}` is replaced by the order number. When it is
    /// empty, the e-mail has no link.
    pub order_url: String,
}

/// The reason why an order was not delivered.
#[derive(Debug, thiserror::Error)]
enum DeliverError {
    #[error("{found} of {expected} items are reserved")]
    Missing { expected: u32, found: usize },
    #[error("an item cannot be decrypted: {error}")]
    Unreadable { error: DecryptError, item: SealedItem },
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Queues the statement that schedules the delivery of a paid order. The delivery is due at once. The result of the
/// statement has no row when the delivery is already scheduled.
pub fn queue_delivery_schedule(tx: &mut Tx, now: Instant, order: impl Into<Bind>) -> ResultRef<OrderId> {
    store::queue_delivery_insert_if_missing(tx, now, order.into())
}

/// Deletes the scheduled delivery of an order, if one is scheduled.
pub async fn unschedule_delivery(tx: &mut Tx, order: OrderId) -> Result<(), db::Error> {
    store::delete_scheduled_delivery(tx, order).await?;
    Ok(())
}

/// Delivers the orders whose delivery is due and returns the number of completed orders.
///
/// A failed delivery is retried later; after [`retry_schedule::ATTEMPTS_MAX`] failed attempts the order fails. While
/// the key that decrypts the items of an order is missing, the delivery of the order is retried without limit. After a
/// database error the order stays due.
pub async fn deliver_due_orders(
    db: &Db,
    now: Instant,
    envelope: &Arc<Envelope>,
    templates: &Arc<EmailTemplates>,
) -> Result<usize, db::Error> {
    let due =
        db.read("list_due_orders", move |tx| Box::pin(store::list_due_orders(tx, now, ORDERS_PER_RUN_MAX))).await?;
    let deliveries = due.into_iter().map(|order| deliver_reschedule_or_fail_order(db, now, envelope, templates, order));
    let outcomes: Vec<Result<bool, db::Error>> =
        futures_util::stream::iter(deliveries).buffer_unordered(CONCURRENT_DELIVERIES).collect().await;
    let mut delivered = 0;
    for outcome in outcomes {
        delivered += usize::from(outcome?);
    }
    Ok(delivered)
}

/// Delivers one order and returns true when the order was completed. After a failed attempt, schedules the next attempt
/// or marks the order as failed, and returns false.
async fn deliver_reschedule_or_fail_order(
    db: &Db,
    now: Instant,
    envelope: &Arc<Envelope>,
    templates: &Arc<EmailTemplates>,
    order: OrderId,
) -> Result<bool, db::Error> {
    let (keys, envelope, templates) = (envelope.clone(), envelope.clone(), templates.clone());
    let attempt = db.write("deliver_order", move |tx| {
        Box::pin(async move { deliver_due_order_and_queue_mail(tx, now, &envelope, &templates, order).await })
    });
    match attempt.await {
        Ok(is_delivered) => Ok(is_delivered),
        Err(DeliverError::Db(error)) => Err(error),
        Err(error) => {
            tracing::error!(order.id = %order, "order {order} could not be delivered: {error}");
            let postponed = db.write("reschedule_or_fail_order", move |tx| {
                Box::pin(async move { reschedule_or_fail_and_open_review(tx, now, &keys, order, &error).await })
            });
            postponed.await?;
            Ok(false)
        }
    }
}

/// Delivers an order whose delivery is due, queues the e-mail to the buyer, and returns true. Returns false when the
/// order has no due delivery, or another transaction is delivering the order.
async fn deliver_due_order_and_queue_mail(
    tx: &mut Tx,
    now: Instant,
    envelope: &Envelope,
    templates: &EmailTemplates,
    order: OrderId,
) -> Result<bool, DeliverError> {
    if store::try_lock_due_delivery(tx, now, order).await?.is_none() {
        return Ok(false);
    }
    let Some(order) = start_processing_or_unschedule(tx, now, order).await? else { return Ok(false) };
    for line in orders::list_order_lines(tx, &order).await? {
        let items = stock::mark_reserved_items_delivered(tx, line.id).await?;
        if u32::try_from(items.len()) != Ok(line.quantity) {
            return Err(DeliverError::Missing { expected: line.quantity, found: items.len() });
        }
        // Check that every item can be decrypted, so that a lost key is noticed at the delivery and not by the buyer.
        for item in items {
            if let Err(error) = stock::decrypt_stock_item(envelope, &item) {
                return Err(DeliverError::Unreadable { error, item });
            }
        }
        orders::set_order_line_state(tx, now, line.id, LineState::Delivered).await?;
    }
    let order = orders::advance_order_state(tx, now, order, State::Completed).await?;
    orders::record_order_event(tx, now, &order, events::Kind::OrderCompleted);
    let note = "the key was restored, and the order was delivered";
    reviews::resolve_review_if_open(tx, now, UNREADABLE, &order.public_id, note).await?;
    if let Some(email) = orders::find_order_email(tx, order.id).await? {
        let (subject, body) = format_completion_email(&order, templates);
        mail::queue_mail(tx, now, &email, &subject, &body).await?;
    }
    delete_finished_delivery(tx, order.id).await?;
    Ok(true)
}

/// Deletes the scheduled delivery of an order that needs no further delivery. Fails when no delivery is scheduled.
async fn delete_finished_delivery(tx: &mut Tx, order: OrderId) -> Result<(), db::Error> {
    db::expect_changed(store::delete_scheduled_delivery(tx, order).await?, 1)
}

/// Locks a paid order, moves it to the state `processing` and returns it. When the order is in any other state than
/// `paid` or `processing`, deletes its scheduled delivery and returns `None`.
async fn start_processing_or_unschedule(
    tx: &mut Tx,
    now: Instant,
    id: OrderId,
) -> Result<Option<Locked<Order>>, db::Error> {
    let order = orders::lock_order(tx, id).await?.ok_or(db::Error::UnexpectedRowCount { expected: 1, found: 0 })?;
    match order.state {
        State::Paid => orders::advance_order_state(tx, now, order, State::Processing).await.map(Some),
        State::Processing => Ok(Some(order)),
        State::Created
        | State::AwaitingPayment
        | State::PartiallyDelivered
        | State::Delivered
        | State::Completed
        | State::Expired
        | State::Cancelled
        | State::Failed
        | State::Refunded => {
            delete_finished_delivery(tx, id).await?;
            Ok(None)
        }
    }
}

/// Returns the cause of a failed delivery attempt. When the key of an item cannot decrypt this item but decrypts other
/// items, the item is damaged. When the key decrypts none of the tested items, the key ring holds a different key under
/// the same id; the operator may restore the right key later.
async fn classify_delivery_failure(
    tx: &mut Tx,
    envelope: &Envelope,
    error: &DeliverError,
) -> Result<FailureCause, db::Error> {
    match error {
        DeliverError::Unreadable { error: DecryptError::UnknownKey(_), .. } => Ok(FailureCause::MissingKey),
        DeliverError::Unreadable { error: DecryptError::NotAuthentic, item } => {
            match stock::can_key_decrypt_other_items(tx, envelope, item).await? {
                true => Ok(FailureCause::DamagedItems),
                false => Ok(FailureCause::MissingKey),
            }
        }
        DeliverError::Unreadable { error: DecryptError::Malformed, .. } | DeliverError::Missing { .. } => {
            Ok(FailureCause::DamagedItems)
        }
        DeliverError::Db(error) => Err(error.clone()),
    }
}

/// Schedules the next delivery attempt after a failed attempt, or marks the order as failed after the last attempt.
/// Opens a review when the key is missing, and when the order fails.
async fn reschedule_or_fail_and_open_review(
    tx: &mut Tx,
    now: Instant,
    envelope: &Envelope,
    id: OrderId,
    error: &DeliverError,
) -> Result<(), db::Error> {
    let Some(attempts) = store::try_lock_due_delivery(tx, now, id).await? else { return Ok(()) };
    let Some(order) = start_processing_or_unschedule(tx, now, id).await? else { return Ok(()) };
    let cause = classify_delivery_failure(tx, envelope, error).await?;
    if cause == FailureCause::MissingKey {
        let detail = format!("order {} is paid and waits until its items can be decrypted: {error}", order.order_no);
        reviews::open_or_reopen_review(tx, now, UNREADABLE, &order.public_id, &detail).await?;
    }
    match retry_schedule::choose_step_after_failure(cause, attempts) {
        NextStep::Retry { attempts, after_ms } => {
            store::set_next_delivery_attempt(tx, id, attempts, now.plus_ms(after_ms)).await
        }
        NextStep::Fail => {
            for line in orders::list_order_lines(tx, &order).await? {
                orders::set_order_line_state(tx, now, line.id, LineState::Failed).await?;
            }
            let order = orders::advance_order_state(tx, now, order, State::Failed).await?;
            orders::record_order_event(tx, now, &order, events::Kind::OrderFailed);
            let detail = format!("order {} is paid and could not be delivered: {error}", order.order_no);
            reviews::open_or_reopen_review(tx, now, reviews::Kind::OrderUndeliverable, &order.public_id, &detail)
                .await?;
            reviews::resolve_review_if_open(
                tx,
                now,
                UNREADABLE,
                &order.public_id,
                "the order failed for another reason",
            )
            .await?;
            delete_finished_delivery(tx, id).await
        }
    }
}

/// Returns the subject and the body of the e-mail that tells the buyer that the order is complete, in English and
/// Chinese.
fn format_completion_email(order: &Order, templates: &EmailTemplates) -> (String, String) {
    let number = &order.order_no;
    let subject = format!("Order {number} is complete / 订单 {number} 已完成");
    let url = templates.order_url.replace("{order_no}", number);
    let (colon, wide_colon, end, wide_end) = if url.is_empty() { ("", "", ".", "。") } else { (": ", "：", "", "") };
    let body = format!(
        "Your order {number} is complete. Look it up with its number and this e-mail address{colon}{url}{end}\n\n\
         您的订单 {number} 已完成。请使用订单号和此邮箱查询{wide_colon}{url}{wide_end}\n"
    );
    (subject, body)
}
