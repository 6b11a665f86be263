//! A real node (anvil) with the test contracts, its configuration, and a proxy in front of it that
//! lies on demand.

use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use axum::http::StatusCode;
use chain::ChainId;
use clock::Instant;
use config::{self, Config};
use provision::anvil::{Anvil, AnvilOptions, Mining};
use provision::contracts::{abi, compile_contract};
use proxy::{Intervention, Proxy};
use serde_json::{Value, json};

use super::lying::{add_invented_call, raise_token_amounts};
use crate::world::{START, accounts};

/// The panic message of helpers that need the node.
pub const NODE: &str = "the node and its contracts do as they are told";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Ethereum,
    Bsc,
}

impl Network {
    fn chain_id(self) -> u64 {
        match self {
            Network::Ethereum => 31_337,
            Network::Bsc => 56,
        }
    }

    pub fn chain(self) -> ChainId {
        let name = match self {
            Network::Ethereum => "ethereum",
            Network::Bsc => "bsc",
        };
        ChainId::parse(name).expect("a name of a chain")
    }

    /// Returns the options of the preset with other assets, because the preset's token is not deployed on a test node.
    fn format_chain_options(self, usdt: Address) -> String {
        match self {
            Network::Ethereum => format!(
                "finality = \"tag\"\nfinal_depth = 96\nconfirmations = [{{ depth = 12 }}]\nassets = [\n\
                 {{ code = \"eth\", symbol = \"ETH\", decimals = 18, quote_decimals = 18 }},\n\
                 {{ code = \"usdt\", contract = \"{usdt}\", symbol = \"USDT\", decimals = 6, quote_decimals = 6 }}]\n"
            ),
            Network::Bsc => format!(
                "finality = \"tag\"\nfinal_depth = 200\nfinal_depth_min = 15\nkeep_blocks = 2_048\n\
                 confirmations = [{{ depth = 15 }}]\nassets = [\n\
                 {{ code = \"bnb\", symbol = \"BNB\", decimals = 18, quote_decimals = 18 }},\n\
                 {{ code = \"usdt\", contract = \"{usdt}\", symbol = \"USDT\", decimals = 18, quote_decimals = 6 }}]\n"
            ),
        }
    }
}

/// A node on which a funded account has tokens that the batcher contract may spend. Only [`Node::mine`] mines.
pub struct Node {
    pub anvil: Anvil,
    pub network: Network,
    /// A token like USDT on Ethereum, or like the pegged token on BSC.
    pub usdt: Address,
    pub fake: Address,
    pub batcher: Address,
    pub rich: Vec<Address>,
}

impl Node {
    /// Starts the node. Its first block is one hour older than the world's clock, and each block is one second later
    /// than its parent.
    pub async fn start(network: Network) -> Node {
        let before = (START.unix_seconds() - 3_600).to_string();
        let anvil = Node::open(network, &["--timestamp", &before]).await;
        anvil.call_rpc("anvil_setBlockTimestampInterval", json!([1])).await.expect(NODE);
        Node::deploy_contracts(network, anvil).await
    }

    /// Starts the node. The time of its blocks is the time of the machine.
    pub async fn start_today(network: Network) -> Node {
        let anvil = Node::open(network, &[]).await;
        Node::deploy_contracts(network, anvil).await
    }

    async fn open(network: Network, extra: &[&str]) -> Anvil {
        let extra = extra.iter().map(|arg| (*arg).to_owned()).collect();
        let options =
            AnvilOptions { chain_id: network.chain_id(), mining: Mining::Manual, extra, ..AnvilOptions::default() };
        Anvil::start_node(options).await.expect(NODE)
    }

    async fn deploy_contracts(network: Network, anvil: Anvil) -> Node {
        let token = match network {
            Network::Ethereum => "UsdtLike",
            Network::Bsc => "Bep20Like",
        };
        let mut deployed = Vec::new();
        for name in [token, "FakeToken", "Batcher"] {
            deployed.push(anvil.deploy_contract(&compile_contract(name).await.expect(NODE), &[]).await.expect(NODE));
        }
        let [usdt, fake, batcher] = deployed.try_into().expect(NODE);
        let rich = anvil.list_accounts().await.expect(NODE);
        let node = Node { anvil, network, usdt, fake, batcher, rich };
        let plenty = U256::from(10u64).pow(U256::from(24));
        node.call(0, usdt, abi::UsdtLike::mintCall { to: node.rich[0], value: plenty }).await;
        node.call(0, usdt, abi::UsdtLike::approveCall { spender: batcher, value: plenty }).await;
        node.anvil.mine(1).await.expect(NODE);
        node
    }

