//! Movements of value on a chain.

use std::fmt;

use crate::{AddressKey, Amount, AssetId};

/// 32 bytes in the order in which the chain's own text shows them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 32]);

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which movement inside a transaction. Together with the transaction's index it names a movement of a block once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxPart {
    /// The value that the transaction itself carries.
    Value,
    /// An event log, by its index in the block.
    Log(u32),
    /// A call inside the transaction, by its index in trace order.
    Internal(u32),
    /// A transaction output.
    Output(u32),
    /// A rise of balance that no readable movement explains, found by comparing balances.
    BalanceIncrease,
}

impl TxPart {
    /// The codes of outputs, from the first to the one after the last.
    pub const OUTPUT_CODES: std::ops::Range<i64> = (3 << 32)..(4 << 32);

    /// A number that orders and names parts, as the database stores it.
    pub fn code(self) -> i64 {
        let (kind, index) = match self {
            TxPart::Value => (0, 0),
            TxPart::Log(index) => (1, index),
            TxPart::Internal(index) => (2, index),
            TxPart::Output(index) => (3, index),
            TxPart::BalanceIncrease => (4, 0),
        };
        (kind << 32) | i64::from(index)
    }
}

/// The place of a movement inside its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferIndex {
    pub tx_index: u32,
    pub part: TxPart,
}

/// Value that reached one of our addresses in a successful transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Zero for [`TxPart::BalanceIncrease`], where only the block is known.
    pub txid: TxId,
    pub index: TransferIndex,
    pub asset: AssetId,
    pub to: AddressKey,
    /// Canonical text of the sender where the chain has one.
    pub from: Option<String>,
    pub amount: Amount,
}

/// An output of a transaction, as those that spend it name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OutPoint {
    pub txid: TxId,
    pub vout: u32,
}

/// One of our outputs is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    pub output: OutPoint,
    /// The transaction that spends it.
    pub spent_by: TxId,
}

/// A transfer that no block which the follower reads has yet: in a node's mempool, or on TRON in a block that is not
/// solidified. It is shown and remembered (money first seen inside the window is in time), never booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnconfirmedTransfer {
    pub txid: TxId,
    pub part: TxPart,
    pub asset: AssetId,
    pub to: AddressKey,
    pub amount: Amount,
    /// The sender announced that it may replace the transaction (BIP125).
    pub replaceable: bool,
}
