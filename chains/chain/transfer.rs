//! Transfers: movements of an asset on a chain.

use std::fmt;

use crate::{AddressKey, Amount, AssetId};

/// The identifier of a transaction: 32 bytes in the order in which the chain's own tools print them.
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

/// The part of a transaction that moves an asset. The index of the transaction and this part identify one transfer of a
/// block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxPart {
    /// The native coin that the transaction itself carries (the `value` field of an EVM transaction).
    Value,
    /// An event log of a token contract; the field is the index of the log in the block.
    Log(u32),
    /// A call inside the transaction that carries native coin; the field is the index of the call in trace order.
    Internal(u32),
    /// An output of a Bitcoin transaction; the field is the index of the output.
    Output(u32),
    /// An increase of a balance that no visible transfer explains. The driver finds it by comparing balances.
    BalanceIncrease,
}

impl TxPart {
    /// The range of the codes that [`TxPart::code`] returns for [`TxPart::Output`].
    pub const OUTPUT_CODES: std::ops::Range<i64> = (3 << 32)..(4 << 32);

    /// Returns the number that the database stores for this part. Each part has another number, and the numbers have
    /// the same order as the parts.
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

    /// Returns the part whose [`TxPart::code`] is `code`, or `None` when no part has this code.
    pub fn from_code(code: i64) -> Option<TxPart> {
        let index = u32::try_from(code & i64::from(u32::MAX)).ok()?;
        match code >> 32 {
            0 if index == 0 => Some(TxPart::Value),
            1 => Some(TxPart::Log(index)),
            2 => Some(TxPart::Internal(index)),
            3 => Some(TxPart::Output(index)),
            4 if index == 0 => Some(TxPart::BalanceIncrease),
            _ => None,
        }
    }
}

/// The position of a transfer inside its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferIndex {
    /// The index of the transaction in the block, from 0.
    pub tx_index: u32,
    /// The part of the transaction that moves the asset.
    pub part: TxPart,
}

/// A movement of an asset to a watched address by a successful transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The identifier of the transaction. All bytes are zero for [`TxPart::BalanceIncrease`], because only the block is
    /// known there.
    pub txid: TxId,
    /// The position of the transfer in its block.
    pub index: TransferIndex,
    /// The asset that the transfer moved.
    pub asset: AssetId,
    /// The watched address that received the asset.
    pub to: AddressKey,
    /// The sender's address as canonical text. `None` on Bitcoin, where a transaction has no single sender, and for
    /// [`TxPart::BalanceIncrease`].
    pub from: Option<String>,
    /// The amount of the transfer in base units, which may be zero.
    pub amount: Amount,
}

impl Transfer {
    /// Returns true when both are the same transfer of a block with the same receiver, asset and amount. The sender is
    /// not compared.
    pub fn is_same_movement(&self, other: &Transfer) -> bool {
        (self.txid, self.index, self.to, self.amount) == (other.txid, other.index, other.to, other.amount)
            && self.asset == other.asset
    }
}

/// A reference to an output of a Bitcoin transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// The transaction that created the output.
    pub txid: TxId,
    /// The index of the output in that transaction.
    pub vout: u32,
}

/// A transaction input that spends a watched output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    /// The watched output.
    pub output: OutPoint,
    /// The transaction that spends the output.
    pub spent_by: TxId,
}

/// A transfer in a node's mempool or, on TRON, in a block that is not solidified yet. The buyer sees the transfer, but
/// the ledger never books it. The time of the first sight is stored, because a payment first seen before its invoice
/// expires is in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnconfirmedTransfer {
    /// The identifier of the unconfirmed transaction.
    pub txid: TxId,
    /// The part of the transaction that moves the asset.
    pub part: TxPart,
    /// The asset that the transfer moves once it is confirmed.
    pub asset: AssetId,
    /// The watched address that receives the asset.
    pub to: AddressKey,
    /// The amount of the transfer in base units.
    pub amount: Amount,
    /// True if the transaction signals that its sender may replace it (BIP125).
    pub replaceable: bool,
}

#[cfg(test)]
mod tests {
    use super::TxPart;

    #[test]
    fn the_code_of_a_part_is_decoded_to_the_same_part() {
        let parts =
            [TxPart::Value, TxPart::Log(7), TxPart::Internal(u32::MAX), TxPart::Output(0), TxPart::BalanceIncrease];
        for part in parts {
            assert_eq!(TxPart::from_code(part.code()), Some(part));
        }
        assert!(parts.map(TxPart::code).is_sorted());
        for code in [-1, 1, 5 << 32, (4 << 32) + 1, i64::MIN, i64::MAX] {
            assert_eq!(TxPart::from_code(code), None, "{code}");
        }
    }
}
