//! Handing out what was paid. A paid order leaves a row of work behind; delivering it removes the row in the same
//! transaction, so that a crash at any point delivers once: before it nothing, after it everything.

pub mod machine;
mod store;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::StreamExt;

use crate::orders::{self, LineState, Order, State};
use crate::stock::{self, SealedItem};
use clock::Instant;
use db::{self, Db, Locked, Tx};
use envelope::{Envelope, OpenError};
use ids::OrderId;
use records::{events, reviews};

use machine::{Failure, Next};

/// The review of an order that waits for a key.
const UNREADABLE: reviews::Kind = reviews::Kind::OrderUnreadable;

/// Orders of one round; the rest is due in the next.
const ROUND: u32 = 256;
/// Orders delivered at once: on SQLite they share commits, on PostgreSQL they use as many connections.
const AT_ONCE: usize = 8;

/// What the letter to the buyer says. Never the goods: e-mail is read by many.
#[derive(Debug, Clone)]
pub struct EmailTemplates {
    /// Where the buyer looks the order up, with `{order_no}` for its number. Empty: nowhere in particular.
    pub order_url: String,
}

#[derive(Debug, thiserror::Error)]
enum DeliverError {
    #[error("{found} of {expected} items are reserved")]
    Missing { expected: u32, found: usize },
    #[error("an item cannot be decrypted: {error}")]
    Unreadable { error: OpenError, item: SealedItem },
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Delivers orders whose work is due and returns how many were completed. What cannot be delivered is tried again later
/// and given up in the end, but not for want of a key; what only met a database that was not available stays due.
pub async fn deliver_due(
    db: &Db,
    now: Instant,
    envelope: &Arc<Envelope>,
    letters: &Arc<EmailTemplates>,
) -> Result<usize, db::Error> {
    let due = db.read("list_due_fulfilments", move |tx| Box::pin(store::list_due(tx, now, ROUND))).await?;
    let deliveries = due.into_iter().map(|order| deliver_or_postpone(db, now, envelope, letters, order));
    let outcomes: Vec<Result<bool, db::Error>> =
        futures_util::stream::iter(deliveries).buffer_unordered(AT_ONCE).collect().await;
    let mut delivered = 0;
    for outcome in outcomes {
        delivered += usize::from(outcome?);
    }
    Ok(delivered)
}

async fn deliver_or_postpone(
    db: &Db,
    now: Instant,
    envelope: &Arc<Envelope>,
    letters: &Arc<EmailTemplates>,
    order: OrderId,
) -> Result<bool, db::Error> {
    let (keys, envelope, letters) = (envelope.clone(), envelope.clone(), letters.clone());
    let attempt = db
        .write("deliver_order", move |tx| Box::pin(async move { deliver(tx, now, &envelope, &letters, order).await }));
    match attempt.await {
        Ok(delivered) => Ok(delivered),
        Err(DeliverError::Db(error)) => Err(error),
        Err(error) => {
            tracing::error!(order.id = %order, "order {order} could not be delivered: {error}");
            let postponed = db.write("postpone_delivery", move |tx| {
                Box::pin(async move { postpone(tx, now, &keys, order, &error).await })
            });
            postponed.await?;
            Ok(false)
        }
    }
}

/// False when somebody else is at it, or was.
async fn deliver(
    tx: &mut Tx,
    now: Instant,
    envelope: &Envelope,
    letters: &EmailTemplates,
    order: OrderId,
) -> Result<bool, DeliverError> {
    if store::claim(tx, now, order).await?.is_none() {
        return Ok(false);
    }
    let Some(order) = deliverable(tx, now, order).await? else { return Ok(false) };
    for line in orders::list_lines(tx, &order).await? {
        let items = stock::deliver(tx, line.id).await?;
        if u32::try_from(items.len()) != Ok(line.quantity) {
            return Err(DeliverError::Missing { expected: line.quantity, found: items.len() });
        }
        // Completed means that the buyer can read them: a lost key shows now, not when he looks.
        for item in items {
            if let Err(error) = stock::decrypt_item(envelope, &item) {
                return Err(DeliverError::Unreadable { error, item });
            }
        }
        orders::set_line_state(tx, now, line.id, LineState::Delivered).await?;
    }
    let order = orders::advance(tx, now, order, State::Completed).await?;
    orders::record(tx, now, &order, events::Kind::OrderCompleted).await?;
    reviews::resolve(tx, now, UNREADABLE, &order.public_id, "the key is there again, and the order was delivered")
        .await?;
    if let Some(email) = orders::find_email(tx, order.id).await? {
        let (subject, body) = letter(&order, letters);
        mail::queue(tx, now, &email, &subject, &body).await?;
    }
    store::delete(tx, order.id).await?;
    Ok(true)
}

/// The order in `processing`; `None`, and no more work, when it is past that.
async fn deliverable(tx: &mut Tx, now: Instant, id: OrderId) -> Result<Option<Locked<Order>>, db::Error> {
    let order = orders::lock(tx, id).await?.ok_or(db::Error::Changed { expected: 1, found: 0 })?;
    match order.state {
        State::Paid => orders::advance(tx, now, order, State::Processing).await.map(Some),
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
            store::delete(tx, id).await?;
            Ok(None)
        }
    }
}

