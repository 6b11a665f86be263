use chain::Amount;
use futures_util::future::join_all;
use proptest::prelude::*;
use uuid::Uuid;

use crate::catalog::{self, NewProduct};
use crate::coupons::{self, CouponRefusal, Discount, NewCoupon, Terms};
use crate::fixture::{Fixture, NOW, OPERATOR, SURFACE, WINDOW_MS, new_mailbox_product, run_read, run_write};
use crate::fulfilment::{self, EmailTemplates};
use crate::orders::new_payment::{PaymentInstructions, PaymentMethod, Provider};
use crate::orders::{self, CancelError, CreateOrderError, NewLine, NewOrder, Order, OrderDetails, OrderLine, State};
use crate::stock;
use clock::Instant;
use db::{self, Backend, execute, testing};
use ids::{MerchantId, Mode, OrderId, PaymentId, Shop};
use money::invoices;
use money::payments::{self, Method, PaymentChange};
use money::pricing::Currency;

const LATER: Instant = NOW.plus_ms(WINDOW_MS + 1);

async fn find_details(shop: &Fixture, order: &Order) -> OrderDetails {
    let number = order.order_no.clone();
    run_read(&shop.db, move |tx| {
        Box::pin(async move { orders::find_any_shop_order_by_number_or_id(tx, &number).await })
    })
    .await
    .unwrap()
}

async fn load_lines(shop: &Fixture, order: &Order) -> Vec<OrderLine> {
    let order = order.clone();
    run_read(&shop.db, move |tx| Box::pin(async move { orders::list_order_lines(tx, &order).await })).await
}

async fn load_state(shop: &Fixture, order: &Order) -> State {
    find_details(shop, order).await.order.state
}

async fn find_newest_payment(shop: &Fixture, order: &Order) -> PaymentId {
    let order = order.id;
    run_read(&shop.db, move |tx| Box::pin(payments::find_newest_payment(tx, order))).await.unwrap()
}

async fn apply_changes(shop: &Fixture, now: Instant, changes: Vec<PaymentChange>) {
    run_write(&shop.db, move |tx| {
        Box::pin(async move { orders::payment_changes::apply_payment_changes_to_orders(tx, now, &changes).await })
    })
    .await;
}

async fn list_event_kinds(shop: &Fixture, order: &Order) -> Vec<String> {
    let subject = order.public_id.clone();
    run_read(&shop.db, move |tx| {
        Box::pin(async move {
            let rows = db::rows!(tx, "select kind from events where subject = $1 order by seq", subject)?;
            rows.iter().map(|row| row.get("kind")).collect()
        })
    })
    .await
}

async fn create_coupon(shop: &Fixture, code: &'static str, discount: Discount) {
    let owner = shop.shop;
    let new = NewCoupon { code: code.into(), terms: Terms::unrestricted(discount, Currency::CNY), max_uses: Some(5) };
    shop.db.write("coupon", move |tx| Box::pin(coupons::create_coupon(tx, NOW, &OPERATOR, owner, new))).await.unwrap();
}

async fn create_second_product(shop: &Fixture, items: usize) -> Uuid {
    let (owner, id) = (shop.shop, Uuid::new_v4());
    let new = NewProduct { slug: format!("with-{items}"), ..new_mailbox_product(id) };
    let created =
        shop.db.write("product", move |tx| Box::pin(catalog::create_product_without_stock(tx, NOW, owner, new))).await;
    let (_, sku) = created.unwrap();
    let lines: Vec<String> = (0..items).map(|n| format!("second {n}")).collect();
    let items = stock::validate_and_encrypt_lines(&shop.envelope, sku, lines.iter().map(String::as_str)).unwrap();
    run_write(&shop.db, move |tx| Box::pin(stock::import_stock_items(tx, NOW, &OPERATOR, "second", sku, items))).await;
    id
}

/// Asserts that a rejected order left no rows and that the stock is unchanged.
async fn assert_nothing_stored(shop: &Fixture, stock: u64) {
    assert_eq!(shop.count_available_items().await, stock);
    for sql in [
        "select count(*) from orders",
        "select count(*) from order_lines",
        "select count(*) from payments",
        "select count(*) from events",
        "select count(*) from invoices",
        "select count(*) from fulfilments",
    ] {
        assert_eq!(shop.select_number(sql).await, 0, "{sql}");
    }
    assert_eq!(shop.watched.len(), 0);
    shop.assert_stock_counts().await;
}

