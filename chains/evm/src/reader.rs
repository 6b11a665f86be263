//! Blocks with the transfers in them, in as few requests as the chain's commitments allow.
//!
//! Near the head every block is read by number and then only by hash: its bloom proves that most hold nothing for us, and
//! the receipts root proves the rest complete. Settled blocks are read with their logs in one range, which is held against
//! the blooms; whatever looks incomplete is read by hash. Both ways give the same transfers.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, atomic::Ordering},
};

use alloy_primitives::{Address, B256};
use chain::{AssetId, Block, Header, Height, Part, Place, SourceError, Transfer, TxId, WatchSet, derive::evm_address};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use rpc::{Answer, Bad, Failure, RefusalKind, Reply, Span};
use serde_json::{Value, json, value::RawValue};
use tracing::{info, warn};

use crate::{
    Evm, Trace,
    block::{self, Body},
    hex,
    logs::{Hit, Log, TRANSFER},
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
/// Blocks whose receipts or traces are under way at once.
const CONCURRENCY: usize = 3;

/// The logs of one block in a range answer.
struct Seen {
    hash: B256,
    /// Which contracts logged at least one transfer, by their place in the list.
    contracts: Vec<bool>,
    transfers: Vec<Transfer>,
}

impl Evm {
    pub(crate) async fn read_blocks(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        let settled = self.settled.load(Ordering::Relaxed).min(to);
        let (bodies, mut seen) = if !self.contracts.is_empty() && settled > from {
            let to = settled.min(from.saturating_add(RANGE_MAX - 1));
            future::try_join(self.bodies(from, to, watched), self.range(from, to, watched)).await?
        } else {
            let to = to.min(from.saturating_add(LIVE_MAX - 1));
            (self.bodies(from, to, watched).await?, None)
        };
        let mut blocks = Vec::with_capacity(bodies.len());
        for body in bodies {
            let of_block = seen.as_mut().map(|by_height| by_height.remove(&body.header.height));
            blocks.push(self.block(body, of_block, watched));
        }
        stream::iter(blocks).buffered(CONCURRENCY).try_collect().await
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
            // A made-up type would switch the proof off: only if nobody proves the block is it believed unproven.
            let proven = body.unknown_type.is_none() || !self.config.verify.transactions;
            let given = Some((reply.endpoint, body));
            Ok(if proven { Answer::Sure(given) } else { Answer::Doubtful(given) })
        };
        let answers = self.pool.ask_many("eth_getBlockByNumber", &params, BODIES_PER_BATCH, accept).await;
        let answers = answers.map_err(|failure| failure_at(from, failure))?;

        let mut bodies: Vec<Body> = Vec::with_capacity(answers.len());
        for (endpoint, body) in answers.into_iter().map_while(|given| given) {
            // Another branch, read while the node changed over or from another node: what stands before it is good.
            if bodies.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            self.warn_of_unknown_type(&body);
            self.was_given(body.header.position(), endpoint);
            bodies.push(body);
        }
        if bodies.is_empty() { Err(SourceError::NotThere(from)) } else { Ok(bodies) }
    }

    fn warn_of_unknown_type(&self, body: &Body) {
        let Some(kind) = body.unknown_type.filter(|_| self.config.verify.transactions) else { return };
        if !self.warned.swap(true, Ordering::Relaxed) {
            warn!(
                chain = %self.config.chain,
                "block {} has a transaction of type {kind:#x}, which this version cannot encode; \
                 the transactions of such blocks are believed unproven",
                body.header.height
            );
        }
    }

    /// All transfers of one block. `seen` is what a range answer said of it: `None` if there was no such answer.
    async fn block(&self, body: Body, seen: Option<Option<Seen>>, watched: &WatchSet) -> Result<Block, SourceError> {
        let mut transfers = match seen.and_then(|seen| self.trusted(&body, seen, watched)) {
            Some(transfers) => transfers,
            None => self.settle(&body, watched).await?,
        };
        transfers.extend(self.internal(&body, watched).await?);
        transfers.sort_by_key(|transfer| transfer.place);
        Ok(Block { header: body.header, transfers, spends: Vec::new() })
    }

    /// The transfers of a block as a range answer gives them, unless something speaks against it: another hash, a
    /// contract that the bloom names and the answer does not, or a native payment whose success is still to be read.
    fn trusted(&self, body: &Body, seen: Option<Seen>, watched: &WatchSet) -> Option<Vec<Transfer>> {
        if !self.config.verify.header || !body.payments.is_empty() {
            return None;
        }
        let (possible, sharp) = self.possible(body, watched);
        let Some(seen) = seen else { return if possible.is_empty() { Some(Vec::new()) } else { None } };
        let complete = possible.iter().all(|contract| seen.contracts[*contract])
            && !(sharp && !possible.is_empty() && seen.transfers.is_empty());
        let named = |transfer: &Transfer| {
            let index = usize::try_from(transfer.place.tx_index).ok();
            index.and_then(|index| body.hashes.get(index)).is_some_and(|hash| hash.0 == transfer.txid.0)
        };
        let same_block = seen.hash.0 == body.header.hash.0 && seen.transfers.iter().all(named);
        if complete && same_block { Some(seen.transfers) } else { None }
    }

    /// Contracts that may have paid us in this block, and whether our addresses were looked up too.
    fn possible(&self, body: &Body, watched: &WatchSet) -> (Vec<usize>, bool) {
        if !self.config.verify.header {
            return ((0..self.contracts.len()).collect(), false);
        }
        let watched = watched.read();
        (self.contracts.possible(&body.bloom, &watched), self.contracts.looks_up(&watched))
    }

    /// Native payments and token transfers of one block, by its hash.
    async fn settle(&self, body: &Body, watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let (possible, _) = self.possible(body, watched);
        if possible.is_empty() && body.payments.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(settled) = self.receipts(body, watched).await? {
            let paid = body.payments.iter().filter(|payment| {
                usize::try_from(payment.tx_index).is_ok_and(|index| settled.succeeded.get(index) == Some(&true))
            });
            return Ok(paid.filter_map(|payment| self.native_transfer(payment)).chain(settled.transfers).collect());
        }
        let mut transfers =
            if possible.is_empty() { Vec::new() } else { self.logs_of(body, &possible, watched).await? };
        for payment in &body.payments {
            if self.succeeded(payment.txid, body).await? {
                transfers.extend(self.native_transfer(payment));
            }
        }
        Ok(transfers)
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

    /// All receipts of a block at once, proven; `None` where no endpoint has that method or takes a hash for it.
    async fn receipts(&self, body: &Body, watched: &WatchSet) -> Result<Option<Settled>, SourceError> {
        let height = body.header.height;
        let params = [B256::from(body.header.hash.0)];
        let answer = self.pool.ask("eth_getBlockReceipts", &params, |reply| {
            let Some(all) = reply.result::<Option<Vec<Receipt<'_>>>>()? else { return Ok(Answer::Doubtful(None)) };
            let settled = receipts::read(&all, body, self.config.verify, &self.contracts, &watched.read());
            Ok(Answer::Sure(Some(settled.map_err(Bad::Wrong)?)))
        });
        match answer.await {
            Ok(Some(settled)) => Ok(Some(settled)),
            Ok(None) => Err(SourceError::NotThere(height)),
            Err(Failure::Missing(_) | Failure::TooLarge(_)) => Ok(None),
            Err(Failure::Refused(refusal)) if refusal.kind == RefusalKind::Other => Ok(None),
            Err(failure) => Err(failure_at(height, failure)),
        }
    }

    async fn succeeded(&self, txid: B256, body: &Body) -> Result<bool, SourceError> {
        let height = body.header.height;
        let params = [txid];
        let answer = self.pool.ask("eth_getTransactionReceipt", &params, |reply| {
            let Some(receipt) = reply.result::<Option<Receipt<'_>>>()? else { return Ok(Answer::Doubtful(None)) };
            receipts::succeeded(&receipt, txid, body).map(|ok| Answer::Sure(Some(ok))).map_err(Bad::Wrong)
        });
        match answer.await.map_err(|failure| failure_at(height, failure))? {
            Some(succeeded) => Ok(succeeded),
            None => Err(SourceError::NotThere(height)),
        }
    }

    /// The transfers of one block by `eth_getLogs`. An answer without a contract that the bloom names is suspicious: it
    /// is used only if no other endpoint has more, because a bloom may also err.
    async fn logs_of(&self, body: &Body, possible: &[usize], watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let height = body.header.height;
        let filter =
            json!([{ "blockHash": B256::from(body.header.hash.0), "address": self.addresses(), "topics": [TRANSFER] }]);
        let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
            let logs: Vec<Log<'_>> = reply.result()?;
            let seen = self.sort(&logs, height, height, watched).map_err(Bad::Wrong)?;
            let Some(seen) = seen.into_values().next() else { return Ok(Answer::Doubtful(Vec::new())) };
            if seen.hash.0 != body.header.hash.0 {
                return Err(Bad::Wrong(format!("logs of another block than {}", body.header.hash)));
            }
            let complete = !self.config.verify.header || possible.iter().all(|contract| seen.contracts[*contract]);
            Ok(if complete { Answer::Sure(seen.transfers) } else { Answer::Doubtful(seen.transfers) })
        });
        answer.await.map_err(|failure| failure_at(height, failure))
    }

    /// The logs of settled blocks, in ranges as wide as the endpoints take. `None` if there is no way to get them by
    /// range; the blocks are read one by one then.
    async fn range(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Option<BTreeMap<Height, Seen>>, SourceError> {
        let mut all = BTreeMap::new();
        let mut start = from;
        while start <= to {
            let end = to.min(start.saturating_add(self.span().size() - 1));
            let used = end - start + 1;
            let filter = json!([{ "fromBlock": hex::to_quantity(start), "toBlock": hex::to_quantity(end),
                "address": self.addresses(), "topics": [TRANSFER] }]);
            let answer = self.pool.ask("eth_getLogs", &filter, |reply| {
                let logs: Vec<Log<'_>> = reply.result()?;
                self.sort(&logs, start, end, watched).map(Answer::Sure).map_err(Bad::Wrong)
            });
            match answer.await {
                Ok(seen) => {
                    self.span().succeeded(used);
                    all.extend(seen);
                    start = end + 1;
                }
                Err(Failure::TooLarge(message)) => {
                    let splits = self.span().too_large(used, &message);
                    info!(chain = %self.config.chain, "a range of {used} blocks is too large for the endpoint: {message}");
                    if !splits {
                        return Ok(None);
                    }
                }
                Err(Failure::Missing(_) | Failure::Wrong(_) | Failure::Refused(_)) => return Ok(None),
                Err(Failure::Unavailable(reason) | Failure::Slow(reason)) => {
                    return Err(SourceError::Unavailable(reason));
                }
            }
        }
        Ok(Some(all))
    }

    /// Sorts logs by block and picks ours. Fails on a log that was not asked for.
    fn sort(
        &self,
        logs: &[Log<'_>],
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<BTreeMap<Height, Seen>, String> {
        let watched = watched.read();
        let mut by_height: BTreeMap<Height, Seen> = BTreeMap::new();
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
                transfers: Vec::new(),
            });
            if seen.hash != hash {
                return Err(format!("logs of two blocks at height {height}"));
            }
            seen.contracts[contract] = true;
            if let Some(hit) = log.hit(&self.contracts, &watched) {
                seen.transfers.push(placed(hit, log)?);
            }
        }
        Ok(by_height)
    }

    /// Coins that contracts sent, if traces are configured. An empty block needs no trace.
    async fn internal(&self, body: &Body, watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let Some((method, params)) = self.trace_question(&body.header).filter(|_| !body.hashes.is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(native) = &self.native else { return Ok(Vec::new()) };
        let answer = self.pool.ask(method, &params, |reply| {
            let watched = &watched.read();
            let transfers = match self.config.trace {
                Trace::None => Ok(Vec::new()),
                Trace::Debug => trace::nested(&reply.result::<Vec<TxTrace<'_>>>()?, body, native, watched),
                Trace::Parity => trace::flat(&reply.result::<Vec<FlatTrace<'_>>>()?, body, native, watched),
            };
            transfers.map(Answer::Sure).map_err(Bad::Wrong)
        });
        answer.await.map_err(|failure| failure_at(body.header.height, failure))
    }

    fn addresses(&self) -> Vec<Address> {
        self.contracts.addresses().collect()
    }

    fn span(&self) -> MutexGuard<'_, Span> {
        self.span.lock().expect("no panic while the span is held")
    }
}

fn placed(hit: Hit, log: &Log<'_>) -> Result<Transfer, String> {
    let txid = log.transaction_hash.and_then(hex::hash).ok_or("a log without a transaction")?;
    let tx_index = log.transaction_index.and_then(hex::index).ok_or("a log without a transaction index")?;
    let log_index = log.log_index.and_then(hex::index).ok_or("a log without an index")?;
    Ok(hit.at(TxId(txid.0), tx_index, log_index))
}
