//! The traits of a driver: a [`Source`] reads a chain, a [`Sender`] broadcasts to it.

use async_trait::async_trait;

use crate::{
    Address, Amount, AssetKind, Block, BlockHash, BlockRef, Header, Height, Tip, UnconfirmedTransfer, WatchSet,
};

/// The identity of a chain, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Chain id or genesis hash as text. At start it is compared with the one that was stored at the first start.
    pub id: String,
}

/// The way in which a source shows internal transfers: native coins that a contract sends inside a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalTransfers {
    /// The transfers of every block include them.
    Included,
    /// Blocks do not show them, so the balances of addresses with open native invoices must be compared.
    ByBalance,
    /// The family has no internal transfers.
    None,
}

/// The reason why a source has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No endpoint gave a usable answer; the same request may succeed later.
    #[error("no endpoint answered: {0}")]
    Unavailable(String),
    /// The node's branch has no such block (any more): it is shorter, or it was reorganised. The caller requests the tip again.
    #[error("block {0} is not on the node's chain")]
    BlockNotFound(Height),
    /// An answer contradicts itself or the commitments of its block. It is logged and never used.
    #[error("an endpoint returned an invalid answer: {0}")]
    InvalidResponse(String),
    /// No endpoint can answer such a request at all: the method is missing, or the history is pruned.
    #[error("not supported by the node: {0}")]
    Unsupported(String),
}

/// The answer of a second endpoint about a block that a first endpoint returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossCheckResult {
    /// The second endpoint has the same block.
    Confirmed,
    /// The second endpoint has another block at that height.
    Conflicting {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// Hash of its block.
        hash: BlockHash,
    },
    /// The second endpoint has no block at that height yet.
    Behind {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// Its newest block.
        head: Header,
    },
    /// No second endpoint answered; the text says why.
    NoAnswer(String),
}

/// The state of one endpoint, for `settled check` and the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// Host and port. The path and the credentials are left out, because they may contain API keys.
    pub endpoint: String,
    /// A description of the endpoint, or the reason why it cannot be used.
    pub outcome: Result<String, String>,
}

/// The reading half of a driver. It verifies everything that it returns as far as the chain's commitments allow.
///
/// # Errors
/// The methods return [`SourceError::Unavailable`] when no endpoint gives a usable answer,
/// [`SourceError::InvalidResponse`] when an answer contradicts itself, [`SourceError::BlockNotFound`] when the node has no
/// such block, and [`SourceError::Unsupported`] when no endpoint can answer the request.
#[async_trait]
pub trait Source: Send + Sync {
    /// The identity of the chain that the endpoints serve.
    ///
    /// # Errors
    /// See [`Source`].
    async fn identity(&self) -> Result<Identity, SourceError>;

    /// The number of decimals of a token contract, read from the chain.
    ///
    /// # Errors
    /// See [`Source`]; [`SourceError::Unsupported`] or [`SourceError::InvalidResponse`] when `contract` is no token.
    async fn decimals(&self, contract: &str) -> Result<u8, SourceError>;

    /// The newest block and the mark of final blocks.
    ///
    /// # Errors
    /// See [`Source`].
    async fn tip(&self) -> Result<Tip, SourceError>;

    /// The header at a height on the node's current branch, or `None` above its head.
    ///
    /// # Errors
    /// See [`Source`].
    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError>;

    /// The number of endpoints whose answers about a block can be compared. It is 1 where there are no others, and where a
    /// block itself proves that it is on the chain, by its work or its signatures.
    fn independent_endpoints(&self) -> usize {
        1
    }

    /// Asks a second endpoint whether it has the block too. The follower does this before it confirms deposits on a chain
    /// where a block costs nothing to invent.
    async fn cross_check(&self, _at: &BlockRef) -> CrossCheckResult {
        CrossCheckResult::NoAnswer("there is no other endpoint".to_owned())
    }

    /// The blocks `from..=to` of the node's current branch, ascending, each the parent of the next, with every transfer to a
    /// watched address. The source may return fewer blocks, but at least one.
    ///
    /// # Errors
    /// See [`Source`]; [`SourceError::BlockNotFound`] when the node has no block `from`.
    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError>;

