//! Parses a block, checks it against the roots in its header and its coinbase, and finds outputs to watched addresses.

use bitcoin::{
    block::Header,
    consensus,
    hashes::{Hash, HashEngine, sha256d},
};
use chain::{
    AddressKey, Amount, AssetId, BlockHash, Height, OutPoint, Spend, Transfer, TransferIndex, TxId, TxPart, address,
    watch::{WatchedAddresses, WatchedOutputs},
};

use crate::transaction::{Input, MalformedTransaction, Output, Reader, Tx};

/// First bytes of the output script in which a coinbase commits to the witnesses (BIP141).
const WITNESS_COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The type of the addresses that receive payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    /// Pay to witness public key hash (BIP141): a program of 20 bytes, `bc1q…` on mainnet.
    P2wpkh,
    /// Pay to Taproot (BIP341): a program of 32 bytes, `bc1p…` on mainnet.
    P2tr,
}

/// An output that pays an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaidOutput {
    /// Index of the transaction in its block; 0 outside a block.
    pub tx_index: u32,
    /// Transaction id in hash order.
    pub txid: sha256d::Hash,
    /// Index of the output in its transaction.
    pub vout: u32,
    /// Key of the paid address in the watch set.
    pub to: AddressKey,
    /// Amount in satoshi.
    pub sats: u64,
}

impl PaidOutput {
    /// Returns the transaction id and the index with which an input refers to this output.
    pub fn to_outpoint(&self) -> OutPoint {
        OutPoint { txid: TxId(to_display_order(self.txid)), vout: self.vout }
    }

    /// Converts the output to a [`Transfer`], the form in which all chain drivers return payments.
    pub fn to_transfer(&self, asset: &AssetId) -> Transfer {
        Transfer {
            txid: TxId(to_display_order(self.txid)),
            index: TransferIndex { tx_index: self.tx_index, part: TxPart::Output(self.vout) },
            asset: asset.clone(),
            to: self.to,
            from: None,
            amount: Amount::from(self.sats),
        }
    }
}

/// The parts of a parsed block that the driver uses.
#[derive(Debug, Clone)]
pub struct ParsedBlock {
    /// The header as serialised in the block; its height is not part of it.
    pub header: Header,
    /// Outputs to watched addresses, except those of the coinbase.
    pub outputs: Vec<PaidOutput>,
    /// Coinbase outputs to any address of the configured type. They become transfers when they may be spent, 100 blocks
    /// later. All of them are kept, because an address may be added to the watch set until then.
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
    /// The Merkle root of the txids differs from the one in the header, or the list of transactions repeats its end
    /// (CVE-2012-2459).
    #[error("the transactions of a block do not match the Merkle root in its header")]
    TransactionRoot,
    /// The commitment computed from the witnesses differs from the one in the coinbase (BIP141), or the coinbase has
    /// none.
    #[error("the witnesses of a block do not match the root in its coinbase")]
    WitnessRoot,
    /// The first transaction is not a coinbase, or a later one is.
    #[error("a block does not begin with a coinbase, or has more than one")]
    Coinbase,
}

