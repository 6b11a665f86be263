//! One block, held against its own header: hash, transactions root, and the native payments in it.

use alloy_consensus::{Header, TxEnvelope, proofs};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256};
use alloy_rlp::{BufMut, Encodable};
use chain::{AddressKey, Amount, BlockHash, Height, watch::WatchedAddresses};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Verify, hex};

/// Deposits of OP-stack chains (specs.optimism.io, "Deposited transaction type").
pub const DEPOSIT: u64 = 0x7e;
/// The newest transaction type of Ethereum that alloy encodes (EIP-7702).
const NEWEST: u64 = 4;

/// What was read and proven of one block.
#[derive(Debug, Clone)]
pub struct Body {
    pub header: chain::Header,
    pub bloom: Bloom,
    pub receipts_root: B256,
    pub hashes: Vec<B256>,
    /// Value that transactions themselves carry to watched addresses, not yet known to have succeeded.
    pub payments: Vec<Payment>,
    /// A payment to us was left out, because nothing proves the transaction that carries it.
    pub unread: bool,
    /// The transactions were read in full, not only their hashes.
    pub full: bool,
    /// Some transactions cannot be encoded here, so that the list is still to be proven by their bytes.
    pub unproven: Option<Unproven>,
}

/// What the transactions root is recomputed from, but for the bytes of types that are not known here.
#[derive(Debug, Clone)]
pub struct Unproven {
    root: B256,
    /// Empty where the bytes are missing.
    encoded: Vec<Vec<u8>>,
    /// One of the types that are not known.
    pub kind: u64,
}

impl Unproven {
    /// Transactions whose bytes are missing, by their place in the block.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.encoded.len()).filter(|index| self.encoded[*index].is_empty()).collect()
    }

    /// Whether the root is that of all transactions, with the missing ones in their order.
    pub fn is_proven_by(&self, missing: Vec<Vec<u8>>) -> bool {
        let mut encoded = self.encoded.clone();
        for (index, bytes) in self.missing().into_iter().zip(missing) {
            encoded[index] = bytes;
        }
        proofs::ordered_trie_root_encoded(&encoded) == self.root
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub tx_index: u32,
    pub txid: B256,
    pub from: Address,
    pub to: AddressKey,
    pub amount: Amount,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    transactions: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Tx<'a> {
    hash: &'a str,
    #[serde(default)]
    r#type: Option<&'a str>,
    #[serde(default)]
    from: Option<&'a str>,
    #[serde(default)]
    to: Option<&'a str>,
    /// A type that is not known here may carry none.
    #[serde(default)]
    value: Option<&'a str>,
}

/// Reads a header alone and proves its hash if it can be.
pub fn header(block: &RawValue, verify: Verify) -> Result<(Header, chain::Header), String> {
    #[derive(Deserialize)]
    struct Hash {
        hash: B256,
    }
    let Hash { hash } = parse(block.get())?;
    let header: Header = parse(block.get())?;
    if verify.header && header.hash_slow() != hash {
        return Err(format!("the header of block {} does not hash to {hash}", header.number));
    }
    let ours = chain::Header {
        height: header.number,
        hash: BlockHash(hash.0),
        parent: BlockHash(header.parent_hash.0),
        time: i64::try_from(header.timestamp).map_err(|_| "a time that is none".to_owned())?,
    };
    Ok((header, ours))
}

