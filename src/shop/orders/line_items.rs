//! What an order is made of, before it is paid: products at their prices, a coupon, reserved stock.

use crate::catalog::{self, OrderableSku};
use crate::coupons::{self, AppliedCoupon, BasketLine, RedeemError};
use crate::orders::{CreateError, LINES_MAX, LineState, NewLine, NewOrder, OrderLine, store};
use crate::stock::{self, Reservation, ReserveError};
use clock::Instant;
use db::{Batch, BatchResult, ResultRef, Tx};
use ids::{LineId, OrderId};

/// What each line asks for, after the limits that do not depend on stock.
pub(super) async fn find_skus(tx: &mut Tx, new: &NewOrder) -> Result<Vec<OrderableSku>, CreateError> {
    if !(1..=LINES_MAX).contains(&new.lines.len()) {
        return Err(CreateError::BadLines);
    }
    let mut offers: Vec<OrderableSku> = Vec::new();
    for line in &new.lines {
        let offer =
            catalog::find_orderable_sku(tx, new.shop, new.currency, line.product, line.quantity, new.pricing_scheme)
                .await?;
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

fn line_total(line: &NewLine, offer: &OrderableSku) -> Option<i64> {
    offer.unit_price.minor.checked_mul(i64::from(line.quantity))
}

pub(super) fn total(new: &NewOrder, offers: &[OrderableSku]) -> Option<i64> {
    new.lines.iter().zip(offers).try_fold(0_i64, |sum, (line, offer)| sum.checked_add(line_total(line, offer)?))
}

pub(super) async fn redeem_coupon(
    tx: &mut Tx,
    now: Instant,
    new: &NewOrder,
    offers: &[OrderableSku],
) -> Result<Option<AppliedCoupon>, CreateError> {
    let Some(code) = &new.coupon else { return Ok(None) };
    let basket: Option<Vec<BasketLine>> = new
        .lines
        .iter()
        .zip(offers)
        .map(|(line, offer)| Some(BasketLine { product: offer.product, total: line_total(line, offer)? }))
        .collect();
    let basket = basket.ok_or(CreateError::AmountOutOfRange)?;
    match coupons::redeem(tx, now, new.shop, code, new.currency, &basket).await {
        Ok(applied) => Ok(Some(applied)),
        Err(RedeemError::Refused(refusal)) => Err(refusal.into()),
        Err(RedeemError::Db(error)) => Err(error.into()),
    }
}

/// Refuses what there is not enough of before anything is stored. What is enough here may be gone when it is reserved.
pub(super) fn check_stock(new: &NewOrder, offers: &[OrderableSku]) -> Result<(), CreateError> {
    let enough = new.lines.iter().zip(offers).all(|(line, offer)| u64::from(line.quantity) <= offer.stock);
    if enough { Ok(()) } else { Err(CreateError::InsufficientStock) }
}

/// Lines in a chain, and the items that are set aside for them.
pub(super) struct Reserving {
    lines: Vec<(OrderLine, ResultRef<LineId>)>,
    items: Vec<Reservation>,
}

/// Stores the lines and sets their items aside, in the order of the SKUs: orders that want the same ones do not deadlock.
pub(super) fn reserve(
    links: &mut Batch,
    order: ResultRef<OrderId>,
    new: &NewOrder,
    offers: &[OrderableSku],
) -> Reserving {
    let mut lines = Vec::new();
    for (number, (wanted, offer)) in (1_i64..).zip(new.lines.iter().zip(offers)) {
        let line = OrderLine {
            id: LineId(0),
            product: wanted.product.to_string(),
            sku: offer.sku,
            quantity: wanted.quantity,
            unit_price: offer.unit_price,
            state: LineState::Pending,
        };
        let id = store::insert_line(links, order, number, &line);
        lines.push((line, id));
    }
    let mut by_sku: Vec<_> = lines.iter().collect();
    by_sku.sort_unstable_by_key(|(line, _)| line.sku);
    let items = by_sku.iter().map(|(line, id)| stock::reserve(links, line.sku, *id, line.quantity)).collect();
    Reserving { lines, items }
}

impl Reserving {
    /// With the ids that they got, if there was enough for all of them.
    pub fn lines(self, done: &BatchResult) -> Result<Vec<OrderLine>, CreateError> {
        for reserved in &self.items {
            reserved.ensure_complete(done).map_err(|error| match error {
                ReserveError::Insufficient => CreateError::InsufficientStock,
                ReserveError::Db(error) => CreateError::Db(error),
            })?;
        }
        let with_id = |(line, id)| Ok(OrderLine { id: done.id(id)?, ..line });
        self.lines.into_iter().map(with_id).collect()
    }
}
