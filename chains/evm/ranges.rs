//! Logs that are asked for without a proof: by range, or of one block. They tell where nothing reached us; a transfer is never
//! made of them.

use std::{collections::BTreeMap, sync::MutexGuard};

use alloy_primitives::{Address, B256};
use chain::{Height, WatchSet};
use rpc::{AdaptiveSize, Answer, RefusalKind, Rejection, RpcError};
use serde_json::json;
use tracing::info;

use crate::{
    Evm,
    block::Body,
    hex,
    logs::{Log, TRANSFER},
};

/// What answers without a proof say of one block's logs.
pub struct Seen {
    pub hash: B256,
    /// Which contracts logged at least one transfer, by their place in the list.
    contracts: Vec<bool>,
    /// Some transfer reached a watched address.
    reached: bool,
}

impl Seen {
    /// Whether nothing reached us and no contract that the bloom names is left out.
    pub fn is_quiet(&self, possible: &[usize]) -> bool {
        !self.reached && possible.iter().all(|contract| self.contracts[*contract])
    }

    /// What both say: a transfer that one of them shows, a contract that both name. `None` if they mean different blocks.
    fn agreed(self, other: Seen) -> Option<Seen> {
        let both = |(a, b): (&bool, &bool)| *a && *b;
        let contracts = self.contracts.iter().zip(&other.contracts).map(both).collect();
        let same_block = self.hash == other.hash;
        same_block.then_some(Seen { hash: self.hash, contracts, reached: self.reached || other.reached })
    }
}

/// By height.
pub type Range = BTreeMap<Height, Seen>;

impl Evm {
    /// Whether ranges of logs save anything. A few addresses are looked up in each bloom, and what is found there only
    /// receipts can settle. Of many addresses some are in every bloom by chance, and two endpoints that show nothing for us
    /// save the receipts; one alone could leave a transfer out.
    pub(crate) fn reads_ranges(&self, watched: &WatchSet) -> bool {
        let wide = !self.contracts.looks_up(&watched.read_addresses());
        wide && !self.contracts.is_empty() && self.readers() > 1
    }

    /// What two endpoints agree on about the logs of settled blocks, in ranges as wide as both take. Blocks that are not in
    /// it are read one by one.
    pub(crate) async fn range(&self, from: Height, to: Height, watched: &WatchSet) -> Range {
        let mut all = Range::new();
        let mut start = from;
        while start <= to {
            let end = to.min(start.saturating_add(self.span().size() - 1));
            let used = end - start + 1;
            let filter = json!([{ "fromBlock": hex::to_quantity(start), "toBlock": hex::to_quantity(end),
                "address": self.addresses(), "topics": [TRANSFER] }]);
            let mut first: Option<Range> = None;
            let mut too_large = None;
            let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
                let logs: Vec<Log<'_>> = reply.result().inspect_err(|bad| {
                    if let Rejection::Refused(refusal) = bad
                        && refusal.kind == RefusalKind::TooLarge
                    {
                        too_large = Some(refusal.message.clone());
                    }
                })?;
                let seen = self.sort(&logs, start, end, watched).map_err(Rejection::Wrong)?;
                let Some(other) = first.take() else {
                    first = Some(seen);
                    return Ok(Answer::Doubtful(None));
                };
                Ok(Answer::Sure(Some(agreed(other, seen))))
            });
            let message = match (answer.await, too_large) {
                (Ok(Some(agreed)), _) => {
                    self.span().succeeded(used);
                    all.extend(agreed);
                    start = end + 1;
                    continue;
                }
                (Err(RpcError::TooLarge(message)), _) | (Ok(None), Some(message)) => message,
                (Err(failure), _) => {
                    // The blocks are read without it; the next range is one that can be answered in time.
                    self.span().shrinks(used, &failure);
                    return all;
                }
                (Ok(None), None) => return all,
            };
            let splits = self.span().too_large(used, &message);
            info!(chain = %self.config.chain, "a range of {used} blocks is too large for an endpoint: {message}");
            if !splits {
                return all;
            }
        }
        all
    }

    /// Sorts logs by block and looks for ours. Fails on a log that was not asked for.
    fn sort(&self, logs: &[Log<'_>], from: Height, to: Height, watched: &WatchSet) -> Result<Range, String> {
        let watched = watched.read_addresses();
        let mut by_height = Range::new();
        for log in logs {
            let height = log.block_number.and_then(hex::quantity).ok_or("a log without a block")?;
            let hash = log.block_hash.and_then(hex::hash).ok_or("a log without a block hash")?;
            let contract = self.contracts.position(log.address).ok_or("a log of another contract")?;
            if !(from..=to).contains(&height) || !log.is_transfer() || log.is_removed() {
                return Err(format!("a log of block {height} was not asked for"));
            }
            let seen = by_height.entry(height).or_insert_with(|| Seen {
                hash,
                contracts: vec![false; self.contracts.len()],
                reached: false,
            });
            if seen.hash != hash {
                return Err(format!("logs of two blocks at height {height}"));
            }
            seen.contracts[contract] = true;
            seen.reached |= log.hit(&self.contracts, &watched).is_some();
        }
        Ok(by_height)
    }

    /// Whether a block's logs may hold something for us, where receipts cost a request for each transaction. Nothing proves
    /// that no log was left out, so that no endpoint alone may say that there is nothing: two must show the same contracts
    /// as the bloom does. Less than the bloom shows counts only if everybody says it, because a bloom may also err.
    pub(crate) async fn logs_may_reach_us(&self, body: &Body, possible: &[usize], watched: &WatchSet) -> bool {
        let proves = self.config.verify.header;
        if self.readers() < 2 || proves && self.contracts.looks_up(&watched.read_addresses()) {
            // Nobody could contradict, or the bloom itself has one of our addresses.
            return true;
        }
        let height = body.header.height;
        let filter =
            json!([{ "blockHash": B256::from(body.header.hash.0), "address": self.addresses(), "topics": [TRANSFER] }]);
        let (mut nothing, mut nothing_missing) = (0, 0);
        let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
            let logs: Vec<Log<'_>> = reply.result()?;
            let seen = self.sort(&logs, height, height, watched).map_err(Rejection::Wrong)?.into_values().next();
            if seen.as_ref().is_some_and(|seen| seen.hash.0 != body.header.hash.0) {
                return Err(Rejection::Wrong(format!("logs of another block than {}", body.header.hash)));
            }
            if seen.as_ref().is_some_and(|seen| seen.reached) {
                return Ok(Answer::Sure(true));
            }
            nothing += 1;
            if !proves || seen.is_some_and(|seen| seen.is_quiet(possible)) {
                nothing_missing += 1;
            }
            // A second one that does not answer leaves what the first one said without a witness.
            Ok(if nothing_missing < 2 { Answer::Doubtful(true) } else { Answer::Sure(false) })
        });
        match answer.await {
            Ok(may) => may && nothing < self.readers(),
            // Receipts say it, unless nobody answers them either.
            Err(_) => true,
        }
    }

    fn addresses(&self) -> Vec<Address> {
        self.contracts.addresses().collect()
    }

    fn span(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.span.lock().expect("no panic while the span is held")
    }
}

/// A block that only one of them shows is none that both agree on.
fn agreed(one: Range, mut other: Range) -> Range {
    let both = |(height, seen): (Height, Seen)| Some((height, seen.agreed(other.remove(&height)?)?));
    one.into_iter().filter_map(both).collect()
}