    /// The balances of one asset directly after the block `at`, in the order of `addresses`.
    ///
    /// # Errors
    /// See [`Source`]; [`SourceError::BlockNotFound`] when the block is not on the node's branch,
    /// [`SourceError::Unsupported`] when the node has forgotten the balances at that block.
    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError>;

    /// All transfers to watched addresses that are in no block yet. A transfer that was in an earlier list, is in this one no
    /// more and is in no block was replaced or dropped. `None` where the node does not show unconfirmed transactions. Where
    /// it shows too many to read them all, only the addresses in `expecting_payment` are looked up.
    ///
    /// # Errors
    /// See [`Source`].
    async fn unconfirmed(
        &self,
        _watched: &WatchSet,
        _expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        Ok(None)
    }

    /// The way in which internal transfers are shown at present; it may change when an endpoint stops to trace.
    fn internal_transfers(&self) -> InternalTransfers;

    /// The number of requests sent to endpoints since start.
    fn requests(&self) -> u64;

    /// Checks every endpoint separately.
    async fn check_endpoints(&self) -> Vec<EndpointReport>;
}

/// The result of handing a signed transaction to nodes. Any answer that is not understood is `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroadcastOutcome {
    /// The node took the transaction.
    Accepted,
    /// The node already has exactly this transaction.
    AlreadyKnown,
    /// The node refused the transaction for this reason; other nodes may still have it.
    Refused(String),
    /// The transaction may be on its way or not; the text says why that is unknown.
    Unknown(String),
}

impl BroadcastOutcome {
    /// Combines the outcomes of all endpoints. One that accepted the transaction decides; otherwise an unknown outcome
    /// outweighs all refusals, because the transaction may be on its way. No outcomes at all are `Unknown`.
    pub fn combine_outcomes(outcomes: impl IntoIterator<Item = BroadcastOutcome>) -> BroadcastOutcome {
        let combined = outcomes.into_iter().reduce(|combined, outcome| match (combined, outcome) {
            (BroadcastOutcome::Accepted, _) | (_, BroadcastOutcome::Accepted) => BroadcastOutcome::Accepted,
            (BroadcastOutcome::AlreadyKnown, _) | (_, BroadcastOutcome::AlreadyKnown) => BroadcastOutcome::AlreadyKnown,
            (BroadcastOutcome::Unknown(a), BroadcastOutcome::Unknown(b) | BroadcastOutcome::Refused(b))
            | (BroadcastOutcome::Refused(a), BroadcastOutcome::Unknown(b)) => {
                BroadcastOutcome::Unknown(format!("{a}; {b}"))
            }
            (BroadcastOutcome::Refused(a), BroadcastOutcome::Refused(b)) => {
                BroadcastOutcome::Refused(format!("{a}; {b}"))
            }
        });
        combined.unwrap_or_else(|| BroadcastOutcome::Unknown("no endpoint has the role `broadcast`".to_owned()))
    }
}

/// The broadcasting half of a driver.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Hands a signed transaction to the endpoints. The caller broadcasts the same bytes again when the outcome is unknown.
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_outweighs_all_outcomes_and_unknown_outweighs_refused() {
        let refused = || BroadcastOutcome::Refused("price: a".to_owned());
        let unknown = || BroadcastOutcome::Unknown("b: no answer in time".to_owned());
        assert_eq!(
            BroadcastOutcome::combine_outcomes([
                refused(),
                unknown(),
                BroadcastOutcome::AlreadyKnown,
                BroadcastOutcome::Accepted
            ]),
            BroadcastOutcome::Accepted
        );
        assert_eq!(
            BroadcastOutcome::combine_outcomes([BroadcastOutcome::AlreadyKnown, refused()]),
            BroadcastOutcome::AlreadyKnown
        );
        assert!(matches!(BroadcastOutcome::combine_outcomes([refused(), unknown()]), BroadcastOutcome::Unknown(_)));
        assert!(matches!(BroadcastOutcome::combine_outcomes([unknown(), refused()]), BroadcastOutcome::Unknown(_)));
        assert!(matches!(BroadcastOutcome::combine_outcomes([refused(), refused()]), BroadcastOutcome::Refused(_)));
        assert!(matches!(BroadcastOutcome::combine_outcomes([]), BroadcastOutcome::Unknown(_)));
    }
}