/// Parses a block. Checks the Merkle roots in the header and the coinbase if `verify` is true.
pub fn parse_block(
    bytes: &[u8],
    address_type: AddressType,
    verify: bool,
    watched: &WatchedAddresses<'_>,
) -> Result<ParsedBlock, InvalidBlock> {
    let (front, rest) = bytes.split_at_checked(Header::SIZE).ok_or(InvalidBlock::Malformed)?;
    let header: Header = consensus::deserialize(front).map_err(|_| InvalidBlock::Malformed)?;
    let mut reader = Reader::new(rest);
    let count = reader.read_compact_size()?;
    let mut block = ParsedBlock { header, outputs: Vec::new(), coinbase_outputs: Vec::new(), coinbase_height: None };
    let mut roots = MerkleRoots::new(if verify { count } else { 0 });
    // Outputs of one transaction to watched addresses; the allocation is reused for all transactions.
    let mut found: Vec<(u32, AddressKey, u64)> = Vec::new();
    for tx_index in 0..count {
        found.clear();
        let is_first = tx_index == 0;
        let mut commitment = None;
        let tx = reader.read_transaction(|output| {
            if let Some(key) = address_type.find_address_key(output.script)
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
        if verify {
            roots.add_transaction(&tx, commitment);
        }
        if is_first {
            block.coinbase_height = tx.first_input_script().and_then(parse_coinbase_height);
        }
        if !found.is_empty() {
            let txid = if verify { roots.last_txid() } else { tx.compute_txid() };
            let tx_index = u32::try_from(tx_index).map_err(|_| InvalidBlock::Malformed)?;
            let outputs = if is_first { &mut block.coinbase_outputs } else { &mut block.outputs };
            outputs.extend(found.iter().map(|&(vout, to, sats)| PaidOutput { tx_index, txid, vout, to, sats }));
        }
    }
    if count == 0 || !reader.is_empty() {
        return Err(InvalidBlock::Malformed);
    }
    if verify { roots.verify_merkle_roots(&header).map(|()| block) } else { Ok(block) }
}

/// Returns the watched outputs that the transactions of a block spend. [`parse_block`] does not return them, because blocks
/// are parsed concurrently and a block may spend outputs of the block before it.
pub fn find_spends(bytes: &[u8], watched: &WatchedOutputs<'_>) -> Result<Vec<Spend>, InvalidBlock> {
    let mut spends = Vec::new();
    if watched.is_empty() {
        return Ok(spends);
    }
    let (_, rest) = bytes.split_at_checked(Header::SIZE).ok_or(InvalidBlock::Malformed)?;
    let mut reader = Reader::new(rest);
    let mut spent = Vec::new();
    for _ in 0..reader.read_compact_size()? {
        let visit = |input: Input| {
            let txid = TxId(to_display_order(sha256d::Hash::from_byte_array(input.txid)));
            let output = OutPoint { txid, vout: input.vout };
            if watched.contains(&output) {
                spent.push(output);
            }
        };
        let tx = reader.read_transaction_with_inputs(visit, |_| {})?;
        if !spent.is_empty() {
            let by = TxId(to_display_order(tx.compute_txid()));
            spends.extend(spent.drain(..).map(|output| Spend { output, spent_by: by }));
        }
    }
    Ok(spends)
}

/// Parses one transaction. Returns its outputs to watched addresses, true if the transaction may be replaced (BIP125),
/// and its id.
pub fn parse_transaction(
    bytes: &[u8],
    address_type: AddressType,
    watched: &WatchedAddresses<'_>,
) -> Result<(Vec<PaidOutput>, bool, TxId), MalformedTransaction> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    let tx = reader.read_transaction(|Output { vout, sats, script }| {
        if let Some(to) = address_type.find_address_key(script).filter(|key| watched.contains(key)) {
            found.push((vout, to, sats));
        }
    })?;
    if !reader.is_empty() {
        return Err(MalformedTransaction);
    }
    let txid = tx.compute_txid();
    let output = |(vout, to, sats)| PaidOutput { tx_index: 0, txid, vout, to, sats };
    Ok((found.into_iter().map(output).collect(), tx.is_replaceable, TxId(to_display_order(txid))))
}

impl AddressType {
    /// Returns the watch-set key of the address that this output script pays, or `None` if the script has another
    /// address type. Other types must not match: a sender could build an output of another type with the same key bytes
    /// as a watched address.
    pub fn find_address_key(self, script: &[u8]) -> Option<AddressKey> {
        match (self, script) {
            (AddressType::P2wpkh, [0x00, 0x14, program @ ..]) => program.try_into().ok().map(AddressKey),
            (AddressType::P2tr, [0x51, 0x20, key @ ..]) => {
                <&[u8; 32]>::try_from(key).ok().map(address::hash_p2tr_output_key)
            }
            (AddressType::P2wpkh | AddressType::P2tr, _) => None,
        }
    }
}

/// The hashes of a block's transactions, from which its two Merkle roots are computed.
struct MerkleRoots<'a> {
    txids: Vec<sha256d::Hash>,
    wtxids: Vec<sha256d::Hash>,
    has_witness: bool,
    commitment: Option<&'a [u8]>,
    reserved: Option<&'a [u8]>,
}

impl<'a> MerkleRoots<'a> {
    fn new(count: usize) -> MerkleRoots<'a> {
        // The transaction count is not verified yet, so it must not decide how much memory is allocated.
        let capacity = count.min(1 << 14);
        let (txids, wtxids) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        MerkleRoots { txids, wtxids, has_witness: false, commitment: None, reserved: None }
    }

    fn add_transaction(&mut self, tx: &Tx<'a>, commitment: Option<&'a [u8]>) {
        let txid = tx.compute_txid();
        self.txids.push(txid);
        self.has_witness |= tx.has_witness;
        if self.wtxids.is_empty() {
            // BIP141 uses a zero hash for the coinbase, because it contains the root itself.
            self.wtxids.push(sha256d::Hash::all_zeros());
            self.commitment = commitment;
            self.reserved = tx.first_witness_item();
        } else {
            self.wtxids.push(if tx.has_witness { tx.compute_wtxid() } else { txid });
        }
    }

    fn last_txid(&self) -> sha256d::Hash {
        *self.txids.last().expect("a transaction was added before")
    }

    fn verify_merkle_roots(mut self, header: &Header) -> Result<(), InvalidBlock> {
        if compute_merkle_root(&mut self.txids) != Some(header.merkle_root.to_raw_hash()) {
            return Err(InvalidBlock::TransactionRoot);
        }
        let Some(commitment) = self.commitment else {
            return if self.has_witness { Err(InvalidBlock::WitnessRoot) } else { Ok(()) };
        };
        if !self.has_witness {
            return Ok(());
        }
        let reserved = self.reserved.filter(|reserved| reserved.len() == 32).ok_or(InvalidBlock::WitnessRoot)?;
        let witnesses = compute_merkle_root(&mut self.wtxids).ok_or(InvalidBlock::WitnessRoot)?;
        let mut engine = sha256d::Hash::engine();
        engine.input(witnesses.as_byte_array());
        engine.input(reserved);
        if sha256d::Hash::from_engine(engine).as_byte_array() == commitment {
            Ok(())
        } else {
            Err(InvalidBlock::WitnessRoot)
        }
    }
}

