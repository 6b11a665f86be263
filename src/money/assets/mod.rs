//! The assets that this installation takes: configuration, fixed while the daemon runs.

use std::collections::HashMap;
use std::sync::Arc;

use chain::{Amount, Asset, AssetId, ChainId, Family, WatchSet};

use crate::pricing::{self, Fiat, RateBook};
use clock::Instant;
use ids::Mode;

/// How deep a deposit must lie under the tip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// Ascending by bound: a payment worth less than the bound, in minor units of USD, needs so many confirmations.
    pub tiers: Vec<(i64, u32)>,
    /// What every larger payment needs.
    pub largest: u32,
    /// Depth of finality where the chain has no mark of its own.
    pub last: u32,
    /// Depth that is never undercut, even if the chain marks a block final earlier.
    pub least: u32,
}

impl Depths {
    pub fn flat(confirmations: u32, last: u32) -> Depths {
        Depths { tiers: Vec::new(), largest: confirmations, last: last.max(confirmations), least: 0 }
    }

    /// Confirmations (1: in the tip block) for a payment worth `usd_minor`; unknown worth needs the most.
    pub fn confirmations(&self, usd_minor: Option<i64>) -> u32 {
        let tier = usd_minor.and_then(|worth| self.tiers.iter().find(|(bound, _)| worth < *bound));
        tier.map_or(self.largest, |(_, confirmations)| *confirmations).max(1)
    }
}

/// Below which value a deposit is nobody's payment: senders of poison and of advertisements pay next to nothing to every
/// address that they see.
#[derive(Debug, Clone, Default)]
pub struct Dust {
    /// The bound; nothing is dust without one.
    value: Option<(Fiat, RateBook)>,
    /// The name under which the rates know an asset, and its decimals.
    assets: Arc<HashMap<AssetId, (String, u8)>>,
}

impl Dust {
    pub fn below<'a>(value: Fiat, rates: RateBook, assets: impl IntoIterator<Item = (&'a Asset, &'a str)>) -> Dust {
        let assets = assets.into_iter();
        let assets = assets.map(|(asset, symbol)| (asset.id.clone(), (symbol.to_owned(), asset.decimals)));
        Dust { value: Some((value, rates)), assets: Arc::new(assets.collect()) }
    }

    /// Less than this is dust. While nobody knows what the asset is worth, nothing is.
    pub fn bound(&self, now: Instant, asset: &AssetId) -> Amount {
        let known = self.value.as_ref().zip(self.assets.get(asset));
        let bound = known.and_then(|((value, rates), (symbol, decimals))| {
            let rate = rates.rate(now, symbol, value.currency.as_str()).ok()?;
            pricing::amount_for(*value, rate.value, *decimals)
        });
        bound.unwrap_or(Amount::ZERO)
    }
}

/// One chain as receiving sees it.
#[derive(Debug, Clone)]
pub struct FollowedChain {
    pub id: ChainId,
    pub family: Family,
    pub mode: Mode,
    pub depths: Depths,
    /// Shared by all chains of the family and mode.
    pub watched: Arc<WatchSet>,
    /// The other chains of the family and mode: whoever has the key of an address on one has it on all of them.
    pub siblings: Vec<ChainId>,
    pub dust: Dust,
}

/// A way to pay: the public code of an asset on a chain.
#[derive(Debug, Clone)]
pub struct PaymentAsset {
    /// What the surfaces call it: `erc20_usdt`, `btc`.
    pub code: String,
    pub asset: Asset,
    /// Under which name the rates know it: `USDT`, `BTC`.
    pub rate_symbol: String,
}

#[derive(Debug, Clone, Default)]
pub struct Assets {
    chains: HashMap<ChainId, FollowedChain>,
    assets: Vec<PaymentAsset>,
}

impl Assets {
    /// Assets stay in the order in which the surfaces list them.
    pub fn new(chains: Vec<FollowedChain>, assets: Vec<PaymentAsset>) -> Assets {
        Assets { chains: chains.into_iter().map(|chain| (chain.id.clone(), chain)).collect(), assets }
    }

    pub fn find(&self, mode: Mode, code: &str) -> Option<(&FollowedChain, &PaymentAsset)> {
        self.list(mode).find(|(_, coin)| coin.code == code)
    }

    pub fn list(&self, mode: Mode) -> impl Iterator<Item = (&FollowedChain, &PaymentAsset)> {
        self.assets.iter().filter_map(move |coin| {
            let chain = self.chains.get(&coin.asset.chain).filter(|chain| chain.mode == mode)?;
            Some((chain, coin))
        })
    }

    pub fn all(&self) -> impl Iterator<Item = &PaymentAsset> {
        self.assets.iter()
    }

    pub fn chain(&self, id: &ChainId) -> Option<&FollowedChain> {
        self.chains.get(id)
    }

    pub fn chains(&self) -> impl Iterator<Item = &FollowedChain> {
        self.chains.values()
    }

    pub fn by_asset(&self, asset: &AssetId) -> Option<&PaymentAsset> {
        self.assets.iter().find(|coin| coin.asset.id == *asset)
    }
}

/// A price in USD minor units, for the confirmation tiers; `None` when no rate says so.
pub fn worth_in_usd(book: &RateBook, now: Instant, price: Fiat) -> Option<i64> {
    let rate = book.rate(now, "USD", price.currency.as_str()).ok()?;
    let worth = rust_decimal::Decimal::from(price.minor).checked_div(rate.value)?;
    i64::try_from(worth.ceil().mantissa()).ok()
}
