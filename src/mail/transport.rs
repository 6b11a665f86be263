//! Where mails go: a log line, a folder, or a mail server.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use lettre::{
    AsyncFileTransport, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        self,
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};
use secrecy::ExposeSecret;
use tracing::info;

use super::Mail;
use config::{self, MailTransport, SmtpSecurity};

/// Folder of written mails in the data folder.
const FOLDER: &str = "mail";

pub struct Transport {
    from: Mailbox,
    attempts_max: u32,
    way: Way,
    dropped: AtomicU64,
}

enum Way {
    Log,
    File(AsyncFileTransport<Tokio1Executor>),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("[mail] from: {0}")]
    From(String),
    #[error("{path}: {error}")]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("[mail.smtp] password_file: {0}")]
    Password(#[from] config::SecretError),
    #[error("[mail.smtp] host: {0}")]
    Server(#[from] smtp::Error),
}

/// Why a mail was not handed over; says neither to whom nor what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the recipient is not an address")]
    BadRecipient,
    #[error("the mail cannot be put together")]
    BadMessage,
    #[error("the file could not be written")]
    NotWritten,
    /// The server's words are left out: they often repeat the address.
    #[error("the server refused it for good{}", code(.0))]
    Refused(Option<u16>),
    #[error("the server did not take it{}", code(.0))]
    NotTaken(Option<u16>),
    #[error("the server did not answer in time")]
    TimedOut,
}

impl Transport {
    /// Reads the password; connects to nothing yet.
    pub fn new(config: &config::Mail, data_folder: &Path) -> Result<Transport, TransportError> {
        let from: Mailbox = config.from.parse().map_err(|e| TransportError::From(format!("{e}")))?;
        let way = match config.transport {
            MailTransport::Log => Way::Log,
            MailTransport::File => Way::File(file(&data_folder.join(FOLDER))?),
            MailTransport::Smtp => Way::Smtp(server(&config.smtp)?),
        };
        Ok(Transport { from, attempts_max: config.attempts_max, way, dropped: AtomicU64::new(0) })
    }

    pub fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    pub(super) async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let message = self.message(mail)?;
        match &self.way {
            Way::Log => {
                let count = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                info!(mail.id = mail.id, count, "mail {} was dropped: [mail] transport is \"log\"", mail.id);
                Ok(())
            }
            Way::File(folder) => folder.send(message).await.map(drop).map_err(|_| SendError::NotWritten),
            Way::Smtp(server) => server.send(message).await.map(drop).map_err(|e| SendError::of(&e)),
        }
    }

    fn message(&self, mail: &Mail) -> Result<Message, SendError> {
        let recipient: Mailbox = mail.recipient.parse().map_err(|_| SendError::BadRecipient)?;
        let message = Message::builder().from(self.from.clone()).to(recipient).subject(&mail.subject);
        message.header(ContentType::TEXT_PLAIN).body(mail.body.clone()).map_err(|_| SendError::BadMessage)
    }
}

impl SendError {
    /// Whether another try cannot end otherwise.
    pub fn is_final(&self) -> bool {
        match self {
            SendError::BadRecipient | SendError::BadMessage | SendError::Refused(_) => true,
            SendError::NotWritten | SendError::NotTaken(_) | SendError::TimedOut => false,
        }
    }

    fn of(error: &smtp::Error) -> SendError {
        let code = error.status().map(u16::from);
        if error.is_permanent() {
            SendError::Refused(code)
        } else if error.is_timeout() {
            SendError::TimedOut
        } else {
            SendError::NotTaken(code)
        }
    }
}

fn code(code: &Option<u16>) -> String {
    code.map_or_else(String::new, |code| format!(" (code {code})"))
}

fn file(folder: &Path) -> Result<AsyncFileTransport<Tokio1Executor>, TransportError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| TransportError::Folder { path: folder.to_owned(), error })?;
    Ok(AsyncFileTransport::new(folder))
}

fn server(config: &config::Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, TransportError> {
    let tls = match config.security {
        SmtpSecurity::Tls => Tls::Wrapper(TlsParameters::new(config.host.clone())?),
        SmtpSecurity::Starttls => Tls::Required(TlsParameters::new(config.host.clone())?),
        SmtpSecurity::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(config.host.clone())
        .port(config.port)
        .tls(tls)
        .timeout(Some(config.timeout));
    if let Some(password) = config.password_file.read()? {
        builder = builder.credentials(Credentials::new(config.user.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}
