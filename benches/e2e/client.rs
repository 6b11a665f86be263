//! A minimal HTTP client. It shares the machine with the server, so it must use little CPU: one connection, one request at a
//! time, and no parsing beyond the length of the answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::report::{nanos, sorted};

pub struct HttpConnection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl HttpConnection {
    pub async fn connect(address: SocketAddr) -> HttpConnection {
        let stream = TcpStream::connect(address).await.expect("the daemon listens");
        stream.set_nodelay(true).expect("the socket is open");
        HttpConnection { stream, buffer: Vec::with_capacity(16 << 10) }
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// # Panics
    ///
    /// Panics when the answer has another status than expected.
    pub async fn request(&mut self, request: &[u8], status: &str) -> &str {
        self.stream.write_all(request).await.expect("the daemon accepts the request");
        self.buffer.clear();
        let (head, length) = loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the daemon answers");
            assert!(read > 0, "the daemon hung up");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).expect("the answer is UTF-8");
            assert_eq!(head.get(9..12), Some(status), "{head}");
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            break (end + 4, length.unwrap_or(0usize));
        };
        while self.buffer.len() < head + length {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the daemon answers");
            assert!(read > 0, "the daemon hung up");
        }
        std::str::from_utf8(&self.buffer[head..]).expect("the answer is UTF-8")
    }
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The result of a run with concurrent clients.
pub struct LoadResult {
    /// The wall time divided by the number of answers.
    pub each: Duration,
    /// The latency of each answer in nanoseconds, ascending.
    pub latencies: Vec<u64>,
}

/// Sends the same request `answers` times, distributed over concurrent clients.
pub async fn run_clients(
    address: SocketAddr,
    clients: u32,
    answers: u32,
    request: &[u8],
    status: &'static str,
) -> LoadResult {
    let mut open = Vec::new();
    for _ in 0..clients {
        open.push(HttpConnection::connect(address).await);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in open {
        let request = request.to_vec();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for _ in 0..answers / clients {
                let start = Instant::now();
                client.request(&request, status).await;
                latencies.push(nanos(start.elapsed()));
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    let each = start.elapsed() / u32::try_from(latencies.len()).expect("the number is small");
    LoadResult { each, latencies: sorted(latencies.into_iter()) }
}
