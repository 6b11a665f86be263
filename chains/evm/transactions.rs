//! The transactions of a block: parses and encodes them, verifies them against the transactions root, and finds the
//! native payments to watched addresses.

use alloy_consensus::{TxEnvelope, proofs};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::{BufMut, Encodable};
use chain::{
    AddressKey, Amount, AssetId, SourceError, Transfer, TransferIndex, TxId, TxPart, WatchSet,
    address::encode_evm_address, watch::WatchedAddresses,
};
use rpc::{Rejection, Reply, Request, RpcError, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Commitments, Evm,
    block::{self, BlockBody, parse_json},
    hex,
};

/// Transaction type of a deposit from layer 1 on OP-stack chains (specs.optimism.io, "Deposited transaction type").
pub const DEPOSIT_TX_TYPE: u64 = 0x7e;
/// The newest Ethereum transaction type that alloy can encode (EIP-7702).
const NEWEST_TX_TYPE: u64 = 4;
/// The maximum number of raw transactions that are requested for one block. After a hard fork, a block may contain many
/// transactions of a new type.
const RAW_TRANSACTIONS_MAX: usize = 64;

/// A payment of native coins to a watched address by the transaction itself, not by a contract that it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueTransfer {
    /// Index of the transaction in the block.
    pub tx_index: u32,
    /// Hash of the transaction.
    pub txid: B256,
    /// The sender, recovered from the signature if the transaction has one.
    pub from: Address,
    /// The watched address that receives the coins.
    pub to: AddressKey,
    /// The amount in wei. It is above zero.
    pub amount: Amount,
}

impl ValueTransfer {
    /// Converts the payment to a [`Transfer`] of the native coin, whose asset id is `native`.
    pub fn to_transfer(&self, native: AssetId) -> Transfer {
        Transfer {
            txid: TxId(self.txid.0),
            index: TransferIndex { tx_index: self.tx_index, part: TxPart::Value },
            asset: native,
            to: self.to,
            from: Some(encode_evm_address(AddressKey(self.from.into())).text),
            amount: self.amount,
        }
    }
}

/// The transactions of a block whose root cannot be recomputed yet, because some of them are of an unknown type.
#[derive(Debug, Clone)]
pub struct UnprovenTransactions {
    root: B256,
    /// The encoded transactions in the order of the block. An element is empty when the raw bytes of the transaction
    /// are missing.
    encoded: Vec<Vec<u8>>,
    /// One of the block's transaction types that this version cannot encode.
    pub tx_type: u64,
}

impl UnprovenTransactions {
    /// Returns the indexes in the block of those transactions whose raw bytes are not known yet.
    pub fn list_indexes_without_raw_bytes(&self) -> Vec<usize> {
        (0..self.encoded.len()).filter(|index| self.encoded[*index].is_empty()).collect()
    }

    /// Returns true when the root of all transactions equals the transactions root in the header. `missing` contains,
    /// in the order of the block, the raw bytes of the transactions that this version cannot encode.
    pub fn matches_transactions_root(&self, missing: Vec<Vec<u8>>) -> bool {
        let mut encoded = self.encoded.clone();
        for (index, bytes) in self.list_indexes_without_raw_bytes().into_iter().zip(missing) {
            encoded[index] = bytes;
        }
        proofs::ordered_trie_root_encoded(&encoded) == self.root
    }
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
    /// The amount of native coins, in hexadecimal. `None` if the node omits this field, as nodes do for some
    /// transaction types.
    #[serde(default)]
    value: Option<&'a str>,
}

