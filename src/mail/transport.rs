//! Sends mails as configured in `[mail]`: to an SMTP server, as files into a folder, or only as a line in the log.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use lettre::{
    AsyncFileTransport, AsyncTransport, Message, Tokio1Executor,
    address::Envelope,
    message::{Mailbox, header::ContentType},
    transport::smtp as lettre_smtp,
};
use tracing::info;

use crate::QueuedMail;
use crate::address::Address;
use crate::smtp::{SmtpError, SmtpServer, SmtpSession};
use config::{self, MailTransport};

/// The name of the folder for mails, inside the data folder.
const FOLDER: &str = "mail";

/// Sends mails as configured in `[mail]`.
pub struct Transport {
    from: Mailbox,
    backend: MailBackend,
    /// The number of mails that were only logged, and not sent, since the daemon was started.
    dropped: AtomicU64,
}

enum MailBackend {
    /// Mails are not sent; only a line without recipient and text is written to the log.
    Log,
    File(AsyncFileTransport<Tokio1Executor>),
    Smtp(SmtpServer),
}

/// The SMTP connection that several mails share. `None` before the first mail, after a failure, and when mails are not
/// sent by SMTP.
#[derive(Default)]
pub struct Connection(Option<SmtpSession>);

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
    /// The certificates cannot be read.
    #[error("[mail.smtp] ca_file: {0}")]
    CaFile(config::SecretError),
    /// The server name or the certificates cannot be used for TLS.
    #[error("[mail.smtp] host, ca_file: {0}")]
    Certificate(lettre_smtp::Error),
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
    /// The mail server did not take the mail.
    #[error(transparent)]
    Smtp(#[from] SmtpError),
}

impl Transport {
    /// Builds the transport, creates the folder for mails if mails are written to files, and reads the password and the
    /// certificates if mails are sent by SMTP. Does not connect to the server.
    ///
    /// # Errors
    /// Fails when the configured sender is not an e-mail address, when the folder cannot be created, or when a
    /// configured file cannot be read.
    pub fn new(config: &config::Mail, data_folder: &Path) -> Result<Transport, SetupError> {
        let from: Mailbox = config.from.parse().map_err(|e| SetupError::From(format!("{e}")))?;
        let domain = from.email.domain();
        let domain = idna::domain_to_ascii(domain).map_err(|e| SetupError::From(format!("{domain}: {e}")))?;
        let email = lettre::Address::new(from.email.user(), domain).map_err(|e| SetupError::From(format!("{e}")))?;
        let backend = match config.transport {
            MailTransport::Log => MailBackend::Log,
            MailTransport::File => MailBackend::File(create_folder_and_file_transport(&data_folder.join(FOLDER))?),
            MailTransport::Smtp => MailBackend::Smtp(SmtpServer::from_config_reading_files(&config.smtp)?),
        };
        Ok(Transport { from: Mailbox::new(from.name, email), backend, dropped: AtomicU64::new(0) })
    }

    /// Tests the SMTP settings: connects to the mail server, starts the encryption, logs in, and ends the connection
    /// without sending a mail. Does nothing when mails are not sent by SMTP.
    ///
    /// # Errors
    /// Fails when the mail server refuses a step or cannot be reached.
    pub async fn test_server_login_if_smtp(&self) -> Result<(), SmtpError> {
        let MailBackend::Smtp(server) = &self.backend else { return Ok(()) };
        let session = server.open_session().await?;
        server.close_session(session).await;
        Ok(())
    }

    /// Sends one mail, or only logs that it was dropped, as configured. Opens the connection to the server if it is not
    /// open, and keeps it open for the next mail.
    pub(super) async fn send_mail(&self, mail: &QueuedMail, connection: &mut Connection) -> Result<(), SendError> {
        let (recipient, message) = self.parse_recipient_and_build_message(mail)?;
        match &self.backend {
            MailBackend::Log => {
                let count = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                info!(mail.id = mail.id, count, "mail {} was dropped: [mail] transport is \"log\"", mail.id);
                Ok(())
            }
            MailBackend::File(folder) => folder.send(message).await.map(drop).map_err(|_| SendError::NotWritten),
            MailBackend::Smtp(server) => {
                let (from, message) = (&self.from.email, message.formatted());
                if let Some(mut session) = connection.0.take() {
                    match server.send_mail(&mut session, from, &recipient, &message).await {
                        Ok(()) => {
                            connection.0 = Some(session);
                            return Ok(());
                        }
                        // The server may have ended the open connection, for example after a maximum number of mails.
                        // Send this mail on a new connection.
                        Err(error) if error.is_server_failure_before_recipient() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                let mut session = server.open_session().await?;
                server.send_mail(&mut session, from, &recipient, &message).await?;
                connection.0 = Some(session);
                Ok(())
            }
        }
    }

    /// Ends the SMTP connection, if one is open.
    pub(super) async fn close_connection(&self, connection: Connection) {
        if let (MailBackend::Smtp(server), Some(session)) = (&self.backend, connection.0) {
            server.close_session(session).await;
        }
    }

    /// Returns the recipient and the message. The message of every attempt has the same `Message-ID`, so that a mail
    /// program can recognize a mail that arrives twice.
    fn parse_recipient_and_build_message(&self, mail: &QueuedMail) -> Result<(lettre::Address, Message), SendError> {
        let address = Address::parse_address(&mail.recipient).map_err(|_| SendError::InvalidRecipient)?;
        let recipient: lettre::Address = address.to_text().parse().map_err(|_| SendError::InvalidRecipient)?;
        let id = format!("<{}@{}>", mail.message_id, self.from.email.domain());
        // Set the envelope here, because the library would otherwise parse the addresses of the headers again, and its
        // parser refuses quoted local parts.
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![recipient.clone()]);
        let message = Message::builder()
            .envelope(envelope.map_err(|_| SendError::InvalidMessage)?)
            .message_id(Some(id))
            .from(self.from.clone())
            .to(Mailbox::new(None, recipient.clone()))
            .subject(&mail.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())
            .map_err(|_| SendError::InvalidMessage)?;
        Ok((recipient, message))
    }
}

impl SendError {
    /// Returns true when every further attempt to send the mail would fail, so that the mail is not tried again.
    pub fn is_permanent_for_mail(&self) -> bool {
        match self {
            SendError::InvalidRecipient | SendError::InvalidMessage => true,
            SendError::NotWritten => false,
            SendError::Smtp(error) => error.is_unknown_mailbox(),
        }
    }

    /// Returns true when the other mails would probably fail with the same error, so that they need not be tried now.
    pub fn probably_concerns_every_mail(&self) -> bool {
        match self {
            SendError::InvalidRecipient | SendError::InvalidMessage => false,
            SendError::NotWritten => true,
            SendError::Smtp(error) => error.probably_concerns_every_mail(),
        }
    }
}

fn create_folder_and_file_transport(folder: &Path) -> Result<AsyncFileTransport<Tokio1Executor>, SetupError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.map_err(|error| SetupError::Folder { path: folder.to_owned(), error })?;
    Ok(AsyncFileTransport::new(folder))
}
