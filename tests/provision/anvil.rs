//! A real EVM node of its own for a test: started on a free port, mined, reorganised, frozen and thrown away at will.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

use crate::{Error, Result, contracts::Artifact, node, npm, paths, process::ServerProcess};

/// The words anvil derives its ten rich accounts from, at m/44'/60'/0'/0/0 and on.
pub const MNEMONIC: &str = "test test test test test test test test test test test junk";

/// Longer than any answer takes on a busy machine; only a frozen node reaches it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Enough for a batch of a hundred payments, and below the limit that recent rules set for one transaction.
const GAS: u64 = 10_000_000;

/// Who makes the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mining {
    /// Every transaction gets a block of its own at once.
    #[default]
    Automatic,
    /// Nobody but [`Anvil::mine`].
    Manual,
    /// A block every so many seconds.
    EverySeconds(u32),
}

#[derive(Clone, Debug)]
pub struct AnvilOptions {
    pub chain_id: u64,
    pub mining: Mining,
    /// A node that is started again where an earlier one was, or any free port.
    pub port: Option<u16>,
    /// Passed as they are, for example `["--state", path]` or `["--slots-in-an-epoch", "1"]`.
    pub extra: Vec<String>,
}

impl Default for AnvilOptions {
    fn default() -> AnvilOptions {
        AnvilOptions { chain_id: 31_337, mining: Mining::Automatic, port: None, extra: Vec::new() }
    }
}

/// A running node; dropping it kills it.
pub struct Anvil {
    process: ServerProcess,
    port: u16,
    client: reqwest::Client,
}

impl Anvil {
    /// Starts the `anvil` named by the variable ANVIL, found on PATH, or installed by npm.
    pub async fn start(options: AnvilOptions) -> Result<Anvil> {
        node::run_blocking(move || Anvil::start_blocking(&options)).await
    }

    /// The same for callers outside a runtime.
    pub fn start_blocking(options: &AnvilOptions) -> Result<Anvil> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let log = paths::folder("logs")?.join(format!(
            "anvil-{}-{}.log",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        ));
        let mut command = vec![binary()?.display().to_string()];
        command.extend(["--host", "127.0.0.1", "--port"].map(String::from));
        command.push(options.port.unwrap_or(0).to_string());
        command.extend([String::from("--chain-id"), options.chain_id.to_string()]);
        match options.mining {
            Mining::Automatic => {}
            Mining::Manual => command.push(String::from("--no-mining")),
            Mining::EverySeconds(seconds) => command.extend([String::from("--block-time"), seconds.to_string()]),
        }
        command.extend(options.extra.iter().cloned());

