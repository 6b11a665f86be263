//! Orders: what was bought, for how much, and how far it is.
//!
//! An order exists together with its reserved stock, its counted coupon and its payment, or not at all. It learns what
//! became of its payment in the transaction in which that happened, and its state only moves forward.

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
use crate::coupons::CouponRefusal;
use crate::orders::payment::{PaymentInstructions, PaymentMethod, PaymentService};
use crate::orders::store::OrderStatusRow;
use crate::stock;
use clock::Instant;
use db::{self, Batch, Db, Locked, Tx};
use ids::{CouponId, LineId, OrderId, Shop, SkuId, UserId};
use money::addresses::{IssueError, ReservedAddress};
use money::effects::PaymentListener;
use money::invoices::{self, InvoiceTerms, Received};
use money::payments::{self, Method, PaymentChange};
use money::pricing::{Currency, Fiat};
use records::events;

pub use machine::State;
pub use order_reference::OrderReference;

pub const LINES_MAX: usize = 50;

/// Orders that one transaction ends.
const ROUND: u32 = 100;

#[derive(Debug, Clone)]
pub struct NewOrder {
    pub reference: OrderReference,
    pub shop: Shop,
    /// Only this surface finds the order by its number.
    pub surface: &'static str,
    pub currency: Currency,
    pub pricing_scheme: PricingScheme,
    pub lines: Vec<NewLine>,
    /// What the surface allows of one product, whatever the product allows.
    pub quantity_max: u32,
    /// A valid address; how it is written is kept, its case and outer blanks do not count when it is compared.
    pub email: String,
    pub user: Option<UserId>,
    pub coupon: Option<String>,
    pub payment_method: PaymentMethod,
    /// How long stock and rate are kept for the buyer.
    pub window_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLine {
    pub product: Uuid,
    pub quantity: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    pub public_id: String,
    pub order_no: String,
    pub shop: Shop,
    pub surface: String,
    pub state: State,
    pub original_amount: Fiat,
    pub discount_amount: Fiat,
    /// What is due: original less discount.
    pub amount: Fiat,
    pub user: Option<UserId>,
    pub coupon: Option<CouponId>,
    pub created_at: Instant,
    /// The end of the payment window; none when it was paid at once.
    pub expires_at: Option<Instant>,
    pub paid_at: Option<Instant>,
    pub closed_at: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    pub id: LineId,
    /// The product's public id.
    pub product: String,
    pub sku: SkuId,
    pub quantity: u32,
    pub unit_price: Fiat,
    pub state: LineState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineState {
    Pending,
    Delivered,
    Failed,
}

db::text_enum!(LineState { Pending => "pending", Delivered => "delivered", Failed => "failed" });

#[derive(Debug)]
pub struct PlacedOrder {
    pub order: Order,
    pub lines: Vec<OrderLine>,
    pub instructions: PaymentInstructions,
}

/// How far an order is.
#[derive(Debug)]
pub struct OrderStatus {
    pub state: State,
    pub expires_at: Option<Instant>,
    /// Of the newest attempt to pay it.
    pub method: Method,
    pub payment_state: payments::State,
    /// On somebody else's page.
    pub pay_url: Option<String>,
    /// What a payment on a chain asks, and what reached it.
    pub invoice: Option<(InvoiceTerms, Received)>,
}

/// Both of one row.
#[derive(Debug)]
pub struct OrderDetails {
    pub order: Order,
    pub status: OrderStatus,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("an order has 1 to {LINES_MAX} lines")]
    BadLines,
    #[error("there is no such product")]
    ProductNotFound,
    #[error("the quantity is below the minimum of {min}")]
    QuantityBelowMinimum { min: u32 },
    #[error("the quantity is above the maximum of {max}")]
    QuantityAboveMaximum { max: u32 },
    #[error("there is not enough in stock")]
    InsufficientStock,
    #[error(transparent)]
    CouponInvalid(#[from] CouponRefusal),
    #[error("this way to pay is not available")]
    MethodUnavailable,
    #[error("a balance can be used by its user only")]
    UserRequired,
    #[error("the balance does not cover the amount")]
    InsufficientBalance,
    #[error("the amount is out of range")]
    AmountOutOfRange,
    #[error(transparent)]
    Issue(IssueError),
    #[error(transparent)]
    Db(#[from] db::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    #[error("there is no such order")]
    NotFound,
    #[error("the order is {} already", .0.as_str())]
    TooLate(State),
    #[error("money for the order is on its way")]
    MoneyArrived,
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// One transaction: the order with its stock, its coupon and its payment. Paid from a balance, or free, it is paid at once.
/// `address` is what the [payment_service prepared](PaymentService::prepare) for the means of this order.
pub async fn create(
    tx: &mut Tx,
    now: Instant,
    payment_service: &PaymentService,
    new: NewOrder,
    address: Option<ReservedAddress>,
) -> Result<PlacedOrder, CreateError> {
    let offers = line_items::find_skus(tx, &new).await?;
    let original = line_items::total(&new, &offers).ok_or(CreateError::AmountOutOfRange)?;
    let applied = line_items::redeem_coupon(tx, now, &new, &offers).await?;
    let discount = applied.map_or(0, |applied| applied.discount.minor);
    let amount = Fiat::new(new.currency, original.checked_sub(discount).ok_or(CreateError::AmountOutOfRange)?);
    let plan = payment_service.plan(now, new.shop, new.user, &new.payment_method, amount)?;
    line_items::check_stock(&new, &offers)?;

    let settled = plan.is_paid_at_once();
    let state = if settled { State::Paid } else { State::AwaitingPayment };
    let order = Order {
        id: OrderId(0),
        public_id: new.reference.public_id.to_string(),
        order_no: new.reference.order_no.clone(),
        shop: new.shop,
        surface: new.surface.to_owned(),
        state,
        original_amount: Fiat::new(new.currency, original),
        discount_amount: Fiat::new(new.currency, discount),
        amount,
        user: new.user,
        coupon: applied.map(|applied| applied.coupon),
        created_at: now,
        expires_at: (!settled).then(|| now.plus_ms(new.window_ms)),
        paid_at: settled.then_some(now),
        closed_at: None,
    };
    let mut links = Batch::default();
    let id = store::insert_order(&mut links, &order);
    store::insert_contact(&mut links, id, new.email.trim(), &normalize_email(&new.email));
    record_in(&mut links, now, &order, events::Kind::OrderCreated);
    let asked = payment::request_payment(&mut links, now, &order, id, plan, address)?;
    if settled {
        store::insert_fulfilment_in(&mut links, now, id);
        record_in(&mut links, now, &order, events::Kind::OrderPaid);
    }
    // Last, because buyers of the same product wait for each other from here on.
    let reserved = line_items::reserve(&mut links, id, &new, &offers);
    let done = tx.chain(links).await?;

    let order = Order { id: done.id(id)?, ..order };
    let lines = reserved.lines(&done)?;
    let instructions = payment::finish_payment_request(tx, now, &order, asked, &done).await?;
    Ok(PlacedOrder { order, lines, instructions })
}

/// Moves orders on when their payments change.
#[derive(Debug, Clone, Copy)]
pub struct PaymentChangeHandler;

impl PaymentListener for PaymentChangeHandler {
    fn on_payment_changes<'a>(
        &'a self,
        tx: &'a mut Tx,
        now: Instant,
        changes: &'a [PaymentChange],
    ) -> BoxFuture<'a, Result<(), db::Error>> {
        Box::pin(apply_payment_changes(tx, now, changes))
    }
}

/// Moves the orders of changed payments on, in the transaction in which the payments changed.
async fn apply_payment_changes(tx: &mut Tx, now: Instant, changes: &[PaymentChange]) -> Result<(), db::Error> {
    let mut over = Vec::new();
    for change in changes {
        match *change {
            PaymentChange::Confirming(_) => {}
            PaymentChange::Paid(payment) => payment_changes::apply_paid(tx, now, payment).await?,
            PaymentChange::Expired(payment) => over.extend(payment_changes::lock_expired_order(tx, payment).await?),
            PaymentChange::Lost(payment) => over.extend(payment_changes::apply_lost(tx, now, payment).await?),
            PaymentChange::Reversed(payment) => payment_changes::apply_reversed(tx, now, payment).await?,
        }
    }
    payment_changes::end_unpaid(tx, now, over, State::Expired, events::Kind::OrderExpired).await
}

/// Takes an unpaid order back, unless money for it is on its way. What reaches its address later is booked and reviewed.
pub async fn cancel(tx: &mut Tx, now: Instant, id: OrderId) -> Result<(), CancelError> {
    // The invoice is locked before the order, as it is when money arrives.
    if let Some(payment) = payments::find_newest(tx, id).await? {
        payments::close_external(tx, now, payment, false).await?;
        if let Some(invoice) = invoices::find_by_payment(tx, payment).await?
            && invoice.state == invoices::State::Open
            && !invoices::withdraw(tx, now, invoice.id).await?
        {
            return Err(CancelError::MoneyArrived);
        }
    }
    let order = store::lock_order(tx, id).await?.ok_or(CancelError::NotFound)?;
    if !order.state.is_unpaid() {
        return Err(CancelError::TooLate(order.state));
    }
    Ok(payment_changes::end_unpaid(tx, now, vec![order], State::Cancelled, events::Kind::OrderCancelled).await?)
}

/// Ends orders whose window on somebody else's page is over, and returns how many. Orders on a chain end with their
/// invoices, which wait for the chain.
pub async fn expire_overdue_external(tx: &mut Tx, now: Instant) -> Result<usize, db::Error> {
    let mut changes = Vec::new();
    for payment in store::list_external_overdue(tx, now, ROUND).await? {
        changes.extend(payments::close_external(tx, now, payment, false).await?);
    }
    apply_payment_changes(tx, now, &changes).await?;
    Ok(changes.len())
}

/// A person saw the money on somebody else's page; false when the order does not wait for it.
pub async fn confirm_external_payment(tx: &mut Tx, now: Instant, id: OrderId) -> Result<bool, db::Error> {
    let Some(payment) = payments::find_newest(tx, id).await? else { return Ok(false) };
    let change = payments::close_external(tx, now, payment, true).await?;
    apply_payment_changes(tx, now, change.as_slice()).await?;
    Ok(change.is_some())
}

/// By its public id, without anything that only its buyer may see. Many ask, again and again: it is one look, unless
/// something is on its way that no block holds.
pub async fn find_status(
    db: &Db,
    shop: Shop,
    surface: &'static str,
    public_id: Uuid,
) -> Result<Option<OrderStatus>, db::Error> {
    let id = public_id.to_string();
    let look = db.select_one("order_standing", move |tx| {
        Box::pin(async move { store::find_status(tx, shop, surface, &id).await })
    });
    match look.await? {
        Some(found) if found.has_unconfirmed => {
            let id = public_id.to_string();
            let read = db.read("order_standing", move |tx| {
                Box::pin(async move {
                    let Some(found) = store::find_status(tx, shop, surface, &id).await? else { return Ok(None) };
                    with_unconfirmed(tx, found).await.map(Some)
                })
            });
            read.await
        }
        found => Ok(found.map(|found| found.status)),
    }
}

/// By its number, for who knows the e-mail address it was made with.
pub async fn find_by_number(
    tx: &mut Tx,
    shop: Shop,
    surface: &str,
    order_no: &str,
    email: &str,
) -> Result<Option<OrderDetails>, db::Error> {
    let found = store::find_by_number(tx, shop, surface, order_no.trim(), &normalize_email(email)).await?;
    view(tx, found).await
}

/// By its number or its public id, whosever it is: for the operator.
pub async fn find_by_number_or_id(tx: &mut Tx, number_or_id: &str) -> Result<Option<OrderDetails>, db::Error> {
    let found = store::find_by_number_or_id(tx, number_or_id).await?;
    view(tx, found).await
}

/// What was bought, in the order of its lines.
pub async fn list_lines(tx: &mut Tx, order: &Order) -> Result<Vec<OrderLine>, db::Error> {
    store::list_lines(tx, order).await
}

/// The delivered lines, still encrypted, once the order is complete; before and after that there are none to see.
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
    let mut goods = Vec::new();
    for line in lines {
        goods.extend(stock::list_delivered(tx, line.id).await?);
    }
    Ok(Some(goods))
}

/// Trimmed and in lower case: how addresses are compared.
pub fn normalize_email(email: &str) -> String {
    email.trim().to_lowercase()
}

pub(crate) async fn lock(tx: &mut Tx, id: OrderId) -> Result<Option<Locked<Order>>, db::Error> {
    store::lock_order(tx, id).await
}

/// The buyer's address as it was written; `None` once it was erased.
pub async fn find_email(tx: &mut Tx, id: OrderId) -> Result<Option<String>, db::Error> {
    store::find_email(tx, id).await
}

/// One step of the machine.
pub(crate) async fn advance(
    tx: &mut Tx,
    now: Instant,
    order: Locked<Order>,
    to: State,
) -> Result<Locked<Order>, db::Error> {
    if !order.state.leads_to(to) {
        let step = format!("order {} cannot go from {} to {}", order.id, order.state.as_str(), to.as_str());
        return Err(db::Error::Statement(step));
    }
    store::set_state(tx, now, order, to).await
}

pub(crate) async fn set_line_state(tx: &mut Tx, now: Instant, line: LineId, to: LineState) -> Result<(), db::Error> {
    store::set_line_state(tx, now, line, to).await
}

pub(crate) async fn record(tx: &mut Tx, now: Instant, order: &Order, kind: events::Kind) -> Result<(), db::Error> {
    events::record(tx, now, order.shop, kind, &order.public_id, &event_payload(order)).await
}

fn record_in(links: &mut Batch, now: Instant, order: &Order, kind: events::Kind) {
    events::record_in(links, now, order.shop, kind, &order.public_id, &event_payload(order));
}

/// What an event says of an order.
fn event_payload(order: &Order) -> String {
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

/// With what is on its way to it.
async fn view(tx: &mut Tx, found: Option<(Order, OrderStatusRow)>) -> Result<Option<OrderDetails>, db::Error> {
    let Some((order, found)) = found else { return Ok(None) };
    Ok(Some(OrderDetails { order, status: with_unconfirmed(tx, found).await? }))
}

async fn with_unconfirmed(tx: &mut Tx, found: OrderStatusRow) -> Result<OrderStatus, db::Error> {
    let OrderStatusRow { mut status, has_unconfirmed } = found;
    if has_unconfirmed && let Some((asked, received)) = status.invoice.take() {
        let received = invoices::progress(tx, &asked, received).await?;
        status.invoice = Some((asked, received));
    }
    Ok(status)
}
