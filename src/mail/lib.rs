//! Sends e-mail. A mail is queued in the database transaction that causes it, sent later, and retried after a failure.
//!
//! A mail fails at once when no further attempt can succeed: the mailbox does not exist, or no message can be built
//! from the stored mail. After any other error, such as a wrong password, a limit or an outage, the mail is sent again
//! for five days and is then parked. A failed or parked mail opens a review.
//!
//! A mail is sent at least once: when the daemon stops after sending a mail and before storing that it was sent, the
//! mail is sent again. Recipients and texts are personal data: they appear in no log and no error text, and they are
//! erased when the mail is sent or has failed.

mod address;
mod smtp;
mod store;
mod transport;

#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::{info, warn};
use uuid::Uuid;

use clock::Instant;
use db::{self, Db, Tx};
use records::audit_log::{self, Action, Actor};
use records::reviews;

pub use address::{Address, InvalidAddress};
pub use smtp::SmtpError;
pub use store::Backlog;
pub use transport::{SendError, SetupError, Transport};

use transport::Connection;

/// The maximum number of mails that one call of [`deliver_due_mails`] sends. This number and the longest
/// `mail.smtp.timeout_ms` bound the duration of a call, which must be shorter than [`CLAIM_MS`].
const BATCH_MAX: u32 = 10;

/// The time, in milliseconds, for which a mail is reserved for the instance that is sending it. Other instances do not
/// see the mail during this time.
const CLAIM_MS: i64 = 300_000;

/// The delay after the first failed attempt. Each further failure doubles the delay, up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY_FIRST: Duration = Duration::from_secs(30);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(6 * 3_600);

/// The time for which a mail is retried after it was queued, in milliseconds: five days, as mail servers do (RFC 5321,
/// section 4.5.4.1).
const RETRY_TIME_MS: i64 = 5 * 24 * 3_600_000;

/// The state of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The mail is not sent yet. Earlier attempts may have failed.
    Queued,
    /// The mail server has accepted the mail, or the mail was written to the folder or the log.
    Sent,
    /// No attempt can succeed, for example because the mailbox does not exist. The recipient and the text are erased.
    Failed,
    /// The mail was not sent within five days. Its recipient and text are kept, so that the operator can queue it
    /// again.
    Parked,
}

db::text_enum!(State { Queued => "queued", Sent => "sent", Failed => "failed", Parked => "parked" });

/// A mail that is due. The type has no `Debug`, because the recipient and the text must not be logged.
struct QueuedMail {
    id: i64,
    /// The part of the `Message-ID` before the `@`.
    message_id: String,
    recipient: String,
    subject: String,
    body: String,
    /// The number of attempts, including the present one.
    attempts: u32,
    created_at: Instant,
}

/// Queues a plain-text mail. The mail is sent only if the transaction commits.
pub async fn queue_mail(
    tx: &mut Tx,
    now: Instant,
    recipient: &str,
    subject: &str,
    body: &str,
) -> Result<(), db::Error> {
    store::insert_mail(tx, now, &Uuid::new_v4().to_string(), recipient, subject, body).await
}

/// Returns the numbers of queued and parked mails, and the error of one of these mails.
pub async fn count_backlog_and_find_error(tx: &mut Tx) -> Result<Backlog, db::Error> {
    store::count_backlog_and_find_error(tx).await
}

/// Queues all parked mails again, resolves their reviews, records the action in the audit log, and returns the number
/// of mails.
pub async fn requeue_parked_mails(tx: &mut Tx, now: Instant, actor: &Actor) -> Result<usize, db::Error> {
    let requeued = store::requeue_parked_mails(tx, now).await?;
    if requeued.is_empty() {
        return Ok(0);
    }
    for id in &requeued {
        let (kind, subject) = (reviews::Kind::MailUndeliverable, review_subject(*id));
        reviews::resolve_review_if_open(tx, now, kind, &subject, "the mail was queued again").await?;
    }
    audit_log::record_action(tx, now, actor, Action::MailRetry, &format!("{} mails", requeued.len()), "").await?;
    Ok(requeued.len())
}

