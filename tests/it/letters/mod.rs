//! Letters to buyers: which failures end a letter, and what the operator sees of the others.

mod server;

use config::{Config, MailTransport, SmtpSecurity};
use db::Bind;
use serde_json::json;

use crate::commands::program::{settled, write_configuration};
use crate::world::World;
use server::SmtpServer;

const DAY: i64 = 86_400;

fn use_server(config: &mut Config, server: &SmtpServer) {
    config.mail.transport = MailTransport::Smtp;
    config.mail.smtp.host = "127.0.0.1".to_owned();
    config.mail.smtp.port = server.port;
    config.mail.smtp.security = SmtpSecurity::None;
}

/// Starts a world that sends its letters through the server.
async fn world_with(backend: db::Backend, server: &SmtpServer) -> World {
    World::with(backend, |config| use_server(config, server)).await
}

/// Sells one item to this address, which queues one letter.
async fn sell_to(world: &World, email: &str) {
    let (_, token) = world.user_with_balance(10_000, 0).await;
    let order = json!({
        "productId": world.product.id, "quantity": 1, "contactEmail": email, "paymentMethod": "balance_cny",
    });
    let answer = world.post_as(&token, "/api/orders", &order).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    world.run_until_idle().await;
}

/// The state, the number of attempts and the last error of the latest letter.
async fn latest_letter(world: &World) -> (String, i64, String) {
    let sql = "select state, attempts, coalesce(last_error, '') as last_error from mails order by id desc limit 1";
    let row = world.db.read("letter", move |tx| Box::pin(async move { tx.row(sql, Vec::new()).await })).await;
    let row = row.expect("a row").expect("a letter");
    (row.get("state").unwrap(), row.get("attempts").unwrap(), row.get("last_error").unwrap())
}

async fn open_reviews(world: &World, kind: &'static str) -> i64 {
    let sql = "select count(*) as n from reviews where kind = $1 and closed_at is null";
    let row = world.db.read("reviews", move |tx| Box::pin(async move { tx.row(sql, vec![Bind::from(kind)]).await }));
    row.await.expect("a count").expect("one row").get("n").unwrap()
}

macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($backend:ident) $body:block)+) => { $(
        mod $name {
            use super::*;

            async fn story($backend: db::Backend) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                story(db::Backend::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                story(db::Backend::Postgres).await;
            }
        }
    )+ };
}

