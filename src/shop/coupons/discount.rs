//! The discount of a coupon: its terms, and the amount that the discount takes off an order. This file uses no database
//! and no clock.

use clock::Instant;
use ids::ProductId;
use money::pricing::{Currency, Fiat};

/// 100 % in basis points.
const BASIS_POINTS_MAX: i64 = 10_000;

/// The size of a coupon's discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// A percentage of the total of the order lines to which the coupon applies, in basis points from 1 to 10,000. The
    /// discount is rounded down to minor units (cents).
    Percent(i64),
    /// A fixed amount, in minor units (cents). The discount never exceeds the total of the order lines to which the
    /// coupon applies.
    Fixed(i64),
}

/// The discount of a coupon and the conditions under which an order gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The discount that an order gets when it meets all conditions.
    pub discount: Discount,
    /// The currency of `min_amount` and of a fixed discount. Orders in another currency cannot use the coupon.
    pub currency: Currency,
    /// The minimum order total before the discount, in minor units (cents); 0 when the coupon has no minimum.
    pub min_amount: i64,
    /// The only product to which the discount applies; `None` when the coupon gives the discount on all products.
    pub product: Option<ProductId>,
    /// The time from which the coupon is valid; `None` when the coupon is valid immediately.
    pub starts_at: Option<Instant>,
    /// The time at which the coupon expires; `None` when the coupon never expires.
    pub ends_at: Option<Instant>,
}

/// One line of an order, reduced to the data on which the discount depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasketLine {
    /// The product that the line orders.
    pub product: ProductId,
    /// The price of one unit times the quantity, in minor units (cents).
    pub total: i64,
}

/// The reason why an order cannot use a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CouponRefusal {
    /// No active coupon of the shop has this code.
    #[error("there is no such coupon")]
    Unknown,
    /// The coupon is not valid before its time `starts_at`.
    #[error("the coupon is not valid yet")]
    NotYetValid,
    /// The coupon expired at its time `ends_at`.
    #[error("the coupon has expired")]
    Expired,
    /// The coupon has reached its maximum number of uses.
    #[error("the coupon has been used up")]
    Exhausted,
    /// The order total is below the minimum amount.
    #[error("the coupon needs an order of at least {}", min_amount.to_decimal())]
    BelowMinimum { min_amount: Fiat },
    /// The coupon applies to one product only, and the order has no line with this product.
    #[error("the coupon is for another product")]
    OtherProduct,
    /// The order is in another currency than the coupon. The field is the currency of the coupon, in which the order
    /// should be.
    #[error("the coupon is for orders in {0}")]
    OtherCurrency(Currency),
    /// A sum of the order's amounts exceeds the range of `i64`.
    #[error("the order's amount is out of range")]
    OutOfRange,
}

impl Terms {
    /// Returns terms without conditions: the discount applies to every order in the currency, at any time.
    pub fn unrestricted(discount: Discount, currency: Currency) -> Terms {
        Terms { discount, currency, min_amount: 0, product: None, starts_at: None, ends_at: None }
    }

    /// Returns true when the discount and the minimum amount are in range: a percentage of 1 to 10,000 basis points, a
    /// fixed discount above 0, and a minimum amount of at least 0.
    pub fn are_valid(&self) -> bool {
        let is_discount_valid = match self.discount {
            Discount::Percent(points) => (1..=BASIS_POINTS_MAX).contains(&points),
            Discount::Fixed(minor) => minor > 0,
        };
        is_discount_valid && self.min_amount >= 0
    }
}

/// Returns the discount of a coupon for an order, or the reason why the order cannot use the coupon. The discount never
/// exceeds the total of the lines to which the coupon applies.
pub fn check_terms_and_compute_discount(
    terms: &Terms,
    now: Instant,
    currency: Currency,
    basket: &[BasketLine],
) -> Result<Fiat, CouponRefusal> {
    if terms.starts_at.is_some_and(|at| now < at) {
        return Err(CouponRefusal::NotYetValid);
    }
    if terms.ends_at.is_some_and(|at| now >= at) {
        return Err(CouponRefusal::Expired);
    }
    if terms.currency != currency {
        return Err(CouponRefusal::OtherCurrency(terms.currency));
    }
    if sum_line_totals(basket.iter())? < terms.min_amount {
        return Err(CouponRefusal::BelowMinimum { min_amount: Fiat::new(currency, terms.min_amount) });
    }
    let is_eligible = |line: &&BasketLine| terms.product.is_none_or(|product| product == line.product);
    if !basket.iter().any(|line| is_eligible(&line)) {
        return Err(CouponRefusal::OtherProduct);
    }
    let eligible_total = sum_line_totals(basket.iter().filter(is_eligible))?;
    let minor = match terms.discount {
        Discount::Percent(points) => {
            compute_share_rounded_down(eligible_total, points).ok_or(CouponRefusal::OutOfRange)?
        }
        Discount::Fixed(minor) => minor.min(eligible_total),
    };
    Ok(Fiat::new(currency, minor))
}

/// Returns the sum of the totals of order lines, in minor units. Fails when the sum exceeds the range of `i64`.
fn sum_line_totals<'a>(mut lines: impl Iterator<Item = &'a BasketLine>) -> Result<i64, CouponRefusal> {
    lines.try_fold(0_i64, |sum, line| sum.checked_add(line.total)).ok_or(CouponRefusal::OutOfRange)
}

/// Returns a share of the amount `minor`, rounded down; `points` is the share in basis points. `None` when the result
/// exceeds the range of `i64`.
fn compute_share_rounded_down(minor: i64, points: i64) -> Option<i64> {
    let product = i128::from(minor).checked_mul(i128::from(points))?;
    i64::try_from(product.div_euclid(i128::from(BASIS_POINTS_MAX))).ok()
}
