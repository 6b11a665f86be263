use futures_util::future::join_all;
use proptest::prelude::*;

use crate::coupons::discount::check_terms_and_compute_discount;
use crate::coupons::{self, BasketLine, CouponRefusal, CreateCouponError, Discount, NewCoupon, Terms};
use crate::fixture::{Fixture, NOW, OPERATOR, run_write};
use crate::orders::CreateOrderError;
use crate::orders::NewOrder;
use clock::Instant;
use ids::{CouponId, ProductId};
use money::pricing::{Currency, Fiat};

const CNY: Currency = Currency::CNY;

fn new_line(product: i64, total: i64) -> BasketLine {
    BasketLine { product: ProductId(product), total }
}

async fn create_coupon(
    shop: &Fixture,
    code: &str,
    terms: Terms,
    max_uses: Option<u32>,
) -> Result<CouponId, CreateCouponError> {
    let (owner, new) = (shop.shop, NewCoupon { code: code.into(), terms, max_uses });
    shop.db.write("create_coupon", move |tx| Box::pin(coupons::create_coupon(tx, NOW, &OPERATOR, owner, new))).await
}

fn build_order_with_coupon(shop: &Fixture, quantity: u32, code: &str) -> NewOrder {
    NewOrder { coupon: Some(code.into()), ..shop.build_crypto_order(quantity) }
}

#[test]
fn the_discount_follows_the_terms() {
    let percent = |points| Terms::unrestricted(Discount::Percent(points), CNY);
    let fixed = |minor| Terms::unrestricted(Discount::Fixed(minor), CNY);
    let table = [
        (percent(1_000), vec![new_line(1, 999)], Ok(99)),
        (percent(10_000), vec![new_line(1, 999)], Ok(999)),
        (percent(1), vec![new_line(1, 9_999)], Ok(0)),
        (percent(5_000), vec![new_line(1, i64::MAX)], Ok(i64::MAX / 2)),
        (percent(5_000), vec![new_line(1, i64::MAX), new_line(2, 1)], Err(CouponRefusal::OutOfRange)),
        (fixed(300), vec![new_line(1, 999)], Ok(300)),
        (fixed(300), vec![new_line(1, 200)], Ok(200)),
        (Terms { product: Some(ProductId(2)), ..percent(5_000) }, vec![new_line(1, 100), new_line(2, 50)], Ok(25)),
        (Terms { product: Some(ProductId(2)), ..fixed(80) }, vec![new_line(1, 100), new_line(2, 50)], Ok(50)),
        (Terms { product: Some(ProductId(3)), ..fixed(80) }, vec![new_line(1, 100)], Err(CouponRefusal::OtherProduct)),
        (Terms { min_amount: 100, ..fixed(80) }, vec![new_line(1, 100)], Ok(80)),
        (
            Terms { min_amount: 101, ..fixed(80) },
            vec![new_line(1, 100)],
            Err(CouponRefusal::BelowMinimum { min_amount: Fiat::new(CNY, 101) }),
        ),
        (Terms { starts_at: Some(NOW), ..fixed(1) }, vec![new_line(1, 9)], Ok(1)),
        (Terms { starts_at: Some(NOW.plus_ms(1)), ..fixed(1) }, vec![new_line(1, 9)], Err(CouponRefusal::NotYetValid)),
        (Terms { ends_at: Some(NOW.plus_ms(1)), ..fixed(1) }, vec![new_line(1, 9)], Ok(1)),
        (Terms { ends_at: Some(NOW), ..fixed(1) }, vec![new_line(1, 9)], Err(CouponRefusal::Expired)),
        (
            Terms::unrestricted(Discount::Fixed(1), Currency::USD),
            vec![new_line(1, 9)],
            Err(CouponRefusal::OtherCurrency(Currency::USD)),
        ),
    ];
    for (terms, basket, expected) in table {
        let found = check_terms_and_compute_discount(&terms, NOW, CNY, &basket).map(|fiat| fiat.minor);
        assert_eq!(found, expected, "{terms:?} {basket:?}");
    }
}

