//! A buyer of Bitcoin with a key of its own, who pays from coins that were mined to him: many outputs at once, replaceably,
//! or spending the same coin twice.

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

/// Coins that may be spent once a payer is ready.
const COINS: u64 = 40;
/// Blocks until a mined coin may be spent.
const MATURITY: u64 = 100;
const FEE: u64 = 10_000;

/// An output that only the payer can spend.
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
    /// What it spends, to be spent again elsewhere.
    pub coin: Utxo,
}

pub struct TestWallet {
    key: SecretKey,
    curve: Secp256k1<All>,
    utxos: Mutex<VecDeque<Utxo>>,
}

impl TestWallet {
    /// Mines coins until there are plenty that may be spent.
    pub async fn with_funds(node: &Bitcoind, secret: u8) -> Result<TestWallet> {
        let key = SecretKey::from_slice(&[secret.max(1); 32]).expect("a small number is a key");
        let payer = TestWallet { key, curve: Secp256k1::new(), utxos: Mutex::default() };
        let first = node.height().await? + 1;
        node.mine_to(&payer.address(), COINS).await?;
        node.mine(MATURITY).await?;
        for height in first..first + COINS {
            let hash = node.rpc("getblockhash", json!([height])).await?;
            let block = node.rpc("getblock", json!([hash, 0])).await?;
            let coinbase = first_transaction(block.as_str().unwrap_or_default())?;
            let outpoint = OutPoint::new(coinbase.compute_txid(), 0);
            payer.utxos().push_back(Utxo { outpoint, sats: coinbase.output[0].value.to_sat() });
        }
        Ok(payer)
    }

    pub fn address(&self) -> String {
        Address::p2wpkh(&self.public(), KnownHrp::Regtest).to_string()
    }

    /// The private key in hexadecimal, for another program that is to sign with it.
    pub fn secret_hex(&self) -> String {
        const_hex::encode(self.key.secret_bytes())
    }

    /// A coin that nobody else gets.
    pub fn take_utxo(&self) -> Utxo {
        self.utxos().pop_front().expect("a payer has more coins than a story spends")
    }

    /// Pays addresses in one transaction, which waits in the node's mempool then.
    pub async fn pay(&self, node: &Bitcoind, to: &[(&str, u64)]) -> Result<SignedPayment> {
        let signed = self.sign(self.take_utxo(), to, FEE, false)?;
        self.send(node, &signed).await?;
        Ok(signed)
    }

    pub async fn send(&self, node: &Bitcoind, signed: &SignedPayment) -> Result<()> {
        node.rpc("sendrawtransaction", json!([signed.hex])).await.map(drop)
    }

    /// Spends a coin; what is left goes back to the payer as the last output.
    pub fn sign(&self, coin: Utxo, to: &[(&str, u64)], fee: u64, replaceable: bool) -> Result<SignedPayment> {
        let mut output = Vec::with_capacity(to.len() + 1);
        for (address, sats) in to {
            let address = Address::<NetworkUnchecked>::from_str(address)
                .map_err(|cause| Error::context(format!("reading the address {address}"), cause))?;
            let script_pubkey = address.assume_checked().script_pubkey();
            output.push(TxOut { value: Amount::from_sat(*sats), script_pubkey });
        }
        let spent: u64 = to.iter().map(|(_, sats)| sats).sum::<u64>() + fee;
        let change =
            coin.sats.checked_sub(spent).ok_or_else(|| Error::new("a coin is smaller than what it should pay"))?;
        output.push(TxOut { value: Amount::from_sat(change), script_pubkey: self.script() });
        let sequence = if replaceable { Sequence::ENABLE_RBF_NO_LOCKTIME } else { Sequence::MAX };
        let input =
            TxIn { previous_output: coin.outpoint, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() };
        let mut tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output };
        let hash = SighashCache::new(&tx)
            .p2wpkh_signature_hash(0, &self.script(), Amount::from_sat(coin.sats), EcdsaSighashType::All)
            .map_err(|cause| Error::context("hashing for a signature", cause))?;
        let message = Message::from_digest(*hash.as_ref());
        let signature = bitcoin::ecdsa::Signature::sighash_all(self.curve.sign_ecdsa(&message, &self.key));
        tx.input[0].witness = Witness::p2wpkh(&signature, &self.public().0);
        Ok(SignedPayment { txid: tx.compute_txid().to_string(), hex: consensus::encode::serialize_hex(&tx), coin })
    }

    fn public(&self) -> CompressedPublicKey {
        CompressedPublicKey(self.key.public_key(&self.curve))
    }

    fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public().wpubkey_hash())
    }

    fn utxos(&self) -> MutexGuard<'_, VecDeque<Utxo>> {
        self.utxos.lock().expect("no panic while coins are held")
    }
}

impl Utxo {
    pub fn txid(&self) -> Txid {
        self.outpoint.txid
    }
}

fn first_transaction(block: &str) -> Result<Transaction> {
    let bytes = const_hex::decode(block).map_err(|cause| Error::context("reading a block", cause))?;
    let block: bitcoin::Block =
        consensus::deserialize(&bytes).map_err(|cause| Error::context("reading a block", cause))?;
    block.txdata.into_iter().next().ok_or_else(|| Error::new("a block without transactions"))
}
