//! The answers of java-tron's HTTP API, deserialized into borrowed types. Nodes leave out fields with default values, so
//! every field is optional; errors come with HTTP 200.

use std::borrow::Cow;

use rpc::{NodeError, NodeErrorKind, Rejection, Reply};
use serde::Deserialize;

/// The maximum size of an answer that is searched for an error, in bytes. Longer answers are never errors.
const ERROR_BYTES_MAX: usize = 4_096;

/// A block (`getblock`, `getblockbylimitnext`); all fields are missing when the node does not have it.
#[derive(Debug, Default, Deserialize)]
pub struct Block<'a> {
    #[serde(borrow, rename = "blockID")]
    pub id: Option<&'a str>,
    #[serde(borrow)]
    pub block_header: Option<BlockHeader<'a>>,
    #[serde(borrow, default)]
    pub transactions: Vec<Transaction<'a>>,
}

/// The header of a block.
#[derive(Debug, Deserialize)]
pub struct BlockHeader<'a> {
    #[serde(borrow)]
    pub raw_data: HeaderRaw<'a>,
}

/// The hashed content of a header. Addresses and hashes are hexadecimal, times are unix milliseconds.
#[derive(Debug, Deserialize)]
pub struct HeaderRaw<'a> {
    #[serde(default)]
    pub number: i64,
    #[serde(default)]
    pub timestamp: i64,
    #[serde(borrow, default, rename = "parentHash")]
    pub parent: &'a str,
    #[serde(borrow, default, rename = "txTrieRoot")]
    pub root: &'a str,
    #[serde(borrow, default)]
    pub witness_address: &'a str,
    #[serde(default)]
    pub witness_id: i64,
    #[serde(default)]
    pub version: i32,
    #[serde(borrow, default, rename = "accountStateRoot")]
    pub account_state_root: &'a str,
}

/// A transaction in a block.
#[derive(Debug, Deserialize)]
pub struct Transaction<'a> {
    #[serde(borrow, default, rename = "txID")]
    pub id: &'a str,
    /// The serialised content, whose hash is the id. The decoded form that nodes add is ignored.
    #[serde(borrow, default, rename = "raw_data_hex")]
    pub raw: &'a str,
    #[serde(borrow, default)]
    pub ret: Vec<TransactionResult<'a>>,
}

/// The result of a transaction.
#[derive(Debug, Deserialize)]
pub struct TransactionResult<'a> {
    #[serde(borrow, rename = "contractRet")]
    pub contract_ret: Option<&'a str>,
}

/// The blocks of a range; fewer than requested where the node's chain ends.
#[derive(Debug, Deserialize)]
pub struct Blocks<'a> {
    #[serde(borrow, default)]
    pub block: Vec<Block<'a>>,
}

/// The receipt of a transaction (java-tron: `TransactionInfo`).
#[derive(Debug, Default, Deserialize)]
pub struct TransactionInfo<'a> {
    #[serde(borrow, default)]
    pub id: &'a str,
    #[serde(default, rename = "blockNumber")]
    pub block_number: i64,
    /// `FAILED`, or missing after a success.
    #[serde(borrow)]
    pub result: Option<&'a str>,
    /// Present only if the virtual machine ran.
    #[serde(borrow)]
    pub contract_address: Option<&'a str>,
    #[serde(borrow, default)]
    pub receipt: Receipt<'a>,
    #[serde(borrow, default)]
    pub log: Vec<Log<'a>>,
    #[serde(borrow, default)]
    pub internal_transactions: Vec<InternalTransaction<'a>>,
}

/// The resources that a transaction used, and the result of the virtual machine.
#[derive(Debug, Default, Deserialize)]
pub struct Receipt<'a> {
    /// The result of the virtual machine; missing if it did not run.
    #[serde(borrow)]
    pub result: Option<&'a str>,
}

/// A log of the virtual machine, in hexadecimal. Addresses have 20 bytes, without the prefix `41`.
#[derive(Debug, Deserialize)]
pub struct Log<'a> {
    #[serde(borrow, default)]
    pub address: &'a str,
    #[serde(borrow, default)]
    pub topics: Vec<&'a str>,
    #[serde(borrow, default)]
    pub data: &'a str,
}

