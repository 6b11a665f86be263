//! All SQL of idempotency keys.

use crate::idempotency::{Call, StoredAnswer};
use clock::Instant;
use db::{self, Tx, execute, expect_changed, row};

/// Inserts an idempotency key without an answer and returns true. Returns false when the key exists already. When
/// another running transaction has inserted the key, the statement waits until that transaction has ended.
pub async fn insert_key_without_answer_if_new(
    tx: &mut Tx,
    now: Instant,
    expires_at: Option<Instant>,
    call: &Call,
) -> Result<bool, db::Error> {
    let n = execute!(
        tx,
        "insert into idempotency_keys (scope, key, fingerprint, response_status, response_body, created_at, expires_at)
         values ($1, $2, $3, 0, '', $4, $5) on conflict (scope, key) do nothing",
        &call.scope,
        &call.key,
        call.fingerprint,
        now,
        expires_at
    )?;
    Ok(n == 1)
}

/// Returns the stored request fingerprint and answer of an idempotency key; `None` when the key is not stored.
pub async fn find_fingerprint_and_answer(
    tx: &mut Tx,
    call: &Call,
) -> Result<Option<([u8; 32], StoredAnswer)>, db::Error> {
    let found = row!(
        tx,
        "select fingerprint, response_status, response_body from idempotency_keys where scope = $1 and key = $2",
        &call.scope,
        &call.key
    )?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some((
        row.get("fingerprint")?,
        StoredAnswer { status: row.get("response_status")?, body: row.get("response_body")? },
    )))
}

/// Stores the answer of a claimed idempotency key. Fails when the key has an answer already.
pub async fn set_first_answer(tx: &mut Tx, scope: &str, key: &str, answer: &StoredAnswer) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "update idempotency_keys set response_status = $3, response_body = $4
         where scope = $1 and key = $2 and response_status = 0",
        scope,
        key,
        answer.status,
        &answer.body
    )?;
    expect_changed(n, 1)
}

/// Deletes at most `limit` expired idempotency keys and returns the number of deleted keys.
pub async fn delete_expired_keys(tx: &mut Tx, now: Instant, limit: u32) -> Result<u64, db::Error> {
    execute!(
        tx,
        "delete from idempotency_keys where (scope, key) in
            (select scope, key from idempotency_keys where expires_at <= $1 limit $2)",
        now,
        limit
    )
}
