//! The creation of an order: checks its lines, finds their prices, redeems the coupon, reserves the stock, and stores
//! the order with its payment.

use uuid::Uuid;

use crate::catalog::{self, OrderableSku, PricingScheme};
use crate::coupons::{self, AppliedCoupon, BasketLine, CouponRefusal, RedeemError};
use crate::fulfilment;
use crate::orders::new_payment::{self, PaymentInstructions, PaymentMethod, PaymentService};
use crate::orders::{LineState, Order, OrderLine, OrderReference, State, normalize_email, record_order_event, store};
use crate::stock::{self, Reservation, ReserveError};
use clock::Instant;
use db::{self, ResultRef, Tx};
use ids::{LineId, OrderId, Shop, UserId};
use money::addresses::{IssueError, ReservedAddress};
use money::pricing::{Currency, Fiat};
use records::events;

/// The maximum number of lines in one order.
pub const LINES_MAX: usize = 50;

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
    /// The ordered products: 1 to [`LINES_MAX`] lines, each for a different product.
    pub lines: Vec<NewLine>,
    /// The maximum quantity in one line that the API surface allows. The product may have a lower maximum.
    pub quantity_max: u32,
    /// The buyer's e-mail address, which the caller has validated. The address is stored as entered, but it is compared
    /// in [normalized](normalize_email) form.
    pub email: String,
    /// The authenticated user; `None` for a guest, who cannot pay from a balance.
    pub user: Option<UserId>,
    /// The coupon code that the buyer entered; `None` without a coupon.
    pub coupon: Option<String>,
    /// The payment method that the buyer chose.
    pub payment_method: PaymentMethod,
    /// The length of the payment window in milliseconds. During the window, the stock is reserved and the exchange rate
    /// stays the same.
    pub window_ms: i64,
}

/// One line of a new order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLine {
    /// The public id of the ordered product.
    pub product: Uuid,
    /// The ordered number of units.
    pub quantity: u32,
}

/// An order that was just created, with the data that its buyer needs to pay.
#[derive(Debug)]
pub struct PlacedOrder {
    /// The order as it was stored, with its id.
    pub order: Order,
    /// The lines of the order, in the sequence of the request.
    pub lines: Vec<OrderLine>,
    /// The data that the buyer needs to pay.
    pub instructions: PaymentInstructions,
}