/// Whose fault it was. What its key refuses is damaged, where the key reads other items; where it reads none, it is another
/// key with the same id, and the right one may come back.
async fn failure_of(tx: &mut Tx, envelope: &Envelope, error: &DeliverError) -> Result<Failure, db::Error> {
    match error {
        DeliverError::Unreadable { error: OpenError::UnknownKey(_), .. } => Ok(Failure::Key),
        DeliverError::Unreadable { error: OpenError::Refused, item } => {
            match stock::key_opens_other_items(tx, envelope, item).await? {
                true => Ok(Failure::Goods),
                false => Ok(Failure::Key),
            }
        }
        DeliverError::Unreadable { error: OpenError::Malformed, .. } | DeliverError::Missing { .. } => {
            Ok(Failure::Goods)
        }
        DeliverError::Db(error) => Err(error.clone()),
    }
}

/// Notes a failed attempt. After the last one the order has failed, and a person has to look; at once, where a key is missing.
async fn postpone(
    tx: &mut Tx,
    now: Instant,
    envelope: &Envelope,
    id: OrderId,
    why: &DeliverError,
) -> Result<(), db::Error> {
    let Some(attempts) = store::claim(tx, now, id).await? else { return Ok(()) };
    let Some(order) = deliverable(tx, now, id).await? else { return Ok(()) };
    let failure = failure_of(tx, envelope, why).await?;
    if failure == Failure::Key {
        let detail = format!("order {} is paid and waits until its goods can be read: {why}", order.order_no);
        reviews::open(tx, now, UNREADABLE, &order.public_id, &detail).await?;
    }
    match machine::after_failure(failure, attempts) {
        Next::Retry { attempts, after_ms } => store::set_next(tx, id, attempts, now.plus_ms(after_ms)).await,
        Next::GiveUp => {
            for line in orders::list_lines(tx, &order).await? {
                orders::set_line_state(tx, now, line.id, LineState::Failed).await?;
            }
            let order = orders::advance(tx, now, order, State::Failed).await?;
            orders::record(tx, now, &order, events::Kind::OrderFailed).await?;
            let detail = format!("order {} is paid and could not be delivered: {why}", order.order_no);
            reviews::open(tx, now, reviews::Kind::OrderUndeliverable, &order.public_id, &detail).await?;
            reviews::resolve(tx, now, UNREADABLE, &order.public_id, "the order failed for another reason").await?;
            store::delete(tx, id).await
        }
    }
}

/// Subject and body, in English and Chinese.
fn letter(order: &Order, letters: &EmailTemplates) -> (String, String) {
    let number = &order.order_no;
    let subject = format!("Order {number} is complete / 订单 {number} 已完成");
    let url = letters.order_url.replace("{order_no}", number);
    let (colon, wide_colon, end, wide_end) = if url.is_empty() { ("", "", ".", "。") } else { (": ", "：", "", "") };
    let body = format!(
        "Your order {number} is complete. Look it up with its number and this e-mail address{colon}{url}{end}\n\n\
         您的订单 {number} 已完成。请使用订单号和此邮箱查询{wide_colon}{url}{wide_end}\n"
    );
    (subject, body)
}
