//! Checks that a second endpoint has the same block. The hash of a header does not prove that the block is on the
//! chain, so a single endpoint could invent a whole branch.

use std::collections::BTreeMap;

use chain::{BlockHash, BlockRef, Header, Height, source::CrossCheckResult};
use rpc::{Rejection, Reply, Request, RpcError, Target, Verdict};
use serde_json::value::RawValue;

use crate::{Evm, block, hex};

/// The maximum number of blocks for which the driver remembers the endpoint that returned the block. For older blocks
/// it asks two endpoints.
const ORIGINS_MAX: usize = 10_000;

/// For each recent block, by height: its hash, and the index of the endpoint that returned it.
#[derive(Debug, Default)]
pub struct BlockOrigins(BTreeMap<Height, (BlockHash, usize)>);

impl BlockOrigins {
    /// Stores the endpoint that returned a block. If there are then more than [`ORIGINS_MAX`] blocks, removes the
    /// lowest.
    fn insert_and_drop_oldest(&mut self, block: BlockRef, endpoint: usize) {
        self.0.insert(block.height, (block.hash, endpoint));
        while self.0.len() > ORIGINS_MAX {
            self.0.pop_first();
        }
    }

    /// Returns the index of the endpoint that returned the block; `None` when that is not stored.
    fn find_origin(&self, block: &BlockRef) -> Option<usize> {
        self.0.get(&block.height).filter(|(hash, _)| *hash == block.hash).map(|(_, endpoint)| *endpoint)
    }
}

impl Evm {
    /// Stores the index of the endpoint that returned a block.
    pub(crate) fn record_origin_of_block(&self, block: BlockRef, endpoint: usize) {
        self.block_origins
            .lock()
            .expect("no panic while the block origins are locked")
            .insert_and_drop_oldest(block, endpoint);
    }

    /// Requests a block again from an endpoint other than the one that returned the block first. If it is not known
    /// which endpoint returned the block first, requests the block from two endpoints.
    pub(crate) async fn cross_check_block(&self, at: &BlockRef) -> CrossCheckResult {
        let mut origin =
            self.block_origins.lock().expect("no panic while the block origins are locked").find_origin(at);
        let tag = hex::to_quantity(at.height);
        loop {
            match self.fetch_header_from_other_endpoint(origin, &tag).await {
                Ok(Some((endpoint, header))) if header.block_ref() != *at => {
                    return CrossCheckResult::Conflicting {
                        endpoint: self.pool.endpoint_label(endpoint),
                        hash: header.hash,
                    };
                }
                Ok(Some(_)) if origin.is_some() => return CrossCheckResult::Confirmed,
                Ok(Some((endpoint, _))) => origin = Some(endpoint),
                Ok(None) | Err(RpcError::NodeError(_)) => break,
                Err(failure) => return CrossCheckResult::NoAnswer(failure.to_string()),
            }
        }
        match self.fetch_header_from_other_endpoint(origin, "latest").await {
            Ok(Some((endpoint, head))) => {
                CrossCheckResult::Behind { endpoint: self.pool.endpoint_label(endpoint), head }
            }
            Ok(None) => CrossCheckResult::NoAnswer("no other endpoint returned a block".to_owned()),
            Err(failure) => CrossCheckResult::NoAnswer(failure.to_string()),
        }
    }

    /// Requests the header of a block, by its number or block tag, from any endpoint except `origin`. Returns the index
    /// of the endpoint that answered with the header; `None` when no other endpoint has the block.
    async fn fetch_header_from_other_endpoint(
        &self,
        origin: Option<usize>,
        tag: &str,
    ) -> Result<Option<(usize, Header)>, RpcError> {
        let params = (tag, false);
        let accept = |reply: &Reply<'_>| {
            let Some(block) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let (_, header) = block::parse_verified_header(block, self.config.verify).map_err(Rejection::Invalid)?;
            Ok(Verdict::Accept(Some((reply.endpoint, header))))
        };
        let target = origin.map_or(Target::From(0), Target::Excluding);
        self.pool
            .send_request(Request::json_rpc_call("eth_getBlockByNumber", &params).with_target(target), accept)
            .await
    }
}
