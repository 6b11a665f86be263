//! An SMTP server that answers each command as a story says, and keeps the letters that it accepted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Clone)]
pub struct SmtpServer {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The reply to commands that begin with a word, where it is not the usual one.
    replies: HashMap<&'static str, &'static str>,
    /// The commands and texts of each connection that sent a letter.
    letters: Vec<String>,
}

impl SmtpServer {
    /// Starts a server without encryption.
    pub async fn start() -> SmtpServer {
        SmtpServer::accept(None).await
    }

    /// Starts a server with TLS from the start, whose certificate is for `localhost` and signed by `ca.pem`.
    pub async fn start_tls() -> SmtpServer {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        SmtpServer::accept(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn accept(tls: Option<TlsAcceptor>) -> SmtpServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = SmtpServer { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let (tasks, own) = (tasks::Tasks::default(), server.clone());
        tasks.clone().spawn("smtp server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, tls) = (own.clone(), tls.clone());
                tasks.spawn("smtp connection", async move {
                    match tls {
                        None => own.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                own.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// Answers commands that begin with `command` with `reply` from now on; `""` restores the usual reply.
    pub fn reply(&self, command: &'static str, reply: &'static str) {
        self.state.lock().unwrap().replies.insert(command, reply);
    }

    pub fn letters(&self) -> Vec<String> {
        self.state.lock().unwrap().letters.clone()
    }

    fn reply_to(&self, command: &str, usual: &'static str) -> String {
        let state = self.state.lock().unwrap();
        let changed = state.replies.iter().find(|(word, reply)| command.starts_with(*word) && !reply.is_empty());
        changed.map_or(usual, |(_, reply)| reply).to_owned()
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite) {
        let (reader, mut writer) = tokio::io::split(Box::pin(stream));
        let mut lines = BufReader::new(reader).lines();
        let (mut received, mut is_data) = (String::new(), false);
        let mut said = self.reply_to("CONNECT", "220 mail.test ESMTP");
        loop {
            if !said.is_empty() && writer.write_all(format!("{said}\r\n").as_bytes()).await.is_err() {
                return;
            }
            let Ok(Some(line)) = lines.next_line().await else { return };
            received.push_str(&line);
            received.push('\n');
            said = match line.as_str() {
                "." if is_data => {
                    is_data = false;
                    let reply = self.reply_to(".", "250 2.0.0 accepted");
                    if reply.starts_with('2') {
                        self.state.lock().unwrap().letters.push(std::mem::take(&mut received));
                    }
                    reply
                }
                _ if is_data => String::new(),
                "DATA" => {
                    let reply = self.reply_to("DATA", "354 go on");
                    is_data = reply.starts_with('3');
                    reply
                }
                "QUIT" => self.reply_to("QUIT", "221 2.0.0 bye"),
                line if line.starts_with("EHLO") => {
                    self.reply_to("EHLO", "250-mail.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN LOGIN")
                }
                line if line.starts_with("AUTH") => self.reply_to("AUTH", "235 2.7.0 accepted"),
                line => self.reply_to(line, "250 2.0.0 fine"),
            };
        }
    }
}
