//! The blocks of a chain: requests and parses them, verifies their hashes and parent links, and finds their transfers
//! with as few requests as possible.
//!
//! A block is requested by number once, and by hash from then on. Its bloom filter proves that most blocks have no
//! transfer to a watched address; for the others, the receipts root proves that no log was left out. Nothing in a
//! header proves the reply to `eth_getLogs`, so these logs are only used to skip a block and never become transfers.

use std::sync::atomic::Ordering;

use alloy_consensus::Header;
use alloy_primitives::{B256, Bloom};
use chain::{Block, BlockHash, Height, SourceError, WatchSet, watch::WatchedAddresses};
use futures_util::{StreamExt, future, stream};
use rpc::{Rejection, Reply, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Commitments, Evm, hex,
    log_summaries::{LogSummaries, LogSummary},
    transactions::{self, UnprovenTransactions, ValueTransfer},
};

/// The maximum number of blocks in one call near the newest block. Most of these calls request one or two blocks.
const BLOCKS_NEAR_HEAD_MAX: u64 = 16;
/// The maximum number of blocks in one call while the follower reads old blocks.
const BLOCKS_PER_RANGE_MAX: u64 = 100;
/// Maximum full blocks in one JSON-RPC batch. A busy block has about one megabyte.
const BODIES_PER_BATCH: usize = 10;
/// Maximum blocks whose receipts and traces are requested at the same time.
const CONCURRENCY: usize = 3;

/// A parsed block with a verified hash, and the payments found in the block.
#[derive(Debug, Clone)]
pub struct BlockBody {
    /// Height, hash, parent hash and time of the block.
    pub header: chain::Header,
    /// The bloom filter of the block's logs.
    pub bloom: Bloom,
    /// The root of the block's receipts trie.
    pub receipts_root: B256,
    /// The hashes of the block's transactions, in the order of the block.
    pub txids: Vec<B256>,
    /// Native payments to watched addresses. Their transactions may still have failed.
    pub payments: Vec<ValueTransfer>,
    /// True when a payment to a watched address is missing in `payments`, because its transaction cannot be proven.
    pub has_unproven_payment: bool,
    /// True when the transactions were read in full, not only their hashes.
    pub has_full_transactions: bool,
    /// Set when the block has transactions of unknown types, so that their raw bytes are needed to verify the
    /// transactions root. `None` when the root is already verified.
    pub unproven: Option<UnprovenTransactions>,
}

#[derive(Deserialize)]
struct BlockJson<'a> {
    #[serde(borrow)]
    transactions: Vec<&'a RawValue>,
}

/// Parses the header of a block. Fails when its hash is not the hash that the node states, unless `verify` disables
/// this check.
pub fn parse_header_verifying_if_configured(
    block: &RawValue,
    verify: Commitments,
) -> Result<(Header, chain::Header), String> {
    #[derive(Deserialize)]
    struct HashJson {
        hash: B256,
    }
    let HashJson { hash } = parse_json(block.get())?;
    let header: Header = parse_json(block.get())?;
    if verify.header && header.hash_slow() != hash {
        return Err(format!("the header of block {} does not have the hash {hash}", header.number));
    }
    let chain_header = chain::Header {
        height: header.number,
        hash: BlockHash(hash.0),
        parent: BlockHash(header.parent_hash.0),
        time: i64::try_from(header.timestamp).map_err(|_| "the block has an invalid timestamp".to_owned())?,
    };
    Ok((header, chain_header))
}

