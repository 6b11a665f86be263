//! The questions as Esplora answers them over HTTP (github.com/Blockstream/esplora, API.md). No node of one's own is
//! needed; nothing is believed that the chain does not prove.

use std::collections::BTreeMap;

use bitcoin::{BlockHash, CompactTarget, block::Header, block::Version};
use chain::{Address, Height, TxId};
use futures_util::{StreamExt, TryStreamExt, stream};
use rpc::{NodeError, NodeErrorKind, Pool, Rejection, Reply, Request, RpcError, Target, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::{block_hash, proven, root, txid, zero};
use crate::fees::FeeRate;

/// Small questions under way at once.
const CONCURRENT: usize = 4;

#[derive(Deserialize)]
struct Placed<'a> {
    height: Height,
    version: i32,
    timestamp: u32,
    merkle_root: &'a str,
    nonce: u32,
    bits: u32,
    #[serde(default)]
    previousblockhash: Option<&'a str>,
}

/// Where an endpoint says the first block is.
pub const FIRST_BLOCK: &str = "block-height/0";

pub async fn head(pool: &Pool, first: usize) -> Result<(usize, BlockHash), RpcError> {
    let accept = |reply: &Reply<'_>| Ok(Verdict::Accept((reply.endpoint, block_hash(reply.text()?)?)));
    pool.send(Request::get("blocks/tip/hash").to(Target::From(first)), accept).await
}

pub async fn head_of(pool: &Pool, endpoint: usize) -> Result<Height, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let height = reply.text()?.parse().map_err(|_| Rejection::Invalid("a height that is none".to_owned()))?;
        Ok(Verdict::Accept(height))
    };
    pool.send(Request::get("blocks/tip/height").to(Target::Probe(endpoint)), accept).await
}

/// See [`crate::core::first_block_of`].
pub async fn first_block_of(pool: &Pool, endpoint: usize) -> Result<BlockHash, RpcError> {
    let accept = |reply: &Reply<'_>| block_hash(reply.text()?).map(Verdict::Accept);
    pool.send(Request::get(FIRST_BLOCK).with_method("block-height").to(Target::Probe(endpoint)), accept).await
}

/// See [`crate::core::find_first_block`].
pub async fn find_first_block(pool: &Pool, endpoint: usize) -> Result<BlockHash, RpcError> {
    let accept = |reply: &Reply<'_>| block_hash(reply.text()?).map(Verdict::Accept);
    pool.send(Request::get(FIRST_BLOCK).with_method("block-height").to(Target::Only(endpoint)), accept).await
}

/// One question for each height; see [`crate::core::hashes`].
pub async fn hashes(pool: &Pool, heights: &[Height]) -> Result<Vec<Option<BlockHash>>, RpcError> {
    let ask = |height: &Height| {
        let path = format!("block-height/{height}");
        async move {
            let accept = |reply: &Reply<'_>| match reply.text() {
                Ok(text) => Ok(Verdict::Accept(Some(block_hash(text)?))),
                Err(Rejection::NodeError(refusal)) if refusal.kind == NodeErrorKind::NotFound => {
                    Ok(Verdict::Fallback(None))
                }
                Err(bad) => Err(bad),
            };
            pool.send(Request::get(&path).with_method("block-height"), accept).await
        }
    };
    prefix(heights.iter().map(ask).collect()).await
}

pub async fn header(pool: &Pool, hash: BlockHash) -> Result<(Height, Header), RpcError> {
    let accept = |reply: &Reply<'_>| {
        let placed: Placed<'_> = there(reply)?.json()?;
        let header = Header {
            version: Version::from_consensus(placed.version),
            prev_blockhash: placed.previousblockhash.map_or(Ok(zero()), block_hash)?,
            merkle_root: root(placed.merkle_root)?,
            time: placed.timestamp,
            bits: CompactTarget::from_consensus(placed.bits),
            nonce: placed.nonce,
        };
        proven(header, hash).map(|header| Verdict::Accept((placed.height, header)))
    };
    pool.send(Request::get(&format!("block/{hash}")).with_method("block"), accept).await
}

pub async fn block<T>(
    pool: &Pool,
    hash: BlockHash,
    read: impl Fn(Vec<u8>) -> Result<T, Rejection> + Send,
) -> Result<T, RpcError> {
    let accept = |reply: &Reply<'_>| read(there(reply)?.body().to_vec()).map(Verdict::Accept);
    pool.send(Request::get(&format!("block/{hash}/raw")).with_method("block/raw"), accept).await
}

