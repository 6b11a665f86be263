//! Checks each endpoint separately: verifies that it is a node of the configured chain, and describes its newest blocks
//! and its abilities for the operator.

use chain::{Height, Identity, SourceError, source::EndpointReport};
use rpc::{Rejection, Request, RpcError, Target, Verdict};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    Tron, block,
    http_api::{self, ApiView, serialize_body},
    simulated_calls::{build_decimals_request, parse_decimals},
};

impl Tron {
    /// Asks every endpoint for its chain id and returns the configured chain id in decimal as the identity of the
    /// chain. One matching endpoint is enough; endpoints that do not answer are ignored.
    ///
    /// # Errors
    ///
    /// Fails when an endpoint that answers belongs to another chain, or when no endpoint answers.
    pub(crate) async fn fetch_identity_checking_endpoints(&self) -> Result<Identity, SourceError> {
        let mut failures = Vec::new();
        let mut confirmed = false;
        for endpoint in 0..self.pool.endpoints().len() {
            let (path, request) = build_genesis_request();
            match self
                .pool
                .send_request(Request::http_post(&path, request).with_target(Target::Only(endpoint)), parse_chain_id)
                .await
            {
                Ok(id) if id == self.config.chain_id => confirmed = true,
                Ok(id) => {
                    let (label, expected) = (self.pool.endpoint_label(endpoint), self.config.chain_id);
                    return Err(SourceError::InvalidResponse(format!(
                        "{label} is a node of chain {id:#x}, not of {expected:#x}"
                    )));
                }
                Err(failure) => failures.push(format!("{}: {failure}", self.pool.endpoint_label(endpoint))),
            }
        }
        if confirmed {
            Ok(Identity { id: self.config.chain_id.to_string() })
        } else {
            Err(SourceError::Unavailable(failures.join("; ")))
        }
    }

    /// Checks all endpoints one after another, and describes each one for the operator.
    pub(crate) async fn report_endpoints(&self) -> Vec<EndpointReport> {
        let mut reports = Vec::new();
        for endpoint in 0..self.pool.endpoints().len() {
            let outcome = self.probe_endpoint_and_record_height(endpoint).await.map(|(_, text)| text);
            reports.push(EndpointReport { endpoint: self.pool.endpoint_label(endpoint), outcome });
        }
        reports
    }

    /// Checks the chain of one endpoint, its two views (all blocks and solidified blocks), and whether it simulates
    /// calls. Records the height of its solidified block in the pool, and returns this height and a description for the
    /// operator.
    async fn probe_endpoint_and_record_height(&self, endpoint: usize) -> Result<(Height, String), String> {
        let requested_at = Instant::now();
        let (path, request) = build_genesis_request();
        let id = self
            .pool
            .send_request(Request::http_post(&path, request).with_target(Target::Probe(endpoint)), parse_chain_id)
            .await
            .map_err(|e| e.to_string())?;
        let latency = requested_at.elapsed().as_millis();
        if id != self.config.chain_id {
            return Err(format!("is a node of chain {id:#x}, not of {:#x}", self.config.chain_id));
        }
        let newest = |view: ApiView| async move {
            let accept = |reply: &rpc::Reply<'_>| {
                let header = block::parse_and_verify_header(&http_api::parse_json_or_node_error(reply)?)
                    .map_err(Rejection::Invalid)?;
                header
                    .map(Verdict::Accept)
                    .ok_or_else(|| Rejection::Invalid("the endpoint returned no newest block".to_owned()))
            };
            let request = serialize_body(&json!({ "detail": false }));
            let found = self
                .pool
                .send_request(
                    Request::http_post(&view.api_path("getblock"), request).with_target(Target::Probe(endpoint)),
                    accept,
                )
                .await;
            found.map_err(|failure| format!("{view:?} view: {failure}"))
        };
        let (solid, head) = (newest(ApiView::Solid).await?, newest(ApiView::Head).await?);
        self.pool.record_head(endpoint, solid.height);
        if let Some(contract) = self.assets.find_first_token_contract() {
            let path = ApiView::Solid.api_path("triggerconstantcontract");
            let accept = |reply: &rpc::Reply<'_>| parse_decimals(reply, &contract);
            let simulated = self
                .pool
                .send_request(
                    Request::http_post(&path, build_decimals_request(contract.key))
                        .with_target(Target::Probe(endpoint)),
                    accept,
                )
                .await;
            simulated.map_err(|failure| match matches!(failure, RpcError::MethodMissing(_)) {
                true => "does not simulate contract calls; run the node with vm.supportConstant = true".to_owned(),
                false => failure.to_string(),
            })?;
        }
        let lag = head.height.saturating_sub(solid.height);
        let text = format!(
            "chain {}, solidified {}, head {lag} blocks above it, {latency} ms; payments in TRX that contracts send are \
             found only if the node runs with vm.saveInternalTx = true",
            self.config.chain_id, solid.height
        );
        Ok((solid.height, text))
    }
}

/// Returns the path and the body of a request for the genesis block.
pub(crate) fn build_genesis_request() -> (String, Vec<u8>) {
    (ApiView::Solid.api_path("getblockbynum"), serialize_body(&json!({ "num": 0 })))
}

/// Parses the genesis block and returns the chain id, which is the last four bytes of the block's id.
fn parse_chain_id(reply: &rpc::Reply<'_>) -> Result<Verdict<u32>, Rejection> {
    let block: http_api::Block<'_> = http_api::parse_json_or_node_error(reply)?;
    let id = block
        .id
        .and_then(block::parse_bytes32)
        .ok_or_else(|| Rejection::Invalid("the endpoint returned no genesis block".to_owned()))?;
    Ok(Verdict::Accept(u32::from_be_bytes([id[28], id[29], id[30], id[31]])))
}
