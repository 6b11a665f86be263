//! All SQL of addresses and their account keys.

use std::collections::BTreeSet;
use std::ops::Range;

use chain::{AccountKeyBytes, Address, AddressKey, ChainId, Height};

use crate::addresses::mark::{family_to_text, parse_family};
use crate::addresses::{AddressMark, InitialBalance, LeasedIndices, MarkedAccount};
use clock::Instant;
use db::{self, ResultRef, Tx, batch_row, deferred_for_each, execute, queued, row, rows};
use ids::AddressId;

/// Returns the id of the account with this key. Inserts the account when it is new, without leased indices.
pub async fn find_or_insert_address_account(
    tx: &mut Tx,
    key: &AccountKeyBytes,
    account: &MarkedAccount,
) -> Result<i64, db::Error> {
    execute!(
        tx,
        "insert into address_accounts (family, key, purpose, mode, path, next_index) values ($1, $2, $3, $4, $5, 0)
         on conflict (key) do nothing",
        family_to_text(account.family),
        key.0,
        &account.purpose,
        account.mode,
        &account.path
    )?;
    let found = row!(tx, "select id from address_accounts where key = $1", key.0)?;
    found.ok_or_else(|| db::Error::Statement("the account key is not stored".into()))?.get("id")
}

/// Returns all accounts with their ids and key bytes.
pub async fn list_address_accounts(tx: &mut Tx) -> Result<Vec<(i64, AccountKeyBytes, MarkedAccount)>, db::Error> {
    let found = rows!(tx, "select id, family, key, purpose, mode, path, next_index from address_accounts order by id")?;
    let account = |row: &db::Row| {
        let family: String = row.get("family")?;
        let unknown = || db::Error::Value { column: "family".into(), reason: format!("`{family}` is no family") };
        let account = MarkedAccount {
            family: parse_family(&family).ok_or_else(unknown)?,
            purpose: row.get("purpose")?,
            mode: row.get("mode")?,
            path: row.get("path")?,
            next_index: row.get("next_index")?,
        };
        Ok((row.get("id")?, AccountKeyBytes(row.get("key")?), account))
    };
    found.iter().map(account).collect()
}

/// Returns the epoch of the issued addresses.
pub async fn find_newest_daemon_epoch(tx: &mut Tx) -> Result<u64, db::Error> {
    let found = row!(tx, "select epoch from address_epochs where id = 1")?;
    found.ok_or_else(|| db::Error::Statement("the epoch of the addresses is not stored".into()))?.get("epoch")
}

/// Raises the epoch to one more than the stored one and `other`, and returns it.
pub async fn raise_epoch_above(tx: &mut Tx, other: u64) -> Result<u64, db::Error> {
    let epoch = find_newest_daemon_epoch(tx).await?.max(other).saturating_add(1);
    execute!(tx, "update address_epochs set epoch = $1 where id = 1", epoch)?;
    Ok(epoch)
}

/// Returns the high-water mark of the database.
pub async fn load_database_mark(tx: &mut Tx) -> Result<AddressMark, db::Error> {
    let accounts = list_address_accounts(tx).await?.into_iter().map(|(_, key, account)| (key, account)).collect();
    Ok(AddressMark { epoch: find_newest_daemon_epoch(tx).await?, accounts })
}

/// Returns one more than the highest issued index of an account; 0 when none was issued.
pub async fn find_issued_index_end(tx: &mut Tx, account: i64) -> Result<u32, db::Error> {
    let found = row!(tx, "select max(derivation_index) as highest from addresses where account_id = $1", account)?;
    let highest: Option<u32> = found.map_or(Ok(None), |row| row.get("highest"))?;
    Ok(highest.map_or(0, |highest| highest.saturating_add(1)))
}

/// Moves the next index of an account from the start to the end of `indices`, and stores them as skipped.
pub async fn skip_indices(tx: &mut Tx, account: i64, indices: Range<u32>) -> Result<(), db::Error> {
    execute!(
        tx,
        "insert into address_leases (account_id, first_index, index_count, height) values ($1, $2, $3, 0)",
        account,
        indices.start,
        indices.end.saturating_sub(indices.start)
    )?;
    let moved = execute!(
        tx,
        "update address_accounts set next_index = $3 where id = $1 and next_index = $2",
        account,
        indices.start,
        indices.end
    )?;
    db::expect_changed(moved, 1)
}

