//! Orders: the products that a buyer orders, the price, and the states of payment and delivery. One database
//! transaction stores an order together with its reserved stock, its coupon use and its payment. A database transaction
//! that changes a payment also updates the order to which the payment belongs. An order never returns to an earlier
//! state.

mod new_order;
mod order_reference;
pub mod new_payment;
pub mod machine;
mod payment_changes;
mod store;

#[cfg(test)]
mod tests;

use uuid::Uuid;

use crate::orders::store::OrderStatusRow;
use crate::stock;
use clock::Instant;
use db::{self, Db, Locked, Tx};
use ids::{CouponId, LineId, OrderId, PaymentId, Shop, SkuId, UserId};
use money::invoices::{self, InvoiceTerms, ReceivedSums};
use money::payments::{self, Method};
use money::pricing::Fiat;
use records::audit_log::{self, Action, Actor};
use records::events;

pub use machine::State;
pub use new_order::{CreateOrderError, NewLine, NewOrder, PlacedOrder, create_order};
pub use order_reference::OrderReference;
pub use payment_changes::{
    PaymentChangeHandler, expire_external_payments_and_orders, mark_external_payment_received,
    mark_external_payment_received_by_operator,
};

/// A stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    /// The public id, which the APIs use: a UUID in hyphenated lower-case form.
    pub public_id: String,
    /// The order number that buyers and operators see.
    pub order_no: String,
    pub shop: Shop,
    /// The name of the API surface that created the order.
    pub surface: String,
    pub state: State,
    /// The total price before the discount.
    pub original_amount: Fiat,
    /// The discount of the coupon; zero without a coupon.
    pub discount_amount: Fiat,
    /// The amount to pay: `original_amount` minus `discount_amount`.
    pub amount: Fiat,
    /// The user who ordered; `None` for a guest.
    pub user: Option<UserId>,
    /// The coupon that was used; `None` without a coupon.
    pub coupon: Option<CouponId>,
    pub created_at: Instant,
    /// The end of the payment window; `None` when the order was paid at creation.
    pub expires_at: Option<Instant>,
    /// The time when the order was fully paid; `None` while the order is unpaid.
    pub paid_at: Option<Instant>,
    /// The payment that paid the order; `None` while the order is unpaid, and when it was paid at creation.
    pub paid_by: Option<PaymentId>,
    /// The time when the order was completed, expired, cancelled, failed or refunded; `None` while the order is open.
    pub closed_at: Option<Instant>,
}

/// One line of a stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    pub id: LineId,
    /// The public id of the product.
    pub product: String,
    /// The SKU whose items the buyer receives.
    pub sku: SkuId,
    /// The ordered number of units.
    pub quantity: u32,
    /// The price of one unit at the time when the order was created.
    pub unit_price: Fiat,
    /// The delivery state of the line.
    pub state: LineState,
}

/// The delivery state of one order line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineState {
    /// The items are reserved and not delivered yet.
    Pending,
    /// All items of the line were delivered.
    Delivered,
    /// The items could not be delivered, or the payment of the order was lost.
    Failed,
}

db::text_enum!(LineState { Pending => "pending", Delivered => "delivered", Failed => "failed" });

/// The states of an order and of its newest payment, without data that only the buyer may see.
#[derive(Debug)]
pub struct OrderStatus {
    /// The state of the order.
    pub state: State,
    /// The end of the payment window; `None` when the order was paid at creation.
    pub expires_at: Option<Instant>,
    /// The method of the newest payment.
    pub method: Method,
    /// The state of the newest payment.
    pub payment_state: payments::State,
    /// The page of Alipay or WeChat Pay where the buyer pays; `None` for other payment methods.
    pub pay_url: Option<String>,
    /// The invoice of an on-chain payment and the amounts that it has received; `None` for other payment methods.
    pub invoice: Option<(InvoiceTerms, ReceivedSums)>,
}

/// An order together with the state of its payment.
#[derive(Debug)]
pub struct OrderDetails {
    pub order: Order,
    pub status: OrderStatus,
}

/// The reason why an order was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No order has this id.
    #[error("there is no such order")]
    NotFound,
    /// The order is paid or has ended. The field is the order's state.
    #[error("the order is already {}", .0.as_str())]
    TooLate(State),
    /// A transfer to the order's invoice was already seen, so the order stays open.
    #[error("money for the order is on its way")]
    MoneyArrived,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Cancels an unpaid order and releases its stock and coupon. Fails when a transfer to the order's invoice was already
