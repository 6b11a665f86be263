//! The binary under test, and a demo in a temporary folder.
#![expect(clippy::unwrap_used, reason = "what helps a test may fail as a test does")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The maximum time to wait for one step of a program. No step takes so long, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The exit code and output of a command.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Asserts that the command succeeded and returns its standard output.
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

pub fn settled(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub async fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, "").await
}

/// Runs a command with this text on standard input.
pub async fn run_with(arguments: &[&str], input: &str) -> Ended {
    let mut command = settled(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends in time").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().expect("no signal ends it"), out: text(output.stdout), err: text(output.stderr) }
}

/// Writes a configuration with a temporary data folder and a free port, and migrates it.
pub async fn install_migrated(folder: &Path) -> String {
    let file = write_configuration(folder).await;
    run(&["migrate", "--config", &file]).await.done();
    file
}

/// Writes the same configuration with an empty data folder.
pub async fn write_configuration(folder: &Path) -> String {
    let config = folder.join("settled.toml");
    let file = config.to_str().unwrap().to_owned();
    run(&["init", "--config", &file]).await.done();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("/var/lib/settled", folder.join("data").to_str().unwrap());
    std::fs::write(&config, text.replace("127.0.0.1:8080", "127.0.0.1:0")).unwrap();
    file
}

/// A running `settled dev` or `settled serve`.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub base: String,
    client: reqwest::Client,
}

impl Running {
    pub async fn demo(folder: &Path, more: &[&str]) -> Running {
        let folder = folder.to_str().unwrap();
        let mut command = settled(&["dev", "--listen", "127.0.0.1:0", "--data", folder]);
        command.args(more);
        // Short block times, because the stories need many blocks.
        for chain in ["BITCOIN", "BSC", "ETHEREUM", "TRON"] {
            command.env(format!("SETTLED__CHAINS__{chain}__BLOCK_TIME_MS"), "200");
        }
        Running::spawn(command, "products ").await
    }

    /// Starts the program and reads its address, which follows `mark` on a line of standard output.
    pub async fn spawn(mut command: Command, mark: &str) -> Running {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let base = loop {
            let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("it starts in time").unwrap();
            let line = line.expect("it runs on");
            if let Some((_, rest)) = line.split_once(mark) {
                break rest.trim().trim_end_matches("/api/products").to_owned();
            }
        };
        Running { child, lines, base, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    /// Reads the output up to a line with `mark`.
    pub async fn says(&mut self, mark: &str) -> String {
        let mut said = String::new();
        while let Some(line) = tokio::time::timeout(LIMIT, self.lines.next_line()).await.unwrap().unwrap() {
            said.push_str(&line);
            said.push('\n');
            if line.contains(mark) {
                return said;
            }
        }
        panic!("it ended without a word of `{mark}`: {said}");
    }

    pub async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.client.post(format!("{}{path}", self.base)).json(body).send().await.unwrap().json().await.unwrap()
    }

    /// Orders two pieces of the demo's first product and returns the order number.
    pub async fn order(&self, coin: &str) -> String {
        let product = self.get("/api/products").await["products"][0]["id"].clone();
        let body = json!({ "productId": product, "quantity": 2, "contactEmail": "buyer@example.com",
            "paymentMethod": "crypto", "coin": coin });
        let answer = self.post("/api/orders", &body).await;
        assert_eq!(answer["success"], true, "{answer}");
        answer["order"]["order_no"].as_str().unwrap().to_owned()
    }

    /// Sends SIGKILL: no handler runs, nothing is flushed.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn terminate(child: &Child) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Sends SIGTERM, as a service manager does.
    pub async fn end(mut self) {
        Running::terminate(&self.child);
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await.expect("it ends in time").unwrap();
        assert!(status.success(), "{status}");
    }
}
