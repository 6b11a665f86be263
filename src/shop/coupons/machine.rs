//! What a coupon is worth. Pure: no database, no clock.

use clock::Instant;
use ids::ProductId;
use money::pricing::{Currency, Fiat};

const WHOLE: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// Basis points of what counts, rounded down to minor units.
    Percent(i64),
    /// Minor units, at most what counts.
    Fixed(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub value: Discount,
    /// In which `min_amount` and a fixed value are; orders in another currency are refused.
    pub currency: Currency,
    /// The least total of an order before any discount, minor units.
    pub min_amount: i64,
    /// Only lines of this product count.
    pub product: Option<ProductId>,
    pub starts_at: Option<Instant>,
    /// From this instant on it is over.
    pub ends_at: Option<Instant>,
}

/// A line of an order as a coupon sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasketLine {
    pub product: ProductId,
    /// Minor units.
    pub total: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CouponRefusal {
    #[error("there is no such coupon")]
    Unknown,
    #[error("the coupon is not valid yet")]
    NotYet,
    #[error("the coupon has expired")]
    Over,
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
    /// A discount of `value` on everything, at any time.
    pub fn unrestricted(value: Discount, currency: Currency) -> Terms {
        Terms { value, currency, min_amount: 0, product: None, starts_at: None, ends_at: None }
    }

    pub fn are_valid(&self) -> bool {
        let value = match self.value {
            Discount::Percent(points) => (1..=WHOLE).contains(&points),
            Discount::Fixed(minor) => minor > 0,
        };
        value && self.min_amount >= 0
    }
}

/// Never more than the lines that count are worth.
pub fn discount(terms: &Terms, now: Instant, currency: Currency, basket: &[BasketLine]) -> Result<Fiat, CouponRefusal> {
    if terms.starts_at.is_some_and(|at| now < at) {
        return Err(CouponRefusal::NotYet);
    }
    if terms.ends_at.is_some_and(|at| now >= at) {
        return Err(CouponRefusal::Over);
    }
    if terms.currency != currency {
        return Err(CouponRefusal::OtherCurrency(terms.currency));
    }
    if total(basket.iter())? < terms.min_amount {
        return Err(CouponRefusal::BelowMinimum { min_amount: Fiat::new(currency, terms.min_amount) });
    }
    let counted = |line: &&BasketLine| terms.product.is_none_or(|product| product == line.product);
    if !basket.iter().any(|line| counted(&line)) {
        return Err(CouponRefusal::OtherProduct);
    }
    let counting = total(basket.iter().filter(counted))?;
    let minor = match terms.value {
        Discount::Percent(points) => share(counting, points).ok_or(CouponRefusal::OutOfRange)?,
        Discount::Fixed(minor) => minor.min(counting),
    };
    Ok(Fiat::new(currency, minor))
}

fn total<'a>(mut lines: impl Iterator<Item = &'a BasketLine>) -> Result<i64, CouponRefusal> {
    lines.try_fold(0_i64, |sum, line| sum.checked_add(line.total)).ok_or(CouponRefusal::OutOfRange)
}

/// `points` ten-thousandths of `minor`, rounded down.
fn share(minor: i64, points: i64) -> Option<i64> {
    let product = i128::from(minor).checked_mul(i128::from(points))?;
    i64::try_from(product.div_euclid(i128::from(WHOLE))).ok()
}
