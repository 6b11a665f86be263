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
    NotThere(Height),
    /// An answer contradicts itself or what it is committed to. Never used, always loud.
    #[error("an endpoint's answer is wrong: {0}")]
    Wrong(String),
    /// The node cannot do this at all (method missing, history pruned).
    #[error("not offered by the node: {0}")]
    Unsupported(String),
}

/// What another endpoint says of a block that one endpoint showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossCheckResult {
    /// It has the same block.
    Agrees,
    /// It has another block at that height.
    Differs { endpoint: String, hash: BlockHash },
    /// It answers, and has no block at that height yet.
    Lacks { endpoint: String, head: Header },
    /// Nobody else answered.
    Silent(String),
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
        CrossCheckResult::Silent("there is no other endpoint".to_owned())
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
    /// much, only the addresses that money is `awaited` on are looked at.
    async fn unconfirmed(
        &self,
        _watched: &WatchSet,
        _awaited: &[Address],
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
pub enum Outcome {
    Accepted,
    /// The node has exactly these bytes already.
    Known,
    /// Refused for a reason that this node gave; other nodes may still have the bytes.
    Refused(String),
    Unknown(String),
}

impl Outcome {
    /// What is known after all endpoints were heard. One that takes the bytes outweighs all that do not; one that says
    /// nothing understandable outweighs all refusals: the bytes may be under way.
    pub fn of_all(said: impl IntoIterator<Item = Outcome>) -> Outcome {
        let weighed = said.into_iter().reduce(|whole, outcome| match (whole, outcome) {
            (Outcome::Accepted, _) | (_, Outcome::Accepted) => Outcome::Accepted,
            (Outcome::Known, _) | (_, Outcome::Known) => Outcome::Known,
            (Outcome::Unknown(a), Outcome::Unknown(b) | Outcome::Refused(b))
            | (Outcome::Refused(a), Outcome::Unknown(b)) => Outcome::Unknown(format!("{a}; {b}")),
            (Outcome::Refused(a), Outcome::Refused(b)) => Outcome::Refused(format!("{a}; {b}")),
        });
        weighed.unwrap_or_else(|| Outcome::Unknown("no endpoint may broadcast".to_owned()))
    }
}

/// The broadcasting half of a driver.
#[async_trait]
pub trait Sender: Send + Sync {
    async fn broadcast(&self, raw: &[u8]) -> Outcome;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_took_it_outweighs_all_and_silence_outweighs_refusals() {
        let refused = || Outcome::Refused("price: a".to_owned());
        let unknown = || Outcome::Unknown("b: no answer in time".to_owned());
        assert_eq!(Outcome::of_all([refused(), unknown(), Outcome::Known, Outcome::Accepted]), Outcome::Accepted);
        assert_eq!(Outcome::of_all([Outcome::Known, refused()]), Outcome::Known);
        assert!(matches!(Outcome::of_all([refused(), unknown()]), Outcome::Unknown(_)));
        assert!(matches!(Outcome::of_all([unknown(), refused()]), Outcome::Unknown(_)));
        assert!(matches!(Outcome::of_all([refused(), refused()]), Outcome::Refused(_)));
        assert!(matches!(Outcome::of_all([]), Outcome::Unknown(_)));
    }
}
