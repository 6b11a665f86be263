//! What the model of one chain is to look like.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AddressKey, Amount, Asset, AssetId, AssetKind, ChainId, Family};
use ruint::aliases::U256;

use crate::ledger::Rules;

/// Bitcoin that each buyer's wallet begins with, in satoshi: 64 wallets stay below all that can exist.
const COIN_OF_A_BUYER: u64 = 100_000 * 100_000_000;

/// Whole coins of every asset that a buyer's wallet begins with on account-based chains, as a power of ten.
const ENDOWMENT_DIGITS: u8 = 9;

#[derive(Debug, Clone)]
pub struct ChainSpec {
    pub chain: ChainId,
    pub family: Family,
    /// Only these are ever reported; a native asset need not be among them.
    pub assets: Vec<Asset>,
    pub finality: Finality,
}

/// What the model says of final blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// The mark trails the head by so many blocks.
    Depth(u64),
    /// There is no mark; depth alone decides, as on Bitcoin.
    None,
}

impl ChainSpec {
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
