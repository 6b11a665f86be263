//! The assets that this installation takes: configuration, fixed while the daemon runs.

use std::collections::HashMap;
use std::sync::Arc;

use chain::{Amount, Asset, AssetId, ChainId, Family, WatchSet};

use crate::pricing::{self, Fiat, RateBook};
use clock::Instant;
use ids::Mode;

/// The numbers of confirmations that deposits of a chain need; 1 is a deposit in the tip block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// Pairs of a bound in minor units of USD and the confirmations of a payment that is worth less; ascending by bound.
    pub tiers: Vec<(i64, u32)>,
    /// Confirmations of every payment that is worth more than all bounds.
    pub largest: u32,
    /// Confirmations at which a block is final on a chain that does not mark final blocks.
    pub last: u32,
    /// The minimum number of confirmations, even for a block that the chain marks as final.
    pub least: u32,
}

impl Depths {
    /// Returns the same number of confirmations for all payments, with finality after `last` confirmations.
    pub fn flat(confirmations: u32, last: u32) -> Depths {
        Depths { tiers: Vec::new(), largest: confirmations, last: last.max(confirmations), least: 0 }
    }

    /// Returns the confirmations of a payment that is worth `usd_minor` minor units of USD, at least 1. A payment of unknown
    /// worth (`None`) needs as many as the largest.
    pub fn confirmations(&self, usd_minor: Option<i64>) -> u32 {
        let tier = usd_minor.and_then(|worth| self.tiers.iter().find(|(bound, _)| worth < *bound));
        tier.map_or(self.largest, |(_, confirmations)| *confirmations).max(1)
    }
}

/// The value below which a deposit is dust and no payment: spam and address poisoning send tiny amounts to every address
/// that appears on a chain.
#[derive(Debug, Clone, Default)]
pub struct Dust {
    /// The bound and the rates to convert it. Without a bound nothing is dust.
    value: Option<(Fiat, RateBook)>,
    /// The symbol of each asset in the rates, and its decimals.
    assets: Arc<HashMap<AssetId, (String, u8)>>,
}

impl Dust {
    /// Returns the bound `value` for the given assets with their symbols in `rates`.
    pub fn below<'a>(value: Fiat, rates: RateBook, assets: impl IntoIterator<Item = (&'a Asset, &'a str)>) -> Dust {
        let assets = assets.into_iter();
        let assets = assets.map(|(asset, symbol)| (asset.id.clone(), (symbol.to_owned(), asset.decimals)));
        Dust { value: Some((value, rates)), assets: Arc::new(assets.collect()) }
    }

    /// Returns the amount of an asset, in base units, below which a deposit is dust. Zero while there is no fresh rate.
    pub fn bound(&self, now: Instant, asset: &AssetId) -> Amount {
        let priced = self.value.as_ref().zip(self.assets.get(asset));
        let bound = priced.and_then(|((value, rates), (symbol, decimals))| {
            let rate = rates.rate(now, symbol, value.currency.as_str()).ok()?;
            pricing::amount_for(*value, rate.value, *decimals)
        });
        bound.unwrap_or(Amount::ZERO)
    }
}

/// A chain whose deposits are followed.
#[derive(Debug, Clone)]
pub struct FollowedChain {
    /// The name of the chain.
    pub id: ChainId,
    /// The family of its addresses.
    pub family: Family,
    /// Live, or test.
    pub mode: Mode,
    /// The confirmations that its deposits need.
    pub depths: Depths,
    /// The addresses to watch. All chains of the family and mode share the set.
    pub watched: Arc<WatchSet>,
    /// The other chains of the family and mode. An address belongs to the same key on all of them.
    pub siblings: Vec<ChainId>,
    /// The value below which its deposits are no payments.
    pub dust: Dust,
}

/// An asset that buyers can pay with.
#[derive(Debug, Clone)]
pub struct PaymentAsset {
    /// The code of the asset on the surfaces, such as `erc20_usdt` or `btc`.
    pub code: String,
    /// The asset.
    pub asset: Asset,
    /// The symbol of the asset in the rates, such as `USDT` or `BTC`.
    pub rate_symbol: String,
}

/// All followed chains and the assets that buyers can pay with.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    chains: HashMap<ChainId, FollowedChain>,
    assets: Vec<PaymentAsset>,
}

impl Assets {
    /// Keeps the order of the assets, in which the surfaces list them.
    pub fn new(chains: Vec<FollowedChain>, assets: Vec<PaymentAsset>) -> Assets {
        Assets { chains: chains.into_iter().map(|chain| (chain.id.clone(), chain)).collect(), assets }
    }

    /// Returns the asset with this code in a mode, and its chain; `None` when there is none.
    pub fn find(&self, mode: Mode, code: &str) -> Option<(&FollowedChain, &PaymentAsset)> {
        self.list(mode).find(|(_, asset)| asset.code == code)
    }

    /// Lists the assets of a mode with their chains.
    pub fn list(&self, mode: Mode) -> impl Iterator<Item = (&FollowedChain, &PaymentAsset)> {
        self.assets.iter().filter_map(move |asset| {
            let chain = self.chains.get(&asset.asset.chain).filter(|chain| chain.mode == mode)?;
            Some((chain, asset))
        })
    }

    /// Lists the assets of both modes.
    pub fn all(&self) -> impl Iterator<Item = &PaymentAsset> {
        self.assets.iter()
    }

    /// Returns the chain with this name; `None` when it is not followed.
    pub fn chain(&self, id: &ChainId) -> Option<&FollowedChain> {
        self.chains.get(id)
    }

    /// Lists the followed chains, in no order.
    pub fn chains(&self) -> impl Iterator<Item = &FollowedChain> {
        self.chains.values()
    }

    /// Returns the asset that buyers can pay with for an asset of a chain; `None` when they cannot pay with it.
    pub fn by_asset(&self, asset: &AssetId) -> Option<&PaymentAsset> {
        self.assets.iter().find(|known| known.asset.id == *asset)
    }
}

/// Returns a price in minor units of USD, rounded up, for the tiers of [`Depths`]. `None` while there is no fresh rate.
pub fn worth_in_usd(rates: &RateBook, now: Instant, price: Fiat) -> Option<i64> {
    let rate = rates.rate(now, "USD", price.currency.as_str()).ok()?;
    let worth = rust_decimal::Decimal::from(price.minor).checked_div(rate.value)?;
    i64::try_from(worth.ceil().mantissa()).ok()
}
