//! One block as raw bytes: proven against its own header, and searched for outputs to watched addresses.

use bitcoin::{
    block::Header,
    consensus,
    hashes::{Hash, HashEngine, sha256d},
};
use chain::{
    AddressKey, Amount, AssetId, BlockHash, Height, OutPoint, Spend, Transfer, TransferIndex, TxId, TxPart, derive,
    watch::{WatchedAddresses, WatchedOutputs},
};

use crate::{
    Kind,
    raw::{Broken, Input, Output, Reader, Tx},
};

/// What begins the output in which a coinbase commits to witnesses (BIP141).
const COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// An output that pays one of the addresses that are mempool for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    pub tx_index: u32,
    pub txid: sha256d::Hash,
    pub vout: u32,
    pub to: AddressKey,
    pub sats: u64,
}

impl Hit {
    pub fn output(&self) -> OutPoint {
        OutPoint { txid: TxId(shown(self.txid)), vout: self.vout }
    }

    pub fn transfer(&self, asset: &AssetId) -> Transfer {
        Transfer {
            txid: TxId(shown(self.txid)),
            index: TransferIndex { tx_index: self.tx_index, part: TxPart::Output(self.vout) },
            asset: asset.clone(),
            to: self.to,
            from: None,
            amount: Amount::from(self.sats),
        }
    }
}

/// What was read and proven of one block.
#[derive(Debug, Clone)]
pub struct Body {
    pub header: Header,
    /// Outputs to watched addresses, but those of the coinbase.
    pub hits: Vec<Hit>,
    /// What the coinbase pays to addresses of the kind, whoever they belong to: it counts a hundred blocks later.
    pub coinbase: Vec<Hit>,
    /// The height that the coinbase names (BIP34), if it is one that can be read.
    pub named_height: Option<Height>,
}

/// Why a block is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("a block's bytes are not a header and its transactions")]
    NoBlock,
    #[error("a block's transactions do not have the root that its header names")]
    Transactions,
    #[error("a block's witnesses do not have the root that its coinbase names")]
    Witnesses,
    #[error("a block does not begin with a coinbase, or has two")]
    Coinbase,
}

/// Reads a block. With `prove` the header's and the coinbase's commitments are computed again.
pub fn read(bytes: &[u8], kind: Kind, prove: bool, watched: &WatchedAddresses<'_>) -> Result<Body, Wrong> {
    let (front, rest) = bytes.split_at_checked(Header::SIZE).ok_or(Wrong::NoBlock)?;
    let header: Header = consensus::deserialize(front).map_err(|_| Wrong::NoBlock)?;
    let mut reader = Reader::new(rest);
    let count = reader.count()?;
    let mut body = Body { header, hits: Vec::new(), coinbase: Vec::new(), named_height: None };
    let mut proof = Proof::new(if prove { count } else { 0 });
    // Of one transaction; kept to be filled again.
    let mut found: Vec<(u32, AddressKey, u64)> = Vec::new();
    for tx_index in 0..count {
        found.clear();
        let first = tx_index == 0;
        let mut committed = None;
        let tx = reader.tx(|output| {
            if let Some(key) = kind.key(output.script)
                && (first || watched.contains(&key))
            {
                found.push((output.vout, key, output.sats));
            }
            if first && output.script.len() >= 38 && output.script.starts_with(&COMMITMENT) {
                committed = output.script.get(6..38);
            }
        })?;
        if tx.is_coinbase != first {
            return Err(Wrong::Coinbase);
        }
        if prove {
            proof.add(&tx, committed);
        }
        if first {
            body.named_height = tx.first_script().and_then(height_in);
        }
        if !found.is_empty() {
            let txid = if prove { proof.last_txid() } else { tx.txid() };
            let tx_index = u32::try_from(tx_index).map_err(|_| Wrong::NoBlock)?;
            let hits = if first { &mut body.coinbase } else { &mut body.hits };
            hits.extend(found.iter().map(|&(vout, to, sats)| Hit { tx_index, txid, vout, to, sats }));
        }
    }
    if count == 0 || !reader.is_empty() {
        return Err(Wrong::NoBlock);
    }
    if prove { proof.check(&header).map(|()| body) } else { Ok(body) }
}

