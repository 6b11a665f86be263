//! Groups the coins of the checkout surface into those that buyers can pay with and the others, by the findings of
//! `settled check`.

use std::collections::{BTreeMap, BTreeSet};

use chain::{AssetId, ChainId};

use config::{Config, Pair};

/// The chains, tokens and rates that prevent payments. The reason of a chain is the end of a sentence that begins with
/// the name of the chain, such as `is halted`.
#[derive(Default)]
pub struct CoinObstacles {
    chains: BTreeMap<ChainId, &'static str>,
    tokens: BTreeSet<AssetId>,
    pairs: BTreeSet<Pair>,
}

/// The coins of the checkout surface that buyers can pay with, and the others with the reason.
pub struct PayableCoins {
    /// The codes of the coins that buyers can pay with.
    pub payable: Vec<String>,
    /// The code of each other coin on an enabled chain, followed by the reason in parentheses.
    pub unpayable: Vec<String>,
}

impl CoinObstacles {
    /// Records that buyers can pay with no coin of a chain. The first reason of a chain is kept.
    pub fn add_chain(&mut self, chain: &ChainId, reason: &'static str) {
        self.chains.entry(chain.clone()).or_insert(reason);
    }

    /// Records that the contract of a token cannot be used.
    pub fn add_token(&mut self, token: &AssetId) {
        self.tokens.insert(token.clone());
    }

    /// Records that there is no exchange rate of a pair.
    pub fn add_pair(&mut self, pair: &Pair) {
        self.pairs.insert(pair.clone());
    }

    /// Groups the checkout coins on enabled chains into those that buyers can pay with and those that they cannot pay
    /// with.
    pub fn group_coins_by_payability(&self, config: &Config) -> PayableCoins {
        let mut coins = PayableCoins { payable: Vec::new(), unpayable: Vec::new() };
        for code in config.surfaces.checkout.assets.keys() {
            let Some((chain, asset)) = config.find_checkout_asset_of_enabled_chain(code) else { continue };
            let pair = Pair::new(&asset.symbol, "USD");
            let reason = match self.chains.get(&chain.id) {
                Some(reason) => Some(format!("{} {reason}", chain.id)),
                None if self.tokens.contains(&asset.id) => Some("its contract cannot be used".to_owned()),
                None if self.pairs.contains(&pair) => Some(format!("there is no rate of {pair}")),
                None => None,
            };
            match reason {
                None => coins.payable.push(code.clone()),
                Some(reason) => coins.unpayable.push(format!("{code} ({reason})")),
            }
        }
        coins
    }
}
