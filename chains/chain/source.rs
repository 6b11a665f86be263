//! The part of a chain driver that reads: a [`Source`] reads blocks and balances of a chain.

use async_trait::async_trait;

use crate::{
    Address, Amount, AssetKind, Block, BlockHash, BlockRef, Header, Height, Tip, Transfer, UnconfirmedTransfer,
    WatchSet,
};

/// The identity of a chain, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain id or the hash of the genesis block, as text. The daemon stores it at the first start and compares it
    /// at every later start.
    pub id: String,
}

/// The way in which a source shows internal transfers, which are native coins that a contract sends inside a
/// transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InternalTransfers {
    /// The transfers of every block include the internal transfers.
    Included,
    /// Blocks do not show internal transfers. So the daemon must compare the balances of the addresses of open invoices
    /// in the native coin.
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
    /// The node's branch does not have the block at this height: the branch is shorter, or a reorganisation removed the
    /// block. The caller must read the tip again.
    #[error("block {0} is not on the node's chain")]
    BlockNotFound(Height),
    /// The reply of a node contradicts itself, or it does not match the hashes and roots of its block. Such a reply is
    /// logged and never used.
    #[error("an endpoint returned an invalid answer: {0}")]
    InvalidResponse(String),
    /// No endpoint can answer this kind of request: the nodes do not offer the method, or they have deleted the old
    /// data.
    #[error("not supported by the node: {0}")]
    Unsupported(String),
}

/// The result of asking a second endpoint for a block that the first endpoint returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossCheckResult {
    /// The second endpoint has the same block.
    Confirmed,
    /// The second endpoint has another block at the same height.
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
    /// The transfer is corroborated: the second endpoint shows it in the same block, or the operator's own node
    /// returned it first, or the block proves by its work that it belongs to the chain.
    Shown {
        /// Host and port of the endpoint that shows the transfer.
        endpoint: String,
    },
    /// The newest block of the second endpoint (on TRON its newest solidified block) is at or above the height of the
    /// block, and the second endpoint has another block at that height or does not have the transfer.
    Contradicted {
        /// Host and port of the second endpoint.
        endpoint: String,
        /// A sentence that names both endpoints and says what each of them shows.
        detail: String,
    },
    /// No endpoint of another provider can answer now: there is none, or it is behind, has deleted the data, got too
    /// many requests, or does not reply.
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
    /// A description of a usable endpoint, or the reason why the endpoint cannot be used.
    pub outcome: Result<String, String>,
}

/// The part of a chain driver that reads. It verifies everything that it returns against the hashes and roots in block
/// headers, as far as the chain allows.
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

    /// Reads the header at a height of the node's current branch. Returns `None` when the height is above the node's
    /// newest block.
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

    /// Returns the number of independent providers whose answers can be compared. Endpoints of one provider count once.
    /// The number is at least 2 when an endpoint is the operator's own node, because its answers need no second source.
    /// The number is 1 on chains whose blocks prove by their work that they belong to the chain.
    fn independent_provider_count(&self) -> usize {
        1
    }

    /// Asks an endpoint of another provider whether it shows these transfers of the block. That provider is another one
    /// than the provider that returned the block first. Sends a bounded number of requests for all transfers together.
    /// Returns one verdict for each transfer, in the order of `transfers`. The sender ([`Transfer::from`]) is not
    /// compared.
    ///
    /// For a [`crate::TxPart::BalanceIncrease`], the caller sets `amount` to the balance that the address must have
    /// directly after the block: the amount of this transfer plus the deposits of the address that are already booked.
    ///
    /// The default implementation is for chains that need no second source: it returns [`Corroboration::Shown`] for
    /// every transfer and sends no request.
    async fn confirm(&self, _block: &BlockRef, transfers: &[Transfer]) -> Vec<Corroboration> {
        let shown = || Corroboration::Shown { endpoint: "the block's own proof".to_owned() };
        transfers.iter().map(|_| shown()).collect()
    }

    /// Asks a second endpoint whether it has the block `at`. On a chain whose blocks cost nothing to invent, the daemon
    /// asks before it rewinds below confirmed deposits.
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
    /// transactions. If a transfer was in an earlier list, but is neither in this list nor in a block, it was replaced
    /// or dropped. When the node has too many unconfirmed transactions to read all, only the addresses in
    /// `expecting_payment` are looked up.
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

    /// Returns the way in which the source shows internal transfers now. The way changes when an endpoint stops
    /// offering traces, which list internal transfers.
    fn internal_transfers(&self) -> InternalTransfers;

    /// Returns the number of requests that were sent to endpoints since the daemon started.
    fn requests(&self) -> u64;

    /// Checks every endpoint separately and returns one report for each.
    async fn check_endpoints(&self) -> Vec<EndpointReport>;
}
