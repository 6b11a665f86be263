//! A local EVM node that replaces the simulated Ethereum. When the node is anvil, the demo deploys a test token that
//! behaves like Tether's USDT.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use chain::{Amount, AssetId, AssetKind};
use serde_json::{Value, json};
use url::Url;

use crate::commands::command_error::CommandError;
use config::ChainConfig;

/// The bytecode of the test token, compiled from `tests/standins/contracts/UsdtLike.sol`.
const USDT_LIKE: &str = include_str!("usdt_like.hex");
/// The function selector of `transfer(address,uint256)`.
const TRANSFER: &str = "a9059cbb";
/// The function selector of `mint(address,uint256)`.
const MINT: &str = "40c10f19";
const DEPLOY_GAS: &str = "0x4c4b40";
/// The amount minted for the deployer: 10 million USDT in base units.
const MINTED: u64 = 10_000_000_000_000;
/// The private key of anvil's first account, which is the same on every machine.
const ANVIL_KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const RECEIPT_POLLS: u32 = 100;

/// A node on which the demo accepts payments.
#[derive(Clone)]
pub struct DemoNode {
    /// The URL of the node's JSON-RPC interface.
    pub url: Url,
    /// The name of the chain in the configuration. It contains part of the genesis hash, because each run of anvil is a
    /// new chain.
    chain: String,
    chain_id: u64,
    is_anvil: bool,
    /// The address of the test token; `None` when the node is not anvil.
    usdt: Option<String>,
}

/// Reads the chain id and the genesis block of a node. When the node is anvil, also deploys the test token and starts
/// interval mining.
pub async fn inspect_node_and_deploy_usdt_on_anvil(folder: &Path, url: &Url) -> Result<DemoNode, CommandError> {
    let failed = |problem: String| CommandError::general_error(format!("--evm {url}: {problem}"));
    let rpc = NodeClient::new(url).map_err(failed)?;
    let chain_id =
        rpc.call_json_rpc("eth_chainId", json!([])).await.and_then(|id| parse_hex_quantity(&id)).map_err(failed)?;
    let genesis = rpc.call_json_rpc("eth_getBlockByNumber", json!(["0x0", false])).await.map_err(failed)?;
    let hash = genesis["hash"]
        .as_str()
        .and_then(|hash| hash.get(2..10))
        .ok_or_else(|| failed("the node returned no genesis block".into()))?;
    let version = rpc.call_json_rpc("web3_clientVersion", json!([])).await.map_err(failed)?;
    let is_anvil = version.as_str().is_some_and(|version| version.starts_with("anvil"));
    let chain = format!("evm-{hash}");
    let usdt = if is_anvil {
        Some(rpc.find_or_deploy_test_usdt(&folder.join(format!("{chain}.usdt"))).await.map_err(failed)?)
    } else {
        None
    };
    if is_anvil && rpc.call_json_rpc("anvil_getAutomine", json!([])).await.map_err(failed)? == json!(true) {
        // With automine, anvil mines a block only when it receives a transaction, so payments would get no
        // confirmations.
        rpc.call_json_rpc("evm_setIntervalMining", json!([1])).await.map_err(failed)?;
    }
    Ok(DemoNode { url: url.clone(), chain, chain_id, is_anvil, usdt })
}

impl DemoNode {
    /// Appends the configuration of the chain and its assets to `text`, as TOML.
    pub fn append_chain_config_toml(&self, text: &mut String) -> fmt::Result {
        let DemoNode { url, chain, chain_id, usdt, .. } = self;
        let coin = usdt.as_ref().map_or_else(String::new, |_| format!("{chain}/usdt"));
        writeln!(text, "[surfaces.checkout.assets]\neth = \"{chain}/eth\"\nerc20_usdt = \"{coin}\"\n")?;
        writeln!(
            text,
            "[chains.{chain}]\nenabled = true\nmode = \"test\"\nfamily = \"evm\"\nidentity = \"{chain_id}\"\n\
             endpoints = [{{ url = \"{url}\", own = true }}]\nblock_time_ms = 1_000\npoll_ms = 250\nfinality = \"depth\"\n\
             confirmations = [{{ depth = 3 }}]\nfinal_depth = 12"
        )?;
        let ether = "{ code = \"eth\", symbol = \"ETH\", decimals = 18, quote_decimals = 6 }";
        let token = usdt.as_ref().map_or_else(String::new, |contract| {
            format!(", {{ code = \"usdt\", contract = \"{contract}\", symbol = \"USDT\", decimals = 6, quote_decimals = 6 }}")
        });
        writeln!(text, "assets = [{ether}{token}]")
    }

