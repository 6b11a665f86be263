use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, run_read, run_write};
use crate::fulfilment::{self, EmailTemplates, retry_schedule};
use crate::orders::{self, LineState, Order, OrderDetails, OrderLine, State};
use crate::stock;
use clock::Instant;
use envelope::Envelope;
use money::pricing::Currency;

fn new_email_templates() -> Arc<EmailTemplates> {
    Arc::new(EmailTemplates { order_url: "https://shop.example.com/orders".into() })
}

async fn deliver_due_orders_at(shop: &Fixture, now: Instant) -> usize {
    fulfilment::deliver_due_orders(&shop.db, now, &shop.envelope, &new_email_templates()).await.unwrap()
}

async fn create_paid_order(shop: &Fixture, quantity: u32) -> Order {
    let user = shop.create_user(&Uuid::new_v4().to_string()).await;
    shop.credit_balance(&user, Currency::CNY, 1_000_000).await;
    shop.create_order(shop.build_balance_order(quantity, &user)).await.unwrap().order
}

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

/// Returns the delivered lines in plain text, as the buyer gets them; `None` before the delivery.
async fn load_delivered_lines(shop: &Fixture, order: &Order) -> Option<Vec<String>> {
    let (order, lines) = (find_details(shop, order).await.order, load_lines(shop, order).await);
    let items = run_read(&shop.db, move |tx| {
        Box::pin(async move { orders::find_sealed_items_if_delivered(tx, &order, &lines).await })
    })
    .await?;
    Some(items.iter().map(|item| stock::decrypt_stock_item(&shop.envelope, item).unwrap().to_string()).collect())
}

async fn list_queued_emails(shop: &Fixture) -> Vec<(String, String)> {
    run_read(&shop.db, |tx| {
        Box::pin(async move {
            let rows = db::rows!(tx, "select recipient, subject || body as text from mails order by id")?;
            rows.iter().map(|row| Ok((row.get("recipient")?, row.get("text")?))).collect()
        })
    })
    .await
}

