//! What endpoints said to one question, and what one exchange says of an endpoint. Pure.

use std::time::Duration;

use crate::{Failure, Refusal, http::Fault};

/// An exchange that counts against an endpoint's health.
pub struct Lapse {
    pub fault: Fault,
    /// Without secrets.
    pub reason: String,
    pub retry_after: Option<Duration>,
}

/// What one exchange says of an endpoint's health, however many questions it answered.
#[derive(Default)]
pub struct Outcome {
    pub good: bool,
    pub lapse: Option<Lapse>,
}

impl Outcome {
    pub fn is_throttled(&self) -> bool {
        self.lapse.as_ref().is_some_and(|lapse| lapse.fault == Fault::Throttled)
    }
}

/// What the endpoints said to one question so far.
pub struct Tally<T> {
    pub doubtful: Option<T>,
    pub too_large: Option<String>,
    pub refused: Option<Refusal>,
    pub wrong: Option<String>,
    pub missing: bool,
    pub slow: bool,
    pub troubles: Vec<String>,
}

impl<T> Tally<T> {
    pub fn new() -> Tally<T> {
        Tally {
            doubtful: None,
            too_large: None,
            refused: None,
            wrong: None,
            missing: false,
            slow: false,
            troubles: Vec::new(),
        }
    }

    pub fn troubled(&mut self, reason: String, fault: Fault) {
        self.slow |= fault == Fault::Slow;
        self.troubles.push(reason);
    }

    /// Whether nobody said anything that could stand if nobody says more.
    pub fn is_mute(&self) -> bool {
        self.doubtful.is_none() && self.too_large.is_none() && self.refused.is_none()
    }

    pub fn into_result(self, method: &str) -> Result<T, Failure> {
        Err(match self {
            Tally { doubtful: Some(value), .. } => return Ok(value),
            Tally { too_large: Some(message), .. } => Failure::TooLarge(message),
            Tally { refused: Some(refusal), .. } => Failure::Refused(refusal),
            Tally { wrong: Some(reason), .. } => Failure::Wrong(reason),
            Tally { missing: true, .. } => Failure::Missing(method.to_owned()),
            Tally { slow: true, troubles, .. } => Failure::Slow(troubles.join("; ")),
            Tally { troubles, .. } => Failure::Unavailable(troubles.join("; ")),
        })
    }
}
