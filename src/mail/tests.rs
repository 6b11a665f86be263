use std::{fmt::Debug, sync::Arc};

use super::*;
use config::{self, Config, MailTransport, SmtpSecurity};
use db::row;

const NOW: Instant = Instant(1_770_811_200_000);
const BODY: &str = "Your order CO1 was delivered:\nuser1----pass1\n第一行\n";

fn mail_settings(transport: MailTransport) -> config::Mail {
    config::Mail { transport, ..Config::default().mail }
}

async fn commit_queued_mail(db: &Db, recipient: &'static str) {
    db.write("queue", move |tx| Box::pin(async move { queue_mail(tx, NOW, recipient, "Your order", BODY).await }))
        .await
        .unwrap();
}

#[derive(Debug, PartialEq)]
struct StoredMail {
    state: State,
    attempts: u32,
    next_at: Instant,
    error: Option<String>,
    recipient: String,
    body: String,
}

async fn count(db: &Db) -> Backlog {
    db.read("count", |tx| Box::pin(async move { count_backlog_and_find_error(tx).await })).await.unwrap()
}

async fn read_latest_mail(db: &Db) -> StoredMail {
    let read = async |tx: &mut Tx| -> Result<StoredMail, db::Error> {
        let row = row!(tx, "select * from mails order by id desc limit 1")?.expect("a mail was queued");
        Ok(StoredMail {
            state: row.get("state")?,
            attempts: row.get("attempts")?,
            next_at: row.get("next_attempt_at")?,
            error: row.get("last_error")?,
            recipient: row.get("recipient")?,
            body: row.get("body")?,
        })
    };
    db.read("read_mail", move |tx| Box::pin(async move { read(tx).await })).await.unwrap()
}

fn find_unused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn smtp_settings(port: u16) -> config::Mail {
    let mut settings = mail_settings(MailTransport::Smtp);
    settings.smtp.host = "127.0.0.1".to_owned();
    settings.smtp.port = port;
    settings.smtp.security = SmtpSecurity::None;
    settings
}

fn build_transport(settings: &config::Mail) -> Arc<Transport> {
    Arc::new(Transport::new(settings, std::path::Path::new("/nowhere")).unwrap())
}

db::both! {
    async fn a_mail_is_written_once_and_its_personal_data_erased(db: Db) {
        let folder = tempfile::tempdir().unwrap();
        let transport = Transport::new(&mail_settings(MailTransport::File), folder.path()).unwrap();
        commit_queued_mail(&db, "buyer@example.com").await;
        assert_eq!(deliver_due_mails(&db, NOW, &transport).await.unwrap(), 1);
        assert_eq!(deliver_due_mails(&db, NOW.plus_seconds(86_400), &transport).await.unwrap(), 0);

        let files: Vec<_> = std::fs::read_dir(folder.path().join("mail")).unwrap().collect();
        assert_eq!(files.len(), 1);
        let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("To: buyer@example.com") && text.contains("Subject: Your order"), "{text}");
        let stored = read_latest_mail(&db).await;
        assert_eq!((stored.state, stored.attempts, stored.error), (State::Sent, 1, None));
        assert_eq!((stored.recipient.as_str(), stored.body.as_str()), ("", ""), "personal data is erased");
    }

    async fn a_mail_of_a_failed_transaction_is_not_sent(db: Db) {
        let refused = db.write("queue", move |tx| Box::pin(async move {
            queue_mail(tx, NOW, "buyer@example.com", "Your order", BODY).await?;
            Err::<(), db::Error>(db::Error::Unavailable("refused".to_owned()))
        }));
        assert!(refused.await.is_err());
        assert_eq!(deliver_due_mails(&db, NOW, &build_transport(&mail_settings(MailTransport::Log))).await.unwrap(), 0);
    }

    async fn an_unreachable_server_is_tried_for_five_days(db: Db) {
        let transport = build_transport(&smtp_settings(find_unused_port()));
        commit_queued_mail(&db, "buyer@example.com").await;
        let mut now = NOW;
        for (attempts, wait_seconds) in [(1, 30), (2, 60)] {
            assert_eq!(deliver_due_mails(&db, now, &transport).await.unwrap(), 0);
            let stored = read_latest_mail(&db).await;
            let next_at = now.plus_seconds(wait_seconds);
            assert_eq!((stored.state, stored.attempts, stored.next_at), (State::Queued, attempts, next_at));
            assert_eq!(stored.error.as_deref(), Some("the connection failed: Connection refused (os error 111)"));
            now = next_at.plus_ms(-1);
            deliver_due_mails(&db, now, &transport).await.unwrap();
            assert_eq!(read_latest_mail(&db).await.attempts, attempts, "it is not due yet");
            now = next_at;
        }
        let mut stored = read_latest_mail(&db).await;
        while stored.state == State::Queued {
            now = stored.next_at;
            assert_eq!(deliver_due_mails(&db, now, &transport).await.unwrap(), 0);
            stored = read_latest_mail(&db).await;
        }
        assert_eq!((stored.state, now), (State::Parked, NOW.plus_ms(RETRY_TIME_MS)));
        assert_eq!((stored.recipient.as_str(), stored.body.as_str()), ("buyer@example.com", BODY), "it can be sent again");
        assert!((20..40).contains(&stored.attempts), "{}", stored.attempts);
        let backlog = count(&db).await;
        assert_eq!((backlog.queued, backlog.parked, backlog.last_error), (0, 1, stored.error));

        let actor = Actor::CommandLine { uid: 0 };
        let requeued = db.write("retry", move |tx| Box::pin(async move { requeue_parked_mails(tx, now, &actor).await }));
        assert_eq!(requeued.await.unwrap(), 1);
        assert_eq!(deliver_due_mails(&db, now, &build_transport(&mail_settings(MailTransport::Log))).await.unwrap(), 1);
        assert_eq!(count(&db).await, Backlog { queued: 0, failing: 0, parked: 0, last_error: None });
    }

    async fn a_failure_of_the_server_is_met_once_for_a_batch(db: Db) {
        let (port, received) = start_smtp_server("250 fine\r\n").await;
        for _ in 0..3 {
            commit_queued_mail(&db, "buyer@example.com").await;
        }
        let mut settings = smtp_settings(port);
        settings.smtp.timeout = Duration::from_millis(300);
        // The server ends after the first mail.
        assert_eq!(deliver_due_mails(&db, NOW, &build_transport(&settings)).await.unwrap(), 1);
        assert_eq!(received.await.unwrap().matches("RCPT TO").count(), 1);
        let backlog = count(&db).await;
        assert_eq!((backlog.queued, backlog.failing), (2, 2), "{backlog:?}");
    }

    async fn a_mail_to_an_invalid_address_is_given_up_at_once(db: Db) {
        commit_queued_mail(&db, "nobody at example").await;
        assert_eq!(deliver_due_mails(&db, NOW, &build_transport(&mail_settings(MailTransport::Log))).await.unwrap(), 0);
        let stored = read_latest_mail(&db).await;
        assert_eq!((stored.state, stored.attempts), (State::Failed, 1));
        assert_eq!(stored.error.as_deref(), Some("the recipient is not an address"));
    }

    async fn a_claimed_mail_is_not_claimed_again_until_the_claim_ends(db: Db) {
        commit_queued_mail(&db, "buyer@example.com").await;
        let until = NOW.plus_ms(CLAIM_MS);
        let claim = async |now: Instant| {
            let claimed = db.write("claim", move |tx| Box::pin(store::claim_due_mails_and_count_attempt(tx, now, until, BATCH_MAX))).await;
            claimed.unwrap().len()
        };
        assert_eq!((claim(NOW).await, claim(NOW).await), (1, 0));
        assert_eq!(claim(until).await, 1, "the claim has ended, as after a crash");
    }
}

