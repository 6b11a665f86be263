//! The operations that only the demo offers: paying as a buyer, reorganising the simulated chains, and advancing the
//! clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chain::{Amount, AssetId, ChainId};
use serde::{Deserialize, Serialize};
use simnet::{ReplacedTxs, Simnet};
use url::Url;

use crate::commands::context::Context;
use crate::commands::dev::demo_clock::advance_and_store_demo_clock;
use crate::commands::dev::evm_node;
use crate::commands::dispatch::{Dispatcher, decode_and_execute};
use crate::commands::operation::Operation;
use crate::control::{ControlRequest, ControlResponse, RequestHandler};
use clock::Instant;
use config::Driver;
use money::invoices;
use records::audit_log::Actor;
use records::reviews;
use shop::orders;

/// The time, in milliseconds, after which a paused miner resumes by itself, so that it also resumes when the command
/// that paused it has crashed.
const PAUSE_MS: i64 = 20_000;
/// The number of milliseconds by which the clock is advanced beyond the end of a payment window and its grace period.
const MARGIN_MS: i64 = 2_000;
/// The maximum number of reviews that [`DemoCommand::ListReviews`] returns.
const REVIEWS_MAX: i64 = 1_000;

/// The simulated chains of the demo and the state of their miners.
#[derive(Clone)]
pub struct Demo {
    /// The simulated chains. The demo mines their blocks and sends the buyer's payments on them.
    pub simnet: Simnet,
    /// The URL of the node that the option `--evm` names; `None` without this option.
    node: Option<Url>,
    /// For each chain whose miner was paused, the time at which the miner resumes.
    paused_until: Arc<Mutex<HashMap<ChainId, Instant>>>,
}

/// An operation that only the demo offers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DemoCommand {
    /// Send an amount, in base units of the invoice's asset, to the address of the invoice.
    Pay { order: String, amount: String },
    /// Pause the miner of a chain for 20 seconds, so that blocks are mined only by [`DemoCommand::Mine`].
    Pause { chain: String },
    /// Mine a number of blocks on a simulated chain.
    Mine { chain: String, blocks: u64 },
    /// Replace the newest blocks by blocks without transactions. The transactions stay in the mempool until
    /// [`DemoCommand::Release`].
    Reorg { chain: String, blocks: u64 },
    /// Allow the transactions in the mempool to be mined again, and resume the miner.
    Release { chain: String },
    /// Advance the demo's clock past the payment window of an order and the grace period.
    PassWindow { order: String },
    /// List the oldest 1,000 open reviews, one in each line.
    ListReviews,
}

/// The data of an order that a buyer needs for the payment.
#[derive(Serialize, Deserialize)]
pub struct DemoOrder {
    /// The order number, which the buyer sees.
    pub order_no: String,
    /// The state of the order, such as `delivered`.
    pub state: String,
    /// The URL of the status endpoint for this order.
    pub status_url: String,
    /// The invoice of the order; `None` when the order is not paid on a chain.
    pub invoice: Option<DemoInvoice>,
}

/// The invoice of an on-chain payment.
#[derive(Serialize, Deserialize)]
pub struct DemoInvoice {
    /// The name of the invoice's chain in the configuration.
    pub chain: String,
    /// True when the demo simulates the chain, false when the chain is on the node of `--evm`.
    pub simulated: bool,
    /// The symbol of the asset to pay in, such as `USDT`.
    pub symbol: String,
    /// The number of decimal places of the asset.
    pub decimals: u8,
    /// The deposit address, which belongs to this invoice alone.
    pub address: String,
    /// The amount due, in base units.
    pub due: String,
    /// The amount received so far, in base units.
    pub received: String,
    /// The number of confirmations that a payment needs.
    pub confirmations: u32,
    /// The number of confirmations after which a block is final.
    pub final_depth: u64,
    /// The end of the payment window, RFC 3339 in UTC.
    pub expires_at: String,
}

/// Finds the order with this number or id.
#[derive(Serialize, Deserialize)]
pub struct FindOrder {
    /// The number or id of the order.
    pub order: String,
}

/// The context in which the demo's operations are executed.
pub struct DemoContext {
    context: Context,
    demo: Demo,
}

