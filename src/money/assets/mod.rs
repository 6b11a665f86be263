//! The chains and assets that buyers can pay with. They come from the configuration and stay the same while the daemon
//! runs. Only one thing can change: an asset with an unusable contract is withheld from buyers.

mod confirmations;
mod dust;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use chain::{Amount, Asset, AssetId, ChainId, Family, WatchSet};

use ids::Mode;

pub use confirmations::Depths;
pub use dust::{Dust, is_dust_amount};

/// A chain whose blocks the daemon reads to find deposits.
#[derive(Debug, Clone)]
pub struct FollowedChain {
    /// The name of the chain, as in the configuration.
    pub id: ChainId,
    /// The chain family, which determines the form of addresses.
    pub family: Family,
    /// The mode of all payments on this chain: live or test.
    pub mode: Mode,
    /// The numbers of confirmations that deposits on this chain need, by their value.
    pub depths: Depths,
    /// The addresses to watch for deposits. All chains of the same family and mode share this set.
    pub watched: Arc<WatchSet>,
    /// The other chains of the same family and mode. One key owns the same address on all of them.
    pub siblings: Vec<ChainId>,
    /// The value below which a deposit on this chain is dust: too small to be a payment.
    pub dust: Dust,
}

/// An asset that buyers can pay with.
#[derive(Debug, Clone)]
pub struct PaymentAsset {
    /// The code of the asset in the APIs, such as `erc20_usdt` or `btc`.
    pub code: String,
    /// The asset, which contains the name of its chain.
    pub asset: Asset,
    /// The symbol of the asset in the rates, such as `USDT` or `BTC`.
    pub rate_symbol: String,
    /// The smallest amount due, in base units: orders that cost less cannot be paid in this asset.
    pub min_due: Amount,
}

/// All followed chains and the assets that buyers can pay with.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    chains: HashMap<ChainId, FollowedChain>,
    assets: Vec<PaymentAsset>,
    /// The assets that buyers cannot pay with now, because their contract is missing or differs from the configuration.
    withheld: Arc<RwLock<HashSet<AssetId>>>,
}

impl Assets {
    /// Returns the collection of these chains and assets. The functions that list assets keep the order of `assets`.
    pub fn new(chains: Vec<FollowedChain>, assets: Vec<PaymentAsset>) -> Assets {
        let chains = chains.into_iter().map(|chain| (chain.id.clone(), chain)).collect();
        Assets { chains, assets, withheld: Arc::default() }
    }

    /// Returns the asset with this code and its chain; `None` when the mode has no such asset, and while the asset is
    /// withheld.
    pub fn find_payment_asset(&self, mode: Mode, code: &str) -> Option<(&FollowedChain, &PaymentAsset)> {
        let withheld = self.withheld.read().unwrap_or_else(PoisonError::into_inner);
        self.list_configured_assets_of_mode(mode)
            .find(|(_, asset)| asset.code == code && !withheld.contains(&asset.asset.id))
    }

    /// Withholds an asset from buyers, or offers it again. Clones of this collection share the change. Deposits in the
    /// asset are booked in both cases.
    pub fn set_asset_withheld(&self, asset: &AssetId, withheld: bool) {
        let mut all = self.withheld.write().unwrap_or_else(PoisonError::into_inner);
        if withheld {
            all.insert(asset.clone());
        } else {
            all.remove(asset);
        }
    }

    /// Lists the configured assets of a mode, each with its chain, in the order of the configuration. Withheld assets
    /// are included.
    pub fn list_configured_assets_of_mode(&self, mode: Mode) -> impl Iterator<Item = (&FollowedChain, &PaymentAsset)> {
        self.assets.iter().filter_map(move |asset| {
            let chain = self.chains.get(&asset.asset.chain).filter(|chain| chain.mode == mode)?;
            Some((chain, asset))
        })
    }

    /// Lists the configured assets of both modes, live and test, in the order of the configuration. Withheld assets are
    /// included.
    pub fn list_all_payment_assets(&self) -> impl Iterator<Item = &PaymentAsset> {
        self.assets.iter()
    }

    /// Returns the chain with this name; `None` when the daemon does not follow such a chain.
    pub fn find_followed_chain(&self, id: &ChainId) -> Option<&FollowedChain> {
        self.chains.get(id)
    }

    /// Lists the followed chains in arbitrary order.
    pub fn list_followed_chains(&self) -> impl Iterator<Item = &FollowedChain> {
        self.chains.values()
    }

    /// Returns the configured payment asset with this asset id, even while it is withheld; `None` when the
    /// configuration has no such payment asset.
    pub fn find_payment_asset_by_id(&self, asset: &AssetId) -> Option<&PaymentAsset> {
        self.assets.iter().find(|known| known.asset.id == *asset)
    }
}
