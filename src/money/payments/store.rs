//! All SQL of payments.

use crate::payments::{NewPayment, State};
use clock::Instant;
use db::{self, ResultRef, Tx, batch_row, deferred_for_each, execute, queued, row};
use ids::{OrderId, PaymentId};

/// Queues the statement that inserts a payment. The result refers to the id of the new payment.
pub fn queue_payment_insert(tx: &mut Tx, now: Instant, new: &NewPayment) -> ResultRef<PaymentId> {
    let rate = new.taken.as_ref().and_then(|taken| taken.rate.clone());
    let (rate, source, rated_at) =
        rate.map(|(rate, source, at)| (Some(rate), Some(source), Some(at))).unwrap_or_default();
    queued!(
        tx,
        "insert into payments (public_id, order_id, merchant_id, mode, method, state, user_id, asset, amount, pay_url,
         provider_ref, rate, rate_source, rated_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) returning id",
        ids::generate_public_id(now).to_string(),
        new.order,
        new.shop.merchant,
        new.shop.mode,
        new.method,
        new.state,
        new.user,
        new.taken.as_ref().map(|taken| taken.asset.as_str()),
        new.taken.as_ref().map(|taken| taken.amount),
        new.pay_url.as_deref(),
        new.provider_ref.as_deref(),
        rate,
        source,
        rated_at,
        now
    )
}

/// Returns the id of the order that the payment is for; `None` when the payment does not exist.
pub async fn find_order_of_payment(tx: &mut Tx, id: PaymentId) -> Result<Option<OrderId>, db::Error> {
    let found = row!(tx, "select order_id from payments where id = $1", id)?;
    found.map(|row| row.get("order_id")).transpose()
}

/// Returns the payment of an order with the highest id; `None` when the order has none.
pub async fn find_newest_payment(tx: &mut Tx, order: OrderId) -> Result<Option<PaymentId>, db::Error> {
    let found = row!(tx, "select id from payments where order_id = $1 order by id desc limit 1", order)?;
    found.map(|row| row.get("id")).transpose()
}

/// Sets the states of payments. When the new state is success, failed or expired, also sets the closing time; otherwise
/// clears it.
pub async fn set_payment_states_and_closing_times(
    tx: &mut Tx,
    now: Instant,
    to: &[(PaymentId, State)],
) -> Result<(), db::Error> {
    let given = to.iter().map(|(id, state)| {
        let closed_at = match state {
            State::Pending | State::Confirming => None,
            State::Success | State::Failed | State::Expired => Some(now),
        };
        batch_row![*id, *state, closed_at]
    });
    deferred_for_each!(
        tx,
        given.collect(),
        "with given (id bigint, state text, closed_at bigint)
         update payments set state = given.state, closed_at = given.closed_at from given where payments.id = given.id"
    )
}

/// Closes a pending external payment (Alipay, WeChat Pay) and returns true. Returns false when the payment is in
/// another state or uses another method.
pub async fn close_pending_external_payment(
    tx: &mut Tx,
    now: Instant,
    id: PaymentId,
    to: State,
) -> Result<bool, db::Error> {
    let changed = execute!(
        tx,
        "update payments set state = $2, closed_at = $3
         where id = $1 and state = 'pending' and method in ('alipay', 'wechat')",
        id,
        to,
        now
    )?;
    Ok(changed == 1)
}
