//! The HTTP API of a node: answers a request by method name, from the solidified or from the head view.

use alloy_primitives::{Address, keccak256};
use chain::AddressKey;
use prost::Message;
use serde_json::{Value, json};
use tron::{
    address,
    proto::{self, ContractType, TYPE_URL, TriggerSmartContract},
    transaction,
};

use crate::{
    json::{JsonEncoding, parameters, without_defaults},
    model::{BroadcastRefusal, ChainModel, height_of, owner},
    state::{TOTAL_ENERGY, TOTAL_STAKED},
    vm::{self, ContractCall, Execution, ExecutionStatus},
};

/// The energy limit of a simulated call.
const CONSTANT_LIMIT: u64 = 100_000_000;
const RANGE_MAX: u64 = 100;

/// The API of a node that has the model chain up to some height.
pub struct NodeApi<'a> {
    pub model: &'a mut ChainModel,
    /// The height of the newest block that this node has.
    pub top: u64,
    /// True for the solidified view (`/walletsolidity`), false for the head view (`/wallet`).
    pub solid: bool,
}

impl NodeApi<'_> {
    /// Answers a request of an API method.
    pub fn answer(&mut self, method: &str, request: &Value) -> Value {
        let encoding = JsonEncoding::requested_by(request);
        match (method, self.solid) {
            ("getnowblock", _) => self.block(self.top, true, encoding),
            ("getblock", _) => self.named_block(request, encoding),
            ("getblockbynum", _) => number(&request["num"]).map_or(json!({}), |num| self.block(num, true, encoding)),
            ("getblockbyid", _) => {
                self.named_block(&json!({ "id_or_num": request["value"], "detail": true }), encoding)
            }
            ("getblockbylimitnext", _) => self.range(request, encoding),
            ("gettransactioninfobyblocknum", _) => self.receipts(request, encoding),
            ("gettransactionbyid", _) => self.with_transaction(request, |_, included| encoding.included(included)),
            ("gettransactioninfobyid", _) => {
                self.with_transaction(request, |block, included| encoding.receipt(block, included))
            }
            ("getaccount", _) => self.account(request, encoding),
            ("triggerconstantcontract", _) => self.constant(request, encoding),
            ("estimateenergy", _) => self.estimate(request, encoding),
            ("getchainparameters", _) => parameters(&self.model.prices),
            ("getnodeinfo", false) => self.node_info(),
            ("getaccountbalance", false) => self.past_balance(request, encoding),
            ("getaccountresource", false) => self.resources(request, encoding),
            ("getcontract" | "getcontractinfo", false) => self.contract(method, request, encoding),
            ("triggersmartcontract", false) => self.trigger(request, encoding),
            ("createtransaction", false) => self.transfer(request, encoding),
            ("broadcasthex", false) => self.broadcast_hex(request),
            ("broadcasttransaction", false) => self.broadcast(request, encoding),
            ("getsignweight", false) => self.sign_weight(request, encoding),
            ("gettransactionfrompending", false) => self.pending(request, encoding),
            ("getpendingsize", false) => json!({ "pendingSize": self.model.pending.len() }),
            _ => json!({ "Error": "class java.lang.IllegalArgumentException : this API is unavailable due to config" }),
        }
    }

    fn block(&self, height: u64, detail: bool, encoding: JsonEncoding) -> Value {
        let block = self.model.block(height).filter(|_| height <= self.top);
        block.map_or(json!({}), |block| encoding.block(block, detail))
    }

    fn named_block(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let detail = request["detail"].as_bool().unwrap_or(false);
        let Some(name) = request["id_or_num"].as_str() else { return self.block(self.top, detail, encoding) };
        if let Ok(height) = name.parse::<u64>() {
            return self.block(height, detail, encoding);
        }
        let height = const_hex::decode_to_array::<_, 32>(name).ok();
        let height = height.map(|id| u64::from_be_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]));
        height.map_or(json!({}), |height| {
            let block = self.block(height, detail, encoding);
            if block["blockID"] == name { block } else { json!({}) }
        })
    }

    fn range(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let (Some(from), Some(to)) = (number(&request["startNum"]), number(&request["endNum"])) else {
            return json!({});
        };
        if from >= to || to - from > RANGE_MAX {
            return json!({});
        }
        let blocks: Vec<Value> =
            (from..to.min(self.top + 1)).map(|height| self.block(height, true, encoding)).collect();
        if blocks.is_empty() { json!({}) } else { json!({ "block": blocks }) }
    }

    fn receipts(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let height = number(&request["num"]).filter(|height| *height <= self.top);
        let Some(block) = height.and_then(|height| self.model.block(height)) else { return json!([]) };
        block.included.iter().map(|included| encoding.receipt(block, included)).collect()
    }

    /// Answers with `show` for the requested transaction, or with `{}` when the node does not have it.
    fn with_transaction(
        &self,
        request: &Value,
        show: impl Fn(&crate::model::Block, &crate::model::IncludedTransaction) -> Value,
    ) -> Value {
        let txid = request["value"].as_str().and_then(|text| const_hex::decode_to_array::<_, 32>(text).ok());
        let found = txid.and_then(|txid| self.model.find(&txid, self.top));
        found.map_or(json!({}), |(block, included)| show(block, included))
    }

    fn account(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let state = self.model.state_at(self.top);
        let Some(address) = encoding.parse_address(&request["address"]) else { return json!({}) };
        let Some(account) = state.accounts.get(&address) else { return json!({}) };
        without_defaults(json!({
            "address": encoding.address(address),
            "balance": state.balance(address),
            "create_time": account.created_ms,
            "owner_permission": permission(encoding, address),
        }))
    }

    /// Answers like java-tron: a node without the history of balances returns no error but a balance of 0.
    fn past_balance(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let address = encoding.parse_address(&request["account_identifier"]["address"]);
        let block = &request["block_identifier"];
        let Some((address, height)) = address.zip(number(&block["number"])) else { return json!({}) };
        let id = self.model.block(height).filter(|_| height <= self.top).map(|block| const_hex::encode(block.id));
        if block["hash"].as_str() != id.as_deref() {
            let text = "number and hash do not match";
            return json!({ "Error": format!("class java.lang.IllegalArgumentException : {text}") });
        }
        let (changed, balance) = self.model.balance_after(address, height).unwrap_or((height, 0));
        let id = self.model.block(changed).map(|block| const_hex::encode(block.id));
        without_defaults(json!({ "balance": balance, "block_identifier": { "number": changed, "hash": id } }))
    }

    fn resources(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let now = self.model.head().header.timestamp;
        let Some(address) = encoding.parse_address(&request["address"]) else { return json!({}) };
        let Some(account) = self.model.state.accounts.get(&address) else { return json!({}) };
        without_defaults(json!({
            "freeNetUsed": account.free_bandwidth.at(now),
            "freeNetLimit": self.model.prices.free_bandwidth,
            "EnergyUsed": account.energy.at(now),
            "EnergyLimit": account.energy_limit,
            "TotalNetLimit": 43_200_000_000_u64,
            "TotalNetWeight": 26_000_000_000_u64,
            "TotalEnergyLimit": TOTAL_ENERGY,
            "TotalEnergyWeight": TOTAL_STAKED,
        }))
    }

    fn contract(&self, method: &str, request: &Value, encoding: JsonEncoding) -> Value {
        let address = encoding.parse_address(&request["value"]);
        let Some((address, metadata)) =
            address.and_then(|address| Some((address, self.model.contracts.get(&address)?)))
        else {
            return json!({});
        };
        if method == "getcontractinfo" {
            let factor = (metadata.factor > 0).then_some(metadata.factor * 10);
            return json!({ "contract_state": without_defaults(json!({ "energy_factor": factor })) });
        }
        json!({
            "contract_address": encoding.address(address),
            "origin_address": encoding.address(Address::ZERO),
            "name": metadata.name,
            "abi": { "entrys": metadata.abi },
            "consume_user_resource_percent": 100,
        })
    }

    fn simulate(&self, request: &Value, encoding: JsonEncoding) -> Option<Execution> {
        let from = encoding.parse_address(&request["owner_address"])?;
        let contract = encoding.parse_address(&request["contract_address"])?;
        let mut state = self.model.state_at(self.top).clone();
        if !state.is_contract(contract) {
            return None;
        }
        let factor = self.model.contracts.get(&contract).map_or(0, |metadata| metadata.factor);
        let sun = request["call_value"].as_u64().unwrap_or(0);
        let call =
            ContractCall { from, to: Some(contract), sun, data: calldata(request)?, limit: CONSTANT_LIMIT, factor };
        Some(vm::run(&mut state.vm, call, self.model.head().header.timestamp, self.top, false))
    }

    fn constant(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let Some(execution) = self.simulate(request, encoding) else { return no_contract(encoding) };
        let mut result = json!({ "result": true });
        let mut ret = json!({});
        if execution.status != ExecutionStatus::Success {
            result["message"] = json!(encoding.text("REVERT opcode executed"));
            ret["ret"] = json!("FAILED");
        }
        let mut transaction = self.call_transaction(request, encoding).unwrap_or_default();
        transaction["ret"] = json!([ret]);
        without_defaults(json!({
            "result": result,
            "energy_used": execution.energy,
            "energy_penalty": execution.penalty,
            "constant_result": [const_hex::encode(&execution.output)],
            "transaction": transaction,
        }))
    }

    fn estimate(&self, request: &Value, encoding: JsonEncoding) -> Value {
        match self.simulate(request, encoding) {
            Some(execution) if execution.status == ExecutionStatus::Success => {
                json!({ "result": { "result": true }, "energy_required": execution.energy })
            }
            Some(_) => {
                json!({ "result": { "code": "CONTRACT_EXE_ERROR", "message": encoding.text("REVERT opcode executed") } })
            }
            None => no_contract(encoding),
        }
    }

    /// Returns the unsigned transaction of a call, or `None` when the request is invalid.
    fn call_transaction(&self, request: &Value, encoding: JsonEncoding) -> Option<Value> {
        let bytes = |field: &str| {
            encoding.parse_address(&request[field]).map(|address| address::to_bytes(AddressKey(address.0.0)))
        };
        let value = TriggerSmartContract {
            owner_address: bytes("owner_address")?,
            contract_address: bytes("contract_address")?,
            call_value: request["call_value"].as_i64().unwrap_or(0),
            data: calldata(request)?,
        };
        let fee_limit = request["fee_limit"].as_i64().unwrap_or(0);
        Some(self.unsigned_transaction(
            "TriggerSmartContract",
            ContractType::TriggerSmart,
            value.encode_to_vec(),
            fee_limit,
            encoding,
        ))
    }

    fn unsigned_transaction(
        &self,
        name: &str,
        kind: ContractType,
        value: Vec<u8>,
        fee_limit: i64,
        encoding: JsonEncoding,
    ) -> Value {
        let head = self.model.head();
        let parameter = Some(proto::Any { type_url: format!("{TYPE_URL}{name}"), value });
        let message = proto::TransactionRaw {
            ref_block_bytes: height_of(head).to_be_bytes()[6..].to_vec(),
            ref_block_hash: head.id[8..16].to_vec(),
            expiration: head.header.timestamp + 60_000,
            contract: vec![proto::Contract { r#type: i32::from(kind), parameter, permission_id: 0 }],
            timestamp: head.header.timestamp,
            fee_limit,
            ..proto::TransactionRaw::default()
        };
        let raw = message.encode_to_vec();
        encoding.unsigned(&message, &raw, &transaction::txid(&raw).0)
    }

    fn trigger(&self, request: &Value, encoding: JsonEncoding) -> Value {
        match self.call_transaction(request, encoding) {
            Some(transaction) => json!({ "result": { "result": true }, "transaction": transaction }),
            None => no_contract(encoding),
        }
    }

    fn transfer(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let bytes = |field: &str| {
            encoding.parse_address(&request[field]).map(|address| address::to_bytes(AddressKey(address.0.0)))
        };
        let (Some(owner_address), Some(to_address)) = (bytes("owner_address"), bytes("to_address")) else {
            return json!({ "Error": "class org.tron.core.exception.ContractValidateException : Invalid address" });
        };
        let amount = request["amount"].as_i64().unwrap_or(0);
        let value = proto::TransferContract { owner_address, to_address, amount }.encode_to_vec();
        self.unsigned_transaction("TransferContract", ContractType::Transfer, value, 0, encoding)
    }

    fn broadcast_hex(&mut self, request: &Value) -> Value {
        let bytes = request["transaction"].as_str().and_then(|text| const_hex::decode(text).ok());
        let signed = bytes.and_then(|bytes| proto::Transaction::decode(bytes.as_slice()).ok());
        let Some(signed) = signed else { return json!({ "code": "OTHER_ERROR", "message": "not a transaction" }) };
        let raw = signed.raw_data.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let txid = const_hex::encode(transaction::txid(&raw).0);
        match self.model.accept(&signed, raw) {
            Ok(_) => json!({ "result": true, "code": "SUCCESS", "message": "", "txid": txid }),
            Err((code, message)) => json!({ "result": false, "code": code, "message": message, "txid": txid }),
        }
    }

    fn broadcast(&mut self, request: &Value, encoding: JsonEncoding) -> Value {
        let Some(message) = encoding.parse_transaction(request) else {
            return json!({ "Error": "class org.tron.json.JSONException : not a transaction" });
        };
        let signature = request["signature"].as_array().into_iter().flatten();
        let signature = signature.filter_map(|text| const_hex::decode(text.as_str()?).ok()).collect();
        let raw = message.encode_to_vec();
        let signed = proto::Transaction { raw_data: Some(message), signature, ret: Vec::new() };
        let txid = const_hex::encode(transaction::txid(&raw).0);
        match self.model.accept(&signed, raw) {
            Ok(_) => json!({ "result": true, "txid": txid }),
            Err((code, message)) => refused(&(code, message), &txid, encoding),
        }
    }

    fn sign_weight(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let Some(message) = encoding.parse_transaction(request) else {
            return json!({ "result": { "code": "OTHER_ERROR" } });
        };
        let raw = message.encode_to_vec();
        let txid = transaction::txid(&raw).0;
        let address = message.contract.first().and_then(owner);
        let exists = address.filter(|address| self.model.state.accounts.contains_key(address));
        json!({
            "result": { "code": "NOT_ENOUGH_PERMISSION" },
            "permission": exists.map(|address| permission(encoding, address)),
            "transaction": { "result": { "result": true }, "txid": const_hex::encode(txid),
                "transaction": encoding.unsigned(&message, &raw, &txid) },
        })
    }

    fn pending(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let found = self.model.pending.iter().find(|tx| request["value"] == const_hex::encode(tx.txid));
        found.map_or(json!({}), |tx| encoding.transaction(tx))
    }

    fn node_info(&self) -> Value {
        let block_text = |height: u64| {
            let id = self.model.block(height).map(|block| const_hex::encode(block.id)).unwrap_or_default();
            format!("Num:{height},ID:{id}")
        };
        json!({
            "block": block_text(self.model.head_height()),
            "solidityBlock": block_text(self.model.solid_height()),
            "configNodeInfo": { "codeVersion": "4.8.2" },
        })
    }
}

fn refused((code, message): &BroadcastRefusal, txid: &str, encoding: JsonEncoding) -> Value {
    json!({ "code": code, "message": encoding.text(message), "txid": txid })
}

fn no_contract(encoding: JsonEncoding) -> Value {
    let message = "class org.tron.core.exception.ContractValidateException : No contract or not a valid smart contract";
    json!({ "result": { "code": "OTHER_ERROR", "message": encoding.text(message) } })
}

fn permission(encoding: JsonEncoding, address: Address) -> Value {
    json!({ "permission_name": "owner", "threshold": 1, "keys": [{ "address": encoding.address(address), "weight": 1 }] })
}

/// Returns the call data of a request: the field `data`, or the selector of `function_selector` followed by `parameter`.
fn calldata(request: &Value) -> Option<Vec<u8>> {
    if let Some(data) = request["data"].as_str() {
        return const_hex::decode(data).ok();
    }
    let selector = keccak256(request["function_selector"].as_str()?)[..4].to_vec();
    let parameter = const_hex::decode(request["parameter"].as_str().unwrap_or_default()).ok()?;
    Some([selector, parameter].concat())
}

/// Parses a number or a string of digits; the query of a GET request contains strings only.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