/// Executes the requests of the control socket: the demo's own operations, and all operations that every daemon offers.
pub struct DemoHandler {
    /// Executes the operations that every daemon offers.
    pub dispatcher: Dispatcher,
    /// The simulated chains, for the operations that only the demo offers.
    pub demo: Demo,
}

#[async_trait]
impl RequestHandler for DemoHandler {
    async fn execute_request(&self, uid: u32, request: ControlRequest) -> ControlResponse {
        let is_demo_operation = [DemoCommand::NAME, FindOrder::NAME].contains(&request.operation.as_str());
        if !is_demo_operation {
            return self.dispatcher.execute_request(uid, request).await;
        }
        let context = Context { actor: Actor::CommandLine { uid }, ..self.dispatcher.0.clone() };
        let context = DemoContext { context, demo: self.demo.clone() };
        match request.operation == FindOrder::NAME {
            true => decode_and_execute::<FindOrder>(&context, request.arguments).await,
            false => decode_and_execute::<DemoCommand>(&context, request.arguments).await,
        }
    }
}

impl Operation for FindOrder {
    const NAME: &'static str = "demo-find-order";
    type Context = DemoContext;
    type Output = DemoOrder;

    async fn execute(self, DemoContext { context, .. }: &DemoContext) -> Result<DemoOrder, String> {
        describe_demo_order(context, &self.order).await
    }
}

impl Operation for DemoCommand {
    const NAME: &'static str = "demo";
    type Context = DemoContext;
    type Output = String;

    async fn execute(self, DemoContext { context, demo }: &DemoContext) -> Result<String, String> {
        execute_demo_command(context, demo, self).await
    }
}

impl Demo {
    /// Returns a demo in which no miner is paused.
    pub fn new(simnet: Simnet, node: Option<Url>) -> Demo {
        Demo { simnet, node, paused_until: Arc::default() }
    }

    /// Returns true while the miner of the chain is paused at the time `now`.
    pub fn is_miner_paused(&self, chain: &ChainId, now: Instant) -> bool {
        let paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        paused.get(chain).is_some_and(|until| now < *until)
    }

    fn pause_miner_until(&self, chain: &ChainId, until: Instant) {
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner).insert(chain.clone(), until);
    }
}

async fn execute_demo_command(context: &Context, demo: &Demo, command: DemoCommand) -> Result<String, String> {
    match command {
        DemoCommand::Pay { order, amount } => pay_invoice_of_order(context, demo, &order, &amount).await,
        DemoCommand::Pause { chain } => {
            demo.pause_miner_until(&parse_simulated_chain_id(demo, &chain)?, context.clock.now().plus_ms(PAUSE_MS));
            Ok(String::new())
        }
        DemoCommand::Mine { chain, blocks } => {
            let chain = parse_simulated_chain_id(demo, &chain)?;
            let head = demo.simnet.mine(&chain, blocks.min(100), context.clock.now().unix_seconds());
            Ok(head.height.to_string())
        }
        DemoCommand::Reorg { chain, blocks } => {
            let chain = parse_simulated_chain_id(demo, &chain)?;
            demo.simnet.set_mempool_held(&chain, true);
            let head =
                demo.simnet.reorg(&chain, blocks.min(1_000), ReplacedTxs::Remine, context.clock.now().unix_seconds());
            Ok(head.height.to_string())
        }
        DemoCommand::Release { chain } => {
            let chain = parse_simulated_chain_id(demo, &chain)?;
            demo.simnet.set_mempool_held(&chain, false);
            demo.pause_miner_until(&chain, context.clock.now());
            Ok(String::new())
        }
        DemoCommand::PassWindow { order } => advance_clock_past_window_and_grace(context, &order).await,
        DemoCommand::ListReviews => list_open_reviews_as_lines(context).await,
    }
}

/// Returns the id of the simulated chain with this name. Fails when the demo does not simulate such a chain.
fn parse_simulated_chain_id(demo: &Demo, chain: &str) -> Result<ChainId, String> {
    let found = demo.simnet.list_chains().into_iter().find(|known| known.as_str() == chain);
    found.ok_or_else(|| format!("{chain} is not a simulated chain"))
}

