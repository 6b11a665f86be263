//! The commands `settled admin order …`.

use chain::{Amount, Family};
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::commands::admin::products::format_price;
use crate::commands::admin::{AdminError, AdminOperation};
use crate::commands::context::Context;
use db::Tx;
use money::invoices::{InvoiceTerms, ReceivedSums};
use money::payments::Method;
use shop::orders::{self, CancelError, Order, OrderDetails, OrderLine, OrderStatus};
use shop::{catalog, merchants, users};

/// The subcommands of `settled admin order`.
#[derive(Subcommand)]
pub enum Command {
    /// Show an order: its state, its price and its payment. The delivered items are never shown.
    Show(OrderName),
    /// Cancel an unpaid order and put its items back on sale. The command fails after money has arrived.
    Cancel(OrderName),
    /// Confirm that you saw the payment for an order at Alipay or WeChat Pay. The order is then delivered.
    Confirm(OrderName),
}

/// The number or the public id that selects an order.
#[derive(clap::Args, Serialize, Deserialize)]
pub struct OrderName {
    /// Number or id of the order.
    #[arg(value_name = "NUMBER_OR_ID")]
    pub order: String,
}

/// The data that `order show` prints.
struct OrderReport {
    order: OrderDetails,
    merchant_slug: String,
    user_name: Option<String>,
    /// The buyer's e-mail address; `None` after the address was erased.
    email: Option<String>,
    /// The order lines, each with the slug of its product.
    lines: Vec<(OrderLine, String)>,
}

impl Command {
    /// Returns the operation that this subcommand requests, with its arguments.
    pub fn into_operation(self) -> AdminOperation {
        match self {
            Command::Show(name) => AdminOperation::ShowOrder(name),
            Command::Cancel(name) => AdminOperation::CancelOrder(name),
            Command::Confirm(name) => AdminOperation::ConfirmOrder(name),
        }
    }
}

/// Returns the order with this number or public id. Fails when no such order exists.
async fn require_order(tx: &mut Tx, name: &OrderName) -> Result<OrderDetails, AdminError> {
    let name = name.order.trim();
    let found = orders::find_any_shop_order_by_number_or_id(tx, name).await?;
    found.ok_or_else(|| AdminError::Refused(format!("there is no order `{name}`")))
}

/// Returns a text that describes an order, its payment and its lines.
pub async fn describe_order_and_payment(context: &Context, name: OrderName) -> Result<String, String> {
    let report = context
        .db
        .read("load_order_report", move |tx| {
            Box::pin(async move {
                let order = require_order(tx, &name).await?;
                load_order_report(tx, order).await
            })
        })
        .await?;
    Ok(format_order_report(context, &report))
}

async fn load_order_report(tx: &mut Tx, details: OrderDetails) -> Result<OrderReport, AdminError> {
    let order = &details.order;
    let merchant = merchants::list_merchants(tx).await?.into_iter().find(|merchant| merchant.id == order.shop.merchant);
    let user_name = match order.user {
        Some(id) => {
            users::list_users(tx, order.shop).await?.into_iter().find(|user| user.id == id).map(|user| user.name)
        }
        None => None,
    };
    let email = orders::find_order_email(tx, order.id).await?;
    let mut lines = Vec::new();
    for line in orders::list_order_lines(tx, order).await? {
        let product = catalog::find_product_in_any_state(tx, order.shop, &line.product).await?;
        let slug = product.map_or_else(|| line.product.clone(), |product| product.slug);
        lines.push((line, slug));
    }
    let merchant_slug = merchant.map_or_else(|| "unknown".into(), |merchant| merchant.slug);
    Ok(OrderReport { order: details, merchant_slug, user_name, email, lines })
}

fn format_order_report(context: &Context, report: &OrderReport) -> String {
    let OrderReport { order: OrderDetails { order, status }, merchant_slug, user_name, email, lines } = report;
    let mut text = vec![
        format!("order {} ({})", order.order_no, order.public_id),
        format!("  state: {}", order.state.as_str()),
        format!("  shop: {merchant_slug}, {}, surface {}", order.shop.mode.as_str(), order.surface),
        format!("  amount: {}", format_amount_with_discount(order)),
        format!("  created: {}", order.created_at),
    ];
    text.extend(order.expires_at.map(|at| format!("  window ends: {at}")));
    text.extend(order.paid_at.map(|at| format!("  paid: {at}")));
    text.extend(order.closed_at.map(|at| format!("  ended: {at}")));
    text.push(format!("  e-mail: {}", email.as_deref().unwrap_or("erased")));
    text.extend(user_name.as_ref().map(|name| format!("  user: {name}")));
    text.push(format!("payment {}: {}", status.method.as_str(), status.payment_state.as_str()));
    text.extend(status.pay_url.as_ref().map(|url| format!("  page: {url}")));
    if let Some((invoice, received)) = &status.invoice {
        text.extend(format_invoice_lines(context, invoice, received));
    }
    text.push("lines:".into());
    text.extend(lines.iter().map(|(line, slug)| {
        format!("  {} of {slug} at {}: {}", line.quantity, format_price(line.unit_price), line.state.as_str())
    }));
    text.join("\n")
}

