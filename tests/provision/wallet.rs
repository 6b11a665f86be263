//! A Bitcoin wallet for tests, with one key and mined funds. It can pay many outputs at once, sign replaceable transactions,
//! and spend the same output twice.

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Mutex, MutexGuard},
};

use bitcoin::{
    Address, Amount, CompressedPublicKey, KnownHrp, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
    absolute::LockTime,
    address::NetworkUnchecked,
    consensus,
    secp256k1::{All, Message, Secp256k1, SecretKey},
    sighash::{EcdsaSighashType, SighashCache},
    transaction::Version,
};
use serde_json::json;

use crate::{Error, Result, bitcoind::Bitcoind};

/// The number of spendable outputs of a new wallet.
const UTXOS: u64 = 40;
/// The number of blocks until the output of a coinbase transaction can be spent.
const MATURITY: u64 = 100;
/// The fee of [`TestWallet::pay`], in satoshis.
const FEE: u64 = 10_000;

/// An unspent output of the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utxo {
    pub outpoint: OutPoint,
    pub sats: u64,
}

/// A signed transaction.
#[derive(Debug, Clone)]
pub struct SignedPayment {
    pub txid: String,
    pub hex: String,
    /// The output that the transaction spends. A test can spend the same output again.
    pub utxo: Utxo,
}

/// A wallet with one key and P2WPKH outputs.
pub struct TestWallet {
    key: SecretKey,
    curve: Secp256k1<All>,
    utxos: Mutex<VecDeque<Utxo>>,
}

impl TestWallet {
    /// Returns a wallet with the given key and 40 spendable mined outputs.
    pub async fn with_funds(node: &Bitcoind, secret: u8) -> Result<TestWallet> {
        let key = SecretKey::from_slice(&[secret.max(1); 32]).expect("the bytes are a valid private key");
        let wallet = TestWallet { key, curve: Secp256k1::new(), utxos: Mutex::default() };
        let first = node.fetch_height().await? + 1;
        node.mine_to(&wallet.address(), UTXOS).await?;
        node.mine(MATURITY).await?;
        for height in first..first + UTXOS {
            let hash = node.call_rpc("getblockhash", json!([height])).await?;
            let block = node.call_rpc("getblock", json!([hash, 0])).await?;
            let coinbase = parse_first_transaction(block.as_str().unwrap_or_default())?;
            let outpoint = OutPoint::new(coinbase.compute_txid(), 0);
            wallet.lock_utxos().push_back(Utxo { outpoint, sats: coinbase.output[0].value.to_sat() });
        }
        Ok(wallet)
    }

    /// Returns the P2WPKH address of the wallet on regtest.
    pub fn address(&self) -> String {
        Address::p2wpkh(&self.public_key(), KnownHrp::Regtest).to_string()
    }

    /// Returns the private key in hexadecimal, for another program that signs with it.
    pub fn secret_hex(&self) -> String {
        const_hex::encode(self.key.secret_bytes())
    }

    /// Returns an unspent output and removes it from the wallet.
    ///
    /// # Panics
    ///
    /// Panics when no output is left.
    pub fn take_utxo(&self) -> Utxo {
        self.lock_utxos().pop_front().expect("the wallet has more outputs than one test spends")
    }

    /// Broadcasts one transaction that pays all given addresses; amounts are in satoshis.
    pub async fn pay(&self, node: &Bitcoind, to: &[(&str, u64)]) -> Result<SignedPayment> {
        let signed = self.sign_payment(self.take_utxo(), to, FEE, false)?;
        self.broadcast_payment(node, &signed).await?;
        Ok(signed)
    }

    /// Broadcasts a signed transaction.
    pub async fn broadcast_payment(&self, node: &Bitcoind, signed: &SignedPayment) -> Result<()> {
        node.call_rpc("sendrawtransaction", json!([signed.hex])).await.map(drop)
    }

    /// Signs a transaction that spends an output. The change goes back to the wallet in the last output. Amounts and the fee
    /// are in satoshis.
    pub fn sign_payment(&self, utxo: Utxo, to: &[(&str, u64)], fee: u64, replaceable: bool) -> Result<SignedPayment> {
        let mut output = Vec::with_capacity(to.len() + 1);
        for (address, sats) in to {
            let address = Address::<NetworkUnchecked>::from_str(address)
                .map_err(|cause| Error::context(format!("reading the address {address}"), cause))?;
            let script_pubkey = address.assume_checked().script_pubkey();
            output.push(TxOut { value: Amount::from_sat(*sats), script_pubkey });
        }
        let spent: u64 = to.iter().map(|(_, sats)| sats).sum::<u64>() + fee;
        let change = utxo
            .sats
            .checked_sub(spent)
            .ok_or_else(|| Error::new("the output to spend is smaller than the payment and the fee"))?;
        output.push(TxOut { value: Amount::from_sat(change), script_pubkey: self.output_script() });
        let sequence = if replaceable { Sequence::ENABLE_RBF_NO_LOCKTIME } else { Sequence::MAX };
        let input =
            TxIn { previous_output: utxo.outpoint, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() };
        let mut tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output };
        let hash = SighashCache::new(&tx)
            .p2wpkh_signature_hash(0, &self.output_script(), Amount::from_sat(utxo.sats), EcdsaSighashType::All)
            .map_err(|cause| Error::context("computing the hash to sign", cause))?;
        let message = Message::from_digest(*hash.as_ref());
        let signature = bitcoin::ecdsa::Signature::sighash_all(self.curve.sign_ecdsa(&message, &self.key));
        tx.input[0].witness = Witness::p2wpkh(&signature, &self.public_key().0);
        Ok(SignedPayment { txid: tx.compute_txid().to_string(), hex: consensus::encode::serialize_hex(&tx), utxo })
    }

    fn public_key(&self) -> CompressedPublicKey {
        CompressedPublicKey(self.key.public_key(&self.curve))
    }

    fn output_script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public_key().wpubkey_hash())
    }

    fn lock_utxos(&self) -> MutexGuard<'_, VecDeque<Utxo>> {
        self.utxos.lock().expect("the lock is never poisoned: no code panics while holding it")
    }
}

impl Utxo {
    pub fn txid(&self) -> Txid {
        self.outpoint.txid
    }
}

fn parse_first_transaction(block: &str) -> Result<Transaction> {
    let bytes = const_hex::decode(block).map_err(|cause| Error::context("reading a block", cause))?;
    let block: bitcoin::Block =
        consensus::deserialize(&bytes).map_err(|cause| Error::context("reading a block", cause))?;
    block.txdata.into_iter().next().ok_or_else(|| Error::new("a block without transactions"))
}
