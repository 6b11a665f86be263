//! Transfers: movements of value on a chain.

use std::fmt;

use crate::{AddressKey, Amount, AssetId};

/// A transaction's identifier: 32 bytes in the order in which the chain's own tools print them.
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

/// The part of a transaction that moves value. With the transaction's index it identifies one transfer of a block.
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
    /// An increase of a balance that no visible transfer explains, found by comparing balances.
    BalanceIncrease,
}

impl TxPart {
    /// The range of the codes of [`TxPart::Output`].
    pub const OUTPUT_CODES: std::ops::Range<i64> = (3 << 32)..(4 << 32);

    /// The number that the database stores: unique for each part, and in the order of parts.
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

/// The position of a transfer inside its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferIndex {
    /// The index of the transaction in the block, from 0.
    pub tx_index: u32,
    /// The part of the transaction.
    pub part: TxPart,
}

/// Value that a successful transaction moved to a watched address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The transaction; all zeros for [`TxPart::BalanceIncrease`], where only the block is known.
    pub txid: TxId,
    /// The position in the block.
    pub index: TransferIndex,
    /// The asset that moved.
    pub asset: AssetId,
    /// The recipient.
    pub to: AddressKey,
    /// Canonical text of the sender's address; `None` on Bitcoin, where a transaction has no single sender, and for
    /// [`TxPart::BalanceIncrease`].
    pub from: Option<String>,
    /// The amount in base units; may be zero.
    pub amount: Amount,
}

/// A reference to an output of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// The transaction that created the output.
    pub txid: TxId,
    /// The index of the output in that transaction.
    pub vout: u32,
}

/// The spending of a watched output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    /// The output that is spent.
    pub output: OutPoint,
    /// The transaction that spends it.
    pub spent_by: TxId,
}

/// A transfer that the follower cannot read from a block yet: it is in a node's mempool, or on TRON in a block that is not
/// solidified. It is shown to the buyer and its time is stored (a payment first seen before the invoice expires is in
/// time), but it is never booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnconfirmedTransfer {
    /// The transaction.
    pub txid: TxId,
    /// The part of the transaction.
    pub part: TxPart,
    /// The asset that would move.
    pub asset: AssetId,
    /// The recipient.
    pub to: AddressKey,
    /// The amount in base units.
    pub amount: Amount,
    /// The transaction signals that its sender may replace it (BIP125).
    pub replaceable: bool,
}
