//! The error of a request that no endpoint answered.

use chain::{Height, SourceError};

use crate::{NodeError, NodeErrorKind};

/// The reason why no endpoint gave an accepted reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// No endpoint gave a usable reply; the text holds the reason for each endpoint.
    #[error("{0}")]
    Unavailable(String),
    /// No endpoint gave a usable reply, and at least one of them timed out or broke off its reply, so a smaller request
    /// may succeed.
    #[error("{0}")]
    Timeout(String),
    /// No endpoint offers the method.
    #[error("no endpoint offers {0}")]
    MethodMissing(String),
    /// The reply would be too large. The node's message may propose a size; see [`crate::AdaptiveSize`].
    #[error("the answer would be too large: {0}")]
    TooLarge(String),
    /// The node processed the request and replied with an error.
    #[error("refused: {} ({})", .0.message, .0.code)]
    NodeError(NodeError),
    /// Every reply was malformed or contradicted the hash or root that it must match.
    #[error("{0}")]
    Invalid(String),
}

impl RpcError {
    /// Converts to the error of [`chain::Source`], for a request about the block at `height`.
    pub fn into_source_error(self, height: Height) -> SourceError {
        match self {
            RpcError::Unavailable(reason) | RpcError::Timeout(reason) => SourceError::Unavailable(reason),
            RpcError::MethodMissing(method) => SourceError::Unsupported(method),
            RpcError::TooLarge(reason) => SourceError::Unavailable(format!("the reply is too large: {reason}")),
            RpcError::Invalid(reason) => SourceError::InvalidResponse(reason),
            RpcError::NodeError(error) => match error.kind {
                NodeErrorKind::NotFound => SourceError::BlockNotFound(height),
                NodeErrorKind::Pruned | NodeErrorKind::MethodMissing => SourceError::Unsupported(error.message),
                NodeErrorKind::TooLarge | NodeErrorKind::RateLimited | NodeErrorKind::Other => {
                    SourceError::Unavailable(error.message)
                }
            },
        }
    }
}