/// Parses the block at `height`; fails when the block has another height. If `native` is true, `block` must contain
/// full transactions: their hashes are verified and native payments to watched addresses are collected. Hash and
/// transactions root are checked only if `verify` enables these checks.
pub fn parse_block_verifying_if_configured(
    block: &RawValue,
    height: Height,
    verify: Commitments,
    native: bool,
    watched: &WatchedAddresses<'_>,
) -> Result<BlockBody, String> {
    let (header, chain_header) = parse_header_verifying_if_configured(block, verify)?;
    if header.number != height {
        return Err(format!("block {height} was requested, but block {} was returned", header.number));
    }
    let json: BlockJson<'_> = parse_json(block.get())?;
    let mut body = BlockBody {
        header: chain_header,
        bloom: header.logs_bloom,
        receipts_root: header.receipts_root,
        txids: Vec::with_capacity(json.transactions.len()),
        payments: Vec::new(),
        has_unproven_payment: false,
        has_full_transactions: native,
        unproven: None,
    };
    if !native {
        for hash in json.transactions {
            body.txids.push(parse_json(hash.get())?);
        }
        return Ok(body);
    }
    transactions::parse_and_verify_transactions_into_body(
        &json.transactions,
        header.transactions_root,
        verify,
        watched,
        &mut body,
    )?;
    Ok(body)
}

impl Evm {
    /// Returns blocks `from..=to` with all transfers to watched addresses; see [`chain::Source::blocks`]. If a block
    /// after the first one fails, only the blocks before the failed block are returned.
    pub(crate) async fn fetch_leading_complete_blocks(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        // An endpoint with a false newest block may have raised `stable_height` too far. So the height is lowered to
        // the end of the requested range.
        let stable_height = self.stable_height.fetch_min(to, Ordering::Relaxed).min(to);
        let (bodies, mut log_summaries) = if stable_height > from && self.are_log_ranges_worthwhile(watched) {
            let to = stable_height.min(from.saturating_add(BLOCKS_PER_RANGE_MAX - 1));
            let (bodies, log_summaries) = future::join(
                self.fetch_linked_bodies_and_record_origin(from, to, watched),
                self.fetch_agreed_log_summaries(from, to, watched),
            )
            .await;
            (bodies?, log_summaries)
        } else {
            let blocks_max = if stable_height > from { BLOCKS_PER_RANGE_MAX } else { BLOCKS_NEAR_HEAD_MAX };
            let to = to.min(from.saturating_add(blocks_max - 1));
            (self.fetch_linked_bodies_and_record_origin(from, to, watched).await?, LogSummaries::new())
        };
        let mut blocks = Vec::with_capacity(bodies.len());
        for body in bodies {
            let log_summary = log_summaries.remove(&body.header.height);
            blocks.push(self.complete_block_with_transfers(body, log_summary, watched));
        }
        let mut blocks = stream::iter(blocks).buffered(CONCURRENCY);
        let mut completed = Vec::new();
        while let Some(block) = blocks.next().await {
            match block {
                Ok(block) => completed.push(block),
                Err(error) if completed.is_empty() => return Err(error),
                // The blocks before the failed block are complete. The next call starts with the failed block.
                Err(_) => break,
            }
        }
        Ok(completed)
    }

    /// Returns the blocks `from..=to`, each verified and each the parent of the next. The list ends early if the
    /// endpoint does not have a block or if a parent hash does not match. The list is never empty.
    async fn fetch_linked_bodies_and_record_origin(
        &self,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<BlockBody>, SourceError> {
        let native = self.native.is_some();
        let params: Vec<(String, bool)> = (from..=to).map(|height| (hex::to_quantity(height), native)).collect();
        let accept = |i: usize, reply: &Reply<'_>| {
            let height = from.saturating_add(u64::try_from(i).unwrap_or(u64::MAX));
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let body =
                parse_block_verifying_if_configured(raw, height, self.config.verify, native, &watched.lock_addresses())
                    .map_err(Rejection::Invalid)?;
            // A block with an unknown transaction type cannot be verified yet, and the endpoint may have invented the
            // type. So the driver prefers the reply of an endpoint that can be verified at once.
            let is_proven = body.unproven.is_none() || !self.config.verify.transactions;
            let origin_and_body = Some((reply.endpoint, body));
            Ok(if is_proven { Verdict::Accept(origin_and_body) } else { Verdict::Fallback(origin_and_body) })
        };
        let answers = self
            .pool
            .send_calls_batched_or_one_by_one("eth_getBlockByNumber", &params, BODIES_PER_BATCH, accept)
            .await
            .into_results_before_failure();
        let answers = answers.map_err(|failure| failure.into_source_error(from))?;

        let mut bodies: Vec<BlockBody> = Vec::with_capacity(answers.len());
        for (endpoint, body) in answers.into_iter().map_while(|found| found) {
            // `body` is on another branch than the blocks before it: the endpoint switched to that branch, or another
            // endpoint answered. The blocks before it are returned.
            if bodies.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            self.record_origin_of_block(body.header.block_ref(), endpoint);
            bodies.push(body);
        }
        if bodies.is_empty() { Err(SourceError::BlockNotFound(from)) } else { Ok(bodies) }
    }