impl Evm {
    /// Requests the raw bytes of the transactions with unknown types, and verifies all transactions of the block
    /// against the transactions root. Returns true when the transactions match the root or when the configuration
    /// disables this check, and false when no endpoint returns the raw bytes. Fails when the transactions do not match.
    pub(crate) async fn verify_transactions_if_raw_bytes_offered(&self, body: &BlockBody) -> Result<bool, SourceError> {
        let is_provable = self.config.verify.header && self.config.verify.transactions;
        let Some(unproven) = body.unproven.as_ref().filter(|_| is_provable) else { return Ok(true) };
        let height = body.header.height;
        let txids: Vec<[B256; 1]> =
            unproven.list_indexes_without_raw_bytes().into_iter().map(|index| [body.txids[index]]).collect();
        if txids.len() > RAW_TRANSACTIONS_MAX {
            return Ok(false);
        }
        let accept = |i: usize, reply: &Reply<'_>| {
            let Some(text) = reply.parse_result::<Option<&str>>()? else { return Ok(Verdict::Fallback(None)) };
            let bytes = const_hex::decode(text).ok().filter(|bytes| keccak256(bytes) == txids[i][0]);
            let bytes = bytes.ok_or_else(|| {
                Rejection::Invalid(format!("the raw bytes of transaction {} have another hash", txids[i][0]))
            })?;
            if starts_with_known_tx_type(&bytes) {
                return Err(Rejection::Invalid(format!(
                    "transaction {} is of another type than reported",
                    txids[i][0]
                )));
            }
            Ok(Verdict::Accept(Some(bytes)))
        };
        let answers = match self
            .pool
            .send_calls_batched_or_one_by_one("eth_getRawTransactionByHash", &txids, RAW_TRANSACTIONS_MAX, accept)
            .await
            .into_all_results()
        {
            Ok(answers) => answers,
            Err(RpcError::MethodMissing(_) | RpcError::TooLarge(_) | RpcError::NodeError(_)) => return Ok(false),
            Err(failure) => return Err(failure.into_source_error(height)),
        };
        let Some(missing) = answers.into_iter().collect() else { return Ok(false) };
        if unproven.matches_transactions_root(missing) {
            return Ok(true);
        }
        let tx_type = unproven.tx_type;
        Err(SourceError::InvalidResponse(format!(
            "the transactions of block {height}, one of them of type {tx_type:#x}, do not match its transactions root"
        )))
    }

    /// Returns true when the block provably contains a transaction of an unknown type. Only in such a block does the
    /// driver accept receipts that do not match the receipts root, so an endpoint must not be able to invent a type.
    pub(crate) async fn fetch_proof_of_unknown_tx_type(
        &self,
        body: &BlockBody,
        watched: &WatchSet,
    ) -> Result<bool, SourceError> {
        if body.has_full_transactions {
            return Ok(body.unproven.is_some() && self.verify_transactions_if_raw_bytes_offered(body).await?);
        }
        let height = body.header.height;
        let params = (B256::from(body.header.hash.0), true);
        let answer = self.pool.send_request(Request::json_rpc_call("eth_getBlockByHash", &params), |reply| {
            let Some(raw) = reply.parse_result::<Option<&RawValue>>()? else { return Ok(Verdict::Fallback(None)) };
            let full = block::parse_block_verifying_if_configured(
                raw,
                height,
                self.config.verify,
                true,
                &watched.lock_addresses(),
            )
            .map_err(Rejection::Invalid)?;
            if full.header != body.header || full.txids != body.txids {
                return Err(Rejection::Invalid(format!("returned another block than {}", body.header.hash)));
            }
            Ok(Verdict::Accept(Some(full)))
        });
        let full = answer.await.map_err(|failure| failure.into_source_error(height))?;
        let full = full.ok_or(SourceError::BlockNotFound(height))?;
        Ok(full.unproven.is_some() && self.verify_transactions_if_raw_bytes_offered(&full).await?)
    }
}

