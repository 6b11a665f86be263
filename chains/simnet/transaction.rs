//! Transactions of a model chain: their content, signatures and encoding.
//!
//! The encoding is JSON with a fixed order of fields; a node rejects JSON in any other form, even with the same
//! content. The id covers the content and the signers' keys but not the signatures, so changing a signature does not
//! change the id.

use std::sync::LazyLock;

use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey, ecdsa::Signature};
use chain::{Address, AddressKey, Amount, AssetId, ChainId, Family, OutPoint, TxId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address;

static CURVE: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Maximum length of an encoded transaction, in bytes.
const RAW_BYTES_MAX: usize = 1 << 20;

/// The part of a transaction that prevents a second execution and decides which transactions conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayProtection {
    /// The nonce of the sender (EVM; the model accepts it on TRON too).
    Nonce(u64),
    /// The latest block time at which the transaction is valid, at most one day ahead (TRON).
    Expiry {
        /// The latest block time at which the transaction is valid, in Unix seconds.
        time: i64,
        /// A number that makes two equal payments different.
        salt: u64,
    },
    /// The coins that are spent completely (Bitcoin). The moves are the outputs.
    Inputs(Vec<OutPoint>),
}

/// One movement of value in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The asset that moves.
    pub asset: AssetId,
    /// The recipient of the asset.
    pub to: Address,
    /// The amount in base units; may be zero.
    pub amount: Amount,
    /// True when a contract sends the native coin during the transaction. False when the transaction itself moves the
    /// amount.
    pub internal: bool,
}

/// The unsigned content of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxDraft {
    /// The only chain on which the transaction is valid.
    pub chain: ChainId,
    /// The part that prevents a second execution of the transaction: the nonce, the expiry or the inputs.
    pub replay_protection: ReplayProtection,
    /// The movements of value, in order; on Bitcoin these are the outputs.
    pub moves: Vec<Move>,
    /// The fee in base units of the native coin. Of two conflicting transactions in the mempool, the one with the
    /// higher fee stays.
    pub fee: Amount,
    /// True when the transaction pays its fee but moves nothing, like a contract call that reverts.
    pub reverts: bool,
}

/// A public key with its signature over [`TxDraft::compute_digest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The signer's key.
    pub key: PublicKey,
    /// The ECDSA signature over secp256k1.
    pub signature: Signature,
}

/// A transaction with its signatures, in canonical form. The signatures may be invalid until
/// [`SignedTx::verify_signatures`] has checked them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTx {
    /// The signed content.
    pub draft: TxDraft,
    /// The transaction id: [`TxDraft::compute_digest`] with the signers' keys.
    pub txid: TxId,
    /// The accounts of the signers, in the order of the signatures. The first one pays on account-based chains; on
    /// Bitcoin the spent coins may belong to any of them.
    pub signers: Vec<AddressKey>,
    witnesses: Vec<Witness>,
    raw: String,
}

/// The reason why encoded bytes are not a valid transaction of the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTx {
    /// The bytes are too long, not JSON of the expected form, or not canonical.
    #[error("not a transaction: {0}")]
    Malformed(String),
    /// The transaction is for this other chain.
    #[error("it is for chain {0}")]
    OtherChain(ChainId),
    /// A signature is malformed or does not match its key.
    #[error("a signature is invalid")]
    BadSignature,
}

impl TxDraft {
    /// Returns the digest that the owners of `keys` sign: SHA-256 over the draft and all keys, in the order of the
    /// signatures. It is also the transaction id.
    pub fn compute_digest(&self, keys: &[PublicKey]) -> [u8; 32] {
        let text = serde_json::to_string(&WireDraft::from(self)).expect("a draft has only texts and numbers");
        let hash = Sha256::new().chain_update("simnet transaction").chain_update(text);
        keys.iter().fold(hash, |hash, key| hash.chain_update(key.serialize())).finalize().into()
    }

    /// Signs the draft with these keys. The first key belongs to the paying account.
    pub fn sign(self, family: Family, keys: &[SecretKey]) -> SignedTx {
        let public: Vec<PublicKey> = keys.iter().map(derive_public_key).collect();
        let message = Message::from_digest(self.compute_digest(&public));
        let signature = |secret: &SecretKey| CURVE.sign_ecdsa(&message, secret);
        let witness = |(key, secret): (PublicKey, &SecretKey)| Witness { key, signature: signature(secret) };
        SignedTx::from_unverified_witnesses(family, self, public.into_iter().zip(keys).map(witness).collect())
    }
}

impl SignedTx {
    /// Returns the transaction of a draft and signatures that were made elsewhere, and computes its id. Does not verify
    /// the signatures.
    pub fn from_unverified_witnesses(family: Family, draft: TxDraft, witnesses: Vec<Witness>) -> SignedTx {
        let signers = witnesses.iter().map(|w| address::address_from_public_key(family, &w.key).key).collect();
        let wire =
            Wire { draft: WireDraft::from(&draft), witnesses: witnesses.iter().map(WireWitness::from).collect() };
        let raw = serde_json::to_string(&wire).expect("a transaction has only texts and numbers");
        let keys: Vec<PublicKey> = witnesses.iter().map(|w| w.key).collect();
        SignedTx { txid: TxId(draft.compute_digest(&keys)), draft, signers, witnesses, raw }
    }

