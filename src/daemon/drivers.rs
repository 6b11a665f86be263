//! Opens the drivers of the configured chains: the RPC pool of each chain, and the source that reads through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use chain::{ChainId, Family, Source};
use secrecy::ExposeSecret;

use config::{ChainConfig, Config, Driver};

/// The minimum time between two searches for the same addresses on Esplora servers, because public servers limit the
/// requests per minute.
const ADDRESS_PAUSE: Duration = Duration::from_secs(60);

/// Opens the sources of all enabled chains. `simnet` has the model chains that this process simulates; it is `None`
/// when the process simulates none.
///
/// # Errors
/// Fails when a chain's configuration cannot be used, or when a chain is a model chain and `simnet` does not have it.
pub fn open_enabled_chain_sources(
    config: &Config,
    simnet: Option<&simnet::Simnet>,
) -> anyhow::Result<BTreeMap<ChainId, Arc<dyn Source>>> {
    let mut sources: BTreeMap<ChainId, Arc<dyn Source>> = BTreeMap::new();
    for chain in config.chains.values().filter(|chain| chain.enabled) {
        let source = match chain.driver {
            Driver::Simnet => simnet.and_then(|simnet| simnet.source(&chain.id)).with_context(|| {
                format!(
                    "[chains.{}] has driver = \"simnet\", which only `settled dev` supports; set driver = \"node\"",
                    chain.id
                )
            })?,
            Driver::Node => open_node_source(chain)?,
        };
        sources.insert(chain.id.clone(), source);
    }
    Ok(sources)
}

/// Opens the source of a chain that is read from nodes.
///
/// # Errors
/// Fails when the chain's configuration cannot be used.
pub fn open_node_source(chain: &ChainConfig) -> anyhow::Result<Arc<dyn Source>> {
    let source: anyhow::Result<Arc<dyn Source>> = match chain.family {
        Family::Evm => open_evm_driver(chain).map(|driver| Arc::new(driver) as Arc<dyn Source>),
        Family::Tron => open_tron_driver(chain).map(|driver| Arc::new(driver) as Arc<dyn Source>),
        Family::Bitcoin => open_bitcoin_driver(chain).map(|driver| Arc::new(driver) as Arc<dyn Source>),
    };
    source.with_context(|| format!("[chains.{}]", chain.id))
}

fn open_evm_driver(chain: &ChainConfig) -> anyhow::Result<evm::Evm> {
    let chain_id = chain.identity.as_deref().context("identity must be the chain id")?;
    Ok(evm::Evm::from_config(evm::EvmConfig {
        chain: chain.id.clone(),
        chain_id: chain_id.parse().with_context(|| format!("identity `{chain_id}` is not a chain id"))?,
        assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
        pool: build_pool_config_with_secrets(chain)?,
        finality: match chain.finality {
            config::Finality::Tag => evm::FinalitySource::Tag,
            config::Finality::Depth => evm::FinalitySource::Depth,
        },
        range_depth: chain.final_depth,
        verify: evm::Commitments {
            header: chain.verify.header,
            transactions: chain.verify.transactions,
            receipts: chain.verify.receipts,
        },
        trace: match chain.trace {
            config::Trace::None => evm::TraceApi::None,
            config::Trace::Debug => evm::TraceApi::Debug,
            config::Trace::Parity => evm::TraceApi::Parity,
        },
    })?)
}

fn open_tron_driver(chain: &ChainConfig) -> anyhow::Result<tron::Tron> {
    let chain_id = chain.identity.as_deref().context("identity must be the chain id")?;
    Ok(tron::Tron::from_config(tron::TronConfig {
        chain: chain.id.clone(),
        chain_id: chain_id.parse().with_context(|| format!("identity `{chain_id}` is not a chain id"))?,
        assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
        pool: build_pool_config_with_secrets(chain)?,
    })?)
}

fn open_bitcoin_driver(chain: &ChainConfig) -> anyhow::Result<btc::Bitcoin> {
    let (_, asset) = chain.assets().next().context("assets is empty")?;
    Ok(btc::Bitcoin::from_config(btc::BitcoinConfig {
        address_pause: ADDRESS_PAUSE,
        network: chain.network,
        asset: asset.clone(),
        backend: match chain.api {
            config::Api::Core => btc::Backend::Core,
            config::Api::Esplora => btc::Backend::Esplora,
        },
        address_type: match chain.address_kind {
            config::AddressKind::P2wpkh => btc::AddressType::P2wpkh,
            config::AddressKind::P2tr => btc::AddressType::P2tr,
        },
        verify: btc::Verify { work: chain.verify.header, commitments: chain.verify.transactions },
        pool: build_pool_config_with_secrets(chain)?,
    })?)
}

fn build_pool_config_with_secrets(chain: &ChainConfig) -> anyhow::Result<rpc::Config> {
    let mut endpoints = Vec::new();
    for endpoint in &chain.endpoints {
        endpoints.push(build_endpoint_with_secrets(endpoint)?);
    }
    let mut pool = rpc::Config::new(endpoints).with_head_lag_for_block_time(chain.block_time);
    pool.deadline = chain.timeout;
    pool.body_bytes_max = usize::try_from(chain.answer_bytes_max)?;
    Ok(pool)
}

/// Builds an endpoint with the configured options. Reads its URL and its headers from secret files when the
/// configuration names such files.
fn build_endpoint_with_secrets(endpoint: &config::Endpoint) -> anyhow::Result<rpc::Endpoint> {
    let url = match (&endpoint.url, endpoint.url_file.read_secret()?) {
        (_, Some(url)) => url,
        (Some(url), None) => url.to_string().into(),
        (None, None) => bail!("an endpoint has neither `url` nor `url_file`"),
    };
    let roles: Vec<rpc::Role> = endpoint
        .roles
        .iter()
        .map(|role| match role {
            config::Role::Read => rpc::Role::Read,
            config::Role::Broadcast => rpc::Role::Broadcast,
        })
        .collect();
    let limits = rpc::RateLimits { per_second: endpoint.requests_per_second, per_day: endpoint.requests_per_day };
    let configured = rpc::Endpoint::new(url.expose_secret())?.with_roles(&roles).with_limits(limits);
    let mut configured = configured.with_own(endpoint.own);
    if let Some(solidity) = &endpoint.solidity_url {
        configured = configured.with_path_override("walletsolidity", solidity.as_str())?;
    }
    if let Some(file) = endpoint.login_file.resolve_path()? {
        configured = configured.with_login_file(file);
    }
    let Some(headers) = endpoint.headers_file.read_secret()? else { return Ok(configured) };
    for line in headers.expose_secret().lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').context("a line of headers_file is not `Name: value`")?;
        configured = configured.with_sensitive_header(name.trim(), value.trim())?;
    }
    Ok(configured)
}

/// Returns the specifications of the enabled model chains, which this process simulates.
pub fn list_enabled_simnet_chains(config: &Config) -> Vec<simnet::ChainSpec> {
    let chains = config.chains.values().filter(|chain| chain.enabled && chain.driver == Driver::Simnet);
    chains
        .map(|chain| simnet::ChainSpec {
            chain: chain.id.clone(),
            family: chain.family,
            assets: chain.assets().map(|(_, asset)| asset.clone()).collect(),
            finality: match chain.finality {
                config::Finality::Tag => simnet::FinalityMark::Depth(chain.final_depth),
                config::Finality::Depth => simnet::FinalityMark::None,
            },
        })
        .collect()
}
