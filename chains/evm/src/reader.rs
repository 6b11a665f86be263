//! Blocks with the transfers in them, in as few requests as the chain's commitments allow.
//!
//! Every block is read by number and then only by hash: its bloom proves that most hold nothing for us, and the receipts
//! root proves the rest complete. Logs that are asked for by range or by block are committed to by nothing: they only
//! help to tell that a block has nothing for us, and no transfer is ever made of them.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, atomic::Ordering},
};

use alloy_primitives::{Address, B256, keccak256};
use chain::{AssetId, Block, Header, Height, Part, Place, SourceError, Transfer, TxId, WatchSet, derive::evm_address};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use rpc::{Answer, Bad, Failure, RefusalKind, Reply, Span};
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    Evm, Trace,
    block::{self, Body},
    hex,
    logs::{Log, TRANSFER},
    receipts::{self, Receipt, Settled},
    source::failure_at,
    trace::{self, FlatTrace, TxTrace},
};

/// Blocks in one answer near the head, where most calls are for one or two.
const LIVE_MAX: u64 = 16;
/// Blocks in one answer during catch-up.
const RANGE_MAX: u64 = 100;
/// Full blocks in one batch: a busy one has a megabyte.
const BODIES_PER_BATCH: usize = 10;
/// Receipts of single transactions in one batch.
const RECEIPTS_PER_BATCH: usize = 100;
/// Transactions of one block whose bytes are fetched; after a fork there may be many of a new type.
const RAW_MAX: usize = 64;
/// JSON-RPC's code for parameters that a method does not take.
const INVALID_PARAMS: i64 = -32_602;
/// Blocks whose receipts or traces are under way at once.
const CONCURRENCY: usize = 3;

/// What answers without a proof say of one block's logs.
struct Seen {
    hash: B256,
    /// Which contracts logged at least one transfer, by their place in the list.
    contracts: Vec<bool>,
    /// Some transfer reached a watched address.
    reached: bool,
}

