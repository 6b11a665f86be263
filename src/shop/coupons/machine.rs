//! The discount that a coupon gives. Pure: no database, no clock.

use clock::Instant;
use ids::ProductId;
use money::pricing::{Currency, Fiat};

/// 100 % in basis points.
const BASIS_POINTS_MAX: i64 = 10_000;

/// The size of a coupon's discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// Basis points of the eligible total, rounded down to minor units; 1 to 10,000.
    Percent(i64),
    /// Minor units, but at most the eligible total.
    Fixed(i64),
}

/// The discount of a coupon and its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub discount: Discount,
    /// The currency of `min_amount` and of a fixed discount. Orders in another currency are refused.
    pub currency: Currency,
    /// The minimum order total before any discount, in minor units.
    pub min_amount: i64,
    /// When set, only lines of this product are eligible.
    pub product: Option<ProductId>,
    /// The coupon is valid from this time on.
    pub starts_at: Option<Instant>,
    /// The coupon is invalid from this time on.
    pub ends_at: Option<Instant>,
}

/// One line of an order, as far as coupons need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasketLine {
    pub product: ProductId,
    /// Minor units.
    pub total: i64,
}

/// The reason why a coupon was refused for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CouponRefusal {
    #[error("there is no such coupon")]
    Unknown,
    #[error("the coupon is not valid yet")]
    NotYetValid,
    #[error("the coupon has expired")]
    Expired,
    #[error("the coupon has been used up")]
    Exhausted,
    #[error("the coupon needs an order of at least {}", min_amount.to_decimal())]
    BelowMinimum { min_amount: Fiat },
    #[error("the coupon is for another product")]
    OtherProduct,
    #[error("the coupon is for orders in {0}")]
    OtherCurrency(Currency),
    #[error("the order's amount is out of range")]
    OutOfRange,
}

impl Terms {
    /// Returns terms without conditions: the discount applies to every order, at any time.
    pub fn unrestricted(discount: Discount, currency: Currency) -> Terms {
        Terms { discount, currency, min_amount: 0, product: None, starts_at: None, ends_at: None }
    }

    /// Returns true when discount and minimum amount are in range.
    pub fn are_valid(&self) -> bool {
        let is_discount_valid = match self.discount {
            Discount::Percent(points) => (1..=BASIS_POINTS_MAX).contains(&points),
            Discount::Fixed(minor) => minor > 0,
        };
        is_discount_valid && self.min_amount >= 0
    }
}

/// Returns the discount for an order. It is never more than the total of the eligible lines.
pub fn discount_for(
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
    if total(basket.iter())? < terms.min_amount {
        return Err(CouponRefusal::BelowMinimum { min_amount: Fiat::new(currency, terms.min_amount) });
    }
    let is_eligible = |line: &&BasketLine| terms.product.is_none_or(|product| product == line.product);
    if !basket.iter().any(|line| is_eligible(&line)) {
        return Err(CouponRefusal::OtherProduct);
    }
    let eligible_total = total(basket.iter().filter(is_eligible))?;
    let minor = match terms.discount {
        Discount::Percent(points) => share_of(eligible_total, points).ok_or(CouponRefusal::OutOfRange)?,
        Discount::Fixed(minor) => minor.min(eligible_total),
    };
    Ok(Fiat::new(currency, minor))
}

fn total<'a>(mut lines: impl Iterator<Item = &'a BasketLine>) -> Result<i64, CouponRefusal> {
    lines.try_fold(0_i64, |sum, line| sum.checked_add(line.total)).ok_or(CouponRefusal::OutOfRange)
}

/// Returns the share of `minor` in basis points, rounded down.
fn share_of(minor: i64, points: i64) -> Option<i64> {
    let product = i128::from(minor).checked_mul(i128::from(points))?;
    i64::try_from(product.div_euclid(i128::from(BASIS_POINTS_MAX))).ok()
}
