//! The JSON of blocks, transactions and receipts, in both forms of java-tron: hexadecimal, or with `visible` addresses and
//! texts. Fields with default values are left out.

use alloy_primitives::Address;
use chain::{AddressKey, address::encode_tron_address};
use prost::Message;
use serde_json::{Map, Value, json};
use tron::{
    address,
    proto::{
        self, ContractRet, ContractType, DelegateResourceContract, TYPE_URL, TransferContract, TriggerSmartContract,
        UnDelegateResourceContract,
    },
};

use crate::{
    model::{Block, BroadcastTransaction, IncludedTransaction, Receipt},
    state::FeeSchedule,
};

/// The form of addresses and texts in JSON.
#[derive(Debug, Clone, Copy)]
pub struct JsonEncoding {
    /// True for Base58Check addresses and plain texts, false for hexadecimal ones.
    pub visible: bool,
}

impl JsonEncoding {
    /// Returns the form that the field `visible` of a request selects.
    pub fn requested_by(request: &Value) -> JsonEncoding {
        let visible = &request["visible"];
        JsonEncoding { visible: visible.as_bool().unwrap_or(visible == "true") }
    }

    /// Returns an address in this form.
    pub fn format_address(self, address: Address) -> String {
        let key = AddressKey(address.0.0);
        if self.visible { encode_tron_address(key).text } else { address::to_prefixed_hex(key) }
    }

    fn format_bytes(self, bytes: &[u8]) -> Value {
        let key = address::parse_prefixed_bytes(bytes);
        key.map_or_else(|| json!(const_hex::encode(bytes)), |key| json!(self.format_address(Address::from(key.0))))
    }

    /// Parses an address in either form, because clients of java-tron mix them.
    pub fn parse_address(self, text: &Value) -> Option<Address> {
        let text = text.as_str()?;
        let key = address::parse_hex_with_network_prefix(text)
            .or_else(|| address::parse_tron_address(text).ok().map(|address| address.key));
        key.map(|key| Address::from(key.0))
    }

    /// Returns a text in this form: plain or hexadecimal.
    pub fn format_text(self, text: &str) -> String {
        if self.visible { text.to_owned() } else { const_hex::encode(text) }
    }

    /// Returns the JSON of a block, with its transactions if `detail` is true.
    pub fn block_to_json(self, block: &Block, detail: bool) -> Value {
        let raw = &block.header;
        let header = remove_default_fields(json!({
            "number": raw.number,
            "timestamp": raw.timestamp,
            "txTrieRoot": const_hex::encode(&raw.tx_trie_root),
            "parentHash": const_hex::encode(&raw.parent_hash),
            "witness_address": self.format_bytes(&raw.witness_address),
            "version": raw.version,
        }));
        let mut answer = json!({
            "blockID": const_hex::encode(block.id),
            "block_header": { "raw_data": header, "witness_signature": "00".repeat(65) },
        });
        if detail && !block.included.is_empty() {
            answer["transactions"] = block.included.iter().map(|included| self.included_to_json(included)).collect();
        }
        answer
    }

    /// Returns the JSON of a transaction in a block.
    pub fn included_to_json(self, included: &IncludedTransaction) -> Value {
        let mut transaction = self.transaction_to_json(&included.tx);
        transaction["ret"] = json!([{ "contractRet": included.ret.json_name() }]);
        transaction
    }

    /// Returns the JSON of a broadcast transaction.
    pub fn transaction_to_json(self, tx: &BroadcastTransaction) -> Value {
        let signature: Vec<String> = tx.signature.iter().map(const_hex::encode).collect();
        let mut transaction = self.unsigned_to_json(&tx.message, &tx.raw, &tx.txid);
        transaction["signature"] = json!(signature);
        transaction
    }

    /// Returns the JSON of an unsigned transaction.
    pub fn unsigned_to_json(self, message: &proto::TransactionRaw, raw: &[u8], txid: &[u8; 32]) -> Value {
        let contracts: Vec<Value> = message.contract.iter().map(|contract| self.contract_to_json(contract)).collect();
        let memo = if self.visible {
            String::from_utf8_lossy(&message.data).into_owned()
        } else {
            const_hex::encode(&message.data)
        };
        let raw_data = remove_default_fields(json!({
            "contract": contracts,
            "ref_block_bytes": const_hex::encode(&message.ref_block_bytes),
            "ref_block_hash": const_hex::encode(&message.ref_block_hash),
            "expiration": message.expiration,
            "data": memo,
            "timestamp": message.timestamp,
            "fee_limit": message.fee_limit,
        }));
        json!({ "visible": self.visible, "txID": const_hex::encode(txid), "raw_data": raw_data, "raw_data_hex": const_hex::encode(raw) })
    }

