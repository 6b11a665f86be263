//! All SQL of fulfilments.

use clock::Instant;
use db::{self, Tx, execute, expect_changed, row, rows};
use ids::OrderId;

pub async fn list_due(tx: &mut Tx, now: Instant, limit: u32) -> Result<Vec<OrderId>, db::Error> {
    let due = rows!(
        tx,
        "select order_id from fulfilments where next_attempt_at <= $1 order by next_attempt_at limit $2",
        now,
        limit
    )?;
    due.iter().map(|row| row.get("order_id")).collect()
}

/// How many attempts failed, when the work is due and nobody else is at it.
pub async fn claim(tx: &mut Tx, now: Instant, order: OrderId) -> Result<Option<u32>, db::Error> {
    let found = row!(
        tx,
        "select attempts from fulfilments where order_id = $1 and next_attempt_at <= $2 for update skip locked",
        order,
        now
    )?;
    found.map(|row| row.get("attempts")).transpose()
}

pub async fn set_next(tx: &mut Tx, order: OrderId, attempts: u32, next_at: Instant) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "update fulfilments set attempts = $2, next_attempt_at = $3 where order_id = $1",
        order,
        attempts,
        next_at
    )?;
    expect_changed(n, 1)
}

pub async fn delete(tx: &mut Tx, order: OrderId) -> Result<(), db::Error> {
    let n = execute!(tx, "delete from fulfilments where order_id = $1", order)?;
    expect_changed(n, 1)
}
