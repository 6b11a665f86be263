//! Blocks with the transfers in them, in as few requests as the chain's commitments allow.
//!
//! Every block is read by number and then only by hash: its bloom proves that most hold nothing for us, and the receipts
//! root proves the rest complete. Logs that are asked for by range or by block are committed to by nothing: they only
//! help to tell that a block has nothing for us, and no transfer is ever made of them.

use std::sync::atomic::Ordering;

use alloy_primitives::{B256, keccak256};
use chain::{
    AssetId, Block, Height, SourceError, Transfer, TransferIndex, TxId, TxPart, WatchSet, derive::evm_address,
};
use futures_util::{StreamExt, future, stream};
use rpc::{Answer, RefusalKind, Rejection, Reply, RpcError};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Evm,
    block::{self, Body},
    hex,
    ranges::{Range, Seen},
    receipts::{self, Receipt, Settled},
};

/// Blocks in one answer near the head, where most calls are for one or two.
const LIVE_MAX: u64 = 16;
/// Blocks in one answer during catch-up.
const RANGE_MAX: u64 = 100;
/// Full blocks in one batch at most: a busy one has a megabyte.
const BODIES_PER_BATCH: usize = 10;
/// Receipts of single transactions in one batch.
const RECEIPTS_PER_BATCH: usize = 100;
/// Transactions of one block whose bytes are fetched; after a fork there may be many of a new type.
const RAW_MAX: usize = 64;
/// JSON-RPC's code for parameters that a method does not take.
const INVALID_PARAMS: i64 = -32_602;
/// Blocks whose receipts or traces are under way at once.
const CONCURRENCY: usize = 3;

