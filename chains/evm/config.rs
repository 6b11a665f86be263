//! The configuration of the driver for one chain.

use chain::{Asset, ChainId};

/// The configuration of [`crate::Evm`].
#[derive(Debug, Clone)]
pub struct EvmConfig {
    /// The configured name of the chain.
    pub chain: ChainId,
    /// The EIP-155 chain id. An endpoint is used only after it has returned this id.
    pub chain_id: u64,
    /// The accepted assets: the listed tokens, and the native coin if buyers may pay with it.
    pub assets: Vec<Asset>,
    /// The endpoints and their limits. The driver sets the check of the chain id itself.
    pub pool: rpc::Config,
    /// The rule that decides which block is final.
    pub finality: FinalitySource,
    /// The depth below the head, in blocks, from which blocks are read by range. Finalized blocks are read by range at
    /// any depth.
    pub range_depth: u64,
    /// The header commitments that are checked.
    pub verify: Commitments,
    /// The RPC method that returns the native coins sent by contracts.
    pub trace: TraceApi,
}

/// The rule that decides which block is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalitySource {
    /// The block that the nodes return for the block tag `finalized` is final.
    Tag,
    /// The driver reports no finalized block; the number of confirmations decides.
    Depth,
}

/// The header commitments that the driver can recompute on this chain, and therefore checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commitments {
    /// True to check the block hash. If false, the driver checks no other commitment either.
    pub header: bool,
    /// True to check the transactions root.
    pub transactions: bool,
    /// True to check the receipts root.
    pub receipts: bool,
}

impl Commitments {
    /// All commitments are checked.
    pub const ALL: Commitments = Commitments { header: true, transactions: true, receipts: true };
}

/// The RPC method that returns the native coins sent by contracts. It costs one more request per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceApi {
    /// No traces are requested; the balances of addresses with open native invoices are compared instead.
    None,
    /// `debug_traceBlockByHash` with `callTracer`, offered by geth, reth, erigon, nethermind and anvil.
    Debug,
    /// `trace_block`, offered by erigon, nethermind, reth and anvil.
    Parity,
}