    /// Appends instructions to `text` that show how to pay on the node with foundry's `cast`.
    pub fn append_payment_instructions(&self, text: &mut String) -> fmt::Result {
        let DemoNode { url, chain_id, is_anvil, usdt, .. } = self;
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

/// Sends an amount, in base units, from the first account of the node, and returns the transaction hash.
pub async fn pay_from_first_account(
    url: &Url,
    chain: &ChainConfig,
    asset: &AssetId,
    to: &str,
    amount: Amount,
) -> Result<String, String> {
    let rpc = NodeClient::new(url)?;
    let from = rpc.fetch_first_unlocked_account().await?;
    let known = chain.assets().map(|(_, asset)| asset).find(|known| known.id == *asset);
    let transaction = match &known.ok_or("the asset is no longer configured")?.kind {
        AssetKind::Native => json!({ "from": from, "to": to, "value": format!("{:#x}", amount.units()) }),
        AssetKind::Token { contract } => {
            json!({ "from": from, "to": contract, "data": encode_contract_call(TRANSFER, to, amount)? })
        }
    };
    let hash = rpc.call_json_rpc("eth_sendTransaction", json!([transaction])).await?;
    hash.as_str().map(String::from).ok_or_else(|| "the node returned no transaction hash".into())
}

/// Returns the call data for a contract function whose arguments are an address and an amount.
fn encode_contract_call(selector: &str, address: &str, amount: Amount) -> Result<String, String> {
    let address = address.strip_prefix("0x").ok_or("the address is not an EVM address")?.to_lowercase();
    Ok(format!("0x{selector}{address:0>64}{:064x}", amount.units()))
}

struct NodeClient {
    url: Url,
    client: reqwest::Client,
}

impl NodeClient {
    fn new(url: &Url) -> Result<NodeClient, String> {
        let client =
            reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build().map_err(|e| e.to_string())?;
        Ok(NodeClient { url: url.clone(), client })
    }

    async fn call_json_rpc(&self, method: &str, params: Value) -> Result<Value, String> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let failed = |e: reqwest::Error| {
            format!("the request {method} to the node failed: {:#}", anyhow::Error::from(e.without_url()))
        };
        let answer = self.client.post(self.url.clone()).json(&request).send().await.map_err(failed)?;
        let mut answer: Value = answer.json().await.map_err(failed)?;
        match answer.get("error") {
            Some(error) => {
                Err(format!("the node rejected {method}: {}", error["message"].as_str().unwrap_or("no message")))
            }
            None => Ok(answer["result"].take()),
        }
    }

    /// Returns the address of the node's first unlocked account.
    async fn fetch_first_unlocked_account(&self) -> Result<String, String> {
        let accounts = self.call_json_rpc("eth_accounts", json!([])).await?;
        let first = accounts.get(0).and_then(Value::as_str).map(String::from);
        first.ok_or_else(|| "the node has no account of its own; pay with a wallet instead".into())
    }

    /// Returns the address of the test token. When `file` contains no address of a deployed contract, deploys the
    /// token, mints 10 million USDT for the deployer and writes the address to `file`.
    async fn find_or_deploy_test_usdt(&self, file: &Path) -> Result<String, String> {
        if let Ok(stored) = std::fs::read_to_string(file) {
            let stored = stored.trim().to_owned();
            if self
                .call_json_rpc("eth_getCode", json!([stored, "latest"]))
                .await?
                .as_str()
                .is_some_and(|code| code.len() > 2)
            {
                return Ok(stored);
            }
        }
        let owner = self.fetch_first_unlocked_account().await?;
        let deploy = json!({ "from": owner, "data": format!("0x{}", USDT_LIKE.trim()), "gas": DEPLOY_GAS });
        let receipt = self.send_transaction_and_wait(deploy).await?;
        let contract = receipt["contractAddress"].as_str().ok_or("the token was not deployed")?.to_owned();
        let mint = encode_contract_call(MINT, &owner, Amount::from_units(u128::from(MINTED)))?;
        self.send_transaction_and_wait(json!({ "from": owner, "to": contract, "data": mint })).await?;
        std::fs::write(file, &contract).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(contract)
    }

    /// Sends a transaction from an unlocked account and returns its receipt. Fails when the transaction fails, or is
    /// not mined within about ten seconds.
    async fn send_transaction_and_wait(&self, transaction: Value) -> Result<Value, String> {
        let hash = self.call_json_rpc("eth_sendTransaction", json!([transaction])).await?;
        for _ in 0..RECEIPT_POLLS {
            let receipt = self.call_json_rpc("eth_getTransactionReceipt", json!([hash])).await?;
            if receipt["status"] == "0x1" {
                return Ok(receipt);
            }
            if !receipt.is_null() {
                return Err(format!("transaction {hash} failed"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("transaction {hash} was not mined; check that the node mines blocks"))
    }
}

/// Parses a hexadecimal number of the Ethereum JSON-RPC, such as `"0x7a69"`.
fn parse_hex_quantity(value: &Value) -> Result<u64, String> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| "the node returned no number".into())
}
