//! What can be paid: an asset is (chain, native coin or contract) with pinned decimals. A symbol is for people only.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The configured name of one chain, such as `ethereum` or `bsc`: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a chain name (1 to 32 of a-z, 0-9 and -)")]
pub struct InvalidChainId(String);

impl ChainId {
    pub fn new(name: &str) -> Result<ChainId, InvalidChainId> {
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(ChainId(name.into())) } else { Err(InvalidChainId(name.to_owned())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ChainId {
    type Error = InvalidChainId;

    fn try_from(name: String) -> Result<ChainId, InvalidChainId> {
        ChainId::new(&name)
    }
}

impl From<ChainId> for String {
    fn from(id: ChainId) -> String {
        id.0.to_string()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How addresses and transactions of a chain look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Bitcoin,
    Evm,
    Tron,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AssetKind {
    /// The coin in which the chain takes its fees.
    Native,
    /// A token, by the canonical text of its contract's address.
    Token { contract: String },
}

/// The ledger's name of an asset: `ethereum/native`, `bsc/0x55d3…7955`; balances in fiat are `fiat/CNY`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AssetId(Arc<str>);

impl AssetId {
    pub fn on_chain(chain: &ChainId, kind: &AssetKind) -> AssetId {
        match kind {
            AssetKind::Native => AssetId(format!("{chain}/native").into()),
            AssetKind::Token { contract } => AssetId(format!("{chain}/{contract}").into()),
        }
    }

    /// Money that stands on no chain: a balance in a currency.
    pub fn fiat(currency: &str) -> AssetId {
        AssetId(format!("fiat/{currency}").into())
    }

    /// Takes back what the database or configuration stored; the text was made by [`AssetId::on_chain`] or [`AssetId::fiat`].
    pub fn from_stored(text: &str) -> AssetId {
        AssetId(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    pub id: AssetId,
    pub chain: ChainId,
    pub kind: AssetKind,
    pub symbol: String,
    /// Pinned by configuration and compared with the chain at start: USDT has 6 on Ethereum and TRON, 18 on BSC.
    pub decimals: u8,
    /// Decimal places of an expected amount, at most `decimals`: what a buyer can type into a wallet.
    pub quote_decimals: u8,
}

impl Asset {
    pub fn new(chain: ChainId, kind: AssetKind, symbol: &str, decimals: u8, quote_decimals: u8) -> Asset {
        let id = AssetId::on_chain(&chain, &kind);
        Asset { id, chain, kind, symbol: symbol.to_owned(), decimals, quote_decimals: quote_decimals.min(decimals) }
    }

    pub fn is_native(&self) -> bool {
        self.kind == AssetKind::Native
    }
}