#[derive(Deserialize)]
struct Crowd {
    count: u64,
}

/// How many transactions wait.
pub async fn crowd(pool: &Pool) -> Result<u64, RpcError> {
    let accept = |reply: &Reply<'_>| Ok(Verdict::Accept(there(reply)?.json::<Crowd>()?.count));
    pool.send(Request::get("mempool"), accept).await
}

#[derive(Deserialize)]
struct Listed<'a> {
    txid: &'a str,
}

/// Those that wait for a block and pay or spend one of the addresses, at most fifty of each: more wait for one address only
/// when somebody plays, and the others show with their block.
pub async fn waiting_for(pool: &Pool, addresses: &[Address]) -> Result<Vec<TxId>, RpcError> {
    let ask = |address: &Address| {
        let path = format!("address/{}/txs/mempool", address.text);
        async move {
            let accept = |reply: &Reply<'_>| {
                let listed: Vec<Listed<'_>> = there(reply)?.json()?;
                listed.into_iter().map(|listed| txid(listed.txid)).collect::<Result<Vec<_>, _>>().map(Verdict::Accept)
            };
            pool.send(Request::get(&path).with_method("address/txs/mempool"), accept).await
        }
    };
    let asked: Vec<_> = addresses.iter().map(ask).collect();
    let mut all: Vec<TxId> = stream::iter(asked).buffered(CONCURRENT).try_concat().await?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

pub async fn waiting(pool: &Pool) -> Result<Vec<TxId>, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let listed: Vec<&str> = there(reply)?.json()?;
        listed.into_iter().map(txid).collect::<Result<Vec<_>, _>>().map(Verdict::Accept)
    };
    pool.send(Request::get("mempool/txids"), accept).await
}

pub async fn transactions(pool: &Pool, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, RpcError> {
    let ask = |txid: &TxId| {
        let path = format!("tx/{txid}/raw");
        async move {
            let accept = |reply: &Reply<'_>| match there(reply) {
                Ok(reply) => Ok(Verdict::Accept(Some(reply.body().to_vec()))),
                Err(Rejection::NodeError(refusal)) if refusal.kind == NodeErrorKind::NotFound => {
                    Ok(Verdict::Accept(None))
                }
                Err(bad) => Err(bad),
            };
            pool.send(Request::get(&path).with_method("tx/raw"), accept).await
        }
    };
    prefix(txids.iter().map(ask).collect()).await
}

/// The answers before the first that fails, a few under way at once. Fails only when that is the first of all.
async fn prefix<T>(asked: Vec<impl Future<Output = Result<T, RpcError>>>) -> Result<Vec<T>, RpcError> {
    let mut answers = Vec::with_capacity(asked.len());
    let mut said = stream::iter(asked).buffered(CONCURRENT);
    while let Some(answer) = said.next().await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(failure) if answers.is_empty() => return Err(failure),
            Err(_) => break,
        }
    }
    Ok(answers)
}

/// The estimate for the nearest target that is not sooner.
pub async fn fee_rate(pool: &Pool, blocks: u16) -> Result<Option<FeeRate>, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let estimates: BTreeMap<&str, &RawValue> = there(reply)?.json()?;
        let targets = estimates.iter().filter_map(|(target, rate)| Some((target.parse::<u16>().ok()?, rate.get())));
        let nearest = targets.filter(|(target, _)| *target >= blocks).min_by_key(|(target, _)| *target);
        let Some((_, text)) = nearest else { return Ok(Verdict::Fallback(None)) };
        let rate = FeeRate::read(text, 3).ok_or_else(|| Rejection::Invalid("a fee rate that is none".to_owned()))?;
        Ok(Verdict::Accept(Some(rate)))
    };
    pool.send(Request::get("fee-estimates"), accept).await
}

/// Only what was asked for; an error is a plain text with a status.
fn there<'r, 'a>(reply: &'r Reply<'a>) -> Result<&'r Reply<'a>, Rejection> {
    match reply.status {
        200 => Ok(reply),
        status => {
            let kind = if status == 404 { NodeErrorKind::NotFound } else { NodeErrorKind::Other };
            let message = String::from_utf8_lossy(reply.body()).chars().filter(|c| !c.is_control()).take(200).collect();
            Err(Rejection::NodeError(NodeError { code: i64::from(status), message, kind }))
        }
    }
}