/// A call that a contract made.
#[derive(Debug, Deserialize)]
pub struct InternalTransaction<'a> {
    #[serde(borrow, default)]
    pub caller_address: &'a str,
    #[serde(borrow, default, rename = "transferTo_address")]
    pub to: &'a str,
    #[serde(borrow, default, rename = "callValueInfo")]
    pub values: Vec<CallValue<'a>>,
    /// The kind of call: the hexadecimal form of `call`, `create` or `suicide`.
    #[serde(borrow, default)]
    pub note: &'a str,
    #[serde(default)]
    pub rejected: bool,
}

/// An amount that a call moves: sun, or base units of a TRC10 token.
#[derive(Debug, Deserialize)]
pub struct CallValue<'a> {
    #[serde(default, rename = "callValue")]
    pub value: i64,
    #[serde(borrow, rename = "tokenId")]
    pub token: Option<Cow<'a, str>>,
}

/// The state of an account (`getaccount`). `{}` means that the account is not activated or that the node lags.
#[derive(Debug, Default, Deserialize)]
pub struct AccountState<'a> {
    #[serde(borrow)]
    pub address: Option<&'a str>,
    #[serde(default)]
    pub balance: i64,
}

/// The balance of an account after a block, in sun, and the block in which it changed last (`getaccountbalance`).
#[derive(Debug, Default, Deserialize)]
pub struct PastBalance<'a> {
    #[serde(default)]
    pub balance: i64,
    #[serde(borrow)]
    pub block_identifier: Option<BlockIdentifier<'a>>,
}

/// A block by hash and height.
#[derive(Debug, Deserialize)]
pub struct BlockIdentifier<'a> {
    #[serde(borrow, default)]
    pub hash: &'a str,
    #[serde(default)]
    pub number: i64,
}

/// The used and the available resources of an account (`getaccountresource`): bandwidth ("net") in bytes, and energy.
#[derive(Debug, Default, Deserialize)]
pub struct AccountResource {
    #[serde(default, rename = "freeNetUsed")]
    pub free_net_used: u64,
    #[serde(default, rename = "freeNetLimit")]
    pub free_net_limit: u64,
    #[serde(default, rename = "NetUsed")]
    pub net_used: u64,
    #[serde(default, rename = "NetLimit")]
    pub net_limit: u64,
    #[serde(default, rename = "EnergyUsed")]
    pub energy_used: u64,
    #[serde(default, rename = "EnergyLimit")]
    pub energy_limit: u64,
}

/// The parameters that block producers vote on (`getchainparameters`).
#[derive(Debug, Deserialize)]
pub struct ChainParameters<'a> {
    #[serde(borrow, default, rename = "chainParameter")]
    pub parameters: Vec<ChainParameter<'a>>,
}

/// One parameter; prices are in sun.
#[derive(Debug, Deserialize)]
pub struct ChainParameter<'a> {
    #[serde(borrow, default)]
    pub key: Cow<'a, str>,
    #[serde(default)]
    pub value: i64,
}

/// The result of a simulated call (`triggerconstantcontract`).
#[derive(Debug, Default, Deserialize)]
pub struct ConstantCall<'a> {
    #[serde(borrow, default)]
    pub result: CallResult<'a>,
    #[serde(borrow, default)]
    pub constant_result: Vec<&'a str>,
    #[serde(default)]
    pub energy_used: u64,
    #[serde(borrow, default)]
    pub transaction: CallTransaction<'a>,
}

/// The status of a simulated call. `code` and `message` are present after a failure.
#[derive(Debug, Default, Deserialize)]
pub struct CallResult<'a> {
    #[serde(default)]
    pub result: bool,
    #[serde(borrow, default)]
    pub code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
}

/// The transaction that the call would be.
#[derive(Debug, Default, Deserialize)]
pub struct CallTransaction<'a> {
    #[serde(borrow, default)]
    pub ret: Vec<CallStatus<'a>>,
}

