//! The chains and assets that buyers can pay with. They come from the configuration and stay the same while the daemon
//! runs.

use std::collections::HashMap;
use std::sync::Arc;

use chain::{Amount, Asset, AssetId, ChainId, Family, WatchSet};

use crate::pricing::{self, Fiat, RateBook};
use clock::Instant;
use ids::Mode;

/// The required confirmations of deposits on one chain. A deposit in the tip block has 1 confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// Pairs of an upper bound in minor units of USD, and the confirmations that a payment worth less than the bound
    /// needs. Sorted by bound.
    pub tiers: Vec<(i64, u32)>,
    /// The confirmations that a payment needs when its value is unknown or at least the highest bound.
    pub largest: u32,
    /// The confirmations after which a block is final, on a chain whose nodes do not report finality.
    pub last: u32,
    /// The minimum number of confirmations, which applies even to blocks that the node reports as final.
    pub least: u32,
}

impl Depths {
    /// Returns depths that are the same for payments of every value. A block is final after `last` confirmations.
    pub fn depths_without_tiers(confirmations: u32, last: u32) -> Depths {
        Depths { tiers: Vec::new(), largest: confirmations, last: last.max(confirmations), least: 0 }
    }

    /// Returns the number of confirmations, at least 1, that a payment worth `usd_minor` minor units of USD needs. A
    /// payment of unknown value (`None`) needs as many as the largest payments.
    pub fn required_confirmations(&self, usd_minor: Option<i64>) -> u32 {
        let tier = usd_minor.and_then(|worth| self.tiers.iter().find(|(bound, _)| worth < *bound));
        tier.map_or(self.largest, |(_, confirmations)| *confirmations).max(1)
    }
}

/// The value below which a deposit is dust, so that it is not booked as a payment. Senders of spam and address
/// poisoning transfer tiny amounts to every address that appears on a chain.
#[derive(Debug, Clone, Default)]
pub struct Dust {
    /// The dust limit, and the rates that convert the limit to an asset. `None` means that no deposit is dust.
    value: Option<(Fiat, RateBook)>,
    /// The symbol in the rates, and the number of decimal places, by asset.
    assets: Arc<HashMap<AssetId, (String, u8)>>,
}

impl Dust {
    /// Returns a dust limit of `value`. `assets` lists each asset with its symbol in `rates`.
    pub fn new_dust_limit<'a>(
        value: Fiat,
        rates: RateBook,
        assets: impl IntoIterator<Item = (&'a Asset, &'a str)>,
    ) -> Dust {
        let assets = assets.into_iter();
        let assets = assets.map(|(asset, symbol)| (asset.id.clone(), (symbol.to_owned(), asset.decimals)));
        Dust { value: Some((value, rates)), assets: Arc::new(assets.collect()) }
    }

    /// Returns the amount of an asset, in base units, below which a deposit is dust. Zero while no fresh rate is
    /// known.
    pub fn compute_dust_limit(&self, now: Instant, asset: &AssetId) -> Amount {
        let priced = self.value.as_ref().zip(self.assets.get(asset));
        let bound = priced.and_then(|((value, rates), (symbol, decimals))| {
            let rate = rates.compute_exchange_rate(now, symbol, value.currency.as_str()).ok()?;
            pricing::convert_price_to_amount(*value, rate.value, *decimals)
        });
        bound.unwrap_or(Amount::ZERO)
    }
}

/// A chain whose blocks the daemon reads to find deposits.
#[derive(Debug, Clone)]
pub struct FollowedChain {
    /// The name of the chain.
    pub id: ChainId,
    /// The chain family, which determines the form of addresses.
    pub family: Family,
    /// The mode of its payments: live or test.
    pub mode: Mode,
    /// The confirmations that its deposits need.
    pub depths: Depths,
    /// The addresses to watch for deposits. All chains of the same family and mode share this set.
    pub watched: Arc<WatchSet>,
    /// The other chains of the same family and mode. One key owns the same address on all of them.
    pub siblings: Vec<ChainId>,
    /// The value below which its deposits are dust.
    pub dust: Dust,
}

/// An asset that buyers can pay with.
#[derive(Debug, Clone)]
pub struct PaymentAsset {
    /// The code of the asset in the APIs, such as `erc20_usdt` or `btc`.
    pub code: String,
    /// The asset on its chain.
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
    /// Returns the collection. It keeps the order of `assets`, in which the APIs list them.
    pub fn new(chains: Vec<FollowedChain>, assets: Vec<PaymentAsset>) -> Assets {
        Assets { chains: chains.into_iter().map(|chain| (chain.id.clone(), chain)).collect(), assets }
    }

    /// Returns the asset with this code and its chain; `None` when the mode has no such asset.
    pub fn find_payment_asset(&self, mode: Mode, code: &str) -> Option<(&FollowedChain, &PaymentAsset)> {
        self.list_payment_assets(mode).find(|(_, asset)| asset.code == code)
    }

    /// Lists the assets of a mode with their chains, in the configured order.
    pub fn list_payment_assets(&self, mode: Mode) -> impl Iterator<Item = (&FollowedChain, &PaymentAsset)> {
        self.assets.iter().filter_map(move |asset| {
            let chain = self.chains.get(&asset.asset.chain).filter(|chain| chain.mode == mode)?;
            Some((chain, asset))
        })
    }

    /// Lists the assets of both modes, in the configured order.
    pub fn list_all_payment_assets(&self) -> impl Iterator<Item = &PaymentAsset> {
        self.assets.iter()
    }

    /// Returns the chain with this name; `None` when it is not followed.
    pub fn find_followed_chain(&self, id: &ChainId) -> Option<&FollowedChain> {
        self.chains.get(id)
    }

    /// Lists the followed chains in arbitrary order.
    pub fn list_followed_chains(&self) -> impl Iterator<Item = &FollowedChain> {
        self.chains.values()
    }

    /// Returns the payment asset with this asset id; `None` when buyers cannot pay with the asset.
    pub fn find_payment_asset_by_id(&self, asset: &AssetId) -> Option<&PaymentAsset> {
        self.assets.iter().find(|known| known.asset.id == *asset)
    }
}

/// Returns a price converted to minor units of USD, rounded up, for the tiers of [`Depths`]. `None` while no fresh
/// rate is known.
pub fn convert_price_to_usd_minor(rates: &RateBook, now: Instant, price: Fiat) -> Option<i64> {
    let rate = rates.compute_exchange_rate(now, "USD", price.currency.as_str()).ok()?;
    let worth = rust_decimal::Decimal::from(price.minor).checked_div(rate.value)?;
    i64::try_from(worth.ceil().mantissa()).ok()
}
