//! Broadcasts signed transactions and classifies the replies. If a reply cannot be classified, the outcome is unknown,
//! not a rejection.

use async_trait::async_trait;
use chain::{BroadcastOutcome, Sender, TxId};
use rpc::{Rejection, Reply, Request};
use tracing::info;

use crate::{Backend, Bitcoin, hashes::to_display_order, transaction::ByteReader};

/// The meaning of a node's error text, which decides the result of a broadcast. The texts are those of Bitcoin Core;
/// Esplora servers return them unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MempoolRejection {
    /// The transaction is already in the mempool or in a block.
    AlreadyKnown,
    /// An input spends an output that is already spent, or an output of a transaction that the node does not have.
    MissingInputs,
    /// Another transaction in the mempool spends the same output, and the new transaction does not pay enough to
    /// replace it.
    ReplacementUnderpriced,
    /// The fee is below the node's present minimum.
    FeeTooLow,
    /// The transaction is not valid yet, because of its lock time or because it spends an immature coinbase.
    NotFinal,
    /// The transaction is invalid, or the node does not relay transactions of this kind, for example because an output
    /// is too small (dust).
    InvalidTransaction,
    /// The text contains none of the known phrases.
    Unknown,
}

impl MempoolRejection {
    /// Returns the word with which a rejection text begins, such as `fee_too_low`.
    pub fn rejection_code(self) -> &'static str {
        match self {
            MempoolRejection::AlreadyKnown => "already_known",
            MempoolRejection::MissingInputs => "missing_inputs",
            MempoolRejection::ReplacementUnderpriced => "replacement_underpriced",
            MempoolRejection::FeeTooLow => "fee_too_low",
            MempoolRejection::NotFinal => "not_final",
            MempoolRejection::InvalidTransaction => "invalid_transaction",
            MempoolRejection::Unknown => "unknown",
        }
    }
}

/// The phrases in a node's error text by which each class is recognised. The first class with a matching phrase counts.
const PHRASES: [(MempoolRejection, &[&str]); 6] = [
    (
        MempoolRejection::AlreadyKnown,
        &[
            "txn-already-in-mempool",
            "txn-already-known",
            "already in block chain",
            "outputs already in utxo set",
            "txn-same-nonwitness-data-in-mempool",
        ],
    ),
    (
        MempoolRejection::ReplacementUnderpriced,
        &["insufficient fee", "txn-mempool-conflict", "too many potential replacements", "replacement-failed"],
    ),
    (
        MempoolRejection::MissingInputs,
        &["missingorspent", "missing-inputs", "missing inputs", "bad-txns-spends-conflicting-tx"],
    ),
    (MempoolRejection::FeeTooLow, &["min relay fee not met", "mempool min fee not met", "mempool full", "min-fee"]),
    (MempoolRejection::NotFinal, &["non-final", "non-bip68-final", "premature-spend-of-coinbase"]),
    (
        MempoolRejection::InvalidTransaction,
        &[
            "mandatory-script-verify-flag-failed",
            "non-mandatory-script-verify-flag",
            "mempool-script-verify-flag-failed",
            "block-script-verify-flag-failed",
            "tx decode failed",
            "dust",
            "tx-size",
            "scriptpubkey",
            "bad-txns-in-belowout",
            "max-fee-exceeded",
            "fee exceeds maximum",
        ],
    ),
];

/// Returns the class of a node's error text, or [`MempoolRejection::Unknown`] if no phrase matches.
pub fn classify_error_text(text: &str) -> MempoolRejection {
    let text = text.to_ascii_lowercase();
    let contains_any = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    PHRASES.iter().find(|(_, phrases)| contains_any(phrases)).map_or(MempoolRejection::Unknown, |(class, _)| *class)
}

/// The maximum number of characters of a node's error text that an outcome contains.
const ERROR_LENGTH_MAX: usize = 300;

