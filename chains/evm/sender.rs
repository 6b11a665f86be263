//! Broadcasts signed transactions and classifies the replies. If a reply cannot be classified, the outcome is unknown,
//! not a rejection.

use alloy_primitives::keccak256;
use async_trait::async_trait;
use chain::{BroadcastOutcome, Sender};
use rpc::{Rejection, Reply, Request};
use tracing::info;

use crate::{Evm, hex};

/// The meaning of a node's error text, which decides the result of a broadcast. The JSON-RPC error code is ignored,
/// because nodes use −32000 and −32603 for all kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxPoolError {
    /// The node already has this transaction.
    AlreadyKnown,
    /// A transaction with this nonce is already in a block. It was sent by this attempt, by another attempt or by
    /// another user of the key.
    NonceTooLow,
    /// Another transaction with this nonce is in the node's pool, and the new one does not pay enough to replace it.
    ReplacementUnderpriced,
    /// Another transaction with a lower nonce must come first, and it is missing.
    NonceTooHigh,
    /// The fee is below the node's present minimum.
    FeeTooLow,
    /// The sender's balance does not cover amount and fee.
    InsufficientFunds,
    /// The transaction is invalid and can never be accepted.
    InvalidTransaction,
    /// The text is not recognised, so it is not known whether the transaction is valid.
    Unknown,
}

impl TxPoolError {
    /// Returns the code at the beginning of a rejection text, such as `fee_too_low`.
    pub fn rejection_code(self) -> &'static str {
        match self {
            TxPoolError::AlreadyKnown => "already_known",
            TxPoolError::NonceTooLow => "nonce_too_low",
            TxPoolError::ReplacementUnderpriced => "replacement_underpriced",
            TxPoolError::NonceTooHigh => "nonce_too_high",
            TxPoolError::FeeTooLow => "fee_too_low",
            TxPoolError::InsufficientFunds => "insufficient_funds",
            TxPoolError::InvalidTransaction => "invalid_transaction",
            TxPoolError::Unknown => "unknown",
        }
    }
}

/// Lower-case parts of the error texts of geth, erigon, nethermind, besu, reth and anvil. The order matters, because
/// the first match is used: "replacement transaction underpriced" contains "transaction underpriced", and "unknown
/// transaction" contains "known transaction".
const ERROR_TEXTS: [(TxPoolError, &[&str]); 8] = [
    (
        TxPoolError::Unknown,
        &[
            "unknown transaction",
            "future transaction tries to replace pending",
            "txpool is full",
            "account limit exceeded",
        ],
    ),
    (
        TxPoolError::AlreadyKnown,
        &["already known", "known transaction", "same hash was already imported", "already imported"],
    ),
    (TxPoolError::NonceTooLow, &["nonce too low", "nonce is too low", "oldnonce"]),
    (
        TxPoolError::ReplacementUnderpriced,
        &["replacement transaction underpriced", "replacementnotallowed", "replacement not allowed"],
    ),
    (
        TxPoolError::NonceTooHigh,
        &["nonce too high", "exceeds next nonce", "nonce too far in the future", "noncegap", "nonce gap"],
    ),
    (TxPoolError::InsufficientFunds, &["insufficient funds", "insufficientfunds"]),
    (
        TxPoolError::FeeTooLow,
        &[
            "transaction underpriced",
            "fee too low",
            "feetoolow",
            "max fee per gas less than block base fee",
            "tip below minimum",
            "below the minimum",
            "gas price below",
            "gas tip cap",
        ],
    ),
    (
        TxPoolError::InvalidTransaction,
        &[
            "invalid sender",
            "invalid chain id",
            "wrong chain id",
            "incorrect chain id",
            "intrinsic gas too low",
            "exceeds block gas limit",
            "oversized",
            "max priority fee per gas higher than max fee per gas",
            "transaction type not supported",
        ],
    ),
];