/// What became of the question for all receipts of a block at once.
enum Receipts {
    Settled(Settled),
    /// No endpoint can give them so.
    NotOffered,
    /// For a reason that is not known here: it may be one for ever or one of the moment. Single receipts are as proven, and
    /// logs are not taken for them.
    Refused,
}

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
            let (bodies, seen) = future::join(self.bodies(from, to, watched), self.range(from, to, watched)).await;
            (bodies?, seen)
        } else {
            let most = if settled > from { RANGE_MAX } else { LIVE_MAX };
            let to = to.min(from.saturating_add(most - 1));
            (self.bodies(from, to, watched).await?, Range::new())
        };
        let mut blocks = Vec::with_capacity(bodies.len());
        for body in bodies {
            let of_block = seen.remove(&body.header.height);
            blocks.push(self.block(body, of_block, watched));
        }
        let mut blocks = stream::iter(blocks).buffered(CONCURRENCY);
        let mut read = Vec::new();
        while let Some(block) = blocks.next().await {
            match block {
                Ok(block) => read.push(block),
                Err(error) if read.is_empty() => return Err(error),
                // What stands before it is good, and the next call begins with the block that failed.
                Err(_) => break,
            }
        }
        Ok(read)
    }

    /// Blocks `from..=to` as far as the node has them and each is the parent of the next.
    async fn bodies(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Body>, SourceError> {
        let native = self.native.is_some();
        let params: Vec<(String, bool)> = (from..=to).map(|height| (hex::to_quantity(height), native)).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let height = from.saturating_add(u64::try_from(i).unwrap_or(u64::MAX));
            let Some(raw) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let body = block::read(raw, height, self.config.verify, native, &watched.read_addresses())
                .map_err(Rejection::Wrong)?;
            // The type may be made up: whoever proves the block at once is preferred.
            let proven = body.unproven.is_none() || !self.config.verify.transactions;
            let given = Some((reply.endpoint, body));
            Ok(if proven { Answer::Sure(given) } else { Answer::Doubtful(given) })
        };
        let answers = self.pool.ask_prefix("eth_getBlockByNumber", &params, BODIES_PER_BATCH, accept).await;
        let answers = answers.map_err(|failure| failure.at(from))?;

        let mut bodies: Vec<Body> = Vec::with_capacity(answers.len());
        for (endpoint, body) in answers.into_iter().map_while(|given| given) {
            // Another branch, read while the node changed over or from another node: what stands before it is good.
            if bodies.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            self.was_given(body.header.block_ref(), endpoint);
            bodies.push(body);
        }
        if bodies.is_empty() { Err(SourceError::BlockNotFound(from)) } else { Ok(bodies) }
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
            let bytes =
                bytes.ok_or_else(|| Rejection::Wrong(format!("these are not the bytes of {}", hashes[i][0])))?;
            if block::is_plain(&bytes) {
                return Err(Rejection::Wrong(format!("the type of {} was made up", hashes[i][0])));
            }
            Ok(Answer::Sure(Some(bytes)))
        };
        let answers = match self.pool.ask_many("eth_getRawTransactionByHash", &hashes, RAW_MAX, accept).await {
            Ok(answers) => answers,
            Err(RpcError::Missing(_) | RpcError::TooLarge(_) | RpcError::Refused(_)) => return Ok(false),
            Err(failure) => return Err(failure.at(height)),
        };
        let Some(missing) = answers.into_iter().collect() else { return Ok(false) };
        if unproven.is_proven_by(missing) {
            return Ok(true);
        }
        let kind = unproven.kind;
        Err(SourceError::InvalidResponse(format!(
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
            let full = block::read(raw, height, self.config.verify, true, &watched.read_addresses())
                .map_err(Rejection::Wrong)?;
            if full.header != body.header || full.hashes != body.hashes {
                return Err(Rejection::Wrong(format!("another block than {}", body.header.hash)));
            }
            Ok(Answer::Sure(Some(full)))
        });
        let full = answer.await.map_err(|failure| failure.at(height))?;
        let full = full.ok_or(SourceError::BlockNotFound(height))?;
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
            self.mark_incomplete(&body, "type", &format!("some of its transactions are of {why}"));
        }
        let same = seen.filter(|seen| seen.hash.0 == body.header.hash.0);
        let quiet = self.config.verify.header && same.is_some_and(|seen| seen.is_quiet(&self.possible(&body, watched)));
        let mut transfers =
            if quiet && body.payments.is_empty() { Vec::new() } else { self.settle(&body, watched).await? };
        let internal = self.internal(&body, &transfers, watched).await?;
        transfers.extend(internal);
        transfers.sort_by_key(|transfer| transfer.index);
        Ok(Block { header: body.header, transfers, spends: Vec::new() })
    }

    /// Contracts that may have paid us in this block.
    fn possible(&self, body: &Body, watched: &WatchSet) -> Vec<usize> {
        if !self.config.verify.header {
            return (0..self.contracts.len()).collect();
        }
        self.contracts.possible(&body.bloom, &watched.read_addresses())
    }

    /// Native payments and token transfers of one block, by its hash.
    async fn settle(&self, body: &Body, watched: &WatchSet) -> Result<Vec<Transfer>, SourceError> {
        let possible = self.possible(body, watched);
        if possible.is_empty() && body.payments.is_empty() {
            return Ok(Vec::new());
        }
        let settled = match self.receipts(body, watched).await? {
            Receipts::Settled(settled) => settled,
            Receipts::NotOffered => {
                if body.payments.is_empty() && !self.logs_may_reach_us(body, &possible, watched).await {
                    return Ok(Vec::new());
                }
                self.receipts_one_by_one(body, watched).await?
            }
            Receipts::Refused => self.receipts_one_by_one(body, watched).await?,
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
            index: TransferIndex { tx_index: payment.tx_index, part: TxPart::Value },
            asset,
            to: payment.to,
            from: Some(evm_address(chain::AddressKey(payment.from.into())).text),
            amount: payment.amount,
        })
    }

    /// All receipts of a block at once, proven.
    async fn receipts(&self, body: &Body, watched: &WatchSet) -> Result<Receipts, SourceError> {
        let (height, hash) = (body.header.height, B256::from(body.header.hash.0));
        let answer = match self.ask_receipts(json!([hash]), body, watched).await {
            // Some nodes take no hash here. The receipts are held against the block all the same.
            Err(RpcError::Refused(refusal)) if refusal.code == INVALID_PARAMS => {
                self.ask_receipts(json!([hex::to_quantity(height)]), body, watched).await
            }
            answer => answer,
        };
        match answer {
            Ok(Some(settled)) => Ok(Receipts::Settled(settled)),
            Ok(None) => Err(SourceError::BlockNotFound(height)),
            Err(RpcError::Missing(_) | RpcError::TooLarge(_)) => Ok(Receipts::NotOffered),
            Err(RpcError::Refused(refusal)) if refusal.kind == RefusalKind::Other => Ok(Receipts::Refused),
            Err(failure) => Err(failure.at(height)),
        }
    }

    async fn ask_receipts(&self, params: Value, body: &Body, watched: &WatchSet) -> Result<Option<Settled>, RpcError> {
        let answer = self.pool.ask("eth_getBlockReceipts", &params, |reply| {
            let Some(all) = reply.result::<Option<Vec<Receipt<'_>>>>()? else { return Ok(Answer::Doubtful(None)) };
            let settled = receipts::read(&all, body, self.config.verify, &self.contracts, &watched.read_addresses());
            let settled = settled.map_err(Rejection::Wrong)?;
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
            let receipt: Receipt<'_> = serde_json::from_str(raw.get()).map_err(|e| Rejection::Wrong(e.to_string()))?;
            if !receipt.is_of(body.hashes[i], body) {
                return Err(Rejection::Wrong(format!("the receipt of {} belongs to something else", body.hashes[i])));
            }
            Ok(Answer::Sure(Some(raw.to_owned())))
        };
        let answers = self.pool.ask_many("eth_getTransactionReceipt", &params, RECEIPTS_PER_BATCH, accept).await;
        let texts: Option<Vec<Box<RawValue>>> = answers.map_err(|failure| failure.at(height))?.into_iter().collect();
        let texts = texts.ok_or(SourceError::BlockNotFound(height))?;
        let parsed: Result<Vec<Receipt<'_>>, _> = texts.iter().map(|text| serde_json::from_str(text.get())).collect();
        let parsed = parsed.map_err(|error| SourceError::InvalidResponse(error.to_string()))?;
        receipts::read(&parsed, body, self.config.verify, &self.contracts, &watched.read_addresses())
            .map_err(SourceError::InvalidResponse)
    }
}
