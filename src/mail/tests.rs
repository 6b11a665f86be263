use std::{fmt::Debug, sync::Arc};

use super::*;
use config::{self, Config, MailTransport, SmtpSecurity};
use db::row;

const NOW: Instant = Instant(1_770_811_200_000);
const BODY: &str = "Your order CO1 was delivered:\nuser1----pass1\n第一行\n";

fn settings(transport: MailTransport) -> config::Mail {
    config::Mail { transport, ..Config::default().mail }
}

async fn queued(db: &Db, recipient: &'static str) {
    db.write("queue", move |tx| Box::pin(async move { queue(tx, NOW, recipient, "Your order", BODY).await }))
        .await
        .unwrap();
}

#[derive(Debug, PartialEq)]
struct Stored {
    state: State,
    attempts: u32,
    next_at: Instant,
    error: Option<String>,
    recipient: String,
    body: String,
}

async fn stored(db: &Db) -> Stored {
    let read = async |tx: &mut Tx| -> Result<Stored, db::Error> {
        let row = row!(tx, "select * from mails order by id desc limit 1")?.expect("a mail was queued");
        Ok(Stored {
            state: row.get("state")?,
            attempts: row.get("attempts")?,
            next_at: row.get("next_attempt_at")?,
            error: row.get("last_error")?,
            recipient: row.get("recipient")?,
            body: row.get("body")?,
        })
    };
    db.read("stored", move |tx| Box::pin(async move { read(tx).await })).await.unwrap()
}

fn port_of_nobody() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn smtp(port: u16) -> config::Mail {
    let mut settings = settings(MailTransport::Smtp);
    settings.smtp.host = "127.0.0.1".to_owned();
    settings.smtp.port = port;
    settings.smtp.security = SmtpSecurity::None;
    settings
}

fn transport(settings: &config::Mail) -> Arc<Transport> {
    Arc::new(Transport::new(settings, std::path::Path::new("/nowhere")).unwrap())
}

db::both! {
    async fn a_mail_becomes_a_file_once_and_is_forgotten(db: Db) {
        let folder = tempfile::tempdir().unwrap();
        let transport = Transport::new(&settings(MailTransport::File), folder.path()).unwrap();
        queued(&db, "buyer@example.com").await;
        assert_eq!(deliver_due(&db, NOW, &transport).await.unwrap(), 1);
        assert_eq!(deliver_due(&db, NOW.plus_seconds(86_400), &transport).await.unwrap(), 0);

        let files: Vec<_> = std::fs::read_dir(folder.path().join("mail")).unwrap().collect();
        assert_eq!(files.len(), 1);
        let text = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("To: buyer@example.com") && text.contains("Subject: Your order"), "{text}");
        let stored = stored(&db).await;
        assert_eq!((stored.state, stored.attempts, stored.error), (State::Sent, 1, None));
        assert_eq!((stored.recipient.as_str(), stored.body.as_str()), ("", ""), "personal data is erased");
    }

    async fn a_mail_of_a_transaction_that_failed_is_not_sent(db: Db) {
        let refused = db.write("queue", move |tx| Box::pin(async move {
            queue(tx, NOW, "buyer@example.com", "Your order", BODY).await?;
            Err::<(), db::Error>(db::Error::Unavailable("refused".to_owned()))
        }));
        assert!(refused.await.is_err());
        assert_eq!(deliver_due(&db, NOW, &transport(&settings(MailTransport::Log))).await.unwrap(), 0);
    }

    async fn a_server_that_is_away_is_tried_again_later_and_then_given_up(db: Db) {
        let transport = transport(&config::Mail { attempts_max: 3, ..smtp(port_of_nobody()) });
        queued(&db, "buyer@example.com").await;
        let mut now = NOW;
        for (attempts, wait_seconds) in [(1, 30), (2, 60)] {
            assert_eq!(deliver_due(&db, now, &transport).await.unwrap(), 0);
            let stored = stored(&db).await;
            let next_at = now.plus_seconds(wait_seconds);
            assert_eq!((stored.state, stored.attempts, stored.next_at), (State::Queued, attempts, next_at));
            assert_eq!(stored.error.as_deref(), Some("the server did not take it"));
            now = next_at.plus_ms(-1);
            deliver_due(&db, now, &transport).await.unwrap();
            assert_eq!(self::stored(&db).await.attempts, attempts, "it is not due yet");
            now = next_at;
        }
        assert_eq!(deliver_due(&db, now, &transport).await.unwrap(), 0);
        let stored = stored(&db).await;
        assert_eq!((stored.state, stored.attempts, stored.recipient.as_str()), (State::Failed, 3, ""));
    }

    async fn what_is_no_address_is_given_up_at_once(db: Db) {
        queued(&db, "nobody at example").await;
        assert_eq!(deliver_due(&db, NOW, &transport(&settings(MailTransport::Log))).await.unwrap(), 0);
        let stored = stored(&db).await;
        assert_eq!((stored.state, stored.attempts), (State::Failed, 1));
        assert_eq!(stored.error.as_deref(), Some("the recipient is not an address"));
    }

    async fn a_mail_that_somebody_is_sending_is_not_taken_twice(db: Db) {
        queued(&db, "buyer@example.com").await;
        let until = NOW.plus_ms(CLAIM_MS);
        let claim = async |now: Instant| {
            let claimed = db.write("claim", move |tx| Box::pin(store::claim_due(tx, now, until, BATCH))).await;
            claimed.unwrap().len()
        };
        assert_eq!((claim(NOW).await, claim(NOW).await), (1, 0));
        assert_eq!(claim(until).await, 1, "whoever took it has crashed");
    }
}

