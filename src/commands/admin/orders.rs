//! Orders: what an operator sees of one, and what a person has to say of it.

use chain::{Amount, Family};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::commands::admin::{Act, Refused, fiat};
use crate::commands::context::Context;
use db::Tx;
use money::invoices::{InvoiceTerms, Received};
use money::payments::Method;
use records::audit_log::{self, Action};
use shop::orders::{self, CancelError, Order, OrderDetails, OrderLine, OrderStatus};
use shop::{catalog, merchants, users};

#[derive(Subcommand)]
pub enum Verb {
    /// Show an order: its state, what it costs and how it is paid. Goods are never shown.
    Show(Named),
    /// Take an unpaid order back, unless money for it has arrived: its goods are on sale again.
    Cancel(Named),
    /// Say that the money of an order arrived at Alipay or WeChat Pay, where a person saw it. Its goods go out.
    Confirm(Named),
}

#[derive(clap::Args, Serialize, Deserialize)]
pub struct Named {
    /// The order's number or its id.
    #[arg(value_name = "NUMBER_OR_ID")]
    pub order: String,
}

/// What is known of an order, with the names that commands take.
struct Shown {
    view: OrderDetails,
    merchant: String,
    user: Option<String>,
    /// None once it was erased.
    email: Option<String>,
    /// With the product's slug.
    lines: Vec<(OrderLine, String)>,
}

impl Verb {
    pub fn act(self) -> Act {
        match self {
            Verb::Show(named) => Act::ShowOrder(named),
            Verb::Cancel(named) => Act::CancelOrder(named),
            Verb::Confirm(named) => Act::ConfirmOrder(named),
        }
    }
}

async fn find(tx: &mut Tx, named: &Named) -> Result<OrderDetails, Refused> {
    let name = named.order.trim();
    // A UUID has several spellings; one of them is stored.
    let stored = name.parse::<Uuid>().map_or_else(|_| name.to_owned(), |id| id.to_string());
    orders::find_by_number_or_id(tx, &stored)
        .await?
        .ok_or_else(|| Refused::Rejected(format!("there is no order `{name}`")))
}

pub async fn show(context: &Context, named: Named) -> Result<String, String> {
    let shown = context
        .db
        .read("show_order", move |tx| {
            Box::pin(async move {
                let view = find(tx, &named).await?;
                look_closer(tx, view).await
            })
        })
        .await?;
    Ok(describe(context, &shown))
}

async fn look_closer(tx: &mut Tx, view: OrderDetails) -> Result<Shown, Refused> {
    let order = &view.order;
    let merchant = merchants::list(tx).await?.into_iter().find(|merchant| merchant.id == order.shop.merchant);
    let user = match order.user {
        Some(id) => users::list(tx, order.shop).await?.into_iter().find(|user| user.id == id).map(|user| user.name),
        None => None,
    };
    let email = orders::find_email(tx, order.id).await?;
    let mut lines = Vec::new();
    for line in orders::list_lines(tx, order).await? {
        let product = catalog::find_with_prices(tx, order.shop, &line.product).await?;
        let slug = product.map_or_else(|| line.product.clone(), |product| product.slug);
        lines.push((line, slug));
    }
    let merchant = merchant.map_or_else(|| "unknown".into(), |merchant| merchant.slug);
    Ok(Shown { merchant, user, email, lines, view })
}

fn describe(context: &Context, shown: &Shown) -> String {
    let Shown { view: OrderDetails { order, status }, merchant, user, email, lines } = shown;
    let mut text = vec![
        format!("order {} ({})", order.order_no, order.public_id),
        format!("  state: {}", order.state.as_str()),
        format!("  shop: {merchant}, {}, surface {}", order.shop.mode.as_str(), order.surface),
        format!("  amount: {}", amount(order)),
        format!("  created: {}", order.created_at),
    ];
    text.extend(order.expires_at.map(|at| format!("  window ends: {at}")));
    text.extend(order.paid_at.map(|at| format!("  paid: {at}")));
    text.extend(order.closed_at.map(|at| format!("  ended: {at}")));
    text.push(format!("  e-mail: {}", email.as_deref().unwrap_or("erased")));
    text.extend(user.as_ref().map(|user| format!("  user: {user}")));
    text.push(format!("payment {}: {}", status.method.as_str(), status.payment_state.as_str()));
    text.extend(status.pay_url.as_ref().map(|url| format!("  page: {url}")));
    if let Some((asked, received)) = &status.invoice {
        text.extend(on_chain(context, asked, received));
    }
    text.push("lines:".into());
    text.extend(lines.iter().map(|(line, slug)| {
        format!("  {} of {slug} at {}: {}", line.quantity, fiat(line.unit_price), line.state.as_str())
    }));
    text.join("\n")
}