    /// Decodes a transaction from its canonical form. Fails for a transaction of another chain than `chain`, and for
    /// bytes in any other form. Does not verify the signatures.
    pub fn decode_canonical_unverified(family: Family, chain: &ChainId, raw: &[u8]) -> Result<SignedTx, InvalidTx> {
        let malformed = |reason: &str| InvalidTx::Malformed(reason.to_owned());
        if raw.len() > RAW_BYTES_MAX {
            return Err(malformed("too large"));
        }
        let wire: Wire = serde_json::from_slice(raw).map_err(|e| InvalidTx::Malformed(e.to_string()))?;
        let draft = wire.draft.parse(family).map_err(InvalidTx::Malformed)?;
        if draft.chain != *chain {
            return Err(InvalidTx::OtherChain(draft.chain));
        }
        let witnesses: Option<Vec<Witness>> = wire.witnesses.iter().map(WireWitness::parse).collect();
        let tx = SignedTx::from_unverified_witnesses(family, draft, witnesses.ok_or(InvalidTx::BadSignature)?);
        if tx.signers.is_empty() || tx.raw.as_bytes() != raw {
            return Err(malformed("not in canonical form"));
        }
        Ok(tx)
    }

    /// Verifies all signatures.
    pub fn verify_signatures(&self) -> Result<(), InvalidTx> {
        let message = Message::from_digest(self.txid.0);
        let holds = |w: &Witness| CURVE.verify_ecdsa(&message, &w.signature, &w.key).is_ok();
        if self.witnesses.iter().all(holds) { Ok(()) } else { Err(InvalidTx::BadSignature) }
    }

    /// Returns the account that pays: that of the first signature.
    pub fn sender(&self) -> AddressKey {
        self.signers[0]
    }

    /// Returns the encoded transaction as text, in the form that is broadcast.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Returns true when the two transactions conflict, so that at most one of them can be mined.
    pub fn conflicts_with(&self, other: &SignedTx) -> bool {
        match (&self.draft.replay_protection, &other.draft.replay_protection) {
            (ReplayProtection::Nonce(a), ReplayProtection::Nonce(b)) => a == b && self.sender() == other.sender(),
            (ReplayProtection::Inputs(a), ReplayProtection::Inputs(b)) => a.iter().any(|coin| b.contains(coin)),
            (ReplayProtection::Expiry { .. }, ReplayProtection::Expiry { .. }) => self.txid == other.txid,
            (ReplayProtection::Nonce(_) | ReplayProtection::Expiry { .. } | ReplayProtection::Inputs(_), _) => false,
        }
    }
}

/// Returns the public key of a secret key.
pub fn derive_public_key(key: &SecretKey) -> PublicKey {
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
    #[serde(rename = "order")]
    replay_protection: WireReplayProtection,
    moves: Vec<WireMove>,
    fee: String,
    reverts: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireReplayProtection {
    Nonce(u64),
    #[serde(rename = "until")]
    Expiry(i64, u64),
    #[serde(rename = "coins")]
    Inputs(Vec<(String, u32)>),
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

impl From<&TxDraft> for WireDraft {
    fn from(draft: &TxDraft) -> WireDraft {
        let replay_protection = match &draft.replay_protection {
            ReplayProtection::Nonce(nonce) => WireReplayProtection::Nonce(*nonce),
            ReplayProtection::Expiry { time, salt } => WireReplayProtection::Expiry(*time, *salt),
            ReplayProtection::Inputs(coins) => {
                WireReplayProtection::Inputs(coins.iter().map(|c| (c.txid.to_string(), c.vout)).collect())
            }
        };
        let to_wire = |m: &Move| WireMove {
            asset: m.asset.clone(),
            to: m.to.text.clone(),
            amount: m.amount.to_string(),
            internal: m.internal,
        };
        WireDraft {
            chain: draft.chain.clone(),
            replay_protection,
            moves: draft.moves.iter().map(to_wire).collect(),
            fee: draft.fee.to_string(),
            reverts: draft.reverts,
        }
    }
}

impl WireDraft {
    fn parse(self, family: Family) -> Result<TxDraft, String> {
        let replay_protection = match self.replay_protection {
            WireReplayProtection::Nonce(nonce) => ReplayProtection::Nonce(nonce),
            WireReplayProtection::Expiry(time, salt) => ReplayProtection::Expiry { time, salt },
            WireReplayProtection::Inputs(coins) => {
                let parse = |(txid, vout): &(String, u32)| parse_txid(txid).map(|txid| OutPoint { txid, vout: *vout });
                let coins: Option<Vec<OutPoint>> = coins.iter().map(parse).collect();
                ReplayProtection::Inputs(coins.ok_or("a coin is not 64 hexadecimal digits")?)
            }
        };
        let moves = self.moves.into_iter().map(|m| m.parse(family)).collect::<Result<_, String>>()?;
        Ok(TxDraft {
            chain: self.chain,
            replay_protection,
            moves,
            fee: parse_amount(&self.fee)?,
            reverts: self.reverts,
        })
    }
}

impl WireMove {
    fn parse(self, family: Family) -> Result<Move, String> {
        let to = address::parse_address(family, &self.to).map_err(|e| e.to_string())?;
        Ok(Move { asset: self.asset, to, amount: parse_amount(&self.amount)?, internal: self.internal })
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
    fn parse(&self) -> Option<Witness> {
        let key: [u8; 33] = const_hex::decode_to_array(&self.key).ok()?;
        let signature: [u8; 64] = const_hex::decode_to_array(&self.signature).ok()?;
        let (key, signature) = (PublicKey::from_slice(&key).ok()?, Signature::from_compact(&signature).ok()?);
        Some(Witness { key, signature })
    }
}

/// Parses a transaction id from 64 hexadecimal digits.
pub(crate) fn parse_txid(text: &str) -> Option<TxId> {
    const_hex::decode_to_array(text).ok().map(TxId)
}

/// Parses a decimal amount in base units.
pub(crate) fn parse_amount(text: &str) -> Result<Amount, String> {
    Amount::parse_decimal(text, 0).map_err(|e| e.to_string())
}
