//! Runs a real EVM node (anvil) for a test, on a free port. Tests mine, reorganise, pause and drop it.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

use crate::{Error, Result, contracts::Artifact, node, npm, paths, process::ServerProcess};

/// The phrase from which anvil derives its ten funded accounts, at m/44'/60'/0'/0/0 to m/44'/60'/0'/0/9.
pub const MNEMONIC: &str = "test test test test test test test test test test test junk";

/// The timeout of a JSON-RPC call. It is long enough for a busy machine, so only a paused node exceeds it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The gas limit of transactions: enough for a batch of a hundred payments, and below the limit per transaction of EIP-7825.
const GAS: u64 = 10_000_000;

/// The event on which the node mines a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mining {
    /// Every transaction is mined at once, in its own block.
    #[default]
    Automatic,
    /// Only [`Anvil::mine`] produces blocks.
    Manual,
    /// A block is produced every given number of seconds.
    EverySeconds(u32),
}

/// The options of a node.
#[derive(Clone, Debug)]
pub struct AnvilOptions {
    pub chain_id: u64,
    pub mining: Mining,
    /// The port to listen on. `None` chooses a free port.
    pub port: Option<u16>,
    /// Additional command-line arguments, such as `["--state", path]` or `["--slots-in-an-epoch", "1"]`.
    pub extra: Vec<String>,
}

impl Default for AnvilOptions {
    fn default() -> AnvilOptions {
        AnvilOptions { chain_id: 31_337, mining: Mining::Automatic, port: None, extra: Vec::new() }
    }
}

/// A running node. Dropping it kills the node.
pub struct Anvil {
    process: ServerProcess,
    port: u16,
    client: reqwest::Client,
}

impl Anvil {
    /// Starts the `anvil` named by the environment variable ANVIL, found on PATH, or installed by npm.
    pub async fn start_node(options: AnvilOptions) -> Result<Anvil> {
        node::run_on_blocking_thread(move || Anvil::start_node_blocking(&options)).await
    }

    /// Does the same as [`Anvil::start_node`], for callers without an async runtime.
    pub fn start_node_blocking(options: &AnvilOptions) -> Result<Anvil> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let log = paths::create_cache_folder("logs")?.join(format!(
            "anvil-{}-{}.log",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        ));
        let mut command = vec![find_or_install_anvil()?.display().to_string()];
        command.extend(["--host", "127.0.0.1", "--port"].map(String::from));
        command.push(options.port.unwrap_or(0).to_string());
        command.extend([String::from("--chain-id"), options.chain_id.to_string()]);
        match options.mining {
            Mining::Automatic => {}
            Mining::Manual => command.push(String::from("--no-mining")),
            Mining::EverySeconds(seconds) => command.extend([String::from("--block-time"), seconds.to_string()]),
        }
        command.extend(options.extra.iter().cloned());

