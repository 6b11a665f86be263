//! Asks endpoints of other providers whether they show the transfers that a first endpoint returned.
//!
//! The endpoint of the other provider must have the same solidified block. It shows TRX payments in the block itself,
//! and token transfers and transfers by contracts in the receipts. A missing transfer is a contradiction only if the
//! block of that endpoint lacks the transaction, or if the receipt lacks the transfer. An empty reply is no
//! contradiction, because it may come from a node that lags behind.

use std::collections::{BTreeMap, BTreeSet};

use chain::{
    AddressKey, Amount, AssetKind, BlockRef, Transfer, TxId, TxPart, WatchSet,
    address::encode_tron_address,
    corroboration::{Finding, Question, match_transfers},
    source::Corroboration,
};
use rpc::{Reply, Request, RpcError, Target, Verdict};
use serde_json::json;

use crate::{
    Tron,
    block::parse_bytes32,
    cross_check::BlockAnswer,
    http_api::{self, ApiView, TransactionInfo, serialize_body},
    receipts::list_contract_transfers_if_succeeded,
};

/// Maximum number of transfers that one call compares. The verdict on all further transfers is `CannotSay`.
const TRANSFERS_MAX: usize = 500;
/// Maximum number of receipts that are requested one by one. If more are needed, one request fetches all receipts of
/// the block.
const SINGLE_RECEIPTS_MAX: usize = 3;
/// Maximum number of accounts whose balances one call requests.
const ACCOUNTS_MAX: usize = 20;

