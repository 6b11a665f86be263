//! E-mail: queued in the transaction that causes it, handed over later and tried again.
//!
//! A mail is handed over at least once: a crash between the hand-over and its note sends it a second time. Addresses and
//! texts are personal data: they enter no log and no error text, and they are erased when the mail is sent or given up.

mod store;
mod transport;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::{info, warn};

use clock::Instant;
use db::{self, Db, Tx};

pub use transport::{SendError, Transport, TransportError};

/// Mails of one round; the next round takes the rest.
const BATCH: u32 = 50;

/// Time during which nobody else takes a mail that somebody is sending.
const CLAIM_MS: i64 = 300_000;

/// Wait after the first failure; it doubles with every further one up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(6 * 3_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Queued,
    Sent,
    Failed,
}

db::text_enum!(State { Queued => "queued", Sent => "sent", Failed => "failed" });

/// A mail that is due. Shown without address and text.
struct Mail {
    id: i64,
    recipient: String,
    subject: String,
    body: String,
    /// This try included.
    attempts: u32,
}

/// Queues a mail in plain text. It is sent only if the transaction is stored.
pub async fn queue(tx: &mut Tx, now: Instant, recipient: &str, subject: &str, body: &str) -> Result<(), db::Error> {
    store::insert_mail(tx, now, recipient, subject, body).await
}

/// Hands over what is due and returns how many were. A mail that was refused is tried again later.
pub async fn deliver_due(db: &Db, now: Instant, transport: &Transport) -> Result<usize, db::Error> {
    let until = now.plus_ms(CLAIM_MS);
    let due = db.write("claim_mails", move |tx| Box::pin(store::claim_due(tx, now, until, BATCH))).await?;
    let mut sent = 0;
    for mail in due {
        let (id, attempts) = (mail.id, mail.attempts);
        let outcome = transport.send(&mail).await;
        match &outcome {
            Ok(()) => {
                info!(mail.id = id, "mail {id} was handed over");
                sent += 1;
            }
            Err(error) => warn!(mail.id = id, attempts, "mail {id} was not handed over: {error}"),
        }
        let next = next_step(&outcome, attempts, transport.attempts_max());
        db.write("note_mail", move |tx| Box::pin(note(tx, now, id, attempts, next))).await?;
    }
    Ok(sent)
}

/// What becomes of a mail after a try.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Sent,
    Again { after: Duration, error: String },
    GiveUp { error: String },
}

fn next_step(outcome: &Result<(), SendError>, attempts: u32, attempts_max: u32) -> Step {
    let Err(error) = outcome else { return Step::Sent };
    let text = error.to_string();
    if error.is_final() || attempts >= attempts_max {
        return Step::GiveUp { error: text };
    }
    let doublings = attempts.saturating_sub(1).min(16);
    Step::Again { after: WAIT_FIRST.saturating_mul(1 << doublings).min(WAIT_MAX), error: text }
}

async fn note(tx: &mut Tx, now: Instant, id: i64, attempts: u32, step: Step) -> Result<(), db::Error> {
    match step {
        Step::Sent => store::set_done(tx, id, attempts, State::Sent, None).await,
        Step::GiveUp { error } => store::set_done(tx, id, attempts, State::Failed, Some(error)).await,
        Step::Again { after, error } => {
            let wait = i64::try_from(after.as_millis()).expect("waits are hours at most");
            store::set_again(tx, id, attempts, now.plus_ms(wait), error).await
        }
    }
}
