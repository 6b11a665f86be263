//! Coupons: codes that give a discount on an order. The creation of an order with a coupon adds one to the number of
//! uses of the coupon. When the order ends unpaid, one use is subtracted again.

pub mod discount;
mod store;

#[cfg(test)]
mod tests;

use clock::Instant;
use db::{self, Tx};
use ids::{CouponId, Shop};
use money::pricing::{Currency, Fiat};
use records::audit_log::{self, Action, Actor};

pub use discount::{BasketLine, CouponRefusal, Discount, Terms};

/// The maximum length of a coupon code, in characters.
const CODE_LENGTH_MAX: usize = 64;

/// A coupon to create.
#[derive(Debug, Clone)]
pub struct NewCoupon {
    /// The code that buyers enter. Upper and lower case are not distinguished, and surrounding whitespace is ignored.
    pub code: String,
    /// The discount of the coupon and its conditions.
    pub terms: Terms,
    /// The maximum number of orders that may use the coupon; `None` when the number is unlimited.
    pub max_uses: Option<u32>,
}

/// A stored coupon.
#[derive(Debug, Clone)]
pub struct Coupon {
    /// The id of the coupon in the database.
    pub id: CouponId,
    /// The discount of the coupon and its conditions.
    pub terms: Terms,
    /// The maximum number of orders that may use the coupon; `None` when the number is unlimited.
    pub max_uses: Option<u32>,
    /// The number of orders that used the coupon. Orders that ended unpaid are not counted.
    pub uses: u32,
}

/// A coupon that an order uses, with the resulting discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedCoupon {
    /// The id of the coupon that the order uses.
    pub coupon: CouponId,
    /// The amount of the discount, in the currency of the order.
    pub discount: Fiat,
}

/// The reason why a coupon was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateCouponError {
    /// The code is empty or too long.
    #[error("a code has 1 to {CODE_LENGTH_MAX} characters")]
    BadCode,
    /// The discount or the minimum amount of the coupon is out of range.
    #[error("a percentage is 0.01 to 100, a fixed discount is more than 0, and a minimum amount is not negative")]
    BadTerms,
    /// The coupon ends at or before its beginning, so no order could use it.
    #[error("the coupon ends before it begins: it would be valid from {starts_at} until {ends_at}")]
    NeverValid { starts_at: Instant, ends_at: Instant },
    /// The maximum number of uses is 0, so no order could use the coupon.
    #[error("the maximum number of uses is 0; it must be at least 1")]
    NoUses,
    /// Another coupon of the shop has the code.
    #[error("another coupon has this code")]
    CodeTaken,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// The reason why a coupon could not be used for an order.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The coupon does not exist or does not apply to the order.
    #[error(transparent)]
    Refused(#[from] CouponRefusal),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Creates a coupon and records the action in the audit log.
pub async fn create_coupon(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    new: NewCoupon,
) -> Result<CouponId, CreateCouponError> {
    let code = validate_and_normalize_code(&new.code).ok_or(CreateCouponError::BadCode)?;
    if !new.terms.are_valid() {
        return Err(CreateCouponError::BadTerms);
    }
    if let (Some(starts_at), Some(ends_at)) = (new.terms.starts_at, new.terms.ends_at)
        && ends_at <= starts_at
    {
        return Err(CreateCouponError::NeverValid { starts_at, ends_at });
    }
    if new.max_uses == Some(0) {
        return Err(CreateCouponError::NoUses);
    }
    let coupon =
        store::insert_coupon_if_code_free(tx, now, shop, &code, &new).await?.ok_or(CreateCouponError::CodeTaken)?;
    audit_log::record_action(tx, now, actor, Action::CouponCreate, &new.code, "").await?;
    Ok(coupon)
}

/// Checks that an order may use a coupon, adds one to its number of uses, and returns the discount. One SQL statement
/// checks the number and adds to it, so two concurrent orders cannot both take the last use.
pub async fn redeem_coupon(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    code: &str,
    currency: Currency,
    basket: &[BasketLine],
) -> Result<AppliedCoupon, RedeemError> {
    let code = validate_and_normalize_code(code).ok_or(CouponRefusal::Unknown)?;
    let coupon = store::find_active_coupon(tx, shop, &code).await?.ok_or(CouponRefusal::Unknown)?;
    let discount = discount::check_terms_and_compute_discount(&coupon.terms, now, currency, basket)?;
    if !store::claim_coupon_use_if_left(tx, coupon.id).await? {
        return Err(CouponRefusal::Exhausted.into());
    }
    Ok(AppliedCoupon { coupon: coupon.id, discount })
}

/// Subtracts one use of a coupon after the order that used it has ended unpaid.
pub async fn release_coupon_use(tx: &mut Tx, coupon: CouponId) -> Result<(), db::Error> {
    store::release_coupon_use(tx, coupon).await
}

/// Returns the active coupons of a shop with their codes, sorted by code.
pub async fn list_active_coupons(tx: &mut Tx, shop: Shop) -> Result<Vec<(String, Coupon)>, db::Error> {
    store::list_active_coupons(tx, shop).await
}

/// Deactivates a coupon and records the action in the audit log. Orders that already use the coupon keep their
/// discount. Returns false when no active coupon has this code.
pub async fn deactivate_coupon(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    shop: Shop,
    code: &str,
) -> Result<bool, db::Error> {
    let Some(normalized) = validate_and_normalize_code(code) else { return Ok(false) };
    let Some(coupon) = store::find_active_coupon(tx, shop, &normalized).await? else { return Ok(false) };
    store::set_coupon_inactive(tx, coupon.id).await?;
    audit_log::record_action(tx, now, actor, Action::CouponDeactivate, code, "").await?;
    Ok(true)
}

/// Returns the code in the form in which codes are stored and compared: trimmed and in upper case. `None` when the code
/// is empty or too long.
fn validate_and_normalize_code(code: &str) -> Option<String> {
    let code = code.trim();
    let fits = !code.is_empty() && code.chars().count() <= CODE_LENGTH_MAX;
    fits.then(|| code.to_uppercase())
}
