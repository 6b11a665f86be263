//! A client of one SMTP server. Each error names the step that failed, because a mail fails for good only when the
//! server refuses its recipient.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use secrecy::ExposeSecret;

use crate::transport::SetupError;
use config::SmtpSecurity;

/// The settings of an SMTP server, together with the password and the certificates that were read from the configured
/// files.
pub struct SmtpServer {
    host: String,
    port: u16,
    security: SmtpSecurity,
    tls: TlsParameters,
    credentials: Option<Credentials>,
    timeout: Duration,
}

/// A connection to the server that is ready to send mails: encrypted and logged in as configured.
pub struct SmtpSession(AsyncSmtpConnection);

/// A step of sending a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The opening of the connection, with TLS from the start if configured, and the greeting of the server.
    Connect,
    /// The start of the encryption by STARTTLS.
    StartTls,
    /// The login with user name and password.
    Login,
    /// The announcement of the sender (MAIL FROM).
    Sender,
    /// The announcement of the recipient (RCPT TO).
    Recipient,
    /// The text of the mail (DATA).
    Content,
}

/// The codes of a negative reply of the server. The text of the reply is not kept, because it often repeats the address
/// of the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The reply code, such as 550.
    pub code: u16,
    /// The enhanced status code of RFC 3463, such as 5.1.1; `None` when the server sent none.
    pub enhanced: Option<(u16, u16, u16)>,
}

/// The reason why the server did not take a mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmtpError {
    /// The server answered a step with a negative reply.
    #[error("the mail server refused {0} ({1})")]
    Refused(Step, Reply),
    /// A step failed without a reply, for example because the connection ended. The second field is the cause; it
    /// contains neither the recipient nor the text of the mail.
    #[error("{0} failed: {1}")]
    Failed(Step, String),
    /// The server did not answer within `mail.smtp.timeout_ms`.
    #[error("the mail server did not answer in time")]
    TimedOut,
    /// The address of the sender or the recipient has non-ASCII letters, and the server does not support them (no
    /// SMTPUTF8).
    #[error("the mail server does not support addresses with non-ASCII letters (SMTPUTF8)")]
    NonAsciiAddress,
    /// The mail has non-ASCII text, and the server does not support it (no 8BITMIME).
    #[error("the mail server does not support non-ASCII text (8BITMIME)")]
    NonAsciiContent,
}

impl SmtpServer {
    /// Builds the client, and reads the password and the certificates from the configured files. Does not connect.
    ///
    /// # Errors
    /// Fails when a file cannot be read, or when the host name or a certificate cannot be used for TLS.
    pub fn from_config_reading_files(config: &config::Smtp) -> Result<SmtpServer, SetupError> {
        let mut tls = TlsParameters::builder(config.host.clone());
        if let Some(pem) = config.ca_file.read_secret().map_err(SetupError::CaFile)? {
            let certificate = Certificate::from_pem(pem.expose_secret().as_bytes()).map_err(SetupError::Certificate)?;
            tls = tls.add_root_certificate(certificate);
        }
        let password = config.password_file.read_secret()?;
        Ok(SmtpServer {
            host: config.host.clone(),
            port: config.port,
            security: config.security,
            tls: tls.build().map_err(SetupError::Certificate)?,
            credentials: password
                .map(|password| Credentials::new(config.user.clone(), password.expose_secret().to_owned())),
            timeout: config.timeout,
        })
    }

    /// Connects, starts the encryption and logs in, as configured. Fails when this takes longer than
    /// `mail.smtp.timeout_ms`.
    pub async fn open_session(&self) -> Result<SmtpSession, SmtpError> {
        self.run_in_time(self.connect_encrypt_and_log_in()).await
    }

