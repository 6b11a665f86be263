//! The model chain: block producers take turns, the solidified block is the newest one on which 19 of 27 producers have
//! built, and transactions are checked in the order of java-tron before they are accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alloy_primitives::Address;
use prost::Message;
use sha2::{Digest, Sha256};
use tron::{
    proto::{
        self, ContractRet, ContractType, DelegateResourceContract, HeaderRaw, TransferContract, TriggerSmartContract,
        UnDelegateResourceContract,
    },
    transaction,
};

use crate::{
    state::{ChainState, FeeSchedule},
    vm::{self, ContractCall, ExecutionStatus, InternalCall, Log},
};

/// The time between two blocks, in milliseconds.
pub const BLOCK_MS: i64 = 3_000;
const PRODUCERS: usize = 27;
/// Among the newest blocks of all producers in ascending order, the index of the solidified one: all but eight producers
/// have built on it.
const SOLID_INDEX: usize = 8;
const DAY_MS: i64 = 86_400_000;
const SIZE_MAX: usize = 500 * 1024;
/// The number of newest blocks that a transaction may refer to.
const REFERENCES: u64 = 65_536;
const RESULT_BYTES: u64 = 64;

/// The code and the message of java-tron for a rejected broadcast.
pub type BroadcastRefusal = (&'static str, String);

/// The published metadata of a contract.
#[derive(Clone)]
pub struct ContractMetadata {
    pub name: String,
    /// The ABI in the form of java-tron.
    pub abi: serde_json::Value,
    /// The energy penalty, in thousandths of the energy.
    pub factor: u64,
}

/// A broadcast transaction.
#[derive(Clone)]
pub struct BroadcastTransaction {
    /// The serialised content, whose hash is the id.
    pub raw: Vec<u8>,
    pub message: proto::TransactionRaw,
    pub signature: Vec<Vec<u8>>,
    pub txid: [u8; 32],
    /// The bandwidth of the transaction.
    pub bytes: u64,
}

/// A transaction in a block, with its result.
#[derive(Clone)]
pub struct IncludedTransaction {
    pub tx: BroadcastTransaction,
    pub ret: ContractRet,
    pub receipt: Receipt,
}

/// The receipt of a transaction. Fees are in sun.
#[derive(Clone, Default)]
pub struct Receipt {
    pub fee: u64,
    pub net_usage: u64,
    pub net_fee: u64,
    pub energy_usage: u64,
    pub energy_fee: u64,
    pub energy_total: u64,
    pub penalty: u64,
    pub contract: Option<Address>,
    pub output: Vec<u8>,
    pub message: Option<String>,
    pub logs: Vec<Log>,
    pub internal_transfers: Vec<InternalCall>,
}

/// A block of the model chain.
#[derive(Clone)]
pub struct Block {
    pub id: [u8; 32],
    pub header: HeaderRaw,
    pub included: Vec<IncludedTransaction>,
}

/// A chain in memory, with the node that serves it.
pub struct ChainModel {
    blocks: Vec<Block>,
    pub state: ChainState,
    /// The state after each block from the solidified one on.
    states: BTreeMap<u64, ChainState>,
    pub pending: VecDeque<BroadcastTransaction>,
    known: BTreeSet<[u8; 32]>,
    /// The height of the newest block of each producer.
    latest: [u64; PRODUCERS],
    /// The number of producers that work, at most 27.
    pub producers: usize,
    /// The index of the next producer.
    turn: usize,
    pub prices: FeeSchedule,
    pub contracts: BTreeMap<Address, ContractMetadata>,
    /// Ids of transactions that will run out of time. Their receipts keep the logs of transfers that never happened.
    pub forced_out_of_time: BTreeSet<[u8; 32]>,
    /// True when the node accepts transactions but never includes them in a block.
    pub drop_broadcasts: bool,
    /// True when new blocks are empty and pending transactions stay pending.
    pub hold_pending: bool,
    /// True when the transaction pool is full, so the node rejects broadcasts.
    pub busy: bool,
    /// The number of peers. Without peers, the node rejects broadcasts.
    pub peers: usize,
    /// True when the node stores the history of balances (java-tron's default is false).
    pub history: bool,
    /// The balances of each account in sun, by the height at which they changed.
    balances: BTreeMap<(Address, u64), u64>,
    /// True when the node stores internal transactions (`vm.saveInternalTx`; java-tron's default is false).
    pub internal_transfers: bool,
    /// Number of blocks above the solidified block from which the node rejects broadcasts. `None`, the default of
    /// java-tron, disables this limit.
    pub unsolidified_max: Option<u64>,
}

impl ChainModel {
    /// Returns a chain with a genesis block at `genesis_ms`. `chain_id` is the end of its id.
    pub fn new(chain_id: u32, genesis_ms: i64) -> ChainModel {
        let mut id = [0u8; 32];
        id[28..].copy_from_slice(&chain_id.to_be_bytes());
        let header = HeaderRaw {
            timestamp: genesis_ms,
            tx_trie_root: vec![0; 32],
            parent_hash: vec![0; 32],
            ..HeaderRaw::default()
        };
        let mut model = ChainModel {
            blocks: vec![Block { id, header, included: Vec::new() }],
            state: ChainState::default(),
            states: BTreeMap::new(),
            pending: VecDeque::new(),
            known: BTreeSet::new(),
            latest: [0; PRODUCERS],
            producers: PRODUCERS,
            turn: 0,
            prices: FeeSchedule::default(),
            contracts: BTreeMap::new(),
            forced_out_of_time: BTreeSet::new(),
            drop_broadcasts: false,
            hold_pending: false,
            busy: false,
            peers: 5,
            unsolidified_max: None,
            history: false,
            balances: BTreeMap::new(),
            internal_transfers: true,
        };
        model.states.insert(0, model.state.clone());
        model
    }

    /// Returns the newest block.
    pub fn head(&self) -> &Block {
        self.blocks.last().expect("the chain has a genesis block")
    }

    pub fn head_height(&self) -> u64 {
        height_of(self.head())
    }

    /// Returns the block at a height, or `None` above the head.
    pub fn block(&self, height: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(height).ok()?)
    }

    /// Returns the height of the solidified block.
    pub fn solid_height(&self) -> u64 {
        let mut latest = self.latest;
        latest.sort_unstable();
        latest[SOLID_INDEX]
    }

    /// Returns the state after a block. States below the solidified block are not kept; the current state is returned then.
    pub fn state_at(&self, height: u64) -> &ChainState {
        self.states.range(..=height).next_back().map_or(&self.state, |(_, state)| state)
    }

    /// Changes the state without a transaction, after every block whose state is kept.
    pub fn change_state(&mut self, change: impl Fn(&mut ChainState)) {
        change(&mut self.state);
        self.states.values_mut().for_each(change);
    }

    /// Produces a block with all pending transactions, not before `at_least_ms`, in unix milliseconds.
    pub fn produce_block(&mut self, at_least_ms: i64) {
        let time = (self.head().header.timestamp + BLOCK_MS).max(at_least_ms);
        let height = self.head_height() + 1;
        let parent_time = self.head().header.timestamp;
        let mut included = Vec::new();
        let pending = if self.hold_pending { VecDeque::new() } else { std::mem::take(&mut self.pending) };
        for tx in pending {
            // java-tron compares the expiration with the time of the parent block.
            if parent_time >= tx.message.expiration {
                continue;
            }
            if let Ok(executed) = self.execute_transaction(&tx, time, height) {
                included.push(executed);
            }
        }
        let header = HeaderRaw {
            timestamp: time,
            tx_trie_root: merkle_root(&included).to_vec(),
            parent_hash: self.head().id.to_vec(),
            number: i64::try_from(height).expect("a test produces few blocks"),
            witness_address: producer_address(self.turn),
            version: 34,
            ..HeaderRaw::default()
        };
        let mut id: [u8; 32] = Sha256::digest(header.encode_to_vec()).into();
        id[..8].copy_from_slice(&height.to_be_bytes());
        self.blocks.push(Block { id, header, included });
        self.latest[self.turn] = height;
        self.turn = (self.turn + 1) % self.producers.clamp(1, PRODUCERS);
        self.states.insert(height, self.state.clone());
        self.record_balances(height);
        let solid = self.solid_height();
        self.states = self.states.split_off(&solid);
    }

    /// Removes the newest `depth` blocks, which must not be solidified. Their transactions become pending again if `keep`
    /// returns true, and are forgotten otherwise.
    pub fn orphan_blocks(&mut self, depth: u64, keep: impl Fn(&[u8; 32]) -> bool) {
        let to = self.head_height() - depth;
        assert!(to >= self.solid_height(), "solidified blocks cannot be orphaned");
        for block in self.blocks.split_off(usize::try_from(to).expect("a test produces few blocks") + 1) {
            for included in block.included {
                if keep(&included.tx.txid) {
                    self.pending.push_back(included.tx);
                } else {
                    self.known.remove(&included.tx.txid);
                }
            }
        }
        self.state = self.state_at(to).clone();
        self.states.split_off(&(to + 1));
        self.balances.retain(|(_, height), _| *height <= to);
        self.latest.iter_mut().for_each(|latest| *latest = (*latest).min(to));
        // Another producer is next, so the new blocks differ from the removed ones.
        self.turn = (self.turn + 1) % self.producers.clamp(1, PRODUCERS);
    }

    fn record_balances(&mut self, height: u64) {
        let balances = self.state.accounts.keys().map(|account| (*account, self.state.balance(*account)));
        let changed = balances.filter(|(account, balance)| {
            self.find_recorded_balance(*account, height).map(|(_, recorded)| recorded) != Some(*balance)
        });
        let changed: Vec<_> = changed.map(|(account, balance)| ((account, height), balance)).collect();
        self.balances.extend(changed);
    }

    fn find_recorded_balance(&self, account: Address, height: u64) -> Option<(u64, u64)> {
        let found = self.balances.range((account, 0)..=(account, height)).next_back();
        found.map(|((_, changed), balance)| (*changed, *balance))
    }

    /// Returns the height at which an account's balance changed last, up to `height`, and the balance in sun. `None` for an
    /// unknown account, and when the node keeps no history.
    pub fn balance_after(&self, account: Address, height: u64) -> Option<(u64, u64)> {
        self.find_recorded_balance(account, height).filter(|_| self.history)
    }

    /// Returns a transaction with its block, or `None` when it is in no block up to the height `up_to`.
    pub fn find(&self, txid: &[u8; 32], up_to: u64) -> Option<(&Block, &IncludedTransaction)> {
        let blocks = self.blocks.iter().take_while(|block| height_of(block) <= up_to);
        blocks.rev_find(|block| block.included.iter().find(|included| included.tx.txid == *txid))
    }

    /// Adds a transaction to the pool and returns its id. The checks run in the order of java-tron.
    ///
    /// # Errors
    ///
    /// Fails with the code and the message of java-tron.
    pub fn accept(&mut self, signed: &proto::Transaction, raw: Vec<u8>) -> Result<[u8; 32], BroadcastRefusal> {
        let tx = parse_signed(signed, raw).ok_or(("OTHER_ERROR", "Other error: no raw data".to_owned()))?;
        if signed.signature.iter().any(|signature| !(65..=68).contains(&signature.len())) {
            return Err(("SIGERROR", "Validate signature error: the signature length is invalid".to_owned()));
        }
        self.check_availability()?;
        let (Some(contract), 1) = (tx.message.contract.first(), tx.message.contract.len()) else {
            return Err((
                "CONTRACT_VALIDATE_ERROR",
                "Contract validate error : contract size should be exactly 1".to_owned(),
            ));
        };
        let head_ms = self.head().header.timestamp;
        if tx.message.expiration < head_ms + BLOCK_MS {
            return Err(("TRANSACTION_EXPIRATION_ERROR", "Transaction expired".to_owned()));
        }
        let owner = owner(contract);
        let signers: Vec<_> =
            signed.signature.iter().map(|signature| transaction::recover_signer(chain_txid(&tx), signature)).collect();
        if owner.is_none() || signers.len() != 1 || signers[0].map(|key| Address::from(key.0)) != owner {
            return Err(("SIGERROR", "Validate signature error: the signer is not in the permission".to_owned()));
        }
        if !self.has_reference_block(&tx.message) {
            return Err(("TAPOS_ERROR", "Tapos check error.".to_owned()));
        }
        if signed.encoded_len() > SIZE_MAX {
            return Err(("TOO_BIG_TRANSACTION_ERROR", "Transaction size is too big.".to_owned()));
        }
        if tx.message.expiration <= head_ms || tx.message.expiration > head_ms + DAY_MS {
            return Err(("TRANSACTION_EXPIRATION_ERROR", "Transaction expired".to_owned()));
        }
        if !self.known.insert(tx.txid) {
            return Err(("DUP_TRANSACTION_ERROR", "Dup transaction.".to_owned()));
        }
        // Execute the transaction on trial after the pending ones. As in java-tron, its id stays known even if this fails.
        let before = self.state.clone();
        let (time, height) = (head_ms + BLOCK_MS, self.head_height() + 1);
        for pending in self.pending.clone() {
            // A pending transaction that fails is dropped when the block is produced.
            self.execute_transaction(&pending, time, height).ok();
        }
        let trial = self.execute_transaction(&tx, time, height);
        self.state = before;
        trial?;
        let txid = tx.txid;
        if !self.drop_broadcasts {
            self.pending.push_back(tx);
        }
        Ok(txid)
    }

    /// Fails when the node is in a state in which it rejects every broadcast.
    fn check_availability(&self) -> Result<(), BroadcastRefusal> {
        let unsolidified = self.head_height() - self.solid_height();
        if self.unsolidified_max.is_some_and(|max| unsolidified >= max) {
            return Err(("BLOCK_UNSOLIDIFIED", "Block unsolidified.".to_owned()));
        }
        if self.peers == 0 {
            return Err(("NO_CONNECTION", "No connection.".to_owned()));
        }
        if self.busy {
            return Err(("SERVER_BUSY", "Server busy.".to_owned()));
        }
        Ok(())
    }

    fn has_reference_block(&self, raw: &proto::TransactionRaw) -> bool {
        let head = self.head_height();
        let mut blocks = self.blocks.iter().rev().take_while(|block| height_of(block) + REFERENCES > head);
        blocks.any(|block| {
            height_of(block).to_be_bytes()[6..] == raw.ref_block_bytes[..] && block.id[8..16] == raw.ref_block_hash[..]
        })
    }

    /// Charges and executes a transaction. After an error, no block may include it.
    fn execute_transaction(
        &mut self,
        tx: &BroadcastTransaction,
        time: i64,
        height: u64,
    ) -> Result<IncludedTransaction, BroadcastRefusal> {
        let invalid = |why: &str| ("CONTRACT_VALIDATE_ERROR", format!("Contract validate error : {why}"));
        let contract = tx.message.contract.first().expect("a pending transaction has one contract");
        let owner = owner(contract).ok_or_else(|| invalid("Invalid ownerAddress"))?;
        if !self.state.accounts.contains_key(&owner) {
            return Err(invalid("account does not exist"));
        }
        let before = self.state.clone();
        let mut receipt = Receipt::default();
        match self.charge_and_run(tx, owner, ParsedContract::parse(contract), time, height, &mut receipt) {
            Ok(ret) => Ok(IncludedTransaction { tx: tx.clone(), ret, receipt }),
            Err(refusal) => {
                self.state = before;
                Err(refusal)
            }
        }
    }

    fn charge_and_run(
        &mut self,
        tx: &BroadcastTransaction,
        owner: Address,
        contract: Option<ParsedContract>,
        time: i64,
        height: u64,
        receipt: &mut Receipt,
    ) -> Result<ContractRet, BroadcastRefusal> {
        let invalid = |why: &str| ("CONTRACT_VALIDATE_ERROR", format!("Contract validate error : {why}"));
        let insufficient = || ("BANDWITH_ERROR", "Account resource insufficient error.".to_owned());
        let to = match &contract {
            Some(ParsedContract::Transfer(transfer)) => address(&transfer.to_address),
            Some(ParsedContract::Trigger(_) | ParsedContract::Lend(_) | ParsedContract::TakeBack(_)) | None => None,
        };
        let creates = to.is_some_and(|to| !self.state.accounts.contains_key(&to));
        if creates {
            let fee = self.prices.new_account_bandwidth;
            self.state.burn_balance(owner, fee).then_some(()).ok_or_else(insufficient)?;
            receipt.net_fee = fee;
        } else {
            let charged = self.state.charge_bandwidth(owner, tx.bytes, &self.prices, time).ok_or_else(insufficient)?;
            (receipt.net_usage, receipt.net_fee) = charged;
        }
        receipt.fee += receipt.net_fee;
        if !tx.message.data.is_empty() {
            let memo = self.prices.memo;
            self.state.burn_balance(owner, memo).then_some(()).ok_or_else(insufficient)?;
            receipt.fee += memo;
        }
        let trigger = match contract {
            Some(ParsedContract::Transfer(transfer)) => {
                let to = to.ok_or_else(|| invalid("Invalid toAddress!"))?;
                receipt.fee += self.execute_transfer(owner, to, transfer.amount, creates, time).map_err(invalid)?;
                return Ok(ContractRet::Success);
            }
            Some(ParsedContract::Lend(lend)) => {
                let to = address(&lend.receiver_address).ok_or_else(|| invalid("Invalid receiverAddress"))?;
                self.state.lend(owner, to, lend.resource, lend.balance).map_err(invalid)?;
                return Ok(ContractRet::Success);
            }
            Some(ParsedContract::TakeBack(back)) => {
                let from = address(&back.receiver_address).ok_or_else(|| invalid("Invalid receiverAddress"))?;
                self.state.take_back_energy(owner, from, back.resource, back.balance).map_err(invalid)?;
                return Ok(ContractRet::Success);
            }
            Some(ParsedContract::Trigger(trigger)) => trigger,
            None => return Err(invalid("the stand-in node does not support this contract type")),
        };
        let contract = address(&trigger.contract_address).filter(|address| self.state.is_contract(*address));
        let contract = contract.ok_or_else(|| invalid("No contract or not a valid smart contract"))?;
        let fee_limit = u64::try_from(tx.message.fee_limit).ok().filter(|limit| *limit <= self.prices.fee_limit_max);
        let fee_limit = fee_limit.ok_or_else(|| invalid("feeLimit must be >= 0 and <= the maximum"))?;
        let value = u64::try_from(trigger.call_value).map_err(|_| invalid("callValue must be >= 0"))?;
        let spendable =
            self.state.balance(owner).checked_sub(value).ok_or_else(|| invalid("balance is not sufficient"))?;
        let affordable = self.state.unused_energy(owner, time) + spendable / self.prices.energy;
        let limit = affordable.min(fee_limit / self.prices.energy);
        Ok(self.execute_call(tx, owner, contract, value, trigger.data, limit, time, height, receipt))
    }

    /// Moves TRX and returns the fee besides the amount, in sun.
    fn execute_transfer(
        &mut self,
        owner: Address,
        to: Address,
        amount: i64,
        creates: bool,
        time: i64,
    ) -> Result<u64, &'static str> {
        let amount = u64::try_from(amount).ok().filter(|amount| *amount > 0);
        let amount = amount.ok_or("Amount must be greater than 0.")?;
        if to == owner {
            return Err("Cannot transfer TRX to yourself.");
        }
        if self.state.is_contract(to) {
            return Err("Cannot transfer TRX to a smartContract.");
        }
        let fee = if creates { self.prices.new_account } else { 0 };
        if self.state.balance(owner) < amount.saturating_add(fee) {
            return Err("Validate TransferContract error, balance is not sufficient.");
        }
        self.state.burn_balance(owner, amount + fee);
        self.state.activate_account(to, time);
        let before = self.state.balance(to);
        self.state.set_balance(to, before + amount);
        Ok(fee)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one transaction")]
    fn execute_call(
        &mut self,
        tx: &BroadcastTransaction,
        owner: Address,
        contract: Address,
        value: u64,
        data: Vec<u8>,
        limit: u64,
        time: i64,
        height: u64,
        receipt: &mut Receipt,
    ) -> ContractRet {
        let factor = self.contracts.get(&contract).map_or(0, |metadata| metadata.factor);
        let call = ContractCall { from: owner, to: Some(contract), sun: value, data, limit, factor };
        let out_of_time = self.forced_out_of_time.contains(&tx.txid);
        let execution = vm::run_call(&mut self.state.vm, call, time, height, !out_of_time);
        let (ret, energy) = match execution.status {
            _ if out_of_time => (ContractRet::OutOfTime, limit),
            ExecutionStatus::Success => (ContractRet::Success, execution.energy),
            ExecutionStatus::Revert => (ContractRet::Revert, execution.energy),
            ExecutionStatus::OutOfEnergy => (ContractRet::OutOfEnergy, execution.energy),
            ExecutionStatus::Illegal => (ContractRet::IllegalOperation, execution.energy),
        };
        (receipt.energy_usage, receipt.energy_fee) = self.state.charge_energy(owner, energy, &self.prices, time);
        receipt.energy_total = energy;
        receipt.penalty = execution.penalty.min(energy);
        receipt.fee += receipt.energy_fee;
        receipt.contract = Some(contract);
        receipt.output = execution.output;
        // A transaction that ran out of time keeps its logs, because java-tron rolls back only the state.
        receipt.logs = execution.logs;
        receipt.internal_transfers = execution.internal_transfers;
        let calls: Vec<InternalCall> = receipt.internal_transfers.clone();
        if !self.internal_transfers {
            receipt.internal_transfers.clear();
        }
        if ret != ContractRet::Success {
            receipt.message = Some(failure_message(ret).to_owned());
            receipt.internal_transfers.iter_mut().for_each(|internal| internal.rejected = true);
        }
        let succeeded = ret == ContractRet::Success;
        for internal in calls.iter().filter(|internal| succeeded && !internal.rejected && internal.sun > 0) {
            self.state.activate_account(internal.to, time);
        }
        ret
    }

    /// Deploys a contract without a transaction and returns its address.
    ///
    /// # Panics
    ///
    /// Panics when the constructor fails.
    pub fn deploy(&mut self, owner: Address, code: Vec<u8>, metadata: ContractMetadata) -> Address {
        let call = ContractCall { from: owner, to: None, sun: 0, data: code, limit: u64::MAX / 4, factor: 0 };
        let (time, height) = (self.head().header.timestamp, self.head_height());
        let execution = vm::run_call(&mut self.state.vm, call, time, height, true);
        assert_eq!(execution.status, ExecutionStatus::Success, "the constructor of the contract failed");
        let address = execution.created.expect("a created contract has an address");
        self.contracts.insert(address, metadata);
        let state = self.state.clone();
        self.states.insert(height, state);
        address
    }
}

