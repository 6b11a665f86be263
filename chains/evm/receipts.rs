//! The receipts of a block: requests them, verifies them against the receipts root, so that no log can be left out, and
//! takes the transfers from them.

use alloy_consensus::proofs;
use alloy_primitives::{B256, Bloom};
use alloy_rlp::{BufMut, Encodable, Header};
use chain::{SourceError, Transfer, TxId, WatchSet, watch::WatchedAddresses};
use rpc::{NodeErrorKind, Rejection, Reply, Request, RpcError, Verdict};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    Commitments, Evm,
    block::BlockBody,
    hex,
    logs::EventLog,
    token_contracts::TokenContracts,
    transactions::{self, compute_bor_state_sync_txid},
};

/// Maximum `eth_getTransactionReceipt` requests in one JSON-RPC batch.
const RECEIPTS_PER_BATCH: usize = 100;
/// JSON-RPC 2.0 error code "Invalid params".
const INVALID_PARAMS: i64 = -32_602;

/// A transaction receipt as returned by a node.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TxReceipt<'a> {
    #[serde(default)]
    r#type: Option<&'a str>,
    #[serde(default)]
    status: Option<&'a str>,
    /// The state root. Before the Byzantium fork, a receipt had this field instead of a status.
    #[serde(default)]
    root: Option<&'a str>,
    cumulative_gas_used: &'a str,
    logs_bloom: &'a str,
    #[serde(borrow)]
    logs: Vec<EventLog<'a>>,
    transaction_hash: &'a str,
    block_hash: &'a str,
    #[serde(default)]
    deposit_nonce: Option<&'a str>,
    #[serde(default)]
    deposit_receipt_version: Option<&'a str>,
}

/// The verified receipts of a block: which transactions succeeded, and the token transfers to watched addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReceipts {
    /// True when the receipts match the receipts root; false when only the bloom was checked.
    pub proven: bool,
    /// True for each transaction that succeeded, by its index in the block.
    pub succeeded: Vec<bool>,
    /// The token transfers to watched addresses.
    pub transfers: Vec<Transfer>,
}

/// The result of requesting all receipts of a block with one `eth_getBlockReceipts`.
enum OneRequestOutcome {
    /// The reply contained all receipts of the block.
    Complete(BlockReceipts),
    /// No endpoint offers the method `eth_getBlockReceipts`.
    NotOffered,
    /// Every endpoint rejected the request with an error of unknown kind, which may be permanent or temporary. The
    /// driver then requests the receipts one by one, which gives the same proof, and does not use unproven logs
    /// instead.
    Rejected,
}

