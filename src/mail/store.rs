use super::{QueuedMail, State};
use clock::Instant;
use db::{self, Row, Tx, execute, row, rows};

/// The numbers of mails that are not sent yet, and one of their errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The number of mails that wait for their first or next attempt.
    pub queued: i64,
    /// The number of mails in `queued` of which at least one attempt failed.
    pub failing: i64,
    /// The number of parked mails: they were not sent within five days.
    pub parked: i64,
    /// The error of one of the failing mails or, if no mail is failing, of one of the parked mails; `None` when there
    /// is neither.
    pub last_error: Option<String>,
}

/// Inserts a queued mail that is due at once.
pub async fn insert_mail(
    tx: &mut Tx,
    now: Instant,
    message_id: &str,
    recipient: &str,
    subject: &str,
    body: &str,
) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "insert into mails
             (message_id, recipient, subject, body, state, attempts, next_attempt_at, last_error, created_at)
         values ($1, $2, $3, $4, 'queued', 0, $5, null, $5)",
        message_id,
        recipient,
        subject,
        body,
        now
    )?;
    db::expect_changed(changed, 1)
}

/// Reserves at most `count_max` due mails for this instance until the time `until`, and returns them sorted by id. Adds
/// 1 to the attempts of each mail, because an attempt is counted before it is made.
pub async fn claim_due_mails_and_count_attempt(
    tx: &mut Tx,
    now: Instant,
    until: Instant,
    count_max: u32,
) -> Result<Vec<QueuedMail>, db::Error> {
    let claimed = rows!(
        tx,
        "update mails set attempts = attempts + 1, next_attempt_at = $2
         where id in (select id from mails where state = 'queued' and next_attempt_at <= $1
             order by next_attempt_at, id limit $3)
           and state = 'queued' and next_attempt_at <= $1
         returning id, message_id, recipient, subject, body, attempts, created_at",
        now,
        until,
        count_max
    )?;
    let mut mails = claimed.iter().map(parse_queued_mail).collect::<Result<Vec<QueuedMail>, db::Error>>()?;
    mails.sort_by_key(|mail| mail.id);
    Ok(mails)
}

/// Sets the final state of a mail (sent or failed), erases its recipient and text, and returns true. Returns false, and
/// changes nothing, when the reservation of the mail had ended and another instance has reserved or finished the mail.
pub async fn finish_and_erase_mail_if_claimed(
    tx: &mut Tx,
    id: i64,
    attempts: u32,
    state: State,
    error: Option<&str>,
) -> Result<bool, db::Error> {
    let changed = execute!(
        tx,
        "update mails set state = $3, last_error = $4, recipient = '', subject = '', body = ''
         where id = $1 and attempts = $2 and state = 'queued'",
        id,
        attempts,
        state,
        error
    )?;
    Ok(changed > 0)
}

/// Parks a mail, keeps its recipient and text, and returns true. Returns false, and changes nothing, when another
/// instance has reserved the mail in the meantime.
pub async fn park_mail_if_claimed(tx: &mut Tx, id: i64, attempts: u32, error: &str) -> Result<bool, db::Error> {
    let changed = execute!(
        tx,
        "update mails set state = 'parked', last_error = $3 where id = $1 and attempts = $2 and state = 'queued'",
        id,
        attempts,
        error
    )?;
    Ok(changed > 0)
}

/// Queues all parked mails as if they were new, with no attempts and another five days of retries, and returns their
/// ids.
pub async fn requeue_parked_mails(tx: &mut Tx, now: Instant) -> Result<Vec<i64>, db::Error> {
    let requeued = rows!(
        tx,
        "update mails set state = 'queued', attempts = 0, next_attempt_at = $1, created_at = $1
         where state = 'parked' returning id",
        now
    )?;
    requeued.iter().map(|row| row.get("id")).collect()
}

/// Stores the error of an attempt to send a mail and the time of the next attempt. Changes nothing when another
/// instance has reserved the mail in the meantime.
pub async fn schedule_mail_retry_if_claimed(
    tx: &mut Tx,
    id: i64,
    attempts: u32,
    next_at: Instant,
    error: &str,
) -> Result<(), db::Error> {
    execute!(
        tx,
        "update mails set next_attempt_at = $3, last_error = $4 where id = $1 and attempts = $2 and state = 'queued'",
        id,
        attempts,
        next_at,
        error
    )?;
    Ok(())
}

/// Counts the queued, failing and parked mails, and finds the error of one of them.
pub async fn count_backlog_and_find_error(tx: &mut Tx) -> Result<Backlog, db::Error> {
    let queued = row!(
        tx,
        "select count(*) as total, count(last_error) as failing, max(last_error) as last_error
         from mails where state = 'queued'"
    )?;
    let parked = row!(tx, "select count(*) as total, max(last_error) as last_error from mails where state = 'parked'")?;
    let (Some(queued), Some(parked)) = (queued, parked) else {
        return Err(db::Error::Statement("a count returned no row".to_owned()));
    };
    let last_error: Option<String> = queued.get("last_error")?;
    Ok(Backlog {
        queued: queued.get("total")?,
        failing: queued.get("failing")?,
        parked: parked.get("total")?,
        last_error: last_error.map_or_else(|| parked.get("last_error"), |error| Ok(Some(error)))?,
    })
}

fn parse_queued_mail(row: &Row) -> Result<QueuedMail, db::Error> {
    Ok(QueuedMail {
        id: row.get("id")?,
        message_id: row.get("message_id")?,
        recipient: row.get("recipient")?,
        subject: row.get("subject")?,
        body: row.get("body")?,
        attempts: row.get("attempts")?,
        created_at: row.get("created_at")?,
    })
}
