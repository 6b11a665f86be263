use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, read, write};
use crate::fulfilment::{self, EmailTemplates, machine};
use crate::orders::{self, LineState, Order, OrderDetails, OrderLine, State};
use crate::stock;
use clock::Instant;
use envelope::Envelope;
use money::pricing::Currency;

fn letters() -> Arc<EmailTemplates> {
    Arc::new(EmailTemplates { order_url: "https://shop.example.com/orders".into() })
}

async fn deliver_at(shop: &Fixture, now: Instant) -> usize {
    fulfilment::deliver_due(&shop.db, now, &shop.envelope, &letters()).await.unwrap()
}

async fn paid_order(shop: &Fixture, quantity: u32) -> Order {
    let user = shop.user(&Uuid::new_v4().to_string()).await;
    shop.credit(user, Currency::CNY, 1_000_000).await;
    shop.create(shop.balance_order(quantity, user)).await.unwrap().order
}

async fn view(shop: &Fixture, order: &Order) -> OrderDetails {
    let number = order.order_no.clone();
    read(&shop.db, move |tx| Box::pin(async move { orders::find_by_number_or_id(tx, &number).await })).await.unwrap()
}

async fn lines(shop: &Fixture, order: &Order) -> Vec<OrderLine> {
    let order = order.clone();
    read(&shop.db, move |tx| Box::pin(async move { orders::list_lines(tx, &order).await })).await
}

/// What the buyer of an order gets to see.
async fn goods(shop: &Fixture, order: &Order) -> Option<Vec<String>> {
    let (order, lines) = (view(shop, order).await.order, lines(shop, order).await);
    let goods =
        read(&shop.db, move |tx| Box::pin(async move { orders::find_delivered_items(tx, &order, &lines).await }))
            .await?;
    Some(goods.iter().map(|item| stock::decrypt_item(&shop.envelope, item).unwrap().to_string()).collect())
}

async fn mail(shop: &Fixture) -> Vec<(String, String)> {
    read(&shop.db, |tx| {
        Box::pin(async move {
            let rows = db::rows!(tx, "select recipient, subject || body as text from mails order by id")?;
            rows.iter().map(|row| Ok((row.get("recipient")?, row.get("text")?))).collect()
        })
    })
    .await
}

