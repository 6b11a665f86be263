//! All SQL of the audit log.

use crate::audit_log::{Action, Actor};
use clock::Instant;
use db::{self, Tx, execute};

/// Inserts an entry into the audit log.
pub async fn insert_audit_entry(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    action: Action,
    subject: &str,
    detail: &str,
) -> Result<(), db::Error> {
    let inserted = execute!(
        tx,
        "insert into audit_log (actor, action, subject, detail, recorded_at) values ($1, $2, $3, $4, $5)",
        actor.to_string(),
        action,
        subject,
        detail,
        now
    )?;
    db::expect_changed(inserted, 1)
}