fn amount(order: &Order) -> String {
    match order.discount_amount.minor {
        0 => fiat(order.amount),
        _ => format!("{}, {} less {}", fiat(order.amount), fiat(order.original_amount), fiat(order.discount_amount)),
    }
}

fn on_chain(context: &Context, asked: &InvoiceTerms, received: &Received) -> Vec<String> {
    let configured = context.config.chains.get(&asked.chain);
    let asset = configured.and_then(|chain| chain.assets().map(|(_, asset)| asset).find(|a| a.id == asked.asset));
    let coins = |amount: Amount| match asset {
        Some(asset) => format!("{} {}", amount.to_decimal(asset.decimals), asset.symbol),
        None => format!("{amount} base units of {}", asked.asset),
    };
    let mut text = vec![
        format!("  address: {} on {}", asked.address, asked.chain),
        format!("  due: {} until {}, {}", coins(asked.due), asked.expires_at, asked.state.as_str()),
        format!("  received: {}, confirmed {}", coins(received.seen), coins(received.confirmed)),
    ];
    if !received.expected.amount.is_zero() {
        text.push(format!("  on its way: {}", coins(received.expected.amount)));
    }
    let depth = received.confirmations.map(|depth| format!("  confirmations: {depth} of {}", asked.confirmations));
    text.extend(depth);
    let prefix = if configured.is_some_and(|chain| chain.family == Family::Evm) { "0x" } else { "" };
    text.extend(received.txid.map(|txid| format!("  newest transaction: {prefix}{txid}")));
    text
}

pub async fn cancel(context: &Context, named: Named) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let OrderDetails { order, status } = context
        .db
        .write("cancel_order", move |tx| {
            Box::pin(async move {
                let view = find(tx, &named).await?;
                let OrderDetails { order, status } = &view;
                let refused =
                    |e: CancelError| Refused::Rejected(format!("order {} cannot be cancelled: {e}", order.order_no));
                orders::cancel(tx, now, order.id).await.map_err(refused)?;
                audit_log::record(tx, now, &actor, Action::OrderCancel, &order.order_no, &told(order, status)).await?;
                Ok::<_, Refused>(view)
            })
        })
        .await?;
    let after = match status.method {
        Method::Crypto => " What still reaches its address is booked and reviewed.",
        Method::Alipay | Method::Wechat => " Nobody tells us when its buyer still pays there.",
        Method::BalanceCny | Method::BalanceCrypto => "",
    };
    Ok(format!("Order {} is cancelled, and its goods are on sale again.{after}", order.order_no))
}

pub async fn confirm(context: &Context, named: Named) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let OrderDetails { order, .. } = context
        .db
        .write("confirm_order", move |tx| {
            Box::pin(async move {
                let view = find(tx, &named).await?;
                let OrderDetails { order, status } = &view;
                if !orders::confirm_external_payment(tx, now, order.id).await? {
                    return Err(Refused::Rejected(not_awaited(order, status)));
                }
                audit_log::record(tx, now, &actor, Action::OrderConfirm, &order.order_no, &told(order, status)).await?;
                Ok(view)
            })
        })
        .await?;
    // There are goods to hand out.
    context.wake.wake();
    let next = match &context.daemon {
        Some(_) => "its goods go out now",
        None => "its goods go out when the daemon runs",
    };
    Ok(format!("Order {} is paid; {next}.", order.order_no))
}

/// For the log of administrators' acts.
fn told(order: &Order, status: &OrderStatus) -> String {
    format!("{} by {}", fiat(order.amount), status.method.as_str())
}

fn not_awaited(order: &Order, status: &OrderStatus) -> String {
    let (number, method, state) = (&order.order_no, status.method.as_str(), order.state.as_str());
    match status.method {
        Method::Alipay | Method::Wechat => {
            let payment = status.payment_state.as_str();
            format!("order {number} is {state} and its payment {payment}: it does not wait for money any more")
        }
        Method::Crypto | Method::BalanceCny | Method::BalanceCrypto => {
            format!("order {number} is paid by {method}, which nobody has to confirm; it is {state}")
        }
    }
}