/// Classifies the text of a node's error.
pub fn classify_error_text(text: &str) -> TxPoolError {
    let text = text.to_ascii_lowercase();
    let contains_any = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    ERROR_TEXTS.iter().find(|(_, phrases)| contains_any(phrases)).map_or(TxPoolError::Unknown, |(class, _)| *class)
}

#[async_trait]
impl Sender for Evm {
    /// Sends the transaction to every endpoint with the role `broadcast`. A rejection text begins with the code of its
    /// class: `fee_too_low: host:port: …`.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let txid = keccak256(raw);
        let params = [const_hex::encode_prefixed(raw)];
        let replies =
            self.pool.send_to_all_broadcast_endpoints(Request::json_rpc_call("eth_sendRawTransaction", &params)).await;
        let outcomes = replies.into_iter().map(|(endpoint, body)| {
            let label = self.pool.endpoint_label(endpoint);
            let outcome = match body {
                Err(error) => BroadcastOutcome::Unknown(format!("{label}: {error}")),
                Ok(body) => match Reply::new(endpoint, 200, &body).parse_result::<&str>() {
                    Ok(hash) if hex::parse_hash(hash) == Some(txid) => BroadcastOutcome::Accepted,
                    Ok(_) => BroadcastOutcome::Unknown(format!(
                        "{label}: accepted the transaction, but returned another hash than {txid}"
                    )),
                    Err(Rejection::Invalid(reason)) => BroadcastOutcome::Unknown(format!("{label}: {reason}")),
                    Err(Rejection::NodeError(node_error)) => error_text_to_broadcast_outcome(
                        &label,
                        &self.pool.redact_secrets(endpoint, &node_error.message),
                    ),
                },
            };
            info!(chain = %self.config.chain, endpoint = %label, %txid, ?outcome, "broadcast to {label}");
            outcome
        });
        BroadcastOutcome::combine_preferring_accepted(outcomes)
    }
}

/// Converts a node's error text to the outcome of the broadcast.
fn error_text_to_broadcast_outcome(label: &str, message: &str) -> BroadcastOutcome {
    match classify_error_text(message) {
        TxPoolError::AlreadyKnown => BroadcastOutcome::AlreadyKnown,
        TxPoolError::Unknown => BroadcastOutcome::Unknown(format!("{label}: {message}")),
        class @ (TxPoolError::NonceTooLow
        | TxPoolError::ReplacementUnderpriced
        | TxPoolError::NonceTooHigh
        | TxPoolError::FeeTooLow
        | TxPoolError::InsufficientFunds
        | TxPoolError::InvalidTransaction) => {
            BroadcastOutcome::Rejected(format!("{}: {label}: {message}", class.rejection_code()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_of_every_client_are_classified() {
        for (text, class) in [
            ("already known", TxPoolError::AlreadyKnown),
            ("ALREADY_EXISTS: already known", TxPoolError::AlreadyKnown),
            ("unknown transaction", TxPoolError::Unknown),
            ("Transaction with the same hash was already imported.", TxPoolError::AlreadyKnown),
            ("nonce too low: next nonce 5, tx nonce 4", TxPoolError::NonceTooLow),
            ("OldNonce, Current nonce: 5, nonce of rejected tx: 4", TxPoolError::NonceTooLow),
            ("replacement transaction underpriced", TxPoolError::ReplacementUnderpriced),
            ("transaction underpriced: gas tip cap 1, minimum needed 1000000000", TxPoolError::FeeTooLow),
            ("nonce too high", TxPoolError::NonceTooHigh),
            ("insufficient funds for gas * price + value: balance 0", TxPoolError::InsufficientFunds),
            ("intrinsic gas too low: gas 20000, minimum needed 21000", TxPoolError::InvalidTransaction),
            ("invalid chain id for signer: have 1 want 5", TxPoolError::InvalidTransaction),
            ("future transaction tries to replace pending", TxPoolError::Unknown),
            ("txpool is full", TxPoolError::Unknown),
            ("something new", TxPoolError::Unknown),
            ("", TxPoolError::Unknown),
        ] {
            assert_eq!(classify_error_text(text), class, "{text}");
        }
    }
}
