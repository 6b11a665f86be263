//! All SQL of coupons.

use crate::coupons::{Coupon, Discount, NewCoupon, Terms};
use clock::Instant;
use db::{self, Row, Tx, execute, expect_changed, row, rows};
use ids::{CouponId, Shop};

/// The kind of a [`Discount`], as stored in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiscountKind {
    Percent,
    Fixed,
}

db::text_enum!(DiscountKind { Percent => "percent", Fixed => "fixed" });

/// Inserts an active coupon and returns its id; `None` when another coupon of the shop has the code.
pub async fn insert_coupon_if_code_free(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    code: &str,
    new: &NewCoupon,
) -> Result<Option<CouponId>, db::Error> {
    let (kind, value) = match new.terms.discount {
        Discount::Percent(points) => (DiscountKind::Percent, points),
        Discount::Fixed(minor) => (DiscountKind::Fixed, minor),
    };
    let inserted = row!(
        tx,
        "insert into coupons (merchant_id, mode, code, kind, value, currency, min_amount, product_id, max_uses, uses,
            starts_at, ends_at, state, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11, 'active', $12)
         on conflict (merchant_id, mode, code) do nothing returning id",
        shop.merchant,
        shop.mode,
        code,
        kind,
        value,
        new.terms.currency,
        new.terms.min_amount,
        new.terms.product,
        new.max_uses,
        new.terms.starts_at,
        new.terms.ends_at,
        now
    )?;
    inserted.map(|row| row.get("id")).transpose()
}

/// Returns the active coupon with this normalized code; `None` when the shop has no such coupon.
pub async fn find_active_coupon(tx: &mut Tx, shop: Shop, code: &str) -> Result<Option<Coupon>, db::Error> {
    let found = row!(
        tx,
        "select id, kind, value, currency, min_amount, product_id, max_uses, uses, starts_at, ends_at from coupons
         where merchant_id = $1 and mode = $2 and code = $3 and state = 'active'",
        shop.merchant,
        shop.mode,
        code
    )?;
    found.as_ref().map(parse_coupon).transpose()
}

/// The maximum number of coupons that [`list_active_coupons`] returns.
const LIST_MAX: u32 = 10_000;

/// Returns the active coupons of a shop with their codes, sorted by code.
pub async fn list_active_coupons(tx: &mut Tx, shop: Shop) -> Result<Vec<(String, Coupon)>, db::Error> {
    let found = rows!(
        tx,
        "select code, id, kind, value, currency, min_amount, product_id, max_uses, uses, starts_at, ends_at from coupons
         where merchant_id = $1 and mode = $2 and state = 'active' order by code limit $3",
        shop.merchant,
        shop.mode,
        LIST_MAX
    )?;
    found.iter().map(|row| Ok((row.get("code")?, parse_coupon(row)?))).collect()
}

fn parse_coupon(row: &Row) -> Result<Coupon, db::Error> {
    let value = row.get("value")?;
    Ok(Coupon {
        id: row.get("id")?,
        terms: Terms {
            discount: match row.get("kind")? {
                DiscountKind::Percent => Discount::Percent(value),
                DiscountKind::Fixed => Discount::Fixed(value),
            },
            currency: row.get("currency")?,
            min_amount: row.get("min_amount")?,
            product: row.get("product_id")?,
            starts_at: row.get("starts_at")?,
            ends_at: row.get("ends_at")?,
        },
        max_uses: row.get("max_uses")?,
        uses: row.get("uses")?,
    })
}

/// Adds one to the number of uses of a coupon and returns true. Returns false when the coupon is inactive or has
/// reached its maximum number of uses.
pub async fn claim_coupon_use_if_left(tx: &mut Tx, coupon: CouponId) -> Result<bool, db::Error> {
    let n = execute!(
        tx,
        "update coupons set uses = uses + 1 where id = $1 and state = 'active' and (max_uses is null or uses < max_uses)",
        coupon
    )?;
    Ok(n == 1)
}

/// Subtracts one from a coupon's number of uses. Fails when this number is 0.
pub async fn release_coupon_use(tx: &mut Tx, coupon: CouponId) -> Result<(), db::Error> {
    let n = execute!(tx, "update coupons set uses = uses - 1 where id = $1 and uses > 0", coupon)?;
    expect_changed(n, 1)
}

/// Deactivates a coupon.
pub async fn set_coupon_inactive(tx: &mut Tx, coupon: CouponId) -> Result<(), db::Error> {
    let n = execute!(tx, "update coupons set state = 'inactive' where id = $1", coupon)?;
    expect_changed(n, 1)
}
