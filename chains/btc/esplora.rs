//! Requests to public Esplora servers over HTTP (github.com/Blockstream/esplora, API.md), for operators who run no
//! Bitcoin node. The driver does not trust these servers: it verifies the proof of work and the Merkle roots of each
//! block.

use std::collections::BTreeMap;

use bitcoin::{BlockHash, CompactTarget, block::Header, block::Version};
use chain::{Address, Height, TxId};
use futures_util::{StreamExt, TryStreamExt, stream};
use rpc::{NodeError, NodeErrorKind, Pool, Rejection, Reply, Request, RpcError, Target, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    fees::FeeRate,
    hashes::{parse_block_hash, parse_merkle_root, parse_txid, verify_header_hash, zero_block_hash},
};

/// Maximum number of requests for hashes, transactions or addresses that are sent at the same time.
const CONCURRENCY: usize = 4;
/// The maximum number of characters of a server's error text that an error message contains.
const ERROR_LENGTH_MAX: usize = 200;

/// The reply of a server to the path `block/{hash}`.
#[derive(Deserialize)]
struct BlockInfo<'a> {
    height: Height,
    version: i32,
    timestamp: u32,
    merkle_root: &'a str,
    nonce: u32,
    bits: u32,
    #[serde(default)]
    previousblockhash: Option<&'a str>,
}

/// URL path that returns the hash of the genesis block.
pub const GENESIS_HASH_PATH: &str = "block-height/0";

/// Returns the hash of the newest block and the index of the endpoint that returned it. The request goes first to the
/// endpoint with the index `first`.
pub async fn fetch_head_hash(pool: &Pool, first: usize) -> Result<(usize, BlockHash), RpcError> {
    let accept =
        |reply: &Reply<'_>| Ok(Verdict::Accept((reply.endpoint, parse_block_hash(reply.parse_text_of_status_200()?)?)));
    pool.send_request(Request::http_get("blocks/tip/hash").with_target(Target::From(first)), accept).await
}

/// Returns the height of the newest block of the server with the index `endpoint`.
pub async fn fetch_head_height(pool: &Pool, endpoint: usize) -> Result<Height, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let height = reply
            .parse_text_of_status_200()?
            .parse()
            .map_err(|_| Rejection::Invalid("an invalid height".to_owned()))?;
        Ok(Verdict::Accept(height))
    };
    pool.send_request(Request::http_get("blocks/tip/height").with_target(Target::Probe(endpoint)), accept).await
}

/// Returns the hash of the genesis block.
pub async fn fetch_genesis_hash(pool: &Pool, target: Target) -> Result<BlockHash, RpcError> {
    let accept = |reply: &Reply<'_>| parse_block_hash(reply.parse_text_of_status_200()?).map(Verdict::Accept);
    pool.send_request(Request::http_get(GENESIS_HASH_PATH).with_method("block-height").with_target(target), accept)
        .await
}

/// Returns the block hash at each height, or `None` for a height above the server's newest block. Sends one request for
/// each height. If a request fails, the list ends before that height, and the hashes in the list are still valid.
pub async fn fetch_block_hashes_until_failure(
    pool: &Pool,
    heights: &[Height],
) -> Result<Vec<Option<BlockHash>>, RpcError> {
    let request_hash = |height: &Height| {
        let request = Request::http_get(&format!("block-height/{height}")).with_method("block-height");
        pool.send_request(request, |reply: &Reply<'_>| match reply.parse_text_of_status_200() {
            Ok(text) => Ok(Verdict::Accept(Some(parse_block_hash(text)?))),
            // The server may be behind, so the pool asks other endpoints too, and returns `None` only if none of them
            // has the block.
            Err(Rejection::NodeError(error)) if error.kind == NodeErrorKind::NotFound => Ok(Verdict::Fallback(None)),
            Err(rejection) => Err(rejection),
        })
    };
    run_requests_until_failure(heights.iter().map(request_hash).collect()).await
}

/// Returns the header with this hash and the height that the server reports for it. The hash of the header is verified;
/// the height is not.
pub async fn fetch_header_by_hash(pool: &Pool, hash: BlockHash) -> Result<(Height, Header), RpcError> {
    let accept = |reply: &Reply<'_>| {
        let info: BlockInfo<'_> = reject_error_status(reply)?.parse_json()?;
        let header = Header {
            version: Version::from_consensus(info.version),
            prev_blockhash: info.previousblockhash.map_or(Ok(zero_block_hash()), parse_block_hash)?,
            merkle_root: parse_merkle_root(info.merkle_root)?,
            time: info.timestamp,
            bits: CompactTarget::from_consensus(info.bits),
            nonce: info.nonce,
        };
        verify_header_hash(header, hash).map(|header| Verdict::Accept((info.height, header)))
    };
    pool.send_request(Request::http_get(&format!("block/{hash}")).with_method("block"), accept).await
}

/// Fetches the bytes of a block and returns the result of `parse`. If `parse` fails, another endpoint gets the request.
pub async fn fetch_and_parse_block<T>(
    pool: &Pool,
    hash: BlockHash,
    parse: impl Fn(Vec<u8>) -> Result<T, Rejection> + Send,
) -> Result<T, RpcError> {
    let accept = |reply: &Reply<'_>| parse(reject_error_status(reply)?.body().to_vec()).map(Verdict::Accept);
    pool.send_request(Request::http_get(&format!("block/{hash}/raw")).with_method("block/raw"), accept).await
}

