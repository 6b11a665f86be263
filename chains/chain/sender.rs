//! The part of a chain driver that broadcasts: a [`Sender`] hands signed transactions to nodes.

use async_trait::async_trait;

/// The result of handing a signed transaction to nodes. An answer that the driver does not understand is `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroadcastOutcome {
    /// A node accepted the transaction.
    Accepted,
    /// A node already has exactly this transaction.
    AlreadyKnown,
    /// The nodes rejected the transaction. The text contains their reasons. Nodes that were not asked may still have
    /// the transaction.
    Rejected(String),
    /// The nodes may or may not have accepted the transaction; the text says why the outcome is unknown.
    Unknown(String),
}

impl BroadcastOutcome {
    /// Returns the outcome of a broadcast to several endpoints. If one endpoint accepted the transaction or already has
    /// it, the result is the outcome of this endpoint. Otherwise, if one outcome is unknown, the result is `Unknown`,
    /// because the transaction may have been accepted. The result is `Unknown` when there are no outcomes.
    pub fn combine_preferring_accepted(outcomes: impl IntoIterator<Item = BroadcastOutcome>) -> BroadcastOutcome {
        let combined = outcomes.into_iter().reduce(|combined, outcome| match (combined, outcome) {
            (BroadcastOutcome::Accepted, _) | (_, BroadcastOutcome::Accepted) => BroadcastOutcome::Accepted,
            (BroadcastOutcome::AlreadyKnown, _) | (_, BroadcastOutcome::AlreadyKnown) => BroadcastOutcome::AlreadyKnown,
            (BroadcastOutcome::Unknown(a), BroadcastOutcome::Unknown(b) | BroadcastOutcome::Rejected(b))
            | (BroadcastOutcome::Rejected(a), BroadcastOutcome::Unknown(b)) => {
                BroadcastOutcome::Unknown(format!("{a}; {b}"))
            }
            (BroadcastOutcome::Rejected(a), BroadcastOutcome::Rejected(b)) => {
                BroadcastOutcome::Rejected(format!("{a}; {b}"))
            }
        });
        combined.unwrap_or_else(|| BroadcastOutcome::Unknown("no endpoint has the role `broadcast`".to_owned()))
    }
}

/// The part of a chain driver that broadcasts: it hands signed transactions to nodes.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Hands a signed transaction to all endpoints with the role `broadcast`. The caller broadcasts the same bytes
    /// again when the outcome is unknown.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_outweighs_all_outcomes_and_unknown_outweighs_rejected() {
        let rejected = || BroadcastOutcome::Rejected("price: a".to_owned());
        let unknown = || BroadcastOutcome::Unknown("b: no answer in time".to_owned());
        assert_eq!(
            BroadcastOutcome::combine_preferring_accepted([
                rejected(),
                unknown(),
                BroadcastOutcome::AlreadyKnown,
                BroadcastOutcome::Accepted
            ]),
            BroadcastOutcome::Accepted
        );
        assert_eq!(
            BroadcastOutcome::combine_preferring_accepted([BroadcastOutcome::AlreadyKnown, rejected()]),
            BroadcastOutcome::AlreadyKnown
        );
        assert!(matches!(
            BroadcastOutcome::combine_preferring_accepted([rejected(), unknown()]),
            BroadcastOutcome::Unknown(_)
        ));
        assert!(matches!(
            BroadcastOutcome::combine_preferring_accepted([unknown(), rejected()]),
            BroadcastOutcome::Unknown(_)
        ));
        assert!(matches!(
            BroadcastOutcome::combine_preferring_accepted([rejected(), rejected()]),
            BroadcastOutcome::Rejected(_)
        ));
        assert!(matches!(BroadcastOutcome::combine_preferring_accepted([]), BroadcastOutcome::Unknown(_)));
    }
}
