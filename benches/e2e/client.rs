//! The cheapest client there is, because it shares the machine with the server: one connection, one request at a time, no
//! parsing beyond the length of an answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::report::{nanos, sorted};

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("the daemon listens");
        stream.set_nodelay(true).expect("an open socket");
        Client { stream, buffer: Vec::with_capacity(16 << 10) }
    }

    /// The body of an answer with the status that is expected.
    pub async fn ask(&mut self, request: &[u8], status: &str) -> &str {
        self.stream.write_all(request).await.expect("the daemon reads");
        self.buffer.clear();
        let (head, length) = loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the daemon answers");
            assert!(read > 0, "the daemon hung up");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).expect("text");
            assert_eq!(head.get(9..12), Some(status), "{head}");
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            break (end + 4, length.unwrap_or(0usize));
        };
        while self.buffer.len() < head + length {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the daemon answers");
            assert!(read > 0, "the daemon hung up");
        }
        std::str::from_utf8(&self.buffer[head..]).expect("text")
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

/// What a crowd of clients saw.
pub struct Crowd {
    /// Wall time by the number of answers.
    pub each: Duration,
    /// Of single answers, in nanoseconds, ascending.
    pub latencies: Vec<u64>,
}

/// So many clients ask for the same until there were so many answers.
pub async fn crowd(address: SocketAddr, clients: u32, answers: u32, request: &[u8], status: &'static str) -> Crowd {
    let mut open = Vec::new();
    for _ in 0..clients {
        open.push(Client::connect(address).await);
    }
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in open {
        let request = request.to_vec();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for _ in 0..answers / clients {
                let start = Instant::now();
                client.ask(&request, status).await;
                latencies.push(nanos(start.elapsed()));
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    let each = start.elapsed() / u32::try_from(latencies.len()).expect("few");
    Crowd { each, latencies: sorted(latencies.into_iter()) }
}
