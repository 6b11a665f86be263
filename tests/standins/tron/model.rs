//! The chain itself: producers that take turns, blocks that are linked, a solidified block that follows where 19 of 27
//! producers have built, and transactions that are checked in java-tron's order before they are taken.

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

pub const BLOCK_MS: i64 = 3_000;
const PRODUCERS: usize = 27;
/// A block is solidified when all but eight producers have built on it.
const SOLID_INDEX: usize = 8;
const DAY_MS: i64 = 86_400_000;
const SIZE_MAX: usize = 500 * 1024;
/// Reference blocks that are remembered.
const REFERENCES: u64 = 65_536;
const RESULT_BYTES: u64 = 64;

/// A refused broadcast: java-tron's code and message.
pub type BroadcastRefusal = (&'static str, String);

/// What a token or any other contract is to those who ask for it.
#[derive(Clone)]
pub struct ContractMetadata {
    pub name: String,
    /// As java-tron has it.
    pub abi: serde_json::Value,
    /// Penalty in thousandths.
    pub factor: u64,
}

/// A transaction as it was broadcast.
#[derive(Clone)]
pub struct BroadcastTransaction {
    pub raw: Vec<u8>,
    pub message: proto::TransactionRaw,
    pub signature: Vec<Vec<u8>>,
    pub txid: [u8; 32],
    pub bytes: u64,
}

/// A transaction in a block, with what became of it.
#[derive(Clone)]
pub struct IncludedTransaction {
    pub tx: BroadcastTransaction,
    pub ret: ContractRet,
    pub info: Receipt,
}

/// The receipt. Fees are sun.
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

#[derive(Clone)]
pub struct Block {
    pub id: [u8; 32],
    pub header: HeaderRaw,
    pub included: Vec<IncludedTransaction>,
}

pub struct ChainModel {
    blocks: Vec<Block>,
    pub state: ChainState,
    /// After each block that is not below the solidified one.
    states: BTreeMap<u64, ChainState>,
    pub pending: VecDeque<BroadcastTransaction>,
    known: BTreeSet<[u8; 32]>,
    /// The newest block of each producer.
    latest: [u64; PRODUCERS],
    /// How many of them work.
    pub producers: usize,
    turn: usize,
    pub prices: FeeSchedule,
    pub published: BTreeMap<Address, ContractMetadata>,
    /// Transactions that will run out of time, with logs of what never happened.
    pub doomed: BTreeSet<[u8; 32]>,
    /// Taken and never included.
    pub drop_broadcasts: bool,
    /// Blocks are made without what waits, which is included when this ends, unless it has expired.
    pub hold_pending: bool,
    /// The pool is full.
    pub busy: bool,
    /// Other nodes that this one is connected with.
    pub peers: usize,
    /// The node keeps what accounts had after each block; java-tron's default is that it does not.
    pub history: bool,
    /// What each account has had since which block.
    balances: BTreeMap<(Address, u64), u64>,
    /// The node keeps what contracts call (`vm.saveInternalTx`); java-tron's default is that it does not.
    pub internal_transfers: bool,
    /// With so many blocks above the solidified one broadcasts are turned away; java-tron's default is no bound.
    pub unsolidified_max: Option<u64>,
}

impl ChainModel {
    /// `chain_id` ends the id of the genesis block.
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
            published: BTreeMap::new(),
            doomed: BTreeSet::new(),
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

    pub fn head(&self) -> &Block {
        self.blocks.last().expect("there is a genesis block")
    }

    pub fn head_height(&self) -> u64 {
        height_of(self.head())
    }

    pub fn block(&self, height: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(height).ok()?)
    }

    pub fn solid_height(&self) -> u64 {
        let mut latest = self.latest;
        latest.sort_unstable();
        latest[SOLID_INDEX]
    }

    /// The accounts after a block, as far as they are remembered.
    pub fn state_at(&self, height: u64) -> &ChainState {
        self.states.range(..=height).next_back().map_or(&self.state, |(_, state)| state)
    }

    /// Makes a change that no transaction makes, such as money out of nowhere.
    pub fn change_state(&mut self, change: impl Fn(&mut ChainState)) {
        change(&mut self.state);
        self.states.values_mut().for_each(change);
    }

    /// The next producer makes a block of everything that waits, not before `at_least_ms`.
    pub fn produce(&mut self, at_least_ms: i64) {
        let time = (self.head().header.timestamp + BLOCK_MS).max(at_least_ms);
        let height = self.head_height() + 1;
        let parent = self.head().header.timestamp;
        let mut included = Vec::new();
        let waiting = if self.hold_pending { VecDeque::new() } else { std::mem::take(&mut self.pending) };
        for tx in waiting {
            // Only the parent's time decides.
            if parent >= tx.message.expiration {
                continue;
            }
            if let Ok(done) = self.execute(&tx, time, height) {
                included.push(done);
            }
        }
        let header = HeaderRaw {
            timestamp: time,
            tx_trie_root: root(&included).to_vec(),
            parent_hash: self.head().id.to_vec(),
            number: i64::try_from(height).expect("few blocks"),
            witness_address: witness(self.turn),
            version: 34,
            ..HeaderRaw::default()
        };
        let mut id: [u8; 32] = Sha256::digest(header.encode_to_vec()).into();
        id[..8].copy_from_slice(&height.to_be_bytes());
        self.blocks.push(Block { id, header, included });
        self.latest[self.turn] = height;
        self.turn = (self.turn + 1) % self.producers.clamp(1, PRODUCERS);
        self.states.insert(height, self.state.clone());
        self.note_balances(height);
        let solid = self.solid_height();
        self.states = self.states.split_off(&solid);
    }

    /// Takes back the newest `depth` blocks, which are not solidified. Their transactions wait again if `keep` says so.
    pub fn orphan_blocks(&mut self, depth: u64, keep: impl Fn(&[u8; 32]) -> bool) {
        let to = self.head_height() - depth;
        assert!(to >= self.solid_height(), "a solidified block is not taken back");
        for block in self.blocks.split_off(usize::try_from(to).expect("few blocks") + 1) {
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
        // Another producer, so that the new blocks are others.
        self.turn = (self.turn + 1) % self.producers.clamp(1, PRODUCERS);
    }

    fn note_balances(&mut self, height: u64) {
        let of = self.state.accounts.keys().map(|of| (*of, self.state.balance(*of)));
        let changed =
            of.filter(|(of, balance)| self.balance_noted(*of, height).map(|(_, known)| known) != Some(*balance));
        let changed: Vec<_> = changed.map(|(of, balance)| ((of, height), balance)).collect();
        self.balances.extend(changed);
    }

    fn balance_noted(&self, of: Address, height: u64) -> Option<(u64, u64)> {
        let found = self.balances.range((of, 0)..=(of, height)).next_back();
        found.map(|((_, changed), balance)| (*changed, *balance))
    }

    /// In which block the balance changed last, and to what; nothing of what is not known.
    pub fn balance_after(&self, of: Address, height: u64) -> Option<(u64, u64)> {
        self.balance_noted(of, height).filter(|_| self.history)
    }

    pub fn find(&self, txid: &[u8; 32], up_to: u64) -> Option<(&Block, &IncludedTransaction)> {
        let blocks = self.blocks.iter().take_while(|block| height_of(block) <= up_to);
        blocks.rev_find(|block| block.included.iter().find(|included| included.tx.txid == *txid))
    }

    /// Takes a transaction into the pool, or says why not, in the order of java-tron's checks.
    pub fn accept(&mut self, signed: &proto::Transaction, raw: Vec<u8>) -> Result<[u8; 32], BroadcastRefusal> {
        let tx = read(signed, raw).ok_or(("OTHER_ERROR", "Other error: no raw data".to_owned()))?;
        if signed.signature.iter().any(|signature| !(65..=68).contains(&signature.len())) {
            return Err(("SIGERROR", "Validate signature error: the signature length is invalid".to_owned()));
        }
        self.takes_any()?;
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
            signed.signature.iter().map(|signature| transaction::signer(chain_txid(&tx), signature)).collect();
        if owner.is_none() || signers.len() != 1 || signers[0].map(|key| Address::from(key.0)) != owner {
            return Err(("SIGERROR", "Validate signature error: the signer is not in the permission".to_owned()));
        }
        if !self.knows_reference(&tx.message) {
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
        // On trial, on top of those that wait already; like java-tron the id stays known even if this fails.
        let before = self.state.clone();
        let (time, height) = (head_ms + BLOCK_MS, self.head_height() + 1);
        for waiting in self.pending.clone() {
            // Whatever it did not manage is found when the block is made.
            self.execute(&waiting, time, height).ok();
        }
        let trial = self.execute(&tx, time, height);
        self.state = before;
        trial?;
        let txid = tx.txid;
        if !self.drop_broadcasts {
            self.pending.push_back(tx);
        }
        Ok(txid)
    }

    /// Whether the node takes broadcasts at all.
    fn takes_any(&self) -> Result<(), BroadcastRefusal> {
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

    fn knows_reference(&self, raw: &proto::TransactionRaw) -> bool {
        let head = self.head_height();
        let mut blocks = self.blocks.iter().rev().take_while(|block| height_of(block) + REFERENCES > head);
        blocks.any(|block| {
            height_of(block).to_be_bytes()[6..] == raw.ref_block_bytes[..] && block.id[8..16] == raw.ref_block_hash[..]
        })
    }

    /// Charges and runs a transaction. An error means that no block may have it.
    fn execute(
        &mut self,
        tx: &BroadcastTransaction,
        time: i64,
        height: u64,
    ) -> Result<IncludedTransaction, BroadcastRefusal> {
        let invalid = |why: &str| ("CONTRACT_VALIDATE_ERROR", format!("Contract validate error : {why}"));
        let contract = tx.message.contract.first().expect("checked");
        let owner = owner(contract).ok_or_else(|| invalid("Invalid ownerAddress"))?;
        if !self.state.accounts.contains_key(&owner) {
            return Err(invalid("account does not exist"));
        }
        let before = self.state.clone();
        let mut info = Receipt::default();
        match self.charge_and_run(tx, owner, ParsedContract::of(contract), time, height, &mut info) {
            Ok(ret) => Ok(IncludedTransaction { tx: tx.clone(), ret, info }),
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
        wish: Option<ParsedContract>,
        time: i64,
        height: u64,
        info: &mut Receipt,
    ) -> Result<ContractRet, BroadcastRefusal> {
        let invalid = |why: &str| ("CONTRACT_VALIDATE_ERROR", format!("Contract validate error : {why}"));
        let poor = || ("BANDWITH_ERROR", "Account resource insufficient error.".to_owned());
        let to = match &wish {
            Some(ParsedContract::Transfer(transfer)) => address(&transfer.to_address),
            Some(ParsedContract::Trigger(_) | ParsedContract::Lend(_) | ParsedContract::TakeBack(_)) | None => None,
        };
        let creates = to.is_some_and(|to| !self.state.accounts.contains_key(&to));
        if creates {
            let fee = self.prices.new_account_bandwidth;
            self.state.burn(owner, fee).then_some(()).ok_or_else(poor)?;
            info.net_fee = fee;
        } else {
            let taken = self.state.take_bandwidth(owner, tx.bytes, &self.prices, time).ok_or_else(poor)?;
            (info.net_usage, info.net_fee) = taken;
        }
        info.fee += info.net_fee;
        if !tx.message.data.is_empty() {
            let memo = self.prices.memo;
            self.state.burn(owner, memo).then_some(()).ok_or_else(poor)?;
            info.fee += memo;
        }
        let trigger = match wish {
            Some(ParsedContract::Transfer(transfer)) => {
                let to = to.ok_or_else(|| invalid("Invalid toAddress!"))?;
                info.fee += self.transfer(owner, to, transfer.amount, creates, time).map_err(invalid)?;
                return Ok(ContractRet::Success);
            }
            Some(ParsedContract::Lend(lend)) => {
                let to = address(&lend.receiver_address).ok_or_else(|| invalid("Invalid receiverAddress"))?;
                self.state.lend(owner, to, lend.resource, lend.balance).map_err(invalid)?;
                return Ok(ContractRet::Success);
            }
            Some(ParsedContract::TakeBack(back)) => {
                let from = address(&back.receiver_address).ok_or_else(|| invalid("Invalid receiverAddress"))?;
                self.state.take_back(owner, from, back.resource, back.balance).map_err(invalid)?;
                return Ok(ContractRet::Success);
            }
            Some(ParsedContract::Trigger(trigger)) => trigger,
            None => return Err(invalid("this node of a test does not know the contract")),
        };
        let contract = address(&trigger.contract_address).filter(|of| self.state.is_contract(*of));
        let contract = contract.ok_or_else(|| invalid("No contract or not a valid smart contract"))?;
        let fee_limit = u64::try_from(tx.message.fee_limit).ok().filter(|limit| *limit <= self.prices.fee_limit_max);
        let fee_limit = fee_limit.ok_or_else(|| invalid("feeLimit must be >= 0 and <= the maximum"))?;
        let value = u64::try_from(trigger.call_value).map_err(|_| invalid("callValue must be >= 0"))?;
        let spare = self.state.balance(owner).checked_sub(value).ok_or_else(|| invalid("balance is not sufficient"))?;
        let affordable = self.state.energy_left(owner, time) + spare / self.prices.energy;
        let limit = affordable.min(fee_limit / self.prices.energy);
        Ok(self.call(tx, owner, contract, value, trigger.data, limit, time, height, info))
    }

    /// What it cost beside the amount.
    fn transfer(
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
        self.state.burn(owner, amount + fee);
        self.state.activate(to, time);
        let hold_pending = self.state.balance(to);
        self.state.set_balance(to, hold_pending + amount);
        Ok(fee)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one transaction")]
    fn call(
        &mut self,
        tx: &BroadcastTransaction,
        owner: Address,
        contract: Address,
        value: u64,
        data: Vec<u8>,
        limit: u64,
        time: i64,
        height: u64,
        info: &mut Receipt,
    ) -> ContractRet {
        let factor = self.published.get(&contract).map_or(0, |published| published.factor);
        let call = ContractCall { from: owner, to: Some(contract), sun: value, data, limit, factor };
        let doomed = self.doomed.contains(&tx.txid);
        let ran = vm::run(&mut self.state.vm, call, time, height, !doomed);
        let (ret, energy) = match ran.end {
            _ if doomed => (ContractRet::OutOfTime, limit),
            ExecutionStatus::Success => (ContractRet::Success, ran.energy),
            ExecutionStatus::Revert => (ContractRet::Revert, ran.energy),
            ExecutionStatus::OutOfEnergy => (ContractRet::OutOfEnergy, ran.energy),
            ExecutionStatus::Illegal => (ContractRet::IllegalOperation, ran.energy),
        };
        (info.energy_usage, info.energy_fee) = self.state.take_energy(owner, energy, &self.prices, time);
        info.energy_total = energy;
        info.penalty = ran.penalty.min(energy);
        info.fee += info.energy_fee;
        info.contract = Some(contract);
        info.output = ran.output;
        // What ran out of time keeps its logs: the node rolls back the state only.
        info.logs = ran.logs;
        info.internal_transfers = ran.internal_transfers;
        let moved: Vec<InternalCall> = info.internal_transfers.clone();
        if !self.internal_transfers {
            info.internal_transfers.clear();
        }
        if ret != ContractRet::Success {
            info.message = Some(message(ret).to_owned());
            info.internal_transfers.iter_mut().for_each(|internal| internal.rejected = true);
        }
        let moves = ret == ContractRet::Success;
        for internal in moved.iter().filter(|internal| moves && !internal.rejected && internal.sun > 0) {
            self.state.activate(internal.to, time);
        }
        ret
    }

    /// Puts a contract on the chain without a transaction.
    pub fn deploy(&mut self, owner: Address, code: Vec<u8>, published: ContractMetadata) -> Address {
        let call = ContractCall { from: owner, to: None, sun: 0, data: code, limit: u64::MAX / 4, factor: 0 };
        let (time, height) = (self.head().header.timestamp, self.head_height());
        let ran = vm::run(&mut self.state.vm, call, time, height, true);
        assert_eq!(ran.end, ExecutionStatus::Success, "the contract cannot be created");
        let address = ran.created.expect("a created contract has an address");
        self.published.insert(address, published);
        let state = self.state.clone();
        self.states.insert(height, state);
        address
    }
}

/// What a transaction is for.
enum ParsedContract {
    Transfer(TransferContract),
    Trigger(TriggerSmartContract),
    Lend(DelegateResourceContract),
    TakeBack(UnDelegateResourceContract),
}

impl ParsedContract {
    fn of(contract: &proto::Contract) -> Option<ParsedContract> {
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

trait RevFind<'a> {
    fn rev_find<T>(self, find: impl Fn(&'a Block) -> Option<T>) -> Option<(&'a Block, T)>;
}

impl<'a, I: Iterator<Item = &'a Block>> RevFind<'a> for I {
    fn rev_find<T>(self, find: impl Fn(&'a Block) -> Option<T>) -> Option<(&'a Block, T)> {
        self.filter_map(|block| find(block).map(|found| (block, found))).last()
    }
}

pub fn height_of(block: &Block) -> u64 {
    u64::try_from(block.header.number).unwrap_or(0)
}

/// Takes a signed transaction apart. `raw` are the bytes that were hashed.
fn read(signed: &proto::Transaction, raw: Vec<u8>) -> Option<BroadcastTransaction> {
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

/// The owner is the first field of every contract.
pub fn owner(contract: &proto::Contract) -> Option<Address> {
    let value = contract.parameter.as_ref()?.value.as_slice();
    /// What every contract begins with.
    #[derive(Clone, PartialEq, Message)]
    struct ContractOwner {
        #[prost(bytes = "vec", tag = "1")]
        owner_address: Vec<u8>,
    }
    address(&ContractOwner::decode(value).ok()?.owner_address)
}

pub fn address(bytes: &[u8]) -> Option<Address> {
    tron::address::from_bytes(bytes).map(|key| Address::from(key.0))
}

fn witness(turn: usize) -> Vec<u8> {
    let mut address = vec![tron::address::PREFIX; 21];
    address[20] = u8::try_from(turn).unwrap_or(0);
    address
}

/// Hashes of whole transactions, in pairs; a single one goes up as it is.
fn root(included: &[IncludedTransaction]) -> [u8; 32] {
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

/// What the node says of a call that failed.
const MESSAGES: [(ContractRet, &str); 3] = [
    (ContractRet::Revert, "REVERT opcode executed"),
    (ContractRet::OutOfEnergy, "Not enough energy for 'SSTORE' operation executing"),
    (ContractRet::OutOfTime, "CPU timeout for 'PUSH1' operation executing"),
];

fn message(ret: ContractRet) -> &'static str {
    MESSAGES.iter().find(|(of, _)| *of == ret).map_or("illegal operation", |(_, message)| message)
}
