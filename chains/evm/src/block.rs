//! One block, held against its own header: hash, transactions root, and the native payments in it.

use alloy_consensus::{Header, TxEnvelope, proofs};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256};
use alloy_rlp::{BufMut, Encodable};
use chain::{AddressKey, Amount, BlockHash, Height, watch::Watched};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Verify, hex};

/// Deposits of OP-stack chains (specs.optimism.io, "Deposited transaction type").
const DEPOSIT: u64 = 0x7e;
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
    /// A type of transaction that cannot be encoded here; the transactions root was not recomputed then.
    pub unknown_type: Option<u64>,
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
    from: &'a str,
    #[serde(default)]
    to: Option<&'a str>,
    value: &'a str,
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
    watched: &Watched<'_>,
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
        unknown_type: None,
    };
    if !native {
        for hash in envelope.transactions {
            body.hashes.push(parse(hash.get())?);
        }
        return Ok(body);
    }

    let mut encoded = Vec::with_capacity(envelope.transactions.len());
    for (index, raw) in envelope.transactions.iter().enumerate() {
        let tx: Tx<'_> = parse(raw.get())?;
        let hash = hex::hash(tx.hash).ok_or("a transaction's hash is none")?;
        let known = if verify.transactions { encode(raw.get(), tx.r#type)? } else { Encoded::Unknown(0) };
        let signer = match known {
            Encoded::Known { bytes, signer } => {
                if keccak256(&bytes) != hash {
                    return Err(format!("transaction {hash} of block {height} does not hash to its name"));
                }
                encoded.push(bytes);
                signer
            }
            Encoded::Unknown(kind) => {
                body.unknown_type = Some(kind);
                None
            }
        };
        body.hashes.push(hash);
        let index = u32::try_from(index).map_err(|_| "too many transactions")?;
        if let Some(payment) = payment(&tx, index, hash, signer, watched)? {
            body.payments.push(payment);
        }
    }
    let complete = encoded.len() == body.hashes.len();
    if verify.header && verify.transactions && complete {
        let root = proofs::ordered_trie_root_encoded(&encoded);
        if root != header.transactions_root {
            return Err(format!("the transactions of block {height} do not have the root that its header names"));
        }
    }
    Ok(body)
}

fn payment(
    tx: &Tx<'_>,
    tx_index: u32,
    txid: B256,
    signer: Option<Signer>,
    watched: &Watched<'_>,
) -> Result<Option<Payment>, String> {
    let Some(to) = tx.to else { return Ok(None) };
    let to = AddressKey(hex::address(to).ok_or("a recipient that is no address")?.into());
    if !watched.contains(&to) {
        return Ok(None);
    }
    let amount = Amount::new(hex::number(tx.value).ok_or("a value that is no number")?);
    if amount.is_zero() {
        return Ok(None);
    }
    let from = match signer.and_then(|signer| signer.recover()) {
        Some(from) => from,
        None => hex::address(tx.from).ok_or("a sender that is no address")?,
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

fn encode(tx: &str, kind: Option<&str>) -> Result<Encoded, String> {
    let kind = kind.map_or(Some(0), hex::quantity).ok_or("a transaction type that is no number")?;
    if kind == DEPOSIT {
        return Ok(Encoded::Known { bytes: deposit(tx)?, signer: None });
    }
    if kind > NEWEST {
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
    use proptest::prelude::*;

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
                prop_assert!(read(raw, height, Verify::ALL, true, &watched.read()).is_err());
            }
        }
    }
}
