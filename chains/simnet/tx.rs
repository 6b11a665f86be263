//! Transactions of a model chain: their content, signatures and serialised form.
//!
//! The bytes are JSON with a fixed order of fields; a node rejects any other JSON with the same content. The id covers
//! the content and the public keys but not the signatures, so it cannot be changed after signing.

use std::sync::LazyLock;

use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey, ecdsa::Signature};
use chain::{Address, AddressKey, Amount, AssetId, ChainId, Family, TxId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address;

static CURVE: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Maximum size of one transaction, in bytes.
const RAW_LIMIT: usize = 1 << 20;

/// The reference to one output of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// Id of the transaction.
    pub txid: TxId,
    /// Index of the output in the transaction, from 0.
    pub index: u32,
}

/// The part of a transaction that prevents a second inclusion and decides which transactions conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The nonce of the sender (EVM; the model of TRON accepts it too).
    Nonce(u64),
    /// The block time until which the transaction is valid, in unix seconds, at most one day ahead (TRON). `salt`
    /// distinguishes equal payments.
    Until { time: i64, salt: u64 },
    /// The outputs that are spent (Bitcoin).
    Coins(Vec<OutPoint>),
}

/// One payment inside a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The asset, listed or not.
    pub asset: AssetId,
    /// The recipient.
    pub to: Address,
    /// Amount in base units; may be zero.
    pub amount: Amount,
    /// True if a contract sends the native coin during the transaction; false if the amount is the value of the
    /// transaction.
    pub internal: bool,
}

/// The content of a transaction, which is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The chain, so that the transaction is invalid on another one.
    pub chain: ChainId,
    /// The nonce, expiry or inputs.
    pub order: Order,
    /// The payments, in order; on Bitcoin they are the outputs.
    pub moves: Vec<Move>,
    /// Fee for the miner, in base units of the native coin. In the mempool, the higher fee of two conflicting
    /// transactions wins.
    pub fee: Amount,
    /// True if the transaction pays its fee and moves nothing, like a contract call that reverts.
    pub reverts: bool,
}

/// A public key with its signature over [`Draft::digest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Key of a signer.
    pub key: PublicKey,
    /// ECDSA signature over secp256k1.
    pub signature: Signature,
}

/// A signed transaction in canonical form. Its signatures are not necessarily valid; [`Tx::verify`] verifies them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tx {
    /// The signed content.
    pub draft: Draft,
    /// The id, which is [`Draft::digest`] with the signers' keys.
    pub txid: TxId,
    /// Accounts of the signers, in the order of the signatures. On account-based chains the first one pays; on Bitcoin
    /// each signer may own some of the inputs.
    pub signers: Vec<AddressKey>,
    witnesses: Vec<Witness>,
    raw: String,
}

/// The reason for which bytes are not a valid transaction of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTx {
    /// The bytes are too long, not JSON of the expected form, or not canonical.
    #[error("not a transaction: {0}")]
    Malformed(String),
    /// The transaction is for this other chain.
    #[error("it is for chain {0}")]
    OtherChain(ChainId),
    /// A signature is malformed or does not match its key.
    #[error("a signature does not hold")]
    BadSignature,
}

impl Draft {
    /// Returns the hash that the owners of these keys sign, in the order of their signatures: the SHA-256 hash of the
    /// draft and all keys. It is also the transaction id.
    pub fn digest(&self, keys: &[PublicKey]) -> [u8; 32] {
        let text = serde_json::to_string(&WireDraft::from(self)).expect("a draft has only texts and numbers");
        let hash = Sha256::new().chain_update("simnet transaction").chain_update(text);
        keys.iter().fold(hash, |hash, key| hash.chain_update(key.serialize())).finalize().into()
    }

    /// Signs with these keys, once each. The first key belongs to the paying account.
    pub fn sign(self, family: Family, keys: &[SecretKey]) -> Tx {
        let public: Vec<PublicKey> = keys.iter().map(public_key).collect();
        let message = Message::from_digest(self.digest(&public));
        let signature = |secret: &SecretKey| CURVE.sign_ecdsa(&message, secret);
        let witness = |(key, secret): (PublicKey, &SecretKey)| Witness { key, signature: signature(secret) };
        Tx::assemble(family, self, public.into_iter().zip(keys).map(witness).collect())
    }
}

impl Tx {
    /// Returns the transaction of a draft and signatures that were made elsewhere. Does not verify the signatures.
    pub fn assemble(family: Family, draft: Draft, witnesses: Vec<Witness>) -> Tx {
        let signers = witnesses.iter().map(|w| address::of_key(family, &w.key).key).collect();
        let wire =
            Wire { draft: WireDraft::from(&draft), witnesses: witnesses.iter().map(WireWitness::from).collect() };
        let raw = serde_json::to_string(&wire).expect("a transaction has only texts and numbers");
        let keys: Vec<PublicKey> = witnesses.iter().map(|w| w.key).collect();
        Tx { txid: TxId(draft.digest(&keys)), draft, signers, witnesses, raw }
    }