#[async_trait]
impl Sender for Bitcoin {
    /// Broadcasts to every endpoint with the role `broadcast`. A rejection text begins with the code of its class:
    /// `fee_too_low: host:port: …`.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let Ok(tx) = ByteReader::new(raw).read_transaction(|_| {}) else {
            return BroadcastOutcome::Rejected("invalid_transaction: the bytes are not a transaction".to_owned());
        };
        let txid = TxId(to_display_order(tx.compute_txid()));
        let hex = const_hex::encode(raw);
        let replies = match self.config.backend {
            Backend::Core => {
                self.pool.send_to_all_broadcast_endpoints(Request::json_rpc_call("sendrawtransaction", &[hex])).await
            }
            Backend::Esplora => {
                self.pool.send_to_all_broadcast_endpoints(Request::http_post("tx", hex.into_bytes())).await
            }
        };
        let outcomes = replies.into_iter().map(|(endpoint, reply)| {
            let label = self.pool.endpoint_label(endpoint);
            let outcome = match reply {
                Err(reason) => BroadcastOutcome::Unknown(format!("{label}: {reason}")),
                Ok(body) => self.parse_broadcast_outcome(endpoint, &label, &body, txid),
            };
            info!(chain = %self.config.asset.chain, endpoint = %label, %txid, ?outcome, "broadcast to {label}");
            outcome
        });
        BroadcastOutcome::combine_preferring_accepted(outcomes)
    }
}

impl Bitcoin {
    /// Returns the outcome of a broadcast from the body of one reply.
    fn parse_broadcast_outcome(&self, endpoint: usize, label: &str, body: &[u8], txid: TxId) -> BroadcastOutcome {
        let result = match self.config.backend {
            Backend::Core => match Reply::new(endpoint, 200, body).parse_result::<String>() {
                Ok(text) => Ok(text),
                Err(Rejection::NodeError(error)) => Err(error.message),
                Err(Rejection::Invalid(reason)) => return BroadcastOutcome::Unknown(format!("{label}: {reason}")),
            },
            // The body is the id of the transaction if the server accepted it, or an error text.
            Backend::Esplora => match String::from_utf8_lossy(body).trim() {
                text if text == txid.to_string() => Ok(text.to_owned()),
                error => Err(error.chars().filter(|c| !c.is_control()).take(ERROR_LENGTH_MAX).collect()),
            },
        };
        match result {
            Ok(text) if text == txid.to_string() => BroadcastOutcome::Accepted,
            Ok(text) => BroadcastOutcome::Unknown(format!("{label}: returned transaction id {text}, expected {txid}")),
            Err(error) => classify_broadcast_error(label, &self.pool.redact_secrets(endpoint, &error)),
        }
    }
}

/// Returns the outcome of a broadcast to the endpoint `label`, which returned the error text `message`.
fn classify_broadcast_error(label: &str, message: &str) -> BroadcastOutcome {
    match classify_error_text(message) {
        MempoolRejection::AlreadyKnown => BroadcastOutcome::AlreadyKnown,
        MempoolRejection::Unknown => BroadcastOutcome::Unknown(format!("{label}: {message}")),
        class @ (MempoolRejection::MissingInputs
        | MempoolRejection::ReplacementUnderpriced
        | MempoolRejection::FeeTooLow
        | MempoolRejection::NotFinal
        | MempoolRejection::InvalidTransaction) => {
            BroadcastOutcome::Rejected(format!("{}: {label}: {message}", class.rejection_code()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_of_bitcoin_core_are_classified() {
        for (text, class) in [
            ("txn-already-in-mempool", MempoolRejection::AlreadyKnown),
            ("Transaction outputs already in utxo set", MempoolRejection::AlreadyKnown),
            ("bad-txns-inputs-missingorspent", MempoolRejection::MissingInputs),
            (
                "insufficient fee, rejecting replacement 00; new feerate 0.00001 <= old feerate 0.0001",
                MempoolRejection::ReplacementUnderpriced,
            ),
            ("min relay fee not met, 0 < 110", MempoolRejection::FeeTooLow),
            ("non-BIP68-final", MempoolRejection::NotFinal),
            ("bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 1", MempoolRejection::NotFinal),
            ("TX decode failed. Make sure the tx has at least one input.", MempoolRejection::InvalidTransaction),
            ("sendrawtransaction RPC error: {\"code\":-26,\"message\":\"dust\"}", MempoolRejection::InvalidTransaction),
            ("something new", MempoolRejection::Unknown),
        ] {
            assert_eq!(classify_error_text(text), class, "{text}");
        }
    }
}
