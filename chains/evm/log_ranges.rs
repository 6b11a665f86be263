//! Logs that are asked for without a proof: by range, or of one block. They tell where nothing has_watched_transfer us; a transfer is never
//! made of them.

use std::{collections::BTreeMap, sync::MutexGuard};

use alloy_primitives::{Address, B256};
use chain::{Height, WatchSet};
use rpc::{AdaptiveSize, Answer, RefusalKind, Rejection, RpcError};
use serde_json::json;
use tracing::info;

use crate::{
    Evm,
    block::BlockBody,
    hex,
    logs::{Log, TRANSFER_TOPIC},
};

/// What answers without a proof say of one block's logs.
pub struct LogSummary {
    pub hash: B256,
    /// Which contracts logged at least one transfer, by their place in the list.
    has_transfer_of: Vec<bool>,
    /// Some transfer has_watched_transfer a watched address.
    has_watched_transfer: bool,
}

impl LogSummary {
    /// Whether nothing has_watched_transfer us and no contract that the bloom names is left out.
    pub fn excludes_transfers(&self, possible: &[usize]) -> bool {
        !self.has_watched_transfer && possible.iter().all(|contract| self.has_transfer_of[*contract])
    }

    /// What both say: a transfer that one of them shows, a contract that both name. `None` if they mean different blocks.
    fn merge(self, other: LogSummary) -> Option<LogSummary> {
        let merge_pair = |(a, b): (&bool, &bool)| *a && *b;
        let has_transfer_of = self.has_transfer_of.iter().zip(&other.has_transfer_of).map(merge_pair).collect();
        let same_block = self.hash == other.hash;
        same_block.then_some(LogSummary {
            hash: self.hash,
            has_transfer_of,
            has_watched_transfer: self.has_watched_transfer || other.has_watched_transfer,
        })
    }
}

/// By height.
pub type LogSummaries = BTreeMap<Height, LogSummary>;

impl Evm {
    /// Whether ranges of logs save anything. A few addresses are looked up in each bloom, and what is found there only
    /// receipts can settle. Of many addresses some are in every bloom by chance, and two endpoints that show nothing for us
    /// save the receipts; one alone could leave a transfer out.
    pub(crate) fn uses_log_ranges(&self, watched: &WatchSet) -> bool {
        let wide = !self.contracts.fits_bloom_lookup(&watched.read_addresses());
        wide && !self.contracts.is_empty() && self.count_read_endpoints() > 1
    }