    /// Parses a transaction of `chain` without verifying its signatures.
    pub fn decode(family: Family, chain: &ChainId, raw: &[u8]) -> Result<Tx, BadTx> {
        let malformed = |reason: &str| BadTx::Malformed(reason.to_owned());
        if raw.len() > RAW_LIMIT {
            return Err(malformed("too large"));
        }
        let wire: Wire = serde_json::from_slice(raw).map_err(|e| BadTx::Malformed(e.to_string()))?;
        let draft = wire.draft.read(family).map_err(BadTx::Malformed)?;
        if draft.chain != *chain {
            return Err(BadTx::OtherChain(draft.chain));
        }
        let witnesses: Option<Vec<Witness>> = wire.witnesses.iter().map(WireWitness::read).collect();
        let tx = Tx::assemble(family, draft, witnesses.ok_or(BadTx::BadSignature)?);
        if tx.signers.is_empty() || tx.raw.as_bytes() != raw {
            return Err(malformed("not in canonical form"));
        }
        Ok(tx)
    }

    /// Verifies all signatures.
    pub fn verify(&self) -> Result<(), BadTx> {
        let message = Message::from_digest(self.txid.0);
        let holds = |w: &Witness| CURVE.verify_ecdsa(&message, &w.signature, &w.key).is_ok();
        if self.witnesses.iter().all(holds) { Ok(()) } else { Err(BadTx::BadSignature) }
    }

    /// Returns the account that pays: that of the first signature.
    pub fn sender(&self) -> AddressKey {
        self.signers[0]
    }

    /// Returns the bytes to broadcast, which are JSON.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Returns true if the transactions conflict, so that at most one of them can be mined.
    pub fn excludes(&self, other: &Tx) -> bool {
        match (&self.draft.order, &other.draft.order) {
            (Order::Nonce(a), Order::Nonce(b)) => a == b && self.sender() == other.sender(),
            (Order::Coins(a), Order::Coins(b)) => a.iter().any(|coin| b.contains(coin)),
            (Order::Until { .. }, Order::Until { .. }) => self.txid == other.txid,
            (Order::Nonce(_) | Order::Until { .. } | Order::Coins(_), _) => false,
        }
    }
}

/// Returns the public key of a secret key.
pub fn public_key(key: &SecretKey) -> PublicKey {
    key.public_key(&CURVE)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    draft: WireDraft,
    witnesses: Vec<WireWitness>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDraft {
    chain: ChainId,
    order: WireOrder,
    moves: Vec<WireMove>,
    fee: String,
    reverts: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireOrder {
    Nonce(u64),
    Until(i64, u64),
    Coins(Vec<(String, u32)>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMove {
    asset: AssetId,
    to: String,
    amount: String,
    internal: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireWitness {
    key: String,
    signature: String,
}

impl From<&Draft> for WireDraft {
    fn from(draft: &Draft) -> WireDraft {
        let order = match &draft.order {
            Order::Nonce(nonce) => WireOrder::Nonce(*nonce),
            Order::Until { time, salt } => WireOrder::Until(*time, *salt),
            Order::Coins(coins) => WireOrder::Coins(coins.iter().map(|c| (c.txid.to_string(), c.index)).collect()),
        };
        let written = |m: &Move| WireMove {
            asset: m.asset.clone(),
            to: m.to.text.clone(),
            amount: m.amount.to_string(),
            internal: m.internal,
        };
        WireDraft {
            chain: draft.chain.clone(),
            order,
            moves: draft.moves.iter().map(written).collect(),
            fee: draft.fee.to_string(),
            reverts: draft.reverts,
        }
    }
}

impl WireDraft {
    fn read(self, family: Family) -> Result<Draft, String> {
        let order = match self.order {
            WireOrder::Nonce(nonce) => Order::Nonce(nonce),
            WireOrder::Until(time, salt) => Order::Until { time, salt },
            WireOrder::Coins(coins) => {
                let read = |(txid, index): &(String, u32)| read_txid(txid).map(|txid| OutPoint { txid, index: *index });
                let coins: Option<Vec<OutPoint>> = coins.iter().map(read).collect();
                Order::Coins(coins.ok_or("a coin is not 64 hexadecimal digits")?)
            }
        };
        let moves = self.moves.into_iter().map(|m| m.read(family)).collect::<Result<_, String>>()?;
        Ok(Draft { chain: self.chain, order, moves, fee: read_amount(&self.fee)?, reverts: self.reverts })
    }
}

impl WireMove {
    fn read(self, family: Family) -> Result<Move, String> {
        let to = address::parse(family, &self.to).map_err(|e| e.to_string())?;
        Ok(Move { asset: self.asset, to, amount: read_amount(&self.amount)?, internal: self.internal })
    }
}

impl From<&Witness> for WireWitness {
    fn from(witness: &Witness) -> WireWitness {
        WireWitness {
            key: const_hex::encode(witness.key.serialize()),
            signature: const_hex::encode(witness.signature.serialize_compact()),
        }
    }
}

impl WireWitness {
    fn read(&self) -> Option<Witness> {
        let key: [u8; 33] = const_hex::decode_to_array(&self.key).ok()?;
        let signature: [u8; 64] = const_hex::decode_to_array(&self.signature).ok()?;
        let (key, signature) = (PublicKey::from_slice(&key).ok()?, Signature::from_compact(&signature).ok()?);
        Some(Witness { key, signature })
    }
}

pub(crate) fn read_txid(text: &str) -> Option<TxId> {
    const_hex::decode_to_array(text).ok().map(TxId)
}

pub(crate) fn read_amount(text: &str) -> Result<Amount, String> {
    Amount::parse_decimal(text, 0).map_err(|e| e.to_string())
}
