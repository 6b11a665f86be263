//! Builds, hashes and signs transactions. The bytes equal those that java-tron's own clients build. This module
//! computes every id that it signs, and never signs a transaction that a node built.

use alloy_primitives::keccak256;
use chain::{AddressKey, BlockRef, SourceError, TxId};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    Tron, address,
    http_api::ApiView,
    proto::{
        self, ContractType, DelegateResourceContract, TYPE_URL, TransferContract, TriggerSmartContract,
        UnDelegateResourceContract,
    },
};

/// The number of bytes of bandwidth that are charged for the result that the chain adds to each operation (java-tron:
/// `Constant.MAX_RESULT_SIZE_IN_TX`).
const RESULT_BYTES: usize = 64;

/// The operation that a transaction performs. Amounts are in sun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sends `sun` sun of TRX to the account `to`.
    Transfer { to: AddressKey, sun: i64 },
    /// Calls a smart contract and sends it `call_value` sun.
    Trigger { contract: AddressKey, call_value: i64, data: Vec<u8> },
    /// Lends the energy or bandwidth of `sun` staked TRX to the account `to`.
    Delegate { resource: Resource, sun: i64, to: AddressKey },
    /// Takes lent energy or bandwidth of `sun` staked TRX back from the account `from`.
    Undelegate { resource: Resource, sun: i64, from: AddressKey },
}

/// A resource that an account gets for staked TRX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bandwidth, which pays for the bytes of transactions.
    Bandwidth,
    /// Energy, which pays for the work of contracts.
    Energy,
}

/// The fields of a transaction besides its operation: reference block, expiration, fee limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionParams {
    /// The reference block (TAPOS). It must be solidified: if a reorganisation removed it, the transaction would become
    /// invalid.
    pub reference: BlockRef,
    /// The time after which no block may include the transaction, in Unix milliseconds. It is at most one day after the
    /// time of the newest block.
    pub expiration_ms: i64,
    /// The creation time in Unix milliseconds, later than that of every earlier transaction. Nodes do not check it. But
    /// two transactions with equal fields have the same id, and nodes reject the second one as a duplicate.
    pub timestamp_ms: i64,
    /// The maximum amount of TRX that may be burned for energy, in sun; 0 unless the operation is a call.
    pub fee_limit: i64,
    /// The memo; the chain charges a fee for a memo that is not empty.
    pub memo: Vec<u8>,
    /// The permission of the account that signs the transaction; 0 is the owner permission.
    pub permission_id: i32,
}

impl TransactionParams {
    /// Returns parameters without fee limit and memo, for the owner permission.
    pub fn without_fee_limit(reference: BlockRef, expiration_ms: i64, timestamp_ms: i64) -> TransactionParams {
        TransactionParams { reference, expiration_ms, timestamp_ms, fee_limit: 0, memo: Vec::new(), permission_id: 0 }
    }

    /// Returns the same parameters with another fee limit, in sun.
    pub fn with_fee_limit(self, sun: i64) -> TransactionParams {
        TransactionParams { fee_limit: sun, ..self }
    }
}

/// An unsigned transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedTransaction {
    /// The serialised `raw_data`; its SHA-256 hash is the transaction id.
    pub raw: Vec<u8>,
    /// The transaction id. The signature signs this id.
    pub txid: TxId,
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    /// The serialised transaction, as `broadcasthex` expects it.
    pub bytes: Vec<u8>,
    /// The transaction id, which the signature does not change.
    pub txid: TxId,
    /// The signature: `r`, `s`, and the recovery id as 27 or 28.
    pub signature: [u8; 65],
}

/// The reason why a transaction cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key belongs to another account than the owner that the transaction names.
    #[error("the key does not belong to the owner of the transaction")]
    NotTheOwner,
}