        let (process, port) = ServerProcess::start(&command, &log, parse_listening_port)?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_LIMIT)
            .build()
            .map_err(|cause| Error::context("building an HTTP client", cause))?;
        Ok(Anvil { process, port, client })
    }

    /// Returns `http://127.0.0.1:{port}`. The port serves WebSocket too.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a JSON-RPC call and returns its result. `params` is an array.
    ///
    /// # Errors
    ///
    /// Fails with the node's message when the node returns an error, or when the node does not reply in time.
    pub async fn call_rpc(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let failed =
            |cause: reqwest::Error| self.process.error_with_log(&format!("anvil did not answer {method} ({cause})"));
        let response = self.client.post(self.url()).json(&request).send().await.map_err(failed)?;
        let mut answer: Value = response.json().await.map_err(failed)?;
        match answer.get("error") {
            Some(error) => Err(Error::new(format!("anvil refused {method} {params}: {error}"))),
            None => Ok(answer["result"].take()),
        }
    }

    /// Returns the height of the tip.
    pub async fn fetch_height(&self) -> Result<u64> {
        parse_quantity(&self.call_rpc("eth_blockNumber", json!([])).await?)
    }

    /// Mines `blocks` blocks. The first one includes the pending transactions.
    pub async fn mine(&self, blocks: u64) -> Result<()> {
        self.call_rpc("anvil_mine", json!([format!("{blocks:#x}")])).await.map(drop)
    }

    /// Replaces the last `depth` blocks with as many empty blocks. The replaced transactions are lost.
    pub async fn reorg(&self, depth: u64) -> Result<()> {
        self.call_rpc("anvil_reorg", json!([depth, []])).await.map(drop)
    }

    /// Removes the last `depth` blocks without replacement, so the tip is lower afterwards.
    pub async fn rollback(&self, depth: u64) -> Result<()> {
        self.call_rpc("anvil_rollback", json!([depth])).await.map(drop)
    }

    /// Switches automatic mining on or off.
    pub async fn set_automine(&self, automatic: bool) -> Result<()> {
        self.call_rpc("evm_setAutomine", json!([automatic])).await.map(drop)
    }

    /// Pauses the node: it accepts connections and sends no answers until [`Anvil::resume`].
    pub fn pause(&self) -> Result<()> {
        self.process.freeze_process()
    }

    /// Continues a paused node.
    pub fn resume(&self) -> Result<()> {
        self.process.thaw_process()
    }

    /// Returns the ten accounts whose keys anvil has. Each begins with 10,000 ether.
    pub async fn list_accounts(&self) -> Result<Vec<Address>> {
        parse_json(self.call_rpc("eth_accounts", json!([])).await?)
    }

    /// Returns the balance of an account, in wei.
    pub async fn fetch_balance(&self, account: Address) -> Result<U256> {
        parse_json(self.call_rpc("eth_getBalance", json!([account, "latest"])).await?)
    }

    /// Sets the balance of an account, in wei, without a transaction.
    pub async fn set_balance(&self, account: Address, wei: U256) -> Result<()> {
        self.call_rpc("anvil_setBalance", json!([account, wei])).await.map(drop)
    }

    /// Sends a transaction from one of [`Anvil::list_accounts`] and returns its hash. With automatic mining it is in a block when
    /// this returns. A reverted call is not an error: the transaction is mined with status 0.
    pub async fn send_transaction(&self, from: Address, to: Address, wei: U256, data: &[u8]) -> Result<B256> {
        self.submit_and_wait(json!({ "from": from, "to": to, "value": wei, "data": const_hex::encode_prefixed(data) }))
            .await
    }

    async fn submit_and_wait(&self, mut transaction: Value) -> Result<B256> {
        // A fixed gas limit avoids the node's estimate, which would fail for a call that reverts.
        transaction["gas"] = json!(U256::from(GAS));
        if self.call_rpc("anvil_getAutomine", json!([])).await? == json!(true) {
            // `eth_sendTransaction` would answer before the block exists.
            let mut receipt = self.call_rpc("eth_sendTransactionSync", json!([transaction])).await?;
            return parse_json(receipt["transactionHash"].take());
        }
        parse_json(self.call_rpc("eth_sendTransaction", json!([transaction])).await?)
    }

    /// Returns the result of a read-only call.
    pub async fn call_contract(&self, to: Address, data: &[u8]) -> Result<Bytes> {
        let call = json!({ "to": to, "data": const_hex::encode_prefixed(data) });
        parse_json(self.call_rpc("eth_call", json!([call, "latest"])).await?)
    }

    /// Returns the receipt of a transaction, or `None` while it is in no block.
    pub async fn find_receipt(&self, transaction: B256) -> Result<Option<Value>> {
        let receipt = self.call_rpc("eth_getTransactionReceipt", json!([transaction])).await?;
        Ok(if receipt.is_null() { None } else { Some(receipt) })
    }

    /// Deploys a contract from the first account and returns its address. Mines a block if the transaction is still pending.
    /// `arguments` are the ABI-encoded arguments of the constructor.
    pub async fn deploy_contract(&self, artifact: &Artifact, arguments: &[u8]) -> Result<Address> {
        let owner = self.list_accounts().await?.first().copied().ok_or_else(|| Error::new("anvil has no accounts"))?;
        let code = [artifact.bytecode.as_ref(), arguments].concat();
        let transaction = json!({ "from": owner, "data": const_hex::encode_prefixed(code) });
        let hash = self.submit_and_wait(transaction).await?;
        let receipt = match self.find_receipt(hash).await? {
            Some(receipt) => receipt,
            None => {
                self.mine(1).await?;
                self.find_receipt(hash).await?.ok_or_else(|| Error::new(format!("{hash} was not mined")))?
            }
        };
        if receipt["status"] != "0x1" {
            return Err(Error::new(format!("the constructor of {} reverted: {receipt}", artifact.name)));
        }
        parse_json(receipt["contractAddress"].clone())
    }
}

fn find_or_install_anvil() -> Result<PathBuf> {
    if let Some(path) = paths::find_program("ANVIL", "anvil")? {
        return Ok(path);
    }
    let path = npm::install_packages("tests/oracles")?.join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::new(
            "npm has anvil only for Linux on x86-64; install Foundry and set ANVIL to the path of its anvil",
        ))
    }
}

/// Returns the port in the line `Listening on 127.0.0.1:34567`, or `None` for any other line.
fn parse_listening_port(line: &str) -> Option<u16> {
    line.strip_prefix("Listening on ")?.rsplit(':').next()?.trim().parse().ok()
}

/// Parses a hexadecimal quantity.
fn parse_quantity(value: &Value) -> Result<u64> {
    let text = value.as_str().and_then(|text| text.strip_prefix("0x"));
    text.and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Error::new(format!("anvil returned {value} instead of a quantity")))
}

fn parse_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|cause| Error::context(format!("parsing {value} from anvil"), cause))
}
