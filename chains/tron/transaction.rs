//! Transactions built, hashed and signed here, byte for byte as java-tron's own clients do it. Never is anything signed
//! that a node built, and never an id that was not hashed here.

use alloy_primitives::keccak256;
use chain::{AddressKey, BlockRef, TxId};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    address,
    proto::{
        self, ContractType, DelegateResourceContract, TYPE_URL, TransferContract, TriggerSmartContract,
        UnDelegateResourceContract,
    },
};

/// Bandwidth of the result that the chain adds to each contract (`Constant.MAX_RESULT_SIZE_IN_TX`).
const RESULT_BYTES: usize = 64;

/// What a transaction does. Amounts are sun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Transfer { to: AddressKey, sun: i64 },
    Trigger { contract: AddressKey, call_value: i64, data: Vec<u8> },
    Delegate { resource: Resource, sun: i64, to: AddressKey },
    Undelegate { resource: Resource, sun: i64, from: AddressKey },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Bandwidth,
    Energy,
}

/// What holds a transaction to its chain and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionParams {
    /// A solidified block: a head block may be orphaned, and the transaction with it.
    pub reference: BlockRef,
    /// Unix milliseconds after the head block's time, by at most a day.
    pub expiration_ms: i64,
    /// Free entropy in unix milliseconds: two transactions that are equal in everything are one. Strictly increasing.
    pub timestamp_ms: i64,
    /// Sun; only for calls.
    pub fee_limit: i64,
    /// Costs a fee unless empty.
    pub memo: Vec<u8>,
    /// 0 signs as the owner.
    pub permission_id: i32,
}

impl TransactionParams {
    pub fn new(reference: BlockRef, expiration_ms: i64, timestamp_ms: i64) -> TransactionParams {
        TransactionParams { reference, expiration_ms, timestamp_ms, fee_limit: 0, memo: Vec::new(), permission_id: 0 }
    }

    pub fn with_fee_limit(self, sun: i64) -> TransactionParams {
        TransactionParams { fee_limit: sun, ..self }
    }
}

/// An unsigned transaction: the bytes whose hash is its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedTransaction {
    pub raw: Vec<u8>,
    pub txid: TxId,
}

/// A transaction as `broadcasthex` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    pub bytes: Vec<u8>,
    pub txid: TxId,
    /// `r`, `s` and 27 or 28.
    pub signature: [u8; 65],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the key is not that of the transaction's owner")]
    NotTheOwner,
}

/// Builds the one form of a transaction.
pub fn build(owner: AddressKey, act: &Operation, frame: &TransactionParams) -> UnsignedTransaction {
    let mut ref_block_bytes = frame.reference.height.to_be_bytes().to_vec();
    let raw = proto::TransactionRaw {
        ref_block_bytes: ref_block_bytes.split_off(6),
        ref_block_hash: frame.reference.hash.0[8..16].to_vec(),
        expiration: frame.expiration_ms,
        data: frame.memo.clone(),
        contract: vec![contract(owner, act, frame.permission_id)],
        timestamp: frame.timestamp_ms,
        fee_limit: frame.fee_limit,
    };
    let raw = raw.encode_to_vec();
    UnsignedTransaction { txid: txid(&raw), raw }
}

/// The id of a transaction by its serialised `raw_data`.
pub fn txid(raw: &[u8]) -> TxId {
    TxId(Sha256::digest(raw).into())
}