db::both! {
    async fn an_on_chain_order_has_an_exact_amount_and_its_own_address(db: Db) {
        let shop = Fixture::new(db, 44).await;
        let created = shop.create_order(shop.build_crypto_order(10)).await.unwrap();
        let order = &created.order;
        assert_eq!((order.original_amount.minor, order.discount_amount.minor, order.amount.minor), (500, 0, 500));
        assert_eq!((order.state, order.expires_at), (State::AwaitingPayment, Some(NOW.plus_ms(WINDOW_MS))));
        let PaymentInstructions::Transfer { asset, address, due, .. } = &created.instructions else { panic!("{:?}", created.instructions) };
        // The price of 5 CNY at 7.24 CNY for one USDT is rounded up to six decimal places.
        assert_eq!(due.to_decimal(asset.decimals), "0.69061");
        assert_eq!(shop.count_available_items().await, 34);
        assert_eq!(shop.watched.len(), 1);

        let view = find_details(&shop, order).await;
        let (invoice, received) = view.status.invoice.as_ref().unwrap();
        assert_eq!((&invoice.address, invoice.due, invoice.confirmations), (address, *due, 12));
        assert_eq!((received.confirmed.to_string(), view.status.method), ("0".into(), Method::Crypto));
        assert_eq!((&view.order, load_lines(&shop, order).await), (order, created.lines.clone()));
        assert_eq!(created.lines[0].product, shop.product_id.to_string());
        let bought = created.lines.clone();
        let goods = run_read(&shop.db, move |tx| Box::pin(async move { orders::find_sealed_items_if_delivered(tx, &view.order, &bought).await })).await;
        assert!(goods.is_none());
        assert_eq!(list_event_kinds(&shop, order).await, ["order.created"]);

        let other = shop.create_order(shop.build_crypto_order(1)).await.unwrap();
        assert!(matches!(&other.instructions, PaymentInstructions::Transfer { address: second, .. } if second != address));
    }

    async fn the_three_quantity_limits_are_independent(db: Db) {
        let shop = Fixture::new(db, 250).await;
        let product = shop.product;
        shop.db.write("limits", move |tx| Box::pin(catalog::set_quantity_limits(tx, product, 5, 1_000))).await.unwrap();
        assert!(matches!(shop.create_order(shop.build_crypto_order(4)).await, Err(CreateOrderError::QuantityBelowMinimum { min: 5 })));
        assert!(matches!(shop.create_order(shop.build_crypto_order(201)).await, Err(CreateOrderError::QuantityAboveMaximum { max: 200 })));
        assert!(matches!(shop.create_order(shop.build_crypto_order(0)).await, Err(CreateOrderError::QuantityBelowMinimum { .. })));
        assert_nothing_stored(&shop, 250).await;
        shop.create_order(shop.build_crypto_order(200)).await.unwrap();
        assert!(matches!(shop.create_order(shop.build_crypto_order(51)).await, Err(CreateOrderError::InsufficientStock)));
        assert_eq!(shop.count_available_items().await, 50);
        shop.create_order(shop.build_crypto_order(5)).await.unwrap();
        let max = 20;
        shop.db.write("limits", move |tx| Box::pin(catalog::set_quantity_limits(tx, product, 5, max))).await.unwrap();
        assert!(matches!(shop.create_order(shop.build_crypto_order(21)).await, Err(CreateOrderError::QuantityAboveMaximum { max: 20 })));
        shop.assert_stock_counts().await;
    }

    async fn a_rejected_order_leaves_no_rows(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let foreign = Shop { mode: Mode::Live, ..shop.shop };
        let rejections = [
            (NewOrder { lines: vec![NewLine { product: Uuid::new_v4(), quantity: 1 }], ..shop.build_crypto_order(1) }, "product"),
            (NewOrder { shop: foreign, ..shop.build_crypto_order(1) }, "product"),
            (NewOrder { currency: Currency::USD, ..shop.build_crypto_order(1) }, "product"),
            (NewOrder { lines: vec![], ..shop.build_crypto_order(1) }, "lines"),
            (NewOrder { lines: shop.build_crypto_order(1).lines.repeat(2), ..shop.build_crypto_order(1) }, "lines"),
            (NewOrder { lines: shop.build_crypto_order(1).lines.repeat(51), ..shop.build_crypto_order(1) }, "lines"),
            (NewOrder { payment_method: PaymentMethod::Crypto("btc".into()), ..shop.build_crypto_order(1) }, "method"),
            (NewOrder { payment_method: PaymentMethod::BalanceCny, ..shop.build_crypto_order(1) }, "user"),
            (NewOrder { payment_method: PaymentMethod::BalanceCrypto, ..shop.build_crypto_order(1) }, "user"),
            (shop.build_crypto_order(11), "stock"),
            (NewOrder { coupon: Some("none".into()), ..shop.build_crypto_order(1) }, "coupon"),
        ];
        for (new, expected) in rejections {
            let found = match shop.create_order(new).await.unwrap_err() {
                CreateOrderError::ProductNotFound => "product",
                CreateOrderError::BadLines => "lines",
                CreateOrderError::MethodUnavailable => "method",
                CreateOrderError::UserRequired => "user",
                CreateOrderError::InsufficientStock => "stock",
                CreateOrderError::CouponInvalid(_) => "coupon",
                other @ (CreateOrderError::QuantityBelowMinimum { .. }
                | CreateOrderError::QuantityAboveMaximum { .. }
                | CreateOrderError::InsufficientBalance
                | CreateOrderError::AmountOutOfRange
                | CreateOrderError::AmountBelowMinimum { .. }
                | CreateOrderError::Issue(_)
                | CreateOrderError::Db(_)) => panic!("{other}"),
            };
            assert_eq!(found, expected);
        }
        assert_nothing_stored(&shop, 10).await;
    }

    async fn without_a_fresh_rate_an_asset_is_unavailable(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let (payment_service, new) = (shop.payment_service.clone(), shop.build_crypto_order(1));
        let address = payment_service.reserve_address_if_on_chain(&shop.db, new.shop, &new.payment_method).await.unwrap();
        let late = shop.db.write("late", move |tx| Box::pin(async move {
            orders::create_order(tx, NOW.plus_ms(60_001), &payment_service, new, address).await
        })).await;
        assert!(matches!(late, Err(CreateOrderError::MethodUnavailable)));
        assert_nothing_stored(&shop, 10).await;
    }

    async fn a_cny_balance_pays_the_exact_amount_at_creation(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let user = shop.create_user("ann").await;
        shop.credit_balance(&user, Currency::CNY, 501).await;
        shop.credit_balance(&user, Currency::USD, 9_000_000).await;
        let created = shop.create_order(shop.build_balance_order(10, &user)).await.unwrap();
        assert_eq!((created.order.state, created.order.expires_at), (State::Paid, None));
        assert_eq!((created.order.paid_at, created.instructions), (Some(NOW), PaymentInstructions::AlreadyPaid));
        assert_eq!(shop.load_balance(&user, Currency::CNY).await, "1");
        assert_eq!(shop.load_balance(&user, Currency::USD).await, "9000000");
        let view = find_details(&shop, &created.order).await;
        assert_eq!((view.status.payment_state, view.status.method), (payments::State::Success, Method::BalanceCny));
        assert_eq!(list_event_kinds(&shop, &created.order).await, ["order.created", "order.paid"]);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 1);
    }

    async fn a_usd_balance_pays_the_converted_amount_rounded_up(db: Db) {
        let shop = Fixture::new(db, 20).await;
        let user = shop.create_user("ann").await;
        shop.credit_balance(&user, Currency::CNY, 10_000).await;
        shop.credit_balance(&user, Currency::USD, 690_608).await;
        let order = || NewOrder { payment_method: PaymentMethod::BalanceCrypto, ..shop.build_balance_order(10, &user) };
        let created = shop.create_order(order()).await.unwrap();
        assert_eq!(shop.load_balance(&user, Currency::USD).await, "0");
        assert_eq!(shop.load_balance(&user, Currency::CNY).await, "10000");
        let rate = run_read(&shop.db, |tx| Box::pin(async move {
            db::row!(tx, "select rate, rate_source, rated_at from payments")
        })).await.unwrap();
        let stored = (rate.get::<String>("rate").unwrap(), rate.get::<String>("rate_source").unwrap());
        assert_eq!((stored, rate.get("rated_at")), (("7.24".into(), "fixed".into()), Ok(NOW)));
        assert_eq!(created.order.state, State::Paid);
        assert!(matches!(shop.create_order(order()).await, Err(CreateOrderError::InsufficientBalance)));
        assert_eq!(shop.count_available_items().await, 10);
    }

    async fn an_insufficient_balance_leaves_no_rows(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let user = shop.create_user("ann").await;
        shop.credit_balance(&user, Currency::CNY, 499).await;
        let rejected = shop.create_order(shop.build_balance_order(10, &user)).await;
        assert!(matches!(rejected, Err(CreateOrderError::InsufficientBalance)));
        assert_eq!(shop.load_balance(&user, Currency::CNY).await, "499");
        assert_nothing_stored(&shop, 10).await;
    }

    async fn concurrent_orders_cannot_overdraw_a_balance(db: Db) {
        let shop = Fixture::new(db, 40).await;
        let user = shop.create_user("ann").await;
        shop.credit_balance(&user, Currency::CNY, 350).await;
        let outcomes = join_all((0..20).map(|_| shop.create_order(shop.build_balance_order(2, &user)))).await;
        let rejected = outcomes.iter().filter(|outcome| matches!(outcome, Err(CreateOrderError::InsufficientBalance))).count();
        assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), rejected), (3, 17));
        assert_eq!(shop.load_balance(&user, Currency::CNY).await, "50");
        assert_eq!(shop.count_available_items().await, 34);
        shop.assert_stock_counts().await;
    }

    async fn an_order_that_a_coupon_makes_free_is_paid_at_creation_by_any_method(db: Db) {
        let shop = Fixture::new(db, 10).await;
        create_coupon(&shop, "free", Discount::Percent(10_000)).await;
        let user = shop.create_user("ann").await;
        for new in [shop.build_crypto_order(1), shop.build_balance_order(1, &user)] {
            let created = shop.create_order(NewOrder { coupon: Some("free".into()), ..new }).await.unwrap();
            assert_eq!((created.order.state, created.order.amount.minor), (State::Paid, 0));
            assert_eq!(created.instructions, PaymentInstructions::AlreadyPaid);
            assert!(find_details(&shop, &created.order).await.status.invoice.is_none());
        }
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 2);
        assert_eq!(shop.watched.len(), 0);
    }

    async fn an_external_payment_returns_the_page_of_the_provider(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let pay_url = "https://pay.example.com/1".to_owned();
        let payment_method = PaymentMethod::External { provider: Provider::Alipay, pay_url: pay_url.clone(), provider_ref: None };
        let created = shop.create_order(NewOrder { payment_method, ..shop.build_crypto_order(1) }).await.unwrap();
        assert_eq!(created.instructions, PaymentInstructions::External { pay_url: pay_url.clone() });
        let view = find_details(&shop, &created.order).await;
        assert_eq!((view.status.method, view.status.pay_url), (Method::Alipay, Some(pay_url)));
        assert_eq!(view.order.state, State::AwaitingPayment);
    }

    async fn an_external_payment_ends_with_its_window_or_by_confirmation(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let external = || NewOrder {
            payment_method: PaymentMethod::External { provider: Provider::Wechat, pay_url: "https://x".into(), provider_ref: None },
            ..shop.build_crypto_order(2)
        };
        let orders = [shop.create_order(external()).await.unwrap().order, shop.create_order(external()).await.unwrap().order];
        let on_chain = shop.create_order(shop.build_crypto_order(1)).await.unwrap().order;
        let confirm = |id: OrderId| run_write(&shop.db, move |tx| Box::pin(orders::mark_external_payment_received(tx, NOW, id)));
        assert!(confirm(orders[0].id).await);
        assert!(!confirm(orders[0].id).await && !confirm(on_chain.id).await && !confirm(OrderId(999)).await);
        let expire = |at: Instant| run_write(&shop.db, move |tx| Box::pin(orders::expire_external_payments_and_orders(tx, at)));
        assert_eq!(expire(NOW.plus_ms(WINDOW_MS)).await, 0);
        assert_eq!(expire(LATER).await, 1);
        assert_eq!(expire(LATER).await, 0);
        assert_eq!((load_state(&shop, &orders[0]).await, load_state(&shop, &orders[1]).await), (State::Paid, State::Expired));
        assert_eq!(find_details(&shop, &orders[1]).await.status.payment_state, payments::State::Expired);
        assert_eq!(load_state(&shop, &on_chain).await, State::AwaitingPayment);
        assert!(!confirm(orders[1].id).await);
        assert_eq!(shop.count_available_items().await, 7);
        shop.assert_stock_counts().await;
    }

    async fn several_lines_are_one_order(db: Db) {
        let shop = Fixture::new(db, 200).await;
        let second = create_second_product(&shop, 0).await;
        let lines = vec![NewLine { product: second, quantity: 1 }, NewLine { product: shop.product_id, quantity: 100 }];
        let rejected = shop.create_order(NewOrder { lines: lines.clone(), ..shop.build_crypto_order(1) }).await;
        assert!(matches!(rejected, Err(CreateOrderError::InsufficientStock)));
        assert_nothing_stored(&shop, 200).await;

        let third = NewLine { product: create_second_product(&shop, 9).await, quantity: 3 };
        let lines = vec![third, lines[1]];
        let created = shop.create_order(NewOrder { lines: lines.clone(), ..shop.build_crypto_order(1) }).await.unwrap();
        // The order has 3 units at 0.50 CNY and 100 units at 0.40 CNY.
        assert_eq!(created.order.amount.minor, 150 + 4_000);
        let made: Vec<NewLine> = created.lines.iter()
            .map(|line| NewLine { product: line.product.parse().unwrap(), quantity: line.quantity }).collect();
        assert_eq!(made, lines);
        assert_eq!(shop.count_available_items().await, 100);
        let id = find_newest_payment(&shop, &created.order).await;
        apply_changes(&shop, LATER, vec![PaymentChange::Expired(id)]).await;
        assert_eq!(shop.count_available_items().await, 200);
        shop.assert_stock_counts().await;
    }

    async fn orders_for_the_same_products_in_another_sequence_all_succeed(db: Db) {
        let shop = Fixture::new(db, 40).await;
        let second = create_second_product(&shop, 40).await;
        let lines = [shop.product_id, second].map(|product| NewLine { product, quantity: 1 });
        let reversed = [lines[1], lines[0]];
        let made = join_all((0..40).map(|n| {
            let lines = if n % 2 == 0 { lines.to_vec() } else { reversed.to_vec() };
            shop.create_order(NewOrder { lines, ..shop.build_crypto_order(1) })
        })).await;
        let mut ids = Vec::new();
        for created in made {
            ids.push(find_newest_payment(&shop, &created.unwrap().order).await);
        }
        assert_eq!(shop.count_available_items().await, 0);
        // Run several transactions concurrently, each of which expires four orders.
        join_all(ids.chunks(4).map(|ids| {
            apply_changes(&shop, LATER, ids.iter().map(|id| PaymentChange::Expired(*id)).collect())
        })).await;
        assert_eq!(shop.count_available_items().await, 40);
        shop.assert_stock_counts().await;
    }

    async fn a_paid_order_is_scheduled_for_delivery_once(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let order = shop.create_order(shop.build_crypto_order(2)).await.unwrap().order;
        let id = find_newest_payment(&shop, &order).await;
        apply_changes(&shop, NOW, vec![PaymentChange::Confirming(id)]).await;
        assert_eq!(load_state(&shop, &order).await, State::AwaitingPayment);
        apply_changes(&shop, LATER, vec![PaymentChange::Paid(id), PaymentChange::Paid(id)]).await;
        let found = find_details(&shop, &order).await.order;
        assert_eq!((found.state, found.paid_at, found.closed_at), (State::Paid, Some(LATER), None));
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 1);
        assert_eq!(list_event_kinds(&shop, &order).await, ["order.created", "order.paid"]);
    }

    async fn an_expired_order_releases_stock_and_coupon_once(db: Db) {
        let shop = Fixture::new(db, 10).await;
        create_coupon(&shop, "ten", Discount::Percent(1_000)).await;
        let orders = join_all((0..3).map(|_| shop.create_order(NewOrder { coupon: Some("ten".into()), ..shop.build_crypto_order(3) }))).await;
        let orders: Vec<Order> = orders.into_iter().map(|created| created.unwrap().order).collect();
        assert_eq!((shop.count_available_items().await, shop.select_number("select uses from coupons").await), (1, 3));
        let mut changes = Vec::new();
        for order in &orders[..2] {
            changes.push(PaymentChange::Expired(find_newest_payment(&shop, order).await));
        }
        apply_changes(&shop, LATER, changes.clone()).await;
        apply_changes(&shop, LATER, changes).await;
        assert_eq!((shop.count_available_items().await, shop.select_number("select uses from coupons").await), (7, 1));
        let found = find_details(&shop, &orders[0]).await.order;
        assert_eq!((found.state, found.closed_at), (State::Expired, Some(LATER)));
        assert_eq!(list_event_kinds(&shop, &orders[0]).await, ["order.created", "order.expired"]);
        assert_eq!(load_state(&shop, &orders[2]).await, State::AwaitingPayment);
        shop.create_order(shop.build_crypto_order(7)).await.unwrap();
        shop.assert_stock_counts().await;
    }

    async fn a_payment_after_the_end_of_an_order_opens_a_review(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let order = shop.create_order(shop.build_crypto_order(1)).await.unwrap().order;
        let id = find_newest_payment(&shop, &order).await;
        apply_changes(&shop, LATER, vec![PaymentChange::Expired(id)]).await;
        apply_changes(&shop, LATER, vec![PaymentChange::Paid(id)]).await;
        assert_eq!(load_state(&shop, &order).await, State::Expired);
        assert_eq!(shop.select_number("select count(*) from reviews where kind = 'order.paid_late'").await, 1);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 0);
        assert_eq!(shop.count_available_items().await, 10);
    }

    async fn a_reversed_payment_has_an_open_review_until_it_is_confirmed_again(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let order = shop.create_order(shop.build_crypto_order(1)).await.unwrap().order;
        let id = find_newest_payment(&shop, &order).await;
        apply_changes(&shop, NOW, vec![PaymentChange::Paid(id), PaymentChange::Reversed(id)]).await;
        assert_eq!(load_state(&shop, &order).await, State::Paid);
        let open = "select count(*) from reviews where kind = 'payment.reversed' and closed_at is null";
        assert_eq!(shop.select_number(open).await, 1);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 0, "an order with a reversed payment is not scheduled");
        assert_eq!(list_event_kinds(&shop, &order).await, ["order.created", "order.paid", "payment.reversed"]);
        apply_changes(&shop, NOW, vec![PaymentChange::Paid(id)]).await;
        assert_eq!(shop.select_number(open).await, 0);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 1);
    }

    async fn an_order_whose_payment_is_lost_fails_or_opens_a_review(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let [kept, handed] = [shop.create_order(shop.build_crypto_order(1)).await.unwrap().order, shop.create_order(shop.build_crypto_order(2)).await.unwrap().order];
        let [of_kept, of_handed] = [find_newest_payment(&shop, &kept).await, find_newest_payment(&shop, &handed).await];
        apply_changes(&shop, NOW, vec![PaymentChange::Paid(of_handed)]).await;
        let templates = std::sync::Arc::new(EmailTemplates { order_url: "https://shop.example.com".into() });
        fulfilment::deliver_due_orders(&shop.db, NOW, &shop.envelope, &templates).await.unwrap();
        apply_changes(&shop, NOW, vec![PaymentChange::Paid(of_kept), PaymentChange::Reversed(of_kept), PaymentChange::Reversed(of_handed)]).await;
        apply_changes(&shop, LATER, vec![PaymentChange::Lost(of_kept), PaymentChange::Lost(of_handed)]).await;
        assert_eq!(load_state(&shop, &kept).await, State::Failed);
        assert_eq!(load_state(&shop, &handed).await, State::Completed, "a delivered order stays completed");
        assert_eq!(shop.count_available_items().await, 8, "the stock of the failed order was released");
        assert_eq!(shop.select_number("select count(*) from reviews where kind = 'payment.reversed' and closed_at is null").await, 0);
        assert_eq!(shop.select_number("select count(*) from reviews where kind = 'order.unpaid' and closed_at is null").await, 1);
        assert_eq!(list_event_kinds(&shop, &kept).await, ["order.created", "order.paid", "payment.reversed", "order.failed"]);
        assert_eq!(list_event_kinds(&shop, &handed).await.last().map(String::as_str), Some("order.unpaid"));
        shop.assert_stock_counts().await;
    }

    async fn only_an_unpaid_order_can_be_cancelled(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let order = shop.create_order(shop.build_crypto_order(4)).await.unwrap().order;
        let cancel = |id: OrderId| shop.db.write("cancel", move |tx| Box::pin(orders::cancel_unpaid_order(tx, NOW, id)));
        cancel(order.id).await.unwrap();
        assert_eq!((load_state(&shop, &order).await, shop.count_available_items().await), (State::Cancelled, 10));
        let ended = find_details(&shop, &order).await;
        assert_eq!(ended.status.invoice.unwrap().0.state, invoices::State::Cancelled);
        assert_eq!(ended.status.payment_state, payments::State::Failed);
        let user = shop.create_user("ann").await;
        shop.credit_balance(&user, Currency::CNY, 100).await;
        let paid = shop.create_order(shop.build_balance_order(1, &user)).await.unwrap().order;
        assert!(matches!(cancel(paid.id).await, Err(CancelError::TooLate(State::Paid))));
        assert!(matches!(cancel(order.id).await, Err(CancelError::TooLate(State::Cancelled))));
        assert!(matches!(cancel(OrderId(999)).await, Err(CancelError::NotFound)));
        assert_eq!(list_event_kinds(&shop, &order).await, ["order.created", "order.cancelled"]);
        shop.assert_stock_counts().await;
    }

    async fn an_order_is_found_only_by_number_and_email_together(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let order = shop.create_order(shop.build_crypto_order(1)).await.unwrap().order;
        let find = |shop_of: Shop, surface: &'static str, number: &str, email: &'static str| {
            let number = number.to_owned();
            run_read(&shop.db, move |tx| Box::pin(async move {
                orders::find_order_by_number_and_email(tx, shop_of, surface, &number, email).await
            }))
        };
        for email in ["ann@example.com", "  ANN@EXAMPLE.COM\t"] {
            let found = find(shop.shop, SURFACE, &order.order_no, email).await.unwrap();
            assert_eq!(found.order, order);
        }
        assert!(find(shop.shop, SURFACE, &order.order_no, "bob@example.com").await.is_none());
        assert!(find(shop.shop, SURFACE, "CO20260211AAAAAAAAAAAA", "ann@example.com").await.is_none());
        assert!(find(shop.shop, "storefront", &order.order_no, "ann@example.com").await.is_none());
        let live = Shop { mode: Mode::Live, ..shop.shop };
        assert!(find(live, SURFACE, &order.order_no, "ann@example.com").await.is_none());
        let id = order.public_id.parse().unwrap();
        assert!(orders::find_order_status(&shop.db, shop.shop, SURFACE, id).await.unwrap().is_some());
        assert!(orders::find_order_status(&shop.db, shop.shop, "storefront", id).await.unwrap().is_none());
        assert!(orders::find_order_status(&shop.db, live, SURFACE, id).await.unwrap().is_none());
        let other = Shop { merchant: MerchantId(999), ..shop.shop };
        assert!(orders::find_order_status(&shop.db, other, SURFACE, id).await.unwrap().is_none());
    }

    async fn the_status_shows_the_newest_payment(db: Db) {
        let shop = Fixture::new(db, 10).await;
        let (order, other) = (shop.create_order(shop.build_crypto_order(1)).await.unwrap().order, shop.create_order(shop.build_crypto_order(1)).await.unwrap().order);
        let payments = [find_newest_payment(&shop, &order).await, find_newest_payment(&shop, &other).await];
        // Move the payment of the other order to the first order, as its second payment. Both payments have deposits.
        let second = "update payments set order_id = $2 where id = $1";
        let deposit = "insert into deposits (chain, height, tx_index, part, block_hash, block_time, txid, asset, address_id,
                invoice_id, amount, state, disposition, confirm_height, seen_at)
            select i.chain, $2, 0, 0, $3, 1, $3, i.asset, i.address_id, i.id, $4, 'seen', 'counted', 1, 1
            from invoices i where i.payment_id = $1";
        let cursor = "insert into cursors (chain, height, hash, block_time, final_height, first_height)
            select i.chain, 9, $2, 1, 0, 0 from invoices i where i.payment_id = $1";
        let id = order.id;
        run_write(&shop.db, move |tx| Box::pin(async move {
            execute!(tx, cursor, payments[0], [9; 32])?;
            for (number, payment) in (5_u64..).zip(payments) {
                execute!(tx, deposit, payment, number, [5; 32], Amount::from(number))?;
            }
            execute!(tx, second, payments[1], id)
        })).await;
        let status = find_details(&shop, &order).await.status;
        let (invoice, received) = status.invoice.unwrap();
        assert_eq!((received.seen, received.txid.is_some()), (Amount::from(6), true), "the deposit of the newest payment only");
        let by_id = orders::find_order_status(&shop.db, shop.shop, SURFACE, order.public_id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(by_id.invoice, Some((invoice, received)));
    }

    async fn a_concurrent_expiry_and_payment_have_one_winner(db: Db) {
        let shop = Fixture::new(db, 20).await;
        let mut ids = Vec::new();
        for _ in 0..10 {
            let order = shop.create_order(shop.build_crypto_order(2)).await.unwrap().order;
            ids.push(find_newest_payment(&shop, &order).await);
        }
        let races = ids.iter().flat_map(|id| [PaymentChange::Paid(*id), PaymentChange::Expired(*id)]);
        join_all(races.map(|change| apply_changes(&shop, LATER, vec![change]))).await;
        let paid = shop.select_number("select count(*) from orders where state = 'paid'").await;
        let expired = shop.select_number("select count(*) from orders where state = 'expired'").await;
        assert_eq!(paid + expired, 10);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, paid);
        assert_eq!(i64::try_from(shop.count_available_items().await).unwrap(), 2 * expired);
        shop.assert_stock_counts().await;
    }
}