async fn require_order(context: &Context, order: &str) -> Result<orders::OrderDetails, String> {
    let name = order.to_owned();
    let found = context
        .db
        .read("find_order_by_number_or_id", move |tx| {
            Box::pin(async move { orders::find_any_shop_order_by_number_or_id(tx, &name).await })
        })
        .await;
    let found = found.map_err(|e: db::Error| e.to_string())?;
    found.ok_or_else(|| format!("there is no order {order}; copy the `order_no` from the response that created it"))
}

async fn describe_demo_order(context: &Context, order: &str) -> Result<DemoOrder, String> {
    let orders::OrderDetails { order, status } = require_order(context, order).await?;
    let address = context.daemon.as_ref().ok_or("no daemon runs")?.address;
    let prefix = &context.config.surfaces.checkout.mount.prefix;
    let invoice =
        status.invoice.map(|(invoice, received)| build_demo_invoice(context, &invoice, &received)).transpose()?;
    Ok(DemoOrder {
        status_url: format!("http://{address}{prefix}/api/orders/{}/status", order.public_id),
        order_no: order.order_no,
        state: order.state.as_str().to_owned(),
        invoice,
    })
}

fn build_demo_invoice(
    context: &Context,
    invoice: &invoices::InvoiceTerms,
    received: &invoices::ReceivedSums,
) -> Result<DemoInvoice, String> {
    let chain = context.config.chains.get(&invoice.chain).ok_or("the order's chain is no longer configured")?;
    let asset = chain.assets().map(|(_, asset)| asset).find(|asset| asset.id == invoice.asset);
    let asset = asset.ok_or("the order's asset is no longer configured")?;
    Ok(DemoInvoice {
        chain: chain.id.to_string(),
        simulated: chain.driver == Driver::Simnet,
        symbol: asset.symbol.clone(),
        decimals: asset.decimals,
        address: invoice.address.clone(),
        due: invoice.due.to_string(),
        received: received.total_with_unconfirmed().to_string(),
        confirmations: invoice.confirmations,
        final_depth: chain.final_depth,
        expires_at: invoice.expires_at.to_string(),
    })
}

async fn pay_invoice_of_order(context: &Context, demo: &Demo, order: &str, amount: &str) -> Result<String, String> {
    let (invoice, _) = require_order(context, order).await?.status.invoice.ok_or("the order is not paid on a chain")?;
    let amount = Amount::parse_decimal(amount, 0).map_err(|e| e.to_string())?;
    let (chain, asset): (&ChainId, &AssetId) = (&invoice.chain, &invoice.asset);
    let configured = context.config.chains.get(chain).ok_or("the order's chain is no longer configured")?;
    match (configured.driver, &demo.node) {
        (Driver::Simnet, _) => demo
            .simnet
            .pay(chain, asset, &invoice.address, amount)
            .map(|txid| txid.to_string())
            .map_err(|e| e.to_string()),
        (Driver::Node, Some(url)) => {
            evm_node::pay_from_first_account(url, configured, asset, &invoice.address, amount).await
        }
        (Driver::Node, None) => Err(format!("{chain} is followed on a node that the demo does not know")),
    }
}

async fn advance_clock_past_window_and_grace(context: &Context, order: &str) -> Result<String, String> {
    let (invoice, _) = require_order(context, order).await?.status.invoice.ok_or("the order is not paid on a chain")?;
    let grace = i64::try_from(context.config.policy.grace.as_millis()).map_err(|e| e.to_string())?;
    let now = context.clock.now();
    let ahead = invoice.expires_at.plus_ms(grace).plus_ms(MARGIN_MS).since(now).max(0);
    advance_and_store_demo_clock(&context.clock, &context.config.data.folder, ahead).map_err(|e| e.to_string())?;
    let minutes = ahead / 60_000;
    Ok(format!("The demo's clock was advanced by {minutes} minutes to {} and stays ahead.", context.clock.now()))
}

async fn list_open_reviews_as_lines(context: &Context) -> Result<String, String> {
    let open = context
        .db
        .read("list_oldest_open_reviews", |tx| {
            Box::pin(async move { reviews::list_oldest_open_reviews(tx, REVIEWS_MAX).await })
        })
        .await;
    let open = open.map_err(|e: db::Error| e.to_string())?;
    let lines: Vec<String> = open.iter().map(|r| format!("{} ({}): {}", r.kind, r.subject, r.detail)).collect();
    Ok(lines.join("\n"))
}