/// The reason why an order was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateOrderError {
    /// The order has no line, too many lines, or two lines for one SKU.
    #[error("an order has 1 to {LINES_MAX} lines")]
    BadLines,
    /// A product does not exist, is inactive, or has no price in the currency.
    #[error("there is no such product")]
    ProductNotFound,
    /// A quantity is below the minimum of its product.
    #[error("the quantity is below the minimum of {min}")]
    QuantityBelowMinimum { min: u32 },
    /// A quantity is above the maximum of its product or of the API surface.
    #[error("the quantity is above the maximum of {max}")]
    QuantityAboveMaximum { max: u32 },
    /// Fewer items are available than the order needs.
    #[error("there is not enough in stock")]
    InsufficientStock,
    /// The coupon does not exist or does not apply to the order.
    #[error(transparent)]
    CouponInvalid(#[from] CouponRefusal),
    /// The buyer's payment method cannot be used: the asset is not accepted, no fresh exchange rate is known, or no
    /// address can be issued.
    #[error("this payment method is not available")]
    MethodUnavailable,
    /// The amount due is below the minimum of the asset, for example because nodes do not relay so small transfers. All
    /// amounts are decimal texts in whole coins.
    #[error(
        "the order costs {due} {symbol}, and payments in {symbol} start at {min}; choose another payment method or order more"
    )]
    AmountBelowMinimum { due: String, min: String, symbol: String },
    /// The payment method needs an authenticated user.
    #[error("paying from a balance requires an authenticated user")]
    UserRequired,
    /// The user's balance is below the amount of the order.
    #[error("the balance does not cover the amount")]
    InsufficientBalance,
    /// An amount exceeds the range of its type.
    #[error("the amount is out of range")]
    AmountOutOfRange,
    /// The payment address could not be derived or reserved. The field is the cause.
    #[error(transparent)]
    Issue(IssueError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Stores an order with its reserved stock, its coupon use and its payment. An order that costs nothing or is paid from
/// a balance is paid at once. `address` is the result of [`PaymentService::reserve_address_if_on_chain`] for the payment
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
) -> Result<PlacedOrder, CreateOrderError> {
    let skus = validate_lines_and_find_skus(tx, &new).await?;
    let original = compute_order_total(&new, &skus).ok_or(CreateOrderError::AmountOutOfRange)?;
    let applied = redeem_order_coupon(tx, now, &new, &skus).await?;
    let discount = applied.map_or(0, |applied| applied.discount.minor);
    let amount = Fiat::new(new.currency, original.checked_sub(discount).ok_or(CreateOrderError::AmountOutOfRange)?);
    let plan = payment_service.plan_payment_or_free(now, new.shop, new.user, &new.payment_method, amount)?;
    ensure_stock_suffices(&new, &skus)?;

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
        paid_by: None,
        closed_at: None,
    };
    let id = store::queue_order_insert(tx, &order);
    store::queue_order_contact_insert(tx, id, new.email.trim(), &normalize_email(&new.email));
    record_order_event(tx, now, &order, events::Kind::OrderCreated);
    let queued_payment = new_payment::queue_payment_and_invoice_inserts(tx, now, &order, id, plan, address)?;
    if is_paid {
        fulfilment::queue_delivery_schedule(tx, now, id);
        record_order_event(tx, now, &order, events::Kind::OrderPaid);
    }
    // The statements that reserve stock come last. They lock the rows of the SKUs, so that other orders for the same
    // SKUs wait until this transaction ends.
    let reserved = queue_lines_and_reservations(tx, id, &new, &skus);
    tx.run_queued().await?;

    let order = Order { id: tx.id_of(id)?, ..order };
    let lines = reserved.into_lines_if_fully_reserved(tx)?;
    let instructions = new_payment::issue_address_or_debit_balance(tx, now, &order, queued_payment).await?;
    Ok(PlacedOrder { order, lines, instructions })
}

/// Returns the SKU of each line of a new order, with its price. Fails when a product cannot be ordered, when a quantity
/// is outside the limits of its product or above `new.quantity_max`, when two lines have the same SKU, or when the
/// number of lines is not 1 to [`LINES_MAX`].
async fn validate_lines_and_find_skus(tx: &mut Tx, new: &NewOrder) -> Result<Vec<OrderableSku>, CreateOrderError> {
    if !(1..=LINES_MAX).contains(&new.lines.len()) {
        return Err(CreateOrderError::BadLines);
    }
    let mut skus: Vec<OrderableSku> = Vec::new();
    for line in &new.lines {
        let sku =
            catalog::find_orderable_sku(tx, new.shop, new.currency, line.product, line.quantity, new.pricing_scheme);
        let sku = sku.await?.ok_or(CreateOrderError::ProductNotFound)?;
        let max = sku.max_quantity.min(new.quantity_max);
        if line.quantity < sku.min_quantity {
            return Err(CreateOrderError::QuantityBelowMinimum { min: sku.min_quantity });
        }
        if line.quantity > max {
            return Err(CreateOrderError::QuantityAboveMaximum { max });
        }
        if skus.iter().any(|other| other.sku == sku.sku) {
            return Err(CreateOrderError::BadLines);
        }
        skus.push(sku);
    }
    Ok(skus)
}

/// Returns the price of one line, unit price times quantity, in minor units; `None` when the price exceeds the range of
/// `i64`.
fn compute_line_total(line: &NewLine, sku: &OrderableSku) -> Option<i64> {
    sku.unit_price.minor.checked_mul(i64::from(line.quantity))
}

