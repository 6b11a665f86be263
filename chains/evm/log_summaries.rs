//! Requests logs with `eth_getLogs`, by block range or for one block, and summarizes them for each block. Nothing in a
//! block header proves that these replies are complete. So they only show which blocks have no transfer to a watched
//! address, and they never become transfers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::MutexGuard,
};

use alloy_primitives::B256;
use chain::{Height, WatchSet};
use rpc::{AdaptiveSize, NodeErrorKind, Rejection, Request, RpcError, Verdict};
use serde_json::json;
use tracing::info;

use crate::{
    Evm,
    block::BlockBody,
    hex,
    logs::{EventLog, TRANSFER_TOPIC},
};

/// A summary of the logs of one block. Nothing proves that these logs are complete.
pub struct LogSummary {
    /// The block hash that all logs of this block name.
    pub hash: B256,
    /// True for each contract that logged a transfer, by its index in [`crate::token_contracts::TokenContracts`].
    has_transfer_of: Vec<bool>,
    /// True when a transfer reached a watched address.
    has_watched_transfer: bool,
}

impl LogSummary {
    /// Returns true when the logs contain no transfer to a watched address. They must also contain a transfer of every
    /// contract that the bloom filter of the block may contain; `in_bloom` are the indexes of these contracts.
    /// Otherwise the endpoint may have left out the logs of a contract.
    pub fn rules_out_watched_transfer(&self, in_bloom: &[usize]) -> bool {
        !self.has_watched_transfer && in_bloom.iter().all(|contract| self.has_transfer_of[*contract])
    }

    /// Combines the summaries of two endpoints. The result has a transfer to a watched address if at least one of the
    /// endpoints reports it, and a transfer of a contract only if both endpoints report it. Returns `None` when the
    /// block hashes differ.
    fn combine_two_answers_if_same_block(self, other: LogSummary) -> Option<LogSummary> {
        let is_in_both = |(a, b): (&bool, &bool)| *a && *b;
        let has_transfer_of = self.has_transfer_of.iter().zip(&other.has_transfer_of).map(is_in_both).collect();
        let same_block = self.hash == other.hash;
        same_block.then_some(LogSummary {
            hash: self.hash,
            has_transfer_of,
            has_watched_transfer: self.has_watched_transfer || other.has_watched_transfer,
        })
    }
}

/// Log summaries by block height.
pub type LogSummaries = BTreeMap<Height, LogSummary>;

impl Evm {
    /// Returns true when requesting logs by range saves requests for receipts. With few watched addresses, the bloom of
    /// a block already shows that most blocks need no receipts. With many watched addresses, nearly every bloom matches
    /// some address by chance. Then a block needs no receipts if the logs of two providers show no transfer to a watched
    /// address. The logs of a single provider are not enough, because it could leave a transfer out.
    pub(crate) fn are_log_ranges_worthwhile(&self, watched: &WatchSet) -> bool {
        let has_many_addresses = !self.contracts.are_few_enough_for_bloom_lookup(&watched.lock_addresses());
        has_many_addresses && !self.contracts.is_empty() && self.pool.count_providers() > 1
    }

