//! Leases: which of several instances does a piece of work, and until when.
//!
//! The epoch is a fence: it grows with every change of the holder, so an update that carries an old one can be refused.
//! A lease makes no promise about time; what must never happen twice is fenced or idempotent.

use crate::{Bind, Error, FromValue, Tx, Value, execute, row};
use clock::Instant;

/// Grows whenever a lease changes hands.
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

/// Takes a lease that is free, over or already ours; `None` while another owner holds it. Taking one's own again keeps
/// the epoch and prolongs it.
pub async fn acquire(tx: &mut Tx, now: Instant, name: &str, owner: &str, ttl_ms: i64) -> Result<Option<Epoch>, Error> {
    let taken = row!(
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
    taken.map(|row| row.get("epoch")).transpose()
}

/// Takes a lease whoever has it, for one whose right to it comes from elsewhere, and raises the epoch. It never ends.
pub async fn take(tx: &mut Tx, name: &str, owner: &str) -> Result<Epoch, Error> {
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

/// Prolongs a lease; false when it has changed hands since.
pub async fn renew(
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

/// Lets others take it at once; false when it has changed hands since.
pub async fn release(tx: &mut Tx, now: Instant, name: &str, owner: &str, epoch: Epoch) -> Result<bool, Error> {
    renew(tx, now, name, owner, epoch, 0).await
}

/// Locks the lease and says whether it is still held with this epoch: first statement of a fenced transaction.
pub async fn holds(tx: &mut Tx, now: Instant, name: &str, owner: &str, epoch: Epoch) -> Result<bool, Error> {
    let held = row!(
        tx,
        "select epoch from leases where name = $1 and owner = $2 and epoch = $3 and expires_at > $4 for update",
        name,
        owner,
        epoch,
        now
    )?;
    Ok(held.is_some())
}