    async fn connect_encrypt_and_log_in(&self) -> Result<SmtpSession, SmtpError> {
        let name = ClientId::default();
        let tls = match self.security {
            SmtpSecurity::Tls => Some(self.tls.clone()),
            SmtpSecurity::Starttls | SmtpSecurity::None => None,
        };
        let address = (self.host.as_str(), self.port);
        let connected = AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &name, tls, None).await;
        let mut connection = connected.map_err(|e| SmtpError::new(Step::Connect, &e))?;
        if self.security == SmtpSecurity::Starttls {
            let started = connection.starttls(self.tls.clone(), &name).await;
            started.map_err(|e| SmtpError::new(Step::StartTls, &e))?;
        }
        if let Some(credentials) = &self.credentials {
            let logged_in = connection.auth(DEFAULT_MECHANISMS, credentials).await;
            logged_in.map_err(|e| SmtpError::new(Step::Login, &e))?;
        }
        Ok(SmtpSession(connection))
    }

    /// Sends a mail on an open session. Fails when this takes longer than `mail.smtp.timeout_ms`. After an error the
    /// session must not be used again.
    pub async fn send_mail(
        &self,
        session: &mut SmtpSession,
        from: &Address,
        to: &Address,
        message: &[u8],
    ) -> Result<(), SmtpError> {
        self.run_in_time(session.send_mail(from, to, message)).await
    }

    /// Waits for an exchange with the server, at most for `mail.smtp.timeout_ms`; then it fails with
    /// [`SmtpError::TimedOut`]. The mail library itself bounds only the time of connecting.
    async fn run_in_time<T>(&self, exchange: impl Future<Output = Result<T, SmtpError>>) -> Result<T, SmtpError> {
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(SmtpError::TimedOut))
    }

    /// Ends a session with the command QUIT. An error is ignored, because no mail is being sent at this time.
    pub async fn close_session(&self, mut session: SmtpSession) {
        let _closed = tokio::time::timeout(self.timeout, session.0.quit()).await;
    }
}

impl SmtpSession {
    async fn send_mail(&mut self, from: &Address, to: &Address, message: &[u8]) -> Result<(), SmtpError> {
        let connection = &mut self.0;
        let mut parameters = Vec::new();
        if !AsRef::<str>::as_ref(to).is_ascii() || !AsRef::<str>::as_ref(from).is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(SmtpError::NonAsciiAddress);
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !message.is_ascii() {
            if !connection.server_info().supports_feature(Extension::EightBitMime) {
                return Err(SmtpError::NonAsciiContent);
            }
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let sender = connection.command(Mail::new(Some(from.clone()), parameters)).await;
        sender.map_err(|e| SmtpError::new(Step::Sender, &e))?;
        let recipient = connection.command(Rcpt::new(to.clone(), Vec::new())).await;
        recipient.map_err(|e| SmtpError::new(Step::Recipient, &e))?;
        connection.command(Data).await.map_err(|e| SmtpError::new(Step::Content, &e))?;
        connection.message(message).await.map_err(|e| SmtpError::new(Step::Content, &e))?;
        Ok(())
    }
}

impl SmtpError {
    fn new(step: Step, error: &smtp::Error) -> SmtpError {
        match error.status() {
            Some(code) => {
                // The library returns the text of the reply as the source of the error.
                let text = error.source().map(ToString::to_string).unwrap_or_default();
                let enhanced = parse_enhanced_code(&text);
                SmtpError::Refused(step, Reply { code: code.into(), enhanced })
            }
            None if error.is_timeout() => SmtpError::TimedOut,
            None => SmtpError::Failed(step, find_root_cause_text(error)),
        }
    }

    /// Returns true when the server said that the recipient's mailbox does not exist: a permanent reply to the
    /// recipient with an enhanced code 5.1.x (RFC 3463, section 3.2). The codes 5.1.5 (a success), 5.1.7 and 5.1.8
    /// (about the sender) do not count.
    pub fn is_unknown_mailbox(&self) -> bool {
        match self {
            SmtpError::Refused(Step::Recipient, Reply { code: 500..=599, enhanced: Some((5, 1, detail)) }) => {
                !matches!(detail, 5 | 7 | 8)
            }
            SmtpError::Refused(..)
            | SmtpError::Failed(..)
            | SmtpError::TimedOut
            | SmtpError::NonAsciiAddress
            | SmtpError::NonAsciiContent => false,
        }
    }

