//! Asks an endpoint of another provider whether it shows the transfers that a first endpoint returned.
//!
//! The other provider must have the same block. If the driver has verified the native payments and token transfers of
//! the block against the roots in its header, nothing more is requested for them. Otherwise the other provider's
//! receipts must show them. No root commits to transfers by contracts: the other provider's traces must show them, or
//! balances that are proven by the state root. When traces and proofs are missing, the result is "unknown", not
//! "absent".

use std::collections::BTreeMap;

use alloy_primitives::B256;
use chain::{
    Address, AddressKey, Amount, AssetId, BlockRef, Transfer, TransferIndex, TxId, TxPart, WatchSet,
    address::encode_evm_address,
    corroboration::{Finding, Question, match_transfers},
    source::Corroboration,
};
use rpc::{Rejection, Reply, RpcError, Target, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Evm, balances::SumProof, block, cross_check::BlockAnswer, hex, receipts::TxReceipt};

/// Maximum number of transfers that one call of `confirm` compares. Further transfers get the result `CannotSay`.
const TRANSFERS_MAX: usize = 500;
/// Maximum number of calls in one JSON-RPC batch.
const CALLS_PER_BATCH: usize = 100;

/// The answer of one endpoint about one transaction.
enum TxAnswer {
    /// The transaction succeeded and has these transfers to the asked addresses.
    Transfers(Vec<Transfer>),
    /// The transaction has no transfers, for this reason.
    Absent(&'static str),
    /// The endpoint has the transaction in its block but returns no receipt.
    Unknown,
}

/// The fields of a transaction from `eth_getTransactionByHash` that carry a native payment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransactionJson<'a> {
    #[serde(default)]
    block_hash: Option<&'a str>,
    #[serde(default)]
    to: Option<&'a str>,
    value: &'a str,
}

impl Evm {
    /// Asks endpoints of other providers for the same block and its transfers. Returns one result for each of
    /// `transfers`, in their order; see [`chain::Source::confirm`].
    pub(crate) async fn ask_other_providers_for_transfers(
        &self,
        block: &BlockRef,
        transfers: &[Transfer],
    ) -> Vec<Corroboration> {
        if transfers.is_empty() {
            return Vec::new();
        }
        let origins = self.find_origins_of_proven_block(block);
        let first = self.pool.name_origins_or_all_endpoints(origins.as_deref());
        let (asked, unasked) = transfers.split_at(transfers.len().min(TRANSFERS_MAX));
        let question = Question { block, transfers: asked, first: &first };
        let mut verdicts = match self.fetch_same_block_from_other_providers(block, origins.as_deref()).await {
            Ok(answers) => {
                let mut findings = Vec::new();
                for answer in &answers {
                    let found = self.check_transfers_at_endpoint(&question, origins.is_some(), answer).await;
                    findings.push((self.pool.endpoint_label(answer.endpoint), found));
                }
                let last = findings.last().map_or(first.clone(), |(endpoint, _)| endpoint.clone());
                question.judge_findings_or_accept_without_answers(&last, &findings)
            }
            Err(result) => question.judge_all_by_cross_check(result),
        };
        verdicts.extend(unasked.iter().map(|_| Corroboration::CannotSay {
            reason: format!("at most {TRANSFERS_MAX} transfers of a block are compared at once"),
        }));
        verdicts
    }

    /// Returns one finding for each transfer of the question: whether the endpoint of `answer` shows the transfer. If
    /// `are_proven` is true, the header proves the native payments and token transfers, so they count as shown without
    /// a request.
    async fn check_transfers_at_endpoint(
        &self,
        question: &Question<'_>,
        are_proven: bool,
        answer: &BlockAnswer,
    ) -> Vec<Finding> {
        let mut findings = vec![Finding::Shown; question.transfers.len()];
        let mut store = |chosen: Vec<usize>, found: Vec<Finding>| {
            for (index, finding) in chosen.into_iter().zip(found) {
                findings[index] = finding;
            }
        };
        let choose = |is_chosen: fn(TxPart) -> bool| -> (Vec<usize>, Vec<&Transfer>) {
            let numbered = question.transfers.iter().enumerate();
            numbered.filter(|(_, transfer)| is_chosen(transfer.index.part)).unzip()
        };
        let (places, listed) = choose(|part| matches!(part, TxPart::Value | TxPart::Log(_) | TxPart::Output(_)));
        if !are_proven && !listed.is_empty() {
            store(places, self.find_payments_in_receipts(answer, &listed).await);
        }
        let (places, internal) = choose(|part| matches!(part, TxPart::Internal(_)));
        if !internal.is_empty() {
            store(places, self.find_in_traces_or_proofs(question, answer, &internal).await);
        }
        let (places, increases) = choose(|part| part == TxPart::BalanceIncrease);
        if !increases.is_empty() {
            store(places, self.find_by_balances_at_least_amount(question.block, answer, &increases).await);
        }
        findings
    }

