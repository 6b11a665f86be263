//! The HTTP API of java-tron: the paths of its two views, the bodies of requests, and its replies, deserialised into
//! borrowed types. Nodes leave out fields with default values, so every field is optional. Nodes also send errors with
//! HTTP status 200.

use std::borrow::Cow;

use rpc::{NodeError, NodeErrorKind, Rejection, Reply};
use serde::Deserialize;
use serde_json::Value;

use crate::node_errors::find_node_error;

/// The two views of the chain in a node's HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiView {
    /// Blocks up to the newest solidified one. A block is solidified, and therefore irreversible, when 19 of the 27
    /// block producers have built on top of it.
    Solid,
    /// All blocks. A reorganisation can still remove the blocks above the newest solidified one.
    Head,
}

impl ApiView {
    /// Returns the URL path of this view's API method.
    pub fn api_path(self, method: &str) -> String {
        match self {
            ApiView::Solid => format!("walletsolidity/{method}"),
            ApiView::Head => format!("wallet/{method}"),
        }
    }
}

/// Serialises a request body.
pub fn serialize_body(request: &Value) -> Vec<u8> {
    request.to_string().into_bytes()
}

/// A block (`getblock`, `getblockbylimitnext`); all fields are missing when the node does not have it.
#[derive(Debug, Default, Deserialize)]
pub struct Block<'a> {
    /// The block id, 64 hexadecimal digits: 16 for the height, then 48 of the header's hash.
    #[serde(borrow, rename = "blockID")]
    pub id: Option<&'a str>,
    /// The header of the block; `None` if the node does not have the block.
    #[serde(borrow)]
    pub block_header: Option<BlockHeader<'a>>,
    /// The transactions in block order. Some requests leave them out.
    #[serde(borrow, default)]
    pub transactions: Vec<Transaction<'a>>,
}

/// The header of a block.
#[derive(Debug, Deserialize)]
pub struct BlockHeader<'a> {
    /// The content of the header. The last 48 digits of the block id come from the hash of this content.
    #[serde(borrow)]
    pub raw_data: HeaderRaw<'a>,
}

/// The hashed content of a header. All fields are needed to recompute the hash.
#[derive(Debug, Deserialize)]
pub struct HeaderRaw<'a> {
    /// Height of the block.
    #[serde(default)]
    pub number: i64,
    /// Time of the block, in unix milliseconds.
    #[serde(default)]
    pub timestamp: i64,
    /// Id of the parent block, 64 hexadecimal digits.
    #[serde(borrow, default, rename = "parentHash")]
    pub parent: &'a str,
    /// Merkle root of the transactions, 64 hexadecimal digits. In a block without transactions it is empty or zero.
    #[serde(borrow, default, rename = "txTrieRoot")]
    pub root: &'a str,
    /// Account of the block producer, 42 hexadecimal digits.
    #[serde(borrow, default)]
    pub witness_address: &'a str,
    /// Number of the block producer; usually 0.
    #[serde(default)]
    pub witness_id: i64,
    /// Block version, which the producer's java-tron release sets.
    #[serde(default)]
    pub version: i32,
    /// Root of the account states in hexadecimal; empty on networks that do not use it.
    #[serde(borrow, default, rename = "accountStateRoot")]
    pub account_state_root: &'a str,
}

/// A transaction in a block.
#[derive(Debug, Deserialize)]
pub struct Transaction<'a> {
    /// The transaction id, 64 hexadecimal digits.
    #[serde(borrow, default, rename = "txID")]
    pub id: &'a str,
    /// The serialised content in hexadecimal; its hash is the id. The decoded form that nodes add is ignored.
    #[serde(borrow, default, rename = "raw_data_hex")]
    pub raw: &'a str,
    /// The result of each operation. The list has one element, because a transaction has one operation.
    #[serde(borrow, default)]
    pub ret: Vec<TransactionResult<'a>>,
}

/// The result of one operation of a transaction.
#[derive(Debug, Deserialize)]
pub struct TransactionResult<'a> {
    /// A name of [`crate::proto::ContractRet`], such as `SUCCESS`; `None` if the node leaves it out.
    #[serde(borrow, rename = "contractRet")]
    pub contract_ret: Option<&'a str>,
}

/// The blocks of a range. There are fewer than requested when the node's chain ends within the range.
#[derive(Debug, Deserialize)]
pub struct Blocks<'a> {
    /// The blocks, in ascending order of their heights.
    #[serde(borrow, default)]
    pub block: Vec<Block<'a>>,
}

