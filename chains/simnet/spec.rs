//! The description of a model chain: its name, family, assets and finality.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AddressKey, Amount, Asset, AssetId, AssetKind, ChainId, Family};
use ruint::aliases::U256;

use crate::ledger::Rules;

/// Amount that each buyer's wallet owns at genesis on Bitcoin, in satoshi. The 64 wallets together own less than 21
/// million bitcoins.
const COIN_OF_A_BUYER: u64 = 100_000 * 100_000_000;

/// Power of ten of the whole coins of every asset that each buyer's wallet owns at genesis on account-based chains.
const ENDOWMENT_DIGITS: u8 = 9;

/// The description of one model chain.
#[derive(Debug, Clone)]
pub struct ChainSpec {
    /// Name of the chain.
    pub chain: ChainId,
    /// Family, which decides the formats of addresses and transactions.
    pub family: Family,
    /// Listed assets. Transfers of other assets are never reported. The native coin need not be listed.
    pub assets: Vec<Asset>,
    /// The rule for the finalized block.
    pub finality: Finality,
}

/// The rule by which the model reports a finalized block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// The finalized block is this many blocks below the head.
    Depth(u64),
    /// No block is reported as finalized, as on Bitcoin, where only the number of confirmations counts.
    None,
}

impl ChainSpec {
    /// Returns the id of the native coin, whether or not it is listed.
    pub fn native(&self) -> AssetId {
        AssetId::on_chain(&self.chain, &AssetKind::Native)
    }

    pub(crate) fn rules(&self, miner: AddressKey, funded: BTreeSet<AddressKey>) -> Rules {
        let native = self.native();
        let mut endowment: BTreeMap<AssetId, Amount> = BTreeMap::new();
        endowment.insert(native.clone(), self.endowment(18));
        endowment.extend(self.assets.iter().map(|asset| (asset.id.clone(), self.endowment(asset.decimals))));
        Rules { family: self.family, native, miner, funded, endowment }
    }

    fn endowment(&self, decimals: u8) -> Amount {
        match self.family {
            Family::Bitcoin => Amount::from(COIN_OF_A_BUYER),
            Family::Evm | Family::Tron => {
                let digits = U256::from(decimals.saturating_add(ENDOWMENT_DIGITS).min(60));
                Amount::new(U256::from(10).pow(digits))
            }
        }
    }
}
