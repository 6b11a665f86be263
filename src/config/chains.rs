//! The options `[chains.NAME]`: the properties of a chain, its endpoints and assets, and the depths at which deposits
//! are confirmed and final.

use std::{collections::BTreeMap, fmt, time::Duration};

use bitcoin::base58;
use chain::{AddressKey, Asset, AssetKind, ChainId, Family, address};
use rust_decimal::Decimal;
use serde::Deserialize;
use url::Url;

use crate::{SecretFile, deserializers};
use ids::Mode;

/// The chains by their names.
pub type Chains = BTreeMap<ChainId, ChainConfig>;

/// The minimum of the default time between two requests for the newest block, in milliseconds.
const POLL_MIN_MS: u64 = 400;

/// A chain with all options, merged from its own table, its preset and the chain defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawChain")]
pub struct ChainConfig {
    /// The name in the table header `[chains.NAME]`. The database and the commands use the same name.
    pub id: ChainId,
    /// A name of the chain for people; by default the name of its table.
    pub title: String,
    /// True when the daemon reads the blocks of this chain.
    pub enabled: bool,
    /// The origin of the chain's blocks: real nodes or a model.
    pub driver: Driver,
    /// The mode of the chain: live, or test with worthless coins.
    pub mode: Mode,
    /// The RPC endpoints of the chain's nodes; empty for a model chain.
    pub endpoints: Vec<Endpoint>,
    /// The time limit of one request to an endpoint of the chain.
    pub timeout: Duration,
    /// The maximum size of an endpoint's response, in bytes.
    pub answer_bytes_max: u64,
    /// The time between two requests for the newest block.
    pub poll: Duration,
    /// The height of the first block to read. With `None`, the first block is near the newest one at the time when the
    /// chain is first enabled.
    pub start_height: Option<u64>,
    /// The family of the chain, which determines the format of addresses and transactions.
    pub family: Family,
    /// The chain id, or the hash of the genesis block, that nodes must report. `None` accepts what the first node
    /// reports.
    pub identity: Option<String>,
    /// The usual time between two blocks of the chain.
    pub block_time: Duration,
    /// The rule by which a block is final.
    pub finality: Finality,
    /// The minimum number of confirmations of a final block, even if the node marks the block as final earlier.
    pub final_depth_min: u64,
    /// The number of confirmations after which a block is final, on a chain whose nodes do not mark final blocks.
    pub final_depth: u64,
    /// The number of recent blocks that are stored. When a reorganisation removes more blocks than this, the chain is
    /// halted.
    pub keep_blocks: u64,
    /// The numbers of confirmations that deposits need, by the total value of the deposits in their block, in ascending
    /// order. Only the last entry has no `below_usd`.
    pub confirmations: Vec<Confirmation>,
    /// The values in a block's header that the driver computes itself to verify the block.
    pub verify: Verify,
    /// The method that finds internal transfers, which are native coins that a contract sends.
    pub trace: Trace,
    /// The Bitcoin network. It determines the prefix of addresses.
    pub network: bitcoin::Network,
    /// The kind of the addresses that are derived on a Bitcoin chain; other chains ignore it.
    pub address_kind: AddressKind,
    /// The API that the nodes of a Bitcoin chain offer; other chains ignore it.
    pub api: Api,
    /// The assets of the chain by their codes.
    assets: BTreeMap<String, Asset>,
}

/// The origin of a chain's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The blocks come from real nodes of the chain's family.
    Node,
    /// The blocks come from a model chain, which this process simulates.
    Simnet,
}

/// The rule by which a block is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finality {
    /// A block is final when the node marks it as final.
    Tag,
    /// A block is final after `final_depth` confirmations.
    Depth,
}

/// One entry of `confirmations`: the depth at which the deposits of a block are confirmed when their total value is
/// below `below_usd`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// Exclusive upper bound of the value in US dollars; `None` for all larger values.
    #[serde(default, deserialize_with = "deserializers::deserialize_some_decimal")]
    pub below_usd: Option<Decimal>,
    /// The number of confirmations. The block of the deposit itself is the first one.
    pub depth: u64,
}

