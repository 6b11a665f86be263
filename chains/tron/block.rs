//! Parses blocks and verifies them: the block id against the hash of the header, each transaction id against the hash
//! of its content, and an empty transaction list against the transaction root.

use chain::{AssetId, BlockHash, Header, Height, Transfer, TxId, watch::WatchedAddresses};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    http_api,
    proto::{self, ContractRet},
    transfers::parse_watched_trx_payment,
};

/// The transaction root of a block without transactions.
const NO_TRANSACTIONS: [u8; 32] = [0; 32];

/// A block whose content is verified, but whose receipts are not read yet.
#[derive(Debug)]
pub struct ParsedBlock {
    /// Header whose hash matches the block id.
    pub header: Header,
    /// The verified ids of the block's transactions, in the order of the block. The receipts of the block must have the
    /// same ids in the same order.
    pub txids: Vec<TxId>,
    /// Successful TRX transfers to watched addresses (`TransferContract`). TRX that contracts send is not included; it
    /// is in the receipts.
    pub payments: Vec<Transfer>,
}

/// Parses a header and verifies that the block id is its hash. Returns `None` for `{}`, which a node returns for a
/// block that it does not have (yet).
pub fn parse_and_verify_header(block: &http_api::Block<'_>) -> Result<Option<Header>, String> {
    let (Some(id), Some(header)) = (block.id, &block.block_header) else { return Ok(None) };
    let raw = &header.raw_data;
    let id: [u8; 32] = parse_bytes32(id).ok_or("an invalid block id")?;
    let parent = parse_bytes32(raw.parent).ok_or("an invalid parent block id")?;
    let height = Height::try_from(raw.number).map_err(|_| "a negative height")?;
    if id[..8] != height.to_be_bytes() {
        return Err(format!("the id of block {height} contains another height"));
    }
    if hash_header(raw)?[8..] != id[8..] {
        return Err(format!("the id of block {height} is not the hash of its header"));
    }
    Ok(Some(Header { height, hash: BlockHash(id), parent: BlockHash(parent), time: raw.timestamp.div_euclid(1_000) }))
}

/// Returns the SHA-256 hash of a header's protobuf encoding.
fn hash_header(raw: &http_api::HeaderRaw<'_>) -> Result<[u8; 32], String> {
    let decode = |text: &str| const_hex::decode(text).map_err(|_| "a header field that is not hexadecimal".to_owned());
    let raw = proto::HeaderRaw {
        timestamp: raw.timestamp,
        tx_trie_root: decode(raw.root)?,
        parent_hash: decode(raw.parent)?,
        number: raw.number,
        witness_id: raw.witness_id,
        witness_address: decode(raw.witness_address)?,
        version: raw.version,
        account_state_root: decode(raw.account_state_root)?,
    };
    Ok(Sha256::digest(raw.encode_to_vec()).into())
}

/// Parses a block and verifies the ids of its transactions. Returns `None` when the node does not have the block or
/// omits its transactions. If `native` is given, collects the successful TRX transfers to `watched` addresses.
pub fn parse_block_and_verify_ids(
    block: &http_api::Block<'_>,
    native: Option<&AssetId>,
    watched: &WatchedAddresses<'_>,
) -> Result<Option<ParsedBlock>, String> {
    let Some(header) = parse_and_verify_header(block)? else { return Ok(None) };
    let root =
        block.block_header.as_ref().and_then(|header| parse_bytes32(header.raw_data.root)).unwrap_or(NO_TRANSACTIONS);
    if block.transactions.is_empty() != (root == NO_TRANSACTIONS) {
        return Ok(None);
    }
    let mut txids = Vec::with_capacity(block.transactions.len());
    let mut payments = Vec::new();
    let mut raw = Vec::new();
    for (index, transaction) in block.transactions.iter().enumerate() {
        let txid = TxId(parse_bytes32(transaction.id).ok_or("a transaction without an id")?);
        raw.resize(transaction.raw.len() / 2, 0);
        const_hex::decode_to_slice(transaction.raw, &mut raw)
            .map_err(|_| format!("transaction {txid} is not hexadecimal"))?;
        if Sha256::digest(&raw).as_slice() != txid.0 {
            return Err(format!("the id of transaction {txid} is not the hash of its content"));
        }
        let tx_index = u32::try_from(index).map_err(|_| "too many transactions")?;
        if let Some(asset) = native
            && has_succeeded(transaction)
            && let Some(payment) = parse_watched_trx_payment(&raw, watched)
        {
            payments.push(payment.into_transfer(txid, tx_index, asset));
        }
        txids.push(txid);
    }
    Ok(Some(ParsedBlock { header, txids, payments }))
}

