//! The HTTP interface: one function from a path and a question to an answer, on one of the two views.

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

/// Energy of a call that is only looked at.
const CONSTANT_LIMIT: u64 = 100_000_000;
const RANGE_MAX: u64 = 100;

/// What a question is asked of: the model as a node at some height shows it.
pub struct NodeApi<'a> {
    pub model: &'a mut ChainModel,
    /// The newest block that this view has.
    pub top: u64,
    pub solid: bool,
}

impl NodeApi<'_> {
    pub fn answer(&mut self, call: &str, question: &Value) -> Value {
        let spelling = JsonEncoding::of(question);
        match (call, self.solid) {
            ("getnowblock", _) => self.block(self.top, true, spelling),
            ("getblock", _) => self.named_block(question, spelling),
            ("getblockbynum", _) => number(&question["num"]).map_or(json!({}), |num| self.block(num, true, spelling)),
            ("getblockbyid", _) => {
                self.named_block(&json!({ "id_or_num": question["value"], "detail": true }), spelling)
            }
            ("getblockbylimitnext", _) => self.range(question, spelling),
            ("gettransactioninfobyblocknum", _) => self.infos(question, spelling),
            ("gettransactionbyid", _) => self.of_transaction(question, |_, included| spelling.included(included)),
            ("gettransactioninfobyid", _) => {
                self.of_transaction(question, |block, included| spelling.info(block, included))
            }
            ("getaccount", _) => self.account(question, spelling),
            ("triggerconstantcontract", _) => self.constant(question, spelling),
            ("estimateenergy", _) => self.estimate(question, spelling),
            ("getchainparameters", _) => parameters(&self.model.prices),
            ("getnodeinfo", false) => self.node_info(),
            ("getaccountbalance", false) => self.past_balance(question, spelling),
            ("getaccountresource", false) => self.resources(question, spelling),
            ("getcontract" | "getcontractinfo", false) => self.contract(call, question, spelling),
            ("triggersmartcontract", false) => self.trigger(question, spelling),
            ("createtransaction", false) => self.transfer(question, spelling),
            ("broadcasthex", false) => self.broadcast_hex(question),
            ("broadcasttransaction", false) => self.broadcast(question, spelling),
            ("getsignweight", false) => self.sign_weight(question, spelling),
            ("gettransactionfrompending", false) => self.pending(question, spelling),
            ("getpendingsize", false) => json!({ "pendingSize": self.model.pending.len() }),
            _ => json!({ "Error": "class java.lang.IllegalArgumentException : this API is unavailable due to config" }),
        }
    }

    fn block(&self, height: u64, detail: bool, spelling: JsonEncoding) -> Value {
        let block = self.model.block(height).filter(|_| height <= self.top);
        block.map_or(json!({}), |block| spelling.block(block, detail))
    }

    fn named_block(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let detail = question["detail"].as_bool().unwrap_or(false);
        let Some(name) = question["id_or_num"].as_str() else { return self.block(self.top, detail, spelling) };
        if let Ok(height) = name.parse::<u64>() {
            return self.block(height, detail, spelling);
        }
        let height = const_hex::decode_to_array::<_, 32>(name).ok();
        let height = height.map(|id| u64::from_be_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]));
        height.map_or(json!({}), |height| {
            let block = self.block(height, detail, spelling);
            if block["blockID"] == name { block } else { json!({}) }
        })
    }

    fn range(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let (Some(from), Some(to)) = (number(&question["startNum"]), number(&question["endNum"])) else {
            return json!({});
        };
        if from >= to || to - from > RANGE_MAX {
            return json!({});
        }
        let blocks: Vec<Value> =
            (from..to.min(self.top + 1)).map(|height| self.block(height, true, spelling)).collect();
        if blocks.is_empty() { json!({}) } else { json!({ "block": blocks }) }
    }

    fn infos(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let height = number(&question["num"]).filter(|height| *height <= self.top);
        let Some(block) = height.and_then(|height| self.model.block(height)) else { return json!([]) };
        block.included.iter().map(|included| spelling.info(block, included)).collect()
    }

    fn of_transaction(
        &self,
        question: &Value,
        show: impl Fn(&crate::model::Block, &crate::model::IncludedTransaction) -> Value,
    ) -> Value {
        let txid = question["value"].as_str().and_then(|text| const_hex::decode_to_array::<_, 32>(text).ok());
        let found = txid.and_then(|txid| self.model.find(&txid, self.top));
        found.map_or(json!({}), |(block, included)| show(block, included))
    }

    fn account(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let state = self.model.state_at(self.top);
        let Some(of) = spelling.read(&question["address"]) else { return json!({}) };
        let Some(account) = state.accounts.get(&of) else { return json!({}) };
        without_defaults(json!({
            "address": spelling.address(of),
            "balance": state.balance(of),
            "create_time": account.created_ms,
            "owner_permission": permission(spelling, of),
        }))
    }

    /// As java-tron does it: a node that keeps no history says nothing of that, but that there is nothing.
    fn past_balance(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let of = spelling.read(&question["account_identifier"]["address"]);
        let asked = &question["block_identifier"];
        let Some((of, height)) = of.zip(number(&asked["number"])) else { return json!({}) };
        let id = self.model.block(height).filter(|_| height <= self.top).map(|block| const_hex::encode(block.id));
        if asked["hash"].as_str() != id.as_deref() {
            let text = "number and hash do not match";
            return json!({ "Error": format!("class java.lang.IllegalArgumentException : {text}") });
        }
        let (changed, balance) = self.model.balance_after(of, height).unwrap_or((height, 0));
        let id = self.model.block(changed).map(|block| const_hex::encode(block.id));
        without_defaults(json!({ "balance": balance, "block_identifier": { "number": changed, "hash": id } }))
    }

    fn resources(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let now = self.model.head().header.timestamp;
        let Some(of) = spelling.read(&question["address"]) else { return json!({}) };
        let Some(account) = self.model.state.accounts.get(&of) else { return json!({}) };
        without_defaults(json!({
            "freeNetUsed": account.free_bandwidth.now(now),
            "freeNetLimit": self.model.prices.free_bandwidth,
            "EnergyUsed": account.energy.now(now),
            "EnergyLimit": account.energy_limit,
            "TotalNetLimit": 43_200_000_000_u64,
            "TotalNetWeight": 26_000_000_000_u64,
            "TotalEnergyLimit": TOTAL_ENERGY,
            "TotalEnergyWeight": TOTAL_STAKED,
        }))
    }

    fn contract(&self, call: &str, question: &Value, spelling: JsonEncoding) -> Value {
        let of = spelling.read(&question["value"]);
        let Some((of, published)) = of.and_then(|of| Some((of, self.model.published.get(&of)?))) else {
            return json!({});
        };
        if call == "getcontractinfo" {
            let factor = (published.factor > 0).then_some(published.factor * 10);
            return json!({ "contract_state": without_defaults(json!({ "energy_factor": factor })) });
        }
        json!({
            "contract_address": spelling.address(of),
            "origin_address": spelling.address(Address::ZERO),
            "name": published.name,
            "abi": { "entrys": published.abi },
            "consume_user_resource_percent": 100,
        })
    }

    fn simulate(&self, question: &Value, spelling: JsonEncoding) -> Option<Execution> {
        let from = spelling.read(&question["owner_address"])?;
        let contract = spelling.read(&question["contract_address"])?;
        let mut state = self.model.state_at(self.top).clone();
        if !state.is_contract(contract) {
            return None;
        }
        let factor = self.model.published.get(&contract).map_or(0, |published| published.factor);
        let sun = question["call_value"].as_u64().unwrap_or(0);
        let call =
            ContractCall { from, to: Some(contract), sun, data: calldata(question)?, limit: CONSTANT_LIMIT, factor };
        Some(vm::run(&mut state.vm, call, self.model.head().header.timestamp, self.top, false))
    }

    fn constant(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let Some(ran) = self.simulate(question, spelling) else { return no_contract(spelling) };
        let mut result = json!({ "result": true });
        let mut ret = json!({});
        if ran.end != ExecutionStatus::Success {
            result["message"] = json!(spelling.text("REVERT opcode executed"));
            ret["ret"] = json!("FAILED");
        }
        let mut transaction = self.intent(question, spelling).unwrap_or_default();
        transaction["ret"] = json!([ret]);
        without_defaults(json!({
            "result": result,
            "energy_used": ran.energy,
            "energy_penalty": ran.penalty,
            "constant_result": [const_hex::encode(&ran.output)],
            "transaction": transaction,
        }))
    }

    fn estimate(&self, question: &Value, spelling: JsonEncoding) -> Value {
        match self.simulate(question, spelling) {
            Some(ran) if ran.end == ExecutionStatus::Success => {
                json!({ "result": { "result": true }, "energy_required": ran.energy })
            }
            Some(_) => {
                json!({ "result": { "code": "CONTRACT_EXE_ERROR", "message": spelling.text("REVERT opcode executed") } })
            }
            None => no_contract(spelling),
        }
    }

    /// The transaction that a call would be.
    fn intent(&self, question: &Value, spelling: JsonEncoding) -> Option<Value> {
        let bytes = |field: &str| spelling.read(&question[field]).map(|of| address::to_bytes(AddressKey(of.0.0)));
        let value = TriggerSmartContract {
            owner_address: bytes("owner_address")?,
            contract_address: bytes("contract_address")?,
            call_value: question["call_value"].as_i64().unwrap_or(0),
            data: calldata(question)?,
        };
        let fee_limit = question["fee_limit"].as_i64().unwrap_or(0);
        Some(self.framed(
            "TriggerSmartContract",
            ContractType::TriggerSmart,
            value.encode_to_vec(),
            fee_limit,
            spelling,
        ))
    }

    fn framed(&self, name: &str, kind: ContractType, value: Vec<u8>, fee_limit: i64, spelling: JsonEncoding) -> Value {
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
        spelling.unsigned(&message, &raw, &transaction::txid(&raw).0)
    }

    fn trigger(&self, question: &Value, spelling: JsonEncoding) -> Value {
        match self.intent(question, spelling) {
            Some(transaction) => json!({ "result": { "result": true }, "transaction": transaction }),
            None => no_contract(spelling),
        }
    }

    fn transfer(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let bytes = |field: &str| spelling.read(&question[field]).map(|of| address::to_bytes(AddressKey(of.0.0)));
        let (Some(owner_address), Some(to_address)) = (bytes("owner_address"), bytes("to_address")) else {
            return json!({ "Error": "class org.tron.core.exception.ContractValidateException : Invalid address" });
        };
        let amount = question["amount"].as_i64().unwrap_or(0);
        let value = proto::TransferContract { owner_address, to_address, amount }.encode_to_vec();
        self.framed("TransferContract", ContractType::Transfer, value, 0, spelling)
    }

    fn broadcast_hex(&mut self, question: &Value) -> Value {
        let bytes = question["transaction"].as_str().and_then(|text| const_hex::decode(text).ok());
        let signed = bytes.and_then(|bytes| proto::Transaction::decode(bytes.as_slice()).ok());
        let Some(signed) = signed else { return json!({ "code": "OTHER_ERROR", "message": "not a transaction" }) };
        let raw = signed.raw_data.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let txid = const_hex::encode(transaction::txid(&raw).0);
        match self.model.accept(&signed, raw) {
            Ok(_) => json!({ "result": true, "code": "SUCCESS", "message": "", "txid": txid }),
            Err((code, message)) => json!({ "result": false, "code": code, "message": message, "txid": txid }),
        }
    }

    fn broadcast(&mut self, question: &Value, spelling: JsonEncoding) -> Value {
        let Some(message) = spelling.message(question) else {
            return json!({ "Error": "class org.tron.json.JSONException : not a transaction" });
        };
        let signature = question["signature"].as_array().into_iter().flatten();
        let signature = signature.filter_map(|text| const_hex::decode(text.as_str()?).ok()).collect();
        let raw = message.encode_to_vec();
        let signed = proto::Transaction { raw_data: Some(message), signature, ret: Vec::new() };
        let txid = const_hex::encode(transaction::txid(&raw).0);
        match self.model.accept(&signed, raw) {
            Ok(_) => json!({ "result": true, "txid": txid }),
            Err((code, message)) => refused(&(code, message), &txid, spelling),
        }
    }

    fn sign_weight(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let Some(message) = spelling.message(question) else { return json!({ "result": { "code": "OTHER_ERROR" } }) };
        let raw = message.encode_to_vec();
        let txid = transaction::txid(&raw).0;
        let of = message.contract.first().and_then(owner);
        let exists = of.filter(|of| self.model.state.accounts.contains_key(of));
        json!({
            "result": { "code": "NOT_ENOUGH_PERMISSION" },
            "permission": exists.map(|of| permission(spelling, of)),
            "transaction": { "result": { "result": true }, "txid": const_hex::encode(txid),
                "transaction": spelling.unsigned(&message, &raw, &txid) },
        })
    }

    fn pending(&self, question: &Value, spelling: JsonEncoding) -> Value {
        let found = self.model.pending.iter().find(|tx| question["value"] == const_hex::encode(tx.txid));
        found.map_or(json!({}), |tx| spelling.transaction(tx))
    }

    fn node_info(&self) -> Value {
        let named = |height: u64| {
            let id = self.model.block(height).map(|block| const_hex::encode(block.id)).unwrap_or_default();
            format!("Num:{height},ID:{id}")
        };
        json!({
            "block": named(self.model.head_height()),
            "solidityBlock": named(self.model.solid_height()),
            "configNodeInfo": { "codeVersion": "4.8.2" },
        })
    }
}

fn refused((code, message): &BroadcastRefusal, txid: &str, spelling: JsonEncoding) -> Value {
    json!({ "code": code, "message": spelling.text(message), "txid": txid })
}

fn no_contract(spelling: JsonEncoding) -> Value {
    let message = "class org.tron.core.exception.ContractValidateException : No contract or not a valid smart contract";
    json!({ "result": { "code": "OTHER_ERROR", "message": spelling.text(message) } })
}

fn permission(spelling: JsonEncoding, of: Address) -> Value {
    json!({ "permission_name": "owner", "threshold": 1, "keys": [{ "address": spelling.address(of), "weight": 1 }] })
}

/// `data`, or the selector of `function_selector` with `parameter`.
fn calldata(question: &Value) -> Option<Vec<u8>> {
    if let Some(data) = question["data"].as_str() {
        return const_hex::decode(data).ok();
    }
    let selector = keccak256(question["function_selector"].as_str()?)[..4].to_vec();
    let parameter = const_hex::decode(question["parameter"].as_str().unwrap_or_default()).ok()?;
    Some([selector, parameter].concat())
}

/// A number, or the text of one: queries of GET have texts only.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