/// The decoded contract of a transaction.
enum ParsedContract {
    Transfer(TransferContract),
    Trigger(TriggerSmartContract),
    Lend(DelegateResourceContract),
    TakeBack(UnDelegateResourceContract),
}

impl ParsedContract {
    fn parse(contract: &proto::Contract) -> Option<ParsedContract> {
        let value = contract.parameter.as_ref()?.value.as_slice();
        match ContractType::try_from(contract.r#type).ok()? {
            ContractType::Transfer => TransferContract::decode(value).ok().map(ParsedContract::Transfer),
            ContractType::TriggerSmart => TriggerSmartContract::decode(value).ok().map(ParsedContract::Trigger),
            ContractType::DelegateResource => DelegateResourceContract::decode(value).ok().map(ParsedContract::Lend),
            ContractType::UnDelegateResource => {
                UnDelegateResourceContract::decode(value).ok().map(ParsedContract::TakeBack)
            }
            ContractType::AccountCreate => None,
        }
    }
}

/// Search of the chain that begins with the newest block.
trait RevFind<'a> {
    fn rev_find<T>(self, find: impl Fn(&'a Block) -> Option<T>) -> Option<(&'a Block, T)>;
}

impl<'a, I: Iterator<Item = &'a Block>> RevFind<'a> for I {
    fn rev_find<T>(self, find: impl Fn(&'a Block) -> Option<T>) -> Option<(&'a Block, T)> {
        self.filter_map(|block| find(block).map(|found| (block, found))).last()
    }
}

