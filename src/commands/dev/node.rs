//! A local EVM node in place of the simulated Ethereum. On anvil a token that behaves like Tether's is deployed, once.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use chain::{Amount, AssetId, AssetKind};
use serde_json::{Value, json};
use url::Url;

use crate::commands::exit::CommandError;
use config::ChainConfig;

/// Compiled from `tests/standins/contracts/UsdtLike.sol`.
const USDT_LIKE: &str = include_str!("usdt_like.hex");
const TRANSFER: &str = "a9059cbb";
const MINT: &str = "40c10f19";
const DEPLOY_GAS: &str = "0x4c4b40";
/// Ten million USDT for whoever deployed it.
const MINTED: u64 = 10_000_000_000_000;
/// Of anvil's first account, the same on every machine.
const ANVIL_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RECEIPT_POLLS: u32 = 100;

#[derive(Clone)]
pub struct Node {
    pub url: Url,
    /// Named by its first block: another run of anvil is another chain.
    chain: String,
    chain_id: u64,
    is_anvil: bool,
    usdt: Option<String>,
}

/// Looks at the node and makes it ready to be paid on.
pub async fn prepare(folder: &Path, url: &Url) -> Result<Node, CommandError> {
    let failed = |problem: String| CommandError::failed(format!("--evm {url}: {problem}"));
    let rpc = Rpc::new(url).map_err(failed)?;
    let chain_id = rpc.call("eth_chainId", json!([])).await.and_then(|id| quantity(&id)).map_err(failed)?;
    let genesis = rpc.call("eth_getBlockByNumber", json!(["0x0", false])).await.map_err(failed)?;
    let hash = genesis["hash"]
        .as_str()
        .and_then(|hash| hash.get(2..10))
        .ok_or_else(|| failed("it has no first block".into()))?;
    let version = rpc.call("web3_clientVersion", json!([])).await.map_err(failed)?;
    let is_anvil = version.as_str().is_some_and(|version| version.starts_with("anvil"));
    let chain = format!("evm-{hash}");
    let usdt =
        if is_anvil { Some(rpc.usdt(&folder.join(format!("{chain}.usdt"))).await.map_err(failed)?) } else { None };
    if is_anvil && rpc.call("anvil_getAutomine", json!([])).await.map_err(failed)? == json!(true) {
        // Otherwise there is a block for a payment and never one on top of it.
        rpc.call("evm_setIntervalMining", json!([1])).await.map_err(failed)?;
    }
    Ok(Node { url: url.clone(), chain, chain_id, is_anvil, usdt })
}

impl Node {
    /// The chain and its coins as configuration.
    pub fn describe(&self, text: &mut String) -> fmt::Result {
        let Node { url, chain, chain_id, usdt, .. } = self;
        let coin = usdt.as_ref().map_or_else(String::new, |_| format!("{chain}/usdt"));
        writeln!(text, "[surfaces.checkout.assets]\neth = \"{chain}/eth\"\nerc20_usdt = \"{coin}\"\n")?;
        writeln!(
            text,
            "[chains.{chain}]\nenabled = true\nmode = \"test\"\nfamily = \"evm\"\nidentity = \"{chain_id}\"\n\
             endpoints = [{{ url = \"{url}\" }}]\nblock_time_ms = 1_000\npoll_ms = 250\nfinality = \"depth\"\n\
             confirmations = [{{ depth = 3 }}]\nfinal_depth = 12"
        )?;
        let ether = "{ code = \"eth\", symbol = \"ETH\", decimals = 18, quote_decimals = 6 }";
        let token = usdt.as_ref().map_or_else(String::new, |contract| {
            format!(", {{ code = \"usdt\", contract = \"{contract}\", symbol = \"USDT\", decimals = 6, quote_decimals = 6 }}")
        });
        writeln!(text, "assets = [{ether}{token}]")
    }

