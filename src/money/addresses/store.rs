//! All SQL of addresses and their account keys.

use chain::{Address, AddressKey, ChainId, Family, Height};

use crate::addresses::{InitialBalance, LeasedIndices};
use clock::Instant;
use db::{self, ResultRef, Tx, batch_row, deferred_for_each, execute, queued, row, rows};
use ids::AddressId;

/// Returns the text that is stored for a family.
const fn family_to_stored_text(family: Family) -> &'static str {
    match family {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    }
}

/// Returns the id of the account with this key, and inserts the account when it is new.
pub async fn find_or_insert_address_account(tx: &mut Tx, family: Family, xpub: &str) -> Result<i64, db::Error> {
    execute!(
        tx,
        "insert into address_accounts (family, xpub, next_index) values ($1, $2, 0) on conflict (xpub) do nothing",
        family_to_stored_text(family),
        xpub
    )?;
    let found = row!(tx, "select id from address_accounts where xpub = $1", xpub)?;
    found.ok_or_else(|| db::Error::Statement("the account key is not stored".into()))?.get("id")
}

/// Leases the next `count` indices of an account for addresses on `chain`, and returns the first of them. `height` is the
/// height of the highest known block of the chain.
pub async fn lease_indices(
    tx: &mut Tx,
    account: i64,
    count: u32,
    chain: &ChainId,
    height: Height,
) -> Result<u32, db::Error> {
    let taken = row!(
        tx,
        "update address_accounts set next_index = next_index + $2 where id = $1 returning next_index - $2 as first",
        account,
        count
    )?;
    let first: u32 = taken.ok_or_else(|| db::Error::Statement("the account key is not stored".into()))?.get("first")?;
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
        "select account_id, first_index, index_count from address_leases
         where chain = $1 and account_id = $2 and balances_height is null order by first_index limit 1",
        chain.as_str(),
        account
    )?;
    let lease = |row: db::Row| {
        let first: u32 = row.get("first_index")?;
        Ok(LeasedIndices {
            account: row.get("account_id")?,
            indices: first..first.saturating_add(row.get::<u32>("index_count")?),
        })
    };
    found.map(lease).transpose()
}

/// Stores the initial balances of a lease, read after the block at `height`. Does nothing when they are already stored.
pub async fn insert_initial_balances(
    tx: &mut Tx,
    lease: &LeasedIndices,
    height: Height,
    balances: &[InitialBalance],
) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "update address_leases set balances_height = $3
         where account_id = $1 and first_index = $2 and balances_height is null",
        lease.account,
        lease.indices.start,
        height
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

/// Queues the statement that inserts an issued address. The result contains its id.
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

/// Returns the keys of all addresses that were issued on a chain.
pub async fn list_address_keys(tx: &mut Tx, chain: &ChainId) -> Result<Vec<AddressKey>, db::Error> {
    let found = rows!(tx, "select key from addresses where chain = $1", chain.as_str())?;
    found.iter().map(|row| row.get_at(0).map(AddressKey)).collect()
}
