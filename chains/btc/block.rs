//! Parses a block, checks it against the roots in its header and its coinbase, and finds the transfers to watched
//! addresses and the spent watched outputs.

use bitcoin::{
    block::Header,
    consensus,
    hashes::{Hash, sha256d},
};
use chain::{
    AddressKey, BlockHash, Height, OutPoint, Spend, TxId,
    watch::{WatchedAddresses, WatchedOutputs},
};

use crate::{
    coinbase::parse_coinbase_height,
    hashes::to_display_order,
    merkle_roots::MerkleRoots,
    paid_output::{AddressType, PaidOutput},
    transaction::{ByteReader, Input, MalformedTransaction},
};

/// First bytes of the coinbase output script that contains the Merkle root of the witnesses (BIP141).
const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The parts of a parsed block that the driver uses.
#[derive(Debug, Clone)]
pub struct ParsedBlock {
    /// The header from the bytes of the block. A Bitcoin header does not contain the height.
    pub header: Header,
    /// Outputs to watched addresses, except those of the coinbase.
    pub outputs: Vec<PaidOutput>,
    /// Coinbase outputs to any address of the configured type, watched or not. They are reported as transfers 100
    /// blocks later, when they may be spent. An address that is watched only then must still find its output here.
    pub coinbase_outputs: Vec<PaidOutput>,
    /// Block height written in the coinbase (BIP34); `None` if the coinbase contains no height.
    pub coinbase_height: Option<Height>,
}

/// The reason why a block is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlock {
    /// A transaction cannot be parsed.
    #[error(transparent)]
    Transaction(#[from] MalformedTransaction),
    /// The header or the transaction count is truncated, or bytes follow the last transaction.
    #[error("the bytes of a block are not a header followed by its transactions")]
    Malformed,
    /// The Merkle root of the transaction ids differs from the root in the header, or the last transactions of the list
    /// are repeated (CVE-2012-2459).
    #[error("the transactions of a block do not match the Merkle root in its header")]
    TransactionRoot,
    /// The Merkle root of the witnesses differs from the root in the coinbase (BIP141), or the coinbase contains no
    /// such root.
    #[error("the witnesses of a block do not match the root in its coinbase")]
    WitnessRoot,
    /// The first transaction is not a coinbase, or another transaction is a coinbase.
    #[error("a block does not begin with a coinbase, or has more than one")]
    Coinbase,
}

/// Parses a block and finds its outputs to `watched` addresses. Fails unless the first transaction, and no other, is a
/// coinbase. Checks the Merkle roots in the header and the coinbase only if `verify_roots` is true.
pub fn parse_block_with_optional_root_check(
    bytes: &[u8],
    address_type: AddressType,
    verify_roots: bool,
    watched: &WatchedAddresses<'_>,
) -> Result<ParsedBlock, InvalidBlock> {
    let (front, rest) = bytes.split_at_checked(Header::SIZE).ok_or(InvalidBlock::Malformed)?;
    let header: Header = consensus::deserialize(front).map_err(|_| InvalidBlock::Malformed)?;
    let mut reader = ByteReader::new(rest);
    let count = reader.read_bounded_compact_size()?;
    let mut block = ParsedBlock { header, outputs: Vec::new(), coinbase_outputs: Vec::new(), coinbase_height: None };
    let mut roots = MerkleRoots::new(if verify_roots { count } else { 0 });
    // The outputs of one transaction that are kept: index, address key and satoshi. The vector is reused for all
    // transactions.
    let mut found: Vec<(u32, AddressKey, u64)> = Vec::new();
    for tx_index in 0..count {
        found.clear();
        let is_first = tx_index == 0;
        let mut commitment = None;
        let tx = reader.read_transaction(|output| {
            if let Some(key) = address_type.parse_key_of_matching_script(output.script)
                && (is_first || watched.contains(&key))
            {
                found.push((output.vout, key, output.sats));
            }
            if is_first && output.script.len() >= 38 && output.script.starts_with(&WITNESS_COMMITMENT_PREFIX) {
                commitment = output.script.get(6..38);
            }
        })?;
        if tx.is_coinbase != is_first {
            return Err(InvalidBlock::Coinbase);
        }
        if verify_roots {
            roots.add_transaction(&tx, commitment);
        }
        if is_first {
            block.coinbase_height = tx.first_input_script().and_then(parse_coinbase_height);
        }
        if !found.is_empty() {
            let txid = if verify_roots { roots.last_txid() } else { tx.compute_txid() };
            let tx_index = u32::try_from(tx_index).map_err(|_| InvalidBlock::Malformed)?;
            let outputs = if is_first { &mut block.coinbase_outputs } else { &mut block.outputs };
            outputs.extend(found.iter().map(|&(vout, to, sats)| PaidOutput { tx_index, txid, vout, to, sats }));
        }
    }
    if count == 0 || !reader.is_empty() {
        return Err(InvalidBlock::Malformed);
    }
    if verify_roots { roots.verify_merkle_roots(&header).map(|()| block) } else { Ok(block) }
}

