use super::{QueuedMail, State};
use clock::Instant;
use db::{self, Row, Tx, execute, rows};

/// Inserts a queued mail that is due at once.
pub async fn insert_mail(
    tx: &mut Tx,
    now: Instant,
    recipient: &str,
    subject: &str,
    body: &str,
) -> Result<(), db::Error> {
    let changed = execute!(
        tx,
        "insert into mails (recipient, subject, body, state, attempts, next_attempt_at, last_error, created_at)
         values ($1, $2, $3, 'queued', 0, $4, null, $4)",
        recipient,
        subject,
        body,
        now
    )?;
    db::expect_changed(changed, 1)
}

/// Reserves at most `count_max` due mails for this instance until `until`. Counts the attempt before it is made, so
/// that a mail that crashes the daemon is also given up after some attempts.
pub async fn claim_due_mails(
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
         returning id, recipient, subject, body, attempts",
        now,
        until,
        count_max
    )?;
    let mut mails = claimed.iter().map(parse_mail).collect::<Result<Vec<QueuedMail>, db::Error>>()?;
    mails.sort_by_key(|mail| mail.id);
    Ok(mails)
}

/// Sets the final state of a mail, and erases its recipient and text. Changes no row when another instance finished the
/// mail after the reservation had ended.
pub async fn finish_mail(
    tx: &mut Tx,
    id: i64,
    attempts: u32,
    state: State,
    error: Option<String>,
) -> Result<(), db::Error> {
    execute!(
        tx,
        "update mails set state = $3, last_error = $4, recipient = '', subject = '', body = ''
         where id = $1 and attempts = $2 and state = 'queued'",
        id,
        attempts,
        state,
        error
    )?;
    Ok(())
}

/// Sets the time of the next attempt to send a mail. Changes no row when another instance has reserved the mail in the
/// meantime.
pub async fn schedule_mail_retry(
    tx: &mut Tx,
    id: i64,
    attempts: u32,
    next_at: Instant,
    error: String,
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

fn parse_mail(row: &Row) -> Result<QueuedMail, db::Error> {
    Ok(QueuedMail {
        id: row.get("id")?,
        recipient: row.get("recipient")?,
        subject: row.get("subject")?,
        body: row.get("body")?,
        attempts: row.get("attempts")?,
    })
}