/// What the transactions of a block spend of our outputs. Walked apart from [`read`], because blocks are read side by side
/// and outputs of one are spent in the next.
pub fn spends(bytes: &[u8], ours: &WatchedOutputs<'_>) -> Result<Vec<Spend>, Wrong> {
    let mut spends = Vec::new();
    if ours.is_empty() {
        return Ok(spends);
    }
    let (_, rest) = bytes.split_at_checked(Header::SIZE).ok_or(Wrong::NoBlock)?;
    let mut reader = Reader::new(rest);
    let mut spent = Vec::new();
    for _ in 0..reader.count()? {
        let visit = |input: Input| {
            let txid = TxId(shown(sha256d::Hash::from_byte_array(input.txid)));
            let output = OutPoint { txid, vout: input.vout };
            if ours.contains(&output) {
                spent.push(output);
            }
        };
        let tx = reader.tx_with_inputs(visit, |_| {})?;
        if !spent.is_empty() {
            let by = TxId(shown(tx.txid()));
            spends.extend(spent.drain(..).map(|output| Spend { output, spent_by: by }));
        }
    }
    Ok(spends)
}

/// The outputs of a single transaction to watched addresses, whether it may be replaced, and its name.
pub fn read_tx(bytes: &[u8], kind: Kind, watched: &WatchedAddresses<'_>) -> Result<(Vec<Hit>, bool, TxId), Broken> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    let tx = reader.tx(|Output { vout, sats, script }| {
        if let Some(to) = kind.key(script).filter(|key| watched.contains(key)) {
            found.push((vout, to, sats));
        }
    })?;
    if !reader.is_empty() {
        return Err(Broken);
    }
    let txid = tx.txid();
    let hit = |(vout, to, sats)| Hit { tx_index: 0, txid, vout, to, sats };
    Ok((found.into_iter().map(hit).collect(), tx.is_replaceable, TxId(shown(txid))))
}

impl Kind {
    /// How the watch set knows the recipient of an output of this kind; `None` for all other outputs. Only one kind is
    /// mempool for, because the free bytes of one could be chosen to look like an address of the other.
    pub fn key(self, script: &[u8]) -> Option<AddressKey> {
        match (self, script) {
            (Kind::P2wpkh, [0x00, 0x14, program @ ..]) => program.try_into().ok().map(AddressKey),
            (Kind::P2tr, [0x51, 0x20, key @ ..]) => <&[u8; 32]>::try_from(key).ok().map(derive::p2tr_address_key),
            (Kind::P2wpkh | Kind::P2tr, _) => None,
        }
    }
}

/// The hashes that commitments are made of.
struct Proof<'a> {
    txids: Vec<sha256d::Hash>,
    wtxids: Vec<sha256d::Hash>,
    any_witness: bool,
    committed: Option<&'a [u8]>,
    reserved: Option<&'a [u8]>,
}

impl<'a> Proof<'a> {
    fn new(count: usize) -> Proof<'a> {
        // A count that is a lie ends the reading soon.
        let room = count.min(1 << 14);
        let (txids, wtxids) = (Vec::with_capacity(room), Vec::with_capacity(room));
        Proof { txids, wtxids, any_witness: false, committed: None, reserved: None }
    }

    fn add(&mut self, tx: &Tx<'a>, committed: Option<&'a [u8]>) {
        let txid = tx.txid();
        self.txids.push(txid);
        self.any_witness |= tx.has_witness;
        if self.wtxids.is_empty() {
            // The coinbase cannot commit to itself.
            self.wtxids.push(sha256d::Hash::all_zeros());
            self.committed = committed;
            self.reserved = tx.first_witness();
        } else {
            self.wtxids.push(if tx.has_witness { tx.wtxid() } else { txid });
        }
    }

    fn last_txid(&self) -> sha256d::Hash {
        *self.txids.last().expect("asked after a transaction was added")
    }

    fn check(mut self, header: &Header) -> Result<(), Wrong> {
        if root(&mut self.txids) != Some(header.merkle_root.to_raw_hash()) {
            return Err(Wrong::Transactions);
        }
        let Some(committed) = self.committed else {
            return if self.any_witness { Err(Wrong::Witnesses) } else { Ok(()) };
        };
        if !self.any_witness {
            return Ok(());
        }
        let reserved = self.reserved.filter(|reserved| reserved.len() == 32).ok_or(Wrong::Witnesses)?;
        let witnesses = root(&mut self.wtxids).ok_or(Wrong::Witnesses)?;
        let mut engine = sha256d::Hash::engine();
        engine.input(witnesses.as_byte_array());
        engine.input(reserved);
        if sha256d::Hash::from_engine(engine).as_byte_array() == committed { Ok(()) } else { Err(Wrong::Witnesses) }
    }
}

