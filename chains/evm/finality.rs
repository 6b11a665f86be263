//! Decides which block is final from the claims of several endpoints. This module does no I/O and reads no clock: the
//! time is a parameter.
//!
//! While a second endpoint answers, a single endpoint cannot advance the final block. Only recent claims are kept, so
//! the final block can also move back; the follower decides how to react.

use std::cmp::Reverse;
use std::time::Duration;

use chain::BlockRef;
use tokio::time::Instant;

/// Age after which a claim is ignored.
const CLAIM_MAX_AGE: Duration = Duration::from_secs(300);

/// The latest claim of each endpoint about the final block.
#[derive(Debug, Default)]
pub struct FinalityClaims {
    by_endpoint: Vec<Option<(BlockRef, Instant)>>,
}

impl FinalityClaims {
    /// Creates an empty list of claims for this many endpoints.
    pub fn new(endpoints: usize) -> FinalityClaims {
        FinalityClaims { by_endpoint: vec![None; endpoints] }
    }

    /// Replaces the endpoint's claim, or removes it with `None`.
    pub fn set_finality_claim(&mut self, endpoint: usize, claim: Option<BlockRef>, now: Instant) {
        if let Some(slot) = self.by_endpoint.get_mut(endpoint) {
            *slot = claim.map(|claim| (claim, now));
        }
    }

    /// Returns the number of endpoints with a recent claim.
    pub fn count_fresh_claims(&self, now: Instant) -> usize {
        self.list_fresh_claims(now).len()
    }

    /// Returns the second-highest recent claim, because two endpoints report at least that height as final. Returns the
    /// only recent claim if there is just one. Returns `None` without claims, or when the two highest claims name
    /// different blocks at the same height.
    pub fn find_agreed_block(&self, now: Instant) -> Option<BlockRef> {
        let mut fresh = self.list_fresh_claims(now);
        fresh.sort_unstable_by_key(|claim| Reverse(claim.height));
        match fresh.as_slice() {
            [first, second, ..] if first.height == second.height && first.hash != second.hash => None,
            [_, second, ..] => Some(*second),
            [only] => Some(*only),
            [] => None,
        }
    }

    fn list_fresh_claims(&self, now: Instant) -> Vec<BlockRef> {
        let fresh = |(_, at): &&(BlockRef, Instant)| now.saturating_duration_since(*at) < CLAIM_MAX_AGE;
        self.by_endpoint.iter().flatten().filter(fresh).map(|(claim, _)| *claim).collect()
    }
}

#[cfg(test)]
mod tests {
    use chain::BlockHash;

    use super::*;

    fn test_block(height: u64) -> BlockRef {
        BlockRef { height, hash: BlockHash([7; 32]) }
    }

    #[test]
    fn two_endpoints_must_claim_a_block_before_it_is_final() {
        let start = Instant::now();
        let mut claims = FinalityClaims::new(2);
        assert_eq!(claims.find_agreed_block(start), None);
        claims.set_finality_claim(0, Some(test_block(100)), start);
        assert_eq!(claims.find_agreed_block(start), Some(test_block(100)), "there is no second claim");
        claims.set_finality_claim(1, Some(test_block(90)), start);
        claims.set_finality_claim(0, Some(test_block(1_000)), start);
        assert_eq!(
            claims.find_agreed_block(start),
            Some(test_block(90)),
            "a single endpoint cannot advance the final block"
        );
        claims.set_finality_claim(1, Some(test_block(900)), start);
        assert_eq!(claims.find_agreed_block(start), Some(test_block(900)));
        claims.set_finality_claim(0, Some(BlockRef { height: 900, hash: BlockHash([8; 32]) }), start);
        assert_eq!(claims.find_agreed_block(start), None, "the endpoints name different blocks of one height");
        claims.set_finality_claim(0, Some(test_block(10)), start);
        assert_eq!(claims.find_agreed_block(start), Some(test_block(10)), "the final block can move back");
        claims.set_finality_claim(0, None, start);
        assert_eq!(claims.find_agreed_block(start), Some(test_block(900)), "a claim can be withdrawn");
        claims.set_finality_claim(0, Some(test_block(2_000)), start + CLAIM_MAX_AGE);
        let later = start + CLAIM_MAX_AGE;
        assert_eq!(
            claims.find_agreed_block(later),
            Some(test_block(2_000)),
            "a silent endpoint holds the final block back for a limited time only"
        );
        assert_eq!(claims.find_agreed_block(later + CLAIM_MAX_AGE), None, "all claims are too old");
    }
}
