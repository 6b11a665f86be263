//! Parses one block, verifies its hash and transactions root, and finds the native payments in it.

use alloy_consensus::{Header, TxEnvelope, proofs};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256};
use alloy_rlp::{BufMut, Encodable};
use chain::{AddressKey, Amount, BlockHash, Height, watch::WatchedAddresses};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Commitments, hex};

/// Transaction type of a deposit from layer 1 on OP-stack chains (specs.optimism.io, "Deposited transaction type").
pub const DEPOSIT_TX_TYPE: u64 = 0x7e;
/// The newest Ethereum transaction type that alloy can encode (EIP-7702).
const NEWEST_TX_TYPE: u64 = 4;

/// A parsed block with a verified hash, and the payments found in the block.
#[derive(Debug, Clone)]
pub struct BlockBody {
    /// Position, parent and time of the block.
    pub header: chain::Header,
    /// The bloom filter of the block's logs.
    pub bloom: Bloom,
    /// The root of the block's receipts trie.
    pub receipts_root: B256,
    /// The transaction hashes in block order.
    pub txids: Vec<B256>,
    /// Native payments to watched addresses. Their transactions may still have failed.
    pub payments: Vec<ValueTransfer>,
    /// True when `payments` lacks a payment to a watched address, because its transaction cannot be proven.
    pub has_unproven_payment: bool,
    /// True when the transactions were read in full, not only their hashes.
    pub has_full_transactions: bool,
    /// The transactions of a block with unknown transaction types. Their raw bytes are needed to verify the
    /// transactions root. `None` when the root is already verified.
    pub unproven: Option<UnprovenTransactions>,
}

/// The transactions of a block whose root cannot be recomputed yet, because some of them are of an unknown type.
#[derive(Debug, Clone)]
pub struct UnprovenTransactions {
    root: B256,
    /// The encoded transactions in block order; empty where the raw bytes are missing.
    encoded: Vec<Vec<u8>>,
    /// One of the unknown transaction types.
    pub tx_type: u64,
}

impl UnprovenTransactions {
    /// Returns the indexes in the block of the transactions whose raw bytes are missing.
    pub fn list_missing_indexes(&self) -> Vec<usize> {
        (0..self.encoded.len()).filter(|index| self.encoded[*index].is_empty()).collect()
    }

    /// Returns true when the root of all transactions equals the transactions root in the header. `missing` contains
    /// the missing raw bytes in block order.
    pub fn matches_transactions_root(&self, missing: Vec<Vec<u8>>) -> bool {
        let mut encoded = self.encoded.clone();
        for (index, bytes) in self.list_missing_indexes().into_iter().zip(missing) {
            encoded[index] = bytes;
        }
        proofs::ordered_trie_root_encoded(&encoded) == self.root
    }
}

/// A payment of native coins to a watched address by the transaction itself, not by a contract that it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueTransfer {
    /// Index of the transaction in the block.
    pub tx_index: u32,
    /// Hash of the transaction.
    pub txid: B256,
    /// The sender, recovered from the signature if the transaction has one.
    pub from: Address,
    /// The watched address.
    pub to: AddressKey,
    /// Amount in wei, above zero.
    pub amount: Amount,
}

#[derive(Deserialize)]
struct BlockJson<'a> {
    #[serde(borrow)]
    transactions: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct TxJson<'a> {
    hash: &'a str,
    #[serde(default)]
    r#type: Option<&'a str>,
    #[serde(default)]
    from: Option<&'a str>,
    #[serde(default)]
    to: Option<&'a str>,
    /// `None` if the node omits this field, as it does for some transaction types.
    #[serde(default)]
    value: Option<&'a str>,
}