    /// Sends a contract call from a funded account. The transaction stays pending until a block is mined.
    pub async fn call(&self, from: usize, to: Address, call: impl SolCall) -> B256 {
        self.send(from, to, U256::ZERO, &call.abi_encode()).await
    }

    /// Sends a payment or a call from a funded account. The transaction stays pending until a block is mined.
    pub async fn send(&self, from: usize, to: Address, wei: U256, data: &[u8]) -> B256 {
        self.anvil.send_transaction(self.rich[from], to, wei, data).await.expect(NODE)
    }

    /// Mines blocks. The first new block is not older than `now`.
    pub async fn mine(&self, blocks: u64, now: Instant) {
        let head = self.anvil.call_rpc("eth_getBlockByNumber", json!(["latest", false])).await.expect(NODE);
        let time =
            head["timestamp"].as_str().and_then(|text| i64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        if now.unix_seconds() > time.expect(NODE) {
            self.anvil.call_rpc("evm_setNextBlockTimestamp", json!([now.unix_seconds()])).await.expect(NODE);
        }
        self.anvil.mine(blocks).await.expect(NODE);
    }

    /// Replaces the newest blocks by the same number of others. Of their transactions only `keep` is mined again, in
    /// the new block with this index.
    pub async fn reorg(&self, depth: u64, keep: Option<(B256, u64)>) {
        let mut kept = Vec::new();
        if let Some((txid, block)) = keep {
            let raw = self.anvil.call_rpc("eth_getRawTransactionByHash", json!([txid])).await.expect(NODE);
            kept.push(json!([raw, block]));
        }
        // A different block time gives a different hash even to an empty block.
        self.anvil.call_rpc("anvil_setBlockTimestampInterval", json!([2])).await.expect(NODE);
        self.anvil.call_rpc("anvil_reorg", json!([depth, kept])).await.expect(NODE);
        self.anvil.call_rpc("anvil_setBlockTimestampInterval", json!([1])).await.expect(NODE);
    }

    /// Returns the chain's configuration with these endpoints, as TOML text.
    pub fn describe(&self, endpoints: &[String], trace: &str) -> String {
        let (chain, id, facts) =
            (self.network.chain(), self.network.chain_id(), self.network.format_chain_options(self.usdt));
        // A single endpoint is the operator's own node, which needs no second source.
        let own = endpoints.len() == 1;
        let endpoints: Vec<String> =
            endpoints.iter().map(|url| format!("{{ url = \"{url}\", own = {own} }}")).collect();
        format!(
            "[chains.{chain}]\nenabled = true\ndriver = \"node\"\npreset = \"\"\nmode = \"test\"\nfamily = \"evm\"\n\
             identity = \"{id}\"\nendpoints = [{}]\ntimeout_ms = 4_000\npoll_ms = 400\ntrace = \"{trace}\"\n{facts}",
            endpoints.join(", ")
        )
    }

    /// Returns the chain's configuration with these endpoints, to be inserted in the configuration of a world.
    pub fn build_chain_config(&self, endpoints: &[String], trace: &str) -> config::ChainConfig {
        let text = format!("[surfaces.checkout]\nmode = \"test\"\n{}\n{}", self.describe(endpoints, trace), accounts());
        let mut config =
            Config::parse_and_validate("node.toml".as_ref(), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        config.chains.remove(&self.network.chain()).expect("the text has the chain")
    }
}

const TEN_ETHER: &str = "0x8ac7230489e80000";

/// The way in which an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointFault {
    None,
    /// Answers everything with HTTP 429.
    Throttled,
    /// Answers everything with an HTML page.
    Garbage,
    /// Returns empty receipts and logs.
    EmptyLogs,
    /// Does not offer receipts of whole blocks and returns empty logs.
    OnlyEmptyLogs,
    /// Does not offer receipts of whole blocks.
    NoReceipts,
    /// Knows no block above this height.
    StaleHead(u64),
    NoTraces,
    /// Returns no proofs of balances, as a node that keeps no old states.
    NoProofs,
    /// Reports a balance of ten ether for every address.
    Generous,
    /// Raises the amounts of token transfers in receipts and logs.
    ForgedReceipts,
    /// Adds a call that pays this many wei to this address to the first transaction of each traced block, and returns no
    /// proofs, which would show the true balance.
    InventedCall(Address, U256),
    /// Accepts requests and never answers.
    Silent,
}

/// A proxy endpoint whose behaviour can be changed while it runs.
pub struct Endpoint {
    pub proxy: Proxy,
    fault: Arc<Mutex<EndpointFault>>,
    /// The block that the proxy returns instead of the node's block at the same height.
    other: Arc<Mutex<Option<Value>>>,
}

impl Endpoint {
    pub async fn start(node: &Node) -> Endpoint {
        let (fault, other) = (Arc::new(Mutex::new(EndpointFault::None)), Arc::new(Mutex::new(None::<Value>)));
        let (now, shown) = (fault.clone(), other.clone());
        let trick = move |method: &str, params: &Value| {
            let shown = shown.lock().expect("no holder panics").clone();
            match shown.filter(|block| method == "eth_getBlockByNumber" && block["number"] == params[0]) {
                Some(block) => Intervention::Result(block),
                None => answer(*now.lock().expect("no holder panics"), method, params),
            }
        };
        Endpoint { proxy: Proxy::start_proxy(&node.anvil.url(), trick).await, fault, other }
    }

