//! The lines of a new order: the SKUs with their prices, the coupon, and the reservation of stock.

use crate::catalog::{self, OrderableSku};
use crate::coupons::{self, AppliedCoupon, BasketLine, RedeemError};
use crate::orders::{CreateError, LINES_MAX, LineState, NewLine, NewOrder, OrderLine, store};
use crate::stock::{self, Reservation, ReserveError};
use clock::Instant;
use db::{ResultRef, Tx};
use ids::{LineId, OrderId};

/// Returns the SKU of each line with its price. Fails when a product does not exist, a quantity is outside its limits,
/// or the number of lines is.
pub(super) async fn find_orderable_skus(tx: &mut Tx, new: &NewOrder) -> Result<Vec<OrderableSku>, CreateError> {
    if !(1..=LINES_MAX).contains(&new.lines.len()) {
        return Err(CreateError::BadLines);
    }
    let mut skus: Vec<OrderableSku> = Vec::new();
    for line in &new.lines {
        let sku =
            catalog::find_orderable_sku(tx, new.shop, new.currency, line.product, line.quantity, new.pricing_scheme);
        let sku = sku.await?.ok_or(CreateError::ProductNotFound)?;
        let max = sku.max_quantity.min(new.quantity_max);
        if line.quantity < sku.min_quantity {
            return Err(CreateError::QuantityBelowMinimum { min: sku.min_quantity });
        }
        if line.quantity > max {
            return Err(CreateError::QuantityAboveMaximum { max });
        }
        if skus.iter().any(|other| other.sku == sku.sku) {
            return Err(CreateError::BadLines);
        }
        skus.push(sku);
    }
    Ok(skus)
}

/// Returns unit price times quantity in minor units; `None` when it is out of range.
fn compute_line_total(line: &NewLine, sku: &OrderableSku) -> Option<i64> {
    sku.unit_price.minor.checked_mul(i64::from(line.quantity))
}

/// Returns the total before any discount, in minor units; `None` when it is out of range.
pub(super) fn compute_order_total(new: &NewOrder, skus: &[OrderableSku]) -> Option<i64> {
    new.lines.iter().zip(skus).try_fold(0_i64, |sum, (line, sku)| sum.checked_add(compute_line_total(line, sku)?))
}

/// Counts one use of the order's coupon and returns its discount; `None` when the order has no coupon.
pub(super) async fn redeem_order_coupon(
    tx: &mut Tx,
    now: Instant,
    new: &NewOrder,
    skus: &[OrderableSku],
) -> Result<Option<AppliedCoupon>, CreateError> {
    let Some(code) = &new.coupon else { return Ok(None) };
    let basket: Option<Vec<BasketLine>> = new
        .lines
        .iter()
        .zip(skus)
        .map(|(line, sku)| Some(BasketLine { product: sku.product, total: compute_line_total(line, sku)? }))
        .collect();
    let basket = basket.ok_or(CreateError::AmountOutOfRange)?;
    match coupons::redeem_coupon(tx, now, new.shop, code, new.currency, &basket).await {
        Ok(applied) => Ok(Some(applied)),
        Err(RedeemError::Rejected(rejection)) => Err(rejection.into()),
        Err(RedeemError::Db(error)) => Err(error.into()),
    }
}

/// Refuses an order that exceeds the stock, before anything is stored. Concurrent orders may still take the stock
/// before [`insert_and_reserve_lines`] locks it.
pub(super) fn ensure_stock_suffices(new: &NewOrder, skus: &[OrderableSku]) -> Result<(), CreateError> {
    let is_enough = new.lines.iter().zip(skus).all(|(line, sku)| u64::from(line.quantity) <= sku.stock);
    if is_enough { Ok(()) } else { Err(CreateError::InsufficientStock) }
}

/// Order lines whose statements are queued, and the stock that is reserved for them.
pub(super) struct ReservedLines {
    lines: Vec<(OrderLine, ResultRef<LineId>)>,
    reservations: Vec<Reservation>,
}

/// Queues the statements that insert the lines and reserve their items. SKUs are locked in the order of their
/// ids, so that two orders for the same SKUs cannot deadlock.
pub(super) fn insert_and_reserve_lines(
    tx: &mut Tx,
    order: ResultRef<OrderId>,
    new: &NewOrder,
    skus: &[OrderableSku],
) -> ReservedLines {
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
        let id = store::insert_order_line(tx, order, number, &line);
        lines.push((line, id));
    }
    let mut by_sku: Vec<_> = lines.iter().collect();
    by_sku.sort_unstable_by_key(|(line, _)| line.sku);
    let reservations = by_sku.iter().map(|(line, id)| stock::reserve_items(tx, line.sku, *id, line.quantity)).collect();
    ReservedLines { lines, reservations }
}

impl ReservedLines {
    /// Returns the lines with their stored ids.
    ///
    /// # Errors
    /// [`CreateError::InsufficientStock`] when a line could not reserve all its items.
    pub fn into_order_lines(self, tx: &Tx) -> Result<Vec<OrderLine>, CreateError> {
        for reservation in &self.reservations {
            reservation.ensure_fully_reserved(tx).map_err(|error| match error {
                ReserveError::Insufficient => CreateError::InsufficientStock,
                ReserveError::Db(error) => CreateError::Db(error),
            })?;
        }
        let with_id = |(line, id)| Ok(OrderLine { id: tx.id_of(id)?, ..line });
        self.lines.into_iter().map(with_id).collect()
    }
}
