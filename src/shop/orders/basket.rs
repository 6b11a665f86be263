//! What an order is made of, before it is paid: products at their prices, a coupon, reserved stock.

use crate::clock::Instant;
use crate::db::Tx;
use crate::ids::LineId;
use crate::shop::catalog::{self, Offer};
use crate::shop::coupons::{self, Applied, Basket, RedeemError};
use crate::shop::orders::{CreateError, LINES_MAX, Line, LineState, NewLine, NewOrder, Order, store};
use crate::shop::stock::{self, ReserveError};

/// What each line asks for, after the limits that do not depend on stock.
pub(super) async fn offers(tx: &mut Tx, new: &NewOrder) -> Result<Vec<Offer>, CreateError> {
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

pub(super) fn total(new: &NewOrder, offers: &[Offer]) -> Option<i64> {
    new.lines.iter().zip(offers).try_fold(0_i64, |sum, (line, offer)| sum.checked_add(line_total(line, offer)?))
}

pub(super) async fn redeem(
    tx: &mut Tx,
    now: Instant,
    new: &NewOrder,
    offers: &[Offer],
) -> Result<Option<Applied>, CreateError> {
    let Some(code) = &new.coupon else { return Ok(None) };
    let basket: Option<Vec<Basket>> = new
        .lines
        .iter()
        .zip(offers)
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
pub(super) async fn reserve(
    tx: &mut Tx,
    order: &Order,
    new: &NewOrder,
    offers: &[Offer],
) -> Result<Vec<Line>, CreateError> {
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