/// Parses the blocks of a reply, which must have the heights from `from` to `to`. The list ends before the first block
/// that is incomplete or is not the child of the previous block.
pub fn parse_blocks_while_linked(
    answer: &http_api::Blocks<'_>,
    from: Height,
    to: Height,
    native: Option<&AssetId>,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<ParsedBlock>, String> {
    let mut blocks: Vec<ParsedBlock> = Vec::with_capacity(answer.block.len());
    for (height, found) in (from..=to).zip(&answer.block) {
        let Some(body) = parse_block_and_verify_ids(found, native, watched)? else { break };
        if body.header.height != height {
            return Err(format!("requested block {height}, received block {}", body.header.height));
        }
        // The node switched to another branch during the request. The blocks before this one still follow each other.
        if blocks.last().is_some_and(|last| last.header.hash != body.header.parent) {
            break;
        }
        blocks.push(body);
    }
    Ok(blocks)
}

/// Returns true if the result of the transaction's operation is SUCCESS.
fn has_succeeded(transaction: &http_api::Transaction<'_>) -> bool {
    transaction.ret.first().and_then(|ret| ret.contract_ret) == Some(ContractRet::Success.json_name())
}

/// Parses 64 hexadecimal digits.
pub fn parse_bytes32(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0u8; 32];
    const_hex::decode_to_slice(hex, &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block headers from nodes of TRON mainnet and of its test networks, in JSON.
    const HEADERS: [&str; 3] = [
        r#"{"blockID":"0000000003b6b891043be54ac0ae1ef579fad5e6e1732cb0ac4237a873b8453e","block_header":{"raw_data":{
            "number":62306449,"txTrieRoot":"7cb6ddff8ada79c91baf6667cc8ead757b39205a8dc8ae097298dbb0587bddb7",
            "witness_address":"4114f2c09d3de3fe82a71960da65d4935a30b24e1f","version":30,"timestamp":1717563117000,
            "parentHash":"0000000003b6b890d8e1d886520dcad1820f4313a435ad593a80c549ea883054"}}}"#,
        r#"{"blockID":"000000000335f6219b675cfb09a93b99a53729b80b188dcde464eb41625c3d0c","block_header":{"raw_data":{
            "number":53868065,"txTrieRoot":"0000000000000000000000000000000000000000000000000000000000000000",
            "witness_address":"41711cf6683d28621ae12030fd541b288c61d682cd","version":31,"timestamp":1745423034000,
            "parentHash":"000000000335f620ef6509d67751753763be896f7ac569fc1d1cfa059cecf619"}}}"#,
        r#"{"blockID":"0000000003fe262d52bfa4b2814f816fd2e57af5b98a33d60d8630a03a908e0e","block_header":{"raw_data":{
            "number":66987565,"txTrieRoot":"faf8fe3858339ead25cc892461c82a59b84dca4a51c45b026676bf3f45a352a2",
            "witness_address":"41b2f713d57dbcec679d93a8849fa0cd0e4db594ba","version":34,"timestamp":1777445121000,
            "parentHash":"0000000003fe262c85cd6b02033f4c3e5c1efa35de256a17bd906dc61fb1aeed"}}}"#,
    ];

    #[test]
    fn a_block_id_that_is_not_the_hash_of_its_header_is_rejected() {
        for text in HEADERS {
            let found = parse_and_verify_header(&serde_json::from_str(text).unwrap()).unwrap().unwrap();
            assert_eq!(found.height, found.hash.0[..8].try_into().map(Height::from_be_bytes).unwrap());
            for (original, changed) in
                [("timestamp\":17", "timestamp\":18"), ("\"version\":3", "\"version\":4"), ("\"41", "\"42")]
            {
                let forged = text.replacen(original, changed, 1);
                assert!(parse_and_verify_header(&serde_json::from_str(&forged).unwrap()).is_err(), "{forged}");
            }
        }
        assert_eq!(parse_and_verify_header(&http_api::Block::default()), Ok(None));
    }

    #[test]
    fn a_block_without_its_transactions_counts_as_missing() {
        let block: http_api::Block<'_> = serde_json::from_str(HEADERS[0]).unwrap();
        assert!(
            parse_block_and_verify_ids(&block, None, &chain::WatchSet::default().lock_addresses()).unwrap().is_none()
        );
        let block: http_api::Block<'_> = serde_json::from_str(HEADERS[1]).unwrap();
        let empty =
            parse_block_and_verify_ids(&block, None, &chain::WatchSet::default().lock_addresses()).unwrap().unwrap();
        assert_eq!(empty.header.time, 1_745_423_034);
    }
}