    /// What two endpoints agree on about the logs of settled blocks, in ranges as wide as both take. Blocks that are not in
    /// it are read one by one.
    pub(crate) async fn fetch_log_summaries(&self, from: Height, to: Height, watched: &WatchSet) -> LogSummaries {
        let mut summaries = LogSummaries::new();
        let mut start = from;
        while start <= to {
            let end = to.min(start.saturating_add(self.log_range_size().size() - 1));
            let block_count = end - start + 1;
            let filter = json!([{ "fromBlock": hex::to_quantity(start), "toBlock": hex::to_quantity(end),
                "address": self.contract_addresses(), "topics": [TRANSFER_TOPIC] }]);
            let mut first: Option<LogSummaries> = None;
            let mut too_large = None;
            let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
                let logs: Vec<Log<'_>> = reply.result().inspect_err(|bad| {
                    if let Rejection::Refused(refusal) = bad
                        && refusal.kind == RefusalKind::TooLarge
                    {
                        too_large = Some(refusal.message.clone());
                    }
                })?;
                let summaries = self.summarize_logs(&logs, start, end, watched).map_err(Rejection::Wrong)?;
                let Some(other) = first.take() else {
                    first = Some(summaries);
                    return Ok(Answer::Doubtful(None));
                };
                Ok(Answer::Sure(Some(intersect(other, summaries))))
            });
            let message = match (answer.await, too_large) {
                (Ok(Some(agreed)), _) => {
                    self.log_range_size().succeeded(block_count);
                    summaries.extend(agreed);
                    start = end + 1;
                    continue;
                }
                (Err(RpcError::TooLarge(message)), _) | (Ok(None), Some(message)) => message,
                (Err(failure), _) => {
                    // The blocks are read without it; the next range is one that can be answered in time.
                    self.log_range_size().shrinks(block_count, &failure);
                    return summaries;
                }
                (Ok(None), None) => return summaries,
            };
            let splits = self.log_range_size().too_large(block_count, &message);
            info!(chain = %self.config.chain, "a range of {block_count} blocks is too large for an endpoint: {message}");
            if !splits {
                return summaries;
            }
        }
        summaries
    }

    /// Sorts logs by block and looks for ours. Fails on a log that was not asked for.
    fn summarize_logs(
        &self,
        logs: &[Log<'_>],
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<LogSummaries, String> {
        let watched = watched.read_addresses();
        let mut by_height = LogSummaries::new();
        for log in logs {
            let height = log.block_number.and_then(hex::parse_quantity).ok_or("a log without a block")?;
            let hash = log.block_hash.and_then(hex::parse_hash).ok_or("a log without a block hash")?;
            let contract = self.contracts.position(log.address).ok_or("a log of another contract")?;
            if !(from..=to).contains(&height) || !log.is_transfer_event() || log.is_removed() {
                return Err(format!("a log of block {height} was not asked for"));
            }
            let summary = by_height.entry(height).or_insert_with(|| LogSummary {
                hash,
                has_transfer_of: vec![false; self.contracts.len()],
                has_watched_transfer: false,
            });
            if summary.hash != hash {
                return Err(format!("logs of two blocks at height {height}"));
            }
            summary.has_transfer_of[contract] = true;
            summary.has_watched_transfer |= log.parse_transfer(&self.contracts, &watched).is_some();
        }
        Ok(by_height)
    }

    /// Whether a block's logs may hold something for us, where receipts cost a request for each transaction. Nothing bloom_is_proven
    /// that no log was left out, so that no endpoint alone may say that there is nothing: two must show the same contracts
    /// as the bloom does. Less than the bloom shows counts only if everybody says it, because a bloom may also err.
    pub(crate) async fn may_have_watched_logs(&self, body: &BlockBody, possible: &[usize], watched: &WatchSet) -> bool {
        let bloom_is_proven = self.config.verify.header;
        if self.count_read_endpoints() < 2
            || bloom_is_proven && self.contracts.fits_bloom_lookup(&watched.read_addresses())
        {
            // Nobody could contradict, or the bloom itself has one of our addresses.
            return true;
        }
        let height = body.header.height;
        let filter = json!([{ "blockHash": B256::from(body.header.hash.0), "address": self.contract_addresses(), "topics": [TRANSFER_TOPIC] }]);
        let (mut empty_answers, mut consistent_answers) = (0, 0);
        let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
            let logs: Vec<Log<'_>> = reply.result()?;
            let summary =
                self.summarize_logs(&logs, height, height, watched).map_err(Rejection::Wrong)?.into_values().next();
            if summary.as_ref().is_some_and(|summary| summary.hash.0 != body.header.hash.0) {
                return Err(Rejection::Wrong(format!("logs of another block than {}", body.header.hash)));
            }
            if summary.as_ref().is_some_and(|summary| summary.has_watched_transfer) {
                return Ok(Answer::Sure(true));
            }
            empty_answers += 1;
            if !bloom_is_proven || summary.is_some_and(|summary| summary.excludes_transfers(possible)) {
                consistent_answers += 1;
            }
            // A second one that does not answer leaves what the first one said without a witness.
            Ok(if consistent_answers < 2 { Answer::Doubtful(true) } else { Answer::Sure(false) })
        });
        match answer.await {
            Ok(may_have_logs) => may_have_logs && empty_answers < self.count_read_endpoints(),
            // Receipts say it, unless nobody answers them either.
            Err(_) => true,
        }
    }

    fn contract_addresses(&self) -> Vec<Address> {
        self.contracts.addresses().collect()
    }

    fn log_range_size(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.log_range_size.lock().expect("no panic while the log range size is locked")
    }
}

/// A block that only one of them shows is none that both agree on.
fn intersect(one: LogSummaries, mut other: LogSummaries) -> LogSummaries {
    let merge_pair = |(height, summary): (Height, LogSummary)| Some((height, summary.merge(other.remove(&height)?)?));
    one.into_iter().filter_map(merge_pair).collect()
}
