//! Hands signed bytes to nodes and sorts what they say. Nothing that is not understood is taken as a refusal, and no
//! refusal is final: another node may have the bytes. A transaction is dead only when a solidified block past its
//! expiration does not have it.

use async_trait::async_trait;
use chain::{BroadcastOutcome, Sender, TxId};
use prost::Message;
use rpc::{Rejection, Reply, Request};
use serde_json::json;
use tracing::info;

use crate::{Tron, proto, source::body, transaction, wire};

/// What a node's code means for the attempt (tron.md, 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroadcastCode {
    /// In this node's pool: neither included nor successful yet.
    Pending,
    /// This node has seen the id: pending, on chain, or thrown away within the last hour. No proof of anything.
    Known,
    /// Signature, size: never valid as it is.
    Build,
    /// The account, the contract or the balance forbids it now.
    Contract,
    /// Neither bandwidth nor TRX to pay for it.
    Bandwidth,
    /// The node does not know the reference block: it lags, or the block was orphaned.
    Reference,
    /// Too late, or more than a day ahead, for this node's head.
    Expired,
    Unknown,
}

impl BroadcastCode {
    /// Parses a node's `code`. java-tron misspells `BANDWITH_ERROR`.
    pub fn parse(code: &str) -> BroadcastCode {
        match code {
            "SUCCESS" => BroadcastCode::Pending,
            "DUP_TRANSACTION_ERROR" => BroadcastCode::Known,
            "SIGERROR" | "TOO_BIG_TRANSACTION_ERROR" => BroadcastCode::Build,
            "CONTRACT_VALIDATE_ERROR" | "CONTRACT_EXE_ERROR" => BroadcastCode::Contract,
            "BANDWITH_ERROR" => BroadcastCode::Bandwidth,
            "TAPOS_ERROR" => BroadcastCode::Reference,
            "TRANSACTION_EXPIRATION_ERROR" => BroadcastCode::Expired,
            _ => BroadcastCode::Unknown,
        }
    }

    /// The word that begins the text of a refusal.
    pub fn label(self) -> &'static str {
        match self {
            BroadcastCode::Pending => "pending",
            BroadcastCode::Known => "known",
            BroadcastCode::Build => "build",
            BroadcastCode::Contract => "contract",
            BroadcastCode::Bandwidth => "bandwidth",
            BroadcastCode::Reference => "reference",
            BroadcastCode::Expired => "expired",
            BroadcastCode::Unknown => "unknown",
        }
    }
}

#[async_trait]
impl Sender for Tron {
    /// To every endpoint that may broadcast, as exactly these bytes. A refusal begins with its class: `contract: host:port: …`.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let Some(txid) = txid_of(raw) else {
            return BroadcastOutcome::Refused("build: not a signed transaction".to_owned());
        };
        let question = body(&json!({ "transaction": const_hex::encode(raw) }));
        let told = self.pool.broadcast(Request::post("wallet/broadcasthex", question)).await;
        let said = told.into_iter().map(|(endpoint, answer)| {
            let label = self.pool.label(endpoint);
            let outcome = match answer {
                Err(trouble) => BroadcastOutcome::Unknown(format!("{label}: {trouble}")),
                Ok(answer) => match wire::parse_reply::<wire::Broadcast<'_>>(&Reply::new(endpoint, 200, &answer)) {
                    Ok(said) => broadcast_outcome(&label, txid, &said, &self.pool.redact(endpoint, &said.message)),
                    Err(Rejection::Invalid(reason)) => BroadcastOutcome::Unknown(format!("{label}: {reason}")),
                    Err(Rejection::NodeError(refusal)) => {
                        BroadcastOutcome::Unknown(format!("{label}: {}", self.pool.redact(endpoint, &refusal.message)))
                    }
                },
            };
            info!(chain = %self.config.chain, endpoint = %label, %txid, ?outcome, "broadcast to {label}");
            outcome
        });
        BroadcastOutcome::combine(said)
    }
}

/// The id of a signed transaction, over the very bytes that it carries.
fn txid_of(signed: &[u8]) -> Option<TxId> {
    let carried = SignedEnvelope::decode(signed).ok().filter(|carried| !carried.signature.is_empty())?;
    // What does not decode is no transaction, whatever its hash is.
    proto::TransactionRaw::decode(carried.raw.as_slice()).ok()?;
    Some(transaction::txid(&carried.raw))
}

/// A signed transaction whose content stays the bytes that were hashed.
#[derive(Clone, PartialEq, Message)]
struct SignedEnvelope {
    #[prost(bytes = "vec", tag = "1")]
    raw: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    signature: Vec<Vec<u8>>,
}

fn broadcast_outcome(label: &str, txid: TxId, said: &wire::Broadcast<'_>, message: &str) -> BroadcastOutcome {
    let code = if said.code.is_empty() && said.result { "SUCCESS" } else { said.code.as_ref() };
    let text = format!("{label}: {code} {}", wire::decode_message(message));
    match BroadcastCode::parse(code) {
        BroadcastCode::Pending if said.result && said.txid == txid.to_string() => BroadcastOutcome::Accepted,
        BroadcastCode::Pending => BroadcastOutcome::Unknown(format!("{text}, under another id than {txid}")),
        BroadcastCode::Known => BroadcastOutcome::AlreadyKnown,
        BroadcastCode::Unknown => BroadcastOutcome::Unknown(text),
        code @ (BroadcastCode::Build
        | BroadcastCode::Contract
        | BroadcastCode::Bandwidth
        | BroadcastCode::Reference
        | BroadcastCode::Expired) => BroadcastOutcome::Refused(format!("{}: {text}", code.label())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_node() {
        for (code, class) in [
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
            assert_eq!(BroadcastCode::parse(code), class, "{code}");
        }
    }

    #[test]
    fn only_the_same_id_is_accepted() {
        let txid = TxId([7; 32]);
        let said = |text: &str| {
            let said: wire::Broadcast<'_> = serde_json::from_str(text).unwrap();
            broadcast_outcome("node:1", txid, &said, &said.message)
        };
        let ours = format!(r#"{{"result":true,"code":"SUCCESS","txid":"{txid}"}}"#);
        assert_eq!(said(&ours), BroadcastOutcome::Accepted);
        assert!(matches!(said(r#"{"result":true,"code":"SUCCESS","txid":"00"}"#), BroadcastOutcome::Unknown(_)));
        assert!(matches!(said("{}"), BroadcastOutcome::Unknown(_)));
        let refused = said(r#"{"code":"SIGERROR","message":"56616c6964617465207369676e6174757265206572726f72"}"#);
        assert_eq!(refused, BroadcastOutcome::Refused("build: node:1: SIGERROR Validate signature error".to_owned()));
        assert_eq!(said(r#"{"code":"DUP_TRANSACTION_ERROR"}"#), BroadcastOutcome::AlreadyKnown);
    }
}
