//! Sends e-mail. A mail is queued in the database transaction that causes it, sent later, and retried after a failure.
//!
//! A mail is sent at least once: after a crash between sending and recording it, it is sent again. Recipients and texts
//! are personal data: they appear in no log and no error text, and are erased when the mail is sent or given up.

mod store;
mod transport;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::{info, warn};

use clock::Instant;
use db::{self, Db, Tx};

pub use transport::{SendError, SetupError, Transport};

/// Maximum mails that one call of [`deliver_due_mails`] sends.
const BATCH_MAX: u32 = 50;

/// The time, in milliseconds, for which a mail is reserved for the instance that is sending it. Other instances do not
/// see the mail during this time.
const CLAIM_MS: i64 = 300_000;

/// Delay after the first failure. It doubles with every further failure, up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY_FIRST: Duration = Duration::from_secs(30);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(6 * 3_600);

/// The state of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The mail is not sent yet. Earlier attempts may have failed.
    Queued,
    /// The mail server has accepted the mail, or the mail was written to the folder or the log.
    Sent,
    /// The mail is not sent any more: the server refused it permanently, or the last attempt failed.
    Failed,
}

db::text_enum!(State { Queued => "queued", Sent => "sent", Failed => "failed" });

/// A mail that is due. It has no `Debug`, because recipient and text must not be logged.
struct QueuedMail {
    id: i64,
    recipient: String,
    subject: String,
    body: String,
    /// The number of attempts, including the present one.
    attempts: u32,
}

/// Queues a plain-text mail. The mail is sent only if the transaction commits.
pub async fn queue_mail(
    tx: &mut Tx,
    now: Instant,
    recipient: &str,
    subject: &str,
    body: &str,
) -> Result<(), db::Error> {
    store::insert_mail(tx, now, recipient, subject, body).await
}

/// Sends the mails that are due and returns the number that were sent. When a mail could not be sent, another attempt
/// is made later.
pub async fn deliver_due_mails(db: &Db, now: Instant, transport: &Transport) -> Result<usize, db::Error> {
    let until = now.plus_ms(CLAIM_MS);
    let due =
        db.write("claim_due_mails", move |tx| Box::pin(store::claim_due_mails(tx, now, until, BATCH_MAX))).await?;
    let mut sent = 0;
    for mail in due {
        let (id, attempts) = (mail.id, mail.attempts);
        let outcome = transport.send_mail(&mail).await;
        match &outcome {
            Ok(()) => {
                info!(mail.id = id, "mail {id} was sent");
                sent += 1;
            }
            Err(error) => warn!(mail.id = id, attempts, "mail {id} was not sent: {error}"),
        }
        let step = decide_delivery_step(&outcome, attempts, transport.attempts_max());
        db.write("record_delivery_step", move |tx| Box::pin(record_delivery_step(tx, now, id, attempts, step))).await?;
    }
    Ok(sent)
}

/// What happens to a mail after an attempt to send it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeliveryStep {
    Sent,
    Retry { after: Duration, error: String },
    GiveUp { error: String },
}

fn decide_delivery_step(outcome: &Result<(), SendError>, attempts: u32, attempts_max: u32) -> DeliveryStep {
    let Err(error) = outcome else { return DeliveryStep::Sent };
    let text = error.to_string();
    if error.is_permanent() || attempts >= attempts_max {
        return DeliveryStep::GiveUp { error: text };
    }
    let doublings = attempts.saturating_sub(1).min(16);
    DeliveryStep::Retry { after: RETRY_DELAY_FIRST.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX), error: text }
}

async fn record_delivery_step(
    tx: &mut Tx,
    now: Instant,
    id: i64,
    attempts: u32,
    step: DeliveryStep,
) -> Result<(), db::Error> {
    match step {
        DeliveryStep::Sent => store::finish_mail(tx, id, attempts, State::Sent, None).await,
        DeliveryStep::GiveUp { error } => store::finish_mail(tx, id, attempts, State::Failed, Some(error)).await,
        DeliveryStep::Retry { after, error } => {
            let delay_ms = i64::try_from(after.as_millis()).expect("a delay is a few hours at most");
            store::schedule_mail_retry(tx, id, attempts, now.plus_ms(delay_ms), error).await
        }
    }
}