    fn contract_to_json(self, contract: &proto::Contract) -> Value {
        let any = contract.parameter.clone().unwrap_or_default();
        let value = match ContractType::try_from(contract.r#type) {
            Ok(ContractType::Transfer) => TransferContract::decode(any.value.as_slice()).map(|c| json!({
                "owner_address": self.format_bytes(&c.owner_address), "to_address": self.format_bytes(&c.to_address), "amount": c.amount,
            })),
            Ok(ContractType::TriggerSmart) => TriggerSmartContract::decode(any.value.as_slice()).map(|c| json!({
                "owner_address": self.format_bytes(&c.owner_address), "contract_address": self.format_bytes(&c.contract_address),
                "call_value": c.call_value, "data": const_hex::encode(&c.data),
            })),
            Ok(ContractType::DelegateResource) => DelegateResourceContract::decode(any.value.as_slice()).map(|c| json!({
                "owner_address": self.format_bytes(&c.owner_address), "receiver_address": self.format_bytes(&c.receiver_address),
                "resource": resource_name(c.resource), "balance": c.balance, "lock": c.lock, "lock_period": c.lock_period,
            })),
            Ok(ContractType::UnDelegateResource) => {
                UnDelegateResourceContract::decode(any.value.as_slice()).map(|c| json!({
                    "owner_address": self.format_bytes(&c.owner_address), "receiver_address": self.format_bytes(&c.receiver_address),
                    "resource": resource_name(c.resource), "balance": c.balance,
                }))
            }
            Ok(ContractType::AccountCreate) | Err(_) => Ok(json!({})),
        };
        remove_default_fields(json!({
            "parameter": { "value": remove_default_fields(value.unwrap_or_default()), "type_url": any.type_url },
            "type": any.type_url.strip_prefix(TYPE_URL).unwrap_or_default(),
            "Permission_id": contract.permission_id,
        }))
    }

    /// Returns the JSON of a receipt.
    pub fn receipt_to_json(self, block: &Block, included: &IncludedTransaction) -> Value {
        let Receipt { fee, net_usage, net_fee, energy_usage, energy_fee, energy_total, penalty, .. } = included.receipt;
        let called = included.receipt.contract;
        let failed = included.ret != ContractRet::Success;
        let logs: Vec<Value> = included
            .receipt
            .logs
            .iter()
            .map(|log| {
                remove_default_fields(json!({
                    "address": if self.visible { self.format_address(log.address) } else { const_hex::encode(log.address) },
                    "topics": log.topics.iter().map(const_hex::encode).collect::<Vec<_>>(),
                    "data": const_hex::encode(&log.data),
                }))
            })
            .collect();
        let internal_transfers: Vec<Value> = included
            .receipt
            .internal_transfers
            .iter()
            .enumerate()
            .map(|(index, internal)| {
                remove_default_fields(json!({
                    "hash": const_hex::encode([included.tx.txid.as_slice(), &index.to_be_bytes()].concat()),
                    "caller_address": self.format_address(internal.from),
                    "transferTo_address": self.format_address(internal.to),
                    "callValueInfo": [remove_default_fields(json!({ "callValue": internal.sun }))],
                    "note": const_hex::encode(internal.note),
                    "rejected": internal.rejected,
                }))
            })
            .collect();
        remove_default_fields(json!({
            "id": const_hex::encode(included.tx.txid),
            "fee": fee,
            "blockNumber": block.header.number,
            "blockTimeStamp": block.header.timestamp,
            "contractResult": [const_hex::encode(&included.receipt.output)],
            "contract_address": called.map(|contract| self.format_address(contract)),
            "result": failed.then_some("FAILED"),
            "resMessage": included.receipt.message.as_deref().map(|message| self.format_text(message)),
            "receipt": remove_default_fields(json!({
                "net_usage": net_usage, "net_fee": net_fee, "energy_usage": energy_usage, "energy_fee": energy_fee,
                "energy_usage_total": energy_total, "energy_penalty_total": penalty,
                "result": called.map(|_| included.ret.json_name()),
            })),
            "log": logs,
            "internal_transactions": internal_transfers,
        }))
    }

