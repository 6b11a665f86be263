//! The JSON-RPC API of a node, with the methods for blocks and logs: 20-byte addresses, times in seconds, and the default
//! limits of java-tron. Like java-tron it returns the logs of transactions that ran out of time.

use serde_json::{Value, json};
use tron::proto::ContractRet;

use crate::{
    model::{Block, ChainModel, IncludedTransaction, height_of},
    vm::Log,
};

const RANGE_MAX: u64 = 5_000;
/// The maximum number of addresses in a filter, and of alternatives for one topic.
const ALTERNATIVES_MAX: usize = 1_000;
const TOPICS_MAX: usize = 4;
const FOUND_MAX: usize = 10_000;
const BATCH_MAX: usize = 100;

const INVALID_PARAMS: i64 = -32_602;
const NO_METHOD: i64 = -32_601;
const TOO_MANY: i64 = -32_005;

/// The code and the message of an error.
type JsonRpcError = (i64, String);

/// Answers one request or a batch, as a node that lags by `behind` blocks.
pub fn answer(model: &ChainModel, behind: u64, request: &Value) -> Value {
    let top = model.head_height().saturating_sub(behind);
    let node = JsonRpcNode { model, top, solid: model.solid_height().saturating_sub(behind) };
    let Some(requests) = request.as_array() else { return node.answer(request) };
    if requests.len() > BATCH_MAX {
        return json!({ "jsonrpc": "2.0", "id": null, "error": { "code": TOO_MANY, "message": "exceed max batch size" } });
    }
    requests.iter().map(|request| node.answer(request)).collect()
}

/// A node that has the model chain up to some height.
struct JsonRpcNode<'a> {
    model: &'a ChainModel,
    /// The height of the newest block.
    top: u64,
    /// The height of the newest solidified block.
    solid: u64,
}

/// The filter of `eth_getLogs`.
struct LogFilter {
    addresses: Vec<String>,
    /// The accepted values of each topic; an empty list accepts any value.
    topics: Vec<Vec<String>>,
}

impl LogFilter {
    fn parse_log_filter(request: &Value) -> Result<LogFilter, JsonRpcError> {
        let addresses = parse_alternatives(&request["address"]);
        let topics: Vec<Vec<String>> =
            request["topics"].as_array().into_iter().flatten().map(parse_alternatives).collect();
        let invalid = |why: &str| Err((INVALID_PARAMS, why.to_owned()));
        if addresses.len() > ALTERNATIVES_MAX {
            return invalid("exceed max addresses");
        }
        if topics.len() > TOPICS_MAX || topics.iter().any(|topic| topic.len() > ALTERNATIVES_MAX) {
            return invalid("exceed max topics");
        }
        Ok(LogFilter { addresses, topics })
    }

    fn matches_log(&self, log: &Log) -> bool {
        let accepts = |allowed: &[String], value: &str| allowed.is_empty() || allowed.iter().any(|text| text == value);
        accepts(&self.addresses, &to_hex(log.address))
            && self.topics.iter().enumerate().all(|(index, allowed)| {
                allowed.is_empty() || log.topics.get(index).is_some_and(|topic| accepts(allowed, &to_hex(topic)))
            })
    }
}

