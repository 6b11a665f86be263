//! One chain: what it is, which nodes are asked, what can be paid on it, and when a deposit counts.

use std::{collections::BTreeMap, fmt, time::Duration};

use bitcoin::base58;
use chain::{AddressKey, Asset, AssetKind, ChainId, Family, derive};
use rust_decimal::Decimal;
use serde::Deserialize;
use url::Url;

use crate::{SecretFile, text};
use ids::Mode;

pub type Chains = BTreeMap<ChainId, ChainConfig>;

/// Shortest time between two looks at the tip.
const POLL_MIN_MS: u64 = 400;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawChain")]
pub struct ChainConfig {
    pub id: ChainId,
    /// What people call it.
    pub title: String,
    pub enabled: bool,
    pub driver: Driver,
    pub mode: Mode,
    pub endpoints: Vec<Endpoint>,
    pub timeout: Duration,
    pub answer_bytes_max: u64,
    pub poll: Duration,
    /// `None`: the tip when the chain is enabled for the first time.
    pub start_height: Option<u64>,
    pub family: Family,
    /// `None`: what the node says the first time.
    pub identity: Option<String>,
    pub block_time: Duration,
    pub finality: Finality,
    /// Least depth of a final block, even if the node marks it earlier.
    pub final_depth_min: u64,
    pub final_depth: u64,
    pub keep_blocks: u64,
    /// Ascending; the last has no upper bound.
    pub confirmations: Vec<Confirmation>,
    pub verify: Verify,
    pub trace: Trace,
    /// Of Bitcoin's addresses.
    pub network: bitcoin::Network,
    /// Of Bitcoin.
    pub address_kind: AddressKind,
    /// Of Bitcoin's nodes.
    pub api: Api,
    assets: BTreeMap<String, Asset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Real nodes of the chain's family.
    Node,
    /// A model chain inside this process.
    Simnet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finality {
    /// The node marks final blocks.
    Tag,
    /// `final_depth` alone decides.
    Depth,
}

/// The depth at which a deposit counts as confirmed, for invoices worth less than `below_usd`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    #[serde(default, deserialize_with = "text::decimal_or_none")]
    pub below_usd: Option<Decimal>,
    pub depth: u64,
}

/// What addresses of Bitcoin are derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    P2wpkh,
    P2tr,
}

impl AddressKind {
    pub fn as_str(self) -> &'static str {
        match self {
            AddressKind::P2wpkh => "p2wpkh",
            AddressKind::P2tr => "p2tr",
        }
    }
}

/// How nodes of Bitcoin are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// JSON-RPC of one's own Bitcoin Core.
    Core,
    /// HTTP of anybody's Esplora; everything is proven.
    Esplora,
}

/// Shown without its URL: keys stand in paths.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    #[serde(default, deserialize_with = "text::url_or_none")]
    pub url: Option<Url>,
    #[serde(default)]
    pub url_file: SecretFile,
    /// Where a TRON node shows its solidified state, if not at `url`.
    #[serde(default, deserialize_with = "text::url_or_none")]
    pub solidity_url: Option<Url>,
    #[serde(default)]
    pub headers_file: SecretFile,
    #[serde(default)]
    pub login_file: SecretFile,
    #[serde(default)]
    pub requests_per_second: Option<u32>,
    #[serde(default)]
    pub requests_per_day: Option<u32>,
    #[serde(default = "Role::all")]
    pub roles: Vec<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Read,
    Broadcast,
}

/// Which commitments of an EVM header are computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    pub header: bool,
    pub transactions: bool,
    pub receipts: bool,
}

/// How native coins sent by contracts are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trace {
    /// By comparing the balances of open invoices.
    None,
    Debug,
    Parity,
}

impl ChainConfig {
    /// What can be paid, by code.
    pub fn assets(&self) -> impl Iterator<Item = (&str, &Asset)> {
        self.assets.iter().map(|(code, asset)| (code.as_str(), asset))
    }

    pub fn asset(&self, code: &str) -> Option<&Asset> {
        self.assets.get(code)
    }

