//! Broadcasts signed transactions and classifies the replies of the nodes. An unknown reply never counts as a
//! rejection. A rejection is not final, because another node may have accepted the transaction. A transaction has
//! failed only when no solidified block contains it and a solidified block is later than its expiration.

use async_trait::async_trait;
use chain::{BroadcastOutcome, Sender, TxId};
use rpc::{Rejection, Reply, Request};
use serde_json::json;
use tracing::info;

use crate::{
    Tron,
    http_api::{self, serialize_body},
    node_errors::{BroadcastCode, decode_hex_or_plain_message},
    transaction::compute_signed_txid,
};

#[async_trait]
impl Sender for Tron {
    /// Sends exactly these bytes to every endpoint with the role `broadcast`. A rejection text begins with the code of
    /// its class: `contract: host:port: …`.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let Some(txid) = compute_signed_txid(raw) else {
            return BroadcastOutcome::Rejected("build: not a signed transaction".to_owned());
        };
        let request = serialize_body(&json!({ "transaction": const_hex::encode(raw) }));
        let answers =
            self.pool.send_to_all_broadcast_endpoints(Request::http_post("wallet/broadcasthex", request)).await;
        let outcomes = answers.into_iter().map(|(endpoint, answer)| {
            let label = self.pool.endpoint_label(endpoint);
            let outcome = match answer {
                Err(error) => BroadcastOutcome::Unknown(format!("{label}: {error}")),
                Ok(answer) => {
                    match http_api::parse_json_or_node_error::<http_api::Broadcast<'_>>(&Reply::new(
                        endpoint, 200, &answer,
                    )) {
                        Ok(reply) => classify_broadcast_reply(
                            &label,
                            txid,
                            &reply,
                            &self.pool.redact_secrets(endpoint, &reply.message),
                        ),
                        Err(Rejection::Invalid(reason)) => BroadcastOutcome::Unknown(format!("{label}: {reason}")),
                        Err(Rejection::NodeError(error)) => BroadcastOutcome::Unknown(format!(
                            "{label}: {}",
                            self.pool.redact_secrets(endpoint, &error.message)
                        )),
                    }
                }
            };
            info!(chain = %self.config.chain, endpoint = %label, %txid, ?outcome, "broadcast to {label}");
            outcome
        });
        BroadcastOutcome::combine_preferring_accepted(outcomes)
    }
}

/// Returns the outcome of a broadcast to the endpoint `label`. The transaction counts as accepted only if the reply
/// contains its id.
fn classify_broadcast_reply(
    label: &str,
    txid: TxId,
    answer: &http_api::Broadcast<'_>,
    message: &str,
) -> BroadcastOutcome {
    let code = if answer.code.is_empty() && answer.result { "SUCCESS" } else { answer.code.as_ref() };
    let text = format!("{label}: {code} {}", decode_hex_or_plain_message(message));
    match BroadcastCode::parse_code(code) {
        BroadcastCode::Pending if answer.result && answer.txid == txid.to_string() => BroadcastOutcome::Accepted,
        BroadcastCode::Pending => BroadcastOutcome::Unknown(format!("{text}, with another transaction id than {txid}")),
        BroadcastCode::Known => BroadcastOutcome::AlreadyKnown,
        BroadcastCode::Unknown => BroadcastOutcome::Unknown(text),
        code @ (BroadcastCode::Build
        | BroadcastCode::Contract
        | BroadcastCode::Bandwidth
        | BroadcastCode::Reference
        | BroadcastCode::Expired) => BroadcastOutcome::Rejected(format!("{}: {text}", code.rejection_code())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_java_tron_are_classified() {
        for (code, expected) in [
            ("SUCCESS", BroadcastCode::Pending),
            ("DUP_TRANSACTION_ERROR", BroadcastCode::Known),
            ("SIGERROR", BroadcastCode::Build),
            ("CONTRACT_VALIDATE_ERROR", BroadcastCode::Contract),
            ("BANDWITH_ERROR", BroadcastCode::Bandwidth),
            ("TOO_BIG_TRANSACTION_ERROR", BroadcastCode::Build),
            ("TAPOS_ERROR", BroadcastCode::Reference),
            ("TRANSACTION_EXPIRATION_ERROR", BroadcastCode::Expired),
            ("SERVER_BUSY", BroadcastCode::Unknown),
            ("NO_CONNECTION", BroadcastCode::Unknown),
            ("NOT_ENOUGH_EFFECTIVE_CONNECTION", BroadcastCode::Unknown),
            ("BLOCK_UNSOLIDIFIED", BroadcastCode::Unknown),
            ("OTHER_ERROR", BroadcastCode::Unknown),
            ("", BroadcastCode::Unknown),
        ] {
            assert_eq!(BroadcastCode::parse_code(code), expected, "{code}");
        }
    }

    #[test]
    fn an_answer_with_another_id_is_not_accepted() {
        let txid = TxId([7; 32]);
        let outcome = |text: &str| {
            let answer: http_api::Broadcast<'_> = serde_json::from_str(text).unwrap();
            classify_broadcast_reply("node:1", txid, &answer, &answer.message)
        };
        let same_id = format!(r#"{{"result":true,"code":"SUCCESS","txid":"{txid}"}}"#);
        assert_eq!(outcome(&same_id), BroadcastOutcome::Accepted);
        assert!(matches!(outcome(r#"{"result":true,"code":"SUCCESS","txid":"00"}"#), BroadcastOutcome::Unknown(_)));
        assert!(matches!(outcome("{}"), BroadcastOutcome::Unknown(_)));
        let refused = outcome(r#"{"code":"SIGERROR","message":"56616c6964617465207369676e6174757265206572726f72"}"#);
        assert_eq!(refused, BroadcastOutcome::Rejected("build: node:1: SIGERROR Validate signature error".to_owned()));
        assert_eq!(outcome(r#"{"code":"DUP_TRANSACTION_ERROR"}"#), BroadcastOutcome::AlreadyKnown);
    }
}
