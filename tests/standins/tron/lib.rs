//! A TRON node for tests and development: the HTTP interface of java-tron over a chain in memory.
//!
//! Transactions are real protobuf with real signatures, hold_pending to their reference block and expiration; TRC20 runs in a real
//! EVM; bandwidth and energy are charged so that transfers fail as they do on the chain. What this node believes of
//! encodings it believes with the driver: unchanged clients (TronWeb, tronpy) are the judges of both.

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

/// Sun that rich accounts begin with.
const PLENTY: u64 = 1_000_000_000_000_000;
/// Of the transactions that the node's own helpers make.
const FEE_LIMIT: i64 = 1_000_000_000;

/// A chain with its gateways.
pub struct TronNode {
    model: Arc<Mutex<ChainModel>>,
    /// Makes equal transactions different.
    clock: Mutex<i64>,
}

/// A key of the tests, and its account.
#[derive(Clone)]
pub struct FundedAccount {
    pub key: k256::ecdsa::SigningKey,
    pub account: AddressKey,
}

impl FundedAccount {
    /// The key with this secret.
    pub fn new(secret: [u8; 32]) -> FundedAccount {
        let key = k256::ecdsa::SigningKey::from_slice(&secret).expect("a secret of a test is a key");
        FundedAccount { account: transaction::account_of(key.verifying_key()), key }
    }

    pub fn text(&self) -> String {
        chain::derive::tron_address(self.account).text
    }
}

impl TronNode {
    /// A chain that begins at a time in unix milliseconds.
    pub fn new(chain_id: u32, genesis_ms: i64) -> TronNode {
        TronNode { model: Arc::new(Mutex::new(ChainModel::new(chain_id, genesis_ms))), clock: Mutex::new(genesis_ms) }
    }

    pub fn model(&self) -> MutexGuard<'_, ChainModel> {
        self.model.lock().expect("no holder panics")
    }

    /// At a free port of this machine.
    pub async fn gateway(&self) -> Gateway {
        self.gateway_at(0).await.expect("a free port")
    }

    pub async fn gateway_at(&self, port: u16) -> io::Result<Gateway> {
        Gateway::open(self.model.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None).await
    }

    /// Its requests need the key in `TRON-PRO-API-KEY`.
    pub async fn gateway_with_key(&self, key: &str) -> Gateway {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Gateway::open(self.model.clone(), address, Some(key.to_owned())).await.expect("a free port")
    }

    /// Activates an account and gives it a billion TRX.
    pub fn fund(&self, account: AddressKey) {
        self.set_balance(account, PLENTY);
    }

    /// Activates an account and sets its balance, in sun, without a transaction.
    pub fn set_balance(&self, account: AddressKey, sun: u64) {
        let of = Address::from(account.0);
        self.model().change_state(|state| {
            state.activate(of, 0);
            state.set_balance(of, sun);
        });
    }

    /// Lends energy.
    pub fn lend_energy(&self, account: AddressKey, energy: u64) {
        let of = Address::from(account.0);
        self.model().change_state(|state| {
            if let Some(account) = state.accounts.get_mut(&of) {
                account.energy_limit = energy;
            }
        });
    }

    /// Creates a contract from what the compiler made. `factor` is its penalty in thousandths.
    pub fn deploy(&self, owner: &FundedAccount, name: &str, abi: &Value, code: &[u8], factor: u64) -> AddressKey {
        let published = ContractMetadata { name: name.to_owned(), abi: entries(abi), factor };
        AddressKey(self.model().deploy(Address::from(owner.account.0), code.to_vec(), published).0.0)
    }

    /// So many blocks, the first not before a time in unix milliseconds.
    pub fn produce(&self, blocks: u64, at_least_ms: i64) {
        let mut model = self.model();
        for _ in 0..blocks {
            model.produce(at_least_ms);
        }
    }

    /// Broadcasts a transaction of a rich account; it waits for a block. Its id.
    pub fn send(&self, from: &FundedAccount, act: &Operation) -> [u8; 32] {
        self.try_send(from, act, FEE_LIMIT).unwrap_or_else(|(code, message)| panic!("{code}: {message}"))
    }

    /// The same with a fee limit in sun, which the node may refuse.
    pub fn try_send(
        &self,
        from: &FundedAccount,
        act: &Operation,
        fee_limit: i64,
    ) -> Result<[u8; 32], model::BroadcastRefusal> {
        let mut model = self.model();
        let timestamp = {
            let mut clock = self.clock.lock().expect("no holder panics");
            *clock += 1;
            *clock
        };
        let solid = model.block(model.solid_height()).expect("a solidified block").clone();
        let reference = chain::BlockRef { height: model::height_of(&solid), hash: chain::BlockHash(solid.id) };
        let expiration = model.head().header.timestamp + 300_000;
        let limit = if matches!(act, Operation::Trigger { .. }) { fee_limit } else { 0 };
        let frame = TransactionParams::new(reference, expiration, timestamp).with_fee_limit(limit);
        let signed = transaction::build(from.account, act, &frame).sign(&from.key).expect("the owner signs");
        let message = proto::Transaction::decode(signed.bytes.as_slice()).expect("it was encoded just now");
        let raw = message.raw_data.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        model.accept(&message, raw)
    }

    /// Runs the transaction out of time when its block is made.
    pub fn force_out_of_time(&self, txid: [u8; 32]) {
        self.model().doomed.insert(txid);
    }
}

/// The compiler's ABI in java-tron's words.
fn entries(abi: &Value) -> Value {
    let capital = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        let mut letters = text.chars();
        json!(letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()))
    };
    let entry = |entry: &Value| {
        let mut entry = entry.clone();
        entry["type"] = capital(&entry["type"]);
        if entry["stateMutability"].is_string() {
            entry["stateMutability"] = capital(&entry["stateMutability"]);
        }
        entry
    };
    abi.as_array().into_iter().flatten().filter(|item| item["type"] != "error").map(entry).collect()
}

/// The hex text of an account as the node's JSON has it.
pub fn hex(of: AddressKey) -> String {
    address::to_hex(of)
}
