//! Checks that run once when the daemon starts. They log warnings about the configuration and about missing keys.

use std::sync::Arc;

use chain::{ChainId, Source};
use tracing::{error, warn};

use clock::Instant;
use config::{ChainConfig, Config, Pair};
use db::Db;
use envelope::Envelope;
use money::assets::Assets;
use money::invoices;
use money::pricing::Currency;
use shop::stock;

/// Logs a warning for open invoices on chains that were disabled or renamed. No worker follows such a chain, so these
/// invoices never expire.
pub async fn warn_of_unfollowed_invoices(assets: &Assets, db: &Db) -> anyhow::Result<()> {
    let followed: Vec<ChainId> = assets.list_followed_chains().map(|chain| chain.id.clone()).collect();
    let unfollowed_invoices: Result<_, db::Error> = db
        .read("count_waiting_unfollowed_invoices", move |tx| {
            Box::pin(async move { invoices::count_waiting_on_unfollowed_chains(tx, &followed).await })
        })
        .await;
    for (chain, count) in unfollowed_invoices? {
        warn!(
            chain,
            "{count} open invoices are on {chain}, which is not enabled: they cannot be paid and do not expire; enable \
             [chains.{chain}] until none is open"
        );
    }
    Ok(())
}

/// The warning about a chain that is read from a single provider. Messages put the name of the chain before it.
pub const SINGLE_PROVIDER: &str = "is read from a single provider, so no second source confirms its payments; add an endpoint \
    of another provider, or set `own = true` for a node that you run yourself";

/// Opens a review for each missing envelope key with which stock was encrypted, closes the reviews of keys that are
/// there again, and logs each missing key. Runs at every start, before stock is sold.
pub async fn sync_key_reviews_and_log_missing_keys(
    db: &Db,
    now: Instant,
    envelope: &Arc<Envelope>,
) -> anyhow::Result<()> {
    let envelope = envelope.clone();
    let missing: Result<_, db::Error> = db
        .write("sync_missing_key_reviews", move |tx| {
            Box::pin(async move { stock::sync_missing_key_reviews(tx, now, &envelope).await })
        })
        .await;
    for error in missing?.into_iter().filter_map(|key| key.error) {
        error!("stock cannot be decrypted: {error}");
    }
    Ok(())
}

/// Logs a warning when a chain needs a second source, because inventing its blocks costs nothing, but has endpoints of
/// only one provider.
pub fn warn_if_single_provider(chain: &ChainConfig, source: &dyn Source) {
    if source.needs_second_source() && source.independent_provider_count() < 2 {
        warn!(chain = %chain.id, "{} {SINGLE_PROVIDER}", chain.id);
    }
}

/// Returns a warning that the configuration has no fixed rate between the US dollar and the checkout currency, which
/// the exchanges do not quote. Returns `None` when the rate is configured, and when the checkout surface accepts no
/// crypto asset anyway.
pub fn describe_missing_currency_rate(config: &Config) -> Option<String> {
    let checkout = &config.surfaces.checkout;
    let accepts_crypto = checkout.mount.enabled
        && checkout.assets.keys().any(|code| config.find_checkout_asset_of_enabled_chain(code).is_some());
    let pair = Pair::new(Currency::USD.as_str(), checkout::CURRENCY.as_str());
    (accepts_crypto && !config.rates.fixed.contains_key(&pair)).then(|| {
        format!("there is no rate {pair}, so buyers cannot pay in crypto assets; set \"{pair}\" in [rates.fixed]")
    })
}