        let (process, port) = ServerProcess::start(&command, &log, listening_port)?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_LIMIT)
            .build()
            .map_err(|cause| Error::context("building an HTTP client", cause))?;
        Ok(Anvil { process, port, client })
    }

    /// `http://127.0.0.1:{port}`; the same port speaks WebSocket.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// One JSON-RPC call; `params` is an array. An error of the node is an [`Error`] with its message.
    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let failed = |cause: reqwest::Error| self.process.failed(&format!("anvil did not answer {method} ({cause})"));
        let response = self.client.post(self.url()).json(&request).send().await.map_err(failed)?;
        let mut answer: Value = response.json().await.map_err(failed)?;
        match answer.get("error") {
            Some(error) => Err(Error::new(format!("anvil refused {method} {params}: {error}"))),
            None => Ok(answer["result"].take()),
        }
    }

    /// The height of the tip.
    pub async fn height(&self) -> Result<u64> {
        quantity(&self.rpc("eth_blockNumber", json!([])).await?)
    }

    /// Makes `blocks` blocks; what waits in the pool goes into the first.
    pub async fn mine(&self, blocks: u64) -> Result<()> {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")])).await.map(drop)
    }

    /// Replaces the last `depth` blocks by as many others, which hold none of the replaced transactions.
    pub async fn reorg(&self, depth: u64) -> Result<()> {
        self.rpc("anvil_reorg", json!([depth, []])).await.map(drop)
    }

    /// Removes the last `depth` blocks and puts nothing in their place: the tip is lower afterwards.
    pub async fn rollback(&self, depth: u64) -> Result<()> {
        self.rpc("anvil_rollback", json!([depth])).await.map(drop)
    }

    pub async fn set_automine(&self, automatic: bool) -> Result<()> {
        self.rpc("evm_setAutomine", json!([automatic])).await.map(drop)
    }

    /// Stops the node where it stands: it accepts connections and answers nobody until [`Anvil::resume`].
    pub fn pause(&self) -> Result<()> {
        self.process.freeze()
    }

    pub fn resume(&self) -> Result<()> {
        self.process.thaw()
    }

    /// The ten accounts that anvil holds the keys of, each with 10 000 ether.
    pub async fn accounts(&self) -> Result<Vec<Address>> {
        parse(self.rpc("eth_accounts", json!([])).await?)
    }

    /// In wei.
    pub async fn balance(&self, of: Address) -> Result<U256> {
        parse(self.rpc("eth_getBalance", json!([of, "latest"])).await?)
    }

    /// Gives an account an amount of wei out of nothing, without a transaction.
    pub async fn set_balance(&self, of: Address, wei: U256) -> Result<()> {
        self.rpc("anvil_setBalance", json!([of, wei])).await.map(drop)
    }

    /// Sends wei and data from one of [`Anvil::accounts`] and gives the transaction's hash. It is in a block already when
    /// blocks are made automatically; it is there with status 0 when the call reverted, which is no error here.
    pub async fn send(&self, from: Address, to: Address, wei: U256, data: &[u8]) -> Result<B256> {
        self.submit(json!({ "from": from, "to": to, "value": wei, "data": const_hex::encode_prefixed(data) })).await
    }

    async fn submit(&self, mut transaction: Value) -> Result<B256> {
        // A limit of its own: the node's estimate would turn a call that reverts into an error without a transaction.
        transaction["gas"] = json!(U256::from(GAS));
        if self.rpc("anvil_getAutomine", json!([])).await? == json!(true) {
            // Plain eth_sendTransaction answers before the block is there.
            let mut receipt = self.rpc("eth_sendTransactionSync", json!([transaction])).await?;
            return parse(receipt["transactionHash"].take());
        }
        parse(self.rpc("eth_sendTransaction", json!([transaction])).await?)
    }

    /// What a read-only call returns.
    pub async fn call(&self, to: Address, data: &[u8]) -> Result<Bytes> {
        let call = json!({ "to": to, "data": const_hex::encode_prefixed(data) });
        parse(self.rpc("eth_call", json!([call, "latest"])).await?)
    }

    /// The receipt, `None` while the transaction is in no block.
    pub async fn receipt(&self, transaction: B256) -> Result<Option<Value>> {
        let receipt = self.rpc("eth_getTransactionReceipt", json!([transaction])).await?;
        Ok(if receipt.is_null() { None } else { Some(receipt) })
    }

    /// Puts a contract on the chain from the first account, mining a block if nobody else does, and gives its address.
    /// `arguments` are the ABI-encoded arguments of the constructor.
    pub async fn deploy(&self, artifact: &Artifact, arguments: &[u8]) -> Result<Address> {
        let owner = self.accounts().await?.first().copied().ok_or_else(|| Error::new("anvil has no accounts"))?;
        let code = [artifact.bytecode.as_ref(), arguments].concat();
        let transaction = json!({ "from": owner, "data": const_hex::encode_prefixed(code) });
        let hash = self.submit(transaction).await?;
        let receipt = match self.receipt(hash).await? {
            Some(receipt) => receipt,
            None => {
                self.mine(1).await?;
                self.receipt(hash).await?.ok_or_else(|| Error::new(format!("{hash} was not mined")))?
            }
        };
        if receipt["status"] != "0x1" {
            return Err(Error::new(format!("the constructor of {} reverted: {receipt}", artifact.name)));
        }
        parse(receipt["contractAddress"].clone())
    }
}

fn binary() -> Result<PathBuf> {
    if let Some(path) = paths::program("ANVIL", "anvil")? {
        return Ok(path);
    }
    let path = npm::install("tests/oracles")?.join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::new("npm has anvil for Linux on x86-64 only; install Foundry and name its anvil in ANVIL"))
    }
}

/// `Listening on 127.0.0.1:34567`
fn listening_port(line: &str) -> Option<u16> {
    line.strip_prefix("Listening on ")?.rsplit(':').next()?.trim().parse().ok()
}

fn quantity(value: &Value) -> Result<u64> {
    let text = value.as_str().and_then(|text| text.strip_prefix("0x"));
    text.and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Error::new(format!("anvil answered {value} where a quantity was expected")))
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|cause| Error::context(format!("reading {value} from anvil"), cause))
}
