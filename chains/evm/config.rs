//! What a driver must be told of its chain.

use chain::{Asset, ChainId};

#[derive(Debug, Clone)]
pub struct EvmConfig {
    pub chain: ChainId,
    /// EIP-155; every endpoint must name it before it is believed anything.
    pub chain_id: u64,
    /// The coin only if it may be paid with, and the listed tokens.
    pub assets: Vec<Asset>,
    /// Endpoints and their bounds; its `chain_check` is set here.
    pub pool: rpc::Config,
    pub finality: Finality,
    /// At this depth, or below the final mark, blocks are read by range.
    pub range_depth: u64,
    pub verify: Verify,
    pub trace: Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// The nodes know the block tag `finalized`.
    Tag,
    Depth,
}

/// Which commitments of a header can be recomputed on this chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    pub header: bool,
    pub transactions: bool,
    pub receipts: bool,
}

impl Verify {
    pub const ALL: Verify = Verify { header: true, transactions: true, receipts: true };
}

/// How native coins sent by contracts are read. Tracing costs one more request per block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Not at all: balances of addresses with open native invoices are compared.
    None,
    /// `debug_traceBlockByHash` with `callTracer`: geth, reth, erigon, nethermind, anvil.
    Debug,
    /// `trace_block`: erigon, nethermind, reth, anvil.
    Parity,
}
