//! Requests the call traces of blocks, to find the native coins that contracts send inside transactions. A block is
//! read without such transfers when no endpoint returns usable traces.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use chain::{
    Address, AddressKey, Amount, BlockRef, Header, SourceError, Transfer, TxPart, WatchSet, address::encode_evm_address,
};
use rpc::{NodeErrorKind, Rejection, Request, RpcError, Target, Verdict};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Evm, TraceApi,
    balances::SumProof,
    block::BlockBody,
    hex,
    trace_parser::{self, FlatTrace, TxTrace},
};

impl Evm {
    /// Returns the RPC method and the parameters that request a block's traces, or `None` when traces are not
    /// configured or the native coin is not accepted.
    pub(crate) fn build_trace_request_if_configured(&self, header: &Header) -> Option<(&'static str, Value)> {
        self.native.as_ref()?;
        match self.config.trace {
            TraceApi::None => None,
            TraceApi::Debug => {
                let hash = B256::from(header.hash.0);
                Some(("debug_traceBlockByHash", json!([hash, { "tracer": "callTracer" }])))
            }
            TraceApi::Parity => Some(("trace_block", json!([hex::to_quantity(header.height)]))),
        }
    }

    /// Returns the native coins that contracts sent to watched addresses in this block. `other_transfers` are the
    /// transfers that were already found in the block. Without usable traces the block is marked as incomplete, and the
    /// result is empty. Fails only while a block may wait for traces: up to 20 seconds after the first request without
    /// an answer.
    pub(crate) async fn fetch_internal_transfers_or_mark_incomplete(
        &self,
        body: &BlockBody,
        other_transfers: &[Transfer],
        watched: &WatchSet,
    ) -> Result<Vec<Transfer>, SourceError> {
        if self.build_trace_request_if_configured(&body.header).is_none() || body.txids.is_empty() {
            return Ok(Vec::new());
        }
        if !self.lock_trace_health().may_request_traces(Instant::now()) {
            self.mark_incomplete_and_warn_once(
                body,
                "paused",
                "trace requests failed several times in a row and are paused",
            );
            return Ok(Vec::new());
        }
        let failure = match self.fetch_internal_transfers_from_target(Target::Any, body, watched).await {
            Ok(transfers) => {
                self.lock_trace_health().record_success();
                let transfers = transfers.unwrap_or_default();
                return Ok(self.drop_transfers_contradicted_by_balances(body, other_transfers, transfers).await);
            }
            Err(failure) => failure,
        };
        // The endpoint that returns traces may be some blocks behind the endpoint that returned the block.
        let is_behind =
            matches!(&failure, RpcError::NodeError(node_error) if node_error.kind == NodeErrorKind::NotFound);
        if (is_behind || matches!(failure, RpcError::Unavailable(_) | RpcError::Timeout(_)))
            && self.lock_trace_health().record_silence_and_may_wait(Instant::now())
        {
            return Err(failure.into_source_error(body.header.height));
        }
        let cause = match &failure {
            RpcError::Unavailable(_) | RpcError::Timeout(_) => "silence",
            RpcError::MethodMissing(_) => "missing",
            RpcError::TooLarge(_) => "size",
            RpcError::NodeError(_) => "refusal",
            RpcError::Invalid(_) => "unusable",
        };
        self.lock_trace_health().record_failure_and_maybe_pause(Instant::now());
        self.mark_incomplete_and_warn_once(body, cause, &failure.to_string());
        Ok(Vec::new())
    }

    /// Requests the traces of a block from the endpoints of a target, and returns the native coins that contracts sent to
    /// watched addresses. Returns `None` when traces are not configured. Records an endpoint that shows such transfers as
    /// an origin of the block, when the target is [`Target::Any`].
    pub(crate) async fn fetch_internal_transfers_from_target(
        &self,
        target: Target,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<Option<Vec<Transfer>>, RpcError> {
        let (Some((method, params)), Some(native)) =
            (self.build_trace_request_if_configured(&body.header), &self.native)
        else {
            return Ok(None);
        };
        let answer = self.pool.send_request(Request::json_rpc_call(method, &params).with_target(target), |reply| {
            let watched = &watched.lock_addresses();
            let transfers = match self.config.trace {
                TraceApi::None => Ok(Vec::new()),
                TraceApi::Debug => trace_parser::list_watched_transfers_in_nested_traces(
                    &reply.parse_result::<Vec<TxTrace<'_>>>()?,
                    body,
                    native,
                    watched,
                ),
                TraceApi::Parity => trace_parser::list_watched_transfers_in_flat_traces(
                    &reply.parse_result::<Vec<FlatTrace<'_>>>()?,
                    body,
                    native,
                    watched,
                ),
            };
            transfers.map(|transfers| Verdict::Accept((reply.endpoint, transfers))).map_err(Rejection::Invalid)
        });
        let (endpoint, transfers) = answer.await?;
        if target == Target::Any && !transfers.is_empty() {
            self.record_origin_of_block(body.header.block_ref(), endpoint);
        }
        Ok(Some(transfers))
    }

    /// Removes the transfers to each address whose proven balance grew by less than the sum of its transfers, and marks
    /// the block as incomplete. Traces cannot be proven by the header, but balances can. Removes nothing when no proofs
    /// are offered.
    async fn drop_transfers_contradicted_by_balances(
        &self,
        body: &BlockBody,
        other_transfers: &[Transfer],
        transfers: Vec<Transfer>,
    ) -> Vec<Transfer> {
        if transfers.is_empty() || !self.config.verify.header {
            return transfers;
        }
        let mut sums: BTreeMap<AddressKey, Amount> =
            transfers.iter().map(|transfer| (transfer.to, Amount::ZERO)).collect();
        let native_transfers =
            other_transfers.iter().filter(|transfer| transfer.index.part == TxPart::Value).chain(&transfers);
        for transfer in native_transfers {
            if let Some(sum) = sums.get_mut(&transfer.to) {
                *sum = sum.checked_add(transfer.amount).unwrap_or(Amount::MAX);
            }
        }
        let at = body.header.block_ref();
        let parent = BlockRef { height: at.height.saturating_sub(1), hash: body.header.parent };
        let received: Vec<(Address, Amount)> =
            sums.into_iter().map(|(to, sum)| (encode_evm_address(to), sum)).collect();
        let proofs = self.check_sums_against_proven_balances(&parent, &at, &received).await;
        let contradicted: BTreeSet<AddressKey> = received
            .iter()
            .zip(proofs)
            .filter(|(_, proof)| *proof == SumProof::NotReceived)
            .map(|((to, _), _)| to.key)
            .collect();
        if !contradicted.is_empty() {
            self.mark_incomplete_and_warn_once(
                body,
                "contradicted",
                "its traces show more coins than some addresses received",
            );
        }
        transfers.into_iter().filter(|transfer| !contradicted.contains(&transfer.to)).collect()
    }
}
