//! Describes each endpoint for `settled check` and the status page: its newest block, its finalized block and the RPC
//! methods that it offers.

use alloy_primitives::B256;
use chain::{Height, source::EndpointReport};
use rpc::{Rejection, Reply, Request, RpcError, Target, Verdict};
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use crate::{Evm, block, hex};

impl Evm {
    /// Requests the newest block, the finalized block and the supported methods of every endpoint. Returns one report
    /// for each endpoint, in the order of the configuration.
    pub(crate) async fn probe_and_describe_endpoints(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            reports.push((self.pool.endpoint_label(endpoint), self.probe_and_describe_endpoint(endpoint).await));
        }
        let best = reports.iter().filter_map(|(_, report)| report.as_ref().ok()).map(|(height, _)| *height).max();
        let lag = |height: Height| best.map_or(0, |best| best - height);
        let to_text = |(height, text)| match lag(height) {
            0 => text,
            behind => format!("{text}, {behind} blocks behind the best endpoint"),
        };
        let report =
            |(endpoint, report): (String, Result<_, _>)| EndpointReport { endpoint, outcome: report.map(to_text) };
        reports.into_iter().map(report).collect()
    }

    /// Requests the endpoint's newest block and finalized block, and tests which methods it offers. Returns the height
    /// of the newest block and a sentence about the endpoint.
    async fn probe_and_describe_endpoint(&self, endpoint: usize) -> Result<(Height, String), String> {
        let requested_at = Instant::now();
        let id: String =
            self.probe_text_result(endpoint, "eth_chainId", json!([])).await.map_err(|failure| failure.to_string())?;
        let latency = requested_at.elapsed().as_millis();
        if hex::parse_quantity(&id) != Some(self.config.chain_id) {
            return Err(format!("the endpoint belongs to chain {id}, not to {:#x}", self.config.chain_id));
        }
        let header = |tag: &'static str| async move {
            let accept = |reply: &Reply<'_>| {
                let Some(block) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Accept(None)) };
                let (_, header) = block::parse_header_verifying_if_configured(block, self.config.verify)
                    .map_err(Rejection::Invalid)?;
                Ok(Verdict::Accept(Some(header)))
            };
            self.pool
                .send_request(
                    Request::json_rpc_call("eth_getBlockByNumber", &(tag, false)).with_target(Target::Probe(endpoint)),
                    accept,
                )
                .await
        };
        let head =
            header("latest").await.map_err(|failure| failure.to_string())?.ok_or("the endpoint has no latest block")?;
        self.pool.record_head(endpoint, head.height);
        let hash = B256::from(head.hash.0);
        let finality = match header("finalized").await {
            Ok(Some(block)) => format!("finalized up to {}", block.height),
            Ok(None) => "no finalized block yet".to_owned(),
            Err(_) => "no `finalized` tag".to_owned(),
        };
        let receipts = self.probe_method_support(endpoint, "eth_getBlockReceipts", json!([hash])).await;
        let proof_params = json!([alloy_primitives::Address::ZERO, [], { "blockHash": hash }]);
        let proofs = self.probe_method_support(endpoint, "eth_getProof", proof_params).await;
        let yes_or_no = |offered: bool| if offered { "yes" } else { "no" };
        let mut text = format!(
            "chain {}, head {}, {finality}, receipts by block: {}, proofs of balances: {}, {latency} ms",
            self.config.chain_id,
            head.height,
            yes_or_no(receipts),
            yes_or_no(proofs),
        );
        if let Some((method, params)) = self.build_trace_request_if_configured(&head) {
            let traces = self.probe_method_support(endpoint, method, params).await;
            text.push_str(&format!(", traces: {}", yes_or_no(traces)));
        }
        Ok((head.height, text))
    }

    /// Sends one request with the method to the endpoint. Returns true when the endpoint answers with a result.
    async fn probe_method_support(&self, endpoint: usize, method: &str, params: serde_json::Value) -> bool {
        let accept = |reply: &Reply<'_>| reply.parse_result::<&RawValue>().map(|_| Verdict::Accept(()));
        self.pool
            .send_request(Request::json_rpc_call(method, &params).with_target(Target::Probe(endpoint)), accept)
            .await
            .is_ok()
    }

    /// Sends one request to the endpoint and returns its result, which must be a string.
    async fn probe_text_result(
        &self,
        endpoint: usize,
        method: &str,
        params: serde_json::Value,
    ) -> Result<String, RpcError> {
        let accept = |reply: &Reply<'_>| reply.parse_result::<String>().map(Verdict::Accept);
        self.pool
            .send_request(Request::json_rpc_call(method, &params).with_target(Target::Probe(endpoint)), accept)
            .await
    }
}
