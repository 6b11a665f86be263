//! Hashes of blocks and transactions. Nodes and users write a hash in the displayed order, which is the reverse of the
//! order in which blocks contain the bytes.

use bitcoin::{
    BlockHash, TxMerkleNode,
    block::Header,
    hashes::{Hash, sha256d},
};
use chain::TxId;
use rpc::Rejection;

/// Returns the header if its hash is `hash`. Otherwise fails with a rejection, so that the request goes to another
/// endpoint.
pub fn verify_header_hash(header: Header, hash: BlockHash) -> Result<Header, Rejection> {
    if header.block_hash() == hash {
        Ok(header)
    } else {
        Err(Rejection::Invalid(format!("the header returned for block {hash} has another hash")))
    }
}

/// Parses a block hash of 64 hexadecimal digits in the displayed order.
pub fn parse_block_hash(text: &str) -> Result<BlockHash, Rejection> {
    text.parse().map_err(|_| Rejection::Invalid("an invalid block hash".to_owned()))
}

/// Parses a transaction id of 64 hexadecimal digits in the displayed order.
pub fn parse_txid(text: &str) -> Result<TxId, Rejection> {
    const_hex::decode_to_array(text).map(TxId).map_err(|_| Rejection::Invalid("an invalid transaction id".to_owned()))
}

/// Parses a Merkle root of 64 hexadecimal digits in the displayed order.
pub fn parse_merkle_root(text: &str) -> Result<TxMerkleNode, Rejection> {
    text.parse().map_err(|_| Rejection::Invalid("an invalid Merkle root".to_owned()))
}

/// Returns the hash of 32 zero bytes, which the genesis block names as its parent.
pub fn zero_block_hash() -> BlockHash {
    BlockHash::all_zeros()
}

/// Returns the bytes of a hash in the displayed order, which is the reverse of the order in which blocks contain them.
pub fn to_display_order(hash: sha256d::Hash) -> [u8; 32] {
    let mut bytes = hash.to_byte_array();
    bytes.reverse();
    bytes
}