fn format_amount_with_discount(order: &Order) -> String {
    let amount = format_price(order.amount);
    match order.discount_amount.minor {
        0 => amount,
        _ => format!("{amount}, {} less {}", format_price(order.original_amount), format_price(order.discount_amount)),
    }
}

fn format_invoice_lines(context: &Context, invoice: &InvoiceTerms, received: &ReceivedSums) -> Vec<String> {
    let chain = context.config.chains.get(&invoice.chain);
    let asset = chain.and_then(|chain| chain.assets().map(|(_, asset)| asset).find(|a| a.id == invoice.asset));
    let format_units = |amount: Amount| match asset {
        Some(asset) => format!("{} {}", amount.to_decimal(asset.decimals), asset.symbol),
        None => format!("{amount} base units of {}", invoice.asset),
    };
    let mut text = vec![
        format!("  address: {} on {}", invoice.address, invoice.chain),
        format!("  due: {} until {}, {}", format_units(invoice.due), invoice.expires_at, invoice.state.as_str()),
        format!("  received: {}, confirmed {}", format_units(received.seen), format_units(received.confirmed)),
    ];
    if !received.unconfirmed.amount.is_zero() {
        text.push(format!("  on its way: {}", format_units(received.unconfirmed.amount)));
    }
    let confirmations =
        received.confirmations.map(|count| format!("  confirmations: {count} of {}", invoice.confirmations));
    text.extend(confirmations);
    let prefix = if chain.is_some_and(|chain| chain.family == Family::Evm) { "0x" } else { "" };
    text.extend(received.txid.map(|txid| format!("  newest transaction: {prefix}{txid}")));
    text
}

/// Cancels an unpaid order. Returns a message that also explains what happens to payments that arrive later.
pub async fn cancel_unpaid_order(context: &Context, name: OrderName) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let OrderDetails { order, status } = context
        .db
        .write("cancel_order", move |tx| {
            Box::pin(async move {
                let order = require_order(tx, &name).await?;
                let number = &order.order.order_no;
                let refused = |e: CancelError| AdminError::Refused(format!("order {number} cannot be cancelled: {e}"));
                orders::cancel_order_by_operator(tx, now, &actor, &order).await.map_err(refused)?;
                Ok::<_, AdminError>(order)
            })
        })
        .await?;
    let note = match status.method {
        Method::Crypto => " A transfer that still reaches its address is booked and opens a review.",
        Method::Alipay | Method::Wechat => " A payment that its buyer still makes at the provider is not noticed here.",
        Method::BalanceCny | Method::BalanceCrypto => "",
    };
    Ok(format!("Order {} is cancelled, and its items are on sale again.{note}", order.order_no))
}

/// Marks the external payment of an order as received. Fails when the order does not wait for an external payment.
pub async fn mark_external_payment_received(context: &Context, name: OrderName) -> Result<String, String> {
    let (now, actor) = (context.clock.now(), context.actor.clone());
    let OrderDetails { order, .. } = context
        .db
        .write("mark_external_payment_received", move |tx| {
            Box::pin(async move {
                let order = require_order(tx, &name).await?;
                if !orders::mark_external_payment_received_by_operator(tx, now, &actor, &order).await? {
                    return Err(AdminError::Refused(explain_why_no_payment_is_awaited(&order)));
                }
                Ok(order)
            })
        })
        .await?;
    // Wake the fulfilment worker, because the order is now due for delivery.
    context.wake.wake();
    let next = match &context.daemon {
        Some(_) => "it is being delivered",
        None => "it will be delivered when the daemon runs",
    };
    Ok(format!("Order {} is paid; {next}.", order.order_no))
}

/// Returns a message for the operator that explains why the order does not wait for an external payment.
fn explain_why_no_payment_is_awaited(OrderDetails { order, status }: &OrderDetails) -> String {
    let OrderStatus { method, payment_state, .. } = status;
    let (number, method_name, state) = (&order.order_no, method.as_str(), order.state.as_str());
    match method {
        Method::Alipay | Method::Wechat => {
            let payment = payment_state.as_str();
            format!("order {number} is {state} and its payment {payment}: it does not wait for a payment")
        }
        Method::Crypto | Method::BalanceCny | Method::BalanceCrypto => {
            format!("order {number} is paid by {method_name}, which needs no confirmation; it is {state}")
        }
    }
}