db::both! {
    /// The expected counts are exact, so that the test fails when a change adds a statement.
    async fn an_order_needs_one_statement_for_each_row_it_writes(db: Db) {
        let shop = Fixture::new(db, 10).await;
        // The first order leases a range of address indices, so that the second needs no lease.
        let first = shop.create_order(shop.build_crypto_order(1)).await.unwrap().order;
        let before = shop.db.counters();
        shop.create_order(shop.build_crypto_order(1)).await.unwrap();
        let after = shop.db.counters();
        let statements = match shop.db.backend() {
            // One statement each for the SKU, order, contact, event, payment, address, invoice, order line, stock count
            // and stock items.
            Backend::Sqlite => 10,
            // One for the SKU, and one for all queued statements.
            Backend::Postgres => 2,
        };
        assert_eq!(after.sql_statements - before.sql_statements, statements);
        assert_eq!((after.transactions - before.transactions, after.commits - before.commits), (1, 1));

        let id = first.public_id.parse().unwrap();
        let status = orders::find_order_status(&shop.db, shop.shop, SURFACE, id).await.unwrap().unwrap();
        assert_eq!((status.state, status.method), (State::AwaitingPayment, Method::Crypto));
        assert_eq!(shop.db.counters().sql_statements - after.sql_statements, 1);
    }
}