/// Returns the height of a block.
pub fn height_of(block: &Block) -> u64 {
    u64::try_from(block.header.number).unwrap_or(0)
}

/// Parses a signed transaction. `raw` is its serialised content.
fn parse_signed(signed: &proto::Transaction, raw: Vec<u8>) -> Option<BroadcastTransaction> {
    let message = signed.raw_data.clone()?;
    let txid = Sha256::digest(&raw).into();
    let stripped = proto::Transaction { ret: Vec::new(), ..signed.clone() };
    let contracts = u64::try_from(message.contract.len()).ok()?;
    let bytes = u64::try_from(stripped.encoded_len()).ok()? + RESULT_BYTES * contracts;
    Some(BroadcastTransaction { raw, message, signature: signed.signature.clone(), txid, bytes })
}

fn chain_txid(tx: &BroadcastTransaction) -> chain::TxId {
    chain::TxId(tx.txid)
}

/// Returns the owner of a contract, which is the first field of every contract type.
pub fn owner(contract: &proto::Contract) -> Option<Address> {
    let value = contract.parameter.as_ref()?.value.as_slice();
    /// The common first field of all contract types.
    #[derive(Clone, PartialEq, Message)]
    struct ContractOwner {
        #[prost(bytes = "vec", tag = "1")]
        owner_address: Vec<u8>,
    }
    address(&ContractOwner::decode(value).ok()?.owner_address)
}