/// Builds an unsigned transaction. Equal arguments give equal bytes.
pub fn build_transaction(owner: AddressKey, operation: &Operation, params: &TransactionParams) -> UnsignedTransaction {
    let mut ref_block_bytes = params.reference.height.to_be_bytes().to_vec();
    let raw = proto::TransactionRaw {
        ref_block_bytes: ref_block_bytes.split_off(6),
        ref_block_hash: params.reference.hash.0[8..16].to_vec(),
        expiration: params.expiration_ms,
        data: params.memo.clone(),
        contract: vec![encode_operation_as_contract(owner, operation, params.permission_id)],
        timestamp: params.timestamp_ms,
        fee_limit: params.fee_limit,
    };
    let raw = raw.encode_to_vec();
    UnsignedTransaction { txid: compute_txid(&raw), raw }
}

/// Returns the id of a transaction, which is the SHA-256 hash of its serialised `raw_data`.
pub fn compute_txid(raw: &[u8]) -> TxId {
    TxId(Sha256::digest(raw).into())
}

/// Encodes an operation as the protobuf message `Contract` of a transaction.
fn encode_operation_as_contract(owner: AddressKey, operation: &Operation, permission_id: i32) -> proto::Contract {
    let owner_address = address::to_prefixed_bytes(owner);
    let (kind, name, value) = match operation {
        Operation::Transfer { to, sun } => {
            let message = TransferContract { owner_address, to_address: address::to_prefixed_bytes(*to), amount: *sun };
            (ContractType::Transfer, "TransferContract", message.encode_to_vec())
        }
        Operation::Trigger { contract, call_value, data } => {
            let contract_address = address::to_prefixed_bytes(*contract);
            let (call_value, data) = (*call_value, data.clone());
            let message = TriggerSmartContract { owner_address, contract_address, call_value, data };
            (ContractType::TriggerSmart, "TriggerSmartContract", message.encode_to_vec())
        }
        Operation::Delegate { resource, sun, to } => {
            let receiver_address = address::to_prefixed_bytes(*to);
            let (resource, balance) = (resource.proto_number(), *sun);
            let (lock, lock_period) = (false, 0);
            let message =
                DelegateResourceContract { owner_address, resource, balance, receiver_address, lock, lock_period };
            (ContractType::DelegateResource, "DelegateResourceContract", message.encode_to_vec())
        }
        Operation::Undelegate { resource, sun, from } => {
            let receiver_address = address::to_prefixed_bytes(*from);
            let (resource, balance) = (resource.proto_number(), *sun);
            let message = UnDelegateResourceContract { owner_address, resource, balance, receiver_address };
            (ContractType::UnDelegateResource, "UnDelegateResourceContract", message.encode_to_vec())
        }
    };
    let parameter = proto::Any { type_url: format!("{TYPE_URL}{name}"), value };
    proto::Contract { r#type: i32::from(kind), parameter: Some(parameter), permission_id }
}

impl Resource {
    /// Returns the number by which java-tron identifies the resource.
    fn proto_number(self) -> i32 {
        match self {
            Resource::Bandwidth => 0,
            Resource::Energy => 1,
        }
    }
}

impl UnsignedTransaction {
    /// Signs the transaction id (RFC 6979, low s) and verifies that the signature recovers to the owner.
    ///
    /// # Errors
    ///
    /// Fails when `key` does not belong to the owner of the transaction.
    pub fn sign_if_owner(&self, key: &SigningKey) -> Result<SignedTransaction, SignError> {
        let (signature, recovery) = key.sign_prehash_recoverable(&self.txid.0);
        let mut packed = [0u8; 65];
        packed[..64].copy_from_slice(&signature.to_bytes());
        packed[64] = 27 + recovery.to_byte();
        if self.parse_owner() != Some(derive_account(key.verifying_key()))
            || recover_signer(self.txid, &packed) != self.parse_owner()
        {
            return Err(SignError::NotTheOwner);
        }
        Ok(SignedTransaction {
            bytes: serialize_with_signature(&self.raw, &packed),
            txid: self.txid,
            signature: packed,
        })
    }

    /// Returns the owner that the transaction names; `None` when the content cannot be parsed.
    fn parse_owner(&self) -> Option<AddressKey> {
        let raw = proto::TransactionRaw::decode(self.raw.as_slice()).ok()?;
        let parameter = raw.contract.first()?.parameter.as_ref()?;
        // Field 1 of every contract that this module builds is the owner.
        let owner = ContractOwner::decode(parameter.value.as_slice()).ok()?;
        address::parse_prefixed_bytes(&owner.owner_address)
    }
}

/// The field that all operations of this module have in common: the account that the operation acts for.
#[derive(Clone, PartialEq, Message)]
struct ContractOwner {
    #[prost(bytes = "vec", tag = "1")]
    owner_address: Vec<u8>,
}

/// Returns the serialised signed transaction. `raw` is copied and not encoded again, because the transaction id is the
/// hash of exactly these bytes.
fn serialize_with_signature(raw: &[u8], signature: &[u8; 65]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.len() + 80);
    for (tag, field) in [(0x0a, raw), (0x12, signature.as_slice())] {
        bytes.push(tag);
        prost::encode_length_delimiter(field.len(), &mut bytes).expect("writing to a vector does not fail");
        bytes.extend_from_slice(field);
    }
    bytes
}