impl Seen {
    /// Whether nothing reached us and no contract that the bloom names is left out.
    fn is_quiet(&self, possible: &[usize]) -> bool {
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
type Range = BTreeMap<Height, Seen>;

impl Evm {
    pub(crate) async fn read_blocks(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        // A node that made up its head moved the mark as well; what is asked for brings it back.
        let settled = self.settled.fetch_min(to, Ordering::Relaxed).min(to);
        let (bodies, mut seen) = if settled > from && self.reads_ranges(watched) {
            let to = settled.min(from.saturating_add(RANGE_MAX - 1));
            future::try_join(self.bodies(from, to, watched), self.range(from, to, watched)).await?
        } else {
            let most = if settled > from { RANGE_MAX } else { LIVE_MAX };
            let to = to.min(from.saturating_add(most - 1));
            (self.bodies(from, to, watched).await?, None)
        };
        let mut blocks = Vec::with_capacity(bodies.len());
        for body in bodies {
            let of_block = seen.as_mut().and_then(|range| range.remove(&body.header.height));
            blocks.push(self.block(body, of_block, watched));
        }
        stream::iter(blocks).buffered(CONCURRENCY).try_collect().await
    }

    /// Whether ranges of logs save anything. A few addresses are looked up in each bloom, and what is found there only
    /// receipts can settle. Of many addresses some are in every bloom by chance, and two endpoints that show nothing for us
    /// save the receipts; one alone could leave a transfer out.
    fn reads_ranges(&self, watched: &WatchSet) -> bool {
        let wide = !self.contracts.looks_up(&watched.read());
        wide && !self.contracts.is_empty() && self.readers() > 1
    }

    /// The question for a block's traces, if they are to be read.
    pub(crate) fn trace_question(&self, header: &Header) -> Option<(&'static str, Value)> {
        self.native.as_ref()?;
        match self.config.trace {
            Trace::None => None,
            Trace::Debug => {
                let hash = B256::from(header.hash.0);
                Some(("debug_traceBlockByHash", json!([hash, { "tracer": "callTracer" }])))
            }
            Trace::Parity => Some(("trace_block", json!([hex::to_quantity(header.height)]))),
        }
    }

    /// Blocks `from..=to` as far as the node has them and each is the parent of the next.
    async fn bodies(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Body>, SourceError> {
        let native = self.native.is_some();
        let params: Vec<(String, bool)> = (from..=to).map(|height| (hex::to_quantity(height), native)).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let height = from.saturating_add(u64::try_from(i).unwrap_or(u64::MAX));
            let Some(raw) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let body = block::read(raw, height, self.config.verify, native, &watched.read()).map_err(Bad::Wrong)?;
            // The type may be made up: whoever proves the block at once is preferred.
            let proven = body.unproven.is_none() || !self.config.verify.transactions;
            Ok(if proven { Answer::Sure(Some(body)) } else { Answer::Doubtful(Some(body)) })
        };
        let answers = self.pool.ask_many("eth_getBlockByNumber", &params, BODIES_PER_BATCH, accept).await;
        let answers = answers.map_err(|failure| failure_at(from, failure))?;

        let mut bodies: Vec<Body> = Vec::with_capacity(answers.len());
        for body in answers.into_iter().map_while(|body| body) {
            // Another branch, read while the node changed over or from another node: what stands before it is good.
            if bodies.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            bodies.push(body);
        }
        if bodies.is_empty() { Err(SourceError::NotThere(from)) } else { Ok(bodies) }
    }

    /// Whether the list of transactions is proven, with the bytes of those that cannot be encoded here. `false` where no
    /// endpoint has these.
    async fn is_listed(&self, body: &Body) -> Result<bool, SourceError> {
        let provable = self.config.verify.header && self.config.verify.transactions;
        let Some(unproven) = body.unproven.as_ref().filter(|_| provable) else { return Ok(true) };
        let height = body.header.height;
        let hashes: Vec<[B256; 1]> = unproven.missing().into_iter().map(|index| [body.hashes[index]]).collect();
        if hashes.len() > RAW_MAX {
            return Ok(false);
        }
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(text) = reply.result::<Option<&str>>()? else { return Ok(Answer::Doubtful(None)) };
            let bytes = const_hex::decode(text).ok().filter(|bytes| keccak256(bytes) == hashes[i][0]);
            let bytes = bytes.ok_or_else(|| Bad::Wrong(format!("these are not the bytes of {}", hashes[i][0])))?;
            if block::is_plain(&bytes) {
                return Err(Bad::Wrong(format!("the type of {} was made up", hashes[i][0])));
            }
            Ok(Answer::Sure(Some(bytes)))
        };
        let answers = match self.pool.ask_many("eth_getRawTransactionByHash", &hashes, RAW_MAX, accept).await {
            Ok(answers) => answers,
            Err(Failure::Missing(_) | Failure::TooLarge(_) | Failure::Refused(_)) => return Ok(false),
            Err(failure) => return Err(failure_at(height, failure)),
        };
        let Some(missing) = answers.into_iter().collect() else { return Ok(false) };
        if unproven.is_proven_by(missing) {
            return Ok(true);
        }
        let kind = unproven.kind;
        Err(SourceError::Wrong(format!(
            "the transactions of block {height}, one of type {kind:#x}, do not have the root that its header names"
        )))
    }

    /// A type that is not known here excuses receipts without the right root, so that it must be a real one.
    async fn has_strange_type(&self, body: &Body, watched: &WatchSet) -> Result<bool, SourceError> {
        if body.full {
            return Ok(body.unproven.is_some() && self.is_listed(body).await?);
        }
        let height = body.header.height;
        let params = (B256::from(body.header.hash.0), true);
        let answer = self.pool.ask("eth_getBlockByHash", &params, |reply| {
            let Some(raw) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let full = block::read(raw, height, self.config.verify, true, &watched.read()).map_err(Bad::Wrong)?;
            if full.header != body.header || full.hashes != body.hashes {
                return Err(Bad::Wrong(format!("another block than {}", body.header.hash)));
            }
            Ok(Answer::Sure(Some(full)))
        });
        let full = answer.await.map_err(|failure| failure_at(height, failure))?;
        let full = full.ok_or(SourceError::NotThere(height))?;
        Ok(full.unproven.is_some() && self.is_listed(&full).await?)
    }

    /// All transfers of one block. `seen` is what two endpoints agree on in a range answer.
    async fn block(&self, mut body: Body, seen: Option<Seen>, watched: &WatchSet) -> Result<Block, SourceError> {
        if !self.is_listed(&body).await? {
            body.unread = true;
            body.payments.clear();
        }
        if body.unread {
            let why = "a type that this version cannot encode and no endpoint gives the bytes of";
            self.lose_sight(&body, "type", &format!("some of its transactions are of {why}"));
        }
        let same = seen.filter(|seen| seen.hash.0 == body.header.hash.0);
        let quiet = self.config.verify.header && same.is_some_and(|seen| seen.is_quiet(&self.possible(&body, watched)));
        let mut transfers =
            if quiet && body.payments.is_empty() { Vec::new() } else { self.settle(&body, watched).await? };
        transfers.extend(self.internal(&body, watched).await?);
        transfers.sort_by_key(|transfer| transfer.place);
        Ok(Block { header: body.header, transfers, spends: Vec::new() })
    }

    /// Contracts that may have paid us in this block.
    fn possible(&self, body: &Body, watched: &WatchSet) -> Vec<usize> {
        if !self.config.verify.header {
            return (0..self.contracts.len()).collect();
        }
        self.contracts.possible(&body.bloom, &watched.read())
    }

    /// Native payments and token transfers of one block, by its hash.
    async fn settle(&self, body: &Body, watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let possible = self.possible(body, watched);
        if possible.is_empty() && body.payments.is_empty() {
            return Ok(Vec::new());
        }
        let settled = match self.receipts(body, watched).await? {
            Some(settled) => settled,
            None => {
                if body.payments.is_empty() && !self.logs_may_reach_us(body, &possible, watched).await? {
                    return Ok(Vec::new());
                }
                self.receipts_one_by_one(body, watched).await?
            }
        };
        let provable = self.config.verify.header && self.config.verify.receipts;
        if provable && !settled.proven && !self.has_strange_type(body, watched).await? {
            let height = body.header.height;
            return Err(SourceError::Unsupported(format!(
                "the receipts of block {height} cannot be encoded, and nobody gives the bytes of its transactions"
            )));
        }
        let paid = body.payments.iter().filter(|payment| {
            usize::try_from(payment.tx_index).is_ok_and(|index| settled.succeeded.get(index) == Some(&true))
        });
        Ok(paid.filter_map(|payment| self.native_transfer(payment)).chain(settled.transfers).collect())
    }

    fn native_transfer(&self, payment: &block::Payment) -> Option<Transfer> {
        let asset: AssetId = self.native.clone()?;
        Some(Transfer {
            txid: TxId(payment.txid.0),
            place: Place { tx_index: payment.tx_index, part: Part::Value },
            asset,
            to: payment.to,
            from: Some(evm_address(chain::AddressKey(payment.from.into())).text),
            amount: payment.amount,
        })
    }

    /// All receipts of a block at once, proven; `None` where no endpoint can give them so.
    async fn receipts(&self, body: &Body, watched: &WatchSet) -> Result<Option<Settled>, SourceError> {
        let (height, hash) = (body.header.height, B256::from(body.header.hash.0));
        let answer = match self.ask_receipts(json!([hash]), body, watched).await {
            // Some nodes take no hash here. The receipts are held against the block all the same.
            Err(Failure::Refused(refusal)) if refusal.code == INVALID_PARAMS => {
                self.ask_receipts(json!([hex::to_quantity(height)]), body, watched).await
            }
            answer => answer,
        };
        match answer {
            Ok(Some(settled)) => Ok(Some(settled)),
            Ok(None) => Err(SourceError::NotThere(height)),
            Err(Failure::Missing(_) | Failure::TooLarge(_)) => Ok(None),
            Err(failure) => Err(failure_at(height, failure)),
        }
    }

    async fn ask_receipts(&self, params: Value, body: &Body, watched: &WatchSet) -> Result<Option<Settled>, Failure> {
        let answer = self.pool.ask("eth_getBlockReceipts", &params, |reply| {
            let Some(all) = reply.result::<Option<Vec<Receipt<'_>>>>()? else { return Ok(Answer::Doubtful(None)) };
            let settled = receipts::read(&all, body, self.config.verify, &self.contracts, &watched.read());
            let settled = settled.map_err(Bad::Wrong)?;
            let sure = settled.proven || !self.config.verify.receipts;
            Ok(if sure { Answer::Sure(Some(settled)) } else { Answer::Doubtful(Some(settled)) })
        });
        answer.await
    }

    /// The same receipts, asked for by transaction: many requests, but as proven as all at once.
    async fn receipts_one_by_one(&self, body: &Body, watched: &WatchSet) -> Result<Settled, SourceError> {
        let height = body.header.height;
        let params: Vec<[B256; 1]> = body.hashes.iter().map(|txid| [*txid]).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(raw) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let receipt: Receipt<'_> = serde_json::from_str(raw.get()).map_err(|e| Bad::Wrong(e.to_string()))?;
            if !receipt.is_of(body.hashes[i], body) {
                return Err(Bad::Wrong(format!("the receipt of {} belongs to something else", body.hashes[i])));
            }
            Ok(Answer::Sure(Some(raw.to_owned())))
        };
        let answers = self.pool.ask_many("eth_getTransactionReceipt", &params, RECEIPTS_PER_BATCH, accept).await;
        let texts: Option<Vec<Box<RawValue>>> =
            answers.map_err(|failure| failure_at(height, failure))?.into_iter().collect();
        let texts = texts.ok_or(SourceError::NotThere(height))?;
        let parsed: Result<Vec<Receipt<'_>>, _> = texts.iter().map(|text| serde_json::from_str(text.get())).collect();
        let parsed = parsed.map_err(|error| SourceError::Wrong(error.to_string()))?;
        receipts::read(&parsed, body, self.config.verify, &self.contracts, &watched.read()).map_err(SourceError::Wrong)
    }

