//! Compares blocks with those of other providers. The hash of a header does not prove that the block is on the chain, so
//! a single endpoint could invent a whole branch.

use chain::{BlockRef, Header, Height, WatchSet, source::CrossCheckResult};
use rpc::{BlockOrigins, Rejection, Reply, Request, RpcError, Target, Verdict};
use serde_json::value::RawValue;

use crate::{
    Evm,
    block::{self, BlockBody},
    hex,
};

/// A block as an endpoint of another provider returned it, with the hashes of its transactions.
#[derive(Debug)]
pub struct BlockAnswer {
    /// The index of the endpoint.
    pub endpoint: usize,
    /// The block, without payments.
    pub body: BlockBody,
}

impl Evm {
    /// Locks and returns the record of which endpoints returned recent blocks and their traces.
    pub(crate) fn lock_block_origins(&self) -> std::sync::MutexGuard<'_, BlockOrigins> {
        self.block_origins.lock().expect("no panic while the block origins are locked")
    }

    /// Stores the index of an endpoint that returned a block, or traces of it that show transfers.
    pub(crate) fn record_origin_of_block(&self, block: BlockRef, endpoint: usize) {
        self.lock_block_origins().record_endpoint(block, endpoint);
    }

    /// Returns the endpoints that returned the block and its traces. `None` when these endpoints are not known, or when
    /// the driver read native payments or token transfers that the roots of the header do not prove.
    pub(crate) fn find_origins_of_proven_block(&self, block: &BlockRef) -> Option<Vec<usize>> {
        self.lock_block_origins().find_endpoints(block)
    }

    /// Asks other providers than those that returned the block first whether they have the same block.
    pub(crate) async fn cross_check_block(&self, at: &BlockRef) -> CrossCheckResult {
        match self.fetch_same_block_from_other_providers(at, self.find_origins_of_proven_block(at).as_deref()).await {
            Ok(_) => CrossCheckResult::Confirmed,
            Err(result) => result,
        }
    }

    /// Requests a block from other providers until, for each endpoint in `origins`, an endpoint of another provider has
    /// returned the same block. With unknown origins (`None`), two providers must return it. One answer of the
    /// operator's own node is enough. The list is empty when the operator's own node is the only origin.
    ///
    /// # Errors
    /// Fails with the first answer that is not the same block.
    pub(crate) async fn fetch_same_block_from_other_providers(
        &self,
        at: &BlockRef,
        origins: Option<&[usize]>,
    ) -> Result<Vec<BlockAnswer>, CrossCheckResult> {
        let mut answers: Vec<BlockAnswer> = Vec::new();
        loop {
            let answered: Vec<usize> = answers.iter().map(|answer| answer.endpoint).collect();
            let Some(target) = self.pool.find_next_independent_target(origins, &answered) else {
                return Ok(answers);
            };
            match self.fetch_block_without_payments_from(target, at.height).await {
                Ok(Some(answer)) if answer.body.header.block_ref() != *at => {
                    return Err(CrossCheckResult::Conflicting {
                        endpoint: self.pool.endpoint_label(answer.endpoint),
                        hash: answer.body.header.hash,
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

    /// Requests a block with the hashes of its transactions; `None` when no endpoint of the target has the block.
    async fn fetch_block_without_payments_from(
        &self,
        target: Target,
        height: Height,
    ) -> Result<Option<BlockAnswer>, RpcError> {
        let unwatched = WatchSet::default();
        let params = (hex::to_quantity(height), false);
        let accept = |reply: &Reply<'_>| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let body = block::parse_block_verifying_if_configured(
                raw,
                height,
                self.config.verify,
                false,
                &unwatched.lock_addresses(),
            )
            .map_err(Rejection::Invalid)?;
            Ok(Verdict::Accept(Some(BlockAnswer { endpoint: reply.endpoint, body })))
        };
        let request = Request::json_rpc_call("eth_getBlockByNumber", &params).with_target(target);
        self.pool.send_request(request, accept).await
    }

    /// Requests the newest block from the endpoints of `target`, which do not have the block that was to be compared.
    /// The result tells how far they are behind; it is `NoAnswer` when they return nothing.
    async fn fetch_head_to_explain_missing_block(&self, target: Target) -> CrossCheckResult {
        let accept = |reply: &Reply<'_>| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let (_, head) =
                block::parse_header_verifying_if_configured(raw, self.config.verify).map_err(Rejection::Invalid)?;
            Ok(Verdict::Accept(Some((reply.endpoint, head))))
        };
        let request = Request::json_rpc_call("eth_getBlockByNumber", &("latest", false)).with_target(target);
        let newest: Result<Option<(usize, Header)>, RpcError> = self.pool.send_request(request, accept).await;
        match newest {
            Ok(Some((endpoint, head))) => {
                CrossCheckResult::Behind { endpoint: self.pool.endpoint_label(endpoint), head }
            }
            Ok(None) => CrossCheckResult::NoAnswer("no other endpoint returned a block".to_owned()),
            Err(failure) => CrossCheckResult::NoAnswer(failure.to_string()),
        }
    }
}
