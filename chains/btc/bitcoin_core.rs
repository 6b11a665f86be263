//! Requests to Bitcoin Core over JSON-RPC. They work with version 28 and later.

use bitcoin::{BlockHash, CompactTarget, block::Header, block::Version};
use chain::{Height, TxId};
use rpc::{Pool, Rejection, Reply, Request, RpcError, Target, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    fees::FeeRate,
    hashes::{parse_block_hash, parse_merkle_root, parse_txid, verify_header_hash, zero_block_hash},
};

/// Code `RPC_INVALID_PARAMETER`, which `getblockhash` returns for a height above the node's newest block.
const INVALID_PARAMETER: i64 = -8;
/// Code `RPC_INVALID_ADDRESS_OR_KEY`, which `getrawtransaction` returns for a transaction that the node does not have.
const UNKNOWN_TRANSACTION: i64 = -5;
/// Maximum number of calls in one JSON-RPC batch.
const BATCH_MAX: usize = 100;

/// The result of the RPC method `getblockheader`.
#[derive(Deserialize)]
struct VerboseHeader<'a> {
    height: Height,
    version: i32,
    merkleroot: &'a str,
    time: u32,
    nonce: u32,
    bits: &'a str,
    #[serde(default)]
    previousblockhash: Option<&'a str>,
}

/// The result of the RPC method `getblockchaininfo`.
#[derive(Debug, Clone, Deserialize)]
pub struct ChainInfo {
    /// Name of the network: `main`, `test`, `testnet4`, `signet` or `regtest`.
    pub chain: String,
    /// Height of the newest block that the node has verified.
    pub blocks: Height,
    /// Height of the newest header that the node has. It is above `blocks` while the node downloads blocks.
    pub headers: Height,
    /// True until the node has caught up with the network for the first time.
    pub initialblockdownload: bool,
    /// True if the node deletes old blocks (pruning).
    pub pruned: bool,
    /// Height of the oldest block that a pruned node still has; `None` if the node does not prune.
    #[serde(default)]
    pub pruneheight: Option<Height>,
}

/// Returns the hash of the newest block and the index of the endpoint that returned it. The request goes first to the
/// endpoint with the index `first`.
pub async fn fetch_head_hash(pool: &Pool, first: usize) -> Result<(usize, BlockHash), RpcError> {
    let accept = |reply: &Reply<'_>| Ok(Verdict::Accept((reply.endpoint, parse_block_hash(reply.parse_result()?)?)));
    pool.send_request(Request::json_rpc_call("getbestblockhash", &[(); 0]).with_target(Target::From(first)), accept)
        .await
}

/// Returns the hash of the genesis block.
pub async fn fetch_genesis_hash(pool: &Pool, target: Target) -> Result<BlockHash, RpcError> {
    let accept = |reply: &Reply<'_>| parse_block_hash(reply.parse_result()?).map(Verdict::Accept);
    pool.send_request(Request::json_rpc_call("getblockhash", &[0]).with_target(target), accept).await
}

/// Returns the block hash at each height, or `None` for a height above the node's newest block. If a request fails, the
/// list ends before that height, and the hashes in the list are still valid.
pub async fn fetch_block_hashes_until_failure(
    pool: &Pool,
    heights: &[Height],
) -> Result<Vec<Option<BlockHash>>, RpcError> {
    let params: Vec<[Height; 1]> = heights.iter().map(|height| [*height]).collect();
    let accept = |_: usize, reply: &Reply<'_>| match reply.parse_result::<&str>() {
        Ok(text) => Ok(Verdict::Accept(Some(parse_block_hash(text)?))),
        // The node may be behind, so the pool also sends the request to another endpoint.
        Err(Rejection::NodeError(error)) if error.code == INVALID_PARAMETER => Ok(Verdict::Fallback(None)),
        Err(rejection) => Err(rejection),
    };
    pool.send_calls_batched_or_one_by_one("getblockhash", &params, BATCH_MAX, accept)
        .await
        .into_results_before_failure()
}