    /// How the addresses of its family look on this network.
    pub fn scheme(&self) -> derive::AddressScheme {
        match (self.family, self.address_kind) {
            (Family::Bitcoin, AddressKind::P2tr) => derive::AddressScheme::P2tr(self.network.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => {
                derive::AddressScheme::for_family(family, self.network)
            }
        }
    }
}

impl Role {
    fn all() -> Vec<Role> {
        vec![Role::Read, Role::Broadcast]
    }
}

impl Endpoint {
    /// An endpoint with every role and no quota.
    pub fn new(url: Url) -> Endpoint {
        Endpoint {
            url: Some(url),
            url_file: SecretFile::default(),
            solidity_url: None,
            headers_file: SecretFile::default(),
            login_file: SecretFile::default(),
            requests_per_second: None,
            requests_per_day: None,
            roles: Role::all(),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.as_ref().and_then(Url::host_str).unwrap_or("file");
        write!(f, "Endpoint({host} {:?})", self.roles)
    }
}

/// A chain as it stands in the configuration, after its preset was laid under it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    id: ChainId,
    title: String,
    enabled: bool,
    driver: Driver,
    #[serde(rename = "preset")]
    _preset: String,
    mode: Mode,
    endpoints: Vec<Endpoint>,
    #[serde(rename = "timeout_ms", deserialize_with = "text::milliseconds")]
    timeout: Duration,
    answer_bytes_max: u64,
    poll_ms: u64,
    start_height: u64,
    family: Family,
    identity: String,
    block_time_ms: u64,
    finality: Finality,
    final_depth_min: u64,
    final_depth: u64,
    keep_blocks: u64,
    confirmations: Vec<Confirmation>,
    assets: Vec<RawAsset>,
    verify: Verify,
    trace: Trace,
    network: bitcoin::Network,
    address_kind: AddressKind,
    api: Api,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAsset {
    code: String,
    contract: Option<String>,
    symbol: String,
    decimals: u8,
    quote_decimals: u8,
}

impl TryFrom<RawChain> for ChainConfig {
    type Error = String;

    fn try_from(written: RawChain) -> Result<ChainConfig, String> {
        let poll_ms = if written.poll_ms == 0 { (written.block_time_ms / 2).max(POLL_MIN_MS) } else { written.poll_ms };
        let mut assets = BTreeMap::new();
        for asset in written.assets {
            let code = asset.code.clone();
            let asset = asset.on(&written.id, written.family)?;
            if let Some(twin) = assets.values().find(|other: &&Asset| other.id == asset.id) {
                return Err(format!("`{code}` is the asset {} a second time; leave one of them out", twin.id));
            }
            assets.insert(code, asset);
        }
        let title = if written.title.is_empty() { written.id.to_string() } else { written.title };
        Ok(ChainConfig {
            id: written.id,
            title,
            enabled: written.enabled,
            driver: written.driver,
            mode: written.mode,
            endpoints: written.endpoints,
            timeout: written.timeout,
            answer_bytes_max: written.answer_bytes_max,
            poll: Duration::from_millis(poll_ms),
            start_height: Some(written.start_height).filter(|height| *height > 0),
            family: written.family,
            identity: Some(written.identity).filter(|identity| !identity.is_empty()),
            block_time: Duration::from_millis(written.block_time_ms),
            finality: written.finality,
            final_depth_min: written.final_depth_min,
            final_depth: written.final_depth,
            keep_blocks: written.keep_blocks,
            confirmations: written.confirmations,
            verify: written.verify,
            trace: written.trace,
            network: written.network,
            address_kind: written.address_kind,
            api: written.api,
            assets,
        })
    }
}

impl RawAsset {
    fn on(self, chain: &ChainId, family: Family) -> Result<Asset, String> {
        let RawAsset { code, contract, symbol, decimals, quote_decimals } = self;
        if decimals > 36 || quote_decimals > decimals {
            return Err(format!(
                "`{code}` has {decimals} decimals and {quote_decimals} quote_decimals; there are 36 at most, and the \
                 second is not above the first"
            ));
        }
        let kind = match contract {
            None => AssetKind::Native,
            Some(text) => {
                let contract = canonical_contract(family, &text).ok_or_else(|| {
                    format!("`{code}`: \"{text}\" is not the address of a contract: is a letter wrong?")
                })?;
                AssetKind::Token { contract }
            }
        };
        Ok(Asset::new(chain.clone(), kind, &symbol, decimals, quote_decimals))
    }
}

/// The one text of a contract's address. A checksum that is there must be right.
fn canonical_contract(family: Family, text: &str) -> Option<String> {
    match family {
        Family::Bitcoin => None,
        Family::Evm => {
            let digits = text.strip_prefix("0x")?;
            let key: [u8; 20] = const_hex::decode(digits).ok()?.try_into().ok()?;
            let canonical = derive::evm_address(AddressKey(key)).text;
            let without_checksum = !digits.bytes().any(|b| b.is_ascii_uppercase());
            (without_checksum || canonical == text).then_some(canonical)
        }
        Family::Tron => {
            let payload = base58::decode_check(text).ok()?;
            let key: [u8; 20] = payload.get(1..)?.try_into().ok()?;
            let canonical = derive::tron_address(AddressKey(key)).text;
            (canonical == text).then_some(canonical)
        }
    }
}
