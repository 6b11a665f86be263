//! The transfers of a model chain's transactions to watched addresses.

use std::sync::Arc;

use chain::{Family, InternalTransfers, Transfer, TransferIndex, TxPart, UnconfirmedTransfer, watch::WatchedAddresses};

use crate::{address, model_chain::ModelChain, transaction::SignedTx};

/// Selects the transfers that a model node returns.
#[derive(Clone, Copy)]
pub struct TransferFilter<'a> {
    /// Only transfers to these addresses are returned.
    pub watched: &'a WatchedAddresses<'a>,
    /// Transfers by contracts are returned only if this is [`InternalTransfers::Included`].
    pub internal_transfers: InternalTransfers,
}

impl ModelChain {
    /// Returns the transfers of the ready transactions in the mempool to watched addresses. None of them is
    /// replaceable, because transactions of this model do not signal a replacement.
    pub fn list_watched_unconfirmed_transfers(&self, filter: TransferFilter<'_>) -> Vec<UnconfirmedTransfer> {
        let unconfirmed = |transfer: Transfer| UnconfirmedTransfer {
            txid: transfer.txid,
            part: transfer.index.part,
            asset: transfer.asset,
            to: transfer.to,
            amount: transfer.amount,
            replaceable: false,
        };
        self.list_watched_transfers(self.mempool.list_ready_transactions(), filter)
            .into_iter()
            .map(unconfirmed)
            .collect()
    }

    /// Returns the transfers of `txs`, the transactions of a block in order, to watched addresses. Leaves out assets
    /// that are not listed, amounts of zero and transactions that reverted. The transfers ascend by their index.
    pub fn list_watched_transfers<'t>(
        &self,
        txs: impl IntoIterator<Item = &'t Arc<SignedTx>>,
        filter: TransferFilter<'_>,
    ) -> Vec<Transfer> {
        let mut logs = 0u32..;
        let mut found = Vec::new();
        for (tx_index, tx) in (0u32..).zip(txs).filter(|(_, tx)| !tx.draft.reverts) {
            let (mut internal_transfers, mut is_value_unused) = (0u32.., true);
            for (index, moved) in (0u32..).zip(&tx.draft.moves) {
                let next = |counter: &mut dyn Iterator<Item = u32>| counter.next().expect("fewer than 2^32");
                let part = match self.spec.family {
                    Family::Bitcoin => TxPart::Output(index),
                    Family::Evm | Family::Tron if moved.asset != self.state.rules.native => {
                        TxPart::Log(next(&mut logs))
                    }
                    Family::Evm | Family::Tron if !moved.internal && is_value_unused => {
                        is_value_unused = false;
                        TxPart::Value
                    }
                    Family::Evm | Family::Tron => TxPart::Internal(next(&mut internal_transfers)),
                };
                let hidden =
                    matches!(part, TxPart::Internal(_)) && filter.internal_transfers != InternalTransfers::Included;
                let listed = self.spec.assets.iter().any(|asset| asset.id == moved.asset);
                if hidden || !listed || moved.amount.is_zero() || !filter.watched.contains(&moved.to.key) {
                    continue;
                }
                found.push(Transfer {
                    txid: tx.txid,
                    index: TransferIndex { tx_index, part },
                    asset: moved.asset.clone(),
                    to: moved.to.key,
                    from: address::format_sender_unless_bitcoin(self.spec.family, tx.sender()),
                    amount: moved.amount,
                });
            }
        }
        found.sort_by_key(|transfer| transfer.index);
        found
    }
}