    /// Looks for native payments and token transfers in the receipts of one endpoint.
    async fn find_payments_in_receipts(&self, answer: &BlockAnswer, asked: &[&Transfer]) -> Vec<Finding> {
        match self.fetch_transactions_with_transfers(answer, asked).await {
            Ok(transactions) => match_transfers_with_transactions(asked, &transactions),
            Err(failure) => vec![Finding::Unknown(failure.to_string()); asked.len()],
        }
    }

    /// Requests the receipts of the asked transactions, and the transactions that carry native payments, from one
    /// endpoint.
    async fn fetch_transactions_with_transfers(
        &self,
        answer: &BlockAnswer,
        asked: &[&Transfer],
    ) -> Result<BTreeMap<TxId, TxAnswer>, RpcError> {
        let mut found: BTreeMap<TxId, TxAnswer> = asked
            .iter()
            .map(|transfer| (transfer.txid, TxAnswer::Absent("its block has no such transaction")))
            .collect();
        let receivers = build_watch_set_of_receivers(asked);
        let in_block: Vec<[B256; 1]> =
            found.keys().map(|txid| [B256::from(txid.0)]).filter(|[txid]| answer.body.txids.contains(txid)).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(receipt) = reply.parse_result::<Option<TxReceipt<'_>>>()? else {
                return Ok(Verdict::Accept(TxAnswer::Unknown));
            };
            let [txid] = in_block[i];
            if !receipt.belongs_to_transaction(txid, &answer.body) {
                return Ok(Verdict::Accept(TxAnswer::Absent("its receipt is in another block")));
            }
            let transfers =
                receipt.list_watched_transfers_if_succeeded(TxId(txid.0), &self.contracts, &receivers.lock_addresses());
            Ok(Verdict::Accept(transfers.map_or(TxAnswer::Absent("the transaction failed"), TxAnswer::Transfers)))
        };
        let (only, method) = (Target::Only(answer.endpoint), "eth_getTransactionReceipt");
        let receipts =
            self.pool.send_calls_batched_or_one_by_one_to(only, method, &in_block, CALLS_PER_BATCH, accept).await;
        for ([txid], receipt) in in_block.iter().zip(receipts.into_all_results()?) {
            found.insert(TxId(txid.0), receipt);
        }
        self.fetch_and_add_native_payments(answer, asked, &mut found).await?;
        Ok(found)
    }

    /// Requests the transactions of the native payments in `asked` and adds the payments to `found`. Leaves out
    /// transactions that failed according to their receipts.
    async fn fetch_and_add_native_payments(
        &self,
        answer: &BlockAnswer,
        asked: &[&Transfer],
        found: &mut BTreeMap<TxId, TxAnswer>,
    ) -> Result<(), RpcError> {
        let Some(native) = &self.native else { return Ok(()) };
        let succeeded = |txid: &TxId| matches!(found.get(txid), Some(TxAnswer::Transfers(_)));
        let payments = asked.iter().filter(|transfer| transfer.index.part == TxPart::Value);
        let mut paying: Vec<TxId> = payments.map(|transfer| transfer.txid).filter(succeeded).collect();
        paying.sort_unstable();
        paying.dedup();
        let params: Vec<[B256; 1]> = paying.iter().map(|txid| [B256::from(txid.0)]).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Accept(None)) };
            let tx: TransactionJson<'_> = block::parse_json(raw.get()).map_err(Rejection::Invalid)?;
            Ok(Verdict::Accept(tx.to_payment_if_in_block(paying[i], answer, native)))
        };
        let (only, method) = (Target::Only(answer.endpoint), "eth_getTransactionByHash");
        let transactions =
            self.pool.send_calls_batched_or_one_by_one_to(only, method, &params, CALLS_PER_BATCH, accept).await;
        for (txid, payment) in paying.iter().zip(transactions.into_all_results()?) {
            if let Some(TxAnswer::Transfers(transfers)) = found.get_mut(txid) {
                transfers.extend(payment);
            }
        }
        Ok(())
    }

    /// Looks for transfers by contracts in the traces of one endpoint, and in proven balances when it has no usable
    /// traces.
    async fn find_in_traces_or_proofs(
        &self,
        question: &Question<'_>,
        answer: &BlockAnswer,
        asked: &[&Transfer],
    ) -> Vec<Finding> {
        let receivers = build_watch_set_of_receivers(asked);
        match self.fetch_internal_transfers_from_target(Target::Only(answer.endpoint), &answer.body, &receivers).await {
            Ok(Some(shown)) => match_transfers(asked, &shown),
            Ok(None) => {
                self.find_in_proven_balance_increases(question, answer, asked, "traces are not configured").await
            }
            Err(failure) => self.find_in_proven_balance_increases(question, answer, asked, &failure.to_string()).await,
        }
    }

    /// Compares, for each receiver, the sum of the native transfers in the question with the proven increase of the
    /// receiver's balance. `why` is the reason why the endpoint returned no traces.
    async fn find_in_proven_balance_increases(
        &self,
        question: &Question<'_>,
        answer: &BlockAnswer,
        asked: &[&Transfer],
        why: &str,
    ) -> Vec<Finding> {
        let unknown = || Finding::Unknown(format!("it returns no traces ({why}), and no proof shows the balances"));
        if !self.config.verify.header {
            return vec![unknown(); asked.len()];
        }
        let mut sums: BTreeMap<AddressKey, Amount> = asked.iter().map(|asked| (asked.to, Amount::ZERO)).collect();
        let is_native = |transfer: &&Transfer| matches!(transfer.index.part, TxPart::Value | TxPart::Internal(_));
        for transfer in question.transfers.iter().filter(is_native) {
            if let Some(sum) = sums.get_mut(&transfer.to) {
                *sum = sum.checked_add(transfer.amount).unwrap_or(Amount::MAX);
            }
        }
        let received: Vec<(Address, Amount)> =
            sums.into_iter().map(|(to, sum)| (encode_evm_address(to), sum)).collect();
        let header = &answer.body.header;
        let parent = BlockRef { height: header.height.saturating_sub(1), hash: header.parent };
        let proofs = self.check_sums_against_proven_balances(&parent, question.block, &received).await;
        let proofs: BTreeMap<AddressKey, SumProof> =
            received.iter().map(|(address, _)| address.key).zip(proofs).collect();
        let judge = |transfer: &&Transfer| match proofs.get(&transfer.to) {
            Some(SumProof::Received) => Finding::Shown,
            Some(SumProof::NotReceived) => {
                Finding::Absent("the balance of the receiver, which the state root proves, did not grow as much".into())
            }
            Some(SumProof::Missing) | None => unknown(),
        };
        asked.iter().map(judge).collect()
    }

    /// Returns, for each transfer in `asked`, whether the balance of its receiver after the block is at least the
    /// amount. The balances are native ones that the state root proves or else those that the endpoint of `answer`
    /// returns.
    async fn find_by_balances_at_least_amount(
        &self,
        at: &BlockRef,
        answer: &BlockAnswer,
        asked: &[&Transfer],
    ) -> Vec<Finding> {
        let mut findings = vec![Finding::Unknown("the asset is not configured".to_owned()); asked.len()];
        for asset in &self.config.assets {
            let places: Vec<usize> = (0..asked.len()).filter(|i| asked[*i].asset == asset.id).collect();
            let addresses: Vec<Address> = places.iter().map(|i| encode_evm_address(asked[*i].to)).collect();
            if places.is_empty() {
                continue;
            }
            let balances =
                self.fetch_proven_balances_or_from_endpoint(answer.endpoint, at, &asset.kind, &addresses).await;
            for (n, place) in places.into_iter().enumerate() {
                findings[place] = match &balances {
                    Ok(balances) if balances.get(n).is_some_and(|balance| *balance >= asked[place].amount) => {
                        Finding::Shown
                    }
                    Ok(_) => Finding::Absent(format!("the balance of {} is lower", addresses[n].text)),
                    Err(failure) => Finding::Unknown(failure.to_string()),
                };
            }
        }
        findings
    }
}