db::both! {
    async fn a_paid_order_is_delivered_and_its_buyer_told(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = paid_order(&shop, 2).await;
        let waiting = shop.create(shop.order(1)).await.unwrap().order;
        assert_eq!(goods(&shop, &order).await, None);
        assert_eq!(deliver_at(&shop, NOW).await, 1);
        assert_eq!(deliver_at(&shop, NOW).await, 0);
        let found = view(&shop, &order).await;
        assert_eq!((found.order.state, found.order.closed_at), (State::Completed, Some(NOW)));
        assert_eq!(lines(&shop, &order).await[0].state, LineState::Delivered);
        let lines = goods(&shop, &order).await.unwrap();
        assert_eq!(lines, ["user0@example.org----pass0", "user1@example.org----pass1"]);
        let letters = mail(&shop).await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].0, "Ann@Example.com");
        assert!(letters[0].1.contains(&order.order_no) && letters[0].1.contains("https://shop.example.com/orders"));
        assert!(!letters[0].1.contains("pass0"));
        assert_eq!(view(&shop, &waiting).await.order.state, State::AwaitingPayment);
        assert_eq!(shop.count("select count(*) from events where kind = 'order.completed'").await, 1);
        assert_eq!(shop.count("select count(*) from fulfilments").await, 0);
        shop.assert_sound().await;
    }

    async fn several_deliverers_at_once_hand_out_every_item_once(db: Db) {
        let shop = Fixture::new(db, 60).await;
        let orders = join_all((0..20).map(|_| paid_order(&shop, 3))).await;
        let delivered: usize = join_all((0..6).map(|_| deliver_at(&shop, NOW))).await.iter().sum();
        assert_eq!(delivered, 20);
        let mut lines = Vec::new();
        for order in &orders {
            lines.extend(goods(&shop, order).await.unwrap());
        }
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 60);
        assert_eq!(mail(&shop).await.len(), 20);
        assert_eq!(shop.count("select count(*) from events where kind = 'order.completed'").await, 20);
        shop.assert_sound().await;
    }

    async fn what_fails_is_tried_again_and_given_up_in_the_end(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = paid_order(&shop, 2).await;
        let other = paid_order(&shop, 1).await;
        // One item of the order was changed by hand: it does not open any more.
        write(&shop.db, |tx| Box::pin(async move {
            db::execute!(tx, "update stock_items set ciphertext = $1 where id = (select min(id) from stock_items)", vec![7_u8])
        })).await;
        assert_eq!(deliver_at(&shop, NOW).await, 1);
        assert_eq!(view(&shop, &other).await.order.state, State::Completed);
        assert_eq!(view(&shop, &order).await.order.state, State::Processing);
        assert_eq!(goods(&shop, &order).await, None);
        assert_eq!(shop.count("select attempts from fulfilments").await, 1);
        // Not due yet: nothing is tried.
        assert_eq!(deliver_at(&shop, NOW.plus_ms(9_999)).await, 0);
        assert_eq!(shop.count("select attempts from fulfilments").await, 1);
        let mut now = NOW;
        for _ in 1..machine::ATTEMPTS_MAX {
            now = now.plus_seconds(3_600);
            assert_eq!(deliver_at(&shop, now).await, 0);
        }
        let found = view(&shop, &order).await;
        assert_eq!((found.order.state, lines(&shop, &order).await[0].state), (State::Failed, LineState::Failed));
        assert_eq!(shop.count("select count(*) from fulfilments").await, 0);
        assert_eq!(shop.count("select count(*) from reviews where kind = 'order.undeliverable'").await, 1);
        assert_eq!(shop.count("select count(*) from events where kind = 'order.failed'").await, 1);
        // The items stay with the order that was paid.
        assert_eq!(shop.count("select count(*) from stock_items where state = 'reserved'").await, 2);
        shop.assert_sound().await;
    }

    async fn an_item_that_its_key_refuses_is_damaged_and_waits_for_nobody(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = paid_order(&shop, 5).await;
        // All that is stored is the order's; one item was exchanged for what the same key sealed for something else.
        let other = shop.envelope.seal("something else", "sku:1", b"goods");
        write(&shop.db, move |tx| Box::pin(async move {
            db::execute!(tx, "update stock_items set ciphertext = $1 where id = (select min(id) from stock_items)", other)
        })).await;
        // The key is not there at first, which is waited for.
        fulfilment::deliver_due(&shop.db, NOW, &Arc::new(Envelope::generate()), &letters()).await.unwrap();
        let waiting = "select count(*) from reviews where kind = 'order.unreadable' and closed_at is null";
        assert_eq!((shop.count(waiting).await, shop.count("select attempts from fulfilments").await), (1, 0));
        let mut now = NOW;
        for _ in 0..machine::ATTEMPTS_MAX {
            assert_eq!(view(&shop, &order).await.order.state, State::Processing);
            now = now.plus_seconds(900);
            assert_eq!(deliver_at(&shop, now).await, 0);
        }
        assert_eq!(view(&shop, &order).await.order.state, State::Failed);
        assert_eq!(shop.count("select count(*) from fulfilments").await, 0);
        assert_eq!(shop.count("select count(*) from reviews where kind = 'order.undeliverable'").await, 1);
        assert_eq!(shop.count(waiting).await, 0, "nothing waits for a key any more");
        shop.assert_sound().await;
    }

    async fn a_lost_key_shows_before_an_order_is_complete(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let order = paid_order(&shop, 2).await;
        let foreign = Arc::new(Envelope::generate());
        let delivered = fulfilment::deliver_due(&shop.db, NOW, &foreign, &letters()).await.unwrap();
        assert_eq!((delivered, view(&shop, &order).await.order.state), (0, State::Processing));
        let waiting = "select count(*) from reviews where kind = 'order.unreadable' and closed_at is null";
        assert_eq!(shop.count(waiting).await, 1, "a person knows at once");
        // For ever, and no oftener than it helps.
        let mut now = NOW;
        for _ in 0..3 * machine::ATTEMPTS_MAX {
            assert_eq!(deliver_at(&shop, now.plus_seconds(899)).await, 0, "it is not due");
            now = now.plus_seconds(900);
            fulfilment::deliver_due(&shop.db, now, &foreign, &letters()).await.unwrap();
        }
        assert_eq!(view(&shop, &order).await.order.state, State::Processing);
        assert_eq!(deliver_at(&shop, now.plus_seconds(900)).await, 1);
        assert_eq!(goods(&shop, &order).await.unwrap().len(), 2);
        assert_eq!(shop.count(waiting).await, 0);
    }
}

/// Everything of a delivery is one commit: whatever interrupts it leaves the work where it was.
#[tokio::test]
async fn a_delivery_is_one_commit() {
    let shop = Fixture::new(db::testing::open_migrated(db::Backend::Sqlite).await, 5).await;
    paid_order(&shop, 2).await;
    let before = shop.db.counters().commits;
    assert_eq!(deliver_at(&shop, NOW).await, 1);
    assert_eq!(shop.db.counters().commits - before, 1);
}
