//! What second endpoints showed of the blocks that money rests on. Deposits are confirmed and reversed only where a second
//! endpoint has the same blocks.

use chain::BlockRef;

use clock::Instant;

/// The part of our branch that a second endpoint has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corroboration {
    /// All of it.
    Full,
    /// The part up to its head, which is this block.
    UpTo(BlockRef),
    /// Nothing, or another branch.
    None,
}

/// The dispute between endpoints of one chain, and what was logged about endpoints that are behind.
#[derive(Debug, Default)]
pub struct EndpointDispute {
    /// Whether the review of contradicting endpoints is open; `None` when that is not known, as after a start.
    pub is_open: Option<bool>,
    /// Whether it was logged that an endpoint is behind.
    pub behind_logged: bool,
    /// The head of an endpoint that is behind, and when that head was first seen.
    behind: Option<(BlockRef, Instant)>,
}

impl EndpointDispute {
    /// Records the head of an endpoint that is behind. Returns true when that head has not moved for `stall_ms` milliseconds.
    pub fn is_stalled(&mut self, now: Instant, head: BlockRef, stall_ms: i64) -> bool {
        let since = self.behind.filter(|(seen, _)| *seen == head).map_or(now, |(_, since)| since);
        self.behind = Some((head, since));
        now.since(since) >= stall_ms
    }
}
