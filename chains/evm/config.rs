//! The configuration of the driver for one chain.

use chain::{Asset, ChainId};

/// The configuration of [`crate::Evm`].
#[derive(Debug, Clone)]
pub struct EvmConfig {
    /// The name of the chain in the configuration.
    pub chain: ChainId,
    /// The EIP-155 chain id. An endpoint is used only after it has returned this id.
    pub chain_id: u64,
    /// The accepted assets: the listed tokens, and the native coin if buyers may pay with it.
    pub assets: Vec<Asset>,
    /// The endpoints and their limits. [`crate::Evm`] sets the check of the chain id itself.
    pub pool: rpc::Config,
    /// The rule that decides which block is final.
    pub finality: FinalitySource,
    /// Blocks at least this number of blocks below the newest one are read in ranges. Finalized blocks are read in
    /// ranges at any depth.
    pub range_depth: u64,
    /// The roots and hashes in a header that the driver recomputes to verify the block.
    pub verify: Commitments,
    /// The RPC method that lists the native coins which contracts send.
    pub trace: TraceApi,
}

/// The rule that decides which block is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalitySource {
    /// The block that the nodes return for the block tag `finalized` is final.
    Tag,
    /// The driver reports no finalized block, so a block is final after enough confirmations.
    Depth,
}

/// Those roots and hashes in a header that the driver can recompute on this chain, and therefore checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commitments {
    /// True to check the block hash. If this is false, the other checks are not made either.
    pub header: bool,
    /// True to check the transactions root.
    pub transactions: bool,
    /// True to check the receipts root.
    pub receipts: bool,
}

impl Commitments {
    /// All checks are made.
    pub const ALL: Commitments = Commitments { header: true, transactions: true, receipts: true };
}

/// The RPC method that lists the native coins which contracts send. It costs one more request for each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceApi {
    /// No such method is used. Instead, the daemon compares the balances of addresses of open invoices in the native
    /// coin.
    None,
    /// `debug_traceBlockByHash` with `callTracer`, offered by geth, reth, erigon, nethermind and anvil.
    Debug,
    /// `trace_block`, offered by erigon, nethermind, reth and anvil.
    Parity,
}
