//! The faults that a test can switch on in a model node.

/// A fault of a node, active until it is switched off. Buyers use nodes without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The node does not answer. The outcome of a broadcast is unknown, and the transaction does not reach the node.
    Unavailable,
    /// All answers are those of this many blocks ago.
    Stale(u64),
    /// The node lies: it returns blocks without their transfers.
    HideTransfers,
    /// The node lies: the first block of each answer has another parent hash.
    WrongParent,
    /// The independent endpoint of [`chain::Source::cross_check`] has a different block at every height.
    Disputed,
    /// The node returns no blocks, although its tip includes them.
    NotThere,
    /// The tip includes this many of the newest blocks, but the node does not return them yet, as on a chain that grows
    /// faster than it can be read.
    Withheld(u64),
    /// Requests for balances fail; all other requests work.
    NoBalances,
    /// The finalized block moves back to half its height.
    GoBack,
    /// The node reports the genesis hash of another chain.
    OtherChain,
    /// Token contracts report one decimal place too many.
    WrongDecimals,
    /// The node accepts broadcast transactions, but its answer is lost.
    AnswerLost,
    /// The node reports that it accepted a broadcast transaction, but drops it.
    BroadcastLost,
    /// The node refuses every broadcast transaction.
    RefuseBroadcast,
}

/// The active faults of one node.
#[derive(Debug, Default)]
pub struct Faults {
    on: Vec<Fault>,
    /// Number of the next calls that fail, before any other fault applies.
    pub fail_next: u64,
}

impl Faults {
    /// Switches a fault on or off. A fault replaces another one of its kind: `Stale(3)` ends `Stale(5)`, and switching
    /// off any `Stale` ends all of them.
    pub fn set(&mut self, fault: Fault, on: bool) {
        self.on.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&fault));
        if on {
            self.on.push(fault);
        }
    }

    /// Returns true if exactly this fault is active, with the same number of blocks.
    pub fn has(&self, fault: Fault) -> bool {
        self.on.contains(&fault)
    }

    /// Returns the number of newest blocks that the tip includes but the node does not return; see [`Fault::Withheld`].
    pub fn withheld(&self) -> u64 {
        let withheld = |fault: &Fault| if let Fault::Withheld(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(withheld).unwrap_or(0)
    }

    /// Returns the number of blocks by which answers lag; see [`Fault::Stale`].
    pub fn lag(&self) -> u64 {
        let lag = |fault: &Fault| if let Fault::Stale(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(lag).unwrap_or(0)
    }
}
