//! Failures of endpoints. A surface attaches the cause of a failure to the response, and the request log writes the
//! cause together with the id of the request. During an outage of the database, only the first failure is logged as an
//! error.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use axum::response::Response;
use tracing::{debug, error};

use crate::http_error::{ErrorRenderer, HttpError};
use clock::Instant;

/// Time without a failure after which the next failure of the database begins a new outage, in milliseconds.
const OUTAGE_END_AFTER_MS: i64 = 60_000;

/// The cause of a failure, which is attached to the response for the request log. The client does not see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    cause: String,
    /// True when the database does not work at the moment; false for a fault of the program or of its data.
    is_outage: bool,
}

/// Returns the response to a request that failed because of `cause`, in the error format of the surface, and attaches
/// the cause for the log. `database_error` is the error of the database that caused the failure; `None` for other
/// causes. An outage of the database gets status 503; every other failure gets status 500.
pub fn build_failure_response_with_cause(
    render: ErrorRenderer,
    cause: impl Display,
    database_error: Option<&db::Error>,
) -> Response {
    let error = match database_error {
        Some(db::Error::Unavailable(_) | db::Error::Conflict(_)) => HttpError::DatabaseUnavailable,
        Some(db::Error::CommitUnknown(_)) => HttpError::OutcomeUnknown,
        Some(
            db::Error::Constraint { .. }
            | db::Error::UnexpectedRowCount { .. }
            | db::Error::TooManyRows { .. }
            | db::Error::Value { .. }
            | db::Error::Statement(_)
            | db::Error::Suspended { .. }
            | db::Error::Panicked { .. }
            | db::Error::Unsupported(_)
            | db::Error::Migration(_),
        )
        | None => HttpError::Internal,
    };
    let mut response = render(error);
    let failure = Failure { cause: cause.to_string(), is_outage: error != HttpError::Internal };
    response.extensions_mut().insert(failure);
    response
}

/// Logs failures, with one error per outage of the database. Contains the time of the latest failure of the database;
/// `None` before the first one.
#[derive(Debug, Default)]
pub struct OutageLog(Mutex<Option<Instant>>);

impl OutageLog {
    /// Logs the failure that is attached to the response, if there is one. Of an outage, the first failure is logged as
    /// an error and all others as debug messages. `now` is the monotonic time.
    pub fn log_failure_once_per_outage(&self, now: Instant, response: &Response, request_id: &str) {
        let Some(failure) = response.extensions().get::<Failure>() else { return };
        let cause = &failure.cause;
        if !failure.is_outage {
            return error!(request.id = request_id, "a request failed: {cause}");
        }
        if self.record_failure(now) {
            error!(
                request.id = request_id,
                "the database does not work: {cause}; requests get status 503 until it works again"
            );
        } else {
            debug!(request.id = request_id, "a request failed, because the database does not work: {cause}");
        }
    }

    /// Records the time of a failure of the database. Returns true when the failure begins an outage: there was none
    /// before, or the latest one was more than 60 seconds ago.
    fn record_failure(&self, now: Instant) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = latest.replace(now);
        before.is_none_or(|before| now.since(before) > OUTAGE_END_AFTER_MS)
    }
}
