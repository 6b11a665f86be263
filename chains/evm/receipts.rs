//! The receipts of one block, held against the root in its header: no log can be left out.

use alloy_consensus::proofs;
use alloy_primitives::{B256, Bloom};
use alloy_rlp::{BufMut, Encodable, Header};
use chain::{Transfer, TxId, watch::WatchedAddresses};
use serde::Deserialize;

use crate::{
    Verify,
    block::{self, Body, bridge_hash},
    hex,
    logs::{Contracts, Log},
};

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
    /// The receipts have the root that the header names. Else only the bloom speaks for them.
    pub proven: bool,
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
    watched: &WatchedAddresses<'_>,
) -> Result<Settled, String> {
    let height = body.header.height;
    let receipts = without_surplus(receipts, body);
    if receipts.len() != body.hashes.len() {
        return Err(format!("block {height} has {} transactions, got {} receipts", body.hashes.len(), receipts.len()));
    }
    for (receipt, txid) in receipts.iter().zip(&body.hashes) {
        if !receipt.is_of(*txid, body) {
            return Err(format!("a receipt of block {height} belongs to another transaction or block"));
        }
    }
    // Where the list of transactions was not read in full, the last one may be the bridge's just as well.
    let outside = body.hashes.last().is_some_and(|last| *last == bridge_hash(&body.header));
    let inside = &receipts[..receipts.len() - usize::from(outside)];
    let proven = verify.header && verify.receipts && prove(inside, body)?;
    if !proven {
        prove_bloom(inside, body)?;
    }

    let mut settled = Settled { proven, succeeded: Vec::with_capacity(receipts.len()), transfers: Vec::new() };
    // Counted rather than believed: the root commits to the order of logs, not to the numbers that a node gives them.
    let mut log_index = 0u32;
    for (tx_index, (receipt, txid)) in inside.iter().zip(&body.hashes).enumerate() {
        let tx_index = u32::try_from(tx_index).map_err(|_| "too many receipts")?;
        let succeeded = receipt.succeeded();
        settled.succeeded.push(succeeded);
        for log in &receipt.logs {
            if succeeded && let Some(hit) = log.hit(contracts, watched) {
                if !proven && verify.header && log.is_in(&body.bloom) != Some(true) {
                    return Err(format!("a transfer of block {height} is not in its header's bloom"));
                }
                settled.transfers.push(hit.at(TxId(txid.0), tx_index, log_index));
            }
            log_index = log_index.checked_add(1).ok_or("too many logs")?;
        }
    }
    Ok(settled)
}

/// Erigon has added the receipt of Polygon's bridge to lists that have it already, or to blocks whose transactions it left
/// out.
fn without_surplus<'a, 'b>(receipts: &'a [Receipt<'b>], body: &Body) -> &'a [Receipt<'b>] {
    let is_surplus = |receipt: &Receipt<'_>| {
        let txid = hex::hash(receipt.transaction_hash);
        txid.is_some_and(|txid| body.hashes.contains(&txid) || txid == bridge_hash(&body.header))
    };
    match receipts.split_last() {
        Some((last, others)) if others.len() == body.hashes.len() && is_surplus(last) => others,
        Some(_) | None => receipts,
    }
}

impl Receipt<'_> {
    /// Whether it is the receipt of this transaction, in this block.
    pub fn is_of(&self, txid: B256, body: &Body) -> bool {
        let in_block = hex::hash(self.block_hash).is_some_and(|hash| hash.0 == body.header.hash.0);
        in_block && hex::hash(self.transaction_hash) == Some(txid)
    }

    fn kind(&self) -> Option<u64> {
        self.r#type.map_or(Some(0), hex::quantity)
    }

    /// Receipts from before Byzantium do not say; nothing that old is followed.
    fn succeeded(&self) -> bool {
        self.status.and_then(hex::quantity) == Some(1)
    }

    /// As it stands in the receipts trie (EIP-2718, EIP-658; specs.optimism.io for deposits).
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        let kind = self.kind()?;
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
        if kind == block::DEPOSIT
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

/// Whether the receipts have the root that the header names. `false` only where the block has types that are not known
/// here, whose receipts may have fields that are not known either.
fn prove(receipts: &[Receipt<'_>], body: &Body) -> Result<bool, String> {
    let height = body.header.height;
    let mut encoded = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let mut bytes = Vec::new();
        receipt.encode(&mut bytes).ok_or_else(|| format!("a receipt of block {height} cannot be encoded"))?;
        encoded.push(bytes);
    }
    if proofs::ordered_trie_root_encoded(&encoded) == body.receipts_root {
        return Ok(true);
    }
    let strange = receipts.iter().any(|receipt| receipt.kind().is_none_or(|kind| !block::is_known(kind)));
    if body.unproven.is_some() || (!body.full && strange) {
        return Ok(false);
    }
    Err(format!("the receipts of block {height} do not have the root that its header names"))
}