    /// Returns true when the server refused a step or ended the session before the recipient was sent to it. In this
    /// case the server cannot have taken the mail, so the mail may be sent at once on a new connection. A time-out
    /// returns false, because it does not tell the step.
    pub fn is_server_failure_before_recipient(&self) -> bool {
        match self {
            SmtpError::Refused(step, _) | SmtpError::Failed(step, _) => {
                matches!(step, Step::Connect | Step::StartTls | Step::Login | Step::Sender)
            }
            SmtpError::TimedOut | SmtpError::NonAsciiAddress | SmtpError::NonAsciiContent => false,
        }
    }

    /// Returns true when the other mails would probably fail with the same error, so that they need not be tried now.
    pub fn probably_concerns_every_mail(&self) -> bool {
        match self {
            SmtpError::Refused(Step::Connect | Step::StartTls | Step::Login | Step::Sender, _)
            | SmtpError::Failed(..)
            | SmtpError::TimedOut => true,
            SmtpError::Refused(Step::Recipient | Step::Content, _)
            | SmtpError::NonAsciiAddress
            | SmtpError::NonAsciiContent => false,
        }
    }
}

/// Parses the enhanced status code at the start of a reply's text, such as `5.1.1 no such user`. `None` when the text
/// does not start with such a code.
fn parse_enhanced_code(text: &str) -> Option<(u16, u16, u16)> {
    let mut parts = text.split_whitespace().next()?.splitn(3, '.').map(|part| part.parse().ok());
    let code = (parts.next()??, parts.next()??, parts.next()??);
    matches!(code.0, 2 | 4 | 5).then_some(code)
}

/// Returns the text of the innermost cause of an error, such as "invalid peer certificate: UnknownIssuer".
fn find_root_cause_text(error: &smtp::Error) -> String {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        // An I/O error may contain a TLS error that `source` does not return, so look inside the I/O error first.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(|e| e.get_ref());
        match wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| cause.source()) {
            Some(inner) => cause = inner,
            None => return cause.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connect => "the connection",
            Step::StartTls => "the encryption by STARTTLS",
            Step::Login => "the login",
            Step::Sender => "the sender",
            Step::Recipient => "the recipient",
            Step::Content => "the text",
        })
    }
}

/// Writes the reply code and, if the server sent one, the enhanced code, such as `550 5.1.1`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some((class, subject, detail)) => write!(f, "{} {class}.{subject}.{detail}", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_parsed_at_the_start_of_a_reply() {
        assert_eq!(parse_enhanced_code("5.1.1 no such user"), Some((5, 1, 1)));
        assert_eq!(parse_enhanced_code("4.7.0\nmore"), Some((4, 7, 0)));
        assert_eq!(parse_enhanced_code("5.1.10 gone"), Some((5, 1, 10)));
        for text in ["", "no such user 5.1.1", "5.1", "5.1.x", "192.0.2.1 is listed", "5.1.1.1"] {
            assert_eq!(parse_enhanced_code(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_permanent_reply_to_the_recipient_means_an_unknown_mailbox() {
        let refused = |step, code, enhanced| SmtpError::Refused(step, Reply { code, enhanced });
        for enhanced in [(5, 1, 0), (5, 1, 1), (5, 1, 2), (5, 1, 3), (5, 1, 6), (5, 1, 10)] {
            assert!(refused(Step::Recipient, 550, Some(enhanced)).is_unknown_mailbox(), "{enhanced:?}");
        }
        for error in [
            refused(Step::Recipient, 550, None),
            refused(Step::Recipient, 550, Some((5, 7, 1))),
            refused(Step::Recipient, 550, Some((5, 1, 8))),
            refused(Step::Recipient, 450, Some((5, 1, 1))),
            refused(Step::Sender, 550, Some((5, 1, 1))),
            refused(Step::Login, 535, Some((5, 7, 8))),
            SmtpError::TimedOut,
        ] {
            assert!(!error.is_unknown_mailbox(), "{error}");
        }
    }
}
