//! A TRON node for tests and development: the HTTP API of java-tron in front of a chain in memory.
//!
//! The node checks signatures, reference blocks and expirations, runs TRC20 contracts in a real EVM, and charges
//! bandwidth and energy, so transfers fail as they do on the real chain. This node and the driver use the same encoding
//! code, so tests with unchanged third-party clients (TronWeb, tronpy) verify both.

pub mod gateway;
pub mod state;
pub mod model;

mod api;
mod json;
mod jsonrpc;
mod vm;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use alloy_primitives::Address;
use chain::AddressKey;
use gateway::Gateway;
use model::{ChainModel, ContractMetadata};
use prost::Message;
use serde_json::{Value, json};
use tron::{
    address, proto,
    transaction::{self, Operation, TransactionParams},
};

/// The balance of a funded account, in sun.
const FUNDED_SUN: u64 = 1_000_000_000_000_000;
/// The fee limit of [`TronNode::send_operation`], in sun.
const FEE_LIMIT: i64 = 1_000_000_000;

/// A model chain. Gateways serve it over HTTP.
pub struct TronNode {
    model: Arc<Mutex<ChainModel>>,
    /// The timestamp of the last transaction, in unix milliseconds. Each new transaction gets a later timestamp,
    /// because two equal transactions would have the same id.
    clock: Mutex<i64>,
}

/// An account and its private key.
#[derive(Clone)]
pub struct FundedAccount {
    pub key: k256::ecdsa::SigningKey,
    pub account: AddressKey,
}

impl FundedAccount {
    /// Returns the account of a private key. It has no TRX before [`TronNode::fund_account`].
    pub fn new(secret: [u8; 32]) -> FundedAccount {
        let key = k256::ecdsa::SigningKey::from_slice(&secret).expect("the secret is a valid private key");
        FundedAccount { account: transaction::derive_account(key.verifying_key()), key }
    }

    /// Returns the Base58Check form of the address.
    pub fn address(&self) -> String {
        chain::address::encode_tron_address(self.account).text
    }
}

impl TronNode {
    /// Returns a chain with a genesis block at `genesis_ms`, in unix milliseconds. `chain_id` is the end of its id.
    pub fn new(chain_id: u32, genesis_ms: i64) -> TronNode {
        TronNode { model: Arc::new(Mutex::new(ChainModel::new(chain_id, genesis_ms))), clock: Mutex::new(genesis_ms) }
    }

    /// Locks the model chain.
    pub fn model(&self) -> MutexGuard<'_, ChainModel> {
        self.model.lock().expect("the lock is never poisoned: no code panics while holding it")
    }

    /// Opens a gateway on a free port of this machine.
    pub async fn start_gateway(&self) -> Gateway {
        self.start_gateway_at(0).await.expect("the machine has a free port")
    }

    /// Opens a gateway on a port of this machine.
    pub async fn start_gateway_at(&self, port: u16) -> io::Result<Gateway> {
        Gateway::start_on(self.model.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None).await
    }

    /// Opens a gateway whose requests need the key in the header `TRON-PRO-API-KEY`.
    pub async fn start_gateway_with_key(&self, key: &str) -> Gateway {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Gateway::start_on(self.model.clone(), address, Some(key.to_owned())).await.expect("the machine has a free port")
    }

    /// Activates an account and gives it a billion TRX.
    pub fn fund_account(&self, account: AddressKey) {
        self.set_balance(account, FUNDED_SUN);
    }

    /// Activates an account and sets its balance, in sun, without a transaction.
    pub fn set_balance(&self, account: AddressKey, sun: u64) {
        let address = Address::from(account.0);
        self.model().change_state(|state| {
            state.activate_account(address, 0);
            state.set_balance(address, sun);
        });
    }

    /// Sets the energy that an account has from stake, without a transaction.
    pub fn lend_energy(&self, account: AddressKey, energy: u64) {
        let address = Address::from(account.0);
        self.model().change_state(|state| {
            if let Some(account) = state.accounts.get_mut(&address) {
                account.energy_limit = energy;
            }
        });
    }

    /// Deploys a compiled contract and returns its address. `factor` is its energy penalty, in thousandths of the energy.
    pub fn deploy_contract(
        &self,
        owner: &FundedAccount,
        name: &str,
        abi: &Value,
        code: &[u8],
        factor: u64,
    ) -> AddressKey {
        let metadata = ContractMetadata { name: name.to_owned(), abi: java_tron_abi(abi), factor };
        AddressKey(self.model().deploy(Address::from(owner.account.0), code.to_vec(), metadata).0.0)
    }

    /// Produces a number of blocks, the first not before `at_least_ms`, in unix milliseconds.
    pub fn produce_blocks(&self, blocks: u64, at_least_ms: i64) {
        let mut model = self.model();
        for _ in 0..blocks {
            model.produce_block(at_least_ms);
        }
    }

    /// Broadcasts a transaction of a funded account and returns its id. It is pending until the next block.
    ///
    /// # Panics
    ///
    /// Panics when the node rejects the transaction.
    pub fn send_operation(&self, from: &FundedAccount, operation: &Operation) -> [u8; 32] {
        self.try_send_operation(from, operation, FEE_LIMIT)
            .unwrap_or_else(|(code, message)| panic!("{code}: {message}"))
    }

    /// Broadcasts a transaction with a fee limit in sun and returns its id.
    ///
    /// # Errors
    ///
    /// Fails with the code and the message of java-tron when the node rejects the transaction.
    pub fn try_send_operation(
        &self,
        from: &FundedAccount,
        operation: &Operation,
        fee_limit: i64,
    ) -> Result<[u8; 32], model::BroadcastRefusal> {
        let mut model = self.model();
        let timestamp = {
            let mut clock = self.clock.lock().expect("the lock is never poisoned: no code panics while holding it");
            *clock += 1;
            *clock
        };
        let solid = model.block(model.solid_height()).expect("the chain has a solidified block").clone();
        let reference = chain::BlockRef { height: model::height_of(&solid), hash: chain::BlockHash(solid.id) };
        let expiration = model.head().header.timestamp + 300_000;
        let limit = if matches!(operation, Operation::Trigger { .. }) { fee_limit } else { 0 };
        let params = TransactionParams::without_fee_limit(reference, expiration, timestamp).with_fee_limit(limit);
        let signed = transaction::build_transaction(from.account, operation, &params)
            .sign_if_owner(&from.key)
            .expect("the key is that of the owner");
        let message =
            proto::Transaction::decode(signed.bytes.as_slice()).expect("the transaction was encoded by this crate");
        let raw = message.raw_data.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        model.accept(&message, raw)
    }

    /// Makes a pending transaction run out of time when its block is produced.
    pub fn force_out_of_time(&self, txid: [u8; 32]) {
        self.model().forced_out_of_time.insert(txid);
    }
}

/// Converts an ABI of the compiler to the form of java-tron, which capitalises types and mutabilities and omits errors.
fn java_tron_abi(abi: &Value) -> Value {
    let capitalised = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        let mut letters = text.chars();
        json!(letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()))
    };
    let entry = |entry: &Value| {
        let mut entry = entry.clone();
        entry["type"] = capitalised(&entry["type"]);
        if entry["stateMutability"].is_string() {
            entry["stateMutability"] = capitalised(&entry["stateMutability"]);
        }
        entry
    };
    abi.as_array().into_iter().flatten().filter(|item| item["type"] != "error").map(entry).collect()
}

/// Returns the hexadecimal form of an address in the node's JSON.
pub fn to_node_hex(address: AddressKey) -> String {
    address::to_prefixed_hex(address)
}