impl TransactionJson<'_> {
    /// Returns the native payment of a transaction, or `None` when the transaction is in another block.
    fn to_payment_if_in_block(&self, txid: TxId, answer: &BlockAnswer, native: &AssetId) -> Option<Transfer> {
        let in_block = self.block_hash.and_then(hex::parse_hash)?.0 == answer.body.header.hash.0;
        let to = hex::parse_address(self.to?).filter(|_| in_block)?;
        Some(Transfer {
            txid,
            index: TransferIndex { tx_index: 0, part: TxPart::Value },
            asset: native.clone(),
            to: AddressKey(to.into()),
            from: None,
            amount: Amount::new(hex::parse_u256(self.value)?),
        })
    }
}

/// Returns a watch set of the receivers of transfers.
fn build_watch_set_of_receivers(transfers: &[&Transfer]) -> WatchSet {
    let receivers = WatchSet::default();
    transfers.iter().for_each(|transfer| receivers.insert(transfer.to));
    receivers
}

/// Returns one finding for each asked transfer, given the answers about their transactions.
fn match_transfers_with_transactions(asked: &[&Transfer], transactions: &BTreeMap<TxId, TxAnswer>) -> Vec<Finding> {
    let shown: Vec<Transfer> = transactions
        .values()
        .filter_map(|answer| match answer {
            TxAnswer::Transfers(transfers) => Some(transfers.clone()),
            TxAnswer::Absent(_) | TxAnswer::Unknown => None,
        })
        .flatten()
        .collect();
    let matched = match_transfers(asked, &shown);
    let judge = |(transfer, matched): (&&Transfer, Finding)| match transactions.get(&transfer.txid) {
        Some(TxAnswer::Transfers(_)) => matched,
        Some(TxAnswer::Absent(why)) => Finding::Absent((*why).to_owned()),
        Some(TxAnswer::Unknown) | None => Finding::Unknown("it returns no receipt of the transaction".to_owned()),
    };
    asked.iter().zip(matched).map(judge).collect()
}
