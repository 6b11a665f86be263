//! Compares solidified blocks with those of other providers.

use chain::{BlockRef, Height, WatchSet, source::CrossCheckResult};
use rpc::{Rejection, Request, RpcError, Target, Verdict};
use serde_json::json;

use crate::{
    Tron,
    block::{self, ParsedBlock},
    http_api::{self, ApiView, serialize_body},
};

/// A solidified block as an endpoint of another provider returned it.
#[derive(Debug)]
pub struct BlockAnswer {
    /// The index of the endpoint in the pool.
    pub endpoint: usize,
    /// The block, with its TRX payments to the receivers that the request named.
    pub block: ParsedBlock,
}

impl Tron {
    /// Asks other providers than those that returned the block first whether they have the same solidified block.
    pub(crate) async fn cross_check_block(&self, at: &BlockRef) -> CrossCheckResult {
        let origins = self.lock_block_origins().find_endpoints(at);
        match self.fetch_same_block_from_other_providers(at, origins.as_deref(), &WatchSet::default()).await {
            Ok(_) => CrossCheckResult::Confirmed,
            Err(result) => result,
        }
    }

    /// Requests the solidified block `at` from other providers until enough of them have it that a single lying
    /// provider cannot be the only source of the block. The list is empty when the operator's own node returned the
    /// block first, because no other provider is then asked.
    ///
    /// # Errors
    /// Fails with the result for the first endpoint that returns another block, has no such block or does not answer.
    pub(crate) async fn fetch_same_block_from_other_providers(
        &self,
        at: &BlockRef,
        origins: Option<&[usize]>,
        receivers: &WatchSet,
    ) -> Result<Vec<BlockAnswer>, CrossCheckResult> {
        let mut answers: Vec<BlockAnswer> = Vec::new();
        loop {
            let answered: Vec<usize> = answers.iter().map(|answer| answer.endpoint).collect();
            let Some(target) = self.pool.find_next_independent_target(origins, &answered) else {
                return Ok(answers);
            };
            match self.fetch_solidified_block_from_target(target, at.height, receivers).await {
                Ok(Some(answer)) if answer.block.header.block_ref() != *at => {
                    return Err(CrossCheckResult::Conflicting {
                        endpoint: self.pool.endpoint_label(answer.endpoint),
                        hash: answer.block.header.hash,
                    });
                }
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) | Err(RpcError::NodeError(_)) => {
                    return Err(self.fetch_head_to_explain_missing_block(target).await);
                }
                Err(failure) => return Err(CrossCheckResult::NoAnswer(failure.to_string())),
            }
        }
    }

    /// Requests a solidified block with its transactions. Returns `None` when no endpoint of the target has it.
    async fn fetch_solidified_block_from_target(
        &self,
        target: Target,
        height: Height,
        receivers: &WatchSet,
    ) -> Result<Option<BlockAnswer>, RpcError> {
        let body = serialize_body(&json!({ "id_or_num": height.to_string(), "detail": true }));
        let request = Request::http_post(&ApiView::Solid.api_path("getblock"), body).with_target(target);
        let answer = self.pool.send_request(request, |reply| {
            let (native, receivers) = (self.assets.native.as_ref(), receivers.lock_addresses());
            let found = http_api::parse_json_or_node_error(reply)?;
            let found = block::parse_block_and_verify_ids(&found, native, &receivers).map_err(Rejection::Invalid)?;
            match found {
                None => Ok(Verdict::Fallback(None)),
                Some(block) if block.header.height != height => {
                    Err(Rejection::Invalid(format!("requested block {height}, received block {}", block.header.height)))
                }
                Some(block) => Ok(Verdict::Accept(Some(BlockAnswer { endpoint: reply.endpoint, block }))),
            }
        });
        answer.await
    }

    /// Requests the newest solidified block of `target`, which returned no block at the requested height. Returns
    /// `Behind` with this newest block, or `NoAnswer` when the request fails.
    async fn fetch_head_to_explain_missing_block(&self, target: Target) -> CrossCheckResult {
        match self.fetch_header_or_newest(ApiView::Solid, None, target).await {
            Ok(Some((endpoint, head))) => {
                CrossCheckResult::Behind { endpoint: self.pool.endpoint_label(endpoint), head }
            }
            Ok(None) => CrossCheckResult::NoAnswer("no other endpoint returned a block".to_owned()),
            Err(failure) => CrossCheckResult::NoAnswer(failure.to_string()),
        }
    }
}