/// The kind of the Bitcoin addresses that are derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// Native SegWit addresses (BIP 84).
    P2wpkh,
    /// Taproot addresses (BIP 86).
    P2tr,
}

impl AddressKind {
    /// Returns the kind as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressKind::P2wpkh => "p2wpkh",
            AddressKind::P2tr => "p2tr",
        }
    }
}

/// The API that the nodes of a Bitcoin chain offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// JSON-RPC of Bitcoin Core, which the operator runs.
    Core,
    /// HTTP API of an Esplora server. Every response is verified, so the server may be public.
    Esplora,
}

/// An RPC endpoint. Its `Debug` output contains only the host of the URL, because URLs of providers contain API keys.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The URL of the endpoint; `None` when the file `url_file` contains the URL.
    #[serde(default, deserialize_with = "deserializers::deserialize_some_url")]
    pub url: Option<Url>,
    /// The file that contains the URL, for URLs with an API key.
    #[serde(default)]
    pub url_file: SecretFile,
    /// The URL under which a TRON node serves its solidified (irreversible) blocks; `None` when it is the same as
    /// `url`.
    #[serde(default, deserialize_with = "deserializers::deserialize_some_url")]
    pub solidity_url: Option<Url>,
    /// The file with additional HTTP headers, one `Name: value` per line.
    #[serde(default)]
    pub headers_file: SecretFile,
    /// The file with the user name and the password for the endpoint, as `user:password`.
    #[serde(default)]
    pub login_file: SecretFile,
    /// Maximum number of requests per second; `None` disables the limit.
    #[serde(default)]
    pub requests_per_second: Option<u32>,
    /// Maximum number of requests per day; `None` disables the limit.
    #[serde(default)]
    pub requests_per_day: Option<u32>,
    /// The purposes for which the endpoint is used.
    #[serde(default = "Role::all_roles")]
    pub roles: Vec<Role>,
    /// True when the operator runs the node, whose answers then need no second source.
    #[serde(default)]
    pub own: bool,
}

/// A purpose for which an endpoint is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The endpoint is used to read blocks and balances.
    Read,
    /// The endpoint is used to broadcast signed transactions.
    Broadcast,
}

/// The values in a block's header that the driver computes itself to verify the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// True when the hash of a block is recomputed from its header.
    pub header: bool,
    /// True when the Merkle root of the transactions is recomputed.
    pub transactions: bool,
    /// True when the Merkle root of the receipts is recomputed.
    pub receipts: bool,
}

/// The method that finds native coins which a contract sends to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trace {
    /// No method. Instead, the balances of the addresses of open invoices are compared with their deposits.
    None,
    /// The RPC method `debug_traceBlockByHash`.
    Debug,
    /// The RPC method `trace_block`.
    Parity,
}

impl ChainConfig {
    /// Returns the chain's assets with their codes, in alphabetical order of the codes.
    pub fn assets(&self) -> impl Iterator<Item = (&str, &Asset)> {
        self.assets.iter().map(|(code, asset)| (code.as_str(), asset))
    }

    /// Returns the asset with this code; `None` when the chain has no such asset.
    pub fn find_asset(&self, code: &str) -> Option<&Asset> {
        self.assets.get(code)
    }

    /// Returns the scheme by which addresses of this chain are derived.
    pub fn address_scheme(&self) -> address::AddressScheme {
        match (self.family, self.address_kind) {
            (Family::Bitcoin, AddressKind::P2tr) => address::AddressScheme::P2tr(self.network.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => {
                address::AddressScheme::for_family(family, self.network)
            }
        }
    }
}

impl Role {
    /// Returns both roles, `read` and `broadcast`: the default of an endpoint without the option `roles`.
    fn all_roles() -> Vec<Role> {
        vec![Role::Read, Role::Broadcast]
    }
}

impl Endpoint {
    /// Returns an endpoint with all roles and without request limits.
    pub fn new(url: Url) -> Endpoint {
        Endpoint {
            url: Some(url),
            url_file: SecretFile::default(),
            solidity_url: None,
            headers_file: SecretFile::default(),
            login_file: SecretFile::default(),
            requests_per_second: None,
            requests_per_day: None,
            roles: Role::all_roles(),
            own: false,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.as_ref().and_then(Url::host_str).unwrap_or("file");
        write!(f, "Endpoint({host} {:?})", self.roles)
    }
}

/// A chain's table, after it was merged with its preset and the chain defaults.
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
    #[serde(rename = "timeout_ms", deserialize_with = "deserializers::deserialize_milliseconds")]
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

/// An asset of a chain, as it is written in the configuration.
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

