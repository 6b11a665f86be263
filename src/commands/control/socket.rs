//! A Unix socket in the data folder: one line of JSON asks, one line answers. Only the user that the daemon runs as and
//! root are heard; everything is bounded in size and time.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use crate::commands::control::{self, Answer, Command, Context};
use crate::commands::exit::CommandError;
use records::audit_log::Actor;
use tasks::Tasks;

const FILE: &str = "control.sock";
/// Room for an import of goods, which larger files are split into.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 16;
/// To send a request or to take an answer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);
/// To wait for an answer: the copy of a large database takes minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3_600);

pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Whoever listens holds the data folder's lock, so that a socket that is there was left by a daemon that is gone.
    pub fn bind(folder: &Path) -> io::Result<Control> {
        let path = folder.join(FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Control { listener, path })
    }

    pub async fn serve(self, context: Context, tasks: Tasks, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let context = context.clone();
                    tasks.spawn("control", async move {
                        if let Err(error) = answer(stream, context).await {
                            debug!("a control connection ended early: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!("the control socket accepts nobody: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!("the control socket is left behind: {error}");
        }
    }
}

async fn answer(mut stream: UnixStream, context: Context) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let known = [rustix::process::geteuid().as_raw(), 0];
    let result = if known.contains(&peer) {
        let (read, _) = stream.split();
        let line = tokio::time::timeout(TRANSFER_TIMEOUT, read_line(read)).await??;
        match serde_json::from_slice::<Command>(&line) {
            Ok(command) => {
                let context = Context { actor: Actor::CommandLine { uid: peer }, ..context };
                control::execute(&context, command).await
            }
            // Its text is not shown: goods may stand in it.
            Err(error) => Err(format!(
                "the daemon does not understand the command (column {}): is it another version?",
                error.column()
            )),
        }
    } else {
        Err(format!("the daemon listens to its own user and to root, not to uid {peer}"))
    };
    let mut line = serde_json::to_vec(&result).map_err(io::Error::other)?;
    line.push(b'\n');
    tokio::time::timeout(TRANSFER_TIMEOUT, stream.write_all(&line)).await?
}

/// Asks the daemon that runs on `folder`.
pub async fn ask(folder: &Path, command: &Command) -> Result<Answer, CommandError> {
    let path = folder.join(FILE);
    let none = |error: io::Error| {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind());
        let folder = folder.display();
        let advice = format!("no daemon runs on {folder}; start it with `settled dev` or `settled serve`");
        if absent { CommandError::daemon(advice) } else { CommandError::with_context(path.display(), error) }
    };
    let stream = UnixStream::connect(&path).await.map_err(none)?;
    let broken = |error: io::Error| CommandError::with_context("the daemon did not answer", error);
    let line = exchange(stream, command).await.map_err(broken)?;
    let answer: Result<Answer, String> = serde_json::from_slice(&line).map_err(|_| {
        CommandError::failed("the daemon answered something else than expected: is it another version?")
    })?;
    answer.map_err(CommandError::failed)
}

async fn exchange(mut stream: UnixStream, command: &Command) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(command).map_err(io::Error::other)?;
    line.push(b'\n');
    if u64::try_from(line.len()).is_ok_and(|length| length > LINE_BYTES_MAX) {
        return Err(io::Error::other("the command is too large; split what it imports"));
    }
    let (read, mut write) = stream.split();
    // A daemon that refuses to listen answers before everything was written; its answer says why.
    let written = tokio::time::timeout(TRANSFER_TIMEOUT, write.write_all(&line)).await?;
    let line = tokio::time::timeout(ANSWER_TIMEOUT, read_line(read)).await?;
    match (line, written) {
        (Ok(line), _) => Ok(line),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

async fn read_line(read: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a line was cut off")),
    }
}