    /// Whether a block's logs may hold something for us, where receipts cost a request for each transaction. An answer
    /// without a contract that the bloom names is suspicious: it is used only if no other endpoint has more, because a
    /// bloom may also err.
    async fn logs_may_reach_us(
        &self,
        body: &Body,
        possible: &[usize],
        watched: &WatchSet,
    ) -> Result<bool, SourceError> {
        let height = body.header.height;
        let filter =
            json!([{ "blockHash": B256::from(body.header.hash.0), "address": self.addresses(), "topics": [TRANSFER] }]);
        let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
            let logs: Vec<Log<'_>> = reply.result()?;
            let seen = self.sort(&logs, height, height, watched).map_err(Bad::Wrong)?;
            let Some(seen) = seen.into_values().next() else { return Ok(Answer::Doubtful(false)) };
            if seen.hash.0 != body.header.hash.0 {
                return Err(Bad::Wrong(format!("logs of another block than {}", body.header.hash)));
            }
            let sure = seen.reached || (self.config.verify.header && seen.is_quiet(possible));
            Ok(if sure { Answer::Sure(seen.reached) } else { Answer::Doubtful(seen.reached) })
        });
        answer.await.map_err(|failure| failure_at(height, failure))
    }

    /// What two endpoints agree on about the logs of settled blocks, in ranges as wide as both take. `None` if there is no
    /// way to get that by range; the blocks are read one by one then.
    async fn range(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Option<Range>, SourceError> {
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
                    if let Bad::Refused(refusal) = bad
                        && refusal.kind == RefusalKind::TooLarge
                    {
                        too_large = Some(refusal.message.clone());
                    }
                })?;
                let seen = self.sort(&logs, start, end, watched).map_err(Bad::Wrong)?;
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
                (Err(Failure::TooLarge(message)), _) | (Ok(None), Some(message)) => message,
                (Err(Failure::Unavailable(reason)), _) => return Err(SourceError::Unavailable(reason)),
                (Ok(None) | Err(Failure::Missing(_) | Failure::Wrong(_) | Failure::Refused(_)), _) => return Ok(None),
            };
            let splits = self.span().too_large(used, &message);
            info!(chain = %self.config.chain, "a range of {used} blocks is too large for an endpoint: {message}");
            if !splits {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// Sorts logs by block and looks for ours. Fails on a log that was not asked for.
    fn sort(&self, logs: &[Log<'_>], from: Height, to: Height, watched: &WatchSet) -> Result<Range, String> {
        let watched = watched.read();
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

    /// Coins that contracts sent, if traces are configured. An empty block needs no trace, and no trace holds up a block.
    async fn internal(&self, body: &Body, watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let Some((method, params)) = self.trace_question(&body.header).filter(|_| !body.hashes.is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(native) = &self.native else { return Ok(Vec::new()) };
        if !self.sight().may_ask(Instant::now()) {
            self.lose_sight(body, "rest", "traces failed several times in a row and rest");
            return Ok(Vec::new());
        }
        let answer = self.pool.ask(method, &params, |reply| {
            let watched = &watched.read();
            let transfers = match self.config.trace {
                Trace::None => Ok(Vec::new()),
                Trace::Debug => trace::nested(&reply.result::<Vec<TxTrace<'_>>>()?, body, native, watched),
                Trace::Parity => trace::flat(&reply.result::<Vec<FlatTrace<'_>>>()?, body, native, watched),
            };
            transfers.map(Answer::Sure).map_err(Bad::Wrong)
        });
        let failure = match answer.await {
            Ok(transfers) => {
                self.sight().succeeded();
                return Ok(transfers);
            }
            Err(failure) => failure,
        };
        // A node that traces may be a little behind the one that told the block.
        let lags = matches!(&failure, Failure::Refused(refusal) if refusal.kind == RefusalKind::NotThere);
        if (lags || matches!(failure, Failure::Unavailable(_))) && self.sight().may_wait(Instant::now()) {
            return Err(failure_at(body.header.height, failure));
        }
        let cause = match &failure {
            Failure::Unavailable(_) => "silence",
            Failure::Missing(_) => "missing",
            Failure::TooLarge(_) => "size",
            Failure::Refused(_) => "refusal",
            Failure::Wrong(_) => "unusable",
        };
        self.sight().failed(Instant::now());
        self.lose_sight(body, cause, &failure.to_string());
        Ok(Vec::new())
    }

    /// The block goes without all that it may hold, and from now on balances are compared.
    fn lose_sight(&self, body: &Body, cause: &'static str, why: &str) {
        if self.sight().lost(Instant::now(), cause) {
            warn!(
                chain = %self.config.chain,
                "block {} may hold coins that it does not show, and balances are compared instead: {why}",
                body.header.height
            );
        }
    }

    fn addresses(&self) -> Vec<Address> {
        self.contracts.addresses().collect()
    }

    fn span(&self) -> MutexGuard<'_, Span> {
        self.span.lock().expect("no panic while the span is held")
    }
}

/// A block that only one of them shows is none that both agree on.
fn agreed(one: Range, mut other: Range) -> Range {
    let both = |(height, seen): (Height, Seen)| Some((height, seen.agreed(other.remove(&height)?)?));
    one.into_iter().filter_map(both).collect()
}