/// Weaker, for blocks whose root cannot be recomputed: every bit of the header's bloom must come from some log.
fn prove_bloom(receipts: &[Receipt<'_>], body: &Body) -> Result<(), String> {
    let mut bloom = Bloom::ZERO;
    for log in receipts.iter().flat_map(|receipt| &receipt.logs) {
        log.accrue(&mut bloom).ok_or("a log that is none")?;
    }
    if bloom.contains(&body.bloom) {
        Ok(())
    } else {
        Err(format!("logs of block {} are missing: its header's bloom names more", body.header.height))
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;
    use chain::{AddressKey, Asset, AssetKind, BlockHash, ChainId, WatchSet};
    use serde_json::{Value, json};

    use super::*;
    use crate::logs::TRANSFER;

    const TOKEN: &str = "0xc2132d05d31c914a87c6611c10748aeb04b58e8f";
    const OURS: [u8; 20] = [0xb1; 20];

    fn log(to: [u8; 20]) -> Value {
        let topics = [TRANSFER, B256::ZERO, B256::left_padding_from(&to)];
        json!({ "address": TOKEN, "topics": topics, "data": B256::from(U256::from(5)) })
    }

    fn receipt(kind: &str, txid: B256, logs: &[Value]) -> Value {
        json!({ "type": kind, "status": "0x1", "cumulativeGasUsed": "0x5208", "logsBloom": Bloom::ZERO, "logs": logs,
            "transactionHash": txid, "blockHash": B256::repeat_byte(1) })
    }

    fn parse(receipts: &[Value]) -> Vec<String> {
        receipts.iter().map(Value::to_string).collect()
    }

    /// A block that commits to exactly these receipts.
    fn body(hashes: &[B256], committed: &[Value]) -> Body {
        let texts = parse(committed);
        let receipts: Vec<Receipt<'_>> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let mut bloom = Bloom::ZERO;
        receipts.iter().flat_map(|receipt| &receipt.logs).for_each(|log| log.accrue(&mut bloom).unwrap());
        let encode = |receipt: &Receipt<'_>| {
            let mut bytes = Vec::new();
            receipt.encode(&mut bytes).unwrap();
            bytes
        };
        let receipts_root = proofs::ordered_trie_root_encoded(&receipts.iter().map(encode).collect::<Vec<Vec<u8>>>());
        let header = chain::Header { height: 7, hash: BlockHash([1; 32]), parent: BlockHash([0; 32]), time: 0 };
        let (hashes, payments) = (hashes.to_vec(), Vec::new());
        Body { header, bloom, receipts_root, hashes, payments, unread: false, full: false, unproven: None }
    }

    fn read_with(receipts: &[Value], body: &Body, verify: Verify) -> Result<Settled, String> {
        let chain = ChainId::new("polygon").unwrap();
        let kind = AssetKind::Token { contract: TOKEN.to_owned() };
        let contracts = Contracts::new(&[Asset::new(chain, kind, "USDT", 6, 6)]).unwrap();
        let watched = WatchSet::default();
        watched.insert(AddressKey(OURS));
        let texts = parse(receipts);
        let receipts: Vec<Receipt<'_>> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        read(&receipts, body, verify, &contracts, &watched.read_addresses())
    }

    fn txid(n: u8) -> B256 {
        B256::repeat_byte(n)
    }

    #[test]
    fn a_receipt_of_the_bridge_is_in_the_root_like_any_other() {
        let receipts = [receipt("0x2", txid(2), &[log(OURS)]), receipt("0x7f", txid(3), &[log(OURS)])];
        let settled = read_with(&receipts, &body(&[txid(2), txid(3)], &receipts), Verify::ALL).unwrap();
        assert_eq!((settled.proven, settled.transfers.len()), (true, 2));
    }

    #[test]
    fn a_receipt_too_many_is_dropped_if_it_is_the_bridges() {
        let committed = [receipt("0x2", txid(2), &[log(OURS)]), receipt("0x7f", txid(3), &[])];
        let now = body(&[txid(2), txid(3)], &committed);
        let [paid, message] = committed.clone();
        let twice = [paid.clone(), message.clone(), message];
        assert_eq!(read_with(&twice, &now, Verify::ALL).unwrap().transfers.len(), 1);

        let before = body(&[txid(2)], &committed[..1]);
        let bridge = receipt("0x0", bridge_hash(&before.header), &[log(OURS)]);
        let settled = read_with(&[paid.clone(), bridge.clone()], &before, Verify::ALL).unwrap();
        assert_eq!(settled.transfers.len(), 1, "what no root has is not credited");
        let listed = Body { hashes: vec![txid(2), bridge_hash(&before.header)], ..before.clone() };
        assert_eq!(read_with(&[paid.clone(), bridge], &listed, Verify::ALL).unwrap().transfers.len(), 1);
        assert!(read_with(&[paid, receipt("0x0", txid(9), &[])], &before, Verify::ALL).is_err());
    }

    #[test]
    fn an_invented_log_is_in_no_bloom() {
        let unproven = Verify { receipts: false, ..Verify::ALL };
        let committed = [receipt("0x2", txid(2), &[log([0x55; 20])])];
        let body = body(&[txid(2)], &committed);
        assert_eq!(read_with(&committed, &body, unproven).unwrap().transfers, []);
        let invented = [receipt("0x2", txid(2), &[log([0x55; 20]), log(OURS)])];
        assert!(read_with(&invented, &body, unproven).unwrap_err().contains("bloom"));
    }

    #[test]
    fn a_type_of_the_future_leaves_the_bloom() {
        let committed = [receipt("0x2", txid(2), &[log(OURS)]), receipt("0x8", txid(3), &[])];
        let body = body(&[txid(2), txid(3)], &committed);
        let shown = [committed[0].clone(), receipt("0x9", txid(3), &[])];
        let settled = read_with(&shown, &body, Verify::ALL).unwrap();
        assert_eq!((settled.proven, settled.transfers.len()), (false, 1));
        let known = Body { full: true, ..body };
        assert!(read_with(&shown, &known, Verify::ALL).is_err(), "its transactions are all of known types");
    }
}
