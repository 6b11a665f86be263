//! Reads blocks and their transfers in as few requests as the header's commitments allow.
//!
//! A block is requested by number once, and by hash from then on. Its bloom filter proves that most blocks have no
//! transfer to a watched address; for the others, the receipts root proves that no log was left out. No header commits
//! to the answer of `eth_getLogs`, so these logs are only used to skip a block and never become transfers.

use std::sync::atomic::Ordering;

use alloy_primitives::{B256, keccak256};
use chain::{
    AssetId, Block, Height, SourceError, Transfer, TransferIndex, TxId, TxPart, WatchSet, address::encode_evm_address,
};
use futures_util::{StreamExt, future, stream};
use rpc::{NodeErrorKind, Rejection, Reply, Request, RpcError, Verdict};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Evm,
    block::{self, BlockBody},
    hex,
    log_ranges::{LogSummaries, LogSummary},
    receipts::{self, BlockReceipts, TxReceipt},
};

/// Maximum blocks per call near the head, where most calls request one or two.
const BLOCKS_NEAR_HEAD_MAX: u64 = 16;
/// Maximum blocks per call during catch-up.
const BLOCKS_PER_RANGE_MAX: u64 = 100;
/// Maximum full blocks in one JSON-RPC batch. A busy block has about one megabyte.
const BODIES_PER_BATCH: usize = 10;
/// Maximum `eth_getTransactionReceipt` requests in one JSON-RPC batch.
const RECEIPTS_PER_BATCH: usize = 100;
/// Maximum raw transactions that are fetched for one block. After a hard fork a block may have many of a new type.
const RAW_TRANSACTIONS_MAX: usize = 64;
/// JSON-RPC 2.0 error code "Invalid params".
const INVALID_PARAMS: i64 = -32_602;
/// Maximum blocks whose receipts and traces are requested at the same time.
const CONCURRENCY: usize = 3;

/// The outcome of requesting all receipts of a block with one `eth_getBlockReceipts`.
enum ReceiptsAnswer {
    /// All receipts of the block.
    Complete(BlockReceipts),
    /// No endpoint offers the method.
    NotOffered,
    /// Every endpoint rejected the request with an unclassified error, which may be permanent or temporary. The driver
    /// then requests the receipts one by one, which gives the same proof, and does not use unproven logs instead.
    Refused,
}

impl Evm {
    /// Returns blocks `from..=to` with all transfers to watched addresses; see [`chain::Source::blocks`].
    pub(crate) async fn read_leading_blocks(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        // A false head from an endpoint may have raised this height too far, so it is lowered to the requested range.
        let stable_height = self.stable_height.fetch_min(to, Ordering::Relaxed).min(to);
        let (bodies, mut log_summaries) = if stable_height > from && self.should_use_log_ranges(watched) {
            let to = stable_height.min(from.saturating_add(BLOCKS_PER_RANGE_MAX - 1));
            let (bodies, log_summaries) =
                future::join(self.fetch_bodies(from, to, watched), self.fetch_log_summaries(from, to, watched)).await;
            (bodies?, log_summaries)
        } else {
            let blocks_max = if stable_height > from { BLOCKS_PER_RANGE_MAX } else { BLOCKS_NEAR_HEAD_MAX };
            let to = to.min(from.saturating_add(blocks_max - 1));
            (self.fetch_bodies(from, to, watched).await?, LogSummaries::new())
        };
        let mut blocks = Vec::with_capacity(bodies.len());
        for body in bodies {
            let log_summary = log_summaries.remove(&body.header.height);
            blocks.push(self.add_transfers_to_block(body, log_summary, watched));
        }
        let mut blocks = stream::iter(blocks).buffered(CONCURRENCY);
        let mut completed = Vec::new();
        while let Some(block) = blocks.next().await {
            match block {
                Ok(block) => completed.push(block),
                Err(error) if completed.is_empty() => return Err(error),
                // The blocks before the failed one are complete. The next call starts with the failed block.
                Err(_) => break,
            }
        }
        Ok(completed)
    }

