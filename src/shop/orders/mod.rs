//! Orders: what was bought, for how much, and how far it is.
//!
//! An order exists together with its reserved stock, its counted coupon and its payment, or not at all. It learns what
//! became of its payment in the transaction in which that happened, and its state only moves forward.

pub mod machine;
pub mod number;
pub mod payment;
mod store;

#[cfg(test)]
mod tests;

use uuid::Uuid;

use crate::clock::Instant;
use crate::db::{self, Locked, Tx};
use crate::events;
use crate::ids::{CouponId, LineId, OrderId, PaymentId, Shop, SkuId, UserId};
use crate::money::addresses::IssueError;
use crate::money::invoices::{self, Invoice, Received};
use crate::money::payments::{self, Change, Payment};
use crate::money::pricing::{Currency, Fiat};
use crate::reviews;
use crate::shop::catalog::{self, Offer, Prices};
use crate::shop::coupons::{self, Applied, Basket, RedeemError, Refusal};
use crate::shop::orders::payment::{Begun, Means, Till};
use crate::shop::stock::{self, ReserveError};

pub use machine::State;
pub use number::Labels;

pub const LINES_MAX: usize = 50;

/// Orders that one transaction ends.
const ROUND: u32 = 100;

#[derive(Debug, Clone)]
pub struct NewOrder {
    pub labels: Labels,
    pub shop: Shop,
    /// Only this surface finds the order by its number.
    pub surface: &'static str,
    pub currency: Currency,
    pub prices: Prices,
    pub lines: Vec<NewLine>,
    /// What the surface allows of one product, whatever the product allows.
    pub quantity_max: u32,
    /// A valid address; how it is written is kept, its case and outer blanks do not count when it is compared.
    pub email: String,
    pub user: Option<UserId>,
    pub coupon: Option<String>,
    pub means: Means,
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
pub struct Line {
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
pub struct Created {
    pub order: Order,
    pub lines: Vec<Line>,
    pub begun: Begun,
}

/// An order with everything that says how far it is.
#[derive(Debug)]
pub struct View {
    pub order: Order,
    pub lines: Vec<Line>,
    /// The newest attempt to pay it.
    pub payment: Payment,
    /// What an on-chain payment asks, and what reached it.
    pub invoice: Option<(Invoice, Received)>,
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
    CouponInvalid(#[from] Refusal),
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
pub async fn create(tx: &mut Tx, now: Instant, till: &Till, new: NewOrder) -> Result<Created, CreateError> {
    let offers = offers(tx, &new).await?;
    let original = total(&new, &offers).ok_or(CreateError::AmountOutOfRange)?;
    let applied = redeem(tx, now, &new, &offers).await?;
    let discount = applied.map_or(0, |applied| applied.discount.minor);
    let amount = Fiat::new(new.currency, original.checked_sub(discount).ok_or(CreateError::AmountOutOfRange)?);
    let plan = till.plan(now, new.shop, new.user, &new.means, amount)?;

    let settled = plan.is_settled_at_once();
    let state = if settled { State::Paid } else { State::AwaitingPayment };
    let order = Order {
        id: OrderId(0),
        public_id: new.labels.public_id.to_string(),
        order_no: new.labels.order_no.clone(),
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
    let order = store::insert_order(tx, order).await?;
    store::insert_contact(tx, order.id, new.email.trim(), &email_key(&new.email)).await?;
    let lines = reserve(tx, &order, &new, &offers).await?;
    record(tx, now, &order, "order.created").await?;
    let begun = payment::begin(tx, now, till, &order, plan).await?;
    if settled {
        store::insert_fulfilment(tx, now, order.id).await?;
        record(tx, now, &order, "order.paid").await?;
    }
    Ok(Created { order, lines, begun })
}

/// What happened to payments, told in the transaction in which it happened.
pub async fn follow(tx: &mut Tx, now: Instant, changes: &[Change]) -> Result<(), db::Error> {
    let mut over = Vec::new();
    for change in changes {
        match *change {
            Change::Confirming(_) => {}
            Change::Paid(payment) => paid(tx, now, payment).await?,
            Change::Expired(payment) => over.extend(unpaid_order(tx, payment).await?),
            Change::Reversed(payment) => reversed(tx, now, payment).await?,
        }
    }
    end_unpaid(tx, now, over, State::Expired, "order.expired").await
}

/// Takes an unpaid order back, unless money for it is on its way. What reaches its address later is booked and reviewed.
pub async fn cancel(tx: &mut Tx, now: Instant, id: OrderId) -> Result<(), CancelError> {
    // The invoice is locked before the order, as it is when money arrives.
    if let Some(payment) = payments::find_by_order(tx, id).await? {
        payments::close_external(tx, now, payment.id, false).await?;
        if let Some(invoice) = invoices::find_by_payment(tx, payment.id).await?
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
    Ok(end_unpaid(tx, now, vec![order], State::Cancelled, "order.cancelled").await?)
}

/// Ends orders whose window on somebody else's page is over, and returns how many. Orders on a chain end with their
/// invoices, which wait for the chain.
pub async fn expire_external_due(tx: &mut Tx, now: Instant) -> Result<usize, db::Error> {
    let mut changes = Vec::new();
    for payment in store::list_external_overdue(tx, now, ROUND).await? {
        changes.extend(payments::close_external(tx, now, payment, false).await?);
    }
    follow(tx, now, &changes).await?;
    Ok(changes.len())
}

/// A person saw the money on somebody else's page; false when the order does not wait for it.
pub async fn confirm_external(tx: &mut Tx, now: Instant, id: OrderId) -> Result<bool, db::Error> {
    let Some(payment) = payments::find_by_order(tx, id).await? else { return Ok(false) };
    let change = payments::close_external(tx, now, payment.id, true).await?;
    follow(tx, now, change.as_slice()).await?;
    Ok(change.is_some())
}

/// By its public id, without anything that only its buyer may see.
pub async fn find(tx: &mut Tx, shop: Shop, surface: &str, public_id: Uuid) -> Result<Option<View>, db::Error> {
    match store::find_by_public_id(tx, shop, surface, &public_id.to_string()).await? {
        Some(order) => view(tx, order).await.map(Some),
        None => Ok(None),
    }
}

/// By its number, for who knows the e-mail address it was made with.
pub async fn find_by_number(
    tx: &mut Tx,
    shop: Shop,
    surface: &str,
    order_no: &str,
    email: &str,
) -> Result<Option<View>, db::Error> {
    match store::find_by_number(tx, shop, surface, order_no.trim(), &email_key(email)).await? {
        Some(order) => view(tx, order).await.map(Some),
        None => Ok(None),
    }
}

/// By its number or its public id, whosever it is: for the operator.
pub async fn find_any(tx: &mut Tx, number_or_id: &str) -> Result<Option<View>, db::Error> {
    match store::find_any(tx, number_or_id).await? {
        Some(order) => view(tx, order).await.map(Some),
        None => Ok(None),
    }
}

/// The delivered lines, still encrypted, once the order is complete; before and after that there are none to see.
pub async fn goods(tx: &mut Tx, view: &View) -> Result<Option<Vec<stock::Delivered>>, db::Error> {
    match view.order.state {
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
    for line in &view.lines {
        goods.extend(stock::list_delivered(tx, line.id).await?);
    }
    Ok(Some(goods))
}

/// Trimmed and in lower case: how addresses are compared.
pub fn email_key(email: &str) -> String {
    email.trim().to_lowercase()
}

pub(in crate::shop) async fn lock(tx: &mut Tx, id: OrderId) -> Result<Option<Locked<Order>>, db::Error> {
    store::lock_order(tx, id).await
}

pub(in crate::shop) async fn list_lines(tx: &mut Tx, order: &Order) -> Result<Vec<Line>, db::Error> {
    store::list_lines(tx, order).await
}

pub(in crate::shop) async fn find_email(tx: &mut Tx, id: OrderId) -> Result<Option<String>, db::Error> {
    store::find_email(tx, id).await
}

/// One step of the machine.
pub(in crate::shop) async fn advance(
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

pub(in crate::shop) async fn set_line_state(
    tx: &mut Tx,
    now: Instant,
    line: LineId,
    to: LineState,
) -> Result<(), db::Error> {
    store::set_line_state(tx, now, line, to).await
}

pub(in crate::shop) async fn record(
    tx: &mut Tx,
    now: Instant,
    order: &Order,
    kind: &'static str,
) -> Result<(), db::Error> {
    let body = serde_json::json!({
        "order_id": order.public_id,
        "order_no": order.order_no,
        "surface": order.surface,
        "state": order.state.as_str(),
        "currency": order.amount.currency.as_str(),
        "amount_minor": order.amount.minor,
    });
    events::record(tx, now, order.shop, kind, &order.public_id, &body.to_string()).await
}

/// What each line asks for, after the limits that do not depend on stock.
async fn offers(tx: &mut Tx, new: &NewOrder) -> Result<Vec<Offer>, CreateError> {
    if !(1..=LINES_MAX).contains(&new.lines.len()) {
        return Err(CreateError::BadLines);
    }
    let mut offers: Vec<Offer> = Vec::new();
    for line in &new.lines {
        let offer = catalog::offer(tx, new.shop, new.currency, line.product, line.quantity, new.prices).await?;
        let offer = offer.ok_or(CreateError::ProductNotFound)?;
        let max = offer.max_quantity.min(new.quantity_max);
        if line.quantity < offer.min_quantity {
            return Err(CreateError::QuantityBelowMinimum { min: offer.min_quantity });
        }
        if line.quantity > max {
            return Err(CreateError::QuantityAboveMaximum { max });
        }
        if offers.iter().any(|other| other.sku == offer.sku) {
            return Err(CreateError::BadLines);
        }
        offers.push(offer);
    }
    Ok(offers)
}

fn line_total(line: &NewLine, offer: &Offer) -> Option<i64> {
    offer.unit_price.minor.checked_mul(i64::from(line.quantity))
}

fn total(new: &NewOrder, offers: &[Offer]) -> Option<i64> {
    new.lines.iter().zip(offers).try_fold(0_i64, |sum, (line, offer)| sum.checked_add(line_total(line, offer)?))
}

async fn redeem(
    tx: &mut Tx,
    now: Instant,
    new: &NewOrder,
    offers: &[Offer],
) -> Result<Option<Applied>, CreateError> {
    let Some(code) = &new.coupon else { return Ok(None) };
    let basket: Option<Vec<Basket>> = new.lines.iter().zip(offers)
        .map(|(line, offer)| Some(Basket { product: offer.product, total: line_total(line, offer)? }))
        .collect();
    let basket = basket.ok_or(CreateError::AmountOutOfRange)?;
    match coupons::redeem(tx, now, new.shop, code, new.currency, &basket).await {
        Ok(applied) => Ok(Some(applied)),
        Err(RedeemError::Refused(refusal)) => Err(refusal.into()),
        Err(RedeemError::Db(error)) => Err(error.into()),
    }
}

/// Stores the lines and sets their items aside, in the order of the SKUs: orders that want the same ones do not deadlock.
async fn reserve(tx: &mut Tx, order: &Order, new: &NewOrder, offers: &[Offer]) -> Result<Vec<Line>, CreateError> {
    let mut lines = Vec::new();
    for (number, (wanted, offer)) in (1_i64..).zip(new.lines.iter().zip(offers)) {
        let line = Line {
            id: LineId(0),
            product: wanted.product.to_string(),
            sku: offer.sku,
            quantity: wanted.quantity,
            unit_price: offer.unit_price,
            state: LineState::Pending,
        };
        lines.push(store::insert_line(tx, order.id, number, line).await?);
    }
    let mut by_sku: Vec<&Line> = lines.iter().collect();
    by_sku.sort_unstable_by_key(|line| line.sku);
    for line in by_sku {
        stock::reserve(tx, line.sku, line.id, line.quantity).await.map_err(|error| match error {
            ReserveError::Insufficient => CreateError::InsufficientStock,
            ReserveError::Db(error) => CreateError::Db(error),
        })?;
    }
    Ok(lines)
}

async fn view(tx: &mut Tx, order: Order) -> Result<View, db::Error> {
    let lines = store::list_lines(tx, &order).await?;
    let payment = payments::find_by_order(tx, order.id).await?.ok_or_else(|| no_payment(order.id))?;
    let invoice = match invoices::find_by_payment(tx, payment.id).await? {
        Some(invoice) => {
            let received = invoices::received(tx, &invoice).await?;
            Some((invoice, received))
        }
        None => None,
    };
    Ok(View { order, lines, payment, invoice })
}

async fn order_of(tx: &mut Tx, id: PaymentId) -> Result<(Payment, Locked<Order>), db::Error> {
    let missing = || db::Error::Statement(format!("payment {id} or its order does not exist"));
    let payment = payments::find(tx, id).await?.ok_or_else(missing)?;
    let order = store::lock_order(tx, payment.order).await?.ok_or_else(missing)?;
    Ok((payment, order))
}

async fn paid(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let (_, order) = order_of(tx, payment).await?;
    match order.state {
        State::Created | State::AwaitingPayment => {
            let order = advance(tx, now, order, State::Paid).await?;
            store::insert_fulfilment(tx, now, order.id).await?;
            record(tx, now, &order, "order.paid").await
        }
        // Its money had vanished with a block and came back.
        State::Paid
        | State::Processing
        | State::PartiallyDelivered
        | State::Delivered
        | State::Completed
        | State::Failed
        | State::Refunded => {
            reviews::close(tx, now, "payment.reversed", &order.public_id, "the payment was confirmed again").await
        }
        // The stock went back: whether there is enough for it now is for a person to say.
        State::Expired | State::Cancelled => {
            let detail = format!("order {} was paid after it ended", order.order_no);
            reviews::open(tx, now, "order.paid_late", &order.public_id, &detail).await
        }
    }
}

/// The order stays what it is: goods that were handed out cannot be taken back, and a person decides.
async fn reversed(tx: &mut Tx, now: Instant, payment: PaymentId) -> Result<(), db::Error> {
    let (_, order) = order_of(tx, payment).await?;
    let detail = format!("the payment of order {} ({}) lost its block", order.order_no, order.state.as_str());
    reviews::open(tx, now, "payment.reversed", &order.public_id, &detail).await?;
    record(tx, now, &order, "payment.reversed").await
}

/// The order whose last hope this payment was.
async fn unpaid_order(tx: &mut Tx, payment: PaymentId) -> Result<Option<Locked<Order>>, db::Error> {
    let (payment, order) = order_of(tx, payment).await?;
    let newest = payments::find_by_order(tx, order.id).await?;
    let is_newest = newest.is_some_and(|newest| newest.id == payment.id);
    Ok((is_newest && order.state.is_unpaid()).then_some(order))
}

/// Coupons first, then stock, both in the order of their ids: as creating orders locks them.
async fn end_unpaid(
    tx: &mut Tx,
    now: Instant,
    orders: Vec<Locked<Order>>,
    to: State,
    kind: &'static str,
) -> Result<(), db::Error> {
    let mut coupons: Vec<CouponId> = orders.iter().filter_map(|order| order.coupon).collect();
    coupons.sort_unstable();
    let mut lines = Vec::new();
    for order in orders {
        lines.extend(store::list_lines(tx, &order).await?);
        let order = advance(tx, now, order, to).await?;
        record(tx, now, &order, kind).await?;
    }
    for coupon in coupons {
        coupons::give_back(tx, coupon).await?;
    }
    lines.sort_unstable_by_key(|line| line.sku);
    for line in lines {
        stock::release(tx, line.sku, line.id, line.quantity).await?;
    }
    Ok(())
}

fn no_payment(order: OrderId) -> db::Error {
    db::Error::Statement(format!("order {order} has no payment"))
}
