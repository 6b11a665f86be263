//! Orders: the products that a buyer orders, the price, and the states of payment and delivery. One database
//! transaction stores an order together with its reserved stock, its coupon use and its payment. A database transaction
//! that changes a payment also updates the order of the payment. An order never returns to an earlier state.

mod order_reference;
pub mod payment;
pub mod machine;
mod line_items;
mod payment_changes;
mod store;

#[cfg(test)]
mod tests;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalog::PricingScheme;
use crate::coupons::CouponRejection;
use crate::fulfilment;
use crate::orders::payment::{PaymentInstructions, PaymentMethod, PaymentService};
use crate::orders::store::OrderStatusRow;
use crate::stock;
use clock::Instant;
use db::{self, Db, Locked, Tx};
use ids::{CouponId, LineId, OrderId, Shop, SkuId, UserId};
use money::addresses::{IssueError, ReservedAddress};
use money::effects::PaymentListener;
use money::invoices::{self, InvoiceTerms, Received};
use money::payments::{self, Method, PaymentChange};
use money::pricing::{Currency, Fiat};
use records::audit_log::{self, Action, Actor};
use records::events;

pub use machine::State;
pub use order_reference::OrderReference;

/// The maximum number of lines in one order.
pub const LINES_MAX: usize = 50;

/// The maximum number of external payments that one database transaction expires.
const EXPIRED_PER_RUN_MAX: u32 = 100;

/// An order to create.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// The public id and the number of the order.
    pub reference: OrderReference,
    pub shop: Shop,
    /// The name of the API surface that creates the order. Other surfaces cannot look the order up.
    pub surface: &'static str,
    /// The currency of all prices and amounts of the order.
    pub currency: Currency,
    pub pricing_scheme: PricingScheme,
    /// The ordered products: 1 to [`LINES_MAX`] lines, each with another product.
    pub lines: Vec<NewLine>,
    /// The maximum quantity in one line that the surface allows. The product may have a lower maximum.
    pub quantity_max: u32,
    /// The buyer's e-mail address, which the caller has validated. It is stored as entered and compared in
    /// [normalized](normalize_email) form.
    pub email: String,
    /// The authenticated user; `None` for a guest, who cannot pay from a balance.
    pub user: Option<UserId>,
    /// The coupon code that the buyer entered; `None` without a coupon.
    pub coupon: Option<String>,
    /// The payment method that the buyer chose.
    pub payment_method: PaymentMethod,
    /// The length of the payment window in milliseconds, during which stock and exchange rate are reserved.
    pub window_ms: i64,
}

/// One line of a new order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLine {
    /// The public id of the product.
    pub product: Uuid,
    /// The number of units.
    pub quantity: u32,
}

/// A stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    /// The public id, which the APIs use: a UUID in hyphenated lower-case form.
    pub public_id: String,
    /// The order number for buyers and operators.
    pub order_no: String,
    pub shop: Shop,
    /// The name of the API surface that created the order.
    pub surface: String,
    pub state: State,
    /// The total before the discount.
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
    /// The time when the order was paid; `None` while the order is unpaid.
    pub paid_at: Option<Instant>,
    /// The time when the order was completed, expired, cancelled, failed or refunded; `None` while the order is open.
    pub closed_at: Option<Instant>,
}

/// One line of a stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    pub id: LineId,
    /// The public id of the product.
    pub product: String,
    /// The SKU whose items are delivered.
    pub sku: SkuId,
    /// The number of units.
    pub quantity: u32,
    /// The price of one unit when the order was created.
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
    /// The items could not be delivered, or the payment was lost.
    Failed,
}

db::text_enum!(LineState { Pending => "pending", Delivered => "delivered", Failed => "failed" });

/// An order that was just created, with the instructions for its buyer.
#[derive(Debug)]
pub struct PlacedOrder {
    /// The order as it was stored, with its id.
    pub order: Order,
    /// The lines of the order, in the sequence of the request.
    pub lines: Vec<OrderLine>,
    /// The data that the buyer needs to pay.
    pub instructions: PaymentInstructions,
}

/// The states of an order and of its newest payment. It contains no data that only the buyer may see.
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
    /// The page of the external provider where the buyer pays; `None` for other methods.
    pub pay_url: Option<String>,
    /// The invoice of an on-chain payment and the amounts received for it; `None` for other methods.
    pub invoice: Option<(InvoiceTerms, Received)>,
}

/// An order together with its status.
#[derive(Debug)]
pub struct OrderDetails {
    pub order: Order,
    pub status: OrderStatus,
}