    /// Parses a transaction from its JSON. `raw_data_hex` is ignored, as in java-tron.
    pub fn parse_transaction(self, transaction: &Value) -> Option<proto::TransactionRaw> {
        let raw = &transaction["raw_data"];
        let hex = |value: &Value| value.as_str().and_then(|text| const_hex::decode(text).ok());
        let contract =
            raw["contract"].as_array()?.iter().map(|contract| self.parse_contract(contract)).collect::<Option<_>>()?;
        let memo = raw["data"].as_str().unwrap_or_default();
        Some(proto::TransactionRaw {
            ref_block_bytes: hex(&raw["ref_block_bytes"])?,
            ref_block_hash: hex(&raw["ref_block_hash"])?,
            expiration: raw["expiration"].as_i64()?,
            data: if self.visible { memo.as_bytes().to_vec() } else { const_hex::decode(memo).ok()? },
            contract,
            timestamp: raw["timestamp"].as_i64().unwrap_or(0),
            fee_limit: raw["fee_limit"].as_i64().unwrap_or(0),
        })
    }

    fn parse_contract(self, contract: &Value) -> Option<proto::Contract> {
        let (name, value) = (contract["type"].as_str()?, &contract["parameter"]["value"]);
        let address_bytes = |field: &str| {
            self.parse_address(&value[field]).map(|address| address::to_prefixed_bytes(AddressKey(address.0.0)))
        };
        let number = |field: &str| value[field].as_i64().unwrap_or(0);
        let (kind, value) = match name {
            "TransferContract" => (
                ContractType::Transfer,
                TransferContract {
                    owner_address: address_bytes("owner_address")?,
                    to_address: address_bytes("to_address")?,
                    amount: number("amount"),
                }
                .encode_to_vec(),
            ),
            "TriggerSmartContract" => (
                ContractType::TriggerSmart,
                TriggerSmartContract {
                    owner_address: address_bytes("owner_address")?,
                    contract_address: address_bytes("contract_address")?,
                    call_value: number("call_value"),
                    data: const_hex::decode(value["data"].as_str().unwrap_or_default()).ok()?,
                }
                .encode_to_vec(),
            ),
            "DelegateResourceContract" => (
                ContractType::DelegateResource,
                DelegateResourceContract {
                    owner_address: address_bytes("owner_address")?,
                    resource: i32::from(value["resource"] == "ENERGY"),
                    balance: number("balance"),
                    receiver_address: address_bytes("receiver_address")?,
                    lock: value["lock"].as_bool().unwrap_or(false),
                    lock_period: number("lock_period"),
                }
                .encode_to_vec(),
            ),
            "UnDelegateResourceContract" => (
                ContractType::UnDelegateResource,
                UnDelegateResourceContract {
                    owner_address: address_bytes("owner_address")?,
                    resource: i32::from(value["resource"] == "ENERGY"),
                    balance: number("balance"),
                    receiver_address: address_bytes("receiver_address")?,
                }
                .encode_to_vec(),
            ),
            _ => return None,
        };
        let permission_id = i32::try_from(contract["Permission_id"].as_i64().unwrap_or(0)).ok()?;
        let parameter = Some(proto::Any { type_url: format!("{TYPE_URL}{name}"), value });
        Some(proto::Contract { r#type: i32::from(kind), parameter, permission_id })
    }
}

/// Returns the name of a resource. Bandwidth is the default value, so it is left out.
fn resource_name(code: i32) -> Option<&'static str> {
    (code == 1).then_some("ENERGY")
}

/// Returns the chain parameters (`getchainparameters`).
pub fn parameters(prices: &FeeSchedule) -> Value {
    let all = [
        ("getMaintenanceTimeInterval", 21_600_000),
        ("getTransactionFee", prices.bandwidth),
        ("getEnergyFee", prices.energy),
        ("getFreeNetLimit", prices.free_bandwidth),
        ("getCreateAccountFee", prices.new_account_bandwidth),
        ("getCreateNewAccountFeeInSystemContract", prices.new_account),
        ("getMemoFee", prices.memo),
        ("getMultiSignFee", 1_000_000),
        ("getMaxFeeLimit", prices.fee_limit_max),
        ("getAllowDelegateResource", 1),
    ];
    let parameter = |(key, value): (&str, u64)| remove_default_fields(json!({ "key": key, "value": value }));
    json!({ "chainParameter": all.into_iter().map(parameter).collect::<Vec<_>>() })
}

/// Removes the fields with default values, which protobuf does not encode.
pub fn remove_default_fields(object: Value) -> Value {
    let Value::Object(fields) = object else { return object };
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| is_set(value)).collect::<Map<_, _>>())
}
