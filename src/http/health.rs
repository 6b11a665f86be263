//! `/healthz`: the process answers. `/readyz`: it can do its work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use tracing::warn;

use crate::http::app::App;
use crate::http::reply;

/// What keeps the daemon from its work, by part. Whoever knows writes it; everybody may read it, so that it holds no secret.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

impl Health {
    /// `part` cannot work until it is [cleared](Health::clear); `why` in one sentence.
    pub fn fail(&self, part: impl Into<String>, why: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part.into(), why.into());
    }

    pub fn clear(&self, part: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    pub fn problems(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    problems: BTreeMap<String, String>,
}

pub fn routes(app: Arc<App>) -> Router {
    let ready = get(async |State(app): State<Arc<App>>| ready(&app).await);
    Router::new().route("/healthz", get(alive)).route("/readyz", ready).with_state(app)
}

async fn alive() -> Response {
    reply::json(StatusCode::OK, &Answer { status: "ok", problems: BTreeMap::new() })
}

async fn ready(app: &App) -> Response {
    let mut problems = app.health.problems();
    match app.db.pending_migrations().await {
        Ok(pending) if pending.is_empty() => {}
        Ok(_) => {
            problems.insert("database".into(), "migrations are pending".into());
        }
        Err(e) => {
            warn!("the database does not answer: {e}");
            problems.insert("database".into(), "it does not answer".into());
        }
    }
    match problems.is_empty() {
        true => reply::json(StatusCode::OK, &Answer { status: "ready", problems }),
        false => reply::json(StatusCode::SERVICE_UNAVAILABLE, &Answer { status: "not ready", problems }),
    }
}