/// Sends at most `BATCH_MAX` due mails and returns the number of mails that were sent. A mail that was not sent is
/// scheduled again, parked or marked as failed. After an error that probably concerns every mail, the other mails are
/// not sent in this call and get the same error.
pub async fn deliver_due_mails(db: &Db, now: Instant, transport: &Transport) -> Result<usize, db::Error> {
    let until = now.plus_ms(CLAIM_MS);
    let due = db
        .write("claim_due_mails", move |tx| {
            Box::pin(store::claim_due_mails_and_count_attempt(tx, now, until, BATCH_MAX))
        })
        .await?;
    let mut sent = 0;
    let mut connection = Connection::default();
    // An error that probably concerns every mail. Once it has occurred, the remaining mails of the batch get this error
    // without an attempt to send them.
    let mut common_error: Option<SendError> = None;
    for mail in due {
        let id = mail.id;
        let outcome = match &common_error {
            Some(error) => Err(error.clone()),
            None => transport.send_mail(&mail, &mut connection).await,
        };
        match &outcome {
            Ok(()) => {
                info!(mail.id = id, "mail {id} was sent");
                sent += 1;
            }
            Err(error) => {
                warn!(mail.id = id, attempts = mail.attempts, "mail {id} was not sent: {error}");
                common_error = common_error.or_else(|| error.probably_concerns_every_mail().then(|| error.clone()));
            }
        }
        let step = choose_mail_step_after_attempt(&outcome, mail.attempts, mail.created_at, now);
        db.write("record_delivery_step", move |tx| {
            Box::pin(async move { store_mail_step_or_open_review(tx, now, &mail, step).await })
        })
        .await?;
    }
    transport.close_connection(connection).await;
    Ok(sent)
}

/// The step that follows an attempt to send a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NextMailStep {
    Sent,
    Retry { at: Instant, error: String },
    Park { error: String },
    Fail { error: String },
}

fn choose_mail_step_after_attempt(
    outcome: &Result<(), SendError>,
    attempts: u32,
    created_at: Instant,
    now: Instant,
) -> NextMailStep {
    let Err(failure) = outcome else { return NextMailStep::Sent };
    let error = failure.to_string();
    let last_attempt_at = created_at.plus_ms(RETRY_TIME_MS);
    if failure.is_permanent_for_mail() {
        NextMailStep::Fail { error }
    } else if now >= last_attempt_at {
        NextMailStep::Park { error }
    } else {
        let doublings = attempts.saturating_sub(1).min(16);
        let delay = RETRY_DELAY_FIRST.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX);
        let delay_ms = i64::try_from(delay.as_millis()).expect("a delay is a few hours at most");
        NextMailStep::Retry { at: now.plus_ms(delay_ms).min(last_attempt_at), error }
    }
}

/// Stores the step that follows an attempt to send a mail. Opens a review when the mail is not sent and is not tried
/// again. Changes nothing when another instance has claimed the mail in the meantime.
async fn store_mail_step_or_open_review(
    tx: &mut Tx,
    now: Instant,
    mail: &QueuedMail,
    step: NextMailStep,
) -> Result<(), db::Error> {
    let (changed, advice, error) = match step {
        NextMailStep::Retry { at, error } => {
            return store::schedule_mail_retry_if_claimed(tx, mail.id, mail.attempts, at, &error).await;
        }
        NextMailStep::Sent => {
            store::finish_and_erase_mail_if_claimed(tx, mail.id, mail.attempts, State::Sent, None).await?;
            return Ok(());
        }
        NextMailStep::Fail { error } => {
            let changed =
                store::finish_and_erase_mail_if_claimed(tx, mail.id, mail.attempts, State::Failed, Some(&error))
                    .await?;
            (changed, "reach the buyer in another way", error)
        }
        NextMailStep::Park { error } => {
            let changed = store::park_mail_if_claimed(tx, mail.id, mail.attempts, &error).await?;
            (changed, "mend the cause, then send it with `settled admin mail retry`", error)
        }
    };
    if changed {
        let detail = format!("the mail \"{}\" was not delivered: {error}; {advice}", mail.subject);
        reviews::open_or_reopen_review(tx, now, reviews::Kind::MailUndeliverable, &review_subject(mail.id), &detail)
            .await?;
    }
    Ok(())
}

/// Returns the subject of the review about the mail with this id, such as `mail/7`.
fn review_subject(id: i64) -> String {
    format!("mail/{id}")
}