    /// Returns the block with all its transfers to watched addresses. `log_summary` is the summary of the block's logs
    /// on which two endpoints agree; `None` when the logs were not requested by range.
    async fn complete_block_with_transfers(
        &self,
        mut body: BlockBody,
        log_summary: Option<LogSummary>,
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        if !self.verify_transactions_if_raw_bytes_offered(&body).await? {
            body.has_unproven_payment = true;
            body.payments.clear();
        }
        if body.has_unproven_payment {
            let reason = "some of its transactions have a type that this version cannot encode, and no endpoint returns their \
                                     raw bytes";
            self.mark_incomplete_and_warn_once(&body, "type", reason);
        }
        let same_block_logs = log_summary.filter(|summary| summary.hash.0 == body.header.hash.0);
        let has_no_token_transfer = self.config.verify.header
            && same_block_logs.is_some_and(|summary| {
                summary.rules_out_watched_transfer(&self.list_possible_contracts_of_block(&body, watched))
            });
        let mut transfers = if has_no_token_transfer && body.payments.is_empty() {
            Vec::new()
        } else {
            self.fetch_transfers_proven_by_receipts(&body, watched).await?
        };
        let internal = self.fetch_internal_transfers_or_mark_incomplete(&body, &transfers, watched).await?;
        transfers.extend(internal);
        transfers.sort_by_key(|transfer| transfer.index);
        Ok(Block { header: body.header, transfers, spends: Vec::new() })
    }
}

