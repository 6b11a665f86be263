//! The side of the control socket on which the daemon answers requests. Only the daemon's own user and root may use the
//! socket. The number of connections, the length of requests and the waiting times are limited.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use crate::control::json_line::{encode_json_line, read_limited_line};
use crate::control::{ControlRequest, RequestHandler, SOCKET_FILE, TRANSFER_TIMEOUT};
use tasks::Tasks;

/// The maximum number of connections served at the same time. Further connections wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// The pause after a connection could not be accepted, for example because the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The user id of root.
const ROOT: u32 = 0;

/// The bound control socket of a data folder.
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlServer {
    /// Binds the socket in `folder` and removes an old socket. The caller holds the lock of the data folder, so the
    /// daemon that created the old socket has ended.
    ///
    /// # Errors
    /// Fails when the old socket cannot be removed or the new one cannot be created.
    pub fn remove_old_and_bind_socket(folder: &Path) -> io::Result<ControlServer> {
        let path = folder.join(SOCKET_FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(ControlServer { listener, path })
    }

    /// Serves requests until `stop` is true, then removes the socket.
    pub async fn serve_requests_until_stopped(
        self,
        handler: Arc<dyn RequestHandler>,
        tasks: Tasks,
        mut stop: watch::Receiver<bool>,
    ) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accept_within_limit = async {
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accept_within_limit => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let handler = handler.clone();
                    tasks.spawn("control", async move {
                        if let Err(error) = check_user_and_answer_request(stream, handler.as_ref()).await {
                            debug!("a connection of the control socket ended early: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!("the control socket cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!("the control socket {} cannot be removed: {error}", self.path.display());
        }
    }
}

/// Reads one request, executes it and sends the response. A user other than root and the daemon's own user is refused.
async fn check_user_and_answer_request(mut stream: UnixStream, handler: &dyn RequestHandler) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let response = if [rustix::process::geteuid().as_raw(), ROOT].contains(&uid) {
        let (reader, _) = stream.split();
        let line = tokio::time::timeout(TRANSFER_TIMEOUT, read_limited_line(reader)).await??;
        match serde_json::from_slice::<ControlRequest>(&line) {
            Ok(request) => handler.execute_request(uid, request).await,
            // The message contains only the column. The text of the parser's error may quote goods from the request,
            // which must not be printed.
            Err(error) => Err(format!(
                "the daemon does not understand the request (column {}); use a `settled` of the daemon's version",
                error.column()
            )),
        }
    } else {
        Err(format!("uid {uid} may not use the control socket; run the command as the daemon's user or as root"))
    };
    let line = encode_json_line(&response)?;
    tokio::time::timeout(TRANSFER_TIMEOUT, stream.write_all(&line)).await?
}
