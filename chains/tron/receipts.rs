//! Receipts of transactions. Only receipts with the result SUCCESS count, because a transaction that ran out of time
//! keeps logs of transfers that never happened.

use chain::{Block, SourceError, Transfer, TransferIndex, TxId, TxPart, WatchSet, watch::WatchedAddresses};
use rpc::{Rejection, Request, RpcError, Verdict};
use serde_json::json;

use crate::{
    Tron,
    block::{ParsedBlock, parse_bytes32},
    http_api::{self, ApiView, TransactionInfo, serialize_body},
    proto::ContractRet,
    transfers::{TrackedAssets, parse_watched_internal_transfer, parse_watched_token_transfer},
};

/// The reason why receipts do not match their block.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiptsError {
    /// The node does not have all receipts of the block yet.
    Incomplete,
    /// The receipts belong to other transactions than those of the block. The text names the block.
    Wrong(String),
}

/// Checks that the receipts are those of the block's transactions, in the same order. Returns all transfers of
/// successful transactions to watched addresses, in chain order.
pub fn verify_receipts_and_list_transfers(
    body: &ParsedBlock,
    receipts: &[TransactionInfo<'_>],
    assets: &TrackedAssets,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<Transfer>, ReceiptsError> {
    if receipts.len() != body.txids.len() {
        return Err(ReceiptsError::Incomplete);
    }
    let mut transfers = body.payments.clone();
    for (index, (info, txid)) in receipts.iter().zip(&body.txids).enumerate() {
        if parse_bytes32(info.id) != Some(txid.0) || u64::try_from(info.block_number) != Ok(body.header.height) {
            return Err(ReceiptsError::Wrong(format!(
                "the receipts of block {} belong to other transactions",
                body.header.height
            )));
        }
        let tx_index = u32::try_from(index).map_err(|_| ReceiptsError::Wrong("too many transactions".to_owned()))?;
        transfers
            .extend(list_contract_transfers_if_succeeded(info, (*txid, tx_index), assets, watched).unwrap_or_default());
    }
    transfers.sort_by_key(|transfer| transfer.index);
    Ok(transfers)
}

/// Returns the transfers of one transaction to watched addresses: token transfers, and TRX that contracts send. Returns
/// `None` when the transaction did not succeed.
pub fn list_contract_transfers_if_succeeded(
    info: &TransactionInfo<'_>,
    (txid, tx_index): (TxId, u32),
    assets: &TrackedAssets,
    watched: &WatchedAddresses<'_>,
) -> Option<Vec<Transfer>> {
    if info.receipt.result != Some(ContractRet::Success.json_name()) || info.result == Some("FAILED") {
        return None;
    }
    let mut transfers = Vec::new();
    let transfer_id = |part: TxPart| (txid, TransferIndex { tx_index, part });
    for (position, log) in (0..).zip(&info.log) {
        transfers.extend(parse_watched_token_transfer(log, transfer_id(TxPart::Log(position)), assets, watched));
    }
    if let Some(native) = &assets.native {
        for (position, internal) in (0..).zip(&info.internal_transactions) {
            let id = transfer_id(TxPart::Internal(position));
            transfers.extend(parse_watched_internal_transfer(internal, id, native, watched));
        }
    }
    Some(transfers)
}

impl Tron {
    /// Fetches the receipts of a block and returns the block with all its transfers to watched addresses. If a
    /// solidified block has such transfers, also records which endpoint returned the receipts. A block without
    /// transactions has no receipts, so none are requested.
    pub(crate) async fn complete_block_and_record_receipt_origin(
        &self,
        view: ApiView,
        found: ParsedBlock,
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        let header = found.header;
        if found.txids.is_empty() {
            return Ok(Block { header, transfers: Vec::new(), spends: Vec::new() });
        }
        let path = view.api_path("gettransactioninfobyblocknum");
        let request = serialize_body(&json!({ "num": header.height }));
        let answer = self.pool.send_request(Request::http_post(&path, request), |reply| {
            let infos: Vec<http_api::TransactionInfo<'_>> = http_api::parse_json_or_node_error(reply)?;
            match verify_receipts_and_list_transfers(&found, &infos, &self.assets, &watched.lock_addresses()) {
                Ok(transfers) => Ok(Verdict::Accept(Some((reply.endpoint, transfers)))),
                Err(ReceiptsError::Incomplete) => Ok(Verdict::Fallback(None)),
                // The node may have switched to another branch between the two requests.
                Err(ReceiptsError::Wrong(_)) if view == ApiView::Head => Ok(Verdict::Fallback(None)),
                Err(ReceiptsError::Wrong(reason)) => Err(Rejection::Invalid(reason)),
            }
        });
        match answer.await.map_err(|failure| failure.into_source_error(header.height))? {
            Some((endpoint, transfers)) => {
                if view == ApiView::Solid && !transfers.is_empty() {
                    self.lock_block_origins().record_endpoint(header.block_ref(), endpoint);
                }
                Ok(Block { header, transfers, spends: Vec::new() })
            }
            None => Err(SourceError::Unavailable(format!("no endpoint has the receipts of block {}", header.height))),
        }
    }

    /// Returns the height of the solidified block that contains a transaction, and the result of the transaction.
    /// Returns `None` while no solidified block contains the transaction.
    ///
    /// # Errors
    ///
    /// Fails when no endpoint answers.
    pub async fn fetch_solidified_outcome(&self, txid: TxId) -> Result<Option<(u64, Result<(), String>)>, SourceError> {
        let path = ApiView::Solid.api_path("gettransactioninfobyid");
        let request = serialize_body(&json!({ "value": txid.to_string() }));
        let answer: Result<_, RpcError> = self
            .pool
            .send_request(Request::http_post(&path, request), |reply| {
                let info: http_api::TransactionInfo<'_> = http_api::parse_json_or_node_error(reply)?;
                if info.id.is_empty() {
                    return Ok(Verdict::Fallback(None));
                }
                let height =
                    u64::try_from(info.block_number).map_err(|_| Rejection::Invalid("a negative height".to_owned()))?;
                // Nodes leave the result out if no contract was run. If a contract was run, a missing result does not
                // mean success.
                let default = if info.contract_address.is_some() { "no result" } else { "SUCCESS" };
                let vm = info.receipt.result.unwrap_or(default);
                let failed = info.result == Some("FAILED") || vm != "SUCCESS";
                Ok(Verdict::Accept(Some((height, if failed { Err(vm.to_owned()) } else { Ok(()) }))))
            })
            .await;
        answer.map_err(|failure| failure.into_source_error(0))
    }
}
