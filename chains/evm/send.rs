//! Hands signed bytes to nodes and sorts what they say. Nothing that is not understood is taken as a refusal.

use alloy_primitives::keccak256;
use async_trait::async_trait;
use chain::{BroadcastOutcome, Sender};
use rpc::{Rejection, Reply, Role};
use tracing::info;

use crate::{Evm, hex};

/// What a node's text means for the attempt. Codes are not looked at: −32000 and −32603 carry everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The node has these bytes.
    Known,
    /// The nonce is used up on chain: by this attempt, by another one, or by a stranger.
    Consumed,
    /// Another attempt with this nonce waits in the pool.
    Occupied,
    /// A lower nonce is missing.
    Gap,
    /// Too cheap for this node now.
    Price,
    /// The wallet cannot pay for it.
    Funds,
    /// Never valid as it is.
    Build,
    Unknown,
}

impl Class {
    /// The word that begins a refusal's text.
    pub fn word(self) -> &'static str {
        match self {
            Class::Known => "known",
            Class::Consumed => "consumed",
            Class::Occupied => "occupied",
            Class::Gap => "gap",
            Class::Price => "price",
            Class::Funds => "funds",
            Class::Build => "build",
            Class::Unknown => "unknown",
        }
    }
}

/// The texts of geth, erigon, nethermind, besu, reth and anvil. Order matters: "replacement transaction underpriced" is no
/// matter of price only, and "unknown transaction" is not "known transaction".
const TEXTS: [(Class, &[&str]); 8] = [
    (
        Class::Unknown,
        &[
            "unknown transaction",
            "future transaction tries to replace pending",
            "txpool is full",
            "account limit exceeded",
        ],
    ),
    (Class::Known, &["already known", "known transaction", "same hash was already imported", "already imported"]),
    (Class::Consumed, &["nonce too low", "nonce is too low", "oldnonce"]),
    (Class::Occupied, &["replacement transaction underpriced", "replacementnotallowed", "replacement not allowed"]),
    (Class::Gap, &["nonce too high", "exceeds next nonce", "nonce too far in the future", "noncegap", "nonce gap"]),
    (Class::Funds, &["insufficient funds", "insufficientfunds"]),
    (
        Class::Price,
        &[
            "transaction underpriced",
            "fee too low",
            "feetoolow",
            "max fee per gas less than block base fee",
            "tip below minimum",
            "below the minimum",
            "gas price below",
            "gas tip cap",
        ],
    ),
    (
        Class::Build,
        &[
            "invalid sender",
            "invalid chain id",
            "wrong chain id",
            "incorrect chain id",
            "intrinsic gas too low",
            "exceeds block gas limit",
            "oversized",
            "max priority fee per gas higher than max fee per gas",
            "transaction type not supported",
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
impl Sender for Evm {
    /// To every endpoint that may broadcast. A refusal begins with its class: `price: host:port: …`.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome {
        let txid = keccak256(raw);
        let params = [const_hex::encode_prefixed(raw)];
        let told = self.pool.tell_all(Role::Broadcast, "eth_sendRawTransaction", &params).await;
        let said = told.into_iter().map(|(endpoint, body)| {
            let label = self.pool.label(endpoint);
            let outcome = match body {
                Err(trouble) => BroadcastOutcome::Unknown(format!("{label}: {trouble}")),
                Ok(body) => match Reply::new(endpoint, 200, &body).result::<&str>() {
                    Ok(hash) if hex::hash(hash) == Some(txid) => BroadcastOutcome::Accepted,
                    Ok(_) => BroadcastOutcome::Unknown(format!("{label}: took it under another hash than {txid}")),
                    Err(Rejection::Wrong(reason)) => BroadcastOutcome::Unknown(format!("{label}: {reason}")),
                    Err(Rejection::Refused(refusal)) => refused(&label, &self.pool.redact(endpoint, &refusal.message)),
                },
            };
            info!(chain = %self.config.chain, endpoint = %label, %txid, ?outcome, "broadcast to {label}");
            outcome
        });
        BroadcastOutcome::combine(said)
    }
}

fn refused(label: &str, message: &str) -> BroadcastOutcome {
    match classify(message) {
        Class::Known => BroadcastOutcome::AlreadyKnown,
        Class::Unknown => BroadcastOutcome::Unknown(format!("{label}: {message}")),
        class @ (Class::Consumed | Class::Occupied | Class::Gap | Class::Price | Class::Funds | Class::Build) => {
            BroadcastOutcome::Refused(format!("{}: {label}: {message}", class.word()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_clients() {
        for (text, class) in [
            ("already known", Class::Known),
            ("ALREADY_EXISTS: already known", Class::Known),
            ("unknown transaction", Class::Unknown),
            ("Transaction with the same hash was already imported.", Class::Known),
            ("nonce too low: next nonce 5, tx nonce 4", Class::Consumed),
            ("OldNonce, Current nonce: 5, nonce of rejected tx: 4", Class::Consumed),
            ("replacement transaction underpriced", Class::Occupied),
            ("transaction underpriced: gas tip cap 1, minimum needed 1000000000", Class::Price),
            ("nonce too high", Class::Gap),
            ("insufficient funds for gas * price + value: balance 0", Class::Funds),
            ("intrinsic gas too low: gas 20000, minimum needed 21000", Class::Build),
            ("invalid chain id for signer: have 1 want 5", Class::Build),
            ("future transaction tries to replace pending", Class::Unknown),
            ("txpool is full", Class::Unknown),
            ("something new", Class::Unknown),
            ("", Class::Unknown),
        ] {
            assert_eq!(classify(text), class, "{text}");
        }
    }
}