/// One step of the random test below. An index selects one of the existing orders.
#[derive(Debug, Clone)]
enum Step {
    Order { quantity: u32, with_coupon: bool, from_balance: bool },
    Pay(usize),
    Expire(usize),
    Cancel(usize),
    Reverse(usize),
    Deliver,
    Import(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u32..6, any::<bool>(), any::<bool>())
            .prop_map(|(quantity, with_coupon, from_balance)| Step::Order { quantity, with_coupon, from_balance }),
        2 => any::<usize>().prop_map(Step::Pay),
        2 => any::<usize>().prop_map(Step::Expire),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Reverse),
        1 => Just(Step::Deliver),
        1 => any::<u8>().prop_map(Step::Import),
    ]
}

/// Asserts the invariants that hold after every step. It queries the tables directly.
async fn assert_invariants(shop: &Fixture) {
    shop.assert_stock_counts().await;
    for (what, sql) in [
        (
            "each line has as many items as its quantity, reserved or delivered according to the state of its order",
            "select count(*) from order_lines l join orders o on o.id = l.order_id where
                (select count(*) from stock_items i where i.order_line_id = l.id and i.state = 'reserved') <>
                    case when o.state in ('awaiting_payment', 'paid', 'processing', 'failed') then l.quantity else 0 end
                or (select count(*) from stock_items i where i.order_line_id = l.id and i.state = 'delivered') <>
                    case when o.state = 'completed' then l.quantity else 0 end",
        ),
        (
            "the uses of a coupon are the orders that did not end unpaid",
            "select count(*) from coupons c where c.uses <> (select count(*) from orders o
                where o.coupon_id = c.id and o.state not in ('expired', 'cancelled'))",
        ),
        (
            "exactly the paid orders are scheduled for delivery, unless their payment was reversed",
            "select count(*) from orders o where (o.state in ('paid', 'processing') and not exists (
                    select 1 from reviews r where r.kind = 'payment.reversed' and r.subject = o.public_id
                        and r.closed_at is null)) <>
                (exists (select 1 from fulfilments f where f.order_id = o.id))",
        ),
        (
            "the original amount of an order is the sum of its lines",
            "select count(*) from orders o where o.original_amount <>
                (select sum(l.quantity * l.unit_price) from order_lines l where l.order_id = o.id)",
        ),
    ] {
        assert_eq!(shop.select_number(sql).await, 0, "{what}");
    }
}

