//! What only the demo can be asked: to pay as a buyer, to reorganise its chains, to let time pass.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chain::{Amount, AssetId, ChainId};
use serde::{Deserialize, Serialize};
use simnet::{ReplacedTxs, Simnet};
use url::Url;

use crate::commands::context::Context;
use crate::commands::dev::keys::write_private;
use crate::commands::dev::node;
use crate::commands::dispatch::Dispatcher;
use crate::commands::exit::CommandError;
use crate::commands::operation::{Operation, respond};
use crate::control::{Handler, Request, Response};
use clock::{Clock, Instant};
use config::Driver;
use money::invoices;
use records::audit_log::Actor;
use records::reviews;
use shop::orders;

/// How far the demo's clock is ahead of the machine's, in milliseconds, kept for the next start.
const AHEAD: &str = "clock-ahead-ms";
/// Whoever takes the mining of a chain over and goes away gives it back after this.
const PAUSE_MS: i64 = 20_000;
/// Beyond the end of a window and its grace, so that no rounding matters.
const MARGIN_MS: i64 = 2_000;
const REVIEWS_MAX: i64 = 1_000;

#[derive(Clone)]
pub struct Demo {
    pub simnet: Simnet,
    /// The node of `--evm`.
    node: Option<Url>,
    /// Until when the miners of these chains rest.
    paused: Arc<Mutex<HashMap<ChainId, Instant>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Send base units of the invoice's asset to its address.
    Pay {
        order: String,
        amount: String,
    },
    /// Let the miner of a chain rest for a while, because whoever asks mines.
    Pause {
        chain: String,
    },
    Mine {
        chain: String,
        blocks: u64,
    },
    /// Replace the newest blocks by others without the payments in them, which wait until [`Command::Release`].
    Reorg {
        chain: String,
        blocks: u64,
    },
    Release {
        chain: String,
    },
    /// Move the demo's clock past the window of an order.
    PassWindow {
        order: String,
    },
    /// What waits for a person, a line each.
    Reviews,
}

/// What a payer needs to know of an order.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub order_no: String,
    pub state: String,
    pub status_url: String,
    pub invoice: Option<DemoInvoice>,
}

/// What an order asks on a chain.
#[derive(Serialize, Deserialize)]
pub struct DemoInvoice {
    pub chain: String,
    pub simulated: bool,
    pub symbol: String,
    pub decimals: u8,
    pub address: String,
    /// Base units, as are the following.
    pub due: String,
    pub seen: String,
    pub confirmations: u32,
    /// From this depth on a block is final.
    pub final_depth: u64,
    pub expires_at: String,
}

/// Finds the order with this number or id.
#[derive(Serialize, Deserialize)]
pub struct FindOrder {
    pub order: String,
}

/// What an operation of the demo works on.
pub struct DemoContext {
    context: Context,
    demo: Demo,
}

/// Carries out requests of the control socket: the demo's operations here, all others as every daemon does.
pub struct DemoHandler {
    pub dispatcher: Dispatcher,
    pub demo: Demo,
}

#[async_trait]
impl Handler for DemoHandler {
    async fn handle(&self, uid: u32, request: Request) -> Response {
        let is_demo_operation = [Command::NAME, FindOrder::NAME].contains(&request.operation.as_str());
        if !is_demo_operation {
            return self.dispatcher.handle(uid, request).await;
        }
        let context = Context { actor: Actor::CommandLine { uid }, ..self.dispatcher.0.clone() };
        let context = DemoContext { context, demo: self.demo.clone() };
        match request.operation == FindOrder::NAME {
            true => respond::<FindOrder>(&context, request.arguments).await,
            false => respond::<Command>(&context, request.arguments).await,
        }
    }
}

impl Operation for FindOrder {
    const NAME: &'static str = "demo-find-order";
    type Context = DemoContext;
    type Output = Order;

    async fn execute(self, DemoContext { context, .. }: &DemoContext) -> Result<Order, String> {
        find(context, &self.order).await
    }
}

impl Operation for Command {
    const NAME: &'static str = "demo";
    type Context = DemoContext;
    type Output = String;

    async fn execute(self, DemoContext { context, demo }: &DemoContext) -> Result<String, String> {
        execute(context, demo, self).await
    }
}

impl Demo {
    pub fn new(simnet: Simnet, node: Option<Url>) -> Demo {
        Demo { simnet, node, paused: Arc::default() }
    }

    pub fn is_paused(&self, chain: &ChainId, now: Instant) -> bool {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.get(chain).is_some_and(|until| now < *until)
    }

    fn pause(&self, chain: &ChainId, until: Instant) {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).insert(chain.clone(), until);
    }
}

/// The machine's clock, as far ahead as the last run of the demo left it: time never goes back for what is stored.
pub fn clock(folder: &Path) -> Result<Clock, CommandError> {
    let file = folder.join(AHEAD);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let ms = text.trim().parse().map_err(|e| CommandError::with_context(file.display(), e))?;
            Ok(Clock::ahead(ms))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Clock::ahead(0)),
        Err(e) => Err(CommandError::with_context(file.display(), e)),
    }
}

