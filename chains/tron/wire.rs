//! What java-tron's HTTP interface answers, read straight into borrowed types. Fields at their default are left out, so
//! that every field of every answer is optional; errors come with HTTP 200.

use std::borrow::Cow;

use rpc::{NodeError, NodeErrorKind, Rejection, Reply};
use serde::Deserialize;

/// An answer that is longer is no error: only short ones are looked at for one.
const ERROR_BYTES_MAX: usize = 4_096;

#[derive(Debug, Default, Deserialize)]
pub struct Block<'a> {
    #[serde(borrow, rename = "blockID")]
    pub id: Option<&'a str>,
    #[serde(borrow)]
    pub block_header: Option<BlockHeader<'a>>,
    #[serde(borrow, default)]
    pub transactions: Vec<Transaction<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct BlockHeader<'a> {
    #[serde(borrow)]
    pub raw_data: HeaderRaw<'a>,
}

/// Addresses and hashes in hex, times in unix milliseconds.
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

#[derive(Debug, Deserialize)]
pub struct Transaction<'a> {
    #[serde(borrow, default, rename = "txID")]
    pub id: &'a str,
    /// What the id is the hash of. The decoded form beside it is not looked at.
    #[serde(borrow, default, rename = "raw_data_hex")]
    pub raw: &'a str,
    #[serde(borrow, default)]
    pub ret: Vec<TransactionResult<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct TransactionResult<'a> {
    #[serde(borrow, rename = "contractRet")]
    pub contract_ret: Option<&'a str>,
}

/// The blocks of a range, fewer than asked for where the node's chain ends.
#[derive(Debug, Deserialize)]
pub struct Blocks<'a> {
    #[serde(borrow, default)]
    pub block: Vec<Block<'a>>,
}

/// What became of a transaction (`TransactionInfo`).
#[derive(Debug, Default, Deserialize)]
pub struct TransactionInfo<'a> {
    #[serde(borrow, default)]
    pub id: &'a str,
    #[serde(default, rename = "blockNumber")]
    pub block_number: i64,
    /// `FAILED`, or left out.
    #[serde(borrow)]
    pub result: Option<&'a str>,
    /// ErrorBody of what the virtual machine ran.
    #[serde(borrow)]
    pub contract_address: Option<&'a str>,
    #[serde(borrow, default)]
    pub receipt: Receipt<'a>,
    #[serde(borrow, default)]
    pub log: Vec<Log<'a>>,
    #[serde(borrow, default)]
    pub internal_transactions: Vec<InternalTransaction<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Receipt<'a> {
    /// How the virtual machine ended; left out where it did not run.
    #[serde(borrow)]
    pub result: Option<&'a str>,
}

/// Words of the virtual machine: 20-byte addresses without their prefix.
#[derive(Debug, Deserialize)]
pub struct Log<'a> {
    #[serde(borrow, default)]
    pub address: &'a str,
    #[serde(borrow, default)]
    pub topics: Vec<&'a str>,
    #[serde(borrow, default)]
    pub data: &'a str,
}

#[derive(Debug, Deserialize)]
pub struct InternalTransaction<'a> {
    #[serde(borrow, default)]
    pub caller_address: &'a str,
    #[serde(borrow, default, rename = "transferTo_address")]
    pub to: &'a str,
    #[serde(borrow, default, rename = "callValueInfo")]
    pub values: Vec<CallValue<'a>>,
    /// The kind of call, in hex of its name.
    #[serde(borrow, default)]
    pub note: &'a str,
    #[serde(default)]
    pub rejected: bool,
}

/// Sun, or base units of a TRC10 token.
#[derive(Debug, Deserialize)]
pub struct CallValue<'a> {
    #[serde(default, rename = "callValue")]
    pub value: i64,
    #[serde(borrow, rename = "tokenId")]
    pub token: Option<Cow<'a, str>>,
}

/// `{}` of an account that is not activated, and of a node that lags.
#[derive(Debug, Default, Deserialize)]
pub struct AccountState<'a> {
    #[serde(borrow)]
    pub address: Option<&'a str>,
    #[serde(default)]
    pub balance: i64,
}