/// The receipt of one transaction at one endpoint, or the reason why there is none.
#[derive(Debug, Clone)]
enum Receipt {
    /// The transaction succeeded. `transfers` are its transfers to the receivers of the compared transfers.
    Transfers { transfers: Vec<Transfer>, has_internal_transactions: bool },
    /// The transaction is not in the block, or it failed. The text says which.
    Absent(&'static str),
    /// The block has the transaction, but the endpoint returns no receipt.
    Unknown,
}

impl Tron {
    /// Asks other providers for the transfers of a block and returns one verdict for each transfer, as
    /// [`chain::Source::confirm`] requires.
    pub(crate) async fn ask_other_providers_for_transfers(
        &self,
        block: &BlockRef,
        transfers: &[Transfer],
    ) -> Vec<Corroboration> {
        if transfers.is_empty() {
            return Vec::new();
        }
        let origins = self.lock_block_origins().find_endpoints(block);
        let first = self.pool.name_origins_or_all_endpoints(origins.as_deref());
        let (asked, unasked) = transfers.split_at(transfers.len().min(TRANSFERS_MAX));
        let question = Question { block, transfers: asked, first: &first };
        let receivers = WatchSet::default();
        asked.iter().for_each(|transfer| receivers.insert(transfer.to));
        let answers = self.fetch_same_block_from_other_providers(block, origins.as_deref(), &receivers).await;
        let mut verdicts = match answers {
            Ok(answers) => {
                let mut findings = Vec::new();
                for answer in &answers {
                    let found = self.check_transfers_at_endpoint(&question, answer, &receivers).await;
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

    /// Returns one finding for each transfer of `question`, in the same order: whether the endpoint that returned
    /// `answer` shows the transfer.
    async fn check_transfers_at_endpoint(
        &self,
        question: &Question<'_>,
        answer: &BlockAnswer,
        receivers: &WatchSet,
    ) -> Vec<Finding> {
        let asked: Vec<&Transfer> = question.transfers.iter().collect();
        let in_receipts = |transfer: &&&Transfer| matches!(transfer.index.part, TxPart::Log(_) | TxPart::Internal(_));
        let txids: BTreeSet<TxId> = asked.iter().filter(in_receipts).map(|transfer| transfer.txid).collect();
        let receipts = match self.fetch_receipts_or_absence(answer, &txids, receivers).await {
            Ok(receipts) => receipts,
            Err(failure) => return vec![Finding::Unknown(failure.to_string()); asked.len()],
        };
        let in_receipts = receipts.values().filter_map(|receipt| match receipt {
            Receipt::Transfers { transfers, .. } => Some(transfers.clone()),
            Receipt::Absent(_) | Receipt::Unknown => None,
        });
        let shown: Vec<Transfer> = answer.block.payments.iter().cloned().chain(in_receipts.flatten()).collect();
        let mut findings = match_transfers(&asked, &shown);
        for (transfer, finding) in asked.iter().zip(&mut findings) {
            match (transfer.index.part, receipts.get(&transfer.txid)) {
                (_, Some(Receipt::Absent(why))) => *finding = Finding::Absent((*why).to_owned()),
                (TxPart::Log(_) | TxPart::Internal(_), Some(Receipt::Unknown) | None) => {
                    *finding = Finding::Unknown("it returns no receipt of the transaction".to_owned());
                }
                (TxPart::Internal(_), Some(Receipt::Transfers { has_internal_transactions: false, .. })) => {
                    *finding = Finding::Unknown("it does not save internal transactions".to_owned());
                }
                (TxPart::BalanceIncrease, _) => {
                    *finding = self.check_past_balance_covers_amount(question.block, answer, transfer).await
                }
                (TxPart::Value | TxPart::Log(_) | TxPart::Internal(_) | TxPart::Output(_), _) => {}
            }
        }
        self.contradict_internal_transfers_by_balance(&asked, answer, &mut findings).await;
        findings
    }

    /// Requests the receipts of the transactions `txids` from the endpoint that returned `answer`. A transaction that
    /// is not in the block of this endpoint is `Absent`; one without a receipt is `Unknown`.
    async fn fetch_receipts_or_absence(
        &self,
        answer: &BlockAnswer,
        txids: &BTreeSet<TxId>,
        receivers: &WatchSet,
    ) -> Result<BTreeMap<TxId, Receipt>, RpcError> {
        let is_in_block = |txid: &TxId| answer.block.txids.contains(txid);
        let first = |txid: &TxId| {
            if is_in_block(txid) { Receipt::Unknown } else { Receipt::Absent("its block has no such transaction") }
        };
        let mut receipts: BTreeMap<TxId, Receipt> = txids.iter().map(|txid| (*txid, first(txid))).collect();
        let in_block: Vec<TxId> = txids.iter().copied().filter(is_in_block).collect();
        let height = answer.block.header.height;
        let mut requests = Vec::new();
        if in_block.len() <= SINGLE_RECEIPTS_MAX {
            let one = |txid: &TxId| ("gettransactioninfobyid", json!({ "value": txid.to_string() }));
            requests.extend(in_block.iter().map(one));
        } else {
            requests.push(("gettransactioninfobyblocknum", json!({ "num": height })));
        }
        for (method, body) in requests {
            let request = Request::http_post(&ApiView::Solid.api_path(method), serialize_body(&body));
            let found =
                self.pool.send_request(request.with_target(Target::Only(answer.endpoint)), |reply: &Reply<'_>| {
                    let infos: Vec<TransactionInfo<'_>> = if method == "gettransactioninfobyid" {
                        vec![http_api::parse_json_or_node_error(reply)?]
                    } else {
                        http_api::parse_json_or_node_error(reply)?
                    };
                    let parse = |info: &TransactionInfo<'_>| self.parse_receipt(info, height, receivers);
                    Ok(Verdict::Accept(infos.iter().filter_map(parse).collect::<Vec<_>>()))
                });
            for (txid, receipt) in found.await? {
                if let Some(slot) = receipts.get_mut(&txid).filter(|_| in_block.contains(&txid)) {
                    *slot = receipt;
                }
            }
        }
        Ok(receipts)
    }

    /// Returns the transaction id of a receipt, and its transfers to `receivers`. Returns `None` for an empty receipt,
    /// which has no transaction id.
    fn parse_receipt(&self, info: &TransactionInfo<'_>, height: u64, receivers: &WatchSet) -> Option<(TxId, Receipt)> {
        let txid = TxId(parse_bytes32(info.id)?);
        if u64::try_from(info.block_number) != Ok(height) {
            return Some((txid, Receipt::Absent("its receipt is in another block")));
        }
        let transfers =
            list_contract_transfers_if_succeeded(info, (txid, 0), &self.assets, &receivers.lock_addresses());
        let has_internal_transactions = !info.internal_transactions.is_empty();
        let receipt = transfers.map_or(Receipt::Absent("the transaction did not succeed"), |transfers| {
            Receipt::Transfers { transfers, has_internal_transactions }
        });
        Some((txid, receipt))
    }

    /// Compares the TRX balance of the receiver after the block `at` with the amount of `asked`. The transfer counts as
    /// shown if the balance is at least this amount.
    async fn check_past_balance_covers_amount(&self, at: &BlockRef, answer: &BlockAnswer, asked: &Transfer) -> Finding {
        let address = encode_tron_address(asked.to);
        if self.assets.native.as_ref() != Some(&asked.asset) {
            return Finding::Unknown("nodes do not return past balances of tokens".to_owned());
        }
        let only = Target::Only(answer.endpoint);
        let balances = self.fetch_past_trx_balances(only, at, &AssetKind::Native, std::slice::from_ref(&address)).await;
        match balances.map(|balances| balances.first().copied()) {
            Ok(Some(balance)) if balance >= asked.amount => Finding::Shown,
            Ok(Some(_)) => Finding::Absent(format!("the balance of {} is lower", address.text)),
            Ok(None) => Finding::Unknown("it returns no balance".to_owned()),
            Err(failure) => Finding::Unknown(failure.to_string()),
        }
    }

    /// Replaces `Unknown` findings about TRX that contracts sent. If the receiver now holds less than all these
    /// transfers together, they become `Absent`. The comparison is valid because a deposit address spends nothing
    /// before its deposits are confirmed.
    async fn contradict_internal_transfers_by_balance(
        &self,
        asked: &[&Transfer],
        answer: &BlockAnswer,
        findings: &mut [Finding],
    ) {
        let mut sums: BTreeMap<AddressKey, Amount> = BTreeMap::new();
        let is_unsaved = |transfer: &Transfer, finding: &Finding| {
            matches!((transfer.index.part, finding), (TxPart::Internal(_), Finding::Unknown(_)))
        };
        for (transfer, _) in asked.iter().zip(&*findings).filter(|(transfer, finding)| is_unsaved(transfer, finding)) {
            let sum = sums.entry(transfer.to).or_insert(Amount::ZERO);
            *sum = sum.checked_add(transfer.amount).unwrap_or(Amount::MAX);
        }
        for (receiver, sum) in sums.into_iter().take(ACCOUNTS_MAX) {
            let only = Target::Only(answer.endpoint);
            let Ok(sun) = self.fetch_solidified_balance_from_target(only, receiver).await else { continue };
            if Amount::from(sun) >= sum {
                continue;
            }
            for (transfer, finding) in asked.iter().zip(&mut *findings) {
                if transfer.to == receiver && is_unsaved(transfer, finding) {
                    let why = format!("the account of {} holds only {sun} sun", encode_tron_address(receiver).text);
                    *finding = Finding::Absent(why);
                }
            }
        }
    }
}
