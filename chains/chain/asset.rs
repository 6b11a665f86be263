//! Assets: a chain's native coin or one of its token contracts, with fixed decimals. A symbol is a label for people and
//! identifies nothing.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The configured name of one chain, such as `ethereum` or `bsc`: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(Arc<str>);

/// The error for a text that is not a chain name; the field contains the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a chain name (1 to 32 of a-z, 0-9 and -)")]
pub struct InvalidChainId(String);

impl ChainId {
    /// Parses a chain name.
    ///
    /// # Errors
    /// Fails with [`InvalidChainId`] unless the name has 1 to 32 characters of `a-z`, `0-9` and `-`.
    pub fn parse(name: &str) -> Result<ChainId, InvalidChainId> {
        let valid = (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid { Ok(ChainId(name.into())) } else { Err(InvalidChainId(name.to_owned())) }
    }

    /// Returns the name of the chain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ChainId {
    type Error = InvalidChainId;

    fn try_from(name: String) -> Result<ChainId, InvalidChainId> {
        ChainId::parse(&name)
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

/// The family of a chain. All chains of a family have the same formats of addresses, transactions and blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Bitcoin and its test networks.
    Bitcoin,
    /// Ethereum and the chains that run its virtual machine.
    Evm,
    /// TRON and its test networks.
    Tron,
}

/// The two kinds of on-chain assets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AssetKind {
    /// The coin in which the chain takes its fees.
    Native,
    /// A token, identified by the address of its contract.
    Token {
        /// The address of the token contract, as canonical text.
        contract: String,
    },
}

/// The name of an asset in the ledger, such as `ethereum/native`, `bsc/0x55d3…7955`, or `fiat/CNY` for a balance in
/// fiat.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AssetId(Arc<str>);

impl AssetId {
    /// Returns the name of the native coin or of a token of a chain.
    pub fn on_chain(chain: &ChainId, kind: &AssetKind) -> AssetId {
        match kind {
            AssetKind::Native => AssetId(format!("{chain}/native").into()),
            AssetKind::Token { contract } => AssetId(format!("{chain}/{contract}").into()),
        }
    }

    /// Returns the name of a fiat balance; `currency` is an ISO 4217 code.
    pub fn fiat(currency: &str) -> AssetId {
        AssetId(format!("fiat/{currency}").into())
    }

    /// Returns the asset id with this name, which comes from the database or the configuration. The text is not
    /// checked.
    pub fn from_stored(text: &str) -> AssetId {
        AssetId(text.into())
    }

    /// Returns the asset name as text.
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

/// A native coin or a token with which buyers can pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// The name of the asset in the ledger, made of `chain` and `kind`.
    pub id: AssetId,
    /// The chain that the asset is on.
    pub chain: ChainId,
    /// The kind of the asset: the native coin or a token.
    pub kind: AssetKind,
    /// The label of the asset that people read, such as `USDT`. It is not unique.
    pub symbol: String,
    /// The decimal places of the asset: one whole coin is 10^`decimals` base units. The configuration sets the number,
    /// and the daemon compares it with the token contract at start. USDT has 6 decimals on Ethereum and TRON, and 18 on
    /// BSC.
    pub decimals: u8,
    /// The maximum number of decimal places that an amount due in this asset has, at most `decimals`. Many wallets do
    /// not let people type more decimal places.
    pub quote_decimals: u8,
}

impl Asset {
    /// Returns an asset whose id is made of `chain` and `kind`. If `quote_decimals` is larger than `decimals`, it is
    /// set to `decimals`.
    pub fn new(chain: ChainId, kind: AssetKind, symbol: &str, decimals: u8, quote_decimals: u8) -> Asset {
        let id = AssetId::on_chain(&chain, &kind);
        Asset { id, chain, kind, symbol: symbol.to_owned(), decimals, quote_decimals: quote_decimals.min(decimals) }
    }

    /// Returns true for the coin in which the chain takes its fees.
    pub fn is_native(&self) -> bool {
        self.kind == AssetKind::Native
    }
}
