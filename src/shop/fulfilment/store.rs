//! All SQL of the table `fulfilments`: the scheduled deliveries.

use clock::Instant;
use db::{self, Bind, ResultRef, Tx, execute, expect_changed, queued, row, rows};
use ids::OrderId;

/// Queues the statement that schedules the delivery of an order at the time `now`. The statement changes nothing and
/// returns no row when the delivery is already scheduled.
pub fn queue_delivery_insert_if_missing(tx: &mut Tx, now: Instant, order: Bind) -> ResultRef<OrderId> {
    queued!(
        tx,
        "insert into fulfilments (order_id, attempts, next_attempt_at) values ($1, 0, $2)
         on conflict (order_id) do nothing returning order_id as id",
        order,
        now
    )
}

/// Returns at most `limit` orders whose delivery is due. Orders whose delivery has been due for the longest time come
/// first.
pub async fn list_due_orders(tx: &mut Tx, now: Instant, limit: u32) -> Result<Vec<OrderId>, db::Error> {
    let due = rows!(
        tx,
        "select order_id from fulfilments where next_attempt_at <= $1 order by next_attempt_at limit $2",
        now,
        limit
    )?;
    due.iter().map(|row| row.get("order_id")).collect()
}

/// Locks the scheduled delivery of an order and returns its number of failed attempts. `None` when the delivery does
/// not exist, is not due, or is locked by another transaction.
pub async fn try_lock_due_delivery(tx: &mut Tx, now: Instant, order: OrderId) -> Result<Option<u32>, db::Error> {
    let found = row!(
        tx,
        "select attempts from fulfilments where order_id = $1 and next_attempt_at <= $2 for update skip locked",
        order,
        now
    )?;
    found.map(|row| row.get("attempts")).transpose()
}

/// Sets the number of failed delivery attempts of an order and the time of the next attempt.
pub async fn set_next_delivery_attempt(
    tx: &mut Tx,
    order: OrderId,
    attempts: u32,
    next_at: Instant,
) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "update fulfilments set attempts = $2, next_attempt_at = $3 where order_id = $1",
        order,
        attempts,
        next_at
    )?;
    expect_changed(n, 1)
}

/// Deletes the scheduled delivery of an order and returns the number of deleted rows.
pub async fn delete_scheduled_delivery(tx: &mut Tx, order: OrderId) -> Result<u64, db::Error> {
    execute!(tx, "delete from fulfilments where order_id = $1", order)
}