    /// Makes the proxy return this block, in the format of `eth_getBlockByNumber`, at the height of the block.
    pub fn show(&self, other: Option<Value>) {
        *self.other.lock().expect("no holder panics") = other;
    }

    pub fn set(&self, fault: EndpointFault) {
        *self.fault.lock().expect("no holder panics") = fault;
    }
}

fn answer(fault: EndpointFault, method: &str, params: &Value) -> Intervention {
    let missing = || Intervention::Error(-32601, "the method does not exist/is not available");
    match (fault, method) {
        (EndpointFault::Throttled, _) => {
            Intervention::Http(StatusCode::TOO_MANY_REQUESTS, vec![("retry-after", "1")], String::new())
        }
        (EndpointFault::Garbage, _) => {
            Intervention::Http(StatusCode::OK, Vec::new(), "<html>It works!</html>".to_owned())
        }
        (EndpointFault::EmptyLogs | EndpointFault::OnlyEmptyLogs, "eth_getLogs") => Intervention::Result(json!([])),
        (EndpointFault::EmptyLogs, "eth_getBlockReceipts") => Intervention::Edit(Box::new(|receipts| {
            for receipt in receipts.as_array_mut().into_iter().flatten() {
                receipt["logs"] = json!([]);
            }
        })),
        (EndpointFault::OnlyEmptyLogs | EndpointFault::NoReceipts, "eth_getBlockReceipts") => missing(),
        (EndpointFault::StaleHead(head), "eth_getBlockByNumber") => answer_with_stale_head(head, params),
        (EndpointFault::NoTraces, method) if method.starts_with("debug_") || method.starts_with("trace_") => missing(),
        (EndpointFault::Generous, "eth_getProof") => {
            Intervention::Edit(Box::new(|proof| proof["balance"] = json!(TEN_ETHER)))
        }
        (EndpointFault::Generous, "eth_getBalance") => Intervention::Result(json!(TEN_ETHER)),
        (EndpointFault::InventedCall(..) | EndpointFault::NoProofs, "eth_getProof") => missing(),
        (EndpointFault::ForgedReceipts, "eth_getBlockReceipts" | "eth_getTransactionReceipt") => {
            Intervention::Edit(Box::new(raise_token_amounts))
        }
        (EndpointFault::ForgedReceipts, "eth_getLogs") => Intervention::Edit(Box::new(|logs| {
            let mut receipt = json!({ "logs": logs.take() });
            raise_token_amounts(&mut receipt);
            *logs = receipt["logs"].take();
        })),
        (EndpointFault::InventedCall(to, wei), "debug_traceBlockByHash") => {
            Intervention::Edit(Box::new(move |traces| {
                add_invented_call(traces, &to.to_string(), &format!("{wei:#x}"));
            }))
        }
        (EndpointFault::Silent, _) => Intervention::Hang,
        (_, _) => Intervention::Pass,
    }
}

fn answer_with_stale_head(head: u64, params: &Value) -> Intervention {
    match params[0].as_str() {
        Some("latest") => Intervention::ReplaceParams(json!([format!("{head:#x}"), params[1]])),
        Some(text) => match u64::from_str_radix(text.trim_start_matches("0x"), 16) {
            Ok(height) if height > head => Intervention::Result(Value::Null),
            Ok(_) | Err(_) => Intervention::Pass,
        },
        None => Intervention::Pass,
    }
}
