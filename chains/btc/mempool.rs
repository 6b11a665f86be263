//! Reads the transactions of a node's mempool and caches their transfers, so that the driver fetches each transaction
//! only once.

use std::{collections::HashMap, time::Instant};

use chain::{
    Address, AddressKey, Amount, AssetId, SourceError, TxId, TxPart, UnconfirmedTransfer, WatchSet,
    watch::WatchedAddresses,
};
use rpc::RpcError;

use crate::{
    Backend, Bitcoin, bitcoin_core, esplora,
    hashes::to_display_order,
    paid_output::AddressType,
    transaction::{ByteReader, MalformedTransaction, Output},
};

/// Maximum number of mempool transactions that one call fetches from the operator's node.
const CORE_FETCHES_MAX: usize = 20_000;
/// Maximum number of mempool transactions that one call fetches from a public server.
const ESPLORA_FETCHES_MAX: usize = 200;
/// If the mempool of a public server has at most this number of transactions, the driver fetches all of them. If it has
/// more, the driver requests only the transactions of the addresses that expect a payment.
const ESPLORA_MEMPOOL_MAX: usize = 5_000;

/// The cached transfers to watched addresses, by mempool transaction. A fetched transaction without such a transfer has
/// an empty list, so that it is not fetched again.
#[derive(Debug, Default)]
pub struct MempoolIndex(HashMap<TxId, Vec<UnconfirmedTransfer>, ahash::RandomState>);

impl MempoolIndex {
    /// Removes the cached transactions that are not in `listed`, the ids that the node lists. Returns the ids in
    /// `listed` that are not cached, in the same order; the caller fetches and adds them.
    pub fn retain_listed_and_find_new(&mut self, listed: &[TxId]) -> Vec<TxId> {
        let mut kept = HashMap::with_capacity_and_hasher(listed.len(), ahash::RandomState::default());
        let mut new = Vec::new();
        for txid in listed {
            match self.0.remove(txid) {
                Some(transfers) => drop(kept.insert(*txid, transfers)),
                None => new.push(*txid),
            }
        }
        self.0 = kept;
        new
    }

    /// Adds a transaction with its transfers to watched addresses. The list of transfers may be empty.
    pub fn add_transaction(&mut self, txid: TxId, transfers: Vec<UnconfirmedTransfer>) {
        self.0.insert(txid, transfers);
    }

    /// Returns all transfers to watched addresses, ordered by transaction and output.
    pub fn list_unconfirmed_transfers(&self) -> Vec<UnconfirmedTransfer> {
        let mut all: Vec<UnconfirmedTransfer> = self.0.values().flatten().cloned().collect();
        all.sort_by_key(|unconfirmed| (unconfirmed.txid, unconfirmed.part));
        all
    }
}

