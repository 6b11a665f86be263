//! The configuration of the TRON driver.

use chain::{Asset, AssetId, ChainId};

use crate::address::BadAddress;

/// The configuration of a TRON chain.
#[derive(Debug, Clone)]
pub struct TronConfig {
    /// The configured name of the chain, to which all assets must belong.
    pub chain: ChainId,
    /// The last four bytes of the genesis block's id. An endpoint is used only if its genesis block has this id.
    pub chain_id: u32,
    /// The accepted assets: listed tokens, and TRX only if it is accepted for payments.
    pub assets: Vec<Asset>,
    /// The endpoints and their limits. The driver sets `chain_check` itself. If a node serves the solidified
    /// (irreversible) blocks on another port, its endpoint needs a second URL with this port for the paths that begin
    /// with `walletsolidity`.
    pub pool: rpc::Config,
}

/// The reason why the driver cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configured address of a token contract is not a valid TRON address.
    #[error(transparent)]
    Contract(#[from] BadAddress),
    /// The endpoint pool cannot be built from its configuration.
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// A configured asset belongs to another chain. The fields are the asset and the chain.
    #[error("asset {0} does not belong to chain {1}")]
    ForeignAsset(AssetId, ChainId),
}
