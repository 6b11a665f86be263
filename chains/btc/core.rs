//! The questions as Bitcoin Core answers them over JSON-RPC (28 or newer; older ones know these calls too).

use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, block::Header, block::Version};
use chain::{Height, TxId};
use rpc::{Pool, Rejection, Reply, Request, RpcError, Target, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fees::FeeRate;

/// `RPC_INVALID_PARAMETER`: here, a height above the head.
const INVALID_PARAMETER: i64 = -8;
/// `RPC_INVALID_ADDRESS_OR_KEY`: here, a transaction that the node does not have (any more).
const NO_SUCH_KEY: i64 = -5;
/// Small questions in one batch.
const BATCH: usize = 100;

#[derive(Deserialize)]
struct Placed<'a> {
    height: Height,
    version: i32,
    merkleroot: &'a str,
    time: u32,
    nonce: u32,
    bits: &'a str,
    #[serde(default)]
    previousblockhash: Option<&'a str>,
}

/// What a node says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Standing {
    pub chain: String,
    pub blocks: Height,
    pub headers: Height,
    pub initialblockdownload: bool,
    pub pruned: bool,
    #[serde(default)]
    pub pruneheight: Option<Height>,
}

/// Who answered, and the hash of its newest block.
pub async fn head(pool: &Pool, first: usize) -> Result<(usize, BlockHash), RpcError> {
    let accept = |reply: &Reply<'_>| Ok(Verdict::Accept((reply.endpoint, block_hash(reply.result()?)?)));
    pool.send(Request::call("getbestblockhash", &[(); 0]).to(Target::From(first)), accept).await
}

/// The first block, however the endpoint feels: for people.
pub async fn first_block_of(pool: &Pool, endpoint: usize) -> Result<BlockHash, RpcError> {
    let accept = |reply: &Reply<'_>| block_hash(reply.result()?).map(Verdict::Accept);
    pool.send(Request::call("getblockhash", &[0]).to(Target::Probe(endpoint)), accept).await
}

/// The same unless the endpoint rests: for what is asked until somebody answers.
pub async fn find_first_block(pool: &Pool, endpoint: usize) -> Result<BlockHash, RpcError> {
    let accept = |reply: &Reply<'_>| block_hash(reply.result()?).map(Verdict::Accept);
    pool.send(Request::call("getblockhash", &[0]).to(Target::Only(endpoint)), accept).await
}

/// The hashes at these heights of the node's branch, `None` above its head, as far as somebody answers: those that are there
/// are of use without the others.
pub async fn hashes(pool: &Pool, heights: &[Height]) -> Result<Vec<Option<BlockHash>>, RpcError> {
    let params: Vec<[Height; 1]> = heights.iter().map(|height| [*height]).collect();
    let accept = |_: usize, reply: &Reply<'_>| match reply.result::<&str>() {
        Ok(text) => Ok(Verdict::Accept(Some(block_hash(text)?))),
        // The node may be behind: another one is asked before this is believed.
        Err(Rejection::NodeError(refusal)) if refusal.code == INVALID_PARAMETER => Ok(Verdict::Fallback(None)),
        Err(bad) => Err(bad),
    };
    pool.batch("getblockhash", &params, BATCH, accept).await.into_prefix()
}

/// A header with the height that the node gives it. It hashes to what was asked for.
pub async fn header(pool: &Pool, hash: BlockHash) -> Result<(Height, Header), RpcError> {
    let accept = |reply: &Reply<'_>| {
        let placed: Placed<'_> = reply.result()?;
        let header = Header {
            version: Version::from_consensus(placed.version),
            prev_blockhash: placed.previousblockhash.map_or(Ok(zero()), block_hash)?,
            merkle_root: root(placed.merkleroot)?,
            time: placed.time,
            bits: CompactTarget::from_unprefixed_hex(placed.bits)
                .map_err(|_| Rejection::Invalid("no difficulty".to_owned()))?,
            nonce: placed.nonce,
        };
        proven(header, hash).map(|header| Verdict::Accept((placed.height, header)))
    };
    pool.send(Request::call("getblockheader", &(hash.to_string(), true)), accept).await
}