/// An SMTP server for one client, which answers `RCPT` with `recipient_reply` and returns the lines that it received.
async fn start_smtp_server(recipient_reply: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (received_sender, received) = tokio::sync::oneshot::channel();
    tasks::Tasks::default().spawn("smtp", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let (mut received, mut is_data) = (String::new(), false);
        writer.write_all(b"220 test server\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.as_str() {
                "." => "250 accepted\r\n",
                _ if is_data => "",
                line if line.starts_with("RCPT") => recipient_reply,
                "DATA" => "354 go on\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 fine\r\n",
            };
            is_data = line == "DATA" || (is_data && line != ".");
            received.push_str(&line);
            received.push('\n');
            if writer.write_all(answer.as_bytes()).await.is_err()
                || line == "."
                || recipient_reply.starts_with('5') && line == "QUIT"
            {
                break;
            }
        }
        received_sender.send(received).unwrap();
    });
    #[expect(clippy::disallowed_methods, reason = "the test waits for its server")]
    let received = tokio::spawn(async move { received.await.unwrap() });
    (port, received)
}

db::both! {
    async fn a_mail_is_sent_over_smtp(db: Db) {
        let (port, received) = start_smtp_server("250 fine\r\n").await;
        commit_queued_mail(&db, "buyer@example.com").await;
        assert_eq!(deliver_due_mails(&db, NOW, &build_transport(&smtp_settings(port))).await.unwrap(), 1);
        let received = received.await.unwrap();
        assert!(received.contains("MAIL FROM:<settled@localhost>") && received.contains("RCPT TO:<buyer@example.com>"), "{received}");
        assert!(received.contains("Subject: Your order"), "{received}");
    }

    async fn a_mail_to_a_mailbox_that_does_not_exist_is_given_up(db: Db) {
        let (port, _heard) = start_smtp_server("550 5.1.1 no such buyer@example.com\r\n").await;
        commit_queued_mail(&db, "buyer@example.com").await;
        assert_eq!(deliver_due_mails(&db, NOW, &build_transport(&smtp_settings(port))).await.unwrap(), 0);
        let stored = read_latest_mail(&db).await;
        assert_eq!((stored.state, stored.attempts), (State::Failed, 1));
        assert_eq!(stored.error.as_deref(), Some("the mail server refused the recipient (550 5.1.1)"), "the server's text is left out");
    }
}

#[test]
fn the_retry_delay_doubles_up_to_six_hours() {
    let failed = Err(SendError::NotWritten);
    let delay = |attempts| match choose_mail_step_after_attempt(&failed, attempts, NOW, NOW) {
        NextMailStep::Retry { at, .. } => at.since(NOW) / 1_000,
        step @ (NextMailStep::Sent | NextMailStep::Park { .. } | NextMailStep::Fail { .. }) => panic!("{step:?}"),
    };
    assert_eq!([1, 2, 3, 10, 11, 99].map(delay), [30, 60, 120, 15_360, 21_600, 21_600]);
}