fn contract(owner: AddressKey, act: &Operation, permission_id: i32) -> proto::Contract {
    let owner_address = address::to_bytes(owner);
    let (kind, name, value) = match act {
        Operation::Transfer { to, sun } => {
            let message = TransferContract { owner_address, to_address: address::to_bytes(*to), amount: *sun };
            (ContractType::Transfer, "TransferContract", message.encode_to_vec())
        }
        Operation::Trigger { contract, call_value, data } => {
            let contract_address = address::to_bytes(*contract);
            let (call_value, data) = (*call_value, data.clone());
            let message = TriggerSmartContract { owner_address, contract_address, call_value, data };
            (ContractType::TriggerSmart, "TriggerSmartContract", message.encode_to_vec())
        }
        Operation::Delegate { resource, sun, to } => {
            let receiver_address = address::to_bytes(*to);
            let (resource, balance) = (resource.code(), *sun);
            let (lock, lock_period) = (false, 0);
            let message =
                DelegateResourceContract { owner_address, resource, balance, receiver_address, lock, lock_period };
            (ContractType::DelegateResource, "DelegateResourceContract", message.encode_to_vec())
        }
        Operation::Undelegate { resource, sun, from } => {
            let receiver_address = address::to_bytes(*from);
            let (resource, balance) = (resource.code(), *sun);
            let message = UnDelegateResourceContract { owner_address, resource, balance, receiver_address };
            (ContractType::UnDelegateResource, "UnDelegateResourceContract", message.encode_to_vec())
        }
    };
    let parameter = proto::Any { type_url: format!("{TYPE_URL}{name}"), value };
    proto::Contract { r#type: i32::from(kind), parameter: Some(parameter), permission_id }
}

impl Resource {
    fn code(self) -> i32 {
        match self {
            Resource::Bandwidth => 0,
            Resource::Energy => 1,
        }
    }
}

impl UnsignedTransaction {
    /// Signs the id (RFC 6979, low s) and recovers the signer from the signature before it is handed out.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedTransaction, SignError> {
        let (signature, recovery) = key.sign_prehash_recoverable(&self.txid.0);
        let mut packed = [0u8; 65];
        packed[..64].copy_from_slice(&signature.to_bytes());
        packed[64] = 27 + recovery.to_byte();
        if self.owner() != Some(account_of(key.verifying_key())) || signer(self.txid, &packed) != self.owner() {
            return Err(SignError::NotTheOwner);
        }
        Ok(SignedTransaction { bytes: with_signature(&self.raw, &packed), txid: self.txid, signature: packed })
    }

    /// Who the transaction says it is from.
    fn owner(&self) -> Option<AddressKey> {
        let raw = proto::TransactionRaw::decode(self.raw.as_slice()).ok()?;
        let parameter = raw.contract.first()?.parameter.as_ref()?;
        // The owner is the first field of every contract that is built here.
        let owner = ContractOwner::decode(parameter.value.as_slice()).ok()?;
        address::from_bytes(&owner.owner_address)
    }
}

#[derive(Clone, PartialEq, Message)]
struct ContractOwner {
    #[prost(bytes = "vec", tag = "1")]
    owner_address: Vec<u8>,
}

/// `raw` stays the bytes that were hashed: it is wrapped, not encoded again.
fn with_signature(raw: &[u8], signature: &[u8; 65]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.len() + 80);
    for (tag, field) in [(0x0a, raw), (0x12, signature.as_slice())] {
        bytes.push(tag);
        prost::encode_length_delimiter(field.len(), &mut bytes).expect("a vector grows");
        bytes.extend_from_slice(field);
    }
    bytes
}

/// Bandwidth that a signed transaction with one contract takes (tron.md, chapter 5).
pub fn bandwidth(signed: &[u8]) -> usize {
    signed.len() + RESULT_BYTES
}

/// The account of a public key: the last 20 bytes of Keccak-256 over the uncompressed point.
pub fn account_of(key: &VerifyingKey) -> AddressKey {
    let point = key.to_sec1_point(false);
    let hash = keccak256(&point.as_bytes()[1..]);
    AddressKey(hash[12..].try_into().expect("32 − 12 bytes"))
}

/// Who signed the transaction with this id. `v` may be 0, 1, 27 or 28.
pub fn signer(txid: TxId, signature: &[u8]) -> Option<AddressKey> {
    let (rs, v) = (signature.get(..64)?, *signature.get(64)?);
    let recovery = RecoveryId::from_byte(v.checked_sub(27).unwrap_or(v))?;
    let signature = Signature::from_slice(rs).ok()?;
    VerifyingKey::recover_from_prehash(&txid.0, &signature, recovery).ok().map(|key| account_of(&key))
}
