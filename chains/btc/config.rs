//! The configuration of the Bitcoin driver.

use std::time::Duration;

use bitcoin::{Network, constants::genesis_block};
use chain::Asset;

use crate::paid_output::AddressType;

/// The software of the nodes or servers that answer the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The operator's Bitcoin Core nodes, over JSON-RPC.
    Core,
    /// Public Esplora servers, over HTTP.
    Esplora,
}

/// The checks that the driver makes for each block. The configuration can switch them off only for the operator's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// True to check each header's proof of work, and its difficulty against the difficulty of its parent.
    pub work: bool,
    /// True to check the Merkle roots of the transactions and of the witnesses.
    pub commitments: bool,
}

impl Verify {
    /// The setting with all checks switched on.
    pub const ALL: Verify = Verify { work: true, commitments: true };
}

/// The configuration of the driver for one Bitcoin network.
#[derive(Debug, Clone)]
pub struct BitcoinConfig {
    /// The network, which decides the genesis block and the rules of difficulty.
    pub network: Network,
    /// The coin of the network, as an asset.
    pub asset: Asset,
    /// The software that all endpoints of the pool run.
    pub backend: Backend,
    /// Type of all addresses that receive payments.
    pub address_type: AddressType,
    /// The checks that the driver makes for each block.
    pub verify: Verify,
    /// The minimum time between two look-ups of single addresses at a public server. The driver looks up single
    /// addresses when the mempool is too large to be read whole.
    pub address_pause: Duration,
    /// The endpoints and their limits. The driver sets the `chain_check` itself.
    pub pool: rpc::Config,
}

/// The reason why the driver cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The endpoint pool cannot be built from its configuration.
    #[error(transparent)]
    Pool(#[from] rpc::pool::ConfigError),
    /// The configured asset is not the native coin of the chain.
    #[error("asset {0} is a token, but Bitcoin has no tokens; configure its native coin")]
    TokenAsset(chain::AssetId),
}

/// Returns the hash of a network's genesis block, which identifies the network.
pub fn genesis_hash_of(network: Network) -> String {
    genesis_block(network).block_hash().to_string()
}
