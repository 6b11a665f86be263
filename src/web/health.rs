//! The health endpoints: `/healthz` reports that the process runs, `/readyz` reports the problems of the daemon.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use crate::response;

/// The problems of the daemon, by the name of the part with the problem. `/readyz` is public, so it shows only these
/// names. The reasons may contain texts from nodes, so only the log and `settled status` show them.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// Records that `part` does not work until its problem is [cleared](Health::clear_problem). `reason` is one
    /// sentence.
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

/// Returns the routes of both health endpoints. They have no rate limit, so they only read values in memory.
pub fn build_health_routes(health: Health) -> Router {
    Router::new().route("/healthz", get(get_healthz)).route("/readyz", get(get_readyz)).with_state(health)
}

async fn get_healthz() -> Response {
    response::json_response(StatusCode::OK, &HealthResponse { status: "ok", problems: Vec::new() })
}

async fn get_readyz(State(health): State<Health>) -> Response {
    let problems: Vec<String> = health.problems().into_keys().collect();
    match problems.is_empty() {
        true => response::json_response(StatusCode::OK, &HealthResponse { status: "ready", problems }),
        false => {
            response::json_response(StatusCode::SERVICE_UNAVAILABLE, &HealthResponse { status: "not ready", problems })
        }
    }
}
