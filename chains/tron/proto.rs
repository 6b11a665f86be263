//! The protobuf messages of java-tron that payments need, with the field numbers of java-tron (`core/Tron.proto`).
//! Other fields of these messages are ignored when a message is decoded, and never written when it is encoded.

use prost::{Enumeration, Message};

/// The first part of every contract's `type_url`; the name of the message type follows.
pub const TYPE_URL: &str = "type.googleapis.com/protocol.";

/// A signed transaction (`Transaction`).
#[derive(Clone, PartialEq, Message)]
pub struct Transaction {
    /// The content of the transaction; a transaction without content is invalid.
    #[prost(message, optional, tag = "1")]
    pub raw_data: Option<TransactionRaw>,
    /// One signature of 65 bytes per signing key: `r`, `s` and the recovery id.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub signature: Vec<Vec<u8>>,
    /// The results, which the block producer adds. Empty when the transaction is broadcast.
    #[prost(message, repeated, tag = "5")]
    pub ret: Vec<TransactionResult>,
}

/// The content of a transaction (`Transaction.raw`); its SHA-256 hash is the transaction id.
#[derive(Clone, PartialEq, Message)]
pub struct TransactionRaw {
    /// Bytes 6 and 7 of the reference block's number, which has 8 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ref_block_bytes: Vec<u8>,
    /// Bytes 8 to 15 of the reference block's id.
    #[prost(bytes = "vec", tag = "4")]
    pub ref_block_hash: Vec<u8>,
    /// Time after which no block may include the transaction, in unix milliseconds.
    #[prost(int64, tag = "8")]
    pub expiration: i64,
    /// The memo; empty if the transaction has no memo.
    #[prost(bytes = "vec", tag = "10")]
    pub data: Vec<u8>,
    /// The operations; the chain accepts exactly one.
    #[prost(message, repeated, tag = "11")]
    pub contract: Vec<Contract>,
    /// Creation time in unix milliseconds. Nodes do not check this time. It makes transactions different that are
    /// otherwise equal.
    #[prost(int64, tag = "14")]
    pub timestamp: i64,
    /// The maximum amount of TRX that may be burned for energy, in sun.
    #[prost(int64, tag = "18")]
    pub fee_limit: i64,
}

/// One operation of a transaction (`Transaction.Contract`).
#[derive(Clone, PartialEq, Message)]
pub struct Contract {
    /// The kind of operation, as a number of [`ContractType`].
    #[prost(enumeration = "ContractType", tag = "1")]
    pub r#type: i32,
    /// The message of the operation, such as [`TransferContract`]; `type` decides which. An operation without a message
    /// is invalid.
    #[prost(message, optional, tag = "2")]
    pub parameter: Option<Any>,
    /// The number of the account's permission whose keys must sign the transaction; 0 is the owner permission.
    #[prost(int32, tag = "5")]
    pub permission_id: i32,
}

/// A typed message (`google.protobuf.Any`).
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// [`TYPE_URL`] followed by the name of the message type.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The serialised message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The kinds of operations (contract types) that this crate builds or reads. All others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ContractType {
    /// Creates (activates) an account.
    AccountCreate = 0,
    /// Sends TRX to an account; see [`TransferContract`].
    Transfer = 1,
    /// Calls a smart contract; see [`TriggerSmartContract`].
    TriggerSmart = 31,
    /// Lends the energy or bandwidth of staked TRX to another account; see [`DelegateResourceContract`].
    DelegateResource = 57,
    /// Takes lent energy or bandwidth back; see [`UnDelegateResourceContract`].
    UnDelegateResource = 58,
}

/// The operation that sends TRX to an account.
#[derive(Clone, PartialEq, Message)]
pub struct TransferContract {
    /// The account that pays: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    /// The account that is paid: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub to_address: Vec<u8>,
    /// Amount in sun, above zero.
    #[prost(int64, tag = "3")]
    pub amount: i64,
}

