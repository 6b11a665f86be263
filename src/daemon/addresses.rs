//! Loads the deposit addresses of the followed chains.

use anyhow::Context;
use chain::{ChainId, Deriver, Family};

use clock::Instant;
use config::Config;
use db::Db;
use money::addresses::{self, Addresses, ChainAccount};
use money::assets::Assets;
use money::deposits;
use money::immutable_facts::{self, Fact, FactError};

/// Stores the account keys of the followed chains, and adds the issued addresses and unspent outputs of these chains to
/// the sets that the drivers watch. The address kind of each Bitcoin chain is stored at the first start; later the
/// configuration must agree with it.
///
/// # Errors
/// Fails when an account key cannot be used, or when the configuration contradicts the facts in the database.
pub async fn load_addresses_and_record_kinds(
    config: &Config,
    assets: &Assets,
    db: &Db,
    now: Instant,
) -> anyhow::Result<Addresses> {
    let mut accounts = Vec::new();
    // The address kind (P2WPKH or P2TR) of a Bitcoin chain must not change, because payments to addresses of the
    // earlier kind would not be found.
    let mut kinds = Vec::new();
    let mut with_outputs = Vec::new();
    for chain in assets.list_followed_chains() {
        let settings = config.chains.get(&chain.id).context("the chain of an asset is configured")?;
        if chain.family == Family::Bitcoin {
            let name = format!("address_kind of {}", chain.id);
            kinds.push(Fact { name, value: settings.address_kind.as_str().to_owned() });
            with_outputs.push((chain.id.clone(), chain.watched.clone()));
        }
        let Some(account) = config.find_newest_deposit_account_key(settings) else { continue };
        let deriver = Deriver::from_account_key(&account.xpub, settings.address_scheme())
            .with_context(|| format!("the account key for {} cannot be used", chain.id))?;
        accounts.push(ChainAccount {
            chain: chain.id.clone(),
            family: chain.family,
            purpose: account.purpose.as_str().to_owned(),
            mode: chain.mode,
            path: account.path.clone(),
            deriver,
            watched: chain.watched.clone(),
        });
    }
    // Sibling chains (same family and mode) share one set of watched addresses. A followed sibling adds its own
    // addresses below. The addresses of siblings that are not followed are added too, because buyers may pay to them on
    // a followed chain.
    let is_not_followed = |sibling: &&ChainId| assets.find_followed_chain(sibling).is_none();
    let siblings = assets.list_followed_chains().flat_map(|chain| {
        chain.siblings.iter().filter(is_not_followed).map(|sibling| (chain.id.clone(), sibling.clone()))
    });
    let siblings: Vec<(ChainId, ChainId)> = siblings.collect();
    let watch_sets: Vec<_> = accounts.iter().map(|account| (account.chain.clone(), account.watched.clone())).collect();
    let stored = db.write("store_accounts_and_kinds", move |tx| {
        Box::pin(async move {
            immutable_facts::record_facts_refusing_changed(tx, now, &kinds).await?;
            Ok::<_, FactError>(Addresses::store_account_keys_and_build(tx, accounts).await?)
        })
    });
    let addresses = stored.await?;
    for (chain, watched) in &watch_sets {
        addresses::watch_issued_addresses(db, chain, watched).await?;
        addresses.watch_unissued_leased_addresses(db, chain).await?;
        for (_, sibling) in siblings.iter().filter(|(followed, _)| followed == chain) {
            addresses::watch_issued_addresses(db, sibling, watched).await?;
        }
    }
    for (chain, watched) in &with_outputs {
        deposits::watch_unspent_outputs(db, chain, watched).await?;
    }
    Ok(addresses)
}