/// seen. A transfer that arrives after the cancellation is booked and opens a review.
pub async fn cancel_unpaid_order(tx: &mut Tx, now: Instant, id: OrderId) -> Result<(), CancelError> {
    // Lock the invoice before the order, because database transactions that book deposits lock the two rows in this
    // sequence.
    if let Some(payment) = payments::find_newest_payment(tx, id).await? {
        payments::close_pending_external_payment(tx, now, payment, false).await?;
        if let Some(invoice) = invoices::find_invoice_by_payment(tx, payment).await?
            && invoice.state == invoices::State::Open
            && !invoices::cancel_invoice_if_no_money_seen(tx, now, invoice.id).await?
        {
            return Err(CancelError::MoneyArrived);
        }
    }
    let order = store::lock_order(tx, id).await?.ok_or(CancelError::NotFound)?;
    if !order.state.is_unpaid() {
        return Err(CancelError::TooLate(order.state));
    }
    Ok(payment_changes::end_or_fail_orders_and_release_stock(
        tx,
        now,
        vec![order],
        State::Cancelled,
        events::Kind::OrderCancelled,
    )
    .await?)
}

/// Cancels an unpaid order like [`cancel_unpaid_order`], at the request of an operator, and records the action in the
/// audit log.
pub async fn cancel_order_by_operator(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    order: &OrderDetails,
) -> Result<(), CancelError> {
    cancel_unpaid_order(tx, now, order.order.id).await?;
    let OrderDetails { order, status } = order;
    let detail = format_audit_detail(order, status.method);
    Ok(audit_log::record_action(tx, now, actor, Action::OrderCancel, &order.order_no, &detail).await?)
}

/// Returns the status of the order with this public id; `None` when no order of this surface and shop has the id.
/// Clients poll the status, so the function runs a single statement, except while an unconfirmed transfer to the order
/// is known.
pub async fn find_order_status(
    db: &Db,
    shop: Shop,
    surface: &'static str,
    public_id: Uuid,
) -> Result<Option<OrderStatus>, db::Error> {
    let id = public_id.to_string();
    let row = db.run_body_as_select_with_fallback("find_order_status", move |tx| {
        Box::pin(async move { store::find_order_status(tx, shop, surface, &id).await })
    });
    match row.await? {
        Some(row) if row.has_unconfirmed => {
            let id = public_id.to_string();
            let status = db.read("find_order_status", move |tx| {
                Box::pin(async move {
                    let Some(row) = store::find_order_status(tx, shop, surface, &id).await? else { return Ok(None) };
                    add_unconfirmed_to_received_sums(tx, row).await.map(Some)
                })
            });
            status.await
        }
        row => Ok(row.map(|row| row.status)),
    }
}

/// Returns the order of the shop with this number; `None` when the shop has no such order, or when the order has
/// another e-mail address than `email`.
pub async fn find_order_by_number_and_email(
    tx: &mut Tx,
    shop: Shop,
    surface: &str,
    order_no: &str,
    email: &str,
) -> Result<Option<OrderDetails>, db::Error> {
    let found =
        store::find_order_by_number_and_email(tx, shop, surface, order_no.trim(), &normalize_email(email)).await?;
    build_details_with_unconfirmed(tx, found).await
}

/// Returns the order of any shop with this number or public id; `None` when no shop has such an order. This function
/// checks no access rights, so only operators may use it.
pub async fn find_any_shop_order_by_number_or_id(
    tx: &mut Tx,
    number_or_id: &str,
) -> Result<Option<OrderDetails>, db::Error> {
    // A UUID can be written in several ways. The database stores the hyphenated lower-case form, so convert the text to
    // this form.
    let number_or_id = number_or_id.trim();
    let stored = number_or_id.parse::<Uuid>().map_or_else(|_| number_or_id.to_owned(), |id| id.to_string());
    let found = store::find_any_shop_order_by_number_or_id(tx, &stored).await?;
    build_details_with_unconfirmed(tx, found).await
}

/// Returns the lines of an order, sorted by line number.
pub async fn list_order_lines(tx: &mut Tx, order: &Order) -> Result<Vec<OrderLine>, db::Error> {
    store::list_order_lines(tx, order).await
}