/// The reason why an order was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The order has no line, too many lines, or two lines for one SKU.
    #[error("an order has 1 to {LINES_MAX} lines")]
    BadLines,
    /// A product does not exist, is inactive, or has no price in the currency.
    #[error("there is no such product")]
    ProductNotFound,
    /// A quantity is below the minimum of its product.
    #[error("the quantity is below the minimum of {min}")]
    QuantityBelowMinimum { min: u32 },
    /// A quantity is above the maximum of its product or of the surface.
    #[error("the quantity is above the maximum of {max}")]
    QuantityAboveMaximum { max: u32 },
    /// Fewer items are available than the order needs.
    #[error("there is not enough in stock")]
    InsufficientStock,
    /// The coupon does not exist or does not apply to the order.
    #[error(transparent)]
    CouponInvalid(#[from] CouponRejection),
    /// The asset is not accepted, no fresh rate is known, or no address can be issued.
    #[error("this payment method is not available")]
    MethodUnavailable,
    /// The payment method needs an authenticated user.
    #[error("paying from a balance requires an authenticated user")]
    UserRequired,
    /// The user's balance is below the amount.
    #[error("the balance does not cover the amount")]
    InsufficientBalance,
    /// An amount exceeds the range of its type.
    #[error("the amount is out of range")]
    AmountOutOfRange,
    /// No payment address could be derived.
    #[error(transparent)]
    Issue(IssueError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// The reason why an order was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// The order is paid or has ended. The field is the order's state.
    #[error("the order is already {}", .0.as_str())]
    TooLate(State),
    /// A transfer for the order was seen, so its invoice stays open.
    #[error("money for the order is on its way")]
    MoneyArrived,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Stores an order with its reserved stock, its coupon use and its payment. An order that is free or paid from a
/// balance is paid at once. `address` is the result of [`PaymentService::reserve_payment_address`] for the payment
/// method of the order.
///
/// # Errors
/// After any error the caller must roll the transaction back, so that nothing of the order is stored.
pub async fn create_order(
    tx: &mut Tx,
    now: Instant,
    payment_service: &PaymentService,
    new: NewOrder,
    address: Option<ReservedAddress>,
) -> Result<PlacedOrder, CreateError> {
    let skus = line_items::find_orderable_skus(tx, &new).await?;
    let original = line_items::compute_order_total(&new, &skus).ok_or(CreateError::AmountOutOfRange)?;
    let applied = line_items::redeem_order_coupon(tx, now, &new, &skus).await?;
    let discount = applied.map_or(0, |applied| applied.discount.minor);
    let amount = Fiat::new(new.currency, original.checked_sub(discount).ok_or(CreateError::AmountOutOfRange)?);
    let plan = payment_service.plan_payment(now, new.shop, new.user, &new.payment_method, amount)?;
    line_items::ensure_stock_suffices(&new, &skus)?;

    let is_paid = plan.is_paid_at_once();
    let order = Order {
        id: OrderId(0),
        public_id: new.reference.public_id.to_string(),
        order_no: new.reference.order_no.clone(),
        shop: new.shop,
        surface: new.surface.to_owned(),
        state: if is_paid { State::Paid } else { State::AwaitingPayment },
        original_amount: Fiat::new(new.currency, original),
        discount_amount: Fiat::new(new.currency, discount),
        amount,
        user: new.user,
        coupon: applied.map(|applied| applied.coupon),
        created_at: now,
        expires_at: (!is_paid).then(|| now.plus_ms(new.window_ms)),
        paid_at: is_paid.then_some(now),
        closed_at: None,
    };
    let id = store::insert_order(tx, &order);
    store::insert_order_contact(tx, id, new.email.trim(), &normalize_email(&new.email));
    record_order_event(tx, now, &order, events::Kind::OrderCreated);
    let requested = payment::queue_payment(tx, now, &order, id, plan, address)?;
    if is_paid {
        fulfilment::schedule_delivery(tx, now, id);
        record_order_event(tx, now, &order, events::Kind::OrderPaid);
    }
    // The stock comes last: from here on the rows of the SKUs are locked, and other orders for the same SKUs wait.
    let reserved = line_items::insert_and_reserve_lines(tx, id, &new, &skus);
    tx.run_queued().await?;

    let order = Order { id: tx.id_of(id)?, ..order };
    let lines = reserved.into_order_lines(tx)?;
    let instructions = payment::complete_queued_payment(tx, now, &order, requested).await?;
    Ok(PlacedOrder { order, lines, instructions })
}

/// Applies payment changes to the orders of the payments.
#[derive(Debug, Clone, Copy)]
pub struct PaymentChangeHandler;

impl PaymentListener for PaymentChangeHandler {
    fn on_payment_changes<'a>(
        &'a self,
        tx: &'a mut Tx,
        now: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>> {
        Box::pin(apply_payment_changes_to_orders(tx, now, changes))
    }
}

/// Applies payment changes to the orders, in the database transaction that changed the payments.
async fn apply_payment_changes_to_orders(
    tx: &mut Tx,
    now: Instant,
    changes: &[PaymentChange],
) -> Result<(), db::Error> {
    let mut unpaid = Vec::new();
    for change in changes {
        match *change {
            PaymentChange::Confirming(_) => {}
            PaymentChange::Paid(payment) => payment_changes::apply_payment_paid(tx, now, payment).await?,
            PaymentChange::Expired(payment) => {
                unpaid.extend(payment_changes::lock_order_of_expired_payment(tx, payment).await?)
            }
            PaymentChange::Lost(payment) => unpaid.extend(payment_changes::apply_payment_lost(tx, now, payment).await?),
            PaymentChange::Reversed(payment) => payment_changes::apply_payment_reversed(tx, now, payment).await?,
        }
    }
    payment_changes::end_orders_without_payment(tx, now, unpaid, State::Expired, events::Kind::OrderExpired).await
}

/// Cancels an unpaid order and releases its stock and coupon. A transfer that reaches the address of its invoice later
/// is booked and opens a review.
pub async fn cancel_unpaid_order(tx: &mut Tx, now: Instant, id: OrderId) -> Result<(), CancelError> {
    // Lock the invoice before the order, because database transactions that book deposits lock them in this sequence.
    if let Some(payment) = payments::find_newest_payment(tx, id).await? {
        payments::close_external_payment(tx, now, payment, false).await?;
        if let Some(invoice) = invoices::find_invoice_by_payment(tx, payment).await?
            && invoice.state == invoices::State::Open
            && !invoices::cancel_unpaid_invoice(tx, now, invoice.id).await?
        {
            return Err(CancelError::MoneyArrived);
        }
    }
    let order = store::lock_order(tx, id).await?.ok_or(CancelError::NotFound)?;
    if !order.state.is_unpaid() {
        return Err(CancelError::TooLate(order.state));
    }
    Ok(payment_changes::end_orders_without_payment(
        tx,
        now,
        vec![order],
        State::Cancelled,
        events::Kind::OrderCancelled,
    )
    .await?)
}

/// [Cancels](cancel_unpaid_order) an order at the request of an operator and records the action in the audit log.
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

/// Expires orders whose window for paying at an external provider has ended, and returns the number of expired
/// payments. On-chain orders expire with their invoices instead.
pub async fn expire_overdue_external_payments(tx: &mut Tx, now: Instant) -> Result<usize, db::Error> {
    let mut changes = Vec::new();
    for payment in store::list_overdue_external_payments(tx, now, EXPIRED_PER_RUN_MAX).await? {
        changes.extend(payments::close_external_payment(tx, now, payment, false).await?);
    }
    apply_payment_changes_to_orders(tx, now, &changes).await?;
    Ok(changes.len())
}

/// Marks the payment of an order as received by the external provider. Returns false, and changes nothing, when the
/// order does not wait for an external payment.
pub async fn mark_external_payment_received(tx: &mut Tx, now: Instant, id: OrderId) -> Result<bool, db::Error> {
    let Some(payment) = payments::find_newest_payment(tx, id).await? else { return Ok(false) };
    let change = payments::close_external_payment(tx, now, payment, true).await?;
    apply_payment_changes_to_orders(tx, now, change.as_slice()).await?;
    Ok(change.is_some())
}

/// [Marks](mark_external_payment_received) the external payment of an order as received, after an operator saw the
/// payment at the provider, and records the action in the audit log.
pub async fn mark_external_payment_received_by_operator(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    order: &OrderDetails,
) -> Result<bool, db::Error> {
    let OrderDetails { order, status } = order;
    let is_confirmed = mark_external_payment_received(tx, now, order.id).await?;
    if is_confirmed {
        let detail = format_audit_detail(order, status.method);
        audit_log::record_action(tx, now, actor, Action::OrderConfirm, &order.order_no, &detail).await?;
    }
    Ok(is_confirmed)
}

/// Returns the status of the order with this public id; `None` when the surface and shop have no such order. Clients
/// poll this status, so the function needs one statement. It needs more statements only while an unconfirmed transfer
/// to the order is known.
pub async fn find_order_status(
    db: &Db,
    shop: Shop,
    surface: &'static str,
    public_id: Uuid,
) -> Result<Option<OrderStatus>, db::Error> {
    let id = public_id.to_string();
    let row = db.select_one("order_status", move |tx| {
        Box::pin(async move { store::find_order_status(tx, shop, surface, &id).await })
    });
    match row.await? {
        Some(row) if row.has_unconfirmed => {
            let id = public_id.to_string();
            let status = db.read("order_status", move |tx| {
                Box::pin(async move {
                    let Some(row) = store::find_order_status(tx, shop, surface, &id).await? else { return Ok(None) };
                    add_unconfirmed_transfers(tx, row).await.map(Some)
                })
            });
            status.await
        }
        row => Ok(row.map(|row| row.status)),
    }
}

/// Returns the order with this number; `None` unless `email` is the address that the order was created with.
pub async fn find_order_by_number_and_email(
    tx: &mut Tx,
    shop: Shop,
    surface: &str,
    order_no: &str,
    email: &str,
) -> Result<Option<OrderDetails>, db::Error> {
    let found =
        store::find_order_by_number_and_email(tx, shop, surface, order_no.trim(), &normalize_email(email)).await?;
    to_order_details(tx, found).await
}

/// Returns the order of any shop with this number or public id. It does not check access rights, so it is for
/// operators only.
pub async fn find_order_by_number_or_id(tx: &mut Tx, number_or_id: &str) -> Result<Option<OrderDetails>, db::Error> {
    // A UUID can be written in several ways; the hyphenated lower-case form is stored.
    let number_or_id = number_or_id.trim();
    let stored = number_or_id.parse::<Uuid>().map_or_else(|_| number_or_id.to_owned(), |id| id.to_string());
    let found = store::find_order_by_number_or_id(tx, &stored).await?;
    to_order_details(tx, found).await
}

/// Returns the lines of an order, sorted by line number.
pub async fn list_order_lines(tx: &mut Tx, order: &Order) -> Result<Vec<OrderLine>, db::Error> {
    store::list_order_lines(tx, order).await
}

/// Returns the delivered items of an order, still encrypted; `None` unless the order is delivered or completed.
pub async fn find_delivered_items(
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

/// Returns true when mail can be sent to the address.
pub fn is_deliverable_email(email: &str) -> bool {
    mail::Address::parse_address(email).is_ok()
}

/// Returns the form in which e-mail addresses are compared: in lower case, in composed Unicode, and with the domain in
/// ASCII form, so that all spellings of one address are equal. Returns a text that is no address in lower case.
pub fn normalize_email(email: &str) -> String {
    match mail::Address::parse_address(email) {
        Ok(address) => address.to_canonical_text(),
        Err(mail::InvalidAddress) => email.trim().to_lowercase(),
    }
}

/// Returns the buyer's e-mail address as entered; `None` after it was erased.
pub async fn find_order_email(tx: &mut Tx, id: OrderId) -> Result<Option<String>, db::Error> {
    store::find_order_email(tx, id).await
}

/// Returns an order with its row locked; `None` when it does not exist.
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
    store::set_order_state(tx, now, order, to).await
}

/// Sets the delivery state of one line.
pub(crate) async fn set_order_line_state(
    tx: &mut Tx,
    now: Instant,
    line: LineId,
    to: LineState,
) -> Result<(), db::Error> {
    store::set_order_line_state(tx, now, line, to).await
}

/// Records an event about an order in the event log.
pub(crate) fn record_order_event(tx: &mut Tx, now: Instant, order: &Order, kind: events::Kind) {
    events::record_event(tx, now, order.shop, kind, &order.public_id, &format_event_payload(order));
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

/// Returns the text for the audit log, such as `0.5 CNY by alipay`.
fn format_audit_detail(order: &Order, method: Method) -> String {
    format!("{} {} by {}", order.amount.to_decimal(), order.amount.currency, method.as_str())
}

async fn to_order_details(
    tx: &mut Tx,
    found: Option<(Order, OrderStatusRow)>,
) -> Result<Option<OrderDetails>, db::Error> {
    let Some((order, row)) = found else { return Ok(None) };
    Ok(Some(OrderDetails { order, status: add_unconfirmed_transfers(tx, row).await? }))
}

/// Adds the amounts of unconfirmed transfers to the received amounts of the order's invoice.
async fn add_unconfirmed_transfers(tx: &mut Tx, row: OrderStatusRow) -> Result<OrderStatus, db::Error> {
    let OrderStatusRow { mut status, has_unconfirmed } = row;
    if has_unconfirmed && let Some((invoice, received)) = status.invoice.take() {
        let received = invoices::add_unconfirmed_payment(tx, &invoice, received).await?;
        status.invoice = Some((invoice, received));
    }
    Ok(status)
}