/// Parses the 21 bytes of an address in a protobuf field.
pub fn address(bytes: &[u8]) -> Option<Address> {
    tron::address::parse_prefixed_bytes(bytes).map(|key| Address::from(key.0))
}

fn producer_address(turn: usize) -> Vec<u8> {
    let mut address = vec![tron::address::PREFIX; 21];
    address[20] = u8::try_from(turn).unwrap_or(0);
    address
}

/// Returns the Merkle root of transactions with their results. A node without a sibling moves up unchanged.
fn merkle_root(included: &[IncludedTransaction]) -> [u8; 32] {
    let leaf = |included: &IncludedTransaction| -> [u8; 32] {
        let ret = vec![proto::TransactionResult {
            contract_ret: i32::from(included.ret),
            ..proto::TransactionResult::default()
        }];
        let message = proto::Transaction {
            raw_data: Some(included.tx.message.clone()),
            signature: included.tx.signature.clone(),
            ret,
        };
        Sha256::digest(message.encode_to_vec()).into()
    };
    let mut level: Vec<[u8; 32]> = included.iter().map(leaf).collect();
    while level.len() > 1 {
        let pair = |pair: &[[u8; 32]]| if pair.len() == 1 { pair[0] } else { Sha256::digest(pair.concat()).into() };
        level = level.chunks(2).map(pair).collect();
    }
    level.first().copied().unwrap_or([0; 32])
}

/// The messages for failed calls.
const MESSAGES: [(ContractRet, &str); 3] = [
    (ContractRet::Revert, "REVERT opcode executed"),
    (ContractRet::OutOfEnergy, "Not enough energy for 'SSTORE' operation executing"),
    (ContractRet::OutOfTime, "CPU timeout for 'PUSH1' operation executing"),
];

fn failure_message(ret: ContractRet) -> &'static str {
    MESSAGES.iter().find(|(result, _)| *result == ret).map_or("illegal operation", |(_, message)| message)
}
