use futures_util::future::join_all;

use crate::fixture::{Fixture, NOW, OPERATOR, run_read, run_write};
use crate::orders::CreateOrderError;
use crate::stock::{self, ImportError, ImportResult, KeyInUse, ReserveError};
use clock::Instant;
use envelope::{DecryptError, Envelope};
use ids::{LineId, StockItemId};

async fn reserve_for_line(shop: &Fixture, line: i64, quantity: u32) -> Result<(), ReserveError> {
    let sku = shop.sku;
    let reserved = shop.db.write("reserve", move |tx| {
        Box::pin(async move {
            let reserved = stock::queue_item_reservation(tx, sku, LineId(line), quantity);
            tx.run_queued().await?;
            reserved.ensure_fully_reserved(tx)
        })
    });
    reserved.await
}

db::both! {
    async fn a_duplicate_line_is_imported_once(db: Db) {
        let shop = Fixture::new(db, 0).await;
        assert_eq!(shop.import_lines([1, 2, 2, 3]).await, ImportResult { added: 3, duplicates: 1 });
        assert_eq!(shop.import_lines([3, 4]).await, ImportResult { added: 1, duplicates: 1 });
        assert_eq!(shop.count_available_items().await, 4);
        shop.assert_stock_counts().await;
    }

    async fn a_reservation_covers_the_whole_quantity_or_fails(db: Db) {
        let shop = Fixture::new(db, 5).await;
        reserve_for_line(&shop, 1, 3).await.unwrap();
        assert!(matches!(reserve_for_line(&shop, 2, 3).await, Err(ReserveError::Insufficient)));
        assert_eq!(shop.count_available_items().await, 2);
        reserve_for_line(&shop, 3, 2).await.unwrap();
        assert_eq!(shop.count_available_items().await, 0);
        let sku = shop.sku;
        run_write(&shop.db, move |tx| Box::pin(stock::release_reserved_items(tx, sku, LineId(1), 3))).await;
        assert_eq!(shop.count_available_items().await, 3);
        shop.assert_stock_counts().await;
    }

    async fn delivered_items_decrypt_to_the_imported_lines(db: Db) {
        let shop = Fixture::new(db, 4).await;
        reserve_for_line(&shop, 7, 3).await.unwrap();
        let delivered = run_write(&shop.db, |tx| Box::pin(stock::mark_reserved_items_delivered(tx, LineId(7)))).await;
        assert_eq!(delivered.len(), 3);
        assert!(run_write(&shop.db, |tx| Box::pin(stock::mark_reserved_items_delivered(tx, LineId(7)))).await.is_empty());
        let listed = run_read(&shop.db, |tx| Box::pin(stock::list_delivered_items(tx, LineId(7)))).await;
        let opened: Vec<String> = listed.iter().map(|item| stock::decrypt_stock_item(&shop.envelope, item).unwrap().to_string()).collect();
        let expected: Vec<String> = (0..3).map(|n| format!("user{n}@example.org----pass{n}")).collect();
        assert_eq!(opened, expected);
        assert_eq!(shop.count_available_items().await, 1);
        shop.assert_stock_counts().await;
    }

    async fn a_missing_key_has_an_open_review_until_it_is_restored(db: Db) {
        let shop = Fixture::new(db, 3).await;
        let review_keys = || {
            let envelope = shop.envelope.clone();
            run_write(&shop.db, move |tx| Box::pin(async move { stock::sync_missing_key_reviews(tx, NOW, &envelope).await }))
        };
        let open = "select count(*) from reviews where kind = 'stock.unreadable' and closed_at is null";
        assert_eq!(review_keys().await, []);
        let replace = |sealed: Vec<u8>| {
            run_write(&shop.db, move |tx| Box::pin(async move {
                let item = "update stock_items set ciphertext = $1 where id = (select max(id) from stock_items)";
                tx.execute(item, vec![sealed.into()]).await
            }))
        };
        // This ciphertext names key 9, which the key ring does not have.
        replace([vec![1, 0, 0, 0, 9], vec![0; 40]].concat()).await;
        assert_eq!(review_keys().await, [KeyInUse { id: 9, error: Some(DecryptError::UnknownKey(9)) }]);
        assert_eq!(shop.select_number(open).await, 1);
        // Another key ring has a key 1 too, but with other key bytes.
        let foreign = Envelope::generate();
        let keys = run_read(&shop.db, move |tx| Box::pin(async move { stock::list_and_test_stock_keys(tx, &foreign).await })).await;
        let expected = [(1, Some(DecryptError::NotAuthentic)), (9, Some(DecryptError::UnknownKey(9)))];
        assert_eq!(keys, expected.map(|(id, error)| KeyInUse { id, error }));
        // A malformed ciphertext names no key, so no key is listed for it.
        replace(vec![7]).await;
        assert_eq!(review_keys().await, []);
    }

    async fn a_key_is_tried_on_undelivered_items_first(db: Db) {
        let shop = Fixture::new(db, 4).await;
        let list_keys = || {
            let envelope = shop.envelope.clone();
            run_read(&shop.db, move |tx| Box::pin(async move { stock::list_and_test_stock_keys(tx, &envelope).await }))
        };
        let change = |sql: &'static str| run_write(&shop.db, move |tx| Box::pin(async move { db::execute!(tx, sql) }));
        let readable = [KeyInUse { id: 1, error: None }];
        reserve_for_line(&shop, 7, 2).await.unwrap();
        // The oldest item is damaged.
        run_write(&shop.db, |tx| Box::pin(async move {
            let damaged = [vec![1, 0, 0, 0, 1], vec![0; 40]].concat();
            db::execute!(tx, "update stock_items set ciphertext = $1 where id = (select min(id) from stock_items)", damaged)
        })).await;
        assert_eq!(list_keys().await, readable, "other items are in stock");
        change("update stock_items set state = 'withdrawn' where state = 'in_stock'").await;
        assert_eq!(list_keys().await, readable, "the newest reserved item is tried");
        change("update stock_items set state = 'delivered' where state = 'reserved' and id > (select min(id) from stock_items)").await;
        assert_eq!(list_keys().await, [KeyInUse { id: 1, error: Some(DecryptError::NotAuthentic) }], "the reserved item is tried before delivered ones");
    }

    async fn only_an_item_in_stock_can_be_withdrawn(db: Db) {
        let shop = Fixture::new(db, 2).await;
        reserve_for_line(&shop, 1, 1).await.unwrap();
        let withdraw = |id: i64| run_write(&shop.db, move |tx| Box::pin(stock::withdraw_stock_item(tx, NOW, &OPERATOR, StockItemId(id))));
        let (reserved, free) = (shop.select_number("select min(id) from stock_items").await, shop.select_number("select max(id) from stock_items").await);
        assert!(!withdraw(reserved).await);
        assert!(withdraw(free).await);
        assert!(!withdraw(free).await);
        assert!(!withdraw(999_999).await);
        assert_eq!(shop.count_available_items().await, 0);
        assert_eq!(shop.import_lines([1]).await, ImportResult { added: 0, duplicates: 1 });
        shop.assert_stock_counts().await;
    }

    async fn staged_items_are_sold_when_their_import_is_published(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let (sku, first, second) = (shop.sku, NOW, Instant(NOW.0 + 1));
        let stage = async |import_at: Instant, lines: &[&str]| {
            let items = stock::validate_and_encrypt_lines(&shop.envelope, sku, lines.iter().copied()).unwrap();
            run_write(&shop.db, move |tx| Box::pin(stock::stage_items_skipping_duplicates(tx, sku, import_at, items))).await
        };
        let publish = async |import_at: Instant| {
            run_write(&shop.db, move |tx| Box::pin(stock::publish_staged_items(tx, NOW, &OPERATOR, "mailbox", sku, import_at))).await
        };
        assert_eq!(stage(first, &["a", "b", "a"]).await, ImportResult { added: 2, duplicates: 1 });
        assert_eq!(shop.count_available_items().await, 0);
        assert!(matches!(reserve_for_line(&shop, 1, 1).await, Err(ReserveError::Insufficient)));
        // The first import was interrupted. The second one has its items, so none is lost.
        assert_eq!(stage(second, &["b", "c"]).await, ImportResult { added: 2, duplicates: 0 });
        assert_eq!(publish(second).await, 2);
        assert_eq!(shop.count_available_items().await, 2);
        assert_eq!(publish(first).await, 1, "the item that the second import did not have");
        assert_eq!(stage(second, &["a", "d"]).await, ImportResult { added: 1, duplicates: 1 });
        assert_eq!(run_write(&shop.db, move |tx| Box::pin(stock::delete_staged_items(tx, sku, second))).await, 1);
        assert_eq!(publish(second).await, 0);
        assert_eq!(shop.count_available_items().await, 3);
        shop.assert_stock_counts().await;
    }

    async fn a_count_changed_by_hand_is_listed_as_a_mismatch(db: Db) {
        let shop = Fixture::new(db, 2).await;
        run_write(&shop.db, |tx| Box::pin(async move { db::execute!(tx, "update skus set available = 9") })).await;
        let found = run_read(&shop.db, |tx| Box::pin(stock::list_stock_count_mismatches(tx))).await;
        assert_eq!(found, [stock::CountMismatch { sku: shop.sku, available: 9, in_stock: 2 }]);
    }

    async fn fifty_concurrent_buyers_get_the_last_twenty_items(db: Db) {
        let shop = Fixture::new(db, 20).await;
        let outcomes = join_all((0..50).map(|_| shop.create_order(shop.build_crypto_order(1)))).await;
        let rejected = outcomes.iter().filter(|outcome| matches!(outcome, Err(CreateOrderError::InsufficientStock))).count();
        assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), rejected), (20, 30));
        assert_eq!(shop.count_available_items().await, 0);
        assert_eq!(shop.select_number("select count(*) from orders").await, 20);
        assert_eq!(shop.select_number("select count(distinct order_line_id) from stock_items where state = 'reserved'").await, 20);
        assert_eq!(shop.watched.len(), 20);
        shop.assert_stock_counts().await;
    }

    async fn concurrent_imports_and_orders_keep_the_count_correct(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let imports = join_all((0..10).map(|n| shop.import_lines((n * 5)..(n * 5 + 10))));
        let orders = join_all((0..20).map(|_| shop.create_order(shop.build_crypto_order(2))));
        let (_, orders) = futures_util::join!(imports, orders);
        let sold = orders.iter().filter(|order| order.is_ok()).count();
        assert_eq!(usize::try_from(shop.count_available_items().await).unwrap(), 55 - 2 * sold);
        shop.assert_stock_counts().await;
    }
}

#[test]
fn invalid_lines_are_rejected() {
    let envelope = envelope::Envelope::generate();
    let seal = |lines: &[&str]| {
        stock::validate_and_encrypt_lines(&envelope, ids::SkuId(1), lines.iter().copied()).map(|sealed| sealed.len())
    };
    assert!(matches!(seal(&["a", " "]), Err(ImportError::BadLine { number: 2, .. })));
    assert!(matches!(seal(&[&"x".repeat(stock::LINE_BYTES_MAX + 1)]), Err(ImportError::BadLine { number: 1, .. })));
    assert!(matches!(seal(&vec!["a"; stock::IMPORT_LINES_MAX + 1]), Err(ImportError::TooMany { .. })));
    assert_eq!(seal(&["a", " b ", "b"]).unwrap(), 3);
    assert_eq!(stock::trim_and_validate_line("\u{feff} key\u{feff}\t"), Ok("key"));
}