/// Speaks just enough SMTP to take, or refuse, what one client hands over.
async fn server(recipients: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard_by, heard) = tokio::sync::oneshot::channel();
    tasks::Tasks::default().spawn("smtp", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let (mut heard, mut is_data) = (String::new(), false);
        writer.write_all(b"220 stand-in\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.as_str() {
                "." => "250 taken\r\n",
                _ if is_data => "",
                line if line.starts_with("RCPT") => recipients,
                "DATA" => "354 go on\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 fine\r\n",
            };
            is_data = line == "DATA" || (is_data && line != ".");
            heard.push_str(&line);
            heard.push('\n');
            if writer.write_all(answer.as_bytes()).await.is_err()
                || line == "."
                || recipients.starts_with('5') && line == "QUIT"
            {
                break;
            }
        }
        heard_by.send(heard).unwrap();
    });
    #[expect(clippy::disallowed_methods, reason = "a test waits for its stand-in")]
    let heard = tokio::spawn(async move { heard.await.unwrap() });
    (port, heard)
}

db::both! {
    async fn a_server_takes_a_mail(db: Db) {
        let (port, heard) = server("250 fine\r\n").await;
        queued(&db, "buyer@example.com").await;
        assert_eq!(deliver_due(&db, NOW, &transport(&smtp(port))).await.unwrap(), 1);
        let heard = heard.await.unwrap();
        assert!(heard.contains("MAIL FROM:<settled@localhost>") && heard.contains("RCPT TO:<buyer@example.com>"), "{heard}");
        assert!(heard.contains("Subject: Your order"), "{heard}");
    }

    async fn what_a_server_refuses_for_good_is_given_up(db: Db) {
        let (port, _heard) = server("550 no such buyer@example.com\r\n").await;
        queued(&db, "buyer@example.com").await;
        assert_eq!(deliver_due(&db, NOW, &transport(&smtp(port))).await.unwrap(), 0);
        let stored = stored(&db).await;
        assert_eq!((stored.state, stored.attempts), (State::Failed, 1));
        assert_eq!(stored.error.as_deref(), Some("the server refused it for good (code 550)"), "without its words");
    }
}

#[test]
fn waits_double_up_to_hours() {
    let failed = Err(SendError::TimedOut);
    let wait = |attempts| match next_step(&failed, attempts, 100) {
        Step::Again { after, .. } => after.as_secs(),
        step @ (Step::Sent | Step::GiveUp { .. }) => panic!("{step:?}"),
    };
    assert_eq!([1, 2, 3, 10, 11, 99].map(wait), [30, 60, 120, 15_360, 21_600, 21_600]);
}
