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
    json::{JsonEncoding, parameters, remove_default_fields},
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
            ("getnowblock", _) => self.answer_block(self.top, true, encoding),
            ("getblock", _) => self.answer_named_block(request, encoding),
            ("getblockbynum", _) => {
                parse_number(&request["num"]).map_or(json!({}), |num| self.answer_block(num, true, encoding))
            }
            ("getblockbyid", _) => {
                self.answer_named_block(&json!({ "id_or_num": request["value"], "detail": true }), encoding)
            }
            ("getblockbylimitnext", _) => self.answer_range(request, encoding),
            ("gettransactioninfobyblocknum", _) => self.answer_receipts(request, encoding),
            ("gettransactionbyid", _) => {
                self.answer_for_transaction(request, |_, included| encoding.included_to_json(included))
            }
            ("gettransactioninfobyid", _) => {
                self.answer_for_transaction(request, |block, included| encoding.receipt_to_json(block, included))
            }
            ("getaccount", _) => self.answer_account(request, encoding),
            ("triggerconstantcontract", _) => self.answer_constant_call(request, encoding),
            ("estimateenergy", _) => self.answer_energy_estimate(request, encoding),
            ("getchainparameters", _) => parameters(&self.model.prices),
            ("getnodeinfo", false) => self.answer_node_info(),
            ("getaccountbalance", false) => self.answer_past_balance(request, encoding),
            ("getaccountresource", false) => self.answer_resources(request, encoding),
            ("getcontract" | "getcontractinfo", false) => self.answer_contract(method, request, encoding),
            ("triggersmartcontract", false) => self.answer_trigger(request, encoding),
            ("createtransaction", false) => self.answer_transfer(request, encoding),
            ("broadcasthex", false) => self.answer_broadcast_hex(request),
            ("broadcasttransaction", false) => self.answer_broadcast(request, encoding),
            ("getsignweight", false) => self.answer_sign_weight(request, encoding),
            ("gettransactionfrompending", false) => self.answer_pending(request, encoding),
            ("getpendingsize", false) => json!({ "pendingSize": self.model.pending.len() }),
            _ => json!({ "Error": "class java.lang.IllegalArgumentException : this API is unavailable due to config" }),
        }
    }

    fn answer_block(&self, height: u64, detail: bool, encoding: JsonEncoding) -> Value {
        let block = self.model.block(height).filter(|_| height <= self.top);
        block.map_or(json!({}), |block| encoding.block_to_json(block, detail))
    }

    fn answer_named_block(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let detail = request["detail"].as_bool().unwrap_or(false);
        let Some(name) = request["id_or_num"].as_str() else { return self.answer_block(self.top, detail, encoding) };
        if let Ok(height) = name.parse::<u64>() {
            return self.answer_block(height, detail, encoding);
        }
        let height = const_hex::decode_to_array::<_, 32>(name).ok();
        let height = height.map(|id| u64::from_be_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]));
        height.map_or(json!({}), |height| {
            let block = self.answer_block(height, detail, encoding);
            if block["blockID"] == name { block } else { json!({}) }
        })
    }

    fn answer_range(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let (Some(from), Some(to)) = (parse_number(&request["startNum"]), parse_number(&request["endNum"])) else {
            return json!({});
        };
        if from >= to || to - from > RANGE_MAX {
            return json!({});
        }
        let blocks: Vec<Value> =
            (from..to.min(self.top + 1)).map(|height| self.answer_block(height, true, encoding)).collect();
        if blocks.is_empty() { json!({}) } else { json!({ "block": blocks }) }
    }

    fn answer_receipts(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let height = parse_number(&request["num"]).filter(|height| *height <= self.top);
        let Some(block) = height.and_then(|height| self.model.block(height)) else { return json!([]) };
        block.included.iter().map(|included| encoding.receipt_to_json(block, included)).collect()
    }

    /// Returns the JSON that `show` makes of the requested transaction, or `{}` when the node does not have the
    /// transaction.
    fn answer_for_transaction(
        &self,
        request: &Value,
        show: impl Fn(&crate::model::Block, &crate::model::IncludedTransaction) -> Value,
    ) -> Value {
        let txid = request["value"].as_str().and_then(|text| const_hex::decode_to_array::<_, 32>(text).ok());
        let found = txid.and_then(|txid| self.model.find(&txid, self.top));
        found.map_or(json!({}), |(block, included)| show(block, included))
    }

    fn answer_account(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let state = self.model.state_at(self.top);
        let Some(address) = encoding.parse_address(&request["address"]) else { return json!({}) };
        let Some(account) = state.accounts.get(&address) else { return json!({}) };
        remove_default_fields(json!({
            "address": encoding.format_address(address),
            "balance": state.balance(address),
            "create_time": account.created_ms,
            "owner_permission": permission_json(encoding, address),
        }))
    }

    /// Answers like java-tron: a node without the history of balances returns no error but a balance of 0.
    fn answer_past_balance(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let address = encoding.parse_address(&request["account_identifier"]["address"]);
        let block = &request["block_identifier"];
        let Some((address, height)) = address.zip(parse_number(&block["number"])) else { return json!({}) };
        let id = self.model.block(height).filter(|_| height <= self.top).map(|block| const_hex::encode(block.id));
        if block["hash"].as_str() != id.as_deref() {
            let text = "number and hash do not match";
            return json!({ "Error": format!("class java.lang.IllegalArgumentException : {text}") });
        }
        let (changed, balance) = self.model.balance_after(address, height).unwrap_or((height, 0));
        let id = self.model.block(changed).map(|block| const_hex::encode(block.id));
        remove_default_fields(json!({ "balance": balance, "block_identifier": { "number": changed, "hash": id } }))
    }

    fn answer_resources(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let now = self.model.head().header.timestamp;
        let Some(address) = encoding.parse_address(&request["address"]) else { return json!({}) };
        let Some(account) = self.model.state.accounts.get(&address) else { return json!({}) };
        remove_default_fields(json!({
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

    fn answer_contract(&self, method: &str, request: &Value, encoding: JsonEncoding) -> Value {
        let address = encoding.parse_address(&request["value"]);
        let Some((address, metadata)) =
            address.and_then(|address| Some((address, self.model.contracts.get(&address)?)))
        else {
            return json!({});
        };
        if method == "getcontractinfo" {
            let factor = (metadata.factor > 0).then_some(metadata.factor * 10);
            return json!({ "contract_state": remove_default_fields(json!({ "energy_factor": factor })) });
        }
        json!({
            "contract_address": encoding.format_address(address),
            "origin_address": encoding.format_address(Address::ZERO),
            "name": metadata.name,
            "abi": { "entrys": metadata.abi },
            "consume_user_resource_percent": 100,
        })
    }

    fn simulate_call(&self, request: &Value, encoding: JsonEncoding) -> Option<Execution> {
        let from = encoding.parse_address(&request["owner_address"])?;
        let contract = encoding.parse_address(&request["contract_address"])?;
        let mut state = self.model.state_at(self.top).clone();
        if !state.is_contract(contract) {
            return None;
        }
        let factor = self.model.contracts.get(&contract).map_or(0, |metadata| metadata.factor);
        let sun = request["call_value"].as_u64().unwrap_or(0);
        let call = ContractCall {
            from,
            to: Some(contract),
            sun,
            data: parse_calldata(request)?,
            limit: CONSTANT_LIMIT,
            factor,
        };
        Some(vm::run_call(&mut state.vm, call, self.model.head().header.timestamp, self.top, false))
    }

    fn answer_constant_call(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let Some(execution) = self.simulate_call(request, encoding) else { return missing_contract_json(encoding) };
        let mut result = json!({ "result": true });
        let mut ret = json!({});
        if execution.status != ExecutionStatus::Success {
            result["message"] = json!(encoding.format_text("REVERT opcode executed"));
            ret["ret"] = json!("FAILED");
        }
        let mut transaction = self.build_call_transaction(request, encoding).unwrap_or_default();
        transaction["ret"] = json!([ret]);
        remove_default_fields(json!({
            "result": result,
            "energy_used": execution.energy,
            "energy_penalty": execution.penalty,
            "constant_result": [const_hex::encode(&execution.output)],
            "transaction": transaction,
        }))
    }

    fn answer_energy_estimate(&self, request: &Value, encoding: JsonEncoding) -> Value {
        match self.simulate_call(request, encoding) {
            Some(execution) if execution.status == ExecutionStatus::Success => {
                json!({ "result": { "result": true }, "energy_required": execution.energy })
            }
            Some(_) => {
                json!({ "result": { "code": "CONTRACT_EXE_ERROR", "message": encoding.format_text("REVERT opcode executed") } })
            }
            None => missing_contract_json(encoding),
        }
    }

    /// Returns the unsigned transaction of a call, or `None` when the request is invalid.
    fn build_call_transaction(&self, request: &Value, encoding: JsonEncoding) -> Option<Value> {
        let bytes = |field: &str| {
            encoding.parse_address(&request[field]).map(|address| address::to_prefixed_bytes(AddressKey(address.0.0)))
        };
        let value = TriggerSmartContract {
            owner_address: bytes("owner_address")?,
            contract_address: bytes("contract_address")?,
            call_value: request["call_value"].as_i64().unwrap_or(0),
            data: parse_calldata(request)?,
        };
        let fee_limit = request["fee_limit"].as_i64().unwrap_or(0);
        Some(self.build_unsigned_transaction(
            "TriggerSmartContract",
            ContractType::TriggerSmart,
            value.encode_to_vec(),
            fee_limit,
            encoding,
        ))
    }

    fn build_unsigned_transaction(
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
        encoding.unsigned_to_json(&message, &raw, &transaction::compute_txid(&raw).0)
    }

    fn answer_trigger(&self, request: &Value, encoding: JsonEncoding) -> Value {
        match self.build_call_transaction(request, encoding) {
            Some(transaction) => json!({ "result": { "result": true }, "transaction": transaction }),
            None => missing_contract_json(encoding),
        }
    }

    fn answer_transfer(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let bytes = |field: &str| {
            encoding.parse_address(&request[field]).map(|address| address::to_prefixed_bytes(AddressKey(address.0.0)))
        };
        let (Some(owner_address), Some(to_address)) = (bytes("owner_address"), bytes("to_address")) else {
            return json!({ "Error": "class org.tron.core.exception.ContractValidateException : Invalid address" });
        };
        let amount = request["amount"].as_i64().unwrap_or(0);
        let value = proto::TransferContract { owner_address, to_address, amount }.encode_to_vec();
        self.build_unsigned_transaction("TransferContract", ContractType::Transfer, value, 0, encoding)
    }

    fn answer_broadcast_hex(&mut self, request: &Value) -> Value {
        let bytes = request["transaction"].as_str().and_then(|text| const_hex::decode(text).ok());
        let signed = bytes.and_then(|bytes| proto::Transaction::decode(bytes.as_slice()).ok());
        let Some(signed) = signed else { return json!({ "code": "OTHER_ERROR", "message": "not a transaction" }) };
        let raw = signed.raw_data.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let txid = const_hex::encode(transaction::compute_txid(&raw).0);
        match self.model.accept(&signed, raw) {
            Ok(_) => json!({ "result": true, "code": "SUCCESS", "message": "", "txid": txid }),
            Err((code, message)) => json!({ "result": false, "code": code, "message": message, "txid": txid }),
        }
    }

    fn answer_broadcast(&mut self, request: &Value, encoding: JsonEncoding) -> Value {
        let Some(message) = encoding.parse_transaction(request) else {
            return json!({ "Error": "class org.tron.json.JSONException : not a transaction" });
        };
        let signature = request["signature"].as_array().into_iter().flatten();
        let signature = signature.filter_map(|text| const_hex::decode(text.as_str()?).ok()).collect();
        let raw = message.encode_to_vec();
        let signed = proto::Transaction { raw_data: Some(message), signature, ret: Vec::new() };
        let txid = const_hex::encode(transaction::compute_txid(&raw).0);
        match self.model.accept(&signed, raw) {
            Ok(_) => json!({ "result": true, "txid": txid }),
            Err((code, message)) => broadcast_rejection_json(&(code, message), &txid, encoding),
        }
    }

    fn answer_sign_weight(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let Some(message) = encoding.parse_transaction(request) else {
            return json!({ "result": { "code": "OTHER_ERROR" } });
        };
        let raw = message.encode_to_vec();
        let txid = transaction::compute_txid(&raw).0;
        let address = message.contract.first().and_then(owner);
        let exists = address.filter(|address| self.model.state.accounts.contains_key(address));
        json!({
            "result": { "code": "NOT_ENOUGH_PERMISSION" },
            "permission": exists.map(|address| permission_json(encoding, address)),
            "transaction": { "result": { "result": true }, "txid": const_hex::encode(txid),
                "transaction": encoding.unsigned_to_json(&message, &raw, &txid) },
        })
    }

    fn answer_pending(&self, request: &Value, encoding: JsonEncoding) -> Value {
        let found = self.model.pending.iter().find(|tx| request["value"] == const_hex::encode(tx.txid));
        found.map_or(json!({}), |tx| encoding.transaction_to_json(tx))
    }

    fn answer_node_info(&self) -> Value {
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

fn broadcast_rejection_json((code, message): &BroadcastRefusal, txid: &str, encoding: JsonEncoding) -> Value {
    json!({ "code": code, "message": encoding.format_text(message), "txid": txid })
}

fn missing_contract_json(encoding: JsonEncoding) -> Value {
    let message = "class org.tron.core.exception.ContractValidateException : No contract or not a valid smart contract";
    json!({ "result": { "code": "OTHER_ERROR", "message": encoding.format_text(message) } })
}

fn permission_json(encoding: JsonEncoding, address: Address) -> Value {
    json!({ "permission_name": "owner", "threshold": 1, "keys": [{ "address": encoding.format_address(address), "weight": 1 }] })
}

/// Returns the call data of a request: the field `data`, or the selector of `function_selector` followed by `parameter`.
fn parse_calldata(request: &Value) -> Option<Vec<u8>> {
    if let Some(data) = request["data"].as_str() {
        return const_hex::decode(data).ok();
    }
    let selector = keccak256(request["function_selector"].as_str()?)[..4].to_vec();
    let parameter = const_hex::decode(request["parameter"].as_str().unwrap_or_default()).ok()?;
    Some([selector, parameter].concat())
}

/// Parses a number or a string of digits; the query of a GET request contains strings only.
fn parse_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