/// Parses the header of a block. Verifies its hash unless the configuration disables this check.
pub fn parse_header(block: &RawValue, verify: Commitments) -> Result<(Header, chain::Header), String> {
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

/// Parses the block at `height`. If `native` is true, verifies the full transactions and finds payments of native
/// coins.
pub fn parse_block(
    block: &RawValue,
    height: Height,
    verify: Commitments,
    native: bool,
    watched: &WatchedAddresses<'_>,
) -> Result<BlockBody, String> {
    let (header, chain_header) = parse_header(block, verify)?;
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

    let mut encoded = Vec::with_capacity(json.transactions.len());
    let mut unknown_type = None;
    for (index, raw) in json.transactions.iter().enumerate() {
        let tx: TxJson<'_> = parse_json(raw.get())?;
        let hash = hex::parse_hash(tx.hash).ok_or("a transaction has an invalid hash")?;
        body.txids.push(hash);
        // Neither this transaction nor its receipt is in a trie, so no root can prove it.
        if index + 1 == json.transactions.len() && hash == compute_bor_state_sync_txid(&body.header) {
            continue;
        }
        let signed = match encode_transaction(raw.get(), tx.r#type)? {
            EncodedTx::Known { bytes, signed } => {
                if keccak256(&bytes) != hash {
                    return Err(format!("transaction {hash} of block {height} does not have that hash"));
                }
                encoded.push(bytes);
                signed
            }
            EncodedTx::Unknown(tx_type) => {
                unknown_type = Some(tx_type);
                encoded.push(Vec::new());
                None
            }
        };
        let index = u32::try_from(index).map_err(|_| "too many transactions")?;
        if let Some(payment) = find_watched_payment(&tx, index, hash, signed, watched)? {
            // The fields of a transaction of unknown type cannot be checked against its hash.
            if encoded.last().is_some_and(Vec::is_empty) {
                body.has_unproven_payment = true;
            } else {
                body.payments.push(payment);
            }
        }
    }
    let root = header.transactions_root;
    if let Some(tx_type) = unknown_type {
        body.unproven = Some(UnprovenTransactions { root, encoded, tx_type });
    } else if verify.header && verify.transactions && proofs::ordered_trie_root_encoded(&encoded) != root {
        return Err(format!("the transactions of block {height} do not match its transactions root"));
    }
    Ok(body)
}

/// Returns the pseudo transaction hash of the state sync that Polygon's bor node added to a block before PIP-74. It is
/// derived from the block's height and hash only.
pub fn compute_bor_state_sync_txid(header: &chain::Header) -> B256 {
    keccak256([b"matic-bor-receipt-".as_slice(), &header.height.to_be_bytes(), &header.hash.0].concat())
}

/// Returns the payment if the transaction pays a watched address, and `None` otherwise.
fn find_watched_payment(
    tx: &TxJson<'_>,
    tx_index: u32,
    txid: B256,
    signed: Option<SignedTx>,
    watched: &WatchedAddresses<'_>,
) -> Result<Option<ValueTransfer>, String> {
    let Some(to) = tx.to else { return Ok(None) };
    let to = AddressKey(hex::parse_address(to).ok_or("a recipient is not an address")?.into());
    if !watched.contains(&to) {
        return Ok(None);
    }
    let amount =
        Amount::new(tx.value.map_or(Some(U256::ZERO), hex::parse_u256).ok_or("a transaction value is not a number")?);
    if amount.is_zero() {
        return Ok(None);
    }
    let from = match signed.and_then(|signed| signed.recover_sender()) {
        Some(from) => from,
        None => tx.from.and_then(hex::parse_address).ok_or("a sender is not an address")?,
    };
    Ok(Some(ValueTransfer { tx_index, txid, from, to, amount }))
}

/// A transaction in its EIP-2718 encoding, or only the transaction type if the type is unknown.
enum EncodedTx {
    Known { bytes: Vec<u8>, signed: Option<SignedTx> },
    Unknown(u64),
}

/// A signed transaction. Its sender is recovered only for payments to watched addresses, because recovery is by far the
/// most expensive step of parsing a block.
struct SignedTx(Box<TxEnvelope>);

impl SignedTx {
    fn recover_sender(&self) -> Option<Address> {
        self.0.signature().recover_address_from_prehash(&self.0.signature_hash()).ok()
    }
}

/// Returns true when these raw bytes are a transaction of a type that this version can encode (EIP-2718).
pub fn is_known_encoding(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first >= 0xc0 || is_known_tx_type(u64::from(*first)))
}

/// Returns true when this version can encode transactions of this type.
pub fn is_known_tx_type(tx_type: u64) -> bool {
    tx_type <= NEWEST_TX_TYPE || tx_type == DEPOSIT_TX_TYPE
}

/// Encodes a transaction from its JSON as in the transactions trie.
fn encode_transaction(tx: &str, tx_type: Option<&str>) -> Result<EncodedTx, String> {
    let tx_type = tx_type.map_or(Some(0), hex::parse_quantity).ok_or("a transaction type is not a number")?;
    if tx_type == DEPOSIT_TX_TYPE {
        return Ok(EncodedTx::Known { bytes: encode_op_deposit(tx)?, signed: None });
    }
    if !is_known_tx_type(tx_type) {
        return Ok(EncodedTx::Unknown(tx_type));
    }
    let envelope: TxEnvelope = parse_json(tx)?;
    Ok(EncodedTx::Known { bytes: envelope.encoded_2718(), signed: Some(SignedTx(Box::new(envelope))) })
}