/// The block's bytes, given to `read`, which judges them.
pub async fn block<T>(
    pool: &Pool,
    hash: BlockHash,
    read: impl Fn(Vec<u8>) -> Result<T, Rejection> + Send,
) -> Result<T, RpcError> {
    let accept = |reply: &Reply<'_>| read(bytes(reply.result()?)?).map(Verdict::Accept);
    pool.send(Request::call("getblock", &(hash.to_string(), 0)), accept).await
}

/// Everything that waits for a block.
pub async fn waiting(pool: &Pool) -> Result<Vec<TxId>, RpcError> {
    let accept = |reply: &Reply<'_>| {
        let listed: Vec<&str> = reply.result()?;
        listed.into_iter().map(txid).collect::<Result<Vec<_>, _>>().map(Verdict::Accept)
    };
    pool.send(Request::call("getrawmempool", &[(); 0]), accept).await
}

/// Transactions that wait, as bytes, as far as somebody answers; `None` for those that are gone.
pub async fn transactions(pool: &Pool, txids: &[TxId]) -> Result<Vec<Option<Vec<u8>>>, RpcError> {
    let params: Vec<(String, bool)> = txids.iter().map(|txid| (txid.to_string(), false)).collect();
    let accept = |_: usize, reply: &Reply<'_>| match reply.result::<&str>() {
        Ok(text) => Ok(Verdict::Accept(Some(bytes(text)?))),
        Err(Rejection::NodeError(refusal)) if refusal.code == NO_SUCH_KEY => Ok(Verdict::Accept(None)),
        Err(bad) => Err(bad),
    };
    pool.batch("getrawtransaction", &params, BATCH, accept).await.into_prefix()
}

/// `None` while the node has seen too little to say.
pub async fn fee_rate(pool: &Pool, blocks: u16) -> Result<Option<FeeRate>, RpcError> {
    #[derive(Deserialize)]
    struct Estimate<'a> {
        #[serde(borrow, default)]
        feerate: Option<&'a RawValue>,
    }
    let accept = |reply: &Reply<'_>| {
        let estimate: Estimate<'_> = reply.result()?;
        let Some(text) = estimate.feerate else { return Ok(Verdict::Fallback(None)) };
        let rate =
            FeeRate::read(text.get(), 8).ok_or_else(|| Rejection::Invalid("a fee rate that is none".to_owned()))?;
        Ok(Verdict::Accept(Some(rate)))
    };
    pool.send(Request::call("estimatesmartfee", &[blocks]), accept).await
}

pub async fn standing(pool: &Pool, endpoint: usize) -> Result<Standing, RpcError> {
    let accept = |reply: &Reply<'_>| reply.result().map(Verdict::Accept);
    pool.send(Request::call("getblockchaininfo", &[(); 0]).to(Target::Probe(endpoint)), accept).await
}

/// Shared with the other access: a header is what its hash says.
pub fn proven(header: Header, hash: BlockHash) -> Result<Header, Rejection> {
    if header.block_hash() == hash {
        Ok(header)
    } else {
        Err(Rejection::Invalid(format!("the header of block {hash} does not hash to its name")))
    }
}

pub fn block_hash(text: &str) -> Result<BlockHash, Rejection> {
    text.parse().map_err(|_| Rejection::Invalid("a block's hash that is none".to_owned()))
}

pub fn txid(text: &str) -> Result<TxId, Rejection> {
    const_hex::decode_to_array(text)
        .map(TxId)
        .map_err(|_| Rejection::Invalid("a transaction's name that is none".to_owned()))
}

pub fn root(text: &str) -> Result<TxMerkleNode, Rejection> {
    text.parse().map_err(|_| Rejection::Invalid("a root that is none".to_owned()))
}

/// The parent of the first block.
pub fn zero() -> BlockHash {
    bitcoin::hashes::Hash::all_zeros()
}

fn bytes(text: &str) -> Result<Vec<u8>, Rejection> {
    const_hex::decode(text).map_err(|_| Rejection::Invalid("bytes that are no hexadecimal text".to_owned()))
}