impl Tron {
    /// Returns the parameters of a new transaction: a solidified reference block, and an expiration `lifetime_ms` after
    /// the time of the newest block.
    ///
    /// # Errors
    ///
    /// Fails when no endpoint returns its newest blocks.
    pub async fn fetch_transaction_params(
        &self,
        lifetime_ms: i64,
        timestamp_ms: i64,
    ) -> Result<TransactionParams, SourceError> {
        let (reference, head) = (
            self.fetch_and_record_newest_header(ApiView::Solid).await?,
            self.fetch_and_record_newest_header(ApiView::Head).await?,
        );
        let expiration_ms = head.time.saturating_mul(1_000).saturating_add(lifetime_ms);
        Ok(TransactionParams::without_fee_limit(reference.block_ref(), expiration_ms, timestamp_ms))
    }
}

/// Returns the id of a signed transaction: the hash of its content bytes, which are not encoded again. Returns `None`
/// when the bytes are not a signed transaction.
pub(crate) fn compute_signed_txid(signed: &[u8]) -> Option<TxId> {
    let envelope = SignedEnvelope::decode(signed).ok().filter(|envelope| !envelope.signature.is_empty())?;
    proto::TransactionRaw::decode(envelope.raw.as_slice()).ok()?;
    Some(compute_txid(&envelope.raw))
}

/// A signed transaction whose content is not decoded, so that its hash can be computed from the original bytes.
#[derive(Clone, PartialEq, Message)]
struct SignedEnvelope {
    #[prost(bytes = "vec", tag = "1")]
    raw: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    signature: Vec<Vec<u8>>,
}

/// Returns the bandwidth that a signed transaction with one contract takes, in bytes (java-tron: `BandwidthProcessor`).
pub fn compute_bandwidth_bytes(signed: &[u8]) -> usize {
    signed.len() + RESULT_BYTES
}

/// Returns the account of a public key: the last 20 bytes of the Keccak-256 hash of the uncompressed point.
pub fn derive_account(key: &VerifyingKey) -> AddressKey {
    let point = key.to_sec1_point(false);
    let hash = keccak256(&point.as_bytes()[1..]);
    AddressKey(hash[12..].try_into().expect("a 32-byte hash without its first 12 bytes has 20"))
}

/// Returns the account that signed the transaction `txid`, or `None` when the signature is invalid. The last byte, the
/// recovery id, may be 0, 1, 27 or 28.
pub fn recover_signer(txid: TxId, signature: &[u8]) -> Option<AddressKey> {
    let (rs, v) = (signature.get(..64)?, *signature.get(64)?);
    let recovery = RecoveryId::from_byte(v.checked_sub(27).unwrap_or(v))?;
    let signature = Signature::from_slice(rs).ok()?;
    VerifyingKey::recover_from_prehash(&txid.0, &signature, recovery).ok().map(|key| derive_account(&key))
}