db::both! {
    async fn a_paid_order_is_delivered_and_its_buyer_gets_an_email(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = create_paid_order(&shop, 2).await;
        let waiting = shop.create_order(shop.build_crypto_order(1)).await.unwrap().order;
        assert_eq!(load_delivered_lines(&shop, &order).await, None);
        assert_eq!(deliver_due_orders_at(&shop, NOW).await, 1);
        assert_eq!(deliver_due_orders_at(&shop, NOW).await, 0);
        let found = find_details(&shop, &order).await;
        assert_eq!((found.order.state, found.order.closed_at), (State::Completed, Some(NOW)));
        assert_eq!(load_lines(&shop, &order).await[0].state, LineState::Delivered);
        let lines = load_delivered_lines(&shop, &order).await.unwrap();
        assert_eq!(lines, ["user0@example.org----pass0", "user1@example.org----pass1"]);
        let emails = list_queued_emails(&shop).await;
        assert_eq!(emails.len(), 1);
        assert_eq!(emails[0].0, "Ann@Example.com");
        assert!(emails[0].1.contains(&order.order_no) && emails[0].1.contains("https://shop.example.com/orders"));
        assert!(!emails[0].1.contains("pass0"));
        assert_eq!(find_details(&shop, &waiting).await.order.state, State::AwaitingPayment);
        assert_eq!(shop.select_number("select count(*) from events where kind = 'order.completed'").await, 1);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 0);
        shop.assert_stock_counts().await;
    }

    async fn concurrent_deliveries_deliver_every_item_once(db: Db) {
        let shop = Fixture::new(db, 60).await;
        let orders = join_all((0..20).map(|_| create_paid_order(&shop, 3))).await;
        let delivered: usize = join_all((0..6).map(|_| deliver_due_orders_at(&shop, NOW))).await.iter().sum();
        assert_eq!(delivered, 20);
        let mut lines = Vec::new();
        for order in &orders {
            lines.extend(load_delivered_lines(&shop, order).await.unwrap());
        }
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 60);
        assert_eq!(list_queued_emails(&shop).await.len(), 20);
        assert_eq!(shop.select_number("select count(*) from events where kind = 'order.completed'").await, 20);
        shop.assert_stock_counts().await;
    }

    async fn a_failed_delivery_is_retried_until_the_order_fails(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = create_paid_order(&shop, 2).await;
        let other = create_paid_order(&shop, 1).await;
        // One item of the order was changed by hand and cannot be decrypted.
        run_write(&shop.db, |tx| Box::pin(async move {
            db::execute!(tx, "update stock_items set ciphertext = $1 where id = (select min(id) from stock_items)", vec![7_u8])
        })).await;
        assert_eq!(deliver_due_orders_at(&shop, NOW).await, 1);
        assert_eq!(find_details(&shop, &other).await.order.state, State::Completed);
        assert_eq!(find_details(&shop, &order).await.order.state, State::Processing);
        assert_eq!(load_delivered_lines(&shop, &order).await, None);
        assert_eq!(shop.select_number("select attempts from fulfilments").await, 1);
        // The next attempt is not due yet.
        assert_eq!(deliver_due_orders_at(&shop, NOW.plus_ms(9_999)).await, 0);
        assert_eq!(shop.select_number("select attempts from fulfilments").await, 1);
        let mut now = NOW;
        for _ in 1..retry_schedule::ATTEMPTS_MAX {
            now = now.plus_seconds(3_600);
            assert_eq!(deliver_due_orders_at(&shop, now).await, 0);
        }
        let found = find_details(&shop, &order).await;
        assert_eq!((found.order.state, load_lines(&shop, &order).await[0].state), (State::Failed, LineState::Failed));
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 0);
        assert_eq!(shop.select_number("select count(*) from reviews where kind = 'order.undeliverable'").await, 1);
        assert_eq!(shop.select_number("select count(*) from events where kind = 'order.failed'").await, 1);
        // The items stay reserved for the paid order.
        assert_eq!(shop.select_number("select count(*) from stock_items where state = 'reserved'").await, 2);
        shop.assert_stock_counts().await;
    }

    async fn an_order_with_a_damaged_item_fails_although_its_key_was_missing_once(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = create_paid_order(&shop, 5).await;
        // The order reserves all items. One of them is replaced by a ciphertext that the same key made for another
        // purpose.
        let other = shop.envelope.encrypt("something else", "sku:1", b"goods");
        run_write(&shop.db, move |tx| Box::pin(async move {
            db::execute!(tx, "update stock_items set ciphertext = $1 where id = (select min(id) from stock_items)", other)
        })).await;
        // The first attempt runs without the key, so the order waits.
        fulfilment::deliver_due_orders(&shop.db, NOW, &Arc::new(Envelope::generate()), &new_email_templates()).await.unwrap();
        let waiting = "select count(*) from reviews where kind = 'order.unreadable' and closed_at is null";
        assert_eq!((shop.select_number(waiting).await, shop.select_number("select attempts from fulfilments").await), (1, 0));
        let mut now = NOW;
        for _ in 0..retry_schedule::ATTEMPTS_MAX {
            assert_eq!(find_details(&shop, &order).await.order.state, State::Processing);
            now = now.plus_seconds(900);
            assert_eq!(deliver_due_orders_at(&shop, now).await, 0);
        }
        assert_eq!(find_details(&shop, &order).await.order.state, State::Failed);
        assert_eq!(shop.select_number("select count(*) from fulfilments").await, 0);
        assert_eq!(shop.select_number("select count(*) from reviews where kind = 'order.undeliverable'").await, 1);
        assert_eq!(shop.select_number(waiting).await, 0, "no order waits for a key");
        shop.assert_stock_counts().await;
    }

    async fn a_missing_key_is_noticed_before_the_order_completes(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = create_paid_order(&shop, 2).await;
        let foreign = Arc::new(Envelope::generate());
        let delivered = fulfilment::deliver_due_orders(&shop.db, NOW, &foreign, &new_email_templates()).await.unwrap();
        assert_eq!((delivered, find_details(&shop, &order).await.order.state), (0, State::Processing));
        let waiting = "select count(*) from reviews where kind = 'order.unreadable' and closed_at is null";
        assert_eq!(shop.select_number(waiting).await, 1, "the review is opened at the first failure");
        // The delivery is retried without limit, every 15 minutes.
        let mut now = NOW;
        for _ in 0..3 * retry_schedule::ATTEMPTS_MAX {
            assert_eq!(deliver_due_orders_at(&shop, now.plus_seconds(899)).await, 0, "the next attempt is not due");
            now = now.plus_seconds(900);
            fulfilment::deliver_due_orders(&shop.db, now, &foreign, &new_email_templates()).await.unwrap();
        }
        assert_eq!(find_details(&shop, &order).await.order.state, State::Processing);
        assert_eq!(deliver_due_orders_at(&shop, now.plus_seconds(900)).await, 1);
        assert_eq!(load_delivered_lines(&shop, &order).await.unwrap().len(), 2);
        assert_eq!(shop.select_number(waiting).await, 0);
    }
}

/// The delivery uses one transaction, so an interrupted delivery stays scheduled.
#[tokio::test]
async fn a_delivery_is_one_commit() {
    let shop = Fixture::new(db::testing::open_migrated(db::Backend::Sqlite).await, 5).await;
    create_paid_order(&shop, 2).await;
    let before = shop.db.counters().commits;
    assert_eq!(deliver_due_orders_at(&shop, NOW).await, 1);
    assert_eq!(shop.db.counters().commits - before, 1);
}