    /// How a person pays on it.
    pub fn explain(&self, text: &mut String) -> fmt::Result {
        let Node { url, chain_id, is_anvil, usdt, .. } = self;
        writeln!(text, "\nThe coin eth is on the node at {url} (chain id {chain_id}), paid with foundry's cast:\n")?;
        let key = if *is_anvil { format!("--private-key {ANVIL_KEY}") } else { "--private-key …".into() };
        writeln!(text, "   cast send --rpc-url {url} {key} --value 0.01ether ADDRESS")?;
        if let Some(contract) = usdt {
            writeln!(text, "\nThe coin erc20_usdt is the test token {contract} on it; amounts are in millionths:\n")?;
            writeln!(text, "   cast send --rpc-url {url} {key} {contract} 'transfer(address,uint256)' ADDRESS 690608")?;
            writeln!(text, "\nThe key is anvil's well-known test key. `dev pay` pays there too.")?;
        }
        Ok(())
    }
}

/// Pays from the node's own first account and gives the transaction's hash.
pub async fn pay(url: &Url, chain: &ChainConfig, asset: &AssetId, to: &str, amount: Amount) -> Result<String, String> {
    let rpc = Rpc::new(url)?;
    let from = rpc.account().await?;
    let known = chain.assets().map(|(_, asset)| asset).find(|known| known.id == *asset);
    let transaction = match &known.ok_or("the asset is not configured any more")?.kind {
        AssetKind::Native => json!({ "from": from, "to": to, "value": format!("{:#x}", amount.units()) }),
        AssetKind::Token { contract } => {
            json!({ "from": from, "to": contract, "data": call(TRANSFER, to, amount)? })
        }
    };
    let hash = rpc.call("eth_sendTransaction", json!([transaction])).await?;
    hash.as_str().map(String::from).ok_or_else(|| "the node gave no hash".into())
}

/// The call of a function that takes an address and an amount.
fn call(selector: &str, address: &str, amount: Amount) -> Result<String, String> {
    let address = address.strip_prefix("0x").ok_or("no address of an EVM chain")?.to_lowercase();
    Ok(format!("0x{selector}{address:0>64}{:064x}", amount.units()))
}

struct Rpc {
    url: Url,
    client: reqwest::Client,
}

impl Rpc {
    fn new(url: &Url) -> Result<Rpc, String> {
        let client =
            reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build().map_err(|e| e.to_string())?;
        Ok(Rpc { url: url.clone(), client })
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let failed =
            |e: reqwest::Error| format!("the node did not answer {method}: {:#}", anyhow::Error::from(e.without_url()));
        let answer = self.client.post(self.url.clone()).json(&request).send().await.map_err(failed)?;
        let mut answer: Value = answer.json().await.map_err(failed)?;
        match answer.get("error") {
            Some(error) => {
                Err(format!("the node refused {method}: {}", error["message"].as_str().unwrap_or("no message")))
            }
            None => Ok(answer["result"].take()),
        }
    }

    async fn account(&self) -> Result<String, String> {
        let accounts = self.call("eth_accounts", json!([])).await?;
        let first = accounts.get(0).and_then(Value::as_str).map(String::from);
        first.ok_or_else(|| "the node holds no account that could pay; pay with a wallet".into())
    }

    /// The token of an earlier start, if it is still there, or a new one.
    async fn usdt(&self, file: &Path) -> Result<String, String> {
        if let Ok(known) = std::fs::read_to_string(file) {
            let known = known.trim().to_owned();
            if self.call("eth_getCode", json!([known, "latest"])).await?.as_str().is_some_and(|code| code.len() > 2) {
                return Ok(known);
            }
        }
        let owner = self.account().await?;
        let deploy = json!({ "from": owner, "data": format!("0x{}", USDT_LIKE.trim()), "gas": DEPLOY_GAS });
        let receipt = self.sent(deploy).await?;
        let contract = receipt["contractAddress"].as_str().ok_or("the token was not deployed")?.to_owned();
        let mint = call(MINT, &owner, Amount::from_units(u128::from(MINTED)))?;
        self.sent(json!({ "from": owner, "to": contract, "data": mint })).await?;
        std::fs::write(file, &contract).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(contract)
    }

    /// Sends a transaction and waits for its receipt.
    async fn sent(&self, transaction: Value) -> Result<Value, String> {
        let hash = self.call("eth_sendTransaction", json!([transaction])).await?;
        for _ in 0..RECEIPT_POLLS {
            let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await?;
            if receipt["status"] == "0x1" {
                return Ok(receipt);
            }
            if !receipt.is_null() {
                return Err(format!("transaction {hash} failed"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("transaction {hash} is in no block: does the node mine?"))
    }
}

fn quantity(value: &Value) -> Result<u64, String> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| "it answered no number".into())
}
