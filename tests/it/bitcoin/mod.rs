//! Stories on a real node of Bitcoin Core, read over JSON-RPC on both databases, and through Esplora's public interface. The
//! node's time follows the world's clock; whoever pays has keys of his own.

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

use crate::placed::{Placed, split};
use crate::world::{START, World, accounts};

/// Why a helper may panic: without the node there is no story.
const NODE: &str = "the node does as it is told";
/// More blocks than anything needs to be final.
const DEEP: u64 = 12;
const COIN: &str = "btc";
/// Of a usual order: enough that half of it is not dust, which no node passes on.
const QUANTITY: u32 = 40;
/// In fen: below 1,000 dollars, below 10,000, and above.
const PRICES: [(i64, u64); 3] = [(300, 1), (1_100_000, 2), (8_000_000, 6)];

/// What a story needs.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub kind: AddressKind,
    /// Long, because the machine may be busy; short, where a node is silent on purpose.
    pub timeout_ms: u64,
}

pub const PLAIN: Plan = Plan { kind: AddressKind::P2wpkh, timeout_ms: 30_000 };

/// A world whose Bitcoin is a real node.
pub struct Onchain {
    world: World,
    /// `None` while it is stopped.
    node: Option<Bitcoind>,
    pub payer: TestWallet,
    /// What stands between the daemon and the node, where that is wanted.
    _esplora: Option<Esplora>,
}

impl Onchain {
    pub async fn start(backend: Backend, api: Api) -> Onchain {
        Onchain::with(backend, api, PLAIN).await
    }

    pub async fn with(backend: Backend, api: Api, plan: Plan) -> Onchain {
        let options = BitcoindOptions { time: Some(START.unix_seconds() - 3_600), extra: Vec::new() };
        let node = Bitcoind::start(options).await.expect(NODE);
        let payer = TestWallet::with_funds(&node, 1).await.expect(NODE);
        let esplora = match api {
            Api::Core => None,
            Api::Esplora => Some(Esplora::start(&node.url()).await),
        };
        let urls = vec![esplora.as_ref().map_or_else(|| node.url(), |esplora| esplora.url.clone())];
        let chain = configured(&urls, api, plan);
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

    /// The payment waits for a block; the daemon may look at it.
    pub async fn pay(&self, to: &[(&Placed, Amount)]) -> SignedPayment {
        let to: Vec<(&str, u64)> = to.iter().map(|(placed, amount)| (placed.address.as_str(), sats(*amount))).collect();
        self.payer.pay(self.node(), &to).await.expect(NODE)
    }

    /// Mines without letting the daemon look.
    pub async fn mine_unseen(&self, blocks: u64) {
        self.node().set_time(self.world.clock.now().unix_seconds()).await.expect(NODE);
        self.node().mine(blocks).await.expect(NODE);
    }

    pub async fn mine(&self, blocks: u64) {
        self.mine_unseen(blocks).await;
        self.world.run_until_idle().await;
    }

    /// Replaces the newest blocks by one more that are empty; what was in them waits again.
    pub async fn reorg(&self, depth: u64) {
        self.node().reorg(depth).await.expect(NODE);
        self.world.run_until_idle().await;
    }

    /// An order of the usual size.
    pub async fn place(&self) -> Placed {
        self.world.place_many(QUANTITY, COIN).await
    }

    /// An order of something at so many fen.
    pub async fn place_worth(&mut self, fen: i64) -> Placed {
        let product = self.world.new_product(&format!("worth-{fen}"), fen, 1, 3).await;
        let usual = std::mem::replace(&mut self.world.product, product);
        let placed = self.world.place_many(1, COIN).await;
        self.world.product = usual;
        placed
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

/// The regtest network behind these endpoints, as a configuration has it.
pub fn described(urls: &[String], api: Api, plan: Plan) -> String {
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

fn configured(urls: &[String], api: Api, plan: Plan) -> config::ChainConfig {
    let text = format!("[surfaces.checkout]\nmode = \"test\"\n{}\n{}", described(urls, api, plan), accounts());
    let mut config = Config::parse("node.toml".as_ref(), &text, Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    config.chains.remove(&ChainId::new("bitcoin").expect("a name")).expect("the text has the chain")
}

fn sats(amount: Amount) -> u64 {
    amount.units().to()
}
