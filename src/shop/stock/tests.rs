use futures_util::future::join_all;

use crate::fixture::{Fixture, NOW, read, write};
use crate::orders::CreateError;
use crate::stock::{self, ImportError, ImportResult, KeyInUse, ReserveError};
use db::Batch;
use envelope::{Envelope, OpenError};
use ids::{LineId, StockItemId};

async fn reserve(shop: &Fixture, line: i64, quantity: u32) -> Result<(), ReserveError> {
    let sku = shop.sku;
    let reserved = shop.db.write("reserve", move |tx| {
        Box::pin(async move {
            let mut links = Batch::default();
            let reserved = stock::reserve(&mut links, sku, LineId(line), quantity);
            reserved.ensure_complete(&tx.run_batch(links).await?)
        })
    });
    reserved.await
}

db::both! {
    async fn the_same_line_is_imported_once(db: Db) {
        let shop = Fixture::new(db, 0).await;
        assert_eq!(shop.import([1, 2, 2, 3]).await, ImportResult { added: 3, duplicates: 1 });
        assert_eq!(shop.import([3, 4]).await, ImportResult { added: 1, duplicates: 1 });
        assert_eq!(shop.stock().await, 4);
        shop.assert_sound().await;
    }

    async fn a_reservation_is_whole_or_not_at_all(db: Db) {
        let shop = Fixture::new(db, 5).await;
        reserve(&shop, 1, 3).await.unwrap();
        assert!(matches!(reserve(&shop, 2, 3).await, Err(ReserveError::Insufficient)));
        assert_eq!(shop.stock().await, 2);
        reserve(&shop, 3, 2).await.unwrap();
        assert_eq!(shop.stock().await, 0);
        let sku = shop.sku;
        write(&shop.db, move |tx| Box::pin(stock::release(tx, sku, LineId(1), 3))).await;
        assert_eq!(shop.stock().await, 3);
        shop.assert_sound().await;
    }

    async fn what_is_delivered_opens_once_imported_lines_again(db: Db) {
        let shop = Fixture::new(db, 4).await;
        reserve(&shop, 7, 3).await.unwrap();
        let given = write(&shop.db, |tx| Box::pin(stock::deliver(tx, LineId(7)))).await;
        assert_eq!(given.len(), 3);
        assert!(write(&shop.db, |tx| Box::pin(stock::deliver(tx, LineId(7)))).await.is_empty());
        let listed = read(&shop.db, |tx| Box::pin(stock::list_delivered(tx, LineId(7)))).await;
        let opened: Vec<String> = listed.iter().map(|item| stock::decrypt_item(&shop.envelope, item).unwrap().to_string()).collect();
        let expected: Vec<String> = (0..3).map(|n| format!("user{n}@example.org----pass{n}")).collect();
        assert_eq!(opened, expected);
        assert_eq!(shop.stock().await, 1);
        shop.assert_sound().await;
    }

    async fn a_key_that_is_not_there_is_named_until_it_is_back(db: Db) {
        let shop = Fixture::new(db, 3).await;
        let reviewed = || {
            let envelope = shop.envelope.clone();
            write(&shop.db, move |tx| Box::pin(async move { stock::review_missing_keys(tx, NOW, &envelope).await }))
        };
        let open = "select count(*) from reviews where kind = 'stock.unreadable' and closed_at is null";
        assert_eq!(reviewed().await, []);
        let replace = |sealed: Vec<u8>| {
            write(&shop.db, move |tx| Box::pin(async move {
                let item = "update stock_items set ciphertext = $1 where id = (select max(id) from stock_items)";
                tx.execute(item, vec![sealed.into()]).await
            }))
        };
        // Sealed under key 9.
        replace([vec![1, 0, 0, 0, 9], vec![0; 40]].concat()).await;
        assert_eq!(reviewed().await, [KeyInUse { id: 9, error: Some(OpenError::UnknownKey(9)) }]);
        assert_eq!(shop.count(open).await, 1);
        // A ring of somebody else has a key 1, too, and it is another one.
        let foreign = Envelope::generate();
        let keys = read(&shop.db, move |tx| Box::pin(async move { stock::list_keys_in_use(tx, &foreign).await })).await;
        let expected = [(1, Some(OpenError::Refused)), (9, Some(OpenError::UnknownKey(9)))];
        assert_eq!(keys, expected.map(|(id, error)| KeyInUse { id, error }));
        // Nothing that was sealed at all is no question of a key.
        replace(vec![7]).await;
        assert_eq!(reviewed().await, []);
    }

    async fn a_key_is_tried_on_what_is_still_to_be_handed_out(db: Db) {
        let shop = Fixture::new(db, 4).await;
        let tried = || {
            let envelope = shop.envelope.clone();
            read(&shop.db, move |tx| Box::pin(async move { stock::list_keys_in_use(tx, &envelope).await }))
        };
        let change = |sql: &'static str| write(&shop.db, move |tx| Box::pin(async move { db::execute!(tx, sql) }));
        let readable = [KeyInUse { id: 1, error: None }];
        reserve(&shop, 7, 2).await.unwrap();
        // The key refuses the oldest item.
        write(&shop.db, |tx| Box::pin(async move {
            let damaged = [vec![1, 0, 0, 0, 1], vec![0; 40]].concat();
            db::execute!(tx, "update stock_items set ciphertext = $1 where id = (select min(id) from stock_items)", damaged)
        })).await;
        assert_eq!(tried().await, readable, "others are in stock");
        change("update stock_items set state = 'withdrawn' where state = 'in_stock'").await;
        assert_eq!(tried().await, readable, "of what is reserved, the newest");
        change("update stock_items set state = 'delivered' where state = 'reserved' and id > (select min(id) from stock_items)").await;
        assert_eq!(tried().await, [KeyInUse { id: 1, error: Some(OpenError::Refused) }], "what was sold counts first");
    }

    async fn only_what_is_in_stock_is_withdrawn(db: Db) {
        let shop = Fixture::new(db, 2).await;
        reserve(&shop, 1, 1).await.unwrap();
        let withdraw = |id: i64| write(&shop.db, move |tx| Box::pin(stock::withdraw(tx, StockItemId(id))));
        let (reserved, free) = (shop.count("select min(id) from stock_items").await, shop.count("select max(id) from stock_items").await);
        assert!(!withdraw(reserved).await);
        assert!(withdraw(free).await);
        assert!(!withdraw(free).await);
        assert!(!withdraw(999_999).await);
        assert_eq!(shop.stock().await, 0);
        assert_eq!(shop.import([1]).await, ImportResult { added: 0, duplicates: 1 });
        shop.assert_sound().await;
    }

    async fn an_audit_finds_what_was_changed_by_hand(db: Db) {
        let shop = Fixture::new(db, 2).await;
        write(&shop.db, |tx| Box::pin(async move { db::execute!(tx, "update skus set available = 9") })).await;
        let found = read(&shop.db, |tx| Box::pin(stock::list_count_mismatches(tx))).await;
        assert_eq!(found, [stock::CountMismatch { sku: shop.sku, available: 9, in_stock: 2 }]);
    }

    async fn fifty_buyers_of_the_last_twenty_items(db: Db) {
        let shop = Fixture::new(db, 20).await;
        let outcomes = join_all((0..50).map(|_| shop.create(shop.order(1)))).await;
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(CreateError::InsufficientStock))).count();
        assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), refused), (20, 30));
        assert_eq!(shop.stock().await, 0);
        assert_eq!(shop.count("select count(*) from orders").await, 20);
        assert_eq!(shop.count("select count(distinct order_line_id) from stock_items where state = 'reserved'").await, 20);
        assert_eq!(shop.watched.len(), 20);
        shop.assert_sound().await;
    }

    async fn imports_and_orders_at_once_keep_the_count(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let imports = join_all((0..10).map(|n| shop.import((n * 5)..(n * 5 + 10))));
        let orders = join_all((0..20).map(|_| shop.create(shop.order(2))));
        let (_, orders) = futures_util::join!(imports, orders);
        let sold = orders.iter().filter(|order| order.is_ok()).count();
        assert_eq!(usize::try_from(shop.stock().await).unwrap(), 55 - 2 * sold);
        shop.assert_sound().await;
    }
}

#[test]
fn lines_that_cannot_be_sold_are_refused() {
    let envelope = envelope::Envelope::generate();
    let seal = |lines: &[&str]| {
        stock::encrypt_lines(&envelope, ids::SkuId(1), lines.iter().copied()).map(|sealed| sealed.len())
    };
    assert!(matches!(seal(&["a", " "]), Err(ImportError::BadLine { number: 2 })));
    assert!(matches!(seal(&[&"x".repeat(stock::LINE_BYTES_MAX + 1)]), Err(ImportError::BadLine { number: 1 })));
    assert!(matches!(seal(&vec!["a"; stock::IMPORT_MAX + 1]), Err(ImportError::TooMany { .. })));
    assert_eq!(seal(&["a", " b ", "b"]).unwrap(), 3);
}