/// Returns the header with this hash and the height that the node reports for it. The hash of the header is verified;
/// the height is not.
pub async fn fetch_header_by_hash(pool: &Pool, hash: BlockHash) -> Result<(Height, Header), RpcError> {
    let accept = |reply: &Reply<'_>| {
        let verbose: VerboseHeader<'_> = reply.parse_result()?;
        let header = Header {
            version: Version::from_consensus(verbose.version),
            prev_blockhash: verbose.previousblockhash.map_or(Ok(zero_block_hash()), parse_block_hash)?,
            merkle_root: parse_merkle_root(verbose.merkleroot)?,
            time: verbose.time,
            bits: CompactTarget::from_unprefixed_hex(verbose.bits)
                .map_err(|_| Rejection::Invalid("`bits` is not a compact target".to_owned()))?,
            nonce: verbose.nonce,
        };
        verify_header_hash(header, hash).map(|header| Verdict::Accept((verbose.height, header)))
    };
    pool.send_request(Request::json_rpc_call("getblockheader", &(hash.to_string(), true)), accept).await
}

/// Fetches the bytes of a block and returns the result of `parse`. If `parse` fails, another endpoint gets the request.
pub async fn fetch_and_parse_block<T>(
    pool: &Pool,
    hash: BlockHash,
    parse: impl Fn(Vec<u8>) -> Result<T, Rejection> + Send,
) -> Result<T, RpcError> {
    let accept = |reply: &Reply<'_>| parse(parse_hex(reply.parse_result()?)?).map(Verdict::Accept);
    pool.send_request(Request::json_rpc_call("getblock", &(hash.to_string(), 0)), accept).await
}

/// Returns the ids of all transactions in the mempool.
pub async fn list_mempool_txids(pool: &Pool) -> Result<Vec<TxId>, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let txids: Vec<&str> = reply.parse_result()?;
        txids.into_iter().map(parse_txid).collect::<Result<Vec<_>, _>>().map(Verdict::Accept)
    };
    pool.send_request(Request::json_rpc_call("getrawmempool", &[(); 0]), accept).await
}

/// Returns the bytes of each mempool transaction, or `None` for a transaction that left the mempool. If a request
/// fails, the list ends before that transaction.
pub async fn fetch_transactions_until_failure(pool: &Pool, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, RpcError> {
    let params: Vec<(String, bool)> = txids.iter().map(|txid| (txid.to_string(), false)).collect();
    let accept = |_: usize, reply: &Reply<'_>| match reply.parse_result::<&str>() {
        Ok(text) => Ok(Verdict::Accept(Some(parse_hex(text)?))),
        Err(Rejection::NodeError(error)) if error.code == UNKNOWN_TRANSACTION => Ok(Verdict::Accept(None)),
        Err(rejection) => Err(rejection),
    };
    pool.send_calls_batched_or_one_by_one("getrawtransaction", &params, BATCH_MAX, accept)
        .await
        .into_results_before_failure()
}

/// Returns the node's estimate of the fee rate for a confirmation within `blocks` blocks, or `None` if the node has too
/// little data for an estimate.
pub async fn estimate_fee_rate(pool: &Pool, blocks: u16) -> Result<Option<FeeRate>, RpcError> {
    #[derive(Deserialize)]
    struct Estimate<'a> {
        #[serde(borrow, default)]
        feerate: Option<&'a RawValue>,
    }
    let accept = |reply: &Reply<'_>| {
        let estimate: Estimate<'_> = reply.parse_result()?;
        let Some(text) = estimate.feerate else { return Ok(Verdict::Fallback(None)) };
        let rate = FeeRate::parse_decimal_rounding_up(text.get(), 8)
            .ok_or_else(|| Rejection::Invalid("an invalid fee rate".to_owned()))?;
        Ok(Verdict::Accept(Some(rate)))
    };
    pool.send_request(Request::json_rpc_call("estimatesmartfee", &[blocks]), accept).await
}

/// Returns the state of the chain at one node: its network, its height, and whether it syncs or prunes.
pub async fn fetch_chain_info(pool: &Pool, endpoint: usize) -> Result<ChainInfo, RpcError> {
    let accept = |reply: &Reply<'_>| reply.parse_result().map(Verdict::Accept);
    pool.send_request(
        Request::json_rpc_call("getblockchaininfo", &[(); 0]).with_target(Target::Probe(endpoint)),
        accept,
    )
    .await
}

fn parse_hex(text: &str) -> Result<Vec<u8>, Rejection> {
    const_hex::decode(text).map_err(|_| Rejection::Invalid("the result is not hexadecimal".to_owned()))
}
