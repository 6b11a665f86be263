//! The second endpoint of a model chain, which shows the true chain unless a fault of its own is on.

use chain::{
    BlockHash, BlockRef, Family, InternalTransfers, Transfer, TxPart, WatchSet,
    source::{Corroboration, CrossCheckResult},
};

use crate::{fault::NodeFault, model_chain::ModelChain, transfers::TransferFilter};

/// The names of the two endpoints of a model chain.
const FIRST_ENDPOINT: &str = "a model node";
const SECOND_ENDPOINT: &str = "another model node";

impl ModelChain {
    /// Returns true on EVM and TRON, where it costs nothing to invent a block that looks valid.
    pub fn needs_second_source(&self) -> bool {
        match self.spec.family {
            Family::Bitcoin => false,
            Family::Evm | Family::Tron => true,
        }
    }

    /// Compares the block `at` with the block of the second endpoint at the same height.
    pub fn cross_check_block(&self, at: &BlockRef) -> CrossCheckResult {
        let endpoint = SECOND_ENDPOINT.to_owned();
        if let Some(reason) = self.explain_unusable_second_endpoint() {
            return CrossCheckResult::NoAnswer(reason);
        }
        if self.faults.is_on(NodeFault::ConflictingEndpoint) {
            return CrossCheckResult::Conflicting { endpoint, hash: BlockHash([0xee; 32]) };
        }
        let head = self.head().height.saturating_sub(self.faults.count_second_endpoint_lag_blocks());
        match self.find_block(head.max(self.oldest_height())) {
            Some(head) if at.height > head.header.height => {
                return CrossCheckResult::Behind { endpoint, head: head.header };
            }
            Some(_) | None => {}
        }
        match self.find_block_ref(at.height) {
            Some(block) if block == *at => CrossCheckResult::Confirmed,
            Some(block) => CrossCheckResult::Conflicting { endpoint, hash: block.hash },
            None => CrossCheckResult::NoAnswer(format!("block {} is not kept any more", at.height)),
        }
    }

    /// Returns for each transfer whether the second endpoint shows it in the same block, in the order of `transfers`.
    /// On Bitcoin, returns `Shown` for each transfer, because blocks prove themselves by their work.
    pub fn corroborate_transfers(&self, block: &BlockRef, transfers: &[Transfer]) -> Vec<Corroboration> {
        if !self.needs_second_source() {
            let endpoint = FIRST_ENDPOINT.to_owned();
            return transfers.iter().map(|_| Corroboration::Shown { endpoint: endpoint.clone() }).collect();
        }
        let same_answer = |answer: Corroboration| transfers.iter().map(|_| answer.clone()).collect();
        let contradict = |detail: String| Corroboration::Contradicted { endpoint: SECOND_ENDPOINT.to_owned(), detail };
        match self.cross_check_block(block) {
            CrossCheckResult::NoAnswer(reason) => same_answer(Corroboration::CannotSay { reason }),
            CrossCheckResult::Behind { endpoint, head } => same_answer(Corroboration::CannotSay {
                reason: format!("{endpoint} is behind: its newest block is {}, not {}", head.height, block.height),
            }),
            CrossCheckResult::Conflicting { endpoint, hash } => same_answer(contradict(format!(
                "{FIRST_ENDPOINT} has block {} at height {}, and {endpoint} has block {hash}",
                block.hash, block.height
            ))),
            CrossCheckResult::Confirmed => {
                let true_transfers = self.list_transfers_of_second_endpoint(block, transfers);
                let answer = |transfer: &Transfer| {
                    if self.second_endpoint_shows(block, transfer, &true_transfers) {
                        Corroboration::Shown { endpoint: SECOND_ENDPOINT.to_owned() }
                    } else {
                        contradict(format!(
                            "{FIRST_ENDPOINT} shows transfer {} in block {}, and {SECOND_ENDPOINT} does not",
                            transfer.txid, block.height
                        ))
                    }
                };
                transfers.iter().map(answer).collect()
            }
        }
    }

    /// Returns the reason why there is no answer of a second endpoint at all; `None` when it answers.
    fn explain_unusable_second_endpoint(&self) -> Option<String> {
        if !self.needs_second_source() || self.faults.is_on(NodeFault::SingleEndpoint) {
            return Some("there is no endpoint of another provider".to_owned());
        }
        let silent = self.faults.is_on(NodeFault::SilentSecondEndpoint);
        silent.then(|| format!("{SECOND_ENDPOINT} does not answer"))
    }

    /// Returns the transfers of a block to the receivers of `asked` that the second endpoint shows.
    fn list_transfers_of_second_endpoint(&self, block: &BlockRef, asked: &[Transfer]) -> Vec<Transfer> {
        let found = self.find_block(block.height);
        let Some(found) = found.filter(|_| !self.faults.is_on(NodeFault::SecondEndpointHidesTransfers)) else {
            return Vec::new();
        };
        let receivers = WatchSet::default();
        asked.iter().for_each(|transfer| receivers.insert(transfer.to));
        let watched = receivers.lock_addresses();
        let filter = TransferFilter { watched: &watched, internal_transfers: InternalTransfers::Included };
        self.list_watched_transfers(&found.txs, filter)
    }

    /// Returns true when the second endpoint shows a transfer of a block that it has. An increase of a balance counts
    /// as shown if the balance after the block is at least `transfer.amount`.
    fn second_endpoint_shows(&self, block: &BlockRef, transfer: &Transfer, true_transfers: &[Transfer]) -> bool {
        match transfer.index.part {
            TxPart::BalanceIncrease => {
                !self.faults.is_on(NodeFault::SecondEndpointHidesTransfers)
                    && self.balance_at(block.height, &transfer.asset, transfer.to) >= transfer.amount
            }
            TxPart::Value | TxPart::Log(_) | TxPart::Internal(_) | TxPart::Output(_) => {
                true_transfers.iter().any(|shown| shown.is_same_movement(transfer))
            }
        }
    }
}
