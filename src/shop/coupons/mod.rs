//! Coupons: a discount for who knows the code. A use is counted when an order is created and given back when it ends unpaid.

pub mod machine;
mod store;

#[cfg(test)]
mod tests;

use clock::Instant;
use db::{self, Tx};
use ids::{CouponId, Shop};
use money::pricing::{Currency, Fiat};

pub use machine::{BasketLine, CouponRefusal, Discount, Terms};

const CODE_LENGTH_MAX: usize = 64;

#[derive(Debug, Clone)]
pub struct NewCoupon {
    pub code: String,
    pub terms: Terms,
    /// Without it there is no bound.
    pub max_uses: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Coupon {
    pub id: CouponId,
    pub terms: Terms,
    pub max_uses: Option<u32>,
    pub uses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedCoupon {
    pub coupon: CouponId,
    pub discount: Fiat,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a code is 1 to {CODE_LENGTH_MAX} characters")]
    BadCode,
    #[error("a percentage is 1 to 10000 basis points, a fixed discount more than nothing, a minimum not negative")]
    BadTerms,
    #[error("another coupon has this code")]
    CodeTaken,
    #[error(transparent)]
    Db(#[from] db::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    #[error(transparent)]
    Refused(#[from] CouponRefusal),
    #[error(transparent)]
    Db(#[from] db::Error),
}

pub async fn create(tx: &mut Tx, now: Instant, shop: Shop, new: NewCoupon) -> Result<CouponId, CreateError> {
    let code = normalised(&new.code).ok_or(CreateError::BadCode)?;
    if !new.terms.are_valid() {
        return Err(CreateError::BadTerms);
    }
    store::insert_coupon(tx, now, shop, &code, &new).await?.ok_or(CreateError::CodeTaken)
}

/// Counts one use and says what it is worth. Two orders at once cannot both have the last use.
pub async fn redeem(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    code: &str,
    currency: Currency,
    basket: &[BasketLine],
) -> Result<AppliedCoupon, RedeemError> {
    let code = normalised(code).ok_or(CouponRefusal::Unknown)?;
    let coupon = store::find_coupon(tx, shop, &code).await?.ok_or(CouponRefusal::Unknown)?;
    let discount = machine::discount(&coupon.terms, now, currency, basket)?;
    if !store::set_used(tx, coupon.id).await? {
        return Err(CouponRefusal::Exhausted.into());
    }
    Ok(AppliedCoupon { coupon: coupon.id, discount })
}

/// Takes a counted use back: the order that had it ended unpaid.
pub async fn release_use(tx: &mut Tx, coupon: CouponId) -> Result<(), db::Error> {
    store::set_unused(tx, coupon).await
}

/// The active coupon with this code.
pub async fn find(tx: &mut Tx, shop: Shop, code: &str) -> Result<Option<Coupon>, db::Error> {
    match normalised(code) {
        Some(code) => store::find_coupon(tx, shop, &code).await,
        None => Ok(None),
    }
}

/// Active coupons with their codes.
pub async fn list(tx: &mut Tx, shop: Shop) -> Result<Vec<(String, Coupon)>, db::Error> {
    store::list(tx, shop).await
}

/// Ends a coupon; orders that used it keep their discount.
pub async fn deactivate(tx: &mut Tx, coupon: CouponId) -> Result<(), db::Error> {
    store::set_inactive(tx, coupon).await
}

/// Trimmed and in capitals: how a code is stored and compared.
fn normalised(code: &str) -> Option<String> {
    let code = code.trim();
    let fits = !code.is_empty() && code.chars().count() <= CODE_LENGTH_MAX;
    fits.then(|| code.to_uppercase())
}
