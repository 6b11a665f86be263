//! Stories on a real Bitcoin Core node, read over JSON-RPC on both databases, and through the Esplora API. Block time
//! follows the world's clock; payments come from a separate wallet.

/// `ways! { async fn name(world: Onchain) { … } }` makes the tests `name::core_sqlite`, `name::core_postgres` and
/// `name::esplora_sqlite`.
macro_rules! ways {
    ($(async fn $name:ident($world:ident: Onchain $(= $plan:expr)?) $body:block)+) => { $(
        mod $name {
            use super::*;
            use config::Api;
            use db::Backend;

            async fn story($world: Onchain) {
                let mut $world = $world;
                let _ = &mut $world;
                $body
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn core_sqlite() {
                story(ways!(@open Backend::Sqlite, Api::Core $(, $plan)?)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn core_postgres() {
                story(ways!(@open Backend::Postgres, Api::Core $(, $plan)?)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn esplora_sqlite() {
                story(ways!(@open Backend::Sqlite, Api::Esplora $(, $plan)?)).await;
            }
        }
    )+ };
    (@open $backend:expr, $api:expr) => { Onchain::start($backend, $api).await };
    (@open $backend:expr, $api:expr, $plan:expr) => { Onchain::with($backend, $api, $plan).await };
}

mod faulty;
mod paying;
mod reorganised;
mod serving;
mod spent;
mod waiting;

use std::ops::{Deref, DerefMut};

use chain::{Amount, ChainId};
use config::{self, AddressKind, Api, Config};
use db::Backend;
use esplora::Esplora;
use provision::bitcoind::{Bitcoind, BitcoindOptions};
use provision::wallet::{SignedPayment, TestWallet};

use crate::placed_order::{PlacedOrder, split};
use crate::world::{START, World, accounts};

/// The panic message of helpers that need the node.
const NODE: &str = "the node does as it is told";
/// The number of blocks that make every deposit final.
const DEEP: u64 = 12;
const COIN: &str = "btc";
/// The quantity of a usual order. Half of its price is more than the smallest amount that nodes relay (the dust limit).
const QUANTITY: u32 = 40;
/// Three prices in fen (below 1,000 dollars, below 10,000 dollars, and above), each with its required confirmations.
const PRICES: [(i64, u64); 3] = [(300, 1), (1_100_000, 2), (8_000_000, 6)];

/// The options with which a story starts its world.
#[derive(Debug, Clone, Copy)]
pub struct StorySetup {
    pub kind: AddressKind,
    /// The timeout of requests to the node. It is long, because the machine may be busy, but short in stories where the
    /// node never answers.
    pub timeout_ms: u64,
}

pub const PLAIN: StorySetup = StorySetup { kind: AddressKind::P2wpkh, timeout_ms: 30_000 };

/// A world whose Bitcoin chain is a real node.
pub struct Onchain {
    world: World,
    /// The running node; `None` while the node is stopped.
    node: Option<Bitcoind>,
    pub payer: TestWallet,
    /// The proxy between the daemon and the node, if the story has one.
    _esplora: Option<Esplora>,
}

impl Onchain {
    pub async fn start(backend: Backend, api: Api) -> Onchain {
        Onchain::with(backend, api, PLAIN).await
    }

    pub async fn with(backend: Backend, api: Api, plan: StorySetup) -> Onchain {
        let options = BitcoindOptions { time: Some(START.unix_seconds() - 3_600), extra: Vec::new() };
        let node = Bitcoind::start_node(options).await.expect(NODE);
        let payer = TestWallet::with_funds(&node, 1).await.expect(NODE);
        let esplora = match api {
            Api::Core => None,
            Api::Esplora => Some(Esplora::start_server(&node.url()).await),
        };
        let urls = vec![esplora.as_ref().map_or_else(|| node.url(), |esplora| esplora.url.clone())];
        let chain = build_chain_config(&urls, api, plan);
        let world = World::with(backend, move |config| {
            config.chains.insert(chain.id.clone(), chain);
        })
        .await;
        Onchain { world, node: Some(node), payer, _esplora: esplora }
    }

    pub fn node(&self) -> &Bitcoind {
        self.node.as_ref().expect("the node runs")
    }

    pub async fn stop_node(&mut self) -> provision::bitcoind::StoppedNode {
        self.node.take().expect("the node runs").stop().await.expect(NODE)
    }

    pub async fn start_node(&mut self, stopped: provision::bitcoind::StoppedNode) {
        self.node = Some(stopped.start().await.expect(NODE));
    }

    /// Sends the payment. It stays in the mempool, where the daemon can see it, until a block is mined.
    pub async fn pay(&self, to: &[(&PlacedOrder, Amount)]) -> SignedPayment {
        let to: Vec<(&str, u64)> = to.iter().map(|(order, amount)| (order.address.as_str(), sats(*amount))).collect();
        self.payer.pay(self.node(), &to).await.expect(NODE)
    }

    /// Mines blocks without running the workers.
    pub async fn mine_unseen(&self, blocks: u64) {
        self.node().set_time(self.world.clock.now().unix_seconds()).await.expect(NODE);
        self.node().mine(blocks).await.expect(NODE);
    }

    pub async fn mine(&self, blocks: u64) {
        self.mine_unseen(blocks).await;
        self.world.run_until_idle().await;
    }

    /// Replaces the newest blocks by one more empty blocks; their transactions return to the mempool.
    pub async fn reorg(&self, depth: u64) {
        self.node().reorg(depth).await.expect(NODE);
        self.world.run_until_idle().await;
    }

    /// Places an order of the usual quantity.
    pub async fn place_order(&self) -> PlacedOrder {
        self.world.place_order_of(QUANTITY, COIN).await
    }

    /// Places an order of one piece at this price in fen.
    pub async fn place_order_worth(&mut self, fen: i64) -> PlacedOrder {
        let product = self.world.new_product(&format!("worth-{fen}"), fen, 1, 3).await;
        let usual = std::mem::replace(&mut self.world.product, product);
        let order = self.world.place_order_of(1, COIN).await;
        self.world.product = usual;
        order
    }
}

impl Deref for Onchain {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Onchain {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

/// Returns the configuration of the regtest network with these endpoints.
pub fn format_chain_config(urls: &[String], api: Api, plan: StorySetup) -> String {
    let endpoints: Vec<String> = urls.iter().map(|url| format!("{{ url = \"{url}\" }}")).collect();
    let api = match api {
        Api::Core => "core",
        Api::Esplora => "esplora",
    };
    format!(
        "[chains.bitcoin]\nenabled = true\ndriver = \"node\"\npreset = \"regtest\"\napi = \"{api}\"\n\
         address_kind = \"{}\"\nendpoints = [{}]\ntimeout_ms = {}\n",
        plan.kind.as_str(),
        endpoints.join(", "),
        plan.timeout_ms
    )
}

fn build_chain_config(urls: &[String], api: Api, plan: StorySetup) -> config::ChainConfig {
    let text =
        format!("[surfaces.checkout]\nmode = \"test\"\n{}\n{}", format_chain_config(urls, api, plan), accounts());
    let mut config =
        Config::parse_and_validate("node.toml".as_ref(), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    config.chains.remove(&ChainId::parse("bitcoin").expect("a name")).expect("the text has the chain")
}

fn sats(amount: Amount) -> u64 {
    amount.units().to()
}