/// `getaccountbalance`: what an account had after one block, and in which block that changed last.
#[derive(Debug, Default, Deserialize)]
pub struct PastBalance<'a> {
    #[serde(default)]
    pub balance: i64,
    #[serde(borrow)]
    pub block_identifier: Option<BlockIdentifier<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct BlockIdentifier<'a> {
    #[serde(borrow, default)]
    pub hash: &'a str,
    #[serde(default)]
    pub number: i64,
}

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

#[derive(Debug, Deserialize)]
pub struct ChainParameters<'a> {
    #[serde(borrow, default, rename = "chainParameter")]
    pub parameters: Vec<ChainParameter<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct ChainParameter<'a> {
    #[serde(borrow, default)]
    pub key: Cow<'a, str>,
    #[serde(default)]
    pub value: i64,
}

/// The answer to a call that changes nothing.
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

#[derive(Debug, Default, Deserialize)]
pub struct CallResult<'a> {
    #[serde(default)]
    pub result: bool,
    #[serde(borrow, default)]
    pub code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
pub struct CallTransaction<'a> {
    #[serde(borrow, default)]
    pub ret: Vec<CallStatus<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct CallStatus<'a> {
    #[serde(borrow)]
    pub ret: Option<&'a str>,
}

/// What a node says to a broadcast.
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

/// Reads an answer, unless it is an error in one of its disguises.
pub fn parse_reply<'a, T: Deserialize<'a>>(reply: &Reply<'a>) -> Result<T, Rejection> {
    if let Some(refusal) = find_refusal(reply.status, reply.body()) {
        return Err(Rejection::NodeError(refusal));
    }
    // `{}` under such a status is no empty account.
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

/// Reads the answer to a call that changes nothing, which java-tron offers only with `vm.supportConstant = true`.
pub fn parse_constant_call<'a>(reply: &Reply<'a>) -> Result<ConstantCall<'a>, Rejection> {
    let said: ConstantCall<'a> = parse_reply(reply)?;
    let message = said.result.message.as_deref().map(decode_message).unwrap_or_default();
    if refusal_kind(&message) == NodeErrorKind::MethodMissing {
        let message = format!("{message}; an own node must run with vm.supportConstant = true");
        return Err(Rejection::NodeError(NodeError { code: 0, kind: NodeErrorKind::MethodMissing, message }));
    }
    Ok(said)
}

fn find_refusal(status: u16, body: &[u8]) -> Option<NodeError> {
    #[derive(Deserialize)]
    struct ErrorBody<'a> {
        #[serde(borrow, rename = "Error")]
        error: Cow<'a, str>,
    }
    if body.len() > ERROR_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let said = match serde_json::from_str::<ErrorBody<'_>>(text) {
        Ok(ErrorBody { error }) => error,
        // A lite node says so without any JSON.
        Err(_) if text.starts_with("this API is closed") => Cow::Borrowed(text),
        Err(_) => return None,
    };
    let message: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(NodeError { code: i64::from(status), kind: refusal_kind(&message), message })
}

fn refusal_kind(message: &str) -> NodeErrorKind {
    let text = message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(&["frequency limit", "suspended", "daily usage", "rate limit", "lack of computing resources", "too many"]) {
        NodeErrorKind::RateLimited
    } else if says(&["unavailable due to config", "api is closed", "not support"]) {
        NodeErrorKind::MethodMissing
    } else {
        NodeErrorKind::Other
    }
}

/// A node's message, which is the hex of its text more often than not.
pub fn decode_message(said: &str) -> String {
    let text = const_hex::decode(said).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| said.to_owned()).chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_under_status_200() {
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
            let Err(Rejection::NodeError(refusal)) = answer else { panic!("{body} is an error") };
            assert_eq!(refusal.kind, expected, "{body}");
        }
        assert!(matches!(parse_reply::<Block<'_>>(&Reply::new(0, 200, b"<html>")), Err(Rejection::Invalid(_))));
        assert!(parse_reply::<Block<'_>>(&Reply::new(0, 200, b"{}")).unwrap().id.is_none());
    }

    #[test]
    fn messages_are_hex_or_text() {
        assert_eq!(decode_message("447570207472616e73616374696f6e2e"), "Dup transaction.");
        assert_eq!(decode_message("Dup transaction."), "Dup transaction.");
    }
}
