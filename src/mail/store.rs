use super::{Mail, State};
use clock::Instant;
use db::{self, Row, Tx, execute, rows};

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

/// Takes what is due and counts the try before it happens: a mail that crashes us is given up like any other.
pub async fn claim_due(tx: &mut Tx, now: Instant, until: Instant, most: u32) -> Result<Vec<Mail>, db::Error> {
    let claimed = rows!(
        tx,
        "update mails set attempts = attempts + 1, next_attempt_at = $2
         where id in (select id from mails where state = 'queued' and next_attempt_at <= $1 order by next_attempt_at, id limit $3)
           and state = 'queued' and next_attempt_at <= $1
         returning id, recipient, subject, body, attempts",
        now,
        until,
        most
    )?;
    let mut mails = claimed.iter().map(read).collect::<Result<Vec<Mail>, db::Error>>()?;
    mails.sort_by_key(|mail| mail.id);
    Ok(mails)
}

/// Ends a mail; who got what is forgotten with it. Another instance may have ended it after our claim ran out.
pub async fn set_done(
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

pub async fn set_again(tx: &mut Tx, id: i64, attempts: u32, next_at: Instant, error: String) -> Result<(), db::Error> {
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

fn read(row: &Row) -> Result<Mail, db::Error> {
    Ok(Mail {
        id: row.get("id")?,
        recipient: row.get("recipient")?,
        subject: row.get("subject")?,
        body: row.get("body")?,
        attempts: row.get("attempts")?,
    })
}