    fn try_from(raw: RawChain) -> Result<ChainConfig, String> {
        let poll_ms = if raw.poll_ms == 0 { (raw.block_time_ms / 2).max(POLL_MIN_MS) } else { raw.poll_ms };
        let mut assets = BTreeMap::new();
        for asset in raw.assets {
            let code = asset.code.clone();
            let asset = asset.into_valid_asset(&raw.id, raw.family)?;
            if let Some(twin) = assets.values().find(|other: &&Asset| other.id == asset.id) {
                return Err(format!("`{code}` is the asset {} a second time; remove one of them", twin.id));
            }
            assets.insert(code, asset);
        }
        let title = if raw.title.is_empty() { raw.id.to_string() } else { raw.title };
        Ok(ChainConfig {
            id: raw.id,
            title,
            enabled: raw.enabled,
            driver: raw.driver,
            mode: raw.mode,
            endpoints: raw.endpoints,
            timeout: raw.timeout,
            answer_bytes_max: raw.answer_bytes_max,
            poll: Duration::from_millis(poll_ms),
            start_height: Some(raw.start_height).filter(|height| *height > 0),
            family: raw.family,
            identity: Some(raw.identity).filter(|identity| !identity.is_empty()),
            block_time: Duration::from_millis(raw.block_time_ms),
            finality: raw.finality,
            final_depth_min: raw.final_depth_min,
            final_depth: raw.final_depth,
            keep_blocks: raw.keep_blocks,
            confirmations: raw.confirmations,
            verify: raw.verify,
            trace: raw.trace,
            network: raw.network,
            address_kind: raw.address_kind,
            api: raw.api,
            assets,
        })
    }
}

impl RawAsset {
    /// Returns the asset after its decimals and the address of its contract were checked.
    fn into_valid_asset(self, chain: &ChainId, family: Family) -> Result<Asset, String> {
        let RawAsset { code, contract, symbol, decimals, quote_decimals } = self;
        if decimals > 36 || quote_decimals > decimals {
            return Err(format!(
                "`{code}` has {decimals} decimals and {quote_decimals} quote_decimals; decimals are 36 at most, and \
                 quote_decimals are not above decimals"
            ));
        }
        let kind = match contract {
            None => AssetKind::Native,
            Some(text) => {
                let contract = parse_contract_address(family, &text).ok_or_else(|| {
                    format!("`{code}`: \"{text}\" is not the address of a contract: is a letter wrong?")
                })?;
                AssetKind::Token { contract }
            }
        };
        Ok(Asset::new(chain.clone(), kind, &symbol, decimals, quote_decimals))
    }
}

/// Parses the address of a contract and returns its canonical form; `None` when it is not an address of the family or
/// its checksum is wrong. An EVM address in lower case has no checksum and is accepted; Bitcoin has no contracts.
fn parse_contract_address(family: Family, text: &str) -> Option<String> {
    match family {
        Family::Bitcoin => None,
        Family::Evm => {
            let digits = text.strip_prefix("0x")?;
            let key: [u8; 20] = const_hex::decode(digits).ok()?.try_into().ok()?;
            let canonical = address::encode_evm_address(AddressKey(key)).text;
            let without_checksum = !digits.bytes().any(|b| b.is_ascii_uppercase());
            (without_checksum || canonical == text).then_some(canonical)
        }
        Family::Tron => {
            let payload = base58::decode_check(text).ok()?;
            let key: [u8; 20] = payload.get(1..)?.try_into().ok()?;
            let canonical = address::encode_tron_address(AddressKey(key)).text;
            (canonical == text).then_some(canonical)
        }
    }
}
