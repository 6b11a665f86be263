//! Requests the finalized block from one endpoint after another. Each reply is only the claim of one endpoint; this
//! module decides from all claims which block is final.
//!
//! As long as two endpoints answer, one endpoint alone cannot raise the final block. Only recent claims are kept, so
//! the final block can also move back; the follower decides how to react.

use std::{
    cmp::Reverse,
    sync::{MutexGuard, atomic::Ordering},
    time::Duration,
};

use chain::BlockRef;
use rpc::{Rejection, Request, Target, Verdict};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::debug;

use crate::{Evm, block};

/// The age after which an endpoint's claim about the final block is ignored.
const CLAIM_MAX_AGE: Duration = Duration::from_secs(300);

/// The maximum number of blocks by which an endpoint may be behind the highest endpoint. The claim of an endpoint
/// further behind is ignored.
const LAG_BLOCKS_MAX: u64 = 32;

/// The latest claim of each endpoint about which block is final, by the index of the endpoint, with the time of the
/// claim.
#[derive(Debug, Default)]
pub struct FinalityClaims {
    by_endpoint: Vec<Option<(BlockRef, Instant)>>,
}

impl FinalityClaims {
    /// Creates an empty list of claims for this many endpoints.
    pub fn new(endpoints: usize) -> FinalityClaims {
        FinalityClaims { by_endpoint: vec![None; endpoints] }
    }

    /// Replaces the endpoint's claim about the final block, or removes the claim when `claim` is `None`.
    pub fn set_or_remove_claim(&mut self, endpoint: usize, claim: Option<BlockRef>, now: Instant) {
        if let Some(slot) = self.by_endpoint.get_mut(endpoint) {
            *slot = claim.map(|claim| (claim, now));
        }
    }

    /// Returns the number of endpoints whose claim about the final block is recent.
    pub fn count_fresh_claims(&self, now: Instant) -> usize {
        self.list_fresh_claims(now).len()
    }

    /// Returns the second-highest recent claim, because two endpoints report at least that height as final. If there is
    /// only one recent claim, returns it. Returns `None` without claims, or when two claims name different blocks at the
    /// height of the block to return.
    pub fn find_second_highest_or_only_claim(&self, now: Instant) -> Option<BlockRef> {
        let mut fresh = self.list_fresh_claims(now);
        fresh.sort_unstable_by_key(|claim| Reverse(claim.height));
        let agreed = *fresh.get(1).or(fresh.first())?;
        let contradicted = fresh.iter().any(|claim| claim.height == agreed.height && claim.hash != agreed.hash);
        (!contradicted).then_some(agreed)
    }

    /// Returns the blocks that endpoints have recently claimed to be final, one for each endpoint.
    fn list_fresh_claims(&self, now: Instant) -> Vec<BlockRef> {
        let fresh = |(_, at): &&(BlockRef, Instant)| now.saturating_duration_since(*at) < CLAIM_MAX_AGE;
        self.by_endpoint.iter().flatten().filter(fresh).map(|(claim, _)| *claim).collect()
    }
}

impl Evm {
    /// Locks and returns the finality claims of all endpoints.
    pub(crate) fn lock_finality_claims(&self) -> MutexGuard<'_, FinalityClaims> {
        self.finality_claims.lock().expect("no panic while the finality claims are locked")
    }

    /// Requests the final block from the next endpoint in turn and stores the endpoint's claim. If the endpoint does
    /// not reply, its last claim stays valid for a while. A claim is ignored when the endpoint is too far behind the
    /// others, or when the claimed block is above the highest known block.
    pub(crate) async fn request_and_store_next_finality_claim(&self) {
        let first = self.next_finality_endpoint.fetch_add(1, Ordering::Relaxed);
        let claim = self.pool.send_request(
            Request::json_rpc_call("eth_getBlockByNumber", &("finalized", false)).with_target(Target::From(first)),
            |reply| {
                let Some(block) = reply.parse_result::<Option<&RawValue>>()? else {
                    return Ok(Verdict::Fallback(None));
                };
                let (_, header) = block::parse_header_verifying_if_configured(block, self.config.verify)
                    .map_err(Rejection::Invalid)?;
                Ok(Verdict::Accept(Some((reply.endpoint, header.block_ref()))))
            },
        );
        match claim.await {
            Ok(Some((endpoint, block))) => {
                let heads = self.pool.recent_heads();
                let best = heads.iter().flatten().max().copied().unwrap_or(0);
                let lags_behind =
                    heads.get(endpoint).copied().flatten().is_some_and(|head| best - head > LAG_BLOCKS_MAX);
                let is_usable = !lags_behind && block.height <= best;
                // Two endpoints of one provider have one claim together.
                let provider = self.pool.find_first_endpoint_of_provider(endpoint);
                self.lock_finality_claims().set_or_remove_claim(provider, is_usable.then_some(block), Instant::now());
            }
            Ok(None) => debug!(chain = %self.config.chain, "the endpoint has no finalized block yet"),
            Err(failure) => debug!(chain = %self.config.chain, "cannot read the finalized block: {failure}"),
        }
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
        assert_eq!(claims.find_second_highest_or_only_claim(start), None);
        claims.set_or_remove_claim(0, Some(test_block(100)), start);
        assert_eq!(claims.find_second_highest_or_only_claim(start), Some(test_block(100)), "there is no second claim");
        claims.set_or_remove_claim(1, Some(test_block(90)), start);
        claims.set_or_remove_claim(0, Some(test_block(1_000)), start);
        assert_eq!(
            claims.find_second_highest_or_only_claim(start),
            Some(test_block(90)),
            "a single endpoint cannot advance the final block"
        );
        claims.set_or_remove_claim(1, Some(test_block(900)), start);
        assert_eq!(claims.find_second_highest_or_only_claim(start), Some(test_block(900)));
        claims.set_or_remove_claim(0, Some(BlockRef { height: 900, hash: BlockHash([8; 32]) }), start);
        assert_eq!(
            claims.find_second_highest_or_only_claim(start),
            None,
            "the endpoints name different blocks of one height"
        );
        claims.set_or_remove_claim(0, Some(test_block(10)), start);
        assert_eq!(
            claims.find_second_highest_or_only_claim(start),
            Some(test_block(10)),
            "the final block can move back"
        );
        claims.set_or_remove_claim(0, None, start);
        assert_eq!(claims.find_second_highest_or_only_claim(start), Some(test_block(900)), "a claim can be withdrawn");
        claims.set_or_remove_claim(0, Some(test_block(2_000)), start + CLAIM_MAX_AGE);
        let later = start + CLAIM_MAX_AGE;
        assert_eq!(
            claims.find_second_highest_or_only_claim(later),
            Some(test_block(2_000)),
            "a silent endpoint holds the final block back for a limited time only"
        );
        assert_eq!(claims.find_second_highest_or_only_claim(later + CLAIM_MAX_AGE), None, "all claims are too old");
    }

    #[test]
    fn no_block_is_final_while_lower_claims_contradict_each_other() {
        let start = Instant::now();
        let other = BlockRef { height: 900, hash: BlockHash([8; 32]) };
        for claims_of_endpoints in
            [[test_block(1_000), test_block(900), other], [other, test_block(1_000), test_block(900)]]
        {
            let mut claims = FinalityClaims::new(3);
            for (endpoint, claim) in claims_of_endpoints.into_iter().enumerate() {
                claims.set_or_remove_claim(endpoint, Some(claim), start);
            }
            assert_eq!(claims.find_second_highest_or_only_claim(start), None);
        }
    }
}