/// The receipt of a transaction: its result and its logs (java-tron: `TransactionInfo`).
#[derive(Debug, Default, Deserialize)]
pub struct TransactionInfo<'a> {
    /// The transaction id, 64 hexadecimal digits.
    #[serde(borrow, default)]
    pub id: &'a str,
    /// Height of the block that contains the transaction.
    #[serde(default, rename = "blockNumber")]
    pub block_number: i64,
    /// `FAILED`, or `None` after a success.
    #[serde(borrow)]
    pub result: Option<&'a str>,
    /// The contract that the transaction called, in hexadecimal; `None` if no contract was run.
    #[serde(borrow)]
    pub contract_address: Option<&'a str>,
    /// The part of the receipt with the result of the contract.
    #[serde(borrow, default)]
    pub receipt: Receipt<'a>,
    /// The logs of the transaction, in order.
    #[serde(borrow, default)]
    pub log: Vec<Log<'a>>,
    /// The calls that contracts made; empty if the node does not save them.
    #[serde(borrow, default)]
    pub internal_transactions: Vec<InternalTransaction<'a>>,
}

/// The part of a receipt that contains the result of the contract. Its fields about used resources are ignored.
#[derive(Debug, Default, Deserialize)]
pub struct Receipt<'a> {
    /// A name of [`crate::proto::ContractRet`], such as `SUCCESS`; `None` if no contract was run.
    #[serde(borrow)]
    pub result: Option<&'a str>,
}

/// A log of the virtual machine, in hexadecimal. Addresses have 20 bytes, without the prefix `41`.
#[derive(Debug, Deserialize)]
pub struct Log<'a> {
    /// The contract that emitted the log, 40 hexadecimal digits.
    #[serde(borrow, default)]
    pub address: &'a str,
    /// The indexed event arguments, each 64 hexadecimal digits; the first is the hash of the event's signature.
    #[serde(borrow, default)]
    pub topics: Vec<&'a str>,
    /// The ABI-encoded arguments that are not indexed.
    #[serde(borrow, default)]
    pub data: &'a str,
}

/// A call that a contract made.
#[derive(Debug, Deserialize)]
pub struct InternalTransaction<'a> {
    /// The calling contract, 42 hexadecimal digits.
    #[serde(borrow, default)]
    pub caller_address: &'a str,
    /// The called account, 42 hexadecimal digits.
    #[serde(borrow, default, rename = "transferTo_address")]
    pub to: &'a str,
    /// The amounts that the call moves; empty or zero if it moves none.
    #[serde(borrow, default, rename = "callValueInfo")]
    pub values: Vec<CallValue<'a>>,
    /// The kind of call: the hexadecimal form of `call`, `create` or `suicide`.
    #[serde(borrow, default)]
    pub note: &'a str,
    /// True if the call failed, so that it moved nothing.
    #[serde(default)]
    pub rejected: bool,
}

/// An amount that a call moves: sun, or base units of a TRC10 token.
#[derive(Debug, Deserialize)]
pub struct CallValue<'a> {
    /// The amount, in sun or in base units of the token.
    #[serde(default, rename = "callValue")]
    pub value: i64,
    /// The number of the TRC10 token; `None` for TRX.
    #[serde(borrow, rename = "tokenId")]
    pub token: Option<Cow<'a, str>>,
}

/// The state of an account (`getaccount`). A reply `{}` means that the account is not activated, or that the node is
/// behind.
#[derive(Debug, Default, Deserialize)]
pub struct AccountState<'a> {
    /// The address of the account, 42 hexadecimal digits; `None` in a reply `{}`.
    #[serde(borrow)]
    pub address: Option<&'a str>,
    /// Balance in sun, without staked TRX.
    #[serde(default)]
    pub balance: i64,
}

/// The balance of an account after a past block, and the block in which the balance changed last (`getaccountbalance`).
#[derive(Debug, Default, Deserialize)]
pub struct PastBalance<'a> {
    /// The balance of the account after the block, in sun.
    #[serde(default)]
    pub balance: i64,
    /// The block in which the balance changed last; `None` if the node does not report it.
    #[serde(borrow)]
    pub block_identifier: Option<BlockIdentifier<'a>>,
}

/// A reference to a block by its id and its height.
#[derive(Debug, Deserialize)]
pub struct BlockIdentifier<'a> {
    /// The block id, 64 hexadecimal digits.
    #[serde(borrow, default)]
    pub hash: &'a str,
    /// Height of the block.
    #[serde(default)]
    pub number: i64,
}

/// The used and the available resources of an account (`getaccountresource`): bandwidth ("net") in bytes, and energy.
#[derive(Debug, Default, Deserialize)]
pub struct AccountResource {
    /// Used part of the free daily bandwidth, in bytes.
    #[serde(default, rename = "freeNetUsed")]
    pub free_net_used: u64,
    /// Free daily bandwidth, in bytes; 0 if the account is not activated.
    #[serde(default, rename = "freeNetLimit")]
    pub free_net_limit: u64,
    /// Used part of the bandwidth from staked TRX, in bytes.
    #[serde(default, rename = "NetUsed")]
    pub net_used: u64,
    /// Bandwidth from staked or lent TRX, in bytes.
    #[serde(default, rename = "NetLimit")]
    pub net_limit: u64,
    /// Used part of the energy from staked or lent TRX.
    #[serde(default, rename = "EnergyUsed")]
    pub energy_used: u64,
    /// Energy from staked or lent TRX.
    #[serde(default, rename = "EnergyLimit")]
    pub energy_limit: u64,
}