/// Parses a mempool transaction and returns its transfers to watched addresses. Outputs of 0 satoshi are left out.
///
/// # Errors
/// Fails if the bytes are not a complete transaction, or if the id of the transaction is not `txid`.
fn parse_watched_unconfirmed_transfers(
    bytes: &[u8],
    txid: TxId,
    address_type: AddressType,
    asset: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<UnconfirmedTransfer>, String> {
    let malformed = |error: MalformedTransaction| format!("transaction {txid}: {error}");
    let mut reader = ByteReader::new(bytes);
    let mut found = Vec::new();
    let tx = reader
        .read_transaction(|Output { vout, sats, script }| {
            if let Some(to) = address_type.parse_key_of_matching_script(script).filter(|key| watched.contains(key)) {
                found.push((vout, to, sats));
            }
        })
        .map_err(malformed)?;
    if !reader.is_empty() {
        return Err(malformed(MalformedTransaction));
    }
    let parsed_txid = TxId(to_display_order(tx.compute_txid()));
    if parsed_txid != txid {
        return Err(format!("requested transaction {txid}, got {parsed_txid}"));
    }
    let to_unconfirmed = |(vout, to, sats): (u32, AddressKey, u64)| UnconfirmedTransfer {
        txid,
        part: TxPart::Output(vout),
        asset: asset.clone(),
        to,
        amount: Amount::from(sats),
        replaceable: tx.is_replaceable,
    };
    Ok(found.into_iter().filter(|(_, _, sats)| *sats > 0).map(to_unconfirmed).collect())
}

impl Bitcoin {
    /// Returns the transfers to watched addresses in the mempool. Fetches each mempool transaction only once. Returns
    /// `None` if the mempool of a public server is too large and the next look-up of single addresses is not due.
    ///
    /// # Errors
    /// Fails until all listed transactions have been fetched. An incomplete list would be wrong, because the caller
    /// treats a transaction that is missing from it as dropped.
    pub(crate) async fn refresh_and_list_unconfirmed(
        &self,
        watched: &WatchSet,
        expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        let (listed, fetches_max) = match self.config.backend {
            Backend::Core => (bitcoin_core::list_mempool_txids(&self.pool).await.map(Some), CORE_FETCHES_MAX),
            Backend::Esplora => (self.list_all_or_expected_mempool_txids(expecting_payment).await, ESPLORA_FETCHES_MAX),
        };
        let Some(listed) = listed.map_err(|error| error.into_source_error(0))? else { return Ok(None) };
        let mut mempool = self.mempool.lock().await;
        let new = mempool.retain_listed_and_find_new(&listed);
        let requested = &new[..new.len().min(fetches_max)];
        let fetched = self.fetch_transactions_until_failure(requested).await?;
        let missing = new.len() - fetched.len();
        let (address_type, asset) = (self.config.address_type, &self.config.asset.id);
        for (txid, raw) in requested.iter().zip(fetched) {
            let Some(raw) = raw else { continue };
            let transfers =
                parse_watched_unconfirmed_transfers(&raw, *txid, address_type, asset, &watched.lock_addresses());
            mempool.add_transaction(*txid, transfers.map_err(SourceError::InvalidResponse)?);
        }
        if missing > 0 {
            return Err(SourceError::Unavailable(format!("{missing} transactions of the mempool are not fetched yet")));
        }
        Ok(Some(mempool.list_unconfirmed_transfers()))
    }

    /// Fetches mempool transactions. An item is `None` if the transaction left the mempool. The list is shorter than
    /// `txids` if a request fails.
    async fn fetch_transactions_until_failure(&self, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, SourceError> {
        match self.config.backend {
            Backend::Core => bitcoin_core::fetch_transactions_until_failure(&self.pool, txids).await,
            Backend::Esplora => esplora::fetch_transactions_until_failure(&self.pool, txids).await,
        }
        .map_err(|error| error.into_source_error(0))
    }

    /// Returns the ids of the mempool transactions of a public server. If its mempool is too large, returns only the
    /// transactions of the addresses that expect a payment, or `None` if the last look-up of addresses was less than
    /// `address_pause` ago.
    async fn list_all_or_expected_mempool_txids(
        &self,
        expecting_payment: &[Address],
    ) -> Result<Option<Vec<TxId>>, RpcError> {
        if esplora::count_mempool_transactions(&self.pool).await?
            <= u64::try_from(ESPLORA_MEMPOOL_MAX).unwrap_or(u64::MAX)
        {
            let txids = esplora::list_mempool_txids(&self.pool).await?;
            // The count and the list may come from different servers, so the length of the list is checked too.
            if txids.len() <= ESPLORA_MEMPOOL_MAX {
                return Ok(Some(txids));
            }
        }
        if !self.start_address_lookup_if_due() {
            return Ok(None);
        }
        esplora::list_mempool_txids_by_address(&self.pool, expecting_payment).await.map(Some)
    }

    /// Returns true and starts the next pause if `address_pause` has passed since the last look-up of single addresses.
    /// Otherwise returns false.
    fn start_address_lookup_if_due(&self) -> bool {
        let mut last = self.addresses_looked_up_at.lock().expect("no panic while the time is locked");
        let is_due = last.is_none_or(|looked_up_at| looked_up_at.elapsed() >= self.config.address_pause);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unconfirmed_transfer(txid: TxId) -> UnconfirmedTransfer {
        let (to, asset) = (AddressKey([1; 20]), AssetId::from_stored("bitcoin/native"));
        UnconfirmedTransfer { txid, part: TxPart::Output(0), asset, to, amount: Amount::from(5), replaceable: true }
    }

    #[test]
    fn each_transaction_is_listed_as_new_once_and_forgotten_when_it_is_gone() {
        let [a, b, c] = [1, 2, 3].map(|n| TxId([n; 32]));
        let mut mempool = MempoolIndex::default();
        assert_eq!(mempool.retain_listed_and_find_new(&[a, b]), [a, b]);
        mempool.add_transaction(a, vec![unconfirmed_transfer(a)]);
        mempool.add_transaction(b, Vec::new());
        assert_eq!(mempool.retain_listed_and_find_new(&[c, b, a]), [c]);
        mempool.add_transaction(c, vec![unconfirmed_transfer(c)]);
        assert_eq!(mempool.list_unconfirmed_transfers(), [unconfirmed_transfer(a), unconfirmed_transfer(c)]);
        assert_eq!(mempool.retain_listed_and_find_new(&[c]), []);
        assert_eq!(mempool.list_unconfirmed_transfers(), [unconfirmed_transfer(c)]);
        assert_eq!(mempool.retain_listed_and_find_new(&[a]), [a], "a transaction that came back is new again");
    }
}
