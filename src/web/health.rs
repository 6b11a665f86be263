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

/// The problems of the daemon: for each part that does not work, the reason. `/readyz` is public, so it shows only the
/// names of the parts. The reasons may contain texts from nodes, so only the log and `settled status` show them.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// Records the problem of a part of the daemon, such as the follower of a chain, until the problem is
    /// [cleared](Health::clear_problem). `reason` is one sentence.
    pub fn set_problem(&self, part: impl Into<String>, reason: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.into(), reason.into());
    }

    /// Removes the problem of this part.
    pub fn clear_problem(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// Returns the problems: the reason by the name of the part.
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

/// Returns the routes `/healthz` and `/readyz`. They have no rate limit, so their endpoints only read values in memory.
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
