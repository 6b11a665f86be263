//! `/healthz` reports that the process runs, `/readyz` whether it can do its work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use crate::reply;

/// The problems that keep the daemon from its work, by the part that has them. `/readyz` shows only the names of the
/// parts to everybody. The reasons may quote nodes, so only the log and `settled status` show them.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// Records that `part` cannot work for this `reason`, one sentence, until its problem is
    /// [cleared](Health::clear_problem).
    pub fn set_problem(&self, part: impl Into<String>, reason: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.into(), reason.into());
    }

    /// Records that `part` works again.
    pub fn clear_problem(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Returns the reason of each part that cannot work.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Serialize)]
struct HealthResponse {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// The routes of both endpoints. They respond from memory, because no rate limit protects them.
pub fn routes(health: Health) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(health)
}

async fn healthz() -> Response {
    reply::json(StatusCode::OK, &HealthResponse { status: "ok", problems: Vec::new() })
}

async fn readyz(State(health): State<Health>) -> Response {
    let problems: Vec<String> = health.problems().into_keys().collect();
    match problems.is_empty() {
        true => reply::json(StatusCode::OK, &HealthResponse { status: "ready", problems }),
        false => reply::json(StatusCode::SERVICE_UNAVAILABLE, &HealthResponse { status: "not ready", problems }),
    }
}