proptest! {
    #[test]
    fn a_discount_is_the_exact_share_rounded_down(total in 0_i64..i64::MAX, points in 1_i64..=10_000) {
        let terms = Terms::unrestricted(Discount::Percent(points), CNY);
        let found = i128::from(check_terms_and_compute_discount(&terms, Instant(0), CNY, &[new_line(1, total)]).unwrap().minor);
        let exact = i128::from(total) * i128::from(points);
        prop_assert!(found * 10_000 <= exact && exact < (found + 1) * 10_000);
        prop_assert!(found <= i128::from(total));
    }

    #[test]
    fn no_discount_exceeds_the_eligible_total(
        totals in prop::collection::vec((0_i64..4, 0_i64..1_000_000_000), 1..6),
        value in prop_oneof![(1_i64..=10_000).prop_map(Discount::Percent), (1_i64..2_000_000_000).prop_map(Discount::Fixed)],
        bound_to in prop::option::of(0_i64..4),
    ) {
        let basket: Vec<BasketLine> = totals.iter().map(|(product, total)| new_line(*product, *total)).collect();
        let terms = Terms { product: bound_to.map(ProductId), ..Terms::unrestricted(value, CNY) };
        let eligible: i64 =
            totals.iter().filter(|(product, _)| bound_to.is_none_or(|b| b == *product)).map(|(_, total)| total).sum();
        match check_terms_and_compute_discount(&terms, NOW, CNY, &basket) {
            Ok(fiat) => prop_assert!((0..=eligible).contains(&fiat.minor)),
            Err(rejection) => {
                prop_assert_eq!(rejection, CouponRefusal::OtherProduct);
                prop_assert!(totals.iter().all(|(product, _)| Some(*product) != bound_to));
            }
        }
    }
}

db::both! {
    async fn a_code_is_found_in_any_case_and_with_outer_blanks(db: Db) {
        let shop = Fixture::new(db, 10).await;
        create_coupon(&shop, " Spring10 ", Terms::unrestricted(Discount::Percent(1_000), CNY), None).await.unwrap();
        let created = shop.create_order(build_order_with_coupon(&shop, 3, "\tspring10 ")).await.unwrap();
        let order = created.order;
        assert_eq!((order.original_amount.minor, order.discount_amount.minor, order.amount.minor), (150, 15, 135));
        for code in ["", "   ", "spring", "spring10x", &"x".repeat(10_000)] {
            let rejected = shop.create_order(build_order_with_coupon(&shop, 3, code)).await;
            assert!(matches!(rejected, Err(CreateOrderError::CouponInvalid(CouponRefusal::Unknown))), "{code:?}");
        }
        assert_eq!(shop.count_available_items().await, 7);
        assert_eq!(shop.select_number("select count(*) from orders").await, 1);
    }

    async fn invalid_coupons_are_rejected(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let fixed = || Terms::unrestricted(Discount::Fixed(1), CNY);
        create_coupon(&shop, "A", fixed(), None).await.unwrap();
        assert!(matches!(create_coupon(&shop, "a", fixed(), None).await, Err(CreateCouponError::CodeTaken)));
        assert!(matches!(create_coupon(&shop, " ", fixed(), None).await, Err(CreateCouponError::BadCode)));
        for value in [Discount::Percent(0), Discount::Percent(10_001), Discount::Fixed(0), Discount::Fixed(-1)] {
            assert!(matches!(create_coupon(&shop, "b", Terms::unrestricted(value, CNY), None).await, Err(CreateCouponError::BadTerms)));
        }
    }

    async fn concurrent_orders_cannot_exceed_the_uses_of_a_coupon(db: Db) {
        let shop = Fixture::new(db, 50).await;
        create_coupon(&shop, "three", Terms::unrestricted(Discount::Percent(1_000), CNY), Some(3)).await.unwrap();
        let outcomes = join_all((0..20).map(|_| shop.create_order(build_order_with_coupon(&shop, 1, "three")))).await;
        let exhausted = outcomes.iter()
            .filter(|outcome| matches!(outcome, Err(CreateOrderError::CouponInvalid(CouponRefusal::Exhausted)))).count();
        assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), exhausted), (3, 17));
        assert_eq!(shop.select_number("select uses from coupons").await, 3);
        assert_eq!(shop.count_available_items().await, 47);
        shop.assert_stock_counts().await;
    }

    async fn a_deactivated_coupon_is_unknown(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let owner = shop.shop;
        create_coupon(&shop, "gone", Terms::unrestricted(Discount::Fixed(10), CNY), None).await.unwrap();
        let deactivate = |code: &'static str| run_write(&shop.db, move |tx| {
            Box::pin(coupons::deactivate_coupon(tx, NOW, &OPERATOR, owner, code))
        });
        assert!(deactivate(" GONE ").await);
        assert!(!deactivate("gone").await && !deactivate("other").await);
        let rejected = shop.create_order(build_order_with_coupon(&shop, 1, "gone")).await;
        assert!(matches!(rejected, Err(CreateOrderError::CouponInvalid(CouponRefusal::Unknown))));
    }
}