/// Parses JSON text. The error is a sentence that describes the problem.
pub fn parse_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("unexpected JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy, proofs};
    use alloy_eips::eip2718::Encodable2718;
    use alloy_primitives::{Address, Signature, U256, keccak256};
    use chain::{AddressKey, Amount};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::transactions::{compute_bor_state_sync_txid, starts_with_known_tx_type};

    const WATCHED_ADDRESS: &str = "0x00000000000000000000000000000000000000b1";

    /// A payment of `wei` to the watched address, as JSON and as raw bytes.
    fn build_signed_payment(wei: u64) -> (Value, Vec<u8>) {
        let tx = TxLegacy {
            to: WATCHED_ADDRESS.parse::<Address>().unwrap().into(),
            value: U256::from(wei),
            ..TxLegacy::default()
        };
        let tx = TxEnvelope::from(tx.into_signed(Signature::test_signature()));
        let mut tx_json = serde_json::to_value(&tx).unwrap();
        tx_json["from"] = json!(Address::ZERO);
        (tx_json, tx.encoded_2718())
    }

    /// A transaction of Polygon's bridge, as JSON and as raw bytes. Its raw bytes cannot be computed from its JSON.
    fn build_bridge_message() -> (Value, Vec<u8>) {
        let bytes = vec![0x7f, 0xc2, 0x01, 0x02];
        let tx_json = json!({ "type": "0x7f", "hash": keccak256(&bytes), "from": Address::ZERO, "to": Address::ZERO,
            "value": "0x0", "input": "0x", "v": "0x0", "r": "0x0", "s": "0x0" });
        (tx_json, bytes)
    }

    /// A block as JSON. It lists `transactions`, but its transactions root is computed from `in_root`.
    fn build_block_json(transactions: &[Value], in_root: &[Vec<u8>]) -> Value {
        let header =
            Header { number: 7, transactions_root: proofs::ordered_trie_root_encoded(in_root), ..Header::default() };
        let mut block = serde_json::to_value(&header).unwrap();
        block["hash"] = json!(header.hash_slow());
        block["transactions"] = json!(transactions);
        block
    }

    fn parse_test_block(block: &Value, verify: Commitments) -> Result<BlockBody, String> {
        let watched = chain::WatchSet::default();
        watched.insert(AddressKey(hex::parse_bytes(WATCHED_ADDRESS).unwrap()));
        parse_block_verifying_if_configured(
            &serde_json::value::to_raw_value(block).unwrap(),
            7,
            verify,
            true,
            &watched.lock_addresses(),
        )
    }

    #[test]
    fn a_block_with_an_unknown_type_is_proven_by_its_raw_bytes() {
        let ((paid, paid_bytes), (message, message_bytes)) = (build_signed_payment(5), build_bridge_message());
        let body = parse_test_block(
            &build_block_json(&[paid, message], &[paid_bytes, message_bytes.clone()]),
            Commitments::ALL,
        )
        .unwrap();
        assert_eq!(body.payments[0].amount, Amount::from_units(5));
        let unproven = body.unproven.unwrap();
        assert_eq!(unproven.list_indexes_without_raw_bytes(), [1]);
        assert!(unproven.matches_transactions_root(vec![message_bytes.clone()]));
        assert!(!unproven.matches_transactions_root(vec![message_bytes[..3].to_vec()]));
        assert!(!starts_with_known_tx_type(&message_bytes) && starts_with_known_tx_type(&build_signed_payment(5).1));
    }

    #[test]
    fn a_payment_by_a_transaction_of_unknown_type_is_left_out() {
        let ((mut tx_json, bytes), (paid, paid_bytes)) = (build_bridge_message(), build_signed_payment(5));
        tx_json["to"] = json!(WATCHED_ADDRESS);
        tx_json["value"] = json!("0xde0b6b3a7640000");
        for verify in [Commitments::ALL, Commitments { transactions: false, ..Commitments::ALL }] {
            let in_root = [bytes.clone(), paid_bytes.clone()];
            let body = parse_test_block(&build_block_json(&[tx_json.clone(), paid.clone()], &in_root), verify).unwrap();
            assert_eq!((body.payments.len(), body.payments[0].tx_index, body.has_unproven_payment), (1, 1, true));
        }
    }

    #[test]
    fn a_state_sync_before_pip_74_is_not_in_the_root() {
        let (paid, bytes) = build_signed_payment(5);
        let mut block = build_block_json(&[paid], &[bytes]);
        let header = parse_test_block(&block, Commitments::ALL).unwrap().header;
        let bridge = json!({ "type": "0x0", "hash": compute_bor_state_sync_txid(&header), "from": Address::ZERO, "to": Address::ZERO,
            "value": "0x0", "input": "0x", "v": "0x0", "r": "0x0", "s": "0x0" });
        block["transactions"].as_array_mut().unwrap().push(bridge);
        let body = parse_test_block(&block, Commitments::ALL).unwrap();
        assert_eq!((body.payments.len(), body.txids.len()), (1, 2));
        block["transactions"].as_array_mut().unwrap().swap(0, 1);
        assert!(parse_test_block(&block, Commitments::ALL).is_err(), "a state sync is always the last transaction");
    }

    #[test]
    fn without_a_root_each_transaction_must_still_have_its_hash() {
        let without_root = Commitments { transactions: false, ..Commitments::ALL };
        let (mut paid, _) = build_signed_payment(5);
        assert_eq!(
            parse_test_block(&build_block_json(std::slice::from_ref(&paid), &[]), without_root).unwrap().payments.len(),
            1
        );
        paid["value"] = json!("0x6");
        assert!(parse_test_block(&build_block_json(&[paid], &[]), without_root).unwrap_err().contains("hash"));
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(text in r#"[\[\]{}:,"a-z0-9]{0,80}"#, height: u64) {
            let watched = chain::WatchSet::default();
            if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
                prop_assert!(parse_block_verifying_if_configured(raw, height, Commitments::ALL, true, &watched.lock_addresses()).is_err());
            }
        }
    }
}