/// The operation that calls a smart contract.
#[derive(Clone, PartialEq, Message)]
pub struct TriggerSmartContract {
    /// The account that calls the contract: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    /// The contract that is called: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub contract_address: Vec<u8>,
    /// TRX sent to the contract, in sun.
    #[prost(int64, tag = "3")]
    pub call_value: i64,
    /// The function selector and the arguments of the call, ABI-encoded.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// The operation that lends a resource (energy or bandwidth) of staked TRX to another account.
#[derive(Clone, PartialEq, Message)]
pub struct DelegateResourceContract {
    /// The account that lends: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    /// The resource that is lent: 0 for bandwidth, 1 for energy.
    #[prost(int32, tag = "2")]
    pub resource: i32,
    /// The amount of staked TRX whose resource is lent, in sun.
    #[prost(int64, tag = "3")]
    pub balance: i64,
    /// The account that gets the resource: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub receiver_address: Vec<u8>,
    /// True if the resource cannot be taken back before `lock_period` has passed.
    #[prost(bool, tag = "5")]
    pub lock: bool,
    /// The duration of the lock, in blocks of 3 seconds; 0 for the default of three days.
    #[prost(int64, tag = "6")]
    pub lock_period: i64,
}

/// The operation that takes a lent resource (energy or bandwidth) back.
#[derive(Clone, PartialEq, Message)]
pub struct UnDelegateResourceContract {
    /// The account that has lent the resource: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub owner_address: Vec<u8>,
    /// The resource that was lent: 0 for bandwidth, 1 for energy.
    #[prost(int32, tag = "2")]
    pub resource: i32,
    /// The amount of staked TRX whose resource is taken back, in sun.
    #[prost(int64, tag = "3")]
    pub balance: i64,
    /// The account that got the resource: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub receiver_address: Vec<u8>,
}

/// The result of a transaction (`Transaction.Result`).
#[derive(Clone, PartialEq, Message)]
pub struct TransactionResult {
    /// The amount of TRX that was burned for the transaction, in sun.
    #[prost(int64, tag = "1")]
    pub fee: i64,
    /// Result of the operation: 0 for success, 1 for failure.
    #[prost(int32, tag = "2")]
    pub ret: i32,
    /// Result of the contract that was run, as a number of [`ContractRet`].
    #[prost(enumeration = "ContractRet", tag = "3")]
    pub contract_ret: i32,
}

/// The result of a contract (`Transaction.Result.contractResult`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ContractRet {
    /// No result was set.
    Default = 0,
    /// The call succeeded. Transfers are credited only with this result.
    Success = 1,
    /// The contract reverted the call, which undid all changes of the call.
    Revert = 2,
    /// The contract jumped to an invalid position of its code.
    BadJumpDestination = 3,
    /// The call needed more memory than allowed.
    OutOfMemory = 4,
    /// A contract that is built into java-tron failed.
    PrecompiledContract = 5,
    /// An instruction needed more values than the stack held.
    StackTooSmall = 6,
    /// The stack exceeded its maximum size.
    StackTooLarge = 7,
    /// The code has an invalid instruction.
    IllegalOperation = 8,
    /// The stack of the virtual machine overflowed.
    StackOverflow = 9,
    /// The fee limit did not cover the energy of the call.
    OutOfEnergy = 10,
    /// The call exceeded the time limit of the block producer.
    OutOfTime = 11,
    /// Calls were nested so deeply that the stack of java-tron overflowed.
    JvmStackOverFlow = 12,
    /// Any other failure.
    Unknown = 13,
    /// A transfer of TRX or TRC10 tokens inside the call failed.
    TransferFailed = 14,
    /// The code of a created contract is invalid.
    InvalidCode = 15,
}

impl ContractRet {
    /// Returns the name that nodes write in JSON.
    pub fn json_name(self) -> &'static str {
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

/// The content of a block header (`BlockHeader.raw`). The last 24 bytes of the block id are the last 24 bytes of the
/// SHA-256 hash of this content.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderRaw {
    /// Time of the block, in unix milliseconds.
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    /// Merkle root of the transactions. In a block without transactions it is empty or 32 zero bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub tx_trie_root: Vec<u8>,
    /// Id of the parent block.
    #[prost(bytes = "vec", tag = "3")]
    pub parent_hash: Vec<u8>,
    /// Height of the block.
    #[prost(int64, tag = "7")]
    pub number: i64,
    /// Number of the block producer; usually 0.
    #[prost(int64, tag = "8")]
    pub witness_id: i64,
    /// Account of the block producer: the prefix 0x41 and 20 bytes.
    #[prost(bytes = "vec", tag = "9")]
    pub witness_address: Vec<u8>,
    /// The version of the block format, which the java-tron release of the block producer sets.
    #[prost(int32, tag = "10")]
    pub version: i32,
    /// Root of the states of all accounts; empty on networks that do not use it.
    #[prost(bytes = "vec", tag = "11")]
    pub account_state_root: Vec<u8>,
}
