//! What a driver offers: a source to read from, a sender to broadcast with.

use async_trait::async_trait;

use crate::{
    Address, Amount, AssetKind, Block, BlockHash, BlockRef, Header, Height, Tip, UnconfirmedTransfer, WatchSet,
};

/// What cannot change while the chain is the same chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Chain id or genesis hash as text, compared with what was stored at first start.
    pub id: String,
}

/// How a source sees native coins that a contract sends inside a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalTransfers {
    /// Every block's transfers include them.
    Included,
    /// They are not visible in blocks; balances of addresses with open native invoices must be compared.
    ByBalance,
    /// The family has no such thing.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nobody answered usefully; the same question may succeed later.
    #[error("no endpoint answered: {0}")]
    Unavailable(String),
    /// The block asked for is not there (any more): a shorter or another branch. Ask for the tip again.
    #[error("block {0} is not on the node's chain")]
    BlockNotFound(Height),
    /// An answer contradicts itself or what it is committed to. Never used, always loud.
    #[error("an endpoint's answer is wrong: {0}")]
    InvalidResponse(String),
    /// The node cannot do this at all (method missing, history pruned).
    #[error("not offered by the node: {0}")]
    Unsupported(String),
}

/// What another endpoint says of a block that one endpoint showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossCheckResult {
    /// It has the same block.
    Confirmed,
    /// It has another block at that height.
    Conflicting { endpoint: String, hash: BlockHash },
    /// It answers, and has no block at that height yet.
    Behind { endpoint: String, head: Header },
    /// Nobody else answered.
    NoAnswer(String),
}

/// What one endpoint says of itself, for `settled check` and the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// Host and port only; paths and credentials are left out because keys stand in them.
    pub endpoint: String,
    pub outcome: Result<String, String>,
}

/// The reading half of a driver. Everything it returns was verified as far as the chain's commitments allow.
#[async_trait]
pub trait Source: Send + Sync {
    async fn identity(&self) -> Result<Identity, SourceError>;

    /// Decimals of a token contract, read from the chain.
    async fn decimals(&self, contract: &str) -> Result<u8, SourceError>;

    async fn tip(&self) -> Result<Tip, SourceError>;

    /// The header at a height on the node's present branch, `None` above its head.
    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError>;

    /// How many endpoints can be heard about a block. One where there are no others, or where a block proves that the chain
    /// is on it: by its work, or by being solidified.
    fn independent_endpoints(&self) -> usize {
        1
    }

    /// Asks another endpoint than the one that showed a block whether it has it too. Worth a request before money is believed
    /// because of a block that anybody could have made.
    async fn cross_check(&self, _at: &BlockRef) -> CrossCheckResult {
        CrossCheckResult::NoAnswer("there is no other endpoint".to_owned())
    }

    /// Blocks `from..=to` of the node's present branch, ascending, each the parent of the next, with every transfer to a
    /// watched address. May stop early for its own bounds but returns at least one block or an error.
    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError>;

    /// Balances of one asset after exactly that block, in the order asked.
    async fn balances(
        &self,
        at: &BlockRef,
        asset: &AssetKind,
        addresses: &[Address],
    ) -> Result<Vec<Amount>, SourceError>;

    /// Every transfer to a watched address that is on its way at present. What was there before, is not there any more and
    /// is in no block either was replaced or dropped. `None` where the node shows no such thing. Where it would show too
    /// much, only the addresses that money is `expecting_payment` on are looked at.
    async fn unconfirmed(
        &self,
        _watched: &WatchSet,
        _expecting_payment: &[Address],
    ) -> Result<Option<Vec<UnconfirmedTransfer>>, SourceError> {
        Ok(None)
    }

    fn internal_transfers(&self) -> InternalTransfers;

    /// Requests sent to endpoints since start.
    fn requests(&self) -> u64;

    /// Asks every endpoint on its own.
    async fn check(&self) -> Vec<EndpointReport>;
}

/// What is known after handing signed bytes to nodes. `Unknown` is the default for anything not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroadcastOutcome {
    Accepted,
    /// The node has exactly these bytes already.
    AlreadyKnown,
    /// Refused for a reason that this node gave; other nodes may still have the bytes.
    Refused(String),
    Unknown(String),
}

impl BroadcastOutcome {
    /// What is known after all endpoints were heard. One that takes the bytes outweighs all that do not; one that says
    /// nothing understandable outweighs all refusals: the bytes may be under way.
    pub fn combine(said: impl IntoIterator<Item = BroadcastOutcome>) -> BroadcastOutcome {
        let weighed = said.into_iter().reduce(|whole, outcome| match (whole, outcome) {
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
        weighed.unwrap_or_else(|| BroadcastOutcome::Unknown("no endpoint may broadcast".to_owned()))
    }
}

/// The broadcasting half of a driver.
#[async_trait]
pub trait Sender: Send + Sync {
    async fn broadcast(&self, raw: &[u8]) -> BroadcastOutcome;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_took_it_outweighs_all_and_silence_outweighs_refusals() {
        let refused = || BroadcastOutcome::Refused("price: a".to_owned());
        let unknown = || BroadcastOutcome::Unknown("b: no answer in time".to_owned());
        assert_eq!(
            BroadcastOutcome::combine([
                refused(),
                unknown(),
                BroadcastOutcome::AlreadyKnown,
                BroadcastOutcome::Accepted
            ]),
            BroadcastOutcome::Accepted
        );
        assert_eq!(
            BroadcastOutcome::combine([BroadcastOutcome::AlreadyKnown, refused()]),
            BroadcastOutcome::AlreadyKnown
        );
        assert!(matches!(BroadcastOutcome::combine([refused(), unknown()]), BroadcastOutcome::Unknown(_)));
        assert!(matches!(BroadcastOutcome::combine([unknown(), refused()]), BroadcastOutcome::Unknown(_)));
        assert!(matches!(BroadcastOutcome::combine([refused(), refused()]), BroadcastOutcome::Refused(_)));
        assert!(matches!(BroadcastOutcome::combine([]), BroadcastOutcome::Unknown(_)));
    }
}
