//! What endpoints said to one question, and what one exchange says of an endpoint. Pure.

use std::time::Duration;

use crate::{Refusal, RpcError, http::ErrorClass};

/// An exchange that counts against an endpoint's health.
pub struct HealthEvent {
    pub fault: ErrorClass,
    /// Without secrets.
    pub reason: String,
    pub retry_after: Option<Duration>,
}

/// What one exchange says of an endpoint's health, however many questions it answered.
#[derive(Default)]
pub struct Outcome {
    pub good: bool,
    pub event: Option<HealthEvent>,
}

impl Outcome {
    pub fn is_throttled(&self) -> bool {
        self.event.as_ref().is_some_and(|event| event.fault == ErrorClass::Throttled)
    }
}

/// What the endpoints said to one question so far.
pub struct Attempts<T> {
    pub doubtful: Option<T>,
    pub too_large: Option<String>,
    pub refused: Option<Refusal>,
    pub wrong: Option<String>,
    pub missing: bool,
    pub slow: bool,
    pub troubles: Vec<String>,
}

impl<T> Attempts<T> {
    pub fn new() -> Attempts<T> {
        Attempts {
            doubtful: None,
            too_large: None,
            refused: None,
            wrong: None,
            missing: false,
            slow: false,
            troubles: Vec::new(),
        }
    }

    pub fn troubled(&mut self, reason: String, fault: ErrorClass) {
        self.slow |= fault == ErrorClass::Slow;
        self.troubles.push(reason);
    }

    /// Whether nobody said anything that could stand if nobody says more.
    pub fn is_empty(&self) -> bool {
        self.doubtful.is_none() && self.too_large.is_none() && self.refused.is_none()
    }

    pub fn into_result(self, method: &str) -> Result<T, RpcError> {
        Err(match self {
            Attempts { doubtful: Some(value), .. } => return Ok(value),
            Attempts { too_large: Some(message), .. } => RpcError::TooLarge(message),
            Attempts { refused: Some(refusal), .. } => RpcError::Refused(refusal),
            Attempts { wrong: Some(reason), .. } => RpcError::Wrong(reason),
            Attempts { missing: true, .. } => RpcError::Missing(method.to_owned()),
            Attempts { slow: true, troubles, .. } => RpcError::Slow(troubles.join("; ")),
            Attempts { troubles, .. } => RpcError::Unavailable(troubles.join("; ")),
        })
    }
}
