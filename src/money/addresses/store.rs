//! All SQL of addresses and their account keys.

use chain::{Address, AddressKey, ChainId, Family};

use crate::clock::Instant;
use crate::db::{self, Tx, execute, row, rows};
use crate::ids::AddressId;

const fn family_text(family: Family) -> &'static str {
    match family {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    }
}

pub async fn insert_or_find_account(tx: &mut Tx, family: Family, xpub: &str) -> Result<i64, db::Error> {
    execute!(
        tx,
        "insert into address_accounts (family, xpub, next_index) values ($1, $2, 0) on conflict (xpub) do nothing",
        family_text(family),
        xpub
    )?;
    let found = row!(tx, "select id from address_accounts where xpub = $1", xpub)?;
    found.ok_or_else(|| db::Error::Statement("an account key vanished".into()))?.get("id")
}

/// Takes the next index; the counter's row stays locked until the transaction ends.
pub async fn set_next_index(tx: &mut Tx, account: i64) -> Result<u32, db::Error> {
    let taken = row!(
        tx,
        "update address_accounts set next_index = next_index + 1 where id = $1 returning next_index - 1 as taken",
        account
    )?;
    taken.ok_or_else(|| db::Error::Statement("an account key vanished".into()))?.get("taken")
}

pub async fn insert_address(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    address: &Address,
    account: i64,
    index: u32,
) -> Result<AddressId, db::Error> {
    let inserted = row!(
        tx,
        "insert into addresses (chain, key, text, account_id, idx, issued_at) values ($1, $2, $3, $4, $5, $6) returning id",
        chain.as_str(),
        address.key.0,
        &address.text,
        account,
        index,
        now
    )?;
    inserted.ok_or_else(|| db::Error::Statement("an insert returned no row".into()))?.get("id")
}

pub async fn list_keys(tx: &mut Tx, chain: &ChainId) -> Result<Vec<AddressKey>, db::Error> {
    let found = rows!(tx, "select key from addresses where chain = $1", chain.as_str())?;
    found.iter().map(|row| row.at(0).map(AddressKey)).collect()
}