/// The reply of a server to the path `mempool`.
#[derive(Deserialize)]
struct MempoolInfo {
    count: u64,
}

/// Returns the number of transactions in the server's mempool.
pub async fn count_mempool_transactions(pool: &Pool) -> Result<u64, RpcError> {
    let accept =
        |reply: &Reply<'_>| Ok(Verdict::Accept(reject_error_status(reply)?.parse_json::<MempoolInfo>()?.count));
    pool.send_request(Request::http_get("mempool"), accept).await
}

/// An item of the reply to `address/{address}/txs/mempool`.
#[derive(Deserialize)]
struct AddressTransaction<'a> {
    txid: &'a str,
}

/// Returns the ids of the mempool transactions that pay one of the addresses or spend from it. Esplora lists at most 50
/// transactions per address. The driver does not see further transactions before a block contains them.
pub async fn list_mempool_txids_by_address(pool: &Pool, addresses: &[Address]) -> Result<Vec<TxId>, RpcError> {
    let request_txids = |address: &Address| {
        let path = format!("address/{}/txs/mempool", address.text);
        let request = Request::http_get(&path).with_method("address/txs/mempool");
        pool.send_request(request, |reply: &Reply<'_>| {
            let transactions: Vec<AddressTransaction<'_>> = reject_error_status(reply)?.parse_json()?;
            let txids = transactions.into_iter().map(|transaction| parse_txid(transaction.txid));
            txids.collect::<Result<Vec<_>, _>>().map(Verdict::Accept)
        })
    };
    let requests: Vec<_> = addresses.iter().map(request_txids).collect();
    let mut txids: Vec<TxId> = stream::iter(requests).buffered(CONCURRENCY).try_concat().await?;
    txids.sort_unstable();
    txids.dedup();
    Ok(txids)
}

/// Returns the ids of all transactions in the server's mempool.
pub async fn list_mempool_txids(pool: &Pool) -> Result<Vec<TxId>, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let txids: Vec<&str> = reject_error_status(reply)?.parse_json()?;
        txids.into_iter().map(parse_txid).collect::<Result<Vec<_>, _>>().map(Verdict::Accept)
    };
    pool.send_request(Request::http_get("mempool/txids"), accept).await
}

/// Returns the bytes of each mempool transaction, or `None` for a transaction that left the mempool. Sends one request
/// for each transaction. If a request fails, the list ends before that transaction.
pub async fn fetch_transactions_until_failure(pool: &Pool, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, RpcError> {
    let request_bytes = |txid: &TxId| {
        let request = Request::http_get(&format!("tx/{txid}/raw")).with_method("tx/raw");
        pool.send_request(request, |reply: &Reply<'_>| match reject_error_status(reply) {
            Ok(reply) => Ok(Verdict::Accept(Some(reply.body().to_vec()))),
            Err(Rejection::NodeError(error)) if error.kind == NodeErrorKind::NotFound => Ok(Verdict::Accept(None)),
            Err(rejection) => Err(rejection),
        })
    };
    run_requests_until_failure(txids.iter().map(request_bytes).collect()).await
}

/// Sends requests, up to [`CONCURRENCY`] at once, and returns the results before the first request that fails. Fails
/// only if the first request of the list fails.
async fn run_requests_until_failure<T>(
    requests: Vec<impl Future<Output = Result<T, RpcError>>>,
) -> Result<Vec<T>, RpcError> {
    let mut results = Vec::with_capacity(requests.len());
    let mut pending = stream::iter(requests).buffered(CONCURRENCY);
    while let Some(result) = pending.next().await {
        match result {
            Ok(value) => results.push(value),
            Err(error) if results.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(results)
}

/// Returns the estimated fee rate for a confirmation within `blocks` blocks, or within the next larger number of blocks
/// that the server lists. Returns `None` if the server lists no such number.
pub async fn estimate_fee_rate(pool: &Pool, blocks: u16) -> Result<Option<FeeRate>, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let estimates: BTreeMap<&str, &RawValue> = reject_error_status(reply)?.parse_json()?;
        let targets = estimates.iter().filter_map(|(target, rate)| Some((target.parse::<u16>().ok()?, rate.get())));
        let nearest = targets.filter(|(target, _)| *target >= blocks).min_by_key(|(target, _)| *target);
        let Some((_, text)) = nearest else { return Ok(Verdict::Fallback(None)) };
        let rate = FeeRate::parse_decimal_rounding_up(text, 3)
            .ok_or_else(|| Rejection::Invalid("an invalid fee rate".to_owned()))?;
        Ok(Verdict::Accept(Some(rate)))
    };
    pool.send_request(Request::http_get("fee-estimates"), accept).await
}

/// Returns the reply if its HTTP status is 200, and otherwise an error with the text of its body.
fn reject_error_status<'r, 'a>(reply: &'r Reply<'a>) -> Result<&'r Reply<'a>, Rejection> {
    match reply.status {
        200 => Ok(reply),
        status => {
            let kind = if status == 404 { NodeErrorKind::NotFound } else { NodeErrorKind::Other };
            let text = String::from_utf8_lossy(reply.body());
            let message = text.chars().filter(|c| !c.is_control()).take(ERROR_LENGTH_MAX).collect();
            Err(Rejection::NodeError(NodeError { code: i64::from(status), message, kind }))
        }
    }
}
