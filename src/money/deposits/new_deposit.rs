//! A deposit before it is stored: built from a transfer in a block and the invoice whose address received it.

use chain::{BlockHash, Header, Transfer, TransferIndex, TxId};

use crate::assets::FollowedChain;
use crate::deposits::{Corroboration, Deposit, State};
use crate::invoices::{Disposition, Invoice};
use ids::{AddressId, DepositId};

/// A deposit that is not stored yet.
#[derive(Debug)]
pub(super) struct NewDeposit {
    /// The deposit; its id is 0 until it is stored.
    pub deposit: Deposit,
    /// The state in which the deposit is stored.
    pub to: State,
    /// The address that received the transfer.
    pub address: AddressId,
    /// The hash of the block, and its time in Unix seconds.
    pub block: (BlockHash, i64),
    pub txid: TxId,
    /// The index of the transaction in its block, and the part of the transaction. Together they identify the transfer
    /// in its block.
    pub place: TransferIndex,
    /// The sending address; `None` on chains whose transfers have no single sender, such as Bitcoin.
    pub sender: Option<String>,
}

impl NewDeposit {
    /// Returns the deposit of a transfer to the address of `invoice`. It needs the confirmations that the invoice or its
    /// block requires, whichever number is higher.
    pub fn from_transfer(
        chain: &FollowedChain,
        header: &Header,
        transfer: &Transfer,
        invoice: &Invoice,
        used: Disposition,
        block_confirmations: u32,
        corroboration: Corroboration,
    ) -> NewDeposit {
        // The required confirmations in the invoice apply to its own chain only. A sibling chain needs its own number.
        let confirmations =
            if invoice.chain == chain.id { invoice.confirmations } else { chain.depths.required_confirmations(None) };
        let confirmations = confirmations.max(block_confirmations);
        let deposit = Deposit {
            id: DepositId(0),
            invoice: invoice.id,
            height: header.height,
            confirm_height: header.height + u64::from(confirmations) - 1,
            asset: transfer.asset.clone(),
            amount: transfer.amount,
            state: State::Seen,
            used,
            corroboration,
            single_source_usd_cents: None,
        };
        NewDeposit {
            deposit,
            to: State::Seen,
            address: invoice.address_id,
            block: (header.hash, header.time),
            txid: transfer.txid,
            place: transfer.index,
            sender: transfer.from.clone(),
        }
    }
}
