//! The specification of a model chain.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AddressKey, Amount, Asset, AssetId, AssetKind, ChainId, Family};
use ruint::aliases::U256;

use crate::chain_state::ChainRules;

/// The initial amount in each buyer's wallet on Bitcoin, in satoshi. The 64 wallets together have less than 21 million
/// bitcoin.
const BUYER_SATOSHI: u64 = 100_000 * 100_000_000;

/// On account-based chains, each buyer's wallet has 10 to the power of this number whole coins of every asset at the
/// start.
const ENDOWMENT_DIGITS: u8 = 9;

/// The specification of one model chain.
#[derive(Debug, Clone)]
pub struct ChainSpec {
    /// The configured name of the chain.
    pub chain: ChainId,
    /// The family, which decides the formats of addresses and transactions.
    pub family: Family,
    /// The listed assets. Transfers of all other assets are never reported; this holds for the native coin too if it is
    /// not listed.
    pub assets: Vec<Asset>,
    /// The rule by which the model marks a block as finalized.
    pub finality: FinalityMark,
}

/// The rule by which the model marks a block as finalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalityMark {
    /// The finalized block is this many blocks below the newest block.
    Depth(u64),
    /// No block is marked as finalized, as on Bitcoin, where only the number of confirmations counts.
    None,
}

impl ChainSpec {
    /// Returns the id of the chain's native coin, whether or not it is listed.
    pub fn native_asset_id(&self) -> AssetId {
        AssetId::on_chain(&self.chain, &AssetKind::Native)
    }

    /// Returns the facts of the chain that never change: family, native coin, the account `miner` that receives fees,
    /// and the initial balances of the accounts `funded`.
    pub(crate) fn build_chain_rules(&self, miner: AddressKey, funded: BTreeSet<AddressKey>) -> ChainRules {
        let native = self.native_asset_id();
        let mut endowment: BTreeMap<AssetId, Amount> = BTreeMap::new();
        endowment.insert(native.clone(), self.compute_initial_buyer_balance(18));
        endowment.extend(
            self.assets.iter().map(|asset| (asset.id.clone(), self.compute_initial_buyer_balance(asset.decimals))),
        );
        ChainRules { family: self.family, native, miner, funded, endowment }
    }

    /// Returns the initial balance of a buyer's wallet in base units, for an asset with this number of decimals.
    fn compute_initial_buyer_balance(&self, decimals: u8) -> Amount {
        match self.family {
            Family::Bitcoin => Amount::from(BUYER_SATOSHI),
            Family::Evm | Family::Tron => {
                let digits = U256::from(decimals.saturating_add(ENDOWMENT_DIGITS).min(60));
                Amount::new(U256::from(10).pow(digits))
            }
        }
    }
}
