//! What is known of a network before any node is asked. Networks are data: `config/chains/*.toml`.

use alloy_primitives::Address;
use chain::{Asset, AssetKind, ChainId};
use serde::Deserialize;

const EMBEDDED: [&str; 5] = [
    include_str!("../../../config/chains/ethereum.toml"),
    include_str!("../../../config/chains/bsc.toml"),
    include_str!("../../../config/chains/polygon.toml"),
    include_str!("../../../config/chains/base.toml"),
    include_str!("../../../config/chains/sepolia.toml"),
];

/// A network. No preset names an endpoint: which nodes are trusted is the operator's choice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub name: ChainId,
    /// What a person calls it.
    pub title: String,
    /// EIP-155.
    pub chain_id: u64,
    /// Its coins are worth nothing.
    pub test: bool,
    pub block_time_ms: u64,
    pub finality: Finality,
    /// Depth at which an ordinary payment counts as confirmed.
    pub confirmations: u64,
    /// Least depth of a final block, even if the chain calls it final earlier.
    pub final_depth_min: u64,
    /// Depth at which a block counts as final where there is no mark or the mark stalls.
    pub final_depth: u64,
    /// Recent block hashes to keep: the deepest reorganisation that is followed without a person.
    pub keep_blocks: u64,
    pub verify: Verify,
    pub trace: Trace,
    pub native: Coin,
    #[serde(default)]
    pub tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finality {
    /// The nodes know the block tag `finalized`.
    Tag,
    Depth,
}

/// Which commitments of a header can be recomputed on this chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    pub header: bool,
    pub transactions: bool,
    pub receipts: bool,
}

impl Verify {
    pub const ALL: Verify = Verify { header: true, transactions: true, receipts: true };
}

/// How native coins sent by contracts are read. Tracing costs one more request per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trace {
    /// Not at all: balances of addresses with open native invoices are compared.
    None,
    /// `debug_traceBlockByHash` with `callTracer`: geth, reth, erigon, nethermind, anvil.
    Debug,
    /// `trace_block`: erigon, nethermind, reth, anvil.
    Parity,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coin {
    pub symbol: String,
    pub decimals: u8,
    pub quote_decimals: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub symbol: String,
    /// With the checksum of EIP-55.
    pub contract: String,
    pub decimals: u8,
    pub quote_decimals: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    #[error("{0}")]
    Toml(String),
    #[error("`{0}` is not a contract address with a correct checksum (EIP-55)")]
    BadContract(String),
}

impl Preset {
    /// Those that are built in.
    pub fn embedded() -> Vec<Preset> {
        let parse = |text: &str| Preset::parse(text).expect("embedded presets are read by a test");
        EMBEDDED.into_iter().map(parse).collect()
    }

    pub fn named(name: &str) -> Option<Preset> {
        Preset::embedded().into_iter().find(|preset| preset.name.as_str() == name)
    }

    pub fn parse(text: &str) -> Result<Preset, PresetError> {
        let preset: Preset = toml::from_str(text).map_err(|error| PresetError::Toml(error.to_string()))?;
        for token in &preset.tokens {
            canonical_contract(&token.contract)?;
        }
        Ok(preset)
    }

    /// The coin first, then the tokens in the order of the file.
    pub fn assets(&self) -> Vec<Asset> {
        let coin = &self.native;
        let native = Asset::new(self.name.clone(), AssetKind::Native, &coin.symbol, coin.decimals, coin.quote_decimals);
        let token = |token: &Token| {
            let kind = AssetKind::Token { contract: token.contract.clone() };
            Asset::new(self.name.clone(), kind, &token.symbol, token.decimals, token.quote_decimals)
        };
        std::iter::once(native).chain(self.tokens.iter().map(token)).collect()
    }
}

/// The text under which a contract stands in asset names. Only checksummed text is taken: a mistyped contract is a loss.
pub fn canonical_contract(text: &str) -> Result<String, PresetError> {
    match Address::parse_checksummed(text, None) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(PresetError::BadContract(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn embedded_presets_are_complete() {
        let presets = Preset::embedded();
        let names: HashSet<&str> = presets.iter().map(|preset| preset.name.as_str()).collect();
        let ids: HashSet<u64> = presets.iter().map(|preset| preset.chain_id).collect();
        assert_eq!((names.len(), ids.len()), (EMBEDDED.len(), EMBEDDED.len()));
        for preset in &presets {
            let assets = preset.assets();
            assert!(assets[0].is_native() && assets.len() > preset.tokens.len());
            assert!(preset.confirmations <= preset.final_depth && preset.final_depth <= preset.keep_blocks);
        }
    }

    #[test]
    fn decimals_are_pinned_per_chain() {
        let usdt = |chain: &str| {
            let preset = Preset::named(chain).unwrap();
            preset.tokens.iter().find(|token| token.symbol == "USDT").unwrap().decimals
        };
        assert_eq!((usdt("ethereum"), usdt("bsc"), usdt("polygon")), (6, 18, 6));
    }

    #[test]
    fn a_mistyped_contract_is_refused() {
        assert!(canonical_contract("0xdAC17F958D2ee523a2206206994597C13D831ec7").is_ok());
        for bad in [
            "0xdac17f958d2ee523a2206206994597c13d831ec7",
            "0xdAC17F958D2ee523a2206206994597C13D831ec8",
            "dAC17F958D2ee523a2206206994597C13D831ec",
            "",
        ] {
            assert!(canonical_contract(bad).is_err(), "{bad}");
        }
    }
}