impl Evm {
    /// Returns the successful native payments and the token transfers of one block, taken from its receipts. Fails when
    /// the receipts cannot be verified although the configuration demands it. When the roots of the header do not prove
    /// the result, the origins of the block are recorded as unknown.
    pub(crate) async fn fetch_transfers_proven_by_receipts(
        &self,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<Vec<Transfer>, SourceError> {
        let contracts = self.list_possible_contracts_of_block(body, watched);
        if contracts.is_empty() && body.payments.is_empty() {
            return Ok(Vec::new());
        }
        let receipts = match self.fetch_receipts_in_one_request(body, watched).await? {
            OneRequestOutcome::Complete(receipts) => receipts,
            OneRequestOutcome::NotOffered => {
                if body.payments.is_empty() && !self.may_have_watched_transfer_by_logs(body, &contracts, watched).await
                {
                    return Ok(Vec::new());
                }
                self.fetch_receipts_one_by_one(body, watched).await?
            }
            OneRequestOutcome::Rejected => self.fetch_receipts_one_by_one(body, watched).await?,
        };
        let is_provable = self.config.verify.header && self.config.verify.receipts;
        if is_provable && !receipts.proven && !self.fetch_proof_of_unknown_tx_type(body, watched).await? {
            let height = body.header.height;
            return Err(SourceError::Unsupported(format!(
                "the receipts of block {height} cannot be verified, and no endpoint returns the raw bytes of its transactions"
            )));
        }
        let are_payments_proven = body.payments.is_empty() || self.config.verify.transactions;
        if !(receipts.proven && are_payments_proven) {
            self.lock_block_origins().record_unknown(body.header.block_ref());
        }
        let successful_payments = body.payments.iter().filter(|payment| {
            usize::try_from(payment.tx_index).is_ok_and(|index| receipts.succeeded.get(index) == Some(&true))
        });
        Ok(successful_payments
            .filter_map(|payment| Some(payment.to_transfer(self.native.clone()?)))
            .chain(receipts.transfers)
            .collect())
    }

    /// Requests all receipts of a block with one `eth_getBlockReceipts`, and verifies them against the block's header.
    async fn fetch_receipts_in_one_request(
        &self,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<OneRequestOutcome, SourceError> {
        let (height, hash) = (body.header.height, B256::from(body.header.hash.0));
        let answer = match self.request_and_verify_receipts(json!([hash]), body, watched).await {
            // Some nodes accept only a block number in this request. The receipts are verified against the block hash
            // in both cases.
            Err(RpcError::NodeError(node_error)) if node_error.code == INVALID_PARAMS => {
                self.request_and_verify_receipts(json!([hex::to_quantity(height)]), body, watched).await
            }
            answer => answer,
        };
        match answer {
            Ok(Some(receipts)) => Ok(OneRequestOutcome::Complete(receipts)),
            Ok(None) => Err(SourceError::BlockNotFound(height)),
            Err(RpcError::MethodMissing(_) | RpcError::TooLarge(_)) => Ok(OneRequestOutcome::NotOffered),
            Err(RpcError::NodeError(node_error)) if node_error.kind == NodeErrorKind::Other => {
                Ok(OneRequestOutcome::Rejected)
            }
            Err(failure) => Err(failure.into_source_error(height)),
        }
    }

    /// Sends one `eth_getBlockReceipts`. Returns the verified receipts, or `None` when no endpoint has the block.
    async fn request_and_verify_receipts(
        &self,
        params: Value,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<Option<BlockReceipts>, RpcError> {
        let answer = self.pool.send_request(Request::json_rpc_call("eth_getBlockReceipts", &params), |reply| {
            let Some(all) = reply.parse_result::<Option<Vec<TxReceipt<'_>>>>()? else {
                return Ok(Verdict::Fallback(None));
            };
            let receipts =
                verify_and_parse_receipts(&all, body, self.config.verify, &self.contracts, &watched.lock_addresses());
            let receipts = receipts.map_err(Rejection::Invalid)?;
            let is_sure = receipts.proven || !self.config.verify.receipts;
            Ok(if is_sure { Verdict::Accept(Some(receipts)) } else { Verdict::Fallback(Some(receipts)) })
        });
        answer.await
    }

    /// Requests the receipt of each transaction of the block and verifies all of them against the block's header. This
    /// needs many requests but gives the same proof as one request for all receipts.
    async fn fetch_receipts_one_by_one(
        &self,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<BlockReceipts, SourceError> {
        let height = body.header.height;
        let params: Vec<[B256; 1]> = body.txids.iter().map(|txid| [*txid]).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let receipt: TxReceipt<'_> =
                serde_json::from_str(raw.get()).map_err(|e| Rejection::Invalid(e.to_string()))?;
            if !receipt.belongs_to_transaction(body.txids[i], body) {
                return Err(Rejection::Invalid(format!(
                    "the receipt of {} belongs to another transaction or block",
                    body.txids[i]
                )));
            }
            Ok(Verdict::Accept(Some(raw.to_owned())))
        };
        let answers = self
            .pool
            .send_calls_batched_or_one_by_one("eth_getTransactionReceipt", &params, RECEIPTS_PER_BATCH, accept)
            .await
            .into_all_results();
        let texts: Option<Vec<Box<RawValue>>> =
            answers.map_err(|failure| failure.into_source_error(height))?.into_iter().collect();
        let texts = texts.ok_or(SourceError::BlockNotFound(height))?;
        let parsed: Result<Vec<TxReceipt<'_>>, _> = texts.iter().map(|text| serde_json::from_str(text.get())).collect();
        let parsed = parsed.map_err(|error| SourceError::InvalidResponse(error.to_string()))?;
        verify_and_parse_receipts(&parsed, body, self.config.verify, &self.contracts, &watched.lock_addresses())
            .map_err(SourceError::InvalidResponse)
    }
}

/// Verifies all receipts of `body` and returns the token transfers in them. Fails when a receipt is missing or does not
/// belong to the block.
pub fn verify_and_parse_receipts(
    receipts: &[TxReceipt<'_>],
    body: &BlockBody,
    verify: Commitments,
    contracts: &TokenContracts,
    watched: &WatchedAddresses<'_>,
) -> Result<BlockReceipts, String> {
    let height = body.header.height;
    let receipts = drop_surplus_bridge_receipt(receipts, body);
    if receipts.len() != body.txids.len() {
        return Err(format!(
            "block {height} has {} transactions, but {} receipts were returned",
            body.txids.len(),
            receipts.len()
        ));
    }
    for (receipt, txid) in receipts.iter().zip(&body.txids) {
        if !receipt.belongs_to_transaction(*txid, body) {
            return Err(format!("a receipt of block {height} belongs to another transaction or block"));
        }
    }
    // When only the transaction hashes were read, the last one may be a state sync of Polygon's bridge.
    let ends_with_bridge = body.txids.last().is_some_and(|last| *last == compute_bor_state_sync_txid(&body.header));
    let in_root = &receipts[..receipts.len() - usize::from(ends_with_bridge)];
    let proven = verify.header && verify.receipts && verify_receipts_root_if_types_known(in_root, body)?;
    if !proven {
        verify_logs_bloom(in_root, body)?;
    }

    let mut parsed = BlockReceipts { proven, succeeded: Vec::with_capacity(receipts.len()), transfers: Vec::new() };
    // The log indexes are counted here and not taken from the node: the receipts root proves the order of the logs, but
    // not the reported indexes.
    let mut log_index = 0u32;
    for (tx_index, (receipt, txid)) in in_root.iter().zip(&body.txids).enumerate() {
        let tx_index = u32::try_from(tx_index).map_err(|_| "too many receipts")?;
        let succeeded = receipt.has_succeeded();
        parsed.succeeded.push(succeeded);
        for log in &receipt.logs {
            if succeeded && let Some(transfer) = log.parse_transfer_to_watched_address(contracts, watched) {
                if !proven && verify.header && log.is_log_in_bloom(&body.bloom) != Some(true) {
                    return Err(format!("a transfer of block {height} is not in its header's bloom"));
                }
                parsed.transfers.push(transfer.into_transfer(TxId(txid.0), tx_index, log_index));
            }
            log_index = log_index.checked_add(1).ok_or("too many logs")?;
        }
    }
    Ok(parsed)
}

/// Removes a surplus receipt at the end of the list. Some Erigon versions return the receipt of Polygon's bridge twice,
/// or in a block without the bridge's transaction.
fn drop_surplus_bridge_receipt<'a, 'b>(receipts: &'a [TxReceipt<'b>], body: &BlockBody) -> &'a [TxReceipt<'b>] {
    let is_surplus = |receipt: &TxReceipt<'_>| {
        let txid = hex::parse_hash(receipt.transaction_hash);
        txid.is_some_and(|txid| body.txids.contains(&txid) || txid == compute_bor_state_sync_txid(&body.header))
    };
    match receipts.split_last() {
        Some((last, others)) if others.len() == body.txids.len() && is_surplus(last) => others,
        Some(_) | None => receipts,
    }
}