/// Reads a block. With `native`, its transactions are read in full, proven and searched for payments.
pub fn read(
    block: &RawValue,
    height: Height,
    verify: Verify,
    native: bool,
    watched: &WatchedAddresses<'_>,
) -> Result<Body, String> {
    let (header, ours) = header(block, verify)?;
    if header.number != height {
        return Err(format!("asked for block {height}, got {}", header.number));
    }
    let envelope: Envelope<'_> = parse(block.get())?;
    let mut body = Body {
        header: ours,
        bloom: header.logs_bloom,
        receipts_root: header.receipts_root,
        hashes: Vec::with_capacity(envelope.transactions.len()),
        payments: Vec::new(),
        unread: false,
        full: native,
        unproven: None,
    };
    if !native {
        for hash in envelope.transactions {
            body.hashes.push(parse(hash.get())?);
        }
        return Ok(body);
    }

    let mut encoded = Vec::with_capacity(envelope.transactions.len());
    let mut unknown = None;
    for (index, raw) in envelope.transactions.iter().enumerate() {
        let tx: Tx<'_> = parse(raw.get())?;
        let hash = hex::hash(tx.hash).ok_or("a transaction's hash is none")?;
        body.hashes.push(hash);
        // Neither its bytes nor its receipt are in a root.
        if index + 1 == envelope.transactions.len() && hash == bridge_hash(&body.header) {
            continue;
        }
        let signer = match encode(raw.get(), tx.r#type)? {
            Encoded::Known { bytes, signer } => {
                if keccak256(&bytes) != hash {
                    return Err(format!("transaction {hash} of block {height} does not hash to its name"));
                }
                encoded.push(bytes);
                signer
            }
            Encoded::Unknown(kind) => {
                unknown = Some(kind);
                encoded.push(Vec::new());
                None
            }
        };
        let index = u32::try_from(index).map_err(|_| "too many transactions")?;
        if let Some(payment) = payment(&tx, index, hash, signer, watched)? {
            // What JSON shows of an unknown type need not be what its bytes say.
            if encoded.last().is_some_and(Vec::is_empty) {
                body.unread = true;
            } else {
                body.payments.push(payment);
            }
        }
    }
    let root = header.transactions_root;
    if let Some(kind) = unknown {
        body.unproven = Some(Unproven { root, encoded, kind });
    } else if verify.header && verify.transactions && proofs::ordered_trie_root_encoded(&encoded) != root {
        return Err(format!("the transactions of block {height} do not have the root that its header names"));
    }
    Ok(body)
}

/// The name of what Polygon's bridge did in a block before PIP-74. It hashes nothing but the block's place.
pub fn bridge_hash(header: &chain::Header) -> B256 {
    keccak256([b"matic-bor-receipt-".as_slice(), &header.height.to_be_bytes(), &header.hash.0].concat())
}

fn payment(
    tx: &Tx<'_>,
    tx_index: u32,
    txid: B256,
    signer: Option<Signer>,
    watched: &WatchedAddresses<'_>,
) -> Result<Option<Payment>, String> {
    let Some(to) = tx.to else { return Ok(None) };
    let to = AddressKey(hex::address(to).ok_or("a recipient that is no address")?.into());
    if !watched.contains(&to) {
        return Ok(None);
    }
    let amount = Amount::new(tx.value.map_or(Some(U256::ZERO), hex::number).ok_or("a value that is no number")?);
    if amount.is_zero() {
        return Ok(None);
    }
    let from = match signer.and_then(|signer| signer.recover()) {
        Some(from) => from,
        None => tx.from.and_then(hex::address).ok_or("a sender that is no address")?,
    };
    Ok(Some(Payment { tx_index, txid, from, to, amount }))
}

enum Encoded {
    Known { bytes: Vec<u8>, signer: Option<Signer> },
    Unknown(u64),
}

/// Who signed, computed only for payments to us: a recovery costs more than everything else here.
struct Signer(Box<TxEnvelope>);

impl Signer {
    fn recover(&self) -> Option<Address> {
        self.0.signature().recover_address_from_prehash(&self.0.signature_hash()).ok()
    }
}

/// Whether these are bytes of a transaction that could have been encoded here (EIP-2718).
pub fn is_plain(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first >= 0xc0 || is_known(u64::from(*first)))
}

/// Whether transactions of this type can be encoded here.
pub fn is_known(kind: u64) -> bool {
    kind <= NEWEST || kind == DEPOSIT
}