/// The parameters that block producers vote on (`getchainparameters`).
#[derive(Debug, Deserialize)]
pub struct ChainParameters<'a> {
    /// All parameters of the chain, in no particular order.
    #[serde(borrow, default, rename = "chainParameter")]
    pub parameters: Vec<ChainParameter<'a>>,
}

/// One chain parameter that block producers vote on. Prices are in sun.
#[derive(Debug, Deserialize)]
pub struct ChainParameter<'a> {
    /// Name of the parameter, such as `getEnergyFee`.
    #[serde(borrow, default)]
    pub key: Cow<'a, str>,
    /// The value of the parameter. Nodes leave the field out when it is 0.
    #[serde(default)]
    pub value: i64,
}

/// The result of a simulated call (`triggerconstantcontract`).
#[derive(Debug, Default, Deserialize)]
pub struct ConstantCall<'a> {
    /// The status of the simulated call.
    #[serde(borrow, default)]
    pub result: CallResult<'a>,
    /// The bytes that the call returned, in hexadecimal; the first item contains all of them.
    #[serde(borrow, default)]
    pub constant_result: Vec<&'a str>,
    /// The energy that the call uses, including the extra energy that popular contracts cost.
    #[serde(default)]
    pub energy_used: u64,
    /// The transaction in which the node ran the call.
    #[serde(borrow, default)]
    pub transaction: CallTransaction<'a>,
}

/// The status of a simulated call. The node sets `code` and `message` after a failure only.
#[derive(Debug, Default, Deserialize)]
pub struct CallResult<'a> {
    /// True if the node ran the call, even if the contract reverted it.
    #[serde(default)]
    pub result: bool,
    /// Name of a java-tron error code; `None` after a success.
    #[serde(borrow, default)]
    pub code: Option<Cow<'a, str>>,
    /// Text of the failure, in hexadecimal or as plain text; `None` after a success.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
}

/// The transaction in which a node runs a simulated call. It is never broadcast.
#[derive(Debug, Default, Deserialize)]
pub struct CallTransaction<'a> {
    /// The result of each operation of this transaction.
    #[serde(borrow, default)]
    pub ret: Vec<CallStatus<'a>>,
}

/// The status of one operation of a simulated call.
#[derive(Debug, Deserialize)]
pub struct CallStatus<'a> {
    /// `FAILED` if the contract reverted the call, otherwise `None`.
    #[serde(borrow)]
    pub ret: Option<&'a str>,
}

/// The reply of a node to a broadcast (`broadcasthex`).
#[derive(Debug, Default, Deserialize)]
pub struct Broadcast<'a> {
    /// True if the node accepted the transaction.
    #[serde(default)]
    pub result: bool,
    /// Name of a java-tron `response_code`, such as `SIGERROR`; empty after a success.
    #[serde(borrow, default)]
    pub code: Cow<'a, str>,
    /// Text of the failure, in hexadecimal or as plain text; empty after a success.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Id of the transaction that the node received.
    #[serde(borrow, default)]
    pub txid: Cow<'a, str>,
}

/// Parses the JSON of a reply. Nodes report errors in several forms, some with HTTP status 200; this function returns
/// all of them as node errors.
pub fn parse_json_or_node_error<'a, T: Deserialize<'a>>(reply: &Reply<'a>) -> Result<T, Rejection> {
    if let Some(error) = find_node_error(reply.status, reply.body()) {
        return Err(Rejection::NodeError(error));
    }
    // A body `{}` with an HTTP error status is an error. Without this check, it would be parsed as an account without
    // money.
    if !(200..300).contains(&reply.status) {
        let message = format!("HTTP status {}", reply.status);
        return Err(Rejection::NodeError(NodeError {
            code: i64::from(reply.status),
            kind: NodeErrorKind::Other,
            message,
        }));
    }
    reply.parse_json()
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
            let answer = parse_json_or_node_error::<Block<'_>>(&Reply::new(0, 200, body.as_bytes()));
            let Err(Rejection::NodeError(error)) = answer else { panic!("{body} is an error") };
            assert_eq!(error.kind, expected, "{body}");
        }
        assert!(matches!(
            parse_json_or_node_error::<Block<'_>>(&Reply::new(0, 200, b"<html>")),
            Err(Rejection::Invalid(_))
        ));
        assert!(parse_json_or_node_error::<Block<'_>>(&Reply::new(0, 200, b"{}")).unwrap().id.is_none());
    }
}