/// Returns the leases of an account that have indices without an issued address on `chain`, with these indices. Skipped
/// indices belong to every chain.
pub async fn list_unissued_indices(tx: &mut Tx, account: i64, chain: &ChainId) -> Result<Vec<u32>, db::Error> {
    let leases = rows!(
        tx,
        "select first_index, index_count, issued from (
             select l.first_index, l.index_count, (
                 select count(*) from addresses a where a.account_id = l.account_id
                 and a.derivation_index >= l.first_index and a.derivation_index < l.first_index + l.index_count) as issued
             from address_leases l where l.account_id = $1 and (l.chain = $2 or l.chain is null)) leased
         where issued < index_count",
        account,
        chain.as_str()
    )?;
    let mut unissued = Vec::new();
    for lease in &leases {
        let (first, count): (u32, u32) = (lease.get("first_index")?, lease.get("index_count")?);
        let end = first.saturating_add(count);
        let issued = rows!(
            tx,
            "select derivation_index from addresses
             where account_id = $1 and derivation_index >= $2 and derivation_index < $3",
            account,
            first,
            end
        )?;
        let issued: BTreeSet<u32> = issued.iter().map(|row| row.get_at(0)).collect::<Result<_, db::Error>>()?;
        unissued.extend((first..end).filter(|index| !issued.contains(index)));
    }
    Ok(unissued)
}

/// Leases the next `count` indices of an account for addresses on `chain`, and returns the first of them. `height` is the
/// height of the highest known block of the chain. Fails when the epoch has changed since the daemon started.
pub async fn lease_indices(
    tx: &mut Tx,
    (account, epoch): (i64, u64),
    count: u32,
    chain: &ChainId,
    height: Height,
) -> Result<u32, db::Error> {
    let taken = row!(
        tx,
        "update address_accounts set next_index = next_index + $2
         where id = $1 and exists (select 1 from address_epochs where epoch = $3) returning next_index - $2 as first",
        account,
        count,
        epoch
    )?;
    let fenced =
        || db::Error::Statement("`settled restore` has run since this daemon started; restart the daemon".into());
    let first: u32 = taken.ok_or_else(fenced)?.get("first")?;
    execute!(
        tx,
        "insert into address_leases (account_id, first_index, index_count, chain, height) values ($1, $2, $3, $4, $5)",
        account,
        first,
        count,
        chain.as_str(),
        height
    )?;
    Ok(first)
}

/// Returns the oldest lease of an account for a chain whose initial balances are not stored; `None` when there is none.
pub async fn find_lease_without_balances(
    tx: &mut Tx,
    account: i64,
    chain: &ChainId,
) -> Result<Option<LeasedIndices>, db::Error> {
    let found = row!(
        tx,
        "select account_id, first_index, index_count, height from address_leases
         where chain = $1 and account_id = $2 and balances_height is null order by first_index limit 1",
        chain.as_str(),
        account
    )?;
    let lease = |row: db::Row| {
        let first: u32 = row.get("first_index")?;
        Ok(LeasedIndices {
            account: row.get("account_id")?,
            indices: first..first.saturating_add(row.get::<u32>("index_count")?),
            height: row.get("height")?,
        })
    };
    found.map(lease).transpose()
}

/// Stores the initial balances of a lease. Does nothing when they are already stored.
pub async fn insert_initial_balances(
    tx: &mut Tx,
    lease: &LeasedIndices,
    balances: &[InitialBalance],
) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update address_leases set balances_height = $3
         where account_id = $1 and first_index = $2 and balances_height is null",
        lease.account,
        lease.indices.start,
        lease.height
    )?;
    if changed == 0 {
        return Ok(());
    }
    deferred_for_each!(
        tx,
        balances.iter().map(|balance| batch_row![balance.index, balance.asset.as_str(), balance.amount]).collect(),
        "with given (derivation_index bigint, asset text, amount bytea)
         insert into initial_balances (account_id, derivation_index, asset, amount)
         select $1, given.derivation_index, given.asset, given.amount from given",
        lease.account
    )
}

/// Queues the statement that inserts an issued address. The result refers to the id of the new address.
pub fn queue_address_insert(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    address: &Address,
    account: i64,
    index: u32,
) -> ResultRef<AddressId> {
    queued!(
        tx,
        "insert into addresses (chain, key, text, account_id, derivation_index, issued_at) values ($1, $2, $3, $4, $5, $6) returning id",
        chain.as_str(),
        address.key.0,
        &address.text,
        account,
        index,
        now
    )
}

/// Returns at most `limit` keys of addresses that were issued on a chain, in ascending order: the keys above `after`,
/// or the lowest keys when `after` is `None`. The query reads only the unique index on chain and key.
pub async fn list_address_keys_after(
    tx: &mut Tx,
    chain: &ChainId,
    after: Option<AddressKey>,
    limit: i64,
) -> Result<Vec<AddressKey>, db::Error> {
    let after = after.map_or_else(Vec::new, |key| key.0.to_vec());
    let found = rows!(
        tx,
        "select key from addresses where chain = $1 and key > $2 order by key limit $3",
        chain.as_str(),
        after,
        limit
    )?;
    found.iter().map(|row| row.get_at(0).map(AddressKey)).collect()
}
