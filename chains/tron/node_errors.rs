//! Errors of java-tron and TronGrid, which have no error codes: the driver recognises them by their text.

use std::borrow::Cow;

use rpc::{NodeError, NodeErrorKind};
use serde::Deserialize;

/// Only a reply of at most this size, in bytes, is searched for an error. Longer replies are never errors.
const ERROR_BYTES_MAX: usize = 4_096;

/// Returns the error that the body of a reply contains, or `None` when the body is not an error.
pub fn find_node_error(status: u16, body: &[u8]) -> Option<NodeError> {
    #[derive(Deserialize)]
    struct ErrorBody<'a> {
        #[serde(borrow, rename = "Error")]
        error: Cow<'a, str>,
    }
    if body.len() > ERROR_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let error = match serde_json::from_str::<ErrorBody<'_>>(text) {
        Ok(ErrorBody { error }) => error,
        // A lite node reports a method that it does not offer as plain text.
        Err(_) if text.starts_with("this API is closed") => Cow::Borrowed(text),
        Err(_) => return None,
    };
    let message: String = error.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(NodeError { code: i64::from(status), kind: classify_node_error(&message), message })
}

/// Classifies an error by its message, because java-tron and TronGrid have no error codes.
pub fn classify_node_error(message: &str) -> NodeErrorKind {
    let text = message.to_ascii_lowercase();
    let contains = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if contains(&[
        "frequency limit",
        "suspended",
        "daily usage",
        "rate limit",
        "lack of computing resources",
        "too many",
    ]) {
        NodeErrorKind::RateLimited
    } else if contains(&["unavailable due to config", "api is closed", "not support"]) {
        NodeErrorKind::MethodMissing
    } else {
        NodeErrorKind::Other
    }
}

/// Returns a node's message as text of at most 300 characters. Some methods encode their messages in hexadecimal,
/// others do not.
pub fn decode_hex_or_plain_message(message: &str) -> String {
    let text = const_hex::decode(message).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| message.to_owned()).chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The answer of a node to a broadcast (java-tron: `Return.response_code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroadcastCode {
    /// The transaction is in this node's pool. It is not in a block yet and may still fail.
    Pending,
    /// The node has seen this transaction id before. The transaction may be pending, in a block, or discarded within
    /// the last hour.
    Known,
    /// The signature is invalid or the transaction is too large, so no node will ever accept these bytes.
    Build,
    /// The state of the account or the contract, or the balance, does not allow the operation now.
    Contract,
    /// The account has neither enough bandwidth nor enough TRX to pay for it.
    Bandwidth,
    /// The node does not know the reference block: the node is behind, or a reorganisation removed the block.
    Reference,
    /// The expiration is before the time of the node's newest block, or more than a day after it.
    Expired,
    /// The node returned any other code. It may or may not have accepted the transaction.
    Unknown,
}

impl BroadcastCode {
    /// Parses a node's `code`. java-tron misspells `BANDWITH_ERROR`.
    pub fn parse_code(code: &str) -> BroadcastCode {
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

    /// Returns the word with which a rejection text begins, such as `expired`.
    pub fn rejection_code(self) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_hexadecimal_or_plain_text() {
        assert_eq!(decode_hex_or_plain_message("447570207472616e73616374696f6e2e"), "Dup transaction.");
        assert_eq!(decode_hex_or_plain_message("Dup transaction."), "Dup transaction.");
    }
}