impl TxReceipt<'_> {
    /// Returns true when this is the receipt of this transaction in this block.
    pub fn belongs_to_transaction(&self, txid: B256, body: &BlockBody) -> bool {
        let in_block = hex::parse_hash(self.block_hash).is_some_and(|hash| hash.0 == body.header.hash.0);
        in_block && hex::parse_hash(self.transaction_hash) == Some(txid)
    }

    /// Returns the token transfers to watched addresses in this receipt, or `None` when the transaction failed. Their
    /// log indexes count from the start of the receipt, and their transaction index is 0, not the index in the block.
    pub fn list_watched_transfers_if_succeeded(
        &self,
        txid: TxId,
        contracts: &TokenContracts,
        watched: &WatchedAddresses<'_>,
    ) -> Option<Vec<Transfer>> {
        let parse = |(index, log): (u32, &EventLog<'_>)| {
            Some(log.parse_transfer_to_watched_address(contracts, watched)?.into_transfer(txid, 0, index))
        };
        self.has_succeeded().then(|| (0..).zip(&self.logs).filter_map(parse).collect())
    }

    /// Returns the transaction type, 0 when absent, or `None` when malformed.
    fn parse_tx_type(&self) -> Option<u64> {
        self.r#type.map_or(Some(0), hex::parse_quantity)
    }

    /// Returns true when the transaction succeeded. For a receipt from before the Byzantium fork, which has no status,
    /// the function returns false; the driver never reads such old blocks.
    fn has_succeeded(&self) -> bool {
        self.status.and_then(hex::parse_quantity) == Some(1)
    }

    /// Appends the receipt to `out`, encoded as in the receipts trie (EIP-2718, EIP-658; specs.optimism.io for
    /// deposits). Returns `None` when a field is malformed.
    fn append_trie_encoding(&self, out: &mut Vec<u8>) -> Option<()> {
        let tx_type = self.parse_tx_type()?;
        let mut fields = Vec::new();
        match (self.status, self.root) {
            (Some(status), _) => (hex::parse_quantity(status)? == 1).encode(&mut fields),
            (None, root) => hex::parse_hash(root?)?.encode(&mut fields),
        }
        hex::parse_quantity(self.cumulative_gas_used)?.encode(&mut fields);
        Bloom::new(hex::parse_bytes(self.logs_bloom)?).encode(&mut fields);
        let mut logs = Vec::new();
        for log in &self.logs {
            append_rlp_log(log, &mut logs)?;
        }
        append_rlp_list(&logs, &mut fields);
        if tx_type == transactions::DEPOSIT_TX_TYPE
            && let (Some(nonce), Some(version)) = (self.deposit_nonce, self.deposit_receipt_version)
        {
            hex::parse_quantity(nonce)?.encode(&mut fields);
            hex::parse_quantity(version)?.encode(&mut fields);
        }
        if tx_type != 0 {
            out.put_u8(u8::try_from(tx_type).ok()?);
        }
        append_rlp_list(&fields, out);
        Some(())
    }
}