async fn run_steps(steps: Vec<Step>) {
    let shop = Fixture::new(testing::open_migrated(Backend::Sqlite).await, 20).await;
    create_coupon(&shop, "ten", Discount::Percent(1_000)).await;
    let user = shop.create_user("ann").await;
    shop.credit_balance(&user, Currency::CNY, 2_000).await;
    let templates = std::sync::Arc::new(EmailTemplates { order_url: "https://shop.example.com".into() });
    let mut orders: Vec<Order> = Vec::new();
    for step in steps {
        let chosen = |n: usize| orders.get(n % orders.len().max(1)).cloned();
        match step {
            Step::Order { quantity, with_coupon, from_balance } => {
                let new = if from_balance {
                    shop.build_balance_order(quantity, &user)
                } else {
                    shop.build_crypto_order(quantity)
                };
                match shop.create_order(NewOrder { coupon: with_coupon.then(|| "ten".into()), ..new }).await {
                    Ok(created) => orders.push(created.order),
                    Err(
                        CreateOrderError::InsufficientStock
                        | CreateOrderError::InsufficientBalance
                        | CreateOrderError::CouponInvalid(CouponRefusal::Exhausted),
                    ) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Pay(n) | Step::Expire(n) | Step::Reverse(n) => {
                if let Some(order) = chosen(n) {
                    // Only a paid order can be reversed.
                    if matches!(step, Step::Reverse(_)) && load_state(&shop, &order).await.is_unpaid() {
                        continue;
                    }
                    let id = find_newest_payment(&shop, &order).await;
                    let change = match step {
                        Step::Pay(_) => PaymentChange::Paid(id),
                        Step::Expire(_) => PaymentChange::Expired(id),
                        Step::Reverse(_) | Step::Order { .. } | Step::Cancel(_) | Step::Deliver | Step::Import(_) => {
                            PaymentChange::Reversed(id)
                        }
                    };
                    apply_changes(&shop, LATER, vec![change]).await;
                }
            }
            Step::Cancel(n) => {
                if let Some(order) = chosen(n) {
                    let cancelled = shop
                        .db
                        .write("cancel", move |tx| Box::pin(orders::cancel_unpaid_order(tx, LATER, order.id)))
                        .await;
                    assert!(!matches!(cancelled, Err(CancelError::Db(_) | CancelError::NotFound)), "{cancelled:?}");
                }
            }
            Step::Deliver => {
                fulfilment::deliver_due_orders(&shop.db, LATER, &shop.envelope, &templates).await.unwrap();
            }
            Step::Import(n) => {
                shop.import_lines([usize::from(n)]).await;
            }
        }
        assert_invariants(&shop).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_invariants_hold_after_any_sequence_of_steps(steps in prop::collection::vec(any_step(), 1..40)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run_steps(steps));
    }
}