/// Encodes a deposit of the OP stack from its JSON.
fn encode_op_deposit(tx: &str) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OpDepositJson {
        source_hash: B256,
        from: Address,
        #[serde(default)]
        to: Option<Address>,
        #[serde(default)]
        mint: Option<U256>,
        value: U256,
        gas: U256,
        #[serde(default)]
        is_system_tx: bool,
        input: Bytes,
    }
    let tx: OpDepositJson = parse_json(tx)?;
    let mut fields = Vec::new();
    tx.source_hash.encode(&mut fields);
    tx.from.encode(&mut fields);
    match tx.to {
        Some(to) => to.encode(&mut fields),
        None => fields.put_u8(alloy_rlp::EMPTY_STRING_CODE),
    }
    tx.mint.unwrap_or_default().encode(&mut fields);
    tx.value.encode(&mut fields);
    tx.gas.encode(&mut fields);
    tx.is_system_tx.encode(&mut fields);
    tx.input.encode(&mut fields);
    let mut bytes = vec![0x7e];
    alloy_rlp::Header { list: true, payload_length: fields.len() }.encode(&mut bytes);
    bytes.extend_from_slice(&fields);
    Ok(bytes)
}

fn parse_json<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("unexpected JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use alloy_consensus::{SignableTransaction, TxLegacy};
    use alloy_primitives::Signature;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The first transaction of block 128,359,212 of OP Mainnet, as returned by a public node.
    const OP_DEPOSIT: &str = r#"{
        "blockHash": "0x1ff2fcd80ed93d75855364f7e879795dbd5790210c5224ad2c1083d9744297d6", "blockNumber": "0x7a69b2c",
        "from": "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001", "gas": "0xf4240", "gasPrice": "0x0",
        "hash": "0x4fae8f6c70a4f50cf8894bf9847ed364922826658c3cb73e291e03934637a853",
        "input": "0x440a5e200000146b000f79c500000000000000040000000067410f83000000000144320300000000000000000000000000000000000000000000000000000002fe2cca3c00000000000000000000000000000000000000000000000000000000001f11bf37aac56bf514562b0ee38600119c0a4f70b20f0c6abc66a2011d1bdd9b18cb1c0000000000000000000000006887246668a3b87f54deb3b94ba47a6f63f32985",
        "nonce": "0x160d8b6", "to": "0x4200000000000000000000000000000000000015", "transactionIndex": "0x0", "value": "0x0",
        "type": "0x7e", "v": "0x0", "r": "0x0", "s": "0x0", "mint": "0x0", "depositReceiptVersion": "0x1",
        "sourceHash": "0xf14ecb423df1f95f609d9781126cdd9ea4d248f4502c083507b2f1f72aa779a8" }"#;

    #[test]
    fn a_deposit_of_the_op_stack_is_encoded_to_its_hash() {
        let EncodedTx::Known { bytes, .. } = encode_transaction(OP_DEPOSIT, Some("0x7e")).unwrap() else {
            panic!("the type is known")
        };
        let tx: TxJson<'_> = parse_json(OP_DEPOSIT).unwrap();
        assert_eq!(Some(keccak256(bytes)), hex::parse_hash(tx.hash));
    }

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

    /// A transaction of Polygon's bridge, as JSON and as raw bytes. Its raw bytes cannot be rebuilt from its JSON.
    fn build_bridge_message() -> (Value, Vec<u8>) {
        let bytes = vec![0x7f, 0xc2, 0x01, 0x02];
        let tx_json = json!({ "type": "0x7f", "hash": keccak256(&bytes), "from": Address::ZERO, "to": Address::ZERO,
            "value": "0x0", "input": "0x", "v": "0x0", "r": "0x0", "s": "0x0" });
        (tx_json, bytes)
    }

    /// A block as JSON that lists `transactions` and whose root commits to `in_root`.
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
        parse_block(&serde_json::value::to_raw_value(block).unwrap(), 7, verify, true, &watched.lock_addresses())
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
        assert_eq!(unproven.list_missing_indexes(), [1]);
        assert!(unproven.matches_transactions_root(vec![message_bytes.clone()]));
        assert!(!unproven.matches_transactions_root(vec![message_bytes[..3].to_vec()]));
        assert!(!is_known_encoding(&message_bytes) && is_known_encoding(&build_signed_payment(5).1));
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

    #[test]
    fn a_future_type_is_unknown_and_a_malformed_one_an_error() {
        assert!(matches!(encode_transaction("{}", Some("0x7f")), Ok(EncodedTx::Unknown(0x7f))));
        assert!(encode_transaction("{}", Some("0x2")).is_err());
        assert!(encode_transaction("{}", Some("two")).is_err());
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(text in r#"[\[\]{}:,"a-z0-9]{0,80}"#, height: u64) {
            let watched = chain::WatchSet::default();
            if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
                prop_assert!(parse_block(raw, height, Commitments::ALL, true, &watched.lock_addresses()).is_err());
            }
        }
    }
}