impl JsonRpcNode<'_> {
    fn answer(&self, request: &Value) -> Value {
        let method = request["method"].as_str().unwrap_or_default();
        let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
        match self.answer_method(method, &request["params"]) {
            Ok(result) => answer["result"] = result,
            Err((code, message)) => answer["error"] = json!({ "code": code, "message": message }),
        }
        answer
    }

    fn answer_method(&self, method: &str, params: &Value) -> Result<Value, JsonRpcError> {
        match method {
            "eth_chainId" | "net_version" => {
                let genesis = self.model.block(0).expect("the chain has a genesis block");
                Ok(json!(format!("0x{}", const_hex::encode(&genesis.id[28..]).trim_start_matches('0'))))
            }
            "eth_blockNumber" => Ok(to_quantity(self.top)),
            "eth_getBlockByNumber" => {
                let full = params[1].as_bool().unwrap_or(false);
                Ok(self
                    .find_block(self.parse_height(&params[0])?)
                    .map_or(Value::Null, |block| self.block_to_json(block, full)))
            }
            "eth_getLogs" => self.find_logs(&params[0]),
            "eth_getTransactionReceipt" => Ok(self.answer_receipt(&params[0])),
            _ => Err((NO_METHOD, format!("the method {method} does not exist/is not available"))),
        }
    }

    fn find_block(&self, height: u64) -> Option<&Block> {
        self.model.block(height).filter(|_| height <= self.top)
    }

    fn parse_height(&self, tag: &Value) -> Result<u64, JsonRpcError> {
        let invalid = |why: &str| Err((INVALID_PARAMS, why.to_owned()));
        match tag.as_str() {
            None if tag.is_null() => Ok(self.top),
            Some("latest") => Ok(self.top),
            Some("earliest") => Ok(0),
            Some("finalized") => Ok(self.solid),
            Some("pending" | "safe") => invalid("TAG [pending | safe] not supported"),
            None => invalid("invalid block number"),
            Some(text) => match text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16)) {
                Some(Ok(height)) => Ok(height),
                Some(Err(_)) | None => invalid("invalid block number"),
            },
        }
    }

    fn find_logs(&self, request: &Value) -> Result<Value, JsonRpcError> {
        let filter = LogFilter::parse_log_filter(request)?;
        let heights = match request["blockHash"].as_str() {
            Some(_) if !request["fromBlock"].is_null() || !request["toBlock"].is_null() => {
                return Err((INVALID_PARAMS, "cannot specify both blockHash and fromBlock/toBlock".to_owned()));
            }
            Some(hash) => {
                let hash = hash.to_lowercase();
                let block =
                    (0..=self.top).rev().find(|height| self.find_block(*height).is_some_and(|b| to_hex(b.id) == hash));
                let height = block.ok_or((INVALID_PARAMS, "invalid blockHash".to_owned()))?;
                height..=height
            }
            None => {
                // A range without an end is valid: blocks that do not exist yet have no logs.
                let open = request["toBlock"].is_null() || request["toBlock"] == "latest";
                let to = if open { u64::MAX } else { self.parse_height(&request["toBlock"])? };
                let from = &request["fromBlock"];
                let from = if from.is_null() { to.min(self.top) } else { self.parse_height(from)? };
                if from > to {
                    return Err((INVALID_PARAMS, "please verify: fromBlock <= toBlock".to_owned()));
                }
                if to.min(self.top).saturating_sub(from) > RANGE_MAX {
                    return Err((INVALID_PARAMS, format!("exceed max block range: {RANGE_MAX}")));
                }
                from..=to.min(self.top)
            }
        };
        let mut found = Vec::new();
        for block in heights.filter_map(|height| self.find_block(height)) {
            let logs =
                block.included.iter().enumerate().flat_map(|(index, included)| list_logs(block, index, included));
            found.extend(logs.filter(|(log, _)| filter.matches_log(log)).map(|(_, json)| json));
            if found.len() > FOUND_MAX {
                return Err((TOO_MANY, format!("query returned more than {FOUND_MAX} results")));
            }
        }
        Ok(json!(found))
    }

    fn answer_receipt(&self, txid: &Value) -> Value {
        let txid = txid.as_str().and_then(|text| const_hex::decode_to_array::<_, 32>(text).ok());
        let found = txid.and_then(|txid| self.model.find(&txid, self.top));
        found.map_or(Value::Null, |(block, included)| {
            let index = block.included.iter().position(|other| other.tx.txid == included.tx.txid).unwrap_or(0);
            json!({
                "transactionHash": to_hex(included.tx.txid),
                "transactionIndex": to_quantity(u64::try_from(index).unwrap_or(0)),
                "blockHash": to_hex(block.id),
                "blockNumber": to_quantity(height_of(block)),
                "status": if included.ret == ContractRet::Success { "0x1" } else { "0x0" },
                "gasUsed": to_quantity(included.receipt.energy_total),
                "logs": list_logs(block, index, included).map(|(_, json)| json).collect::<Vec<_>>(),
            })
        })
    }

    fn block_to_json(&self, block: &Block, full: bool) -> Value {
        let transaction = |included: &IncludedTransaction| match full {
            true => json!({ "hash": to_hex(included.tx.txid), "blockHash": to_hex(block.id), "type": "0x0" }),
            false => json!(to_hex(included.tx.txid)),
        };
        json!({
            "number": to_quantity(height_of(block)),
            "hash": to_hex(block.id),
            "parentHash": to_hex(&block.header.parent_hash),
            "timestamp": to_quantity(u64::try_from(block.header.timestamp / 1_000).unwrap_or(0)),
            "transactionsRoot": to_hex(&block.header.tx_trie_root),
            "transactions": block.included.iter().map(transaction).collect::<Vec<_>>(),
        })
    }
}

/// Returns the logs of the transaction with the index `tx_index`, each with its JSON. Log indices count through the block.
fn list_logs<'a>(
    block: &'a Block,
    tx_index: usize,
    included: &'a IncludedTransaction,
) -> impl Iterator<Item = (&'a Log, Value)> {
    let before: usize = block.included.iter().take(tx_index).map(|earlier| earlier.receipt.logs.len()).sum();
    included.receipt.logs.iter().enumerate().map(move |(index, log)| {
        let json = json!({
            "address": to_hex(log.address),
            "topics": log.topics.iter().map(to_hex).collect::<Vec<_>>(),
            "data": to_hex(&log.data),
            "blockHash": to_hex(block.id),
            "blockNumber": to_quantity(height_of(block)),
            "transactionHash": to_hex(included.tx.txid),
            "transactionIndex": to_quantity(u64::try_from(tx_index).unwrap_or(0)),
            "logIndex": to_quantity(u64::try_from(before + index).unwrap_or(0)),
            "removed": false,
        });
        (log, json)
    })
}

/// Returns a string, or each string of an array, in lower case.
fn parse_alternatives(value: &Value) -> Vec<String> {
    let one = value.as_str().into_iter();
    let many = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(many).map(str::to_lowercase).collect()
}

fn to_hex(bytes: impl AsRef<[u8]>) -> String {
    const_hex::encode_prefixed(bytes)
}

fn to_quantity(number: u64) -> Value {
    json!(format!("{number:#x}"))
}