    /// Returns the verified bodies of blocks `from..=to`, each the parent of the next. The list ends early if the
    /// endpoint lacks a block or a parent hash does not match. The list is never empty.
    async fn fetch_bodies(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<BlockBody>, SourceError> {
        let native = self.native.is_some();
        let params: Vec<(String, bool)> = (from..=to).map(|height| (hex::to_quantity(height), native)).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let height = from.saturating_add(u64::try_from(i).unwrap_or(u64::MAX));
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let body = block::parse_block(raw, height, self.config.verify, native, &watched.lock_addresses())
                .map_err(Rejection::Invalid)?;
            // The endpoint may have invented the unknown transaction type, so the driver prefers an endpoint whose
            // reply can be verified at once.
            let is_proven = body.unproven.is_none() || !self.config.verify.transactions;
            let origin_and_body = Some((reply.endpoint, body));
            Ok(if is_proven { Verdict::Accept(origin_and_body) } else { Verdict::Fallback(origin_and_body) })
        };
        let answers = self
            .pool
            .send_calls_in_batches("eth_getBlockByNumber", &params, BODIES_PER_BATCH, accept)
            .await
            .into_results_before_failure();
        let answers = answers.map_err(|failure| failure.into_source_error(from))?;

        let mut bodies: Vec<BlockBody> = Vec::with_capacity(answers.len());
        for (endpoint, body) in answers.into_iter().map_while(|found| found) {
            // This block is on another branch: the endpoint switched to that branch, or another endpoint answered. The
            // blocks before it are valid.
            if bodies.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            self.record_block_origin(body.header.block_ref(), endpoint);
            bodies.push(body);
        }
        if bodies.is_empty() { Err(SourceError::BlockNotFound(from)) } else { Ok(bodies) }
    }

