//! The receipts of one block, held against the root in its header: no log can be left out.

use alloy_consensus::proofs;
use alloy_primitives::{Address, B256, Bloom};
use alloy_rlp::{BufMut, Encodable, Header};
use chain::{Transfer, TxId, watch::Watched};
use serde::Deserialize;

use crate::{
    Verify,
    block::Body,
    hex,
    logs::{Contracts, Log},
};

const DEPOSIT: u64 = 0x7e;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt<'a> {
    #[serde(default)]
    r#type: Option<&'a str>,
    #[serde(default)]
    status: Option<&'a str>,
    /// The state root that stood in place of the status before Byzantium.
    #[serde(default)]
    root: Option<&'a str>,
    cumulative_gas_used: &'a str,
    logs_bloom: &'a str,
    #[serde(borrow)]
    logs: Vec<Log<'a>>,
    transaction_hash: &'a str,
    block_hash: &'a str,
    #[serde(default)]
    deposit_nonce: Option<&'a str>,
    #[serde(default)]
    deposit_receipt_version: Option<&'a str>,
}

/// What the receipts of a block say about us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Whether each transaction of the block succeeded, by its index.
    pub succeeded: Vec<bool>,
    pub transfers: Vec<Transfer>,
}

/// Reads all receipts of `body`.
pub fn read(
    receipts: &[Receipt<'_>],
    body: &Body,
    verify: Verify,
    contracts: &Contracts,
    watched: &Watched<'_>,
) -> Result<Settled, String> {
    let height = body.header.height;
    if receipts.len() != body.hashes.len() {
        return Err(format!("block {height} has {} transactions, got {} receipts", body.hashes.len(), receipts.len()));
    }
    for (receipt, txid) in receipts.iter().zip(&body.hashes) {
        if !receipt.is_of(*txid, body) {
            return Err(format!("a receipt of block {height} belongs to another transaction or block"));
        }
    }
    if verify.header && verify.receipts {
        prove_root(receipts, body)?;
    } else {
        prove_bloom(receipts, body)?;
    }

    let mut settled = Settled { succeeded: Vec::with_capacity(receipts.len()), transfers: Vec::new() };
    // Counted rather than believed: the root commits to the order of logs, not to the numbers that a node gives them.
    let mut log_index = 0u32;
    for (tx_index, (receipt, txid)) in receipts.iter().zip(&body.hashes).enumerate() {
        let tx_index = u32::try_from(tx_index).map_err(|_| "too many receipts")?;
        let succeeded = receipt.succeeded();
        settled.succeeded.push(succeeded);
        for log in &receipt.logs {
            if succeeded && let Some(hit) = log.hit(contracts, watched) {
                settled.transfers.push(hit.at(TxId(txid.0), tx_index, log_index));
            }
            log_index = log_index.checked_add(1).ok_or("too many logs")?;
        }
    }
    Ok(settled)
}

impl Receipt<'_> {
    /// Whether it is the receipt of this transaction, in this block.
    pub fn is_of(&self, txid: B256, body: &Body) -> bool {
        let in_block = hex::hash(self.block_hash).is_some_and(|hash| hash.0 == body.header.hash.0);
        in_block && hex::hash(self.transaction_hash) == Some(txid)
    }

    /// Receipts from before Byzantium do not say; nothing that old is followed.
    fn succeeded(&self) -> bool {
        self.status.and_then(hex::quantity) == Some(1)
    }

    /// As it stands in the receipts trie (EIP-2718, EIP-658; specs.optimism.io for deposits).
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        let kind = self.r#type.map_or(Some(0), hex::quantity)?;
        let mut fields = Vec::new();
        match (self.status, self.root) {
            (Some(status), _) => (hex::quantity(status)? == 1).encode(&mut fields),
            (None, root) => hex::hash(root?)?.encode(&mut fields),
        }
        hex::quantity(self.cumulative_gas_used)?.encode(&mut fields);
        Bloom::new(hex::bytes(self.logs_bloom)?).encode(&mut fields);
        let mut logs = Vec::new();
        for log in &self.logs {
            encode_log(log, &mut logs)?;
        }
        list(&logs, &mut fields);
        if kind == DEPOSIT
            && let (Some(nonce), Some(version)) = (self.deposit_nonce, self.deposit_receipt_version)
        {
            hex::quantity(nonce)?.encode(&mut fields);
            hex::quantity(version)?.encode(&mut fields);
        }
        if kind != 0 {
            out.put_u8(u8::try_from(kind).ok()?);
        }
        list(&fields, out);
        Some(())
    }
}

fn encode_log(log: &Log<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut fields = Vec::new();
    hex::address(log.address)?.encode(&mut fields);
    let mut topics = Vec::with_capacity(33 * 4);
    for topic in log.topics.as_slice() {
        hex::hash(topic)?.encode(&mut topics);
    }
    list(&topics, &mut fields);
    const_hex::decode(log.data).ok()?.as_slice().encode(&mut fields);
    list(&fields, out);
    Some(())
}

fn list(payload: &[u8], out: &mut Vec<u8>) {
    Header { list: true, payload_length: payload.len() }.encode(out);
    out.extend_from_slice(payload);
}

fn prove_root(receipts: &[Receipt<'_>], body: &Body) -> Result<(), String> {
    let height = body.header.height;
    let mut encoded = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let mut bytes = Vec::new();
        receipt.encode(&mut bytes).ok_or_else(|| format!("a receipt of block {height} cannot be encoded"))?;
        encoded.push(bytes);
    }
    if proofs::ordered_trie_root_encoded(&encoded) == body.receipts_root {
        Ok(())
    } else {
        Err(format!("the receipts of block {height} do not have the root that its header names"))
    }
}

/// Weaker, for chains whose root cannot be recomputed: every bit of the header's bloom must come from some log. The bloom
/// may lack logs that the chain itself adds outside its receipts trie.
fn prove_bloom(receipts: &[Receipt<'_>], body: &Body) -> Result<(), String> {
    let mut bloom = Bloom::ZERO;
    for log in receipts.iter().flat_map(|receipt| &receipt.logs) {
        let address: Option<Address> = hex::address(log.address);
        let topics: Option<Vec<B256>> = log.topics.as_slice().iter().map(|topic| hex::hash(topic)).collect();
        let (Some(address), Some(topics)) = (address, topics) else { return Err("a log that is none".to_owned()) };
        bloom.accrue_raw_log(address, &topics);
    }
    if bloom.contains(&body.bloom) {
        Ok(())
    } else {
        Err(format!("logs of block {} are missing: its header's bloom names more", body.header.height))
    }
}