on_both! {
    async fn a_letter_outlives_every_failure_that_can_be_mended(backend) {
        let server = SmtpServer::start().await;
        let world = world_with(backend, &server).await;
        for (command, reply, told) in [
            ("CONNECT", "554 5.7.1 your address is listed", "5.7.1"),
            ("MAIL", "530 5.7.0 authentication required", "5.7.0"),
            ("MAIL", "550 5.4.5 daily sending quota exceeded", "5.4.5"),
            ("RCPT", "550 5.7.1 relaying denied", "5.7.1"),
            ("RCPT", "552 5.2.2 mailbox full", "5.2.2"),
            ("RCPT", "550 rejected", "550"),
            ("DATA", "554 5.3.0 no", "5.3.0"),
            (".", "554 5.6.0 looks like spam", "5.6.0"),
            (".", "451 4.3.0 try later", "4.3.0"),
        ] {
            server.reply(command, reply);
            sell_to(&world, "buyer@example.com").await;
            let (state, attempts, error) = latest_letter(&world).await;
            assert_eq!((state.as_str(), attempts), ("queued", 1), "{command} {reply}: {error}");
            assert!(error.contains(told), "{reply}: {error}");
            let sent = server.letters().len();
            server.reply(command, "");
            world.advance_seconds(3_600);
            world.run_until_idle().await;
            assert_eq!(latest_letter(&world).await.0, "sent", "{command} {reply}");
            assert_eq!(server.letters().len(), sent + 1);
        }
        assert_eq!(open_reviews(&world, "mail.undeliverable").await, 0);
    }

    async fn only_a_mailbox_that_does_not_exist_ends_a_letter(backend) {
        let server = SmtpServer::start().await;
        let world = world_with(backend, &server).await;
        server.reply("RCPT", "550 5.1.1 no such user buyer@example.com");
        sell_to(&world, "buyer@example.com").await;
        let (state, attempts, error) = latest_letter(&world).await;
        assert_eq!((state.as_str(), attempts), ("failed", 1), "{error}");
        assert!(!error.contains("buyer@"), "the server's text repeats the address: {error}");
        assert_eq!(open_reviews(&world, "mail.undeliverable").await, 1);
    }

    async fn a_letter_is_tried_for_five_days_and_then_parked_with_a_review(backend) {
        let server = SmtpServer::start().await;
        let world = world_with(backend, &server).await;
        server.reply("MAIL", "450 4.2.1 try again");
        sell_to(&world, "buyer@example.com").await;
        for _ in 0..(5 * 24 - 1) {
            world.advance_seconds(3_600);
            world.run_until_idle().await;
        }
        let (state, attempts, _) = latest_letter(&world).await;
        assert_eq!(state, "queued");
        assert!((20..=100).contains(&attempts), "{attempts}");
        assert_eq!(open_reviews(&world, "mail.undeliverable").await, 0);
        world.advance_seconds(DAY / 2);
        world.run_until_idle().await;
        assert_eq!(latest_letter(&world).await.0, "parked");
        assert_eq!(open_reviews(&world, "mail.undeliverable").await, 1);
    }

    async fn a_letter_has_an_id_and_goes_to_the_ascii_form_of_a_domain(backend) {
        let server = SmtpServer::start().await;
        let world = world_with(backend, &server).await;
        sell_to(&world, "Kunde@bu\u{308}cher.example").await;
        let letters = server.letters();
        assert_eq!(letters.len(), 1, "{:?}", latest_letter(&world).await);
        assert!(letters[0].contains("RCPT TO:<Kunde@xn--bcher-kva.example>"), "{}", letters[0]);
        assert!(letters[0].contains("\nTo: Kunde@xn--bcher-kva.example\n"), "{}", letters[0]);
        // An address with a quoted part.
        sell_to(&world, "\"a b\"@example.com").await;
        let quoted = server.letters().pop().expect("a letter");
        assert!(quoted.contains("RCPT TO:<\"a b\"@example.com>") && quoted.contains("\nTo: \"a b\"@example.com\n"), "{quoted}");
        let id = letters[0].lines().find(|line| line.starts_with("Message-ID: <")).expect("a Message-ID");
        assert!(id.ends_with("@localhost>"), "the domain of the sender: {id}");
    }
}

/// Runs `settled check` with this mail server, and returns its line about mail.
async fn check_server(config: &str, settings: &[(&str, &str)]) -> String {
    let mut command = settled(&["check", "--config", config]);
    command.env("SETTLED__MAIL__TRANSPORT", "smtp").env("SETTLED__MAIL__SMTP__TIMEOUT_MS", "5000");
    for (option, value) in settings {
        command.env(format!("SETTLED__MAIL__SMTP__{option}"), value);
    }
    let output = command.output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    out.lines().find(|line| line.contains(" mail: ")).unwrap_or_else(|| panic!("{out}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tries_the_mail_server_and_tells_the_failures_apart() {
    let server = SmtpServer::start_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let config = write_configuration(folder.path()).await;
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ca, password) = (file("ca.pem", include_str!("ca.pem")), file("password", "secret"));
    let (port, closed_port) = (server.port.to_string(), "1".to_owned());
    let check = async |host, port, ca_file| {
        let settings =
            [("HOST", host), ("PORT", port), ("CA_FILE", ca_file), ("USER", "me"), ("PASSWORD_FILE", &password)];
        check_server(&config, &settings).await
    };
    let accepted = check("localhost", &port, &ca).await;
    assert!(accepted.starts_with("OK ") && accepted.contains("login"), "{accepted}");
    for (host, port, ca_file, told) in [
        ("localhost", &port, "", "UnknownIssuer"),
        ("127.0.0.1", &port, &ca, "not valid for name"),
        ("localhost", &closed_port, &ca, "Connection refused"),
        ("mail.invalid", &port, &ca, "lookup"),
    ] {
        let refused = check(host, port, ca_file).await;
        assert!(refused.starts_with("FAIL") && refused.contains(told), "{told}: {refused}");
    }
    server.reply("AUTH", "535 5.7.8 wrong password");
    let refused = check("localhost", &port, &ca).await;
    assert!(refused.starts_with("FAIL") && refused.contains("refused the login (535 5.7.8)"), "{refused}");
    assert!(server.letters().is_empty(), "it sends no letter");
}
