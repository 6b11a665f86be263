//! Hands signed bytes to nodes and sorts what they say. Nothing that is not understood is taken as a refusal.

use async_trait::async_trait;
use chain::{BroadcastOutcome, Sender, TxId};
use rpc::{Rejection, Reply, Request};
use tracing::info;

use crate::{Access, Bitcoin, block::shown, raw::Reader};

/// What a node's text means for the attempt. Texts are those of Bitcoin Core, which Esplora passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The node has these bytes, or a block does.
    Known,
    /// An input is spent, or its transaction is unknown to this node: another attempt, or a missing parent.
    Inputs,
    /// It would replace a transaction that waits, and does not pay enough more to do so.
    Occupied,
    /// Too cheap for this node now.
    Price,
    /// Not yet valid: a lock time, or a coinbase that is not mature.
    Early,
    /// Never valid as it is.
    Build,
    Unknown,
}

impl Class {
    /// The word that begins a refusal's text.
    pub fn word(self) -> &'static str {
        match self {
            Class::Known => "known",
            Class::Inputs => "inputs",
            Class::Occupied => "occupied",
            Class::Price => "price",
            Class::Early => "early",
            Class::Build => "build",
            Class::Unknown => "unknown",
        }
    }
}

/// In the order in which they are tried.
const TEXTS: [(Class, &[&str]); 6] = [
    (
        Class::Known,
        &[
            "txn-already-in-mempool",
            "txn-already-known",
            "already in block chain",
            "outputs already in utxo set",
            "txn-same-nonwitness-data-in-mempool",
        ],
    ),
    (
        Class::Occupied,
        &["insufficient fee", "txn-mempool-conflict", "too many potential replacements", "replacement-failed"],
    ),
    (Class::Inputs, &["missingorspent", "missing-inputs", "missing inputs", "bad-txns-spends-conflicting-tx"]),
    (Class::Price, &["min relay fee not met", "mempool min fee not met", "mempool full", "min-fee"]),
    (Class::Early, &["non-final", "non-bip68-final", "premature-spend-of-coinbase"]),
    (
        Class::Build,
        &[
            "mandatory-script-verify-flag-failed",
            "non-mandatory-script-verify-flag",
            "mempool-script-verify-flag-failed",
            "block-script-verify-flag-failed",
            "tx decode failed",
            "dust",
            "tx-size",
            "scriptpubkey",
            "bad-txns-in-belowout",
            "max-fee-exceeded",
            "fee exceeds maximum",
        ],
    ),
];

/// Sorts the text of a node's error.
pub fn classify(text: &str) -> Class {
    let text = text.to_ascii_lowercase();
    let named = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    TEXTS.iter().find(|(_, phrases)| named(phrases)).map_or(Class::Unknown, |(class, _)| *class)
}

#[async_trait]
impl Sender for Bitcoin {
    /// To every endpoint that may broadcast. A refusal begins with its class: `price: host:port: …`.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let Ok(tx) = Reader::new(raw).tx(|_| {}) else {
            return BroadcastOutcome::Refused("build: the bytes are no transaction".to_owned());
        };
        let txid = TxId(shown(tx.txid()));
        let hex = const_hex::encode(raw);
        let told = match self.config.access {
            Access::Core => self.pool.broadcast(Request::call("sendrawtransaction", &[hex])).await,
            Access::Esplora => self.pool.broadcast(Request::post("tx", hex.into_bytes())).await,
        };
        let said = told.into_iter().map(|(endpoint, said)| {
            let label = self.pool.label(endpoint);
            let outcome = match said {
                Err(trouble) => BroadcastOutcome::Unknown(format!("{label}: {trouble}")),
                Ok(body) => self.understand(endpoint, &label, &body, txid),
            };
            info!(chain = %self.config.asset.chain, endpoint = %label, %txid, ?outcome, "broadcast to {label}");
            outcome
        });
        BroadcastOutcome::combine(said)
    }
}

impl Bitcoin {
    fn understand(&self, endpoint: usize, label: &str, body: &[u8], txid: TxId) -> BroadcastOutcome {
        let said = match self.config.access {
            Access::Core => match Reply::new(endpoint, 200, body).result::<String>() {
                Ok(name) => Ok(name),
                Err(Rejection::NodeError(refusal)) => Err(refusal.message),
                Err(Rejection::Invalid(reason)) => return BroadcastOutcome::Unknown(format!("{label}: {reason}")),
            },
            // The name of what was taken, or the node's complaint: both are texts.
            Access::Esplora => match String::from_utf8_lossy(body).trim() {
                name if name == txid.to_string() => Ok(name.to_owned()),
                complaint => Err(complaint.chars().filter(|c| !c.is_control()).take(300).collect()),
            },
        };
        match said {
            Ok(name) if name == txid.to_string() => BroadcastOutcome::Accepted,
            Ok(name) => BroadcastOutcome::Unknown(format!("{label}: took it as {name}, not as {txid}")),
            Err(complaint) => refused(label, &self.pool.redact(endpoint, &complaint)),
        }
    }
}

fn refused(label: &str, message: &str) -> BroadcastOutcome {
    match classify(message) {
        Class::Known => BroadcastOutcome::AlreadyKnown,
        Class::Unknown => BroadcastOutcome::Unknown(format!("{label}: {message}")),
        class @ (Class::Inputs | Class::Occupied | Class::Price | Class::Early | Class::Build) => {
            BroadcastOutcome::Refused(format!("{}: {label}: {message}", class.word()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_bitcoin_core() {
        for (text, class) in [
            ("txn-already-in-mempool", Class::Known),
            ("Transaction outputs already in utxo set", Class::Known),
            ("bad-txns-inputs-missingorspent", Class::Inputs),
            ("insufficient fee, rejecting replacement 00; new feerate 0.00001 <= old feerate 0.0001", Class::Occupied),
            ("min relay fee not met, 0 < 110", Class::Price),
            ("non-BIP68-final", Class::Early),
            ("bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 1", Class::Early),
            ("TX decode failed. Make sure the tx has at least one input.", Class::Build),
            ("sendrawtransaction RPC error: {\"code\":-26,\"message\":\"dust\"}", Class::Build),
            ("something new", Class::Unknown),
        ] {
            assert_eq!(classify(text), class, "{text}");
        }
    }
}