/// Returns the watched outputs that the transactions of a block spend. [`parse_block_with_optional_root_check`] does not return them,
/// because blocks are parsed concurrently and a block may spend outputs that the block before it creates.
pub fn find_watched_spends(bytes: &[u8], watched: &WatchedOutputs<'_>) -> Result<Vec<Spend>, InvalidBlock> {
    let mut spends = Vec::new();
    if watched.is_empty() {
        return Ok(spends);
    }
    let (_, rest) = bytes.split_at_checked(Header::SIZE).ok_or(InvalidBlock::Malformed)?;
    let mut reader = ByteReader::new(rest);
    let mut spent = Vec::new();
    for _ in 0..reader.read_bounded_compact_size()? {
        let visit = |input: Input| {
            let txid = TxId(to_display_order(sha256d::Hash::from_byte_array(input.txid)));
            let output = OutPoint { txid, vout: input.vout };
            if watched.contains(&output) {
                spent.push(output);
            }
        };
        let tx = reader.read_transaction_with_callbacks(visit, |_| {})?;
        if !spent.is_empty() {
            let by = TxId(to_display_order(tx.compute_txid()));
            spends.extend(spent.drain(..).map(|output| Spend { output, spent_by: by }));
        }
    }
    Ok(spends)
}

/// Converts the header to a [`chain::Header`], the form in which all chain drivers return headers.
pub fn to_chain_header(header: &Header, height: Height) -> chain::Header {
    chain::Header {
        height,
        hash: BlockHash(to_display_order(header.block_hash().to_raw_hash())),
        parent: BlockHash(to_display_order(header.prev_blockhash.to_raw_hash())),
        time: i64::from(header.time),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, constants::genesis_block};
    use chain::WatchSet;

    use super::*;

    #[test]
    fn the_genesis_block_of_every_network_is_valid() {
        let watched = WatchSet::default();
        for network in [Network::Bitcoin, Network::Signet, Network::Testnet4, Network::Regtest] {
            let block = genesis_block(network);
            let bytes = consensus::serialize(&block);
            let parsed =
                parse_block_with_optional_root_check(&bytes, AddressType::P2wpkh, true, &watched.lock_addresses())
                    .unwrap();
            assert_eq!(parsed.header, block.header);
            for cut in [79, bytes.len() - 1] {
                assert!(
                    parse_block_with_optional_root_check(
                        &bytes[..cut],
                        AddressType::P2wpkh,
                        false,
                        &watched.lock_addresses()
                    )
                    .is_err()
                );
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(
                parse_block_with_optional_root_check(&longer, AddressType::P2wpkh, false, &watched.lock_addresses())
                    .unwrap_err(),
                InvalidBlock::Malformed
            );
            let mut other = bytes;
            let last = other.len() - 10;
            other[last] ^= 1;
            assert_eq!(
                parse_block_with_optional_root_check(&other, AddressType::P2wpkh, true, &watched.lock_addresses())
                    .unwrap_err(),
                InvalidBlock::TransactionRoot
            );
        }
    }
}
