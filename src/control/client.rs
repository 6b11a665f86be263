//! The side of the control socket on which a command sends requests to the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::control::json_line::{LINE_BYTES_MAX, encode_json_line, read_limited_line};
use crate::control::{ControlRequest, ControlResponse, SOCKET_FILE, TRANSFER_TIMEOUT};

/// The maximum time to wait for a response, one hour, because a backup of a large database takes long.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The reason why a request received no valid response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens on the socket of this data folder.
    #[error("no daemon runs on {}; start it with `settled dev` or `settled serve`", .0.display())]
    NoDaemon(PathBuf),
    /// The socket cannot be opened.
    #[error("{}: {error}", .path.display())]
    Connect { path: PathBuf, error: io::Error },
    /// The connection broke while the request or the response was sent, or the time limit passed.
    #[error("the daemon did not respond: {0}")]
    Exchange(io::Error),
    /// The response does not have the format of this version.
    #[error("the daemon's response is not understood; use a `settled` of the daemon's version")]
    Malformed,
}

/// Sends a request to the daemon that runs on `folder` and returns its response.
///
/// # Errors
/// Fails when no daemon sends a valid response. When the daemon refused the request or the operation failed, the
/// returned response is an `Err` with the reason.
pub async fn send_request(folder: &Path, request: &ControlRequest) -> Result<ControlResponse, ClientError> {
    let path = folder.join(SOCKET_FILE);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => {
            return Err(ClientError::NoDaemon(folder.to_owned()));
        }
        Err(error) => return Err(ClientError::Connect { path, error }),
    };
    let line = send_and_receive_line(stream, request).await.map_err(ClientError::Exchange)?;
    serde_json::from_slice(&line).map_err(|_| ClientError::Malformed)
}

async fn send_and_receive_line(mut stream: UnixStream, request: &ControlRequest) -> io::Result<Vec<u8>> {
    let line = encode_json_line(request)?;
    if u64::try_from(line.len()).is_ok_and(|length| length > LINE_BYTES_MAX) {
        return Err(io::Error::other("the command is too large; split what it imports"));
    }
    let (reader, mut writer) = stream.split();
    // A daemon that refuses the user responds without reading the request. Writing the request then fails, but the
    // response contains the reason.
    let written = tokio::time::timeout(TRANSFER_TIMEOUT, writer.write_all(&line)).await?;
    let response = tokio::time::timeout(RESPONSE_TIMEOUT, read_limited_line(reader)).await?;
    match (response, written) {
        (Ok(line), _) => Ok(line),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}
