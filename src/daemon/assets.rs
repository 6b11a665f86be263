//! Builds the payment assets, their chains, and the deposit addresses of these chains from the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use chain::{ChainId, Deriver, Family, WatchSet};

use clock::Instant;
use config::{ChainConfig, Config};
use db::Db;
use ids::Mode;
use money::addresses::{Addresses, ChainAccount};
use money::assets::{Assets, Depths, Dust, FollowedChain, PaymentAsset};
use money::deposits;
use money::immutable_facts::{self, Fact, FactError};
use money::pricing::{Currency, Fiat, RateBook};

/// Returns the payment assets of the enabled chains. Chains of the same family and mode are siblings: they share one set
/// of watched addresses, because the same address exists on each of these chains.
///
/// # Errors
/// Fails when an amount or a depth of the configuration is out of range.
pub fn build_assets(config: &Config, book: &RateBook) -> anyhow::Result<Assets> {
    let mut chains = Vec::new();
    let mut watched: HashMap<(Family, Mode), Arc<WatchSet>> = HashMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let is_sibling =
            |other: &&ChainConfig| (other.family, other.mode) == (chain.family, chain.mode) && other.id != chain.id;
        chains.push(FollowedChain {
            id: chain.id.clone(),
            family: chain.family,
            mode: chain.mode,
            depths: build_depths(chain)?,
            watched: watched.entry((chain.family, chain.mode)).or_default().clone(),
            siblings: config.chains.values().filter(is_sibling).map(|other| other.id.clone()).collect(),
            dust: Dust::new_dust_limit(
                Fiat::new(Currency::USD, config.policy.dust_usd_cents),
                book.clone(),
                chain.assets().map(|(_, asset)| (asset, asset.symbol.as_str())),
            ),
        });
    }
    let assets = config.surfaces.checkout.assets.keys().filter_map(|code| {
        let (_, asset) = config.find_checkout_asset(code)?;
        Some(PaymentAsset { code: code.clone(), asset: asset.clone(), rate_symbol: asset.symbol.clone() })
    });
    Ok(Assets::new(chains, assets.collect()))
}

/// Converts the confirmation tiers of a chain, with their bounds in US cents.
fn build_depths(chain: &ChainConfig) -> anyhow::Result<Depths> {
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

/// Loads the deposit addresses of the chains: their account keys, the issued addresses and their unspent outputs. Stores
/// the address kind of each Bitcoin chain at the first start, and compares the configuration with the stored kind later.
///
/// # Errors
/// Fails when an account key cannot be used, or when the configuration contradicts the facts in the database.
pub async fn check_facts_and_load_addresses(
    config: &Config,
    assets: &Assets,
    db: &Db,
    now: Instant,
) -> anyhow::Result<Addresses> {
    let mut accounts = Vec::new();
    // The address kind of a Bitcoin chain must not change: payments to addresses of the earlier kind would not be found.
    let mut kinds = Vec::new();
    let mut with_outputs = Vec::new();
    for chain in assets.list_followed_chains() {
        let settings = config.chains.get(&chain.id).context("the chain of an asset is configured")?;
        if chain.family == Family::Bitcoin {
            let name = format!("address_kind of {}", chain.id);
            kinds.push(Fact { name, value: settings.address_kind.as_str().to_owned() });
            with_outputs.push((chain.id.clone(), chain.watched.clone()));
        }
        let Some(account) = config.find_deposit_account(settings) else { continue };
        let deriver = Deriver::new(&account.xpub, settings.address_scheme())
            .with_context(|| format!("the account key for {} cannot be used", chain.id))?;
        accounts.push(ChainAccount {
            chain: chain.id.clone(),
            family: chain.family,
            xpub: account.xpub.clone(),
            deriver,
            watched: chain.watched.clone(),
        });
    }
    // A followed sibling adds its own addresses to the shared set. The addresses of all other siblings are added here.
    let is_not_followed = |sibling: &&ChainId| assets.find_followed_chain(sibling).is_none();
    let siblings = assets.list_followed_chains().flat_map(|chain| {
        chain.siblings.iter().filter(is_not_followed).map(|sibling| (chain.id.clone(), sibling.clone()))
    });
    let siblings: Vec<(ChainId, ChainId)> = siblings.collect();
    let open = db.write("check_facts_and_load_addresses", move |tx| {
        Box::pin(async move {
            immutable_facts::record_or_compare_facts(tx, now, &kinds).await?;
            let addresses = Addresses::store_accounts_and_watch_addresses(tx, accounts).await?;
            for (chain, watched) in &with_outputs {
                watched.insert_outputs(
                    deposits::list_unspent_outputs(tx, chain, i64::MAX)
                        .await?
                        .into_iter()
                        .map(|unspent| unspent.output),
                );
            }
            for (chain, sibling) in &siblings {
                addresses.watch_sibling_addresses(tx, chain, sibling).await?;
            }
            Ok::<_, FactError>(addresses)
        })
    });
    Ok(open.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_confirmations_rise_with_the_value() {
        let config = Config::default();
        let depths = build_depths(&config.chains[&ChainId::new("bitcoin").unwrap()]).unwrap();
        for (cents, depth) in [(0, 1), (99_999, 1), (100_000, 2), (999_999, 2), (1_000_000, 6), (100_000_000, 6)] {
            assert_eq!(depths.required_confirmations(Some(cents)), depth, "{cents}");
        }
        assert_eq!(depths.required_confirmations(None), 6, "an unknown value needs the most confirmations");
    }
}
