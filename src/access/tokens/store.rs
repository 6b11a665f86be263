//! All SQL of user tokens.

use clock::Instant;
use db::{self, Tx, execute, expect_changed, row};
use ids::{Shop, UserId};

/// Inserts the hash of a user's token. When `expires_at` is `None`, the token never expires.
pub async fn insert_token_hash(
    tx: &mut Tx,
    now: Instant,
    user: UserId,
    hash: [u8; 32],
    expires_at: Option<Instant>,
) -> Result<(), db::Error> {
    let n = execute!(
        tx,
        "insert into user_tokens (user_id, hash, created_at, expires_at) values ($1, $2, $3, $4)",
        user,
        hash,
        now,
        expires_at
    )?;
    expect_changed(n, 1)
}

/// Returns the active user of the shop whose token has this hash; `None` when the token is unknown, revoked or expired,
/// and when the user is disabled or belongs to another shop.
pub async fn find_active_user_by_valid_token_hash(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    hash: [u8; 32],
) -> Result<Option<UserId>, db::Error> {
    let found = row!(
        tx,
        "select u.id, u.merchant_id, u.mode from user_tokens t join users u on u.id = t.user_id
         where t.hash = $1 and t.revoked_at is null and (t.expires_at is null or t.expires_at > $2)
           and u.state = 'active'",
        hash,
        now
    )?;
    // The shop is compared here and not in the statement, because PostgreSQL without table statistics would search the
    // user through the index on the shop instead of the index on the id.
    let Some(row) = found else { return Ok(None) };
    let owner = Shop { merchant: row.get("merchant_id")?, mode: row.get("mode")? };
    Ok((owner == shop).then_some(row.get("id")?))
}

/// Revokes the token with this hash and returns true. Returns false when the token is unknown or was revoked before.
pub async fn set_token_revoked(tx: &mut Tx, now: Instant, hash: [u8; 32]) -> Result<bool, db::Error> {
    let n = execute!(tx, "update user_tokens set revoked_at = $2 where hash = $1 and revoked_at is null", hash, now)?;
    Ok(n == 1)
}

/// Revokes all tokens of a user and returns the number of tokens that were not revoked before.
pub async fn set_all_tokens_revoked(tx: &mut Tx, now: Instant, user: UserId) -> Result<u64, db::Error> {
    execute!(tx, "update user_tokens set revoked_at = $2 where user_id = $1 and revoked_at is null", user, now)
}