    /// Returns true when the transaction list matches the transactions root, or when the configuration disables this
    /// check. Fetches the raw bytes of transactions with unknown types. Returns false when no endpoint has these bytes.
    async fn verify_transactions_root(&self, body: &BlockBody) -> Result<bool, SourceError> {
        let is_provable = self.config.verify.header && self.config.verify.transactions;
        let Some(unproven) = body.unproven.as_ref().filter(|_| is_provable) else { return Ok(true) };
        let height = body.header.height;
        let txids: Vec<[B256; 1]> =
            unproven.list_missing_indexes().into_iter().map(|index| [body.txids[index]]).collect();
        if txids.len() > RAW_TRANSACTIONS_MAX {
            return Ok(false);
        }
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(text) = reply.parse_result::<Option<&str>>()? else { return Ok(Verdict::Fallback(None)) };
            let bytes = const_hex::decode(text).ok().filter(|bytes| keccak256(bytes) == txids[i][0]);
            let bytes = bytes.ok_or_else(|| {
                Rejection::Invalid(format!("the raw bytes of transaction {} have another hash", txids[i][0]))
            })?;
            if block::is_known_encoding(&bytes) {
                return Err(Rejection::Invalid(format!(
                    "transaction {} is of another type than reported",
                    txids[i][0]
                )));
            }
            Ok(Verdict::Accept(Some(bytes)))
        };
        let answers = match self
            .pool
            .send_calls_in_batches("eth_getRawTransactionByHash", &txids, RAW_TRANSACTIONS_MAX, accept)
            .await
            .into_all_results()
        {
            Ok(answers) => answers,
            Err(RpcError::MethodMissing(_) | RpcError::TooLarge(_) | RpcError::NodeError(_)) => return Ok(false),
            Err(failure) => return Err(failure.into_source_error(height)),
        };
        let Some(missing) = answers.into_iter().collect() else { return Ok(false) };
        if unproven.matches_transactions_root(missing) {
            return Ok(true);
        }
        let tx_type = unproven.tx_type;
        Err(SourceError::InvalidResponse(format!(
            "the transactions of block {height}, one of them of type {tx_type:#x}, do not match its transactions root"
        )))
    }

    /// Returns true when the block provably contains a transaction of an unknown type. Only in such a block does the
    /// driver accept receipts that do not match the receipts root, so an endpoint must not be able to invent a type.
    async fn verify_unknown_tx_type(&self, body: &BlockBody, watched: &WatchSet) -> Result<bool, SourceError> {
        if body.has_full_transactions {
            return Ok(body.unproven.is_some() && self.verify_transactions_root(body).await?);
        }
        let height = body.header.height;
        let params = (B256::from(body.header.hash.0), true);
        let answer = self.pool.send_request(Request::json_rpc_call("eth_getBlockByHash", &params), |reply| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let full = block::parse_block(raw, height, self.config.verify, true, &watched.lock_addresses())
                .map_err(Rejection::Invalid)?;
            if full.header != body.header || full.txids != body.txids {
                return Err(Rejection::Invalid(format!("returned another block than {}", body.header.hash)));
            }
            Ok(Verdict::Accept(Some(full)))
        });
        let full = answer.await.map_err(|failure| failure.into_source_error(height))?;
        let full = full.ok_or(SourceError::BlockNotFound(height))?;
        Ok(full.unproven.is_some() && self.verify_transactions_root(&full).await?)
    }

    /// Returns the block with all its transfers to watched addresses. `log_summary` is the summary of the block's logs
    /// on which two endpoints agree; `None` when the logs were not requested by range.
    async fn add_transfers_to_block(
        &self,
        mut body: BlockBody,
        log_summary: Option<LogSummary>,
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        if !self.verify_transactions_root(&body).await? {
            body.has_unproven_payment = true;
            body.payments.clear();
        }
        if body.has_unproven_payment {
            let reason = "some of its transactions have a type that this version cannot encode, and no endpoint returns their \
                                     raw bytes";
            self.mark_block_incomplete(&body, "type", reason);
        }
        let same_block_logs = log_summary.filter(|summary| summary.hash.0 == body.header.hash.0);
        let has_no_token_transfer = self.config.verify.header
            && same_block_logs
                .is_some_and(|summary| summary.excludes_transfers(&self.list_contracts_in_bloom(&body, watched)));
        let mut transfers = if has_no_token_transfer && body.payments.is_empty() {
            Vec::new()
        } else {
            self.fetch_proven_transfers(&body, watched).await?
        };
        let internal = self.fetch_internal_transfers(&body, &transfers, watched).await?;
        transfers.extend(internal);
        transfers.sort_by_key(|transfer| transfer.index);
        Ok(Block { header: body.header, transfers, spends: Vec::new() })
    }

    /// Returns the indexes of the token contracts that may have logged a transfer to a watched address in this block.
    fn list_contracts_in_bloom(&self, body: &BlockBody, watched: &WatchSet) -> Vec<usize> {
        if !self.config.verify.header {
            return (0..self.contracts.len()).collect();
        }
        self.contracts.list_contracts_matching_bloom(&body.bloom, &watched.lock_addresses())
    }

    /// Returns the native payments and token transfers of one block, as its receipts prove them.
    async fn fetch_proven_transfers(&self, body: &BlockBody, watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let contracts = self.list_contracts_in_bloom(body, watched);
        if contracts.is_empty() && body.payments.is_empty() {
            return Ok(Vec::new());
        }
        let receipts = match self.fetch_block_receipts(body, watched).await? {
            ReceiptsAnswer::Complete(receipts) => receipts,
            ReceiptsAnswer::NotOffered => {
                if body.payments.is_empty() && !self.may_have_watched_logs(body, &contracts, watched).await {
                    return Ok(Vec::new());
                }
                self.fetch_single_receipts(body, watched).await?
            }
            ReceiptsAnswer::Refused => self.fetch_single_receipts(body, watched).await?,
        };
        let is_provable = self.config.verify.header && self.config.verify.receipts;
        if is_provable && !receipts.proven && !self.verify_unknown_tx_type(body, watched).await? {
            let height = body.header.height;
            return Err(SourceError::Unsupported(format!(
                "the receipts of block {height} cannot be verified, and no endpoint returns the raw bytes of its transactions"
            )));
        }
        let successful_payments = body.payments.iter().filter(|payment| {
            usize::try_from(payment.tx_index).is_ok_and(|index| receipts.succeeded.get(index) == Some(&true))
        });
        Ok(successful_payments
            .filter_map(|payment| self.to_native_transfer(payment))
            .chain(receipts.transfers)
            .collect())
    }

    fn to_native_transfer(&self, payment: &block::ValueTransfer) -> Option<Transfer> {
        let asset: AssetId = self.native.clone()?;
        Some(Transfer {
            txid: TxId(payment.txid.0),
            index: TransferIndex { tx_index: payment.tx_index, part: TxPart::Value },
            asset,
            to: payment.to,
            from: Some(encode_evm_address(chain::AddressKey(payment.from.into())).text),
            amount: payment.amount,
        })
    }

    /// Requests all receipts of a block at once and verifies them against its header.
    async fn fetch_block_receipts(&self, body: &BlockBody, watched: &WatchSet) -> Result<ReceiptsAnswer, SourceError> {
        let (height, hash) = (body.header.height, B256::from(body.header.hash.0));
        let answer = match self.request_block_receipts(json!([hash]), body, watched).await {
            // Some nodes accept only a block number in this request. The receipts are verified against the block hash
            // in both cases.
            Err(RpcError::NodeError(refusal)) if refusal.code == INVALID_PARAMS => {
                self.request_block_receipts(json!([hex::to_quantity(height)]), body, watched).await
            }
            answer => answer,
        };
        match answer {
            Ok(Some(receipts)) => Ok(ReceiptsAnswer::Complete(receipts)),
            Ok(None) => Err(SourceError::BlockNotFound(height)),
            Err(RpcError::MethodMissing(_) | RpcError::TooLarge(_)) => Ok(ReceiptsAnswer::NotOffered),
            Err(RpcError::NodeError(refusal)) if refusal.kind == NodeErrorKind::Other => Ok(ReceiptsAnswer::Refused),
            Err(failure) => Err(failure.into_source_error(height)),
        }
    }

    /// Returns the receipts of a block, or `None` when the endpoint does not have the block.
    async fn request_block_receipts(
        &self,
        params: Value,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<Option<BlockReceipts>, RpcError> {
        let answer = self.pool.send_request(Request::json_rpc_call("eth_getBlockReceipts", &params), |reply| {
            let Some(all) = reply.parse_result::<Option<Vec<TxReceipt<'_>>>>()? else {
                return Ok(Verdict::Fallback(None));
            };
            let receipts =
                receipts::parse_receipts(&all, body, self.config.verify, &self.contracts, &watched.lock_addresses());
            let receipts = receipts.map_err(Rejection::Invalid)?;
            let is_sure = receipts.proven || !self.config.verify.receipts;
            Ok(if is_sure { Verdict::Accept(Some(receipts)) } else { Verdict::Fallback(Some(receipts)) })
        });
        answer.await
    }

    /// Requests the receipts of a block one by one. This needs many requests but gives the same proof as one request
    /// for all receipts.
    async fn fetch_single_receipts(&self, body: &BlockBody, watched: &WatchSet) -> Result<BlockReceipts, SourceError> {
        let height = body.header.height;
        let params: Vec<[B256; 1]> = body.txids.iter().map(|txid| [*txid]).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let receipt: TxReceipt<'_> =
                serde_json::from_str(raw.get()).map_err(|e| Rejection::Invalid(e.to_string()))?;
            if !receipt.belongs_to_transaction(body.txids[i], body) {
                return Err(Rejection::Invalid(format!(
                    "the receipt of {} belongs to another transaction or block",
                    body.txids[i]
                )));
            }
            Ok(Verdict::Accept(Some(raw.to_owned())))
        };
        let answers = self
            .pool
            .send_calls_in_batches("eth_getTransactionReceipt", &params, RECEIPTS_PER_BATCH, accept)
            .await
            .into_all_results();
        let texts: Option<Vec<Box<RawValue>>> =
            answers.map_err(|failure| failure.into_source_error(height))?.into_iter().collect();
        let texts = texts.ok_or(SourceError::BlockNotFound(height))?;
        let parsed: Result<Vec<TxReceipt<'_>>, _> = texts.iter().map(|text| serde_json::from_str(text.get())).collect();
        let parsed = parsed.map_err(|error| SourceError::InvalidResponse(error.to_string()))?;
        receipts::parse_receipts(&parsed, body, self.config.verify, &self.contracts, &watched.lock_addresses())
            .map_err(SourceError::InvalidResponse)
    }
}
