//! Why a question has no answer.

use chain::{Height, SourceError};

use crate::{Refusal, RefusalKind};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Nobody answered usefully; says why, endpoint by endpoint.
    #[error("{0}")]
    Unavailable(String),
    /// Nobody answered usefully, and at least one endpoint began and did not finish in time: a smaller question may be
    /// answered. [`AdaptiveSize::shrinks`] knows.
    #[error("{0}")]
    Slow(String),
    /// Nobody who answered knows the method.
    #[error("no endpoint offers {0}")]
    Missing(String),
    /// The question covers too much; the node's words may suggest a size.
    #[error("the answer would be too large: {0}")]
    TooLarge(String),
    #[error("refused: {} ({})", .0.message, .0.code)]
    Refused(Refusal),
    /// Everybody who answered contradicted what the answer is committed to.
    #[error("{0}")]
    Wrong(String),
}

impl RpcError {
    /// What it means for a question about the block at `height`.
    pub fn at(self, height: Height) -> SourceError {
        match self {
            RpcError::Unavailable(reason) | RpcError::Slow(reason) => SourceError::Unavailable(reason),
            RpcError::Missing(method) => SourceError::Unsupported(method),
            RpcError::TooLarge(reason) => SourceError::Unavailable(format!("an answer is too large: {reason}")),
            RpcError::Wrong(reason) => SourceError::InvalidResponse(reason),
            RpcError::Refused(refusal) => match refusal.kind {
                RefusalKind::NotThere => SourceError::BlockNotFound(height),
                RefusalKind::Pruned | RefusalKind::MethodMissing => SourceError::Unsupported(refusal.message),
                RefusalKind::TooLarge | RefusalKind::Quota | RefusalKind::Other => {
                    SourceError::Unavailable(refusal.message)
                }
            },
        }
    }
}