fn encode(tx: &str, kind: Option<&str>) -> Result<Encoded, String> {
    let kind = kind.map_or(Some(0), hex::quantity).ok_or("a transaction type that is no number")?;
    if kind == DEPOSIT {
        return Ok(Encoded::Known { bytes: deposit(tx)?, signer: None });
    }
    if !is_known(kind) {
        return Ok(Encoded::Unknown(kind));
    }
    let envelope: TxEnvelope = parse(tx)?;
    Ok(Encoded::Known { bytes: envelope.encoded_2718(), signer: Some(Signer(Box::new(envelope))) })
}

fn deposit(tx: &str) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Deposit {
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
    let tx: Deposit = parse(tx)?;
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

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| format!("not the expected JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use alloy_consensus::{SignableTransaction, TxLegacy};
    use alloy_primitives::Signature;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The first transaction of block 128,359,212 of OP Mainnet, as a public node gives it.
    const OP_DEPOSIT: &str = r#"{
        "blockHash": "0x1ff2fcd80ed93d75855364f7e879795dbd5790210c5224ad2c1083d9744297d6", "blockNumber": "0x7a69b2c",
        "from": "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001", "gas": "0xf4240", "gasPrice": "0x0",
        "hash": "0x4fae8f6c70a4f50cf8894bf9847ed364922826658c3cb73e291e03934637a853",
        "input": "0x440a5e200000146b000f79c500000000000000040000000067410f83000000000144320300000000000000000000000000000000000000000000000000000002fe2cca3c00000000000000000000000000000000000000000000000000000000001f11bf37aac56bf514562b0ee38600119c0a4f70b20f0c6abc66a2011d1bdd9b18cb1c0000000000000000000000006887246668a3b87f54deb3b94ba47a6f63f32985",
        "nonce": "0x160d8b6", "to": "0x4200000000000000000000000000000000000015", "transactionIndex": "0x0", "value": "0x0",
        "type": "0x7e", "v": "0x0", "r": "0x0", "s": "0x0", "mint": "0x0", "depositReceiptVersion": "0x1",
        "sourceHash": "0xf14ecb423df1f95f609d9781126cdd9ea4d248f4502c083507b2f1f72aa779a8" }"#;

    #[test]
    fn a_deposit_of_the_op_stack_hashes_to_its_name() {
        let Encoded::Known { bytes, .. } = encode(OP_DEPOSIT, Some("0x7e")).unwrap() else { panic!("a known type") };
        let tx: Tx<'_> = parse(OP_DEPOSIT).unwrap();
        assert_eq!(Some(keccak256(bytes)), hex::hash(tx.hash));
    }

    const OURS: &str = "0x00000000000000000000000000000000000000b1";

    /// A payment of `wei` to us as a node shows it, and its bytes.
    fn payment(wei: u64) -> (Value, Vec<u8>) {
        let tx =
            TxLegacy { to: OURS.parse::<Address>().unwrap().into(), value: U256::from(wei), ..TxLegacy::default() };
        let tx = TxEnvelope::from(tx.into_signed(Signature::test_signature()));
        let mut shown = serde_json::to_value(&tx).unwrap();
        shown["from"] = json!(Address::ZERO);
        (shown, tx.encoded_2718())
    }

    /// A transaction of Polygon's bridge; the list that its bytes end with is shown nowhere.
    fn message() -> (Value, Vec<u8>) {
        let bytes = vec![0x7f, 0xc2, 0x01, 0x02];
        let shown = json!({ "type": "0x7f", "hash": keccak256(&bytes), "from": Address::ZERO, "to": Address::ZERO,
            "value": "0x0", "input": "0x", "v": "0x0", "r": "0x0", "s": "0x0" });
        (shown, bytes)
    }

    fn block(shown: &[Value], in_root: &[Vec<u8>]) -> Value {
        let header =
            Header { number: 7, transactions_root: proofs::ordered_trie_root_encoded(in_root), ..Header::default() };
        let mut block = serde_json::to_value(&header).unwrap();
        block["hash"] = json!(header.hash_slow());
        block["transactions"] = json!(shown);
        block
    }

    fn read_block(block: &Value, verify: Verify) -> Result<Body, String> {
        let watched = chain::WatchSet::default();
        watched.insert(AddressKey(hex::bytes(OURS).unwrap()));
        read(&serde_json::value::to_raw_value(block).unwrap(), 7, verify, true, &watched.read_addresses())
    }

    #[test]
    fn a_block_with_an_unknown_type_is_proven_by_its_bytes() {
        let ((paid, paid_bytes), (message, message_bytes)) = (payment(5), message());
        let body = read_block(&block(&[paid, message], &[paid_bytes, message_bytes.clone()]), Verify::ALL).unwrap();
        assert_eq!(body.payments[0].amount, Amount::from_units(5));
        let unproven = body.unproven.unwrap();
        assert_eq!(unproven.missing(), [1]);
        assert!(unproven.is_proven_by(vec![message_bytes.clone()]));
        assert!(!unproven.is_proven_by(vec![message_bytes[..3].to_vec()]));
        assert!(!is_plain(&message_bytes) && is_plain(&payment(5).1));
    }

    #[test]
    fn what_an_unknown_type_pays_is_left_to_balances() {
        let ((mut shown, bytes), (paid, paid_bytes)) = (message(), payment(5));
        shown["to"] = json!(OURS);
        shown["value"] = json!("0xde0b6b3a7640000");
        for verify in [Verify::ALL, Verify { transactions: false, ..Verify::ALL }] {
            let in_root = [bytes.clone(), paid_bytes.clone()];
            let body = read_block(&block(&[shown.clone(), paid.clone()], &in_root), verify).unwrap();
            assert_eq!((body.payments.len(), body.payments[0].tx_index, body.unread), (1, 1, true));
        }
    }

    #[test]
    fn the_bridge_stood_outside_of_the_root_before() {
        let (paid, bytes) = payment(5);
        let mut block = block(&[paid], &[bytes]);
        let place = read_block(&block, Verify::ALL).unwrap().header;
        let bridge = json!({ "type": "0x0", "hash": bridge_hash(&place), "from": Address::ZERO, "to": Address::ZERO,
            "value": "0x0", "input": "0x", "v": "0x0", "r": "0x0", "s": "0x0" });
        block["transactions"].as_array_mut().unwrap().push(bridge);
        let body = read_block(&block, Verify::ALL).unwrap();
        assert_eq!((body.payments.len(), body.hashes.len()), (1, 2));
        block["transactions"].as_array_mut().unwrap().swap(0, 1);
        assert!(read_block(&block, Verify::ALL).is_err(), "it comes last");
    }

    #[test]
    fn without_a_root_each_transaction_still_hashes_to_its_name() {
        let unproven = Verify { transactions: false, ..Verify::ALL };
        let (mut paid, _) = payment(5);
        assert_eq!(read_block(&block(std::slice::from_ref(&paid), &[]), unproven).unwrap().payments.len(), 1);
        paid["value"] = json!("0x6");
        assert!(read_block(&block(&[paid], &[]), unproven).unwrap_err().contains("hash"));
    }

    #[test]
    fn types_of_the_future_are_unknown_and_broken_ones_wrong() {
        assert!(matches!(encode("{}", Some("0x7f")), Ok(Encoded::Unknown(0x7f))));
        assert!(encode("{}", Some("0x2")).is_err());
        assert!(encode("{}", Some("two")).is_err());
    }

    proptest! {
        #[test]
        fn any_block_is_read_without_a_panic(text in r#"[\[\]{}:,"a-z0-9]{0,80}"#, height: u64) {
            let watched = chain::WatchSet::default();
            if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
                prop_assert!(read(raw, height, Verify::ALL, true, &watched.read_addresses()).is_err());
            }
        }
    }
}