/// Returns the total of a new order before any discount, in minor units; `None` when the total exceeds the range of
/// `i64`.
fn compute_order_total(new: &NewOrder, skus: &[OrderableSku]) -> Option<i64> {
    new.lines.iter().zip(skus).try_fold(0_i64, |sum, (line, sku)| sum.checked_add(compute_line_total(line, sku)?))
}

/// Adds one to the number of uses of the order's coupon, and returns the coupon with its discount; `None` when the
/// order has no coupon.
async fn redeem_order_coupon(
    tx: &mut Tx,
    now: Instant,
    new: &NewOrder,
    skus: &[OrderableSku],
) -> Result<Option<AppliedCoupon>, CreateOrderError> {
    let Some(code) = &new.coupon else { return Ok(None) };
    let basket: Option<Vec<BasketLine>> = new
        .lines
        .iter()
        .zip(skus)
        .map(|(line, sku)| Some(BasketLine { product: sku.product, total: compute_line_total(line, sku)? }))
        .collect();
    let basket = basket.ok_or(CreateOrderError::AmountOutOfRange)?;
    match coupons::redeem_coupon(tx, now, new.shop, code, new.currency, &basket).await {
        Ok(applied) => Ok(Some(applied)),
        Err(RedeemError::Refused(refusal)) => Err(refusal.into()),
        Err(RedeemError::Db(error)) => Err(error.into()),
    }
}

/// Refuses an order for more units than are in stock, before anything is stored. Concurrent orders may still take the
/// stock before [`queue_lines_and_reservations`] locks it.
fn ensure_stock_suffices(new: &NewOrder, skus: &[OrderableSku]) -> Result<(), CreateOrderError> {
    let is_enough = new.lines.iter().zip(skus).all(|(line, sku)| u64::from(line.quantity) <= sku.stock);
    if is_enough { Ok(()) } else { Err(CreateOrderError::InsufficientStock) }
}

/// Order lines whose insert statements are queued, and the reservations of stock items that are queued for these lines.
struct QueuedLines {
    lines: Vec<(OrderLine, ResultRef<LineId>)>,
    reservations: Vec<Reservation>,
}

/// Queues the statements that insert the lines of an order and reserve their items. SKUs are locked in the order of
/// their ids, so that two orders for the same SKUs cannot deadlock.
fn queue_lines_and_reservations(
    tx: &mut Tx,
    order: ResultRef<OrderId>,
    new: &NewOrder,
    skus: &[OrderableSku],
) -> QueuedLines {
    let mut lines = Vec::new();
    for (number, (new_line, sku)) in (1_i64..).zip(new.lines.iter().zip(skus)) {
        let line = OrderLine {
            id: LineId(0),
            product: new_line.product.to_string(),
            sku: sku.sku,
            quantity: new_line.quantity,
            unit_price: sku.unit_price,
            state: LineState::Pending,
        };
        let id = store::queue_order_line_insert(tx, order, number, &line);
        lines.push((line, id));
    }
    let mut by_sku: Vec<_> = lines.iter().collect();
    by_sku.sort_unstable_by_key(|(line, _)| line.sku);
    let reservations =
        by_sku.iter().map(|(line, id)| stock::queue_item_reservation(tx, line.sku, *id, line.quantity)).collect();
    QueuedLines { lines, reservations }
}

impl QueuedLines {
    /// Returns the order lines with their stored ids. Call this function after the queued statements have run.
    ///
    /// # Errors
    /// [`CreateOrderError::InsufficientStock`] when a line could not reserve all its items.
    pub fn into_lines_if_fully_reserved(self, tx: &Tx) -> Result<Vec<OrderLine>, CreateOrderError> {
        for reservation in &self.reservations {
            reservation.ensure_fully_reserved(tx).map_err(|error| match error {
                ReserveError::Insufficient => CreateOrderError::InsufficientStock,
                ReserveError::Db(error) => CreateOrderError::Db(error),
            })?;
        }
        let with_id = |(line, id)| Ok(OrderLine { id: tx.id_of(id)?, ..line });
        self.lines.into_iter().map(with_id).collect()
    }
}
