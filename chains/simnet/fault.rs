//! What can be wrong with a node.

/// Stays until it is switched off. Buyers use nodes of their own and notice nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers; what is broadcast arrives nowhere and its fate is unknown.
    Unavailable,
    /// Everything looks as it did that many blocks ago.
    Stale(u64),
    /// Blocks come without their transfers: a lie.
    HideTransfers,
    /// The first block of an answer names another parent: a lie.
    WrongParent,
    /// Another endpoint has other blocks at every height.
    Disputed,
    /// The node says that it does not have the blocks that its own tip promises.
    NotThere,
    /// So many of the newest blocks are promised by the tip and not given, as on a chain that is faster than it is read.
    Withheld(u64),
    /// Nobody tells balances; everything else is as usual.
    NoBalances,
    /// The mark of final blocks falls back to half its height.
    GoBack,
    /// Another chain answers under this name.
    OtherChain,
    /// Token contracts report one decimal place more than they have.
    WrongDecimals,
    /// What is broadcast is taken, but the answer gets lost.
    AnswerLost,
    /// What is broadcast is acknowledged and then forgotten.
    BroadcastLost,
    /// Every transaction is refused.
    RefuseBroadcast,
}

#[derive(Debug, Default)]
pub struct Faults {
    on: Vec<Fault>,
    /// Calls that fail before anything else is looked at.
    pub fail_next: u64,
}

impl Faults {
    /// A fault replaces another one of its kind: `Stale(3)` ends `Stale(5)`, and any `Stale` switches all of them off.
    pub fn set(&mut self, fault: Fault, on: bool) {
        self.on.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&fault));
        if on {
            self.on.push(fault);
        }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.on.contains(&fault)
    }

    /// Newest blocks that the tip promises in vain.
    pub fn withheld(&self) -> u64 {
        let withheld = |fault: &Fault| if let Fault::Withheld(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(withheld).unwrap_or(0)
    }

    /// Blocks by which answers lag behind.
    pub fn lag(&self) -> u64 {
        let lag = |fault: &Fault| if let Fault::Stale(blocks) = fault { Some(*blocks) } else { None };
        self.on.iter().find_map(lag).unwrap_or(0)
    }
}
