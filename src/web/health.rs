//! `/healthz`: the process answers. `/readyz`: it can do its work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use crate::reply;

/// What keeps the daemon from its work, by part. Whoever knows writes it. Everybody may read which parts these are; why
/// names nodes and their words, and is for the log and for `settled status`.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// `part` cannot work until it is [cleared](Health::clear_problem); `why` in one sentence.
    pub fn set_problem(&self, part: impl Into<String>, why: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.into(), why.into());
    }

    pub fn clear_problem(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    pub fn problems(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Both answer from memory: they are not limited, and whoever asks without end must cost nothing.
pub fn routes(health: Health) -> Router {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).with_state(health)
}

async fn alive() -> Response {
    reply::json(StatusCode::OK, &Answer { status: "ok", problems: Vec::new() })
}

async fn ready(State(health): State<Health>) -> Response {
    let problems: Vec<String> = health.problems().into_keys().collect();
    match problems.is_empty() {
        true => reply::json(StatusCode::OK, &Answer { status: "ready", problems }),
        false => reply::json(StatusCode::SERVICE_UNAVAILABLE, &Answer { status: "not ready", problems }),
    }
}