async fn execute(context: &Context, demo: &Demo, command: Command) -> Result<String, String> {
    match command {
        Command::Pay { order, amount } => pay(context, demo, &order, &amount).await,
        Command::Pause { chain } => {
            demo.pause(&simulated(demo, &chain)?, context.clock.now().plus_ms(PAUSE_MS));
            Ok(String::new())
        }
        Command::Mine { chain, blocks } => {
            let chain = simulated(demo, &chain)?;
            let head = demo.simnet.mine(&chain, blocks.min(100), context.clock.now().unix_seconds());
            Ok(head.height.to_string())
        }
        Command::Reorg { chain, blocks } => {
            let chain = simulated(demo, &chain)?;
            demo.simnet.set_mempool_held(&chain, true);
            let head =
                demo.simnet.reorg(&chain, blocks.min(1_000), ReplacedTxs::Remine, context.clock.now().unix_seconds());
            Ok(head.height.to_string())
        }
        Command::Release { chain } => {
            let chain = simulated(demo, &chain)?;
            demo.simnet.set_mempool_held(&chain, false);
            demo.pause(&chain, context.clock.now());
            Ok(String::new())
        }
        Command::PassWindow { order } => pass_window(context, &order).await,
        Command::Reviews => list_reviews(context).await,
    }
}

fn simulated(demo: &Demo, chain: &str) -> Result<ChainId, String> {
    let found = demo.simnet.chains().into_iter().find(|known| known.as_str() == chain);
    found.ok_or_else(|| format!("{chain} is no simulated chain"))
}

async fn view(context: &Context, order: &str) -> Result<orders::OrderDetails, String> {
    let name = order.to_owned();
    let found = context
        .db
        .read("find_order", move |tx| Box::pin(async move { orders::find_by_number_or_id(tx, &name).await }))
        .await;
    let found = found.map_err(|e: db::Error| e.to_string())?;
    found.ok_or_else(|| format!("there is no order {order}; copy its `order_no` from the answer that created it"))
}

async fn find(context: &Context, order: &str) -> Result<Order, String> {
    let orders::OrderDetails { order, status } = view(context, order).await?;
    let address = context.daemon.as_ref().ok_or("no daemon runs")?.address;
    let prefix = &context.config.surfaces.checkout.mount.prefix;
    let asked = status.invoice.map(|(invoice, received)| asked(context, &invoice, &received)).transpose()?;
    Ok(Order {
        status_url: format!("http://{address}{prefix}/api/orders/{}/status", order.public_id),
        order_no: order.order_no,
        state: order.state.as_str().to_owned(),
        invoice: asked,
    })
}

fn asked(
    context: &Context,
    invoice: &invoices::InvoiceTerms,
    received: &invoices::Received,
) -> Result<DemoInvoice, String> {
    let chain = context.config.chains.get(&invoice.chain).ok_or("the order's chain is not configured any more")?;
    let asset = chain.assets().map(|(_, asset)| asset).find(|asset| asset.id == invoice.asset);
    let asset = asset.ok_or("the order's asset is not configured any more")?;
    Ok(DemoInvoice {
        chain: chain.id.to_string(),
        simulated: chain.driver == Driver::Simnet,
        symbol: asset.symbol.clone(),
        decimals: asset.decimals,
        address: invoice.address.clone(),
        due: invoice.due.to_string(),
        seen: received.total().to_string(),
        confirmations: invoice.confirmations,
        final_depth: chain.final_depth,
        expires_at: invoice.expires_at.to_string(),
    })
}

async fn pay(context: &Context, demo: &Demo, order: &str, amount: &str) -> Result<String, String> {
    let (invoice, _) = view(context, order).await?.status.invoice.ok_or("the order asks for nothing on a chain")?;
    let amount = Amount::parse_decimal(amount, 0).map_err(|e| e.to_string())?;
    let (chain, asset): (&ChainId, &AssetId) = (&invoice.chain, &invoice.asset);
    let configured = context.config.chains.get(chain).ok_or("the order's chain is not configured any more")?;
    match (configured.driver, &demo.node) {
        (Driver::Simnet, _) => demo
            .simnet
            .pay(chain, asset, &invoice.address, amount)
            .map(|txid| txid.to_string())
            .map_err(|e| e.to_string()),
        (Driver::Node, Some(url)) => node::pay(url, configured, asset, &invoice.address, amount).await,
        (Driver::Node, None) => Err(format!("{chain} is read from a node that the demo does not know")),
    }
}

async fn pass_window(context: &Context, order: &str) -> Result<String, String> {
    let (invoice, _) = view(context, order).await?.status.invoice.ok_or("the order asks for nothing on a chain")?;
    let grace = i64::try_from(context.config.policy.grace.as_millis()).map_err(|e| e.to_string())?;
    let now = context.clock.now();
    let ahead = invoice.expires_at.plus_ms(grace).plus_ms(MARGIN_MS).since(now).max(0);
    context.clock.advance_ms(ahead);
    if let Clock::Ahead(total) = &context.clock {
        let total = total.load(std::sync::atomic::Ordering::SeqCst).to_string();
        write_private(&context.config.data.folder.join(AHEAD), &total).map_err(|e| e.to_string())?;
    }
    let minutes = ahead / 60_000;
    Ok(format!("The demo's clock was moved {minutes} minutes ahead, to {}, and stays there.", context.clock.now()))
}

async fn list_reviews(context: &Context) -> Result<String, String> {
    let open =
        context.db.read("list_reviews", |tx| Box::pin(async move { reviews::list_open(tx, REVIEWS_MAX).await })).await;
    let open = open.map_err(|e: db::Error| e.to_string())?;
    let lines: Vec<String> = open.iter().map(|r| format!("{} ({}): {}", r.kind, r.subject, r.detail)).collect();
    Ok(lines.join("\n"))
}
