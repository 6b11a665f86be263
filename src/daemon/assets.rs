//! Builds the payment assets and the followed chains from the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use chain::{Amount, Asset, Family, WatchSet};

use config::{AddressKind, ChainConfig, Config};
use ids::Mode;
use money::assets::{Assets, Depths, Dust, FollowedChain, PaymentAsset};
use money::pricing::{Currency, Fiat, RateBook};

/// Returns the enabled chains, which the daemon follows, and their assets that the checkout surface accepts. Chains of
/// the same family and mode are siblings: they share one set of watched addresses, because the same address exists on
/// each of these chains.
///
/// # Errors
/// Fails when an amount or a depth of the configuration is out of range.
pub fn build_assets_and_followed_chains(config: &Config, book: &RateBook) -> anyhow::Result<Assets> {
    let mut chains = Vec::new();
    let mut watched: HashMap<(Family, Mode), Arc<WatchSet>> = HashMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let is_sibling =
            |other: &&ChainConfig| (other.family, other.mode) == (chain.family, chain.mode) && other.id != chain.id;
        chains.push(FollowedChain {
            id: chain.id.clone(),
            family: chain.family,
            mode: chain.mode,
            depths: convert_confirmation_depths(chain)?,
            watched: watched.entry((chain.family, chain.mode)).or_default().clone(),
            siblings: config.chains.values().filter(is_sibling).map(|other| other.id.clone()).collect(),
            dust: Dust::new_dust_limit(
                Fiat::new(Currency::USD, config.policy.dust_usd_cents),
                book.clone(),
                chain.assets().map(|(_, asset)| (asset, asset.symbol.as_str())),
            ),
        });
    }
    let mut assets = Vec::new();
    for code in config.surfaces.checkout.assets.keys() {
        let Some((chain, asset)) = config.find_checkout_asset_of_enabled_chain(code) else { continue };
        let min_due = match config.surfaces.checkout.min_amounts.get(code) {
            Some(min) => Amount::parse_decimal(&min.to_string(), asset.decimals)
                .with_context(|| format!("surfaces.checkout.min_amounts.{code} is out of range"))?,
            None => find_relay_minimum(chain, asset),
        };
        assets.push(PaymentAsset {
            code: code.clone(),
            asset: asset.clone(),
            rate_symbol: asset.symbol.clone(),
            min_due,
        });
    }
    Ok(Assets::new(chains, assets))
}

/// Returns the smallest amount, in base units, that nodes relay to a deposit address of the chain. Bitcoin Core's dust
/// limit depends on the kind of the address; the other families have no limit.
fn find_relay_minimum(chain: &ChainConfig, asset: &Asset) -> Amount {
    match (chain.family, chain.address_kind) {
        (Family::Bitcoin, AddressKind::P2wpkh) if asset.is_native() => Amount::from_units(294),
        (Family::Bitcoin, AddressKind::P2tr) if asset.is_native() => Amount::from_units(330),
        (Family::Bitcoin | Family::Evm | Family::Tron, AddressKind::P2wpkh | AddressKind::P2tr) => Amount::ZERO,
    }
}

/// Returns the confirmation depths of a chain. The bounds of the tiers are converted from US dollars to cents.
fn convert_confirmation_depths(chain: &ChainConfig) -> anyhow::Result<Depths> {
    let mut tiers = Vec::new();
    let mut largest = u32::try_from(chain.final_depth)?;
    for tier in &chain.confirmations {
        let depth = u32::try_from(tier.depth)?;
        match tier.below_usd {
            Some(bound) => {
                let cents =
                    bound.checked_mul(rust_decimal::Decimal::ONE_HUNDRED).context("below_usd is out of range")?;
                tiers.push((i64::try_from(cents.trunc().mantissa())?, depth));
            }
            None => largest = depth,
        }
    }
    let (last, least) = (u32::try_from(chain.final_depth)?, u32::try_from(chain.final_depth_min)?);
    Ok(Depths { tiers, largest, last, least })
}

#[cfg(test)]
mod tests {
    use chain::ChainId;

    use super::*;

    #[test]
    fn required_confirmations_rise_with_the_value() {
        let config = Config::default();
        let depths = convert_confirmation_depths(&config.chains[&ChainId::parse("bitcoin").unwrap()]).unwrap();
        for (cents, depth) in [(0, 1), (99_999, 1), (100_000, 2), (999_999, 2), (1_000_000, 6), (100_000_000, 6)] {
            assert_eq!(depths.required_confirmations(Some(cents)), depth, "{cents}");
        }
        assert_eq!(depths.required_confirmations(None), 6, "an unknown value needs the most confirmations");
    }
}