/// `FAILED`, or missing after a success.
#[derive(Debug, Deserialize)]
pub struct CallStatus<'a> {
    #[serde(borrow)]
    pub ret: Option<&'a str>,
}

/// The answer to a broadcast.
#[derive(Debug, Default, Deserialize)]
pub struct Broadcast<'a> {
    #[serde(default)]
    pub result: bool,
    #[serde(borrow, default)]
    pub code: Cow<'a, str>,
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    #[serde(borrow, default)]
    pub txid: Cow<'a, str>,
}

/// Parses an answer. Nodes report errors in several forms, with HTTP 200 too; all of them become a node error.
pub fn parse_reply<'a, T: Deserialize<'a>>(reply: &Reply<'a>) -> Result<T, Rejection> {
    if let Some(error) = find_node_error(reply.status, reply.body()) {
        return Err(Rejection::NodeError(error));
    }
    // `{}` with an error status must not be taken for an empty account.
    if !(200..300).contains(&reply.status) {
        let message = format!("HTTP status {}", reply.status);
        return Err(Rejection::NodeError(NodeError {
            code: i64::from(reply.status),
            kind: NodeErrorKind::Other,
            message,
        }));
    }
    reply.json()
}

/// Parses the answer to a simulated call. java-tron simulates calls only with `vm.supportConstant = true`; without it, the
/// answer is an error of the kind [`NodeErrorKind::MethodMissing`].
pub fn parse_constant_call<'a>(reply: &Reply<'a>) -> Result<ConstantCall<'a>, Rejection> {
    let call: ConstantCall<'a> = parse_reply(reply)?;
    let message = call.result.message.as_deref().map(decode_message).unwrap_or_default();
    if node_error_kind(&message) == NodeErrorKind::MethodMissing {
        let message = format!("{message}; if the node is yours, run it with vm.supportConstant = true");
        return Err(Rejection::NodeError(NodeError { code: 0, kind: NodeErrorKind::MethodMissing, message }));
    }
    Ok(call)
}

/// Returns the error that an answer contains, or `None` when it is no error.
fn find_node_error(status: u16, body: &[u8]) -> Option<NodeError> {
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
        // A lite node reports a closed API as plain text.
        Err(_) if text.starts_with("this API is closed") => Cow::Borrowed(text),
        Err(_) => return None,
    };
    let message: String = error.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(NodeError { code: i64::from(status), kind: node_error_kind(&message), message })
}

/// Classifies an error by its message, because java-tron and TronGrid have no error codes.
fn node_error_kind(message: &str) -> NodeErrorKind {
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

/// Returns a node's message as text of at most 300 characters. Some methods encode their messages in hexadecimal, others
/// do not.
pub fn decode_message(message: &str) -> String {
    let text = const_hex::decode(message).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| message.to_owned()).chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_with_status_200_are_recognised() {
        for (body, expected) in [
            (
                r#"{"Error":"class java.lang.IllegalAccessException : lack of computing resources"}"#,
                NodeErrorKind::RateLimited,
            ),
            (r#"{"Error":"this API is unavailable due to config"}"#, NodeErrorKind::MethodMissing),
            ("this API is closed because this node is a lite fullnode", NodeErrorKind::MethodMissing),
            (r#"{"Error":"class org.tron.json.JSONException : x"}"#, NodeErrorKind::Other),
        ] {
            let answer = parse_reply::<Block<'_>>(&Reply::new(0, 200, body.as_bytes()));
            let Err(Rejection::NodeError(error)) = answer else { panic!("{body} is an error") };
            assert_eq!(error.kind, expected, "{body}");
        }
        assert!(matches!(parse_reply::<Block<'_>>(&Reply::new(0, 200, b"<html>")), Err(Rejection::Invalid(_))));
        assert!(parse_reply::<Block<'_>>(&Reply::new(0, 200, b"{}")).unwrap().id.is_none());
    }

    #[test]
    fn messages_are_hexadecimal_or_plain_text() {
        assert_eq!(decode_message("447570207472616e73616374696f6e2e"), "Dup transaction.");
        assert_eq!(decode_message("Dup transaction."), "Dup transaction.");
    }
}
