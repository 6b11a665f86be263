//! The control socket: a Unix socket in the data folder over which commands reach the running daemon. A request names
//! an operation and carries its arguments as JSON. This module knows no operation; a [`Handler`] carries them out.

pub mod client;
pub mod server;

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// The name of the socket in the data folder.
const SOCKET_FILE: &str = "control.sock";
/// Longest request or response in bytes. Commands split larger imports of goods into several requests.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Time to send a request or a response.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request: one line of JSON. It has no `Debug`, because its arguments may hold goods and tokens.
#[derive(Serialize, Deserialize)]
pub struct Request {
    /// The name of the operation.
    pub operation: String,
    /// The arguments of the operation.
    pub arguments: Value,
}

/// The response to a request, one line of JSON: the operation's output, or a sentence for the operator that says why it
/// was not carried out.
pub type Response = Result<Value, String>;

/// Carries out requests that arrive over the socket.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Carries out a request of the operating system's user `uid`.
    async fn handle(&self, uid: u32, request: Request) -> Response;
}

/// Reads one line without its line feed.
async fn read_limited_line(stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line is incomplete or too long")),
    }
}
