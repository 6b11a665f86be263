//! The protobuf messages of java-tron that payments need, with its field numbers (`core/Tron.proto`). Fields that are not
//! listed here are ignored when a message is decoded and never encoded.

use prost::{Enumeration, Message};

/// The prefix of every contract's `type_url`.
pub const TYPE_URL: &str = "type.googleapis.com/protocol.";

/// A signed transaction (`Transaction`).
#[derive(Clone, PartialEq, Message)]
pub struct Transaction {
    #[prost(message, optional, tag = "1")]
    pub raw_data: Option<TransactionRaw>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub signature: Vec<Vec<u8>>,
    /// Added by the block producer; empty in a broadcast.
    #[prost(message, repeated, tag = "5")]
    pub ret: Vec<TransactionResult>,
}

/// The content of a transaction (`Transaction.raw`); its SHA-256 hash is the transaction id.
#[derive(Clone, PartialEq, Message)]
pub struct TransactionRaw {
    /// Bytes 6..8 of the reference block's number.
    #[prost(bytes = "vec", tag = "1")]
    pub ref_block_bytes: Vec<u8>,
    /// Bytes 8..16 of the reference block's id.
    #[prost(bytes = "vec", tag = "4")]
    pub ref_block_hash: Vec<u8>,
    /// Unix milliseconds.
    #[prost(int64, tag = "8")]
    pub expiration: i64,
    /// Memo.
    #[prost(bytes = "vec", tag = "10")]
    pub data: Vec<u8>,
    #[prost(message, repeated, tag = "11")]
    pub contract: Vec<Contract>,
    /// Unix milliseconds. Nodes do not check it; it makes otherwise equal transactions different.
    #[prost(int64, tag = "14")]
    pub timestamp: i64,
    /// Maximum of TRX burned for energy, in sun.
    #[prost(int64, tag = "18")]
    pub fee_limit: i64,
}

/// One operation of a transaction (`Transaction.Contract`).
#[derive(Clone, PartialEq, Message)]
pub struct Contract {
    #[prost(enumeration = "ContractType", tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub parameter: Option<Any>,
    #[prost(int32, tag = "5")]
    pub permission_id: i32,
}

/// A typed message (`google.protobuf.Any`).
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The contract types that settled builds or reads; all others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ContractType {
    AccountCreate = 0,
    Transfer = 1,
    TriggerSmart = 31,
    DelegateResource = 57,
    UnDelegateResource = 58,
}

/// Moves TRX.
#[derive(Clone, PartialEq, Message)]
pub struct TransferContract {
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub to_address: Vec<u8>,
    /// Sun.
    #[prost(int64, tag = "3")]
    pub amount: i64,
}

/// Calls a smart contract.
#[derive(Clone, PartialEq, Message)]
pub struct TriggerSmartContract {
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub contract_address: Vec<u8>,
    /// Sun.
    #[prost(int64, tag = "3")]
    pub call_value: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// Lends the resource of staked TRX to another account.
#[derive(Clone, PartialEq, Message)]
pub struct DelegateResourceContract {
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    /// 0 for bandwidth, 1 for energy.
    #[prost(int32, tag = "2")]
    pub resource: i32,
    /// Staked TRX, in sun.
    #[prost(int64, tag = "3")]
    pub balance: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub receiver_address: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub lock: bool,
    #[prost(int64, tag = "6")]
    pub lock_period: i64,
}

/// Takes a lent resource back.
#[derive(Clone, PartialEq, Message)]
pub struct UnDelegateResourceContract {
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub resource: i32,
    #[prost(int64, tag = "3")]
    pub balance: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub receiver_address: Vec<u8>,
}

/// The result of a transaction (`Transaction.Result`).
#[derive(Clone, PartialEq, Message)]
pub struct TransactionResult {
    /// Sun.
    #[prost(int64, tag = "1")]
    pub fee: i64,
    /// 0 for success, 1 for failure.
    #[prost(int32, tag = "2")]
    pub ret: i32,
    #[prost(enumeration = "ContractRet", tag = "3")]
    pub contract_ret: i32,
}

/// The result of a contract (`Transaction.Result.contractResult`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ContractRet {
    Default = 0,
    Success = 1,
    Revert = 2,
    BadJumpDestination = 3,
    OutOfMemory = 4,
    PrecompiledContract = 5,
    StackTooSmall = 6,
    StackTooLarge = 7,
    IllegalOperation = 8,
    StackOverflow = 9,
    OutOfEnergy = 10,
    OutOfTime = 11,
    JvmStackOverFlow = 12,
    Unknown = 13,
    TransferFailed = 14,
    InvalidCode = 15,
}

impl ContractRet {
    /// Returns the name that nodes write in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ContractRet::Default => "DEFAULT",
            ContractRet::Success => "SUCCESS",
            ContractRet::Revert => "REVERT",
            ContractRet::BadJumpDestination => "BAD_JUMP_DESTINATION",
            ContractRet::OutOfMemory => "OUT_OF_MEMORY",
            ContractRet::PrecompiledContract => "PRECOMPILED_CONTRACT",
            ContractRet::StackTooSmall => "STACK_TOO_SMALL",
            ContractRet::StackTooLarge => "STACK_TOO_LARGE",
            ContractRet::IllegalOperation => "ILLEGAL_OPERATION",
            ContractRet::StackOverflow => "STACK_OVERFLOW",
            ContractRet::OutOfEnergy => "OUT_OF_ENERGY",
            ContractRet::OutOfTime => "OUT_OF_TIME",
            ContractRet::JvmStackOverFlow => "JVM_STACK_OVER_FLOW",
            ContractRet::Unknown => "UNKNOWN",
            ContractRet::TransferFailed => "TRANSFER_FAILED",
            ContractRet::InvalidCode => "INVALID_CODE",
        }
    }
}

/// The content of a block header (`BlockHeader.raw`). The last 24 bytes of the block id come from its SHA-256 hash.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderRaw {
    /// Unix milliseconds.
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    #[prost(bytes = "vec", tag = "2")]
    pub tx_trie_root: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub parent_hash: Vec<u8>,
    #[prost(int64, tag = "7")]
    pub number: i64,
    #[prost(int64, tag = "8")]
    pub witness_id: i64,
    #[prost(bytes = "vec", tag = "9")]
    pub witness_address: Vec<u8>,
    #[prost(int32, tag = "10")]
    pub version: i32,
    #[prost(bytes = "vec", tag = "11")]
    pub account_state_root: Vec<u8>,
}
