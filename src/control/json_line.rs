//! The encoding of requests and responses on the control socket: each is one line of JSON.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// The maximum length of a request or response, in bytes. Commands split larger imports of goods into several requests.
pub const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Returns the value as JSON, followed by a line feed. The length is not checked here.
pub fn encode_json_line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one line and returns it without its line feed. Fails when the line is longer than [`LINE_BYTES_MAX`].
pub async fn read_limited_line(stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line is incomplete or too long")),
    }
}