/// Computes the Merkle root in place. Returns `None` if two neighbouring hashes are equal. A transaction list whose
/// last entries are repeated has the same root as the original list, and the payments in the repeated entries would be
/// credited twice (CVE-2012-2459).
fn compute_merkle_root(hashes: &mut Vec<sha256d::Hash>) -> Option<sha256d::Hash> {
    while hashes.len() > 1 {
        if hashes.chunks_exact(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let half = hashes.len().div_ceil(2);
        for i in 0..half {
            let left = hashes[2 * i];
            let right = *hashes.get(2 * i + 1).unwrap_or(&left);
            let mut both = [0; 64];
            both[..32].copy_from_slice(left.as_byte_array());
            both[32..].copy_from_slice(right.as_byte_array());
            hashes[i] = sha256d::Hash::hash(&both);
        }
        hashes.truncate(half);
    }
    hashes.first().copied()
}

/// Returns the number that a script pushes as its first item, with `OP_0`, `OP_1` to `OP_16`, or up to five bytes;
/// `None` if the first item is not such a number.
fn parse_coinbase_height(script: &[u8]) -> Option<Height> {
    match script {
        [0x00, ..] => Some(0),
        [small @ 0x51..=0x60, ..] => Some(Height::from(small - 0x50)),
        [length @ 1..=5, rest @ ..] => {
            let digits = rest.get(..usize::from(*length))?;
            digits.iter().rev().try_fold(0u64, |height, byte| height.checked_mul(256)?.checked_add(u64::from(*byte)))
        }
        _ => None,
    }
}

/// Returns the bytes of a hash in the displayed order, which is the reverse of the hash order.
pub fn to_display_order(hash: sha256d::Hash) -> [u8; 32] {
    let mut bytes = hash.to_byte_array();
    bytes.reverse();
    bytes
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
            let parsed = parse_block(&bytes, AddressType::P2wpkh, true, &watched.lock_addresses()).unwrap();
            assert_eq!(parsed.header, block.header);
            for cut in [79, bytes.len() - 1] {
                assert!(parse_block(&bytes[..cut], AddressType::P2wpkh, false, &watched.lock_addresses()).is_err());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(
                parse_block(&longer, AddressType::P2wpkh, false, &watched.lock_addresses()).unwrap_err(),
                InvalidBlock::Malformed
            );
            let mut other = bytes;
            let last = other.len() - 10;
            other[last] ^= 1;
            assert_eq!(
                parse_block(&other, AddressType::P2wpkh, true, &watched.lock_addresses()).unwrap_err(),
                InvalidBlock::TransactionRoot
            );
        }
    }

    #[test]
    fn a_list_with_its_end_repeated_has_no_root() {
        let hash = |n: u8| sha256d::Hash::hash(&[n]);
        let three: Vec<_> = (1..=3).map(hash).collect();
        assert!(compute_merkle_root(&mut three.clone()).is_some());
        assert_eq!(compute_merkle_root(&mut [three, vec![hash(3)]].concat()), None);
        assert_eq!(compute_merkle_root(&mut Vec::new()), None);
        assert_eq!(compute_merkle_root(&mut vec![hash(9)]), Some(hash(9)));
    }

    #[test]
    fn the_height_of_a_coinbase_is_parsed() {
        assert_eq!(parse_coinbase_height(&[0x51]), Some(1));
        assert_eq!(parse_coinbase_height(&[0x60, 0x00]), Some(16));
        assert_eq!(parse_coinbase_height(&[0x01, 0x11]), Some(17));
        assert_eq!(parse_coinbase_height(&[0x03, 0x40, 0x0d, 0x03, 0x99]), Some(200_000));
        assert_eq!(parse_coinbase_height(&[0x03, 0x40]), None);
        assert_eq!(parse_coinbase_height(&[]), None);
    }

    #[test]
    fn only_outputs_of_the_address_type_have_a_key() {
        let p2wpkh = [&[0x00, 0x14][..], &[7; 20]].concat();
        let p2tr = [&[0x51, 0x20][..], &[7; 32]].concat();
        assert_eq!(AddressType::P2wpkh.find_address_key(&p2wpkh), Some(AddressKey([7; 20])));
        assert_eq!(AddressType::P2tr.find_address_key(&p2tr), Some(address::hash_p2tr_output_key(&[7; 32])));
        assert_eq!(
            (AddressType::P2wpkh.find_address_key(&p2tr), AddressType::P2tr.find_address_key(&p2wpkh)),
            (None, None)
        );
        assert_eq!(AddressType::P2wpkh.find_address_key(&p2wpkh[..21]), None);
    }
}
