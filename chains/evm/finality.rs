//! The block that the chain calls final, from what several endpoints claim. Pure: the time is a parameter.
//!
//! One endpoint alone cannot push it ahead while another one answers. Nothing is remembered but fresh claims, so that a mark
//! can be withdrawn: who believed it decides what stays.

use std::cmp::Reverse;
use std::time::Duration;

use chain::BlockRef;
use tokio::time::Instant;

/// An older claim no longer holds others back.
const CLAIM_MAX_AGE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct FinalityClaims {
    by_endpoint: Vec<Option<(BlockRef, Instant)>>,
}

impl FinalityClaims {
    pub fn new(endpoints: usize) -> FinalityClaims {
        FinalityClaims { by_endpoint: vec![None; endpoints] }
    }

    /// Replaces what the endpoint claimed before.
    pub fn set_claim(&mut self, endpoint: usize, mark: Option<BlockRef>, now: Instant) {
        if let Some(slot) = self.by_endpoint.get_mut(endpoint) {
            *slot = mark.map(|mark| (mark, now));
        }
    }

    /// How many endpoints were heard lately.
    pub fn count_fresh(&self, now: Instant) -> usize {
        self.list_fresh(now).len()
    }

    /// The second highest claim: two endpoints say at least this much. The only one where one alone was heard, and none while
    /// two name different blocks of one height.
    pub fn agreed_block(&self, now: Instant) -> Option<BlockRef> {
        let mut fresh = self.list_fresh(now);
        fresh.sort_unstable_by_key(|mark| Reverse(mark.height));
        match fresh.as_slice() {
            [first, second, ..] if first.height == second.height && first.hash != second.hash => None,
            [_, second, ..] => Some(*second),
            [only] => Some(*only),
            [] => None,
        }
    }

    fn list_fresh(&self, now: Instant) -> Vec<BlockRef> {
        let fresh = |(_, at): &&(BlockRef, Instant)| now.saturating_duration_since(*at) < CLAIM_MAX_AGE;
        self.by_endpoint.iter().flatten().filter(fresh).map(|(mark, _)| *mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use chain::BlockHash;

    use super::*;

    fn block(height: u64) -> BlockRef {
        BlockRef { height, hash: BlockHash([7; 32]) }
    }

    #[test]
    fn two_endpoints_must_agree() {
        let start = Instant::now();
        let mut claims = FinalityClaims::new(2);
        assert_eq!(claims.agreed_block(start), None);
        claims.set_claim(0, Some(block(100)), start);
        assert_eq!(claims.agreed_block(start), Some(block(100)), "nobody else was heard");
        claims.set_claim(1, Some(block(90)), start);
        claims.set_claim(0, Some(block(1_000)), start);
        assert_eq!(claims.agreed_block(start), Some(block(90)), "one alone does not push it");
        claims.set_claim(1, Some(block(900)), start);
        assert_eq!(claims.agreed_block(start), Some(block(900)));
        claims.set_claim(0, Some(BlockRef { height: 900, hash: BlockHash([8; 32]) }), start);
        assert_eq!(claims.agreed_block(start), None, "two blocks at one height");
        claims.set_claim(0, Some(block(10)), start);
        assert_eq!(claims.agreed_block(start), Some(block(10)), "a mark can be withdrawn");
        claims.set_claim(0, None, start);
        assert_eq!(claims.agreed_block(start), Some(block(900)), "and so can a claim");
        claims.set_claim(0, Some(block(2_000)), start + CLAIM_MAX_AGE);
        let later = start + CLAIM_MAX_AGE;
        assert_eq!(claims.agreed_block(later), Some(block(2_000)), "a silent endpoint does not hold it back for ever");
        assert_eq!(claims.agreed_block(later + CLAIM_MAX_AGE), None, "nobody was heard lately");
    }
}
