//! Faults of a model node.

/// A fault of a model node. It lasts until it is switched off. Buyers use other nodes, which have no faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeFault {
    /// No request is answered; a broadcast transaction reaches no node, and its outcome is unknown.
    Unavailable,
    /// The node shows the chain as it was this many blocks ago.
    Stale(u64),
    /// Blocks are returned without their transfers.
    HideTransfers,
    /// The first block of an answer has a wrong parent hash.
    WrongParent,
    /// A second endpoint has other blocks at every height.
    ConflictingEndpoint,
    /// The node has none of the blocks that its own tip announces.
    MissingBlocks,
    /// The tip announces this many newest blocks that the node does not return, as on a chain that is faster than its reader.
    WithheldBlocks(u64),
    /// Requests for balances fail; all others work.
    NoBalances,
    /// The mark of final blocks falls back to half its height.
    FinalityRegresses,
    /// The node reports the identity of another chain.
    OtherChain,
    /// Token contracts report one decimal more than they have.
    WrongDecimals,
    /// A broadcast transaction is accepted, but the answer is lost.
    AnswerLost,
    /// A broadcast transaction is acknowledged and then dropped.
    BroadcastLost,
    /// Every broadcast transaction is refused.
    RefuseBroadcast,
}

/// The faults of a node that are switched on.
#[derive(Debug, Default)]
pub struct ActiveFaults {
    on: Vec<NodeFault>,
    /// The number of following requests that fail.
    pub fail_next: u64,
}

impl ActiveFaults {
    /// Switches a fault on or off. It replaces another one of its kind: `Stale(3)` ends `Stale(5)`, and switching off any `Stale`
    /// switches off all of them.
    pub fn set(&mut self, fault: NodeFault, on: bool) {
        self.on.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&fault));
        if on {
            self.on.push(fault);
        }
    }

    /// Returns true when exactly this fault is on.
    pub fn has(&self, fault: NodeFault) -> bool {
        self.on.contains(&fault)
    }

    /// The number of newest blocks that the tip announces and the node does not return.
    pub fn withheld_blocks(&self) -> u64 {
        let withheld =
            |fault: &NodeFault| if let NodeFault::WithheldBlocks(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(withheld).unwrap_or(0)
    }

    /// The number of blocks by which answers lag behind the chain.
    pub fn lag_blocks(&self) -> u64 {
        let lag = |fault: &NodeFault| if let NodeFault::Stale(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(lag).unwrap_or(0)
    }
}
