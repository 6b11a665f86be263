//! The configuration of the Bitcoin driver.

use std::time::Duration;

use bitcoin::{Network, constants::genesis_block};
use chain::Asset;

use crate::paid_output::AddressType;

/// The software that answers the requests.
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
    /// Makes all checks.
    pub const ALL: Verify = Verify { work: true, commitments: true };
}

/// The configuration of a Bitcoin network.
#[derive(Debug, Clone)]
pub struct BitcoinConfig {
    /// The network, which decides the genesis block and the rules of difficulty.
    pub network: Network,
    /// The coin of the network.
    pub asset: Asset,
    /// The software that all endpoints of the pool run.
    pub backend: Backend,
    /// Type of all addresses that receive payments.
    pub address_type: AddressType,
    /// The checks that the driver makes for each block.
    pub verify: Verify,
    /// Minimum time between two requests for the transactions of single addresses at a public server.
    pub address_pause: Duration,
    /// Endpoints and limits; the driver sets its `chain_check`.
    pub pool: rpc::Config,
}

/// The reason why the driver cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The endpoint pool rejects its configuration.
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
