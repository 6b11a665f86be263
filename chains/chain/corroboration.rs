//! Compares the transfers that one endpoint (the first endpoint) returned with the transfers that endpoints of other
//! providers show, and decides whether they confirm or contradict each transfer.

use crate::{
    BlockRef, Transfer,
    source::{Corroboration, CrossCheckResult},
};

/// The answer of one endpoint about one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The endpoint shows the transfer.
    Shown,
    /// The endpoint has the block, but the block does not contain the transfer. The text is the reason.
    Absent(String),
    /// The endpoint cannot tell whether the transfer exists. The text is the reason.
    Unknown(String),
}

/// The transfers of one block about which other providers are asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The block that contains the transfers.
    pub block: &'a BlockRef,
    /// The transfers that the first endpoint returned.
    pub transfers: &'a [Transfer],
    /// The label of the endpoint that returned the transfers; several labels if several endpoints returned them.
    pub first: &'a str,
}

impl Question<'_> {
    /// Returns the same verdict for all transfers, from the result of a cross-check that did not find the block at
    /// another provider.
    pub fn judge_all_by_cross_check(&self, result: CrossCheckResult) -> Vec<Corroboration> {
        let (first, at) = (self.first, self.block);
        let verdict = match result {
            CrossCheckResult::Confirmed => {
                Corroboration::CannotSay { reason: "no other endpoint was asked".to_owned() }
            }
            CrossCheckResult::Conflicting { endpoint, hash } => {
                let detail =
                    format!("{first} has block {} at height {}, and {endpoint} has block {hash}", at.hash, at.height);
                Corroboration::Contradicted { endpoint, detail }
            }
            CrossCheckResult::Behind { endpoint, head } => Corroboration::CannotSay {
                reason: format!("{endpoint} returned no block {}; its newest block is {}", at.height, head.height),
            },
            CrossCheckResult::NoAnswer(reason) => Corroboration::CannotSay { reason },
        };
        vec![verdict; self.transfers.len()]
    }

    /// Returns the verdict on each transfer from the findings of endpoints that all have the same block. `answers`
    /// contains the label of each endpoint and its findings, one per transfer. The verdict is `Shown` when all
    /// endpoints show the transfer. It is also `Shown` when `answers` is empty, because no other endpoint is asked
    /// about transfers that the operator's own node returned. `last` is the label that `Shown` contains.
    pub fn judge_findings_or_accept_without_answers(
        &self,
        last: &str,
        answers: &[(String, Vec<Finding>)],
    ) -> Vec<Corroboration> {
        let judge = |index: usize| {
            let mut verdict = Corroboration::Shown { endpoint: last.to_owned() };
            for (endpoint, findings) in answers {
                match findings.get(index) {
                    Some(Finding::Shown) => {}
                    Some(Finding::Absent(why)) => return self.contradict(endpoint, why),
                    Some(Finding::Unknown(why)) => {
                        verdict = Corroboration::CannotSay { reason: format!("{endpoint}: {why}") };
                    }
                    None => verdict = Corroboration::CannotSay { reason: format!("{endpoint} gave no answer") },
                }
            }
            verdict
        };
        (0..self.transfers.len()).map(judge).collect()
    }

    /// Returns the verdict `Contradicted` for a transfer that `endpoint` does not show, for the reason `why`.
    fn contradict(&self, endpoint: &str, why: &str) -> Corroboration {
        let (first, height) = (self.first, self.block.height);
        let detail = format!("{first} shows the transfer in block {height}, and {endpoint} does not: {why}");
        Corroboration::Contradicted { endpoint: endpoint.to_owned(), detail }
    }
}

/// Returns one finding for each transfer in `asked`: `Shown` if a transfer in `shown` has the same transaction, kind,
/// asset, receiver and amount. Each transfer in `shown` matches only once. Positions are not compared, because nodes
/// number logs and calls differently.
pub fn match_transfers(asked: &[&Transfer], shown: &[Transfer]) -> Vec<Finding> {
    let mut left: Vec<&Transfer> = shown.iter().collect();
    let is_match = |one: &Transfer, two: &Transfer| {
        (one.txid, &one.asset, one.to, one.amount) == (two.txid, &two.asset, two.to, two.amount)
            && std::mem::discriminant(&one.index.part) == std::mem::discriminant(&two.index.part)
    };
    let judge = |transfer: &&Transfer| match left.iter().position(|shown| is_match(transfer, shown)) {
        Some(found) => {
            left.swap_remove(found);
            Finding::Shown
        }
        None => Finding::Absent("its transaction has no such transfer".to_owned()),
    };
    asked.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddressKey, Amount, AssetId, AssetKind, BlockHash, ChainId, TransferIndex, TxId, TxPart};

    fn transfer(txid: u8, part: TxPart, amount: u64) -> Transfer {
        Transfer {
            txid: TxId([txid; 32]),
            index: TransferIndex { tx_index: 0, part },
            asset: AssetId::on_chain(&ChainId::parse("chain").unwrap(), &AssetKind::Native),
            to: AddressKey([1; 20]),
            from: None,
            amount: Amount::from(amount),
        }
    }

    #[test]
    fn a_shown_transfer_matches_one_asked_transfer_of_the_same_kind() {
        let shown = [transfer(1, TxPart::Log(7), 5), transfer(1, TxPart::Internal(0), 6)];
        let asked = [
            transfer(1, TxPart::Log(2), 5),
            transfer(1, TxPart::Log(3), 5),
            transfer(1, TxPart::Log(0), 6),
            transfer(2, TxPart::Log(7), 5),
        ];
        let found = match_transfers(&asked.iter().collect::<Vec<_>>(), &shown);
        assert_eq!(found[0], Finding::Shown, "the position may differ");
        assert!(found[1..].iter().all(|found| matches!(found, Finding::Absent(_))), "{found:?}");
    }

    #[test]
    fn a_transfer_is_shown_only_when_every_asked_endpoint_shows_it() {
        let transfers = [1, 2, 3].map(|txid| transfer(txid, TxPart::Value, 5));
        let block = BlockRef { height: 4, hash: BlockHash([4; 32]) };
        let question = Question { block: &block, transfers: &transfers, first: "a.example:443" };
        let unknown = || Finding::Unknown("it is throttled".to_owned());
        let absent = || Finding::Absent("the transaction failed".to_owned());
        let answers = [
            ("b.example:443".to_owned(), vec![Finding::Shown, Finding::Shown, unknown()]),
            ("c.example:443".to_owned(), vec![Finding::Shown, unknown(), absent()]),
        ];
        let verdicts = question.judge_findings_or_accept_without_answers("c.example:443", &answers);
        assert_eq!(verdicts[0], Corroboration::Shown { endpoint: "c.example:443".to_owned() });
        assert_eq!(verdicts[1], Corroboration::CannotSay { reason: "c.example:443: it is throttled".to_owned() });
        let detail = "a.example:443 shows the transfer in block 4, and c.example:443 does not: the transaction failed"
            .to_owned();
        assert_eq!(verdicts[2], Corroboration::Contradicted { endpoint: "c.example:443".to_owned(), detail });
    }
}
