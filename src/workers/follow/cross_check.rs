//! The results of cross-checks between endpoints. The follower confirms deposits, and reverses confirmed deposits, only
//! when a second endpoint has the same blocks.

use chain::BlockRef;

use clock::Instant;

/// The part of the followed branch that a second endpoint has, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corroboration {
    /// All blocks up to the requested one.
    Full,
    /// Only the blocks up to this one, which is the head of the second endpoint.
    UpTo(BlockRef),
    /// No block: the second endpoint has another branch.
    None,
}

/// The state of the review of contradicting endpoints, and of the log about endpoints that are behind.
#[derive(Debug, Default)]
pub struct EndpointDispute {
    /// True while the review of contradicting endpoints is open; `None` after a start, when the state in the database
    /// is not known.
    pub is_open: Option<bool>,
    /// True when the log already reports that an endpoint is behind.
    pub behind_logged: bool,
    /// The head of an endpoint that is behind, and the time when this head was first seen.
    behind: Option<(BlockRef, Instant)>,
}

impl EndpointDispute {
    /// Records the head of an endpoint that is behind. Returns true when the head has been the same block for at least
    /// `stall_ms` milliseconds.
    pub fn record_head_and_check_stall(&mut self, now: Instant, head: BlockRef, stall_ms: i64) -> bool {
        let since = self.behind.filter(|(seen, _)| *seen == head).map_or(now, |(_, since)| since);
        self.behind = Some((head, since));
        now.since(since) >= stall_ms
    }
}