/// Appends the RLP encoding of a log to `out`. Returns `None` when a field is malformed.
fn append_rlp_log(log: &EventLog<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut fields = Vec::new();
    hex::parse_address(log.address)?.encode(&mut fields);
    let mut topics = Vec::with_capacity(33 * 4);
    for topic in log.topics.as_slice() {
        hex::parse_hash(topic)?.encode(&mut topics);
    }
    append_rlp_list(&topics, &mut fields);
    const_hex::decode(log.data).ok()?.as_slice().encode(&mut fields);
    append_rlp_list(&fields, out);
    Some(())
}

/// Appends an RLP list whose items are already encoded in `payload` to `out`.
fn append_rlp_list(payload: &[u8], out: &mut Vec<u8>) {
    Header { list: true, payload_length: payload.len() }.encode(out);
    out.extend_from_slice(payload);
}

/// Returns true when the receipts match the receipts root. Returns false on a mismatch in a block with transactions of
/// an unknown type, whose receipts may have unknown fields. Fails on any other mismatch.
fn verify_receipts_root_if_types_known(receipts: &[TxReceipt<'_>], body: &BlockBody) -> Result<bool, String> {
    let height = body.header.height;
    let mut encoded = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let mut bytes = Vec::new();
        receipt
            .append_trie_encoding(&mut bytes)
            .ok_or_else(|| format!("a receipt of block {height} cannot be encoded"))?;
        encoded.push(bytes);
    }
    if proofs::ordered_trie_root_encoded(&encoded) == body.receipts_root {
        return Ok(true);
    }
    let has_unknown_type = receipts
        .iter()
        .any(|receipt| receipt.parse_tx_type().is_none_or(|tx_type| !transactions::is_known_tx_type(tx_type)));
    if body.unproven.is_some() || (!body.has_full_transactions && has_unknown_type) {
        return Ok(false);
    }
    Err(format!("the receipts of block {height} do not match its receipts root"))
}

