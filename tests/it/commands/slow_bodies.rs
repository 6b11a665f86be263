//! Memory of the daemon while many clients send the bodies of their requests byte by byte.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::commands::daemon::started;
use crate::commands::program::{install_migrated, run, settled};

const CONNECTIONS: usize = 100;
const BYTES_SENT: usize = 1_500;

/// The memory of a process in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_arrive_byte_by_byte_take_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = install_migrated(folder.path()).await;
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    let (daemon, said) = started(settled(&["serve", "--config", &config])).await;
    let address = said.split("settled listens on ").nth(1).unwrap().split_whitespace().next().unwrap();
    let pid = daemon.id().unwrap();

    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let head =
            "POST /api/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = resident_kib(pid);
    for _ in 0..BYTES_SENT {
        for client in &mut clients {
            client.write_all(b" ").await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let grown = resident_kib(pid).saturating_sub(before);
    let sent = CONNECTIONS * BYTES_SENT;
    assert!(grown < 16 * 1024, "{sent} bytes that arrived one by one take {grown} KiB");
}