/// The Merkle root, computed in place. `None` where two neighbours are equal: then the same root belongs to a list with
/// its end repeated, and a payment in it would count twice (CVE-2012-2459).
fn root(hashes: &mut Vec<sha256d::Hash>) -> Option<sha256d::Hash> {
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

/// A number pushed as the first item of a script: `OP_0`, `OP_1` to `OP_16`, or up to five bytes.
fn height_in(script: &[u8]) -> Option<Height> {
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

/// Bytes in the order in which people read them.
pub fn shown(hash: sha256d::Hash) -> [u8; 32] {
    let mut bytes = hash.to_byte_array();
    bytes.reverse();
    bytes
}

/// The header in the contract's words.
pub fn header(header: &Header, height: Height) -> chain::Header {
    chain::Header {
        height,
        hash: BlockHash(shown(header.block_hash().to_raw_hash())),
        parent: BlockHash(shown(header.prev_blockhash.to_raw_hash())),
        time: i64::from(header.time),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, constants::genesis_block};
    use chain::WatchSet;

    use super::*;

    #[test]
    fn the_first_blocks_of_every_network_prove_themselves() {
        let watched = WatchSet::default();
        for network in [Network::Bitcoin, Network::Signet, Network::Testnet4, Network::Regtest] {
            let block = genesis_block(network);
            let bytes = consensus::serialize(&block);
            let body = read(&bytes, Kind::P2wpkh, true, &watched.read_addresses()).unwrap();
            assert_eq!(body.header, block.header);
            for cut in [79, bytes.len() - 1] {
                assert!(read(&bytes[..cut], Kind::P2wpkh, false, &watched.read_addresses()).is_err());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(read(&longer, Kind::P2wpkh, false, &watched.read_addresses()).unwrap_err(), Wrong::NoBlock);
            let mut other = bytes;
            let last = other.len() - 10;
            other[last] ^= 1;
            assert_eq!(read(&other, Kind::P2wpkh, true, &watched.read_addresses()).unwrap_err(), Wrong::Transactions);
        }
    }

    #[test]
    fn a_repeated_end_has_no_root() {
        let hash = |n: u8| sha256d::Hash::hash(&[n]);
        let three: Vec<_> = (1..=3).map(hash).collect();
        assert!(root(&mut three.clone()).is_some());
        assert_eq!(root(&mut [three, vec![hash(3)]].concat()), None);
        assert_eq!(root(&mut Vec::new()), None);
        assert_eq!(root(&mut vec![hash(9)]), Some(hash(9)));
    }

    #[test]
    fn heights_are_read_as_the_coinbase_writes_them() {
        assert_eq!(height_in(&[0x51]), Some(1));
        assert_eq!(height_in(&[0x60, 0x00]), Some(16));
        assert_eq!(height_in(&[0x01, 0x11]), Some(17));
        assert_eq!(height_in(&[0x03, 0x40, 0x0d, 0x03, 0x99]), Some(200_000));
        assert_eq!(height_in(&[0x03, 0x40]), None);
        assert_eq!(height_in(&[]), None);
    }

    #[test]
    fn an_output_is_ours_by_its_kind_only() {
        let p2wpkh = [&[0x00, 0x14][..], &[7; 20]].concat();
        let p2tr = [&[0x51, 0x20][..], &[7; 32]].concat();
        assert_eq!(Kind::P2wpkh.key(&p2wpkh), Some(AddressKey([7; 20])));
        assert_eq!(Kind::P2tr.key(&p2tr), Some(derive::p2tr_address_key(&[7; 32])));
        assert_eq!((Kind::P2wpkh.key(&p2tr), Kind::P2tr.key(&p2wpkh)), (None, None));
        assert_eq!(Kind::P2wpkh.key(&p2wpkh[..21]), None);
    }
}