    /// Returns the log summaries of blocks `from..=to` on which endpoints of two providers agree. The logs are requested in ranges
    /// as wide as both endpoints accept. Blocks without a summary must be read one by one.
    pub(crate) async fn fetch_agreed_log_summaries(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> LogSummaries {
        let mut summaries = LogSummaries::new();
        let mut start = from;
        while start <= to {
            let end = to.min(start.saturating_add(self.lock_log_range_size().size() - 1));
            let block_count = end - start + 1;
            let filter = json!([{ "fromBlock": hex::to_quantity(start), "toBlock": hex::to_quantity(end),
                "address": self.list_contract_addresses(), "topics": [TRANSFER_TOPIC] }]);
            let mut first: Option<(usize, LogSummaries)> = None;
            let mut too_large = None;
            let answer = self.pool.send_request(Request::json_rpc_call("eth_getLogs", &filter), |reply| {
                let logs: Vec<EventLog<'_>> = reply.parse_result().inspect_err(|bad| {
                    if let Rejection::NodeError(node_error) = bad
                        && node_error.kind == NodeErrorKind::TooLarge
                    {
                        too_large = Some(node_error.message.clone());
                    }
                })?;
                let summaries =
                    self.summarize_transfer_logs_by_block(&logs, start, end, watched).map_err(Rejection::Invalid)?;
                let provider = self.pool.find_first_endpoint_of_provider(reply.endpoint);
                match first.take() {
                    Some((other, earlier)) if other != provider => {
                        Ok(Verdict::Accept(Some(merge_blocks_in_both_summaries(earlier, summaries))))
                    }
                    earlier => {
                        first = Some(earlier.unwrap_or((provider, summaries)));
                        Ok(Verdict::Fallback(None))
                    }
                }
            });
            let message = match (answer.await, too_large) {
                (Ok(Some(agreed)), _) => {
                    self.lock_log_range_size().grow_after_ten_full_size_successes(block_count);
                    summaries.extend(agreed);
                    start = end + 1;
                    continue;
                }
                (Err(RpcError::TooLarge(message)), _) | (Ok(None), Some(message)) => message,
                (Err(failure), _) => {
                    // The caller reads the blocks of this range one by one. Make the next range smaller, so that its
                    // reply arrives in time.
                    self.lock_log_range_size().shrink_if_too_large_or_timed_out(block_count, &failure);
                    return summaries;
                }
                (Ok(None), None) => return summaries,
            };
            let can_shrink = self.lock_log_range_size().shrink_after_too_large(block_count, &message);
            info!(chain = %self.config.chain, "a range of {block_count} blocks is too large for an endpoint: {message}");
            if !can_shrink {
                return summaries;
            }
        }
        summaries
    }

    /// Summarizes the logs of each block. Fails on a log that is outside blocks `from..=to`, is of another contract or
    /// is no transfer.
    fn summarize_transfer_logs_by_block(
        &self,
        logs: &[EventLog<'_>],
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<LogSummaries, String> {
        let watched = watched.lock_addresses();
        let mut by_height = LogSummaries::new();
        for log in logs {
            let height = log.block_number.and_then(hex::parse_quantity).ok_or("a log has no block number")?;
            let hash = log.block_hash.and_then(hex::parse_hash).ok_or("a log has no block hash")?;
            let contract = self
                .contracts
                .find_contract_index(log.address)
                .ok_or("a log is of a contract that was not requested")?;
            if !(from..=to).contains(&height) || !log.is_transfer_event() || log.is_marked_removed() {
                return Err(format!("a log of block {height} does not match the requested filter"));
            }
            let summary = by_height.entry(height).or_insert_with(|| LogSummary {
                hash,
                has_transfer_of: vec![false; self.contracts.len()],
                has_watched_transfer: false,
            });
            if summary.hash != hash {
                return Err(format!("the logs name two different blocks at height {height}"));
            }
            summary.has_transfer_of[contract] = true;
            summary.has_watched_transfer |= log.parse_transfer_to_watched_address(&self.contracts, &watched).is_some();
        }
        Ok(by_height)
    }

    /// Requests the logs of one block. Returns false when the block has no transfer to a watched address, so that the
    /// caller need not request each receipt. For this result, endpoints of two providers must return logs without such a transfer
    /// but with a transfer of every contract in `in_bloom`, the contracts that the bloom filter of the block may
    /// contain. Because a bloom filter may contain a contract by chance, it is also enough that all endpoints answer
    /// and none returns a transfer to a watched address.
    pub(crate) async fn may_have_watched_transfer_by_logs(
        &self,
        body: &BlockBody,
        in_bloom: &[usize],
        watched: &WatchSet,
    ) -> bool {
        let bloom_is_proven = self.config.verify.header;
        if self.pool.count_providers() < 2
            || bloom_is_proven && self.contracts.are_few_enough_for_bloom_lookup(&watched.lock_addresses())
        {
            // Do not skip the block: no second provider could contradict the reply, or the bloom itself contains a
            // watched address.
            return true;
        }
        let height = body.header.height;
        let filter = json!([{ "blockHash": B256::from(body.header.hash.0), "address": self.list_contract_addresses(), "topics": [TRANSFER_TOPIC] }]);
        let (mut empty_answers, mut consistent_answers) = (0, BTreeSet::new());
        let answer = self.pool.send_request(Request::json_rpc_call("eth_getLogs", &filter), |reply| {
            let logs: Vec<EventLog<'_>> = reply.parse_result()?;
            let summary = self
                .summarize_transfer_logs_by_block(&logs, height, height, watched)
                .map_err(Rejection::Invalid)?
                .into_values()
                .next();
            if summary.as_ref().is_some_and(|summary| summary.hash.0 != body.header.hash.0) {
                return Err(Rejection::Invalid(format!("returned logs of another block than {}", body.header.hash)));
            }
            if summary.as_ref().is_some_and(|summary| summary.has_watched_transfer) {
                return Ok(Verdict::Accept(true));
            }
            empty_answers += 1;
            if !bloom_is_proven || summary.is_some_and(|summary| summary.rules_out_watched_transfer(in_bloom)) {
                consistent_answers.insert(self.pool.find_first_endpoint_of_provider(reply.endpoint));
            }
            // Without the reply of a second provider, nothing supports the first reply. So the caller must read the
            // receipts.
            Ok(if consistent_answers.len() < 2 { Verdict::Fallback(true) } else { Verdict::Accept(false) })
        });
        match answer.await {
            Ok(may_have_logs) => may_have_logs && empty_answers < self.count_read_endpoints(),
            // Without usable logs, the caller must read the receipts.
            Err(_) => true,
        }
    }

    fn lock_log_range_size(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.log_range_size.lock().expect("no panic while the log range size is locked")
    }
}

/// Merges the summaries of two endpoints. The result contains only blocks that both endpoints reported.
fn merge_blocks_in_both_summaries(one: LogSummaries, mut other: LogSummaries) -> LogSummaries {
    let merge_pair = |(height, summary): (Height, LogSummary)| {
        Some((height, summary.combine_two_answers_if_same_block(other.remove(&height)?)?))
    };
    one.into_iter().filter_map(merge_pair).collect()
}
