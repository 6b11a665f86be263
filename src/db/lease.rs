//! Leases: the right of one of several instances to do a piece of work until a certain time.
//!
//! Each lease has an epoch, a number that grows with every change of the owner, so that an update with an old epoch can
//! be refused. An owner may not notice that its lease has expired and may continue its work. So work that must never
//! happen twice must check the epoch or be idempotent.

use crate::{Bind, Error, FromValue, Tx, Value, execute, row};
use clock::Instant;

/// A number of a lease, from 1. It grows whenever the owner changes, so that work of an earlier owner can be refused
/// (fencing token).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl From<Epoch> for Bind {
    fn from(epoch: Epoch) -> Bind {
        Bind::Int(epoch.0)
    }
}

impl FromValue for Epoch {
    fn from_value(value: &Value) -> Option<Epoch> {
        i64::from_value(value).map(Epoch)
    }
}

/// Acquires a lease that is free, expired or already owned by `owner`, for `ttl_ms` milliseconds. Returns `None` while
/// another owner has the lease. When an owner acquires its own lease again, the lease is prolonged and the epoch stays
/// the same.
///
/// # Errors
/// Any [`Error`] of the database.
pub async fn acquire_lease_if_free_or_own(
    tx: &mut Tx,
    now: Instant,
    name: &str,
    owner: &str,
    ttl_ms: i64,
) -> Result<Option<Epoch>, Error> {
    let acquired = row!(
        tx,
        "insert into leases (name, owner, epoch, expires_at) values ($1, $2, 1, $3)
         on conflict (name) do update set
            epoch = leases.epoch + case when leases.owner = excluded.owner and leases.expires_at > $4 then 0 else 1 end,
            owner = excluded.owner, expires_at = excluded.expires_at
         where leases.owner = excluded.owner or leases.expires_at <= $4
         returning epoch",
        name,
        owner,
        now.plus_ms(ttl_ms),
        now
    )?;
    acquired.map(|row| row.get("epoch")).transpose()
}

/// Takes a lease from any owner, even if it has not expired, and raises the epoch. The lease then never expires. Call
/// this function only where another mechanism, such as the instance lock, gives the right to the lease.
///
/// # Errors
/// Any [`Error`] of the database.
pub async fn take_over_lease(tx: &mut Tx, name: &str, owner: &str) -> Result<Epoch, Error> {
    let taken = row!(
        tx,
        "insert into leases (name, owner, epoch, expires_at) values ($1, $2, 1, $3)
         on conflict (name) do update set epoch = leases.epoch + 1, owner = excluded.owner, expires_at = excluded.expires_at
         returning epoch",
        name,
        owner,
        i64::MAX
    )?;
    taken.ok_or_else(|| Error::Statement("an upsert returned no row".into()))?.get("epoch")
}

/// Sets a lease to expire `ttl_ms` milliseconds after `now`, even if it has already expired. Returns false and changes
/// nothing when the lease has another owner or epoch now.
///
/// # Errors
/// Any [`Error`] of the database.
pub async fn renew_lease_if_owned(
    tx: &mut Tx,
    now: Instant,
    name: &str,
    owner: &str,
    epoch: Epoch,
    ttl_ms: i64,
) -> Result<bool, Error> {
    let changed = execute!(
        tx,
        "update leases set expires_at = $4 where name = $1 and owner = $2 and epoch = $3",
        name,
        owner,
        epoch,
        now.plus_ms(ttl_ms)
    )?;
    Ok(changed == 1)
}

/// Ends a lease now, so that another owner can acquire it. Returns false when the lease has another owner now.
///
/// # Errors
/// Any [`Error`] of the database.
pub async fn release_lease_if_owned(
    tx: &mut Tx,
    now: Instant,
    name: &str,
    owner: &str,
    epoch: Epoch,
) -> Result<bool, Error> {
    renew_lease_if_owned(tx, now, name, owner, epoch, 0).await
}

/// Locks the row of a lease until the end of the transaction. Returns true when `owner` still has the lease with this
/// epoch and the lease has not expired. Call this function first in a transaction that only the owner of the lease may
/// run.
///
/// # Errors
/// Any [`Error`] of the database.
pub async fn lock_lease_if_owned(
    tx: &mut Tx,
    now: Instant,
    name: &str,
    owner: &str,
    epoch: Epoch,
) -> Result<bool, Error> {
    let owned = row!(
        tx,
        "select epoch from leases where name = $1 and owner = $2 and epoch = $3 and expires_at > $4 for update",
        name,
        owner,
        epoch,
        now
    )?;
    Ok(owned.is_some())
}
