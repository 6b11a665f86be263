//! The token contracts that the driver accepts on a chain, and the search for their transfers in the bloom filter of a
//! block.

use alloy_primitives::{Address, Bloom, BloomInput};
use chain::{Asset, AssetId, AssetKind, WatchSet, watch::WatchedAddresses};

use crate::{
    Evm,
    block::BlockBody,
    hex,
    logs::{TRANSFER_TOPIC, encode_address_topic},
};

/// The maximum number of watched addresses that are searched one by one in a block's bloom filter. With more addresses,
/// most blocks would match one of them by chance.
const BLOOM_LOOKUPS_MAX: usize = 1_000;

/// The accepted token contracts of a chain. A token is identified by its contract alone, and other tokens are never
/// credited.
#[derive(Debug, Clone)]
pub struct TokenContracts {
    entries: Vec<TokenContract>,
}

#[derive(Debug, Clone)]
struct TokenContract {
    address: Address,
    asset: AssetId,
    /// The bits that every transfer of this contract sets in a block's bloom filter.
    bloom: Bloom,
}

/// The error for a configured token whose contract is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a contract address")]
pub struct InvalidContract(pub String);

impl TokenContracts {
    /// Collects the token contracts among the assets of one chain.
    ///
    /// # Errors
    /// Fails when a contract is not an address.
    pub fn from_assets(assets: &[Asset]) -> Result<TokenContracts, InvalidContract> {
        let mut entries = Vec::new();
        for asset in assets {
            let AssetKind::Token { contract } = &asset.kind else { continue };
            let address = hex::parse_address(contract).ok_or_else(|| InvalidContract(contract.clone()))?;
            let mut bloom = Bloom::ZERO;
            bloom.accrue_raw_log(address, &[TRANSFER_TOPIC]);
            entries.push(TokenContract { address, asset: asset.id.clone(), bloom });
        }
        Ok(TokenContracts { entries })
    }

    /// Returns true when the chain has no accepted token contract.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of accepted token contracts.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the addresses of the accepted token contracts, in the order of their indexes.
    pub fn contract_addresses(&self) -> impl Iterator<Item = Address> {
        self.entries.iter().map(|entry| entry.address)
    }

    /// Returns the index of a contract in this list, or `None` when the contract is not accepted.
    pub fn find_contract_index(&self, address: &str) -> Option<usize> {
        let address = hex::parse_address(address)?;
        self.entries.iter().position(|entry| entry.address == address)
    }

    /// Returns the asset of a contract, or `None` when the contract is not accepted.
    pub fn find_asset(&self, address: &str) -> Option<&AssetId> {
        self.find_contract_index(address).map(|index| &self.entries[index].asset)
    }

    /// Returns true when there are so few watched addresses that each can be searched in a bloom filter.
    pub fn are_few_enough_for_bloom_lookup(&self, watched: &WatchedAddresses<'_>) -> bool {
        watched.len() <= BLOOM_LOOKUPS_MAX
    }

    /// Returns the indexes of the contracts that may have logged a transfer to a watched address in a block with this
    /// bloom filter. A bit that is not set proves that there is no such transfer; a bit may also be set by chance. The
    /// watched addresses are looked up in the filter only if there are at most 1,000; with more, only the contracts are
    /// looked up.
    pub fn list_contracts_with_possible_transfer(&self, bloom: &Bloom, watched: &WatchedAddresses<'_>) -> Vec<usize> {
        let is_in_bloom = |i: &usize| bloom.contains(&self.entries[*i].bloom);
        let possible: Vec<usize> = (0..self.entries.len()).filter(is_in_bloom).collect();
        let no_watched_address = !possible.is_empty()
            && self.are_few_enough_for_bloom_lookup(watched)
            && !watched.iter().any(|key| bloom.contains_input(BloomInput::Raw(&encode_address_topic(key))));
        if no_watched_address { Vec::new() } else { possible }
    }
}

impl Evm {
    /// Returns the indexes of the token contracts that may have logged a transfer to a watched address in this block.
    pub(crate) fn list_possible_contracts_of_block(&self, body: &BlockBody, watched: &WatchSet) -> Vec<usize> {
        if !self.config.verify.header {
            return (0..self.contracts.len()).collect();
        }
        self.contracts.list_contracts_with_possible_transfer(&body.bloom, &watched.lock_addresses())
    }

    /// Returns the addresses of all accepted token contracts, in the order of their indexes.
    pub(crate) fn list_contract_addresses(&self) -> Vec<Address> {
        self.contracts.contract_addresses().collect()
    }
}