/// Parses the full transactions of a block into `body`: all hashes, and the payments to watched addresses. Verifies the
/// hash of each transaction and, if all transaction types are known, that the transactions match `root`.
pub fn parse_and_verify_transactions_into_body(
    transactions: &[&RawValue],
    root: B256,
    verify: Commitments,
    watched: &WatchedAddresses<'_>,
    body: &mut BlockBody,
) -> Result<(), String> {
    let height = body.header.height;
    let mut encoded = Vec::with_capacity(transactions.len());
    let mut unknown_type = None;
    for (index, raw) in transactions.iter().enumerate() {
        let tx: TxJson<'_> = parse_json(raw.get())?;
        let hash = hex::parse_hash(tx.hash).ok_or("a transaction has an invalid hash")?;
        body.txids.push(hash);
        // The state sync of Polygon's bor node, and its receipt, are not part of any root in the header, so nothing can
        // prove this transaction. It is not read.
        if index + 1 == transactions.len() && hash == compute_bor_state_sync_txid(&body.header) {
            continue;
        }
        let signed = match encode_transaction_if_type_is_known(raw.get(), tx.r#type)? {
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
        if let Some(payment) = parse_payment_to_watched_address(&tx, index, hash, signed, watched)? {
            // This transaction is of an unknown type, so its fields cannot be checked against its hash.
            if encoded.last().is_some_and(Vec::is_empty) {
                body.has_unproven_payment = true;
            } else {
                body.payments.push(payment);
            }
        }
    }
    if let Some(tx_type) = unknown_type {
        body.unproven = Some(UnprovenTransactions { root, encoded, tx_type });
    } else if verify.header && verify.transactions && proofs::ordered_trie_root_encoded(&encoded) != root {
        return Err(format!("the transactions of block {height} do not match its transactions root"));
    }
    Ok(())
}

/// Returns the payment if the transaction itself sends native coins to a watched address, and `None` otherwise.
fn parse_payment_to_watched_address(
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

/// Returns the pseudo transaction hash of the state sync that Polygon's bor node added to a block before PIP-74. It is
/// derived from the block's height and hash only.
pub fn compute_bor_state_sync_txid(header: &chain::Header) -> B256 {
    keccak256([b"matic-bor-receipt-".as_slice(), &header.height.to_be_bytes(), &header.hash.0].concat())
}

/// A transaction in its EIP-2718 encoding, or only the transaction type if the type is unknown.
enum EncodedTx {
    Known { bytes: Vec<u8>, signed: Option<SignedTx> },
    Unknown(u64),
}

/// A decoded transaction with its signature. The sender is recovered only for payments to watched addresses, because
/// recovery is by far the most expensive step of parsing a block.
struct SignedTx(Box<TxEnvelope>);

impl SignedTx {
    /// Returns the address whose key made the signature; `None` when the signature is invalid.
    fn recover_sender(&self) -> Option<Address> {
        self.0.signature().recover_address_from_prehash(&self.0.signature_hash()).ok()
    }
}

/// Returns true when these raw bytes are a transaction of a type that this version can encode (EIP-2718).
pub fn starts_with_known_tx_type(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first >= 0xc0 || is_known_tx_type(u64::from(*first)))
}

/// Returns true when this version can encode transactions of this type.
pub fn is_known_tx_type(tx_type: u64) -> bool {
    tx_type <= NEWEST_TX_TYPE || tx_type == DEPOSIT_TX_TYPE
}

/// Encodes a transaction, given as JSON, in the form from which the transactions root is computed. For an unknown type,
/// returns only the type.
fn encode_transaction_if_type_is_known(tx: &str, tx_type: Option<&str>) -> Result<EncodedTx, String> {
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

/// Encodes a deposit transaction of the OP stack, given as JSON.
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

#[cfg(test)]
mod tests {
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
        let EncodedTx::Known { bytes, .. } = encode_transaction_if_type_is_known(OP_DEPOSIT, Some("0x7e")).unwrap()
        else {
            panic!("the type is known")
        };
        let tx: TxJson<'_> = parse_json(OP_DEPOSIT).unwrap();
        assert_eq!(Some(keccak256(bytes)), hex::parse_hash(tx.hash));
    }

    #[test]
    fn a_future_type_is_unknown_and_a_malformed_one_an_error() {
        assert!(matches!(encode_transaction_if_type_is_known("{}", Some("0x7f")), Ok(EncodedTx::Unknown(0x7f))));
        assert!(encode_transaction_if_type_is_known("{}", Some("0x2")).is_err());
        assert!(encode_transaction_if_type_is_known("{}", Some("two")).is_err());
    }
}
