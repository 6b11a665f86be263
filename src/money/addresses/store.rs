//! All SQL of addresses and their account keys.

use chain::{Address, AddressKey, ChainId, Family};

use clock::Instant;
use db::{self, ResultRef, Tx, execute, queued, row, rows};
use ids::AddressId;

/// Returns the text that the database stores for a chain family.
const fn family_to_stored_text(family: Family) -> &'static str {
    match family {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    }
}

/// Returns the database id of the account with this extended public key. Inserts the account first when it is not
/// stored yet.
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

/// Leases the next `count` indices of an account and returns the first of them.
pub async fn lease_indices(tx: &mut Tx, account: i64, count: u32) -> Result<u32, db::Error> {
    let taken = row!(
        tx,
        "update address_accounts set next_index = next_index + $2 where id = $1 returning next_index - $2 as first",
        account,
        count
    )?;
    taken.ok_or_else(|| db::Error::Statement("the account key is not stored".into()))?.get("first")
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