/// Returns the delivered items of an order, still encrypted; `None` while the order is neither delivered nor completed.
pub async fn find_sealed_items_if_delivered(
    tx: &mut Tx,
    order: &Order,
    lines: &[OrderLine],
) -> Result<Option<Vec<stock::SealedItem>>, db::Error> {
    match order.state {
        State::Delivered | State::Completed => {}
        State::Created
        | State::AwaitingPayment
        | State::Paid
        | State::Processing
        | State::PartiallyDelivered
        | State::Expired
        | State::Cancelled
        | State::Failed
        | State::Refunded => return Ok(None),
    }
    let mut items = Vec::new();
    for line in lines {
        items.extend(stock::list_delivered_items(tx, line.id).await?);
    }
    Ok(Some(items))
}

/// Returns true when the text is a valid e-mail address. The function does not check if the mailbox exists.
pub fn is_deliverable_email(email: &str) -> bool {
    mail::Address::parse_address(email).is_ok()
}

/// Returns the form in which e-mail addresses are compared: in lower case, in composed Unicode, and with the domain in
/// ASCII form, so that all spellings of one address are equal. A text that is not an e-mail address is only trimmed and
/// converted to lower case.
pub fn normalize_email(email: &str) -> String {
    match mail::Address::parse_address(email) {
        Ok(address) => address.to_canonical_text(),
        Err(mail::InvalidAddress) => email.trim().to_lowercase(),
    }
}

/// Returns the e-mail address of an order's buyer as the buyer entered it; `None` after the address was erased.
pub async fn find_order_email(tx: &mut Tx, id: OrderId) -> Result<Option<String>, db::Error> {
    store::find_order_email(tx, id).await
}

/// Locks the row of an order and returns the order; `None` when the order does not exist.
pub(crate) async fn lock_order(tx: &mut Tx, id: OrderId) -> Result<Option<Locked<Order>>, db::Error> {
    store::lock_order(tx, id).await
}

/// Moves an order to the state `to`.
///
/// # Errors
/// Fails when the [state machine](State::can_advance_to) does not allow the step.
pub(crate) async fn advance_order_state(
    tx: &mut Tx,
    now: Instant,
    order: Locked<Order>,
    to: State,
) -> Result<Locked<Order>, db::Error> {
    if !order.state.can_advance_to(to) {
        let step = format!("order {} cannot go from {} to {}", order.id, order.state.as_str(), to.as_str());
        return Err(db::Error::Statement(step));
    }
    store::set_order_state_and_times(tx, now, order, to).await
}

/// Sets the delivery state of one order line.
pub(crate) async fn set_order_line_state(
    tx: &mut Tx,
    now: Instant,
    line: LineId,
    to: LineState,
) -> Result<(), db::Error> {
    store::set_order_line_state_and_time(tx, now, line, to).await
}

/// Queues an event about an order for the event log. The event contains the current state of the order.
pub(crate) fn record_order_event(tx: &mut Tx, now: Instant, order: &Order, kind: events::Kind) {
    events::queue_event(tx, now, order.shop, kind, &order.public_id, &format_event_payload(order));
}

/// Returns the JSON body of an event about an order.
fn format_event_payload(order: &Order) -> String {
    let body = serde_json::json!({
        "order_id": order.public_id,
        "order_no": order.order_no,
        "surface": order.surface,
        "state": order.state.as_str(),
        "currency": order.amount.currency.as_str(),
        "amount_minor": order.amount.minor,
    });
    body.to_string()
}

/// Returns a text about an order for the audit log: amount, currency and payment method, such as `0.5 CNY by alipay`.
fn format_audit_detail(order: &Order, method: Method) -> String {
    format!("{} {} by {}", order.amount.to_decimal(), order.amount.currency, method.as_str())
}

/// Returns the details of an order from the result of a query, which does not include unconfirmed transfers; this
/// function adds their amounts. `None` when the query has found no order.
async fn build_details_with_unconfirmed(
    tx: &mut Tx,
    found: Option<(Order, OrderStatusRow)>,
) -> Result<Option<OrderDetails>, db::Error> {
    let Some((order, row)) = found else { return Ok(None) };
    Ok(Some(OrderDetails { order, status: add_unconfirmed_to_received_sums(tx, row).await? }))
}

/// Returns the status of an order with the amounts of its unconfirmed transfers added to the received amounts of its
/// invoice. Runs no statement when no unconfirmed transfer is known.
async fn add_unconfirmed_to_received_sums(tx: &mut Tx, row: OrderStatusRow) -> Result<OrderStatus, db::Error> {
    let OrderStatusRow { mut status, has_unconfirmed } = row;
    if has_unconfirmed && let Some((invoice, received)) = status.invoice.take() {
        let received = invoices::add_unconfirmed_if_invoice_waits(tx, &invoice, received).await?;
        status.invoice = Some((invoice, received));
    }
    Ok(status)
}
