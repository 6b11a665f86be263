//! Sends mails as configured: to the log, to a folder, or to an SMTP server.

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

use super::QueuedMail;
use config::{self, MailTransport, SmtpSecurity};

/// Name of the folder for mails in the data folder.
const FOLDER: &str = "mail";

/// Sends mails as configured in `[mail]`.
pub struct Transport {
    from: Mailbox,
    attempts_max: u32,
    backend: MailBackend,
    /// The number of mails since the start that were only logged and not sent.
    dropped: AtomicU64,
}

enum MailBackend {
    /// The mail is not sent, only a log line is written.
    Log,
    File(AsyncFileTransport<Tokio1Executor>),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

/// The reason why a transport cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configured sender is not an e-mail address.
    #[error("[mail] from: {0}")]
    From(String),
    /// The folder for mails cannot be created.
    #[error("{path}: {error}")]
    Folder { path: PathBuf, error: std::io::Error },
    /// The password of the mail server cannot be read.
    #[error("[mail.smtp] password_file: {0}")]
    Password(#[from] config::SecretError),
    /// The configured host name of the mail server cannot be used for TLS.
    #[error("[mail.smtp] host: {0}")]
    Server(#[from] smtp::Error),
}

/// The reason why a mail was not sent. The text of the error contains neither the recipient nor the text of the mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The recipient is not an e-mail address.
    #[error("the recipient is not an address")]
    InvalidRecipient,
    /// The message cannot be built from the subject and the text.
    #[error("the message cannot be built")]
    InvalidMessage,
    /// The mail could not be written to its folder.
    #[error("the file could not be written")]
    NotWritten,
    /// The server refused the mail permanently, with this SMTP code. The server's text is left out, because it often
    /// repeats the address of the recipient.
    #[error("the server refused the mail permanently{}", format_smtp_code(.0))]
    Refused(Option<u16>),
    /// The server could not be reached, or refused the mail temporarily with this SMTP code.
    #[error("the server did not accept the mail{}", format_smtp_code(.0))]
    NotAccepted(Option<u16>),
    /// The mail server did not answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
}

impl Transport {
    /// Builds the transport and reads the password. Does not connect to the server.
    ///
    /// # Errors
    /// When the sender is not an address, the folder cannot be created, or the password cannot be read.
    pub fn new(config: &config::Mail, data_folder: &Path) -> Result<Transport, SetupError> {
        let from: Mailbox = config.from.parse().map_err(|e| SetupError::From(format!("{e}")))?;
        let backend = match config.transport {
            MailTransport::Log => MailBackend::Log,
            MailTransport::File => MailBackend::File(create_mail_folder(&data_folder.join(FOLDER))?),
            MailTransport::Smtp => MailBackend::Smtp(build_smtp_transport(&config.smtp)?),
        };
        Ok(Transport { from, attempts_max: config.attempts_max, backend, dropped: AtomicU64::new(0) })
    }

    /// Returns the number of failed attempts after which a mail is not sent any more.
    pub fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    /// Sends one mail.
    pub(super) async fn send_mail(&self, mail: &QueuedMail) -> Result<(), SendError> {
        let message = self.build_message(mail)?;
        match &self.backend {
            MailBackend::Log => {
                let count = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                info!(mail.id = mail.id, count, "mail {} was dropped: [mail] transport is \"log\"", mail.id);
                Ok(())
            }
            MailBackend::File(folder) => folder.send(message).await.map(drop).map_err(|_| SendError::NotWritten),
            MailBackend::Smtp(server) => server.send(message).await.map(drop).map_err(|e| SendError::from_smtp(&e)),
        }
    }

    fn build_message(&self, mail: &QueuedMail) -> Result<Message, SendError> {
        let recipient: Mailbox = mail.recipient.parse().map_err(|_| SendError::InvalidRecipient)?;
        let message = Message::builder().from(self.from.clone()).to(recipient).subject(&mail.subject);
        message.header(ContentType::TEXT_PLAIN).body(mail.body.clone()).map_err(|_| SendError::InvalidMessage)
    }
}

impl SendError {
    /// Returns true when another attempt to send the mail would fail in the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            SendError::InvalidRecipient | SendError::InvalidMessage | SendError::Refused(_) => true,
            SendError::NotWritten | SendError::NotAccepted(_) | SendError::TimedOut => false,
        }
    }

    fn from_smtp(error: &smtp::Error) -> SendError {
        let code = error.status().map(u16::from);
        if error.is_permanent() {
            SendError::Refused(code)
        } else if error.is_timeout() {
            SendError::TimedOut
        } else {
            SendError::NotAccepted(code)
        }
    }
}

fn format_smtp_code(code: &Option<u16>) -> String {
    code.map_or_else(String::new, |code| format!(" (code {code})"))
}

fn create_mail_folder(folder: &Path) -> Result<AsyncFileTransport<Tokio1Executor>, SetupError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|error| SetupError::Folder { path: folder.to_owned(), error })?;
    Ok(AsyncFileTransport::new(folder))
}

fn build_smtp_transport(config: &config::Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, SetupError> {
    let tls = match config.security {
        SmtpSecurity::Tls => Tls::Wrapper(TlsParameters::new(config.host.clone())?),
        SmtpSecurity::Starttls => Tls::Required(TlsParameters::new(config.host.clone())?),
        SmtpSecurity::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(config.host.clone())
        .port(config.port)
        .tls(tls)
        .timeout(Some(config.timeout));
    if let Some(password) = config.password_file.read_secret()? {
        builder = builder.credentials(Credentials::new(config.user.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}
