//! The reading half of a driver: a [`Source`] reads blocks and balances of a chain.

use async_trait::async_trait;

use crate::{
    Address, Amount, AssetKind, Block, BlockHash, BlockRef, Header, Height, Tip, Transfer, UnconfirmedTransfer,
    WatchSet,
};

/// The identity of a chain, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain id or the genesis hash, as text. The daemon stores it at the first start and compares it at every
    /// later one.
    pub id: String,
}

/// The way in which a source shows internal transfers, which are native coins that a contract sends inside a
/// transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalTransfers {
    /// The transfers of every block include the internal transfers.
    Included,
    /// Blocks do not show internal transfers, so the balances of addresses with open native invoices must be compared.
    ByBalance,
    /// Chains of this family have no internal transfers.
    None,
}

/// The reason why a source cannot answer a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No endpoint gave a usable answer. The same request may succeed later.
    #[error("no endpoint answered: {0}")]
    Unavailable(String),
    /// The node's branch does not have the block at this height, or no longer has it: the branch is shorter, or it was
    /// reorganised. The caller reads the tip again.
    #[error("block {0} is not on the node's chain")]
    BlockNotFound(Height),
    /// An answer contradicts itself or the hashes and roots of its block. Such an answer is logged and never used.
    #[error("an endpoint returned an invalid answer: {0}")]
    InvalidResponse(String),
    /// No endpoint can answer such a request: the method is missing, or the history is pruned.
    #[error("not supported by the node: {0}")]
    Unsupported(String),
}

/// The answer of a second endpoint to the question whether it has the block that the first endpoint returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossCheckResult {
    /// The second endpoint has the same block.
    Confirmed,
    /// The second endpoint has another block at that height.
    Conflicting {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// The hash of the block that the second endpoint has at that height.
        hash: BlockHash,
    },
    /// The second endpoint has no block at that height yet.
    Behind {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// The header of the second endpoint's newest block.
        head: Header,
    },
    /// No second endpoint answered; the text contains the reason.
    NoAnswer(String),
}

/// The answer of an endpoint of another provider to the question whether it shows a transfer that the first endpoint
/// returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corroboration {
    /// The second endpoint shows the same transfer in the same block, or the operator's own node showed it first, or the
    /// block itself proves that it belongs to the chain.
    Shown {
        /// Host and port of the endpoint that shows the transfer.
        endpoint: String,
    },
    /// The head of the second endpoint has passed the block (on TRON its solidified head), and the second endpoint has
    /// another block at that height or does not have the transfer.
    Contradicted {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// A sentence that names both endpoints and says what each of them shows.
        detail: String,
    },
    /// No endpoint of another provider can answer now: there is none, or it is behind, pruned, throttled or silent.
    CannotSay {
        /// The reason, with host and port of the endpoints that were asked.
        reason: String,
    },
}

/// The result of the check of one endpoint, for `settled check` and the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// Host and port of the endpoint. The path and the credentials are left out, because they may contain API keys.
    pub endpoint: String,
    /// A description of the endpoint, or the reason why it cannot be used.
    pub outcome: Result<String, String>,
}

/// The reading half of a driver. It verifies everything that it returns against the hashes and roots in block headers,
/// as far as the chain allows.
///
/// # Errors
/// The methods return [`SourceError::Unavailable`] when no endpoint gives a usable answer,
/// [`SourceError::InvalidResponse`] when an answer contradicts itself, [`SourceError::BlockNotFound`] when the node has
/// no such block, and [`SourceError::Unsupported`] when no endpoint can answer the request.
#[async_trait]
pub trait Source: Send + Sync {
    /// Returns the identity of the chain that the endpoints serve.
    ///
    /// # Errors
    /// See [`Source`].
    async fn identity(&self) -> Result<Identity, SourceError>;

    /// Reads the number of decimals of a token contract from the chain.
    ///
    /// # Errors
    /// See [`Source`]; [`SourceError::Unsupported`] or [`SourceError::InvalidResponse`] when `contract` is no token.
    async fn decimals(&self, contract: &str) -> Result<u8, SourceError>;

    /// Reads the node's newest block and the highest block that the node reports as final.
    ///
    /// # Errors
    /// See [`Source`].
    async fn tip(&self) -> Result<Tip, SourceError>;

    /// Reads the header at a height of the node's current branch. Returns `None` above the node's head.
    ///
    /// # Errors
    /// See [`Source`].
    async fn header(&self, height: Height) -> Result<Option<Header>, SourceError>;

    /// Returns true on chains where it costs nothing to invent a block that passes all checks of the driver (EVM and
    /// TRON). There an endpoint of a second provider must show a deposit before it is confirmed; see
    /// [`Source::confirm`]. Returns false on chains whose blocks prove by their work that they belong to the chain.
    fn needs_second_source(&self) -> bool {
        false
    }

    /// Returns the number of independent providers whose answers can be compared. Two endpoints of one provider count
    /// once. The number is at least 2 when an endpoint is the operator's own node, because what that node shows needs no
    /// second source. The number is 1 on chains whose blocks prove that they belong to the chain.
    fn independent_endpoints(&self) -> usize {
        1
    }

    /// Asks an endpoint of another provider than the one that returned the block whether it shows these transfers of the
    /// block. Sends a bounded number of requests for all transfers together, and returns one answer for each transfer, in
    /// the order of `transfers`. Of a transfer, [`Transfer::from`] is not compared.
    ///
    /// The `amount` of a [`crate::TxPart::BalanceIncrease`] is here the balance that the address must have directly after
    /// the block, so the caller adds the other deposits of the address that are already booked.
    ///
    /// Chains that need no second source answer [`Corroboration::Shown`] without a request.
    async fn confirm(&self, _block: &BlockRef, transfers: &[Transfer]) -> Vec<Corroboration> {
        let shown = || Corroboration::Shown { endpoint: "the block's own proof".to_owned() };
        transfers.iter().map(|_| shown()).collect()
    }

    /// Asks a second endpoint whether it has the same block. The daemon asks before it rewinds below confirmed deposits
    /// on a chain whose blocks cost nothing to invent.
    async fn cross_check(&self, _at: &BlockRef) -> CrossCheckResult {
        CrossCheckResult::NoAnswer("there is no other endpoint".to_owned())
    }

    /// Reads the blocks `from..=to` of the node's current branch, with every transfer to a watched address. The blocks
    /// ascend, and each is the parent of the next. The source may return fewer blocks than requested, but at least one.
    ///
    /// # Errors
    /// See [`Source`]; [`SourceError::BlockNotFound`] when the node has no block `from`.
    async fn blocks(&self, from: Height, to: Height, watched: &WatchSet) -> Result<Vec<Block>, SourceError>;

    /// Reads the balances of one asset directly after the block `at`, in the order of `addresses`.
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

    /// Lists all unconfirmed transfers to watched addresses, or returns `None` when the node does not show unconfirmed
    /// transactions. A transfer of an earlier list that is neither in this list nor in a block was replaced or dropped.
    /// When the node has too many unconfirmed transactions to read all, only the addresses in `expecting_payment` are
    /// looked up.
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

    /// Returns the way in which the source shows internal transfers now. It changes when an endpoint stops offering
    /// traces.
    fn internal_transfers(&self) -> InternalTransfers;

    /// Returns the number of requests sent to endpoints since the start.
    fn requests(&self) -> u64;

    /// Checks every endpoint on its own and returns one report for each.
    async fn check_endpoints(&self) -> Vec<EndpointReport>;
}
