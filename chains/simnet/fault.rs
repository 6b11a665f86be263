//! The faults of a model node, which tests switch on and off.

/// A fault of the model node from which settled reads. It lasts until it is switched off. Payments of the simulated
/// buyers do not use this node, so they are not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeFault {
    /// The node answers no request. A transaction that is broadcast does not reach the node, and the sender does not
    /// know the outcome.
    Unavailable,
    /// The node reports the chain as it was this many blocks ago.
    Stale(u64),
    /// The node returns blocks without their transfers.
    HideTransfers,
    /// The first block that the node returns has a wrong parent hash.
    WrongParent,
    /// In a cross-check, the second endpoint has a different block at every height.
    ConflictingEndpoint,
    /// There is only one endpoint, so nothing can be compared.
    SingleEndpoint,
    /// The second endpoint answers no request.
    SilentSecondEndpoint,
    /// The second endpoint has the chain as it was this many blocks ago.
    SecondEndpointBehind(u64),
    /// The second endpoint shows blocks without their transfers, and balances of zero.
    SecondEndpointHidesTransfers,
    /// The node returns no blocks, although its tip includes them.
    MissingBlocks,
    /// The node does not return this many of the newest blocks yet, although its tip includes them. This happens on a
    /// chain that grows faster than it can be read.
    WithheldBlocks(u64),
    /// Requests for balances fail. All other requests work.
    NoBalances,
    /// The finalized block moves back to half its height.
    FinalityRegresses,
    /// The node reports the identity of another chain.
    OtherChain,
    /// Token contracts report one decimal place too many.
    WrongDecimals,
    /// The node accepts a broadcast transaction, but its reply is lost.
    AnswerLost,
    /// The node replies that it accepted a broadcast transaction, but then drops the transaction.
    BroadcastLost,
    /// Every broadcast transaction is rejected.
    RejectBroadcast,
}

/// The faults of a node that are switched on.
#[derive(Debug, Default)]
pub struct ActiveFaults {
    on: Vec<NodeFault>,
    /// This many further requests fail as if the node were unavailable, whatever other faults are on.
    pub fail_next: u64,
}

impl ActiveFaults {
    /// Switches a fault on or off. A fault replaces another one of its kind: `Stale(3)` ends `Stale(5)`, and switching
    /// off any `Stale` ends all of them.
    pub fn switch_fault(&mut self, fault: NodeFault, on: bool) {
        self.on.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&fault));
        if on {
            self.on.push(fault);
        }
    }

    /// Returns true when this fault is on. A fault with a number of blocks must have the same number.
    pub fn is_on(&self, fault: NodeFault) -> bool {
        self.on.contains(&fault)
    }

    /// Returns the number of newest blocks that the node does not return, although its tip includes them; see
    /// [`NodeFault::WithheldBlocks`].
    pub fn count_withheld_blocks(&self) -> u64 {
        let withheld =
            |fault: &NodeFault| if let NodeFault::WithheldBlocks(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(withheld).unwrap_or(0)
    }

    /// Returns the number of blocks by which the node is behind the chain; see [`NodeFault::Stale`].
    pub fn count_lag_blocks(&self) -> u64 {
        let lag = |fault: &NodeFault| if let NodeFault::Stale(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(lag).unwrap_or(0)
    }

    /// Returns the number of blocks by which the second endpoint is behind the chain; see
    /// [`NodeFault::SecondEndpointBehind`].
    pub fn count_second_endpoint_lag_blocks(&self) -> u64 {
        let lag = |fault: &NodeFault| {
            if let NodeFault::SecondEndpointBehind(blocks) = fault { Some(*blocks) } else { None }
        };
        self.on.iter().find_map(lag).unwrap_or(0)
    }
}
