//! Calls of contracts that a node simulates, without a transaction on the chain.

use chain::{Address, AddressKey, SourceError};
use rpc::{NodeError, NodeErrorKind, Rejection, Reply, Request, Verdict};
use serde_json::json;

use crate::{
    Tron, abi, address,
    http_api::{self, ApiView, serialize_body},
    node_errors::{classify_node_error, decode_hex_or_plain_message},
};

/// The result of a simulated call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// The energy that the call uses, including the extra energy that popular contracts cost.
    pub energy: u64,
    /// The values that the call returned, each as 64 hexadecimal digits, or the reason why the call failed.
    pub outcome: Result<Vec<String>, String>,
}

impl Tron {
    /// Simulates a call from `owner` on the state after the newest block. A call that fails here would burn energy on
    /// the chain.
    ///
    /// # Errors
    ///
    /// Fails when no endpoint simulates the call; a call that fails is an `Ok` with [`Simulation::outcome`].
    pub async fn simulate_call(
        &self,
        owner: AddressKey,
        contract: AddressKey,
        data: &[u8],
    ) -> Result<Simulation, SourceError> {
        let path = ApiView::Head.api_path("triggerconstantcontract");
        let request = json!({
            "owner_address": address::to_prefixed_hex(owner),
            "contract_address": address::to_prefixed_hex(contract),
            "data": const_hex::encode(data),
        });
        let answer = self.pool.send_request(Request::http_post(&path, serialize_body(&request)), |reply| {
            let call = parse_simulated_call_reply(reply)?;
            Ok(Verdict::Accept(Simulation { energy: call.energy_used, outcome: parse_simulation_outcome(&call) }))
        });
        answer.await.map_err(|failure| failure.into_source_error(0))
    }

    /// Returns the number of decimals of a token contract, from a simulated call of `decimals()`.
    ///
    /// # Errors
    ///
    /// Fails when `contract` is not a TRON address, when the contract does not return its decimals, or when no endpoint
    /// simulates the call.
    pub(crate) async fn fetch_token_decimals(&self, contract: &str) -> Result<u8, SourceError> {
        let contract =
            address::parse_tron_address(contract).map_err(|bad| SourceError::Unsupported(bad.to_string()))?;
        let path = ApiView::Solid.api_path("triggerconstantcontract");
        let request = build_decimals_request(contract.key);
        let answer =
            self.pool.send_request(Request::http_post(&path, request), |reply| parse_decimals(reply, &contract));
        answer.await.map_err(|failure| failure.into_source_error(0))
    }
}

/// Parses the answer to a simulated call. java-tron simulates calls only with `vm.supportConstant = true`; without it,
/// the answer is an error of the kind [`NodeErrorKind::MethodMissing`].
fn parse_simulated_call_reply<'a>(reply: &Reply<'a>) -> Result<http_api::ConstantCall<'a>, Rejection> {
    let call: http_api::ConstantCall<'a> = http_api::parse_json_or_node_error(reply)?;
    let message = call.result.message.as_deref().map(decode_hex_or_plain_message).unwrap_or_default();
    if classify_node_error(&message) == NodeErrorKind::MethodMissing {
        let message = format!("{message}; if the node is yours, run it with vm.supportConstant = true");
        return Err(Rejection::NodeError(NodeError { code: 0, kind: NodeErrorKind::MethodMissing, message }));
    }
    Ok(call)
}

/// Returns the values that a simulated call returned, or the reason for its failure. When the contract reverts the
/// call, a node reports `result: true` with a message, or the failure in the `ret` of the transaction.
fn parse_simulation_outcome(call: &http_api::ConstantCall<'_>) -> Result<Vec<String>, String> {
    let failed = call.transaction.ret.iter().any(|ret| ret.ret == Some("FAILED"));
    match (&call.result.message, &call.result.code) {
        (Some(message), _) => Err(decode_hex_or_plain_message(message)),
        (None, Some(code)) => Err(code.clone().into_owned()),
        (None, None) if failed || !call.result.result => Err("failed without a reason".to_owned()),
        (None, None) => Ok(call.constant_result.iter().map(|word| (*word).to_owned()).collect()),
    }
}

/// Returns the body of a request that calls a token's `decimals()` from the zero address.
pub(crate) fn build_decimals_request(contract: AddressKey) -> Vec<u8> {
    serialize_body(&json!({
        "owner_address": address::to_prefixed_hex(AddressKey([0; 20])),
        "contract_address": address::to_prefixed_hex(contract),
        "data": const_hex::encode(abi::encode_decimals_call()),
    }))
}

/// Parses the number of decimals from the reply to a simulated call of `decimals()`.
pub(crate) fn parse_decimals(reply: &Reply<'_>, contract: &Address) -> Result<Verdict<u8>, Rejection> {
    let call = parse_simulated_call_reply(reply)?;
    let word = call.constant_result.first().and_then(|word| abi::parse_amount_word(word));
    let decimals = word.and_then(|word| u8::try_from(word.units()).ok());
    decimals
        .map(Verdict::Accept)
        .ok_or_else(|| Rejection::Invalid(format!("the contract {contract} does not return its decimals")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revert_with_the_result_true_is_a_failure() {
        let parse = |text: &str| parse_simulation_outcome(&serde_json::from_str(text).unwrap());
        let ok = r#"{"result":{"result":true},"energy_used":1,"constant_result":["01"],"transaction":{"ret":[{}]}}"#;
        assert_eq!(parse(ok), Ok(vec!["01".to_owned()]));
        let reverted = r#"{"result":{"result":true,"message":"524556455254206f70636f6465206578656375746564"},
            "constant_result":[""],"transaction":{"ret":[{"ret":"FAILED"}]}}"#;
        assert_eq!(parse(reverted), Err("REVERT opcode executed".to_owned()));
        assert!(parse(r#"{"result":{"code":"OTHER_ERROR"}}"#).is_err());
        assert!(parse("{}").is_err());
    }
}