/// Fails when a bit of the header's bloom is not set by any log, because then logs are missing. This check is weaker
/// than the check of the receipts root. It is used when the root cannot be recomputed.
fn verify_logs_bloom(receipts: &[TxReceipt<'_>], body: &BlockBody) -> Result<(), String> {
    let mut bloom = Bloom::ZERO;
    for log in receipts.iter().flat_map(|receipt| &receipt.logs) {
        log.add_log_to_bloom(&mut bloom).ok_or("a log is malformed")?;
    }
    if bloom.contains(&body.bloom) {
        Ok(())
    } else {
        Err(format!("logs of block {} are missing: the bloom in its header has more bits set", body.header.height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::TRANSFER_TOPIC;
    use alloy_primitives::U256;
    use chain::{AddressKey, Asset, AssetKind, BlockHash, ChainId, WatchSet};

    const TOKEN: &str = "0xc2132d05d31c914a87c6611c10748aeb04b58e8f";
    const WATCHED_ADDRESS: [u8; 20] = [0xb1; 20];

    fn build_log_json(to: [u8; 20]) -> Value {
        let topics = [TRANSFER_TOPIC, B256::ZERO, B256::left_padding_from(&to)];
        json!({ "address": TOKEN, "topics": topics, "data": B256::from(U256::from(5)) })
    }

    fn build_receipt_json(kind: &str, txid: B256, logs: &[Value]) -> Value {
        json!({ "type": kind, "status": "0x1", "cumulativeGasUsed": "0x5208", "logsBloom": Bloom::ZERO, "logs": logs,
            "transactionHash": txid, "blockHash": B256::repeat_byte(1) })
    }

    fn to_json_texts(receipts: &[Value]) -> Vec<String> {
        receipts.iter().map(Value::to_string).collect()
    }

    /// Builds a block whose header contains the receipts root of exactly these receipts.
    fn build_block_body(txids: &[B256], committed: &[Value]) -> BlockBody {
        let texts = to_json_texts(committed);
        let receipts: Vec<TxReceipt<'_>> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let mut bloom = Bloom::ZERO;
        receipts.iter().flat_map(|receipt| &receipt.logs).for_each(|log| log.add_log_to_bloom(&mut bloom).unwrap());
        let encode = |receipt: &TxReceipt<'_>| {
            let mut bytes = Vec::new();
            receipt.append_trie_encoding(&mut bytes).unwrap();
            bytes
        };
        let receipts_root = proofs::ordered_trie_root_encoded(&receipts.iter().map(encode).collect::<Vec<Vec<u8>>>());
        let header = chain::Header { height: 7, hash: BlockHash([1; 32]), parent: BlockHash([0; 32]), time: 0 };
        let (txids, payments) = (txids.to_vec(), Vec::new());
        BlockBody {
            header,
            bloom,
            receipts_root,
            txids,
            payments,
            has_unproven_payment: false,
            has_full_transactions: false,
            unproven: None,
        }
    }

    fn parse_test_receipts(receipts: &[Value], body: &BlockBody, verify: Commitments) -> Result<BlockReceipts, String> {
        let chain = ChainId::parse("polygon").unwrap();
        let kind = AssetKind::Token { contract: TOKEN.to_owned() };
        let contracts = TokenContracts::from_assets(&[Asset::new(chain, kind, "USDT", 6, 6)]).unwrap();
        let watched = WatchSet::default();
        watched.insert(AddressKey(WATCHED_ADDRESS));
        let texts = to_json_texts(receipts);
        let receipts: Vec<TxReceipt<'_>> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        verify_and_parse_receipts(&receipts, body, verify, &contracts, &watched.lock_addresses())
    }

    fn test_txid(n: u8) -> B256 {
        B256::repeat_byte(n)
    }

    #[test]
    fn a_receipt_of_the_polygon_bridge_is_part_of_the_root() {
        let receipts = [
            build_receipt_json("0x2", test_txid(2), &[build_log_json(WATCHED_ADDRESS)]),
            build_receipt_json("0x7f", test_txid(3), &[build_log_json(WATCHED_ADDRESS)]),
        ];
        let parsed = parse_test_receipts(
            &receipts,
            &build_block_body(&[test_txid(2), test_txid(3)], &receipts),
            Commitments::ALL,
        )
        .unwrap();
        assert_eq!((parsed.proven, parsed.transfers.len()), (true, 2));
    }

    #[test]
    fn a_surplus_receipt_is_dropped_only_if_it_is_of_the_polygon_bridge() {
        let committed = [
            build_receipt_json("0x2", test_txid(2), &[build_log_json(WATCHED_ADDRESS)]),
            build_receipt_json("0x7f", test_txid(3), &[]),
        ];
        let with_bridge = build_block_body(&[test_txid(2), test_txid(3)], &committed);
        let [paid, message] = committed.clone();
        let twice = [paid.clone(), message.clone(), message];
        assert_eq!(parse_test_receipts(&twice, &with_bridge, Commitments::ALL).unwrap().transfers.len(), 1);

        let without_bridge = build_block_body(&[test_txid(2)], &committed[..1]);
        let bridge = build_receipt_json(
            "0x0",
            compute_bor_state_sync_txid(&without_bridge.header),
            &[build_log_json(WATCHED_ADDRESS)],
        );
        let parsed = parse_test_receipts(&[paid.clone(), bridge.clone()], &without_bridge, Commitments::ALL).unwrap();
        assert_eq!(parsed.transfers.len(), 1, "a log outside the receipts root is not credited");
        let listed = BlockBody {
            txids: vec![test_txid(2), compute_bor_state_sync_txid(&without_bridge.header)],
            ..without_bridge.clone()
        };
        assert_eq!(parse_test_receipts(&[paid.clone(), bridge], &listed, Commitments::ALL).unwrap().transfers.len(), 1);
        assert!(
            parse_test_receipts(
                &[paid, build_receipt_json("0x0", test_txid(9), &[])],
                &without_bridge,
                Commitments::ALL
            )
            .is_err()
        );
    }

    #[test]
    fn an_invented_log_is_rejected_by_the_bloom() {
        let without_root = Commitments { receipts: false, ..Commitments::ALL };
        let committed = [build_receipt_json("0x2", test_txid(2), &[build_log_json([0x55; 20])])];
        let body = build_block_body(&[test_txid(2)], &committed);
        assert_eq!(parse_test_receipts(&committed, &body, without_root).unwrap().transfers, []);
        let invented =
            [build_receipt_json("0x2", test_txid(2), &[build_log_json([0x55; 20]), build_log_json(WATCHED_ADDRESS)])];
        assert!(parse_test_receipts(&invented, &body, without_root).unwrap_err().contains("bloom"));
    }

    #[test]
    fn receipts_of_an_unknown_type_are_checked_against_the_bloom() {
        let committed = [
            build_receipt_json("0x2", test_txid(2), &[build_log_json(WATCHED_ADDRESS)]),
            build_receipt_json("0x8", test_txid(3), &[]),
        ];
        let body = build_block_body(&[test_txid(2), test_txid(3)], &committed);
        let reported = [committed[0].clone(), build_receipt_json("0x9", test_txid(3), &[])];
        let parsed = parse_test_receipts(&reported, &body, Commitments::ALL).unwrap();
        assert_eq!((parsed.proven, parsed.transfers.len()), (false, 1));
        let known = BlockBody { has_full_transactions: true, ..body };
        assert!(
            parse_test_receipts(&reported, &known, Commitments::ALL).is_err(),
            "the block has no transaction of an unknown type"
        );
    }
}
