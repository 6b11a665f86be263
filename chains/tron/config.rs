//! The configuration of the TRON driver.

use chain::{Asset, AssetId, ChainId};

use crate::address::BadAddress;

/// The configuration of a TRON chain.
#[derive(Debug, Clone)]
pub struct TronConfig {
    /// The configured name of the chain, to which all assets must belong.
    pub chain: ChainId,
    /// The last four bytes of the genesis block's id. An endpoint is used only after it returned that block.
    pub chain_id: u32,
    /// The accepted assets: listed tokens, and TRX only if it is accepted for payments.
    pub assets: Vec<Asset>,
    /// Endpoints and their limits. [`Tron::new`] replaces its `chain_check`. Where a node serves the solidified view on
    /// another port, the endpoint maps `walletsolidity` to that URL.
    pub pool: rpc::Config,
}

/// The reason why the driver cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configured address of a token contract is not a valid TRON address.
    #[error(transparent)]
    Contract(#[from] BadAddress),
    /// The endpoint pool rejects its configuration.
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// The asset belongs to another chain.
    #[error("asset {0} does not belong to chain {1}")]
    ForeignAsset(AssetId, ChainId),
}
