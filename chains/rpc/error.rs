//! The error of a request for which no endpoint gave an accepted reply.

use chain::{Height, SourceError};

use crate::{NodeError, NodeErrorKind};

/// The reason why no endpoint gave an accepted reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// No endpoint gave a usable reply; the text contains the reason for each endpoint.
    #[error("{0}")]
    Unavailable(String),
    /// No endpoint gave a usable reply, and at least one of them timed out or sent only a part of its reply, so a
    /// smaller request may succeed.
    #[error("{0}")]
    Timeout(String),
    /// No endpoint offers the method.
    #[error("no endpoint offers {0}")]
    MethodMissing(String),
    /// The reply is too large. The text may contain the size that the node proposes; see [`crate::AdaptiveSize`].
    #[error("the answer would be too large: {0}")]
    TooLarge(String),
    /// The node processed the request and replied with an error.
    #[error("the node replied with an error: {} ({})", .0.message, .0.code)]
    NodeError(NodeError),
    /// Every reply was malformed, or contradicted the hash or root that the reply must match.
    #[error("{0}")]
    Invalid(String),
}

impl RpcError {
    /// Returns the error for a reply that is larger than the limit of `bytes_max` bytes.
    pub(crate) fn reply_too_large(bytes_max: usize) -> RpcError {
        RpcError::TooLarge(format!("more than {bytes_max} bytes"))
    }

    /// Converts this error to the error of [`chain::Source`], for a request about the block at `height`.
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
