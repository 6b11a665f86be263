//! The rows that the statements of the shop read in large tables, with statistics of the planner and without.

use clock::Instant;
use db::testing::{TestDatabase, count_postgres_rows_read, take_sqlite_steps};
use db::{Backend, Bind, Config, Db, batch_row};
use money::pricing::Currency;
use uuid::Uuid;

use crate::catalog::{self, LocalizedTexts, NewProduct, PricingScheme};
use crate::fixture::{Fixture, NOW, SURFACE, new_mailbox_product, run_write};
use crate::orders;

/// The number of old rows in each table.
const OLD: i64 = 5_000;
/// The number of orders that are created and read.
const ORDERS: usize = 20;
/// The maximum number of rows and index entries of one table that [`ORDERS`] orders may read on PostgreSQL. It is far below
/// the number that one statement reads when it walks over all old rows.
const ROWS_READ_MAX: i64 = 2_000;
/// The maximum number of steps of one statement on SQLite. A walk over the old rows takes several steps for each row.
const STEPS_MAX: u32 = 3_000;

/// Opens the database with a single connection, because each connection of PostgreSQL reports its own work.
async fn open_with_one_connection(database: &TestDatabase) -> Db {
    Db::open(&Config { pg_pool: 1, ..database.config() }).await.unwrap()
}

/// Fills the shop as years of sales do: products, sold items that are older than those in stock, and completed orders of
/// the same merchant.
async fn fill_with_old_rows(shop: &Fixture) {
    let (owner, sku) = (shop.shop, shop.sku);
    run_write(&shop.db, move |tx| {
        Box::pin(async move {
            for number in 0..OLD / 10 {
                let new = NewProduct {
                    slug: format!("old-{number}"),
                    texts: LocalizedTexts::default(),
                    ..new_mailbox_product(Uuid::new_v4())
                };
                catalog::create_product_without_stock(tx, NOW, owner, new).await.unwrap();
            }
            let digest = |n: i64| [[0; 24].as_slice(), &n.to_be_bytes()].concat();
            let sold = (1..=OLD).map(|n| batch_row![digest(n), n, Instant(n)]).collect();
            let insert = "with given (digest bytea, line bigint, at bigint)
                insert into stock_items (sku_id, state, order_line_id, ciphertext, digest, imported_at)
                select $1, 'delivered', given.line, $2, given.digest, given.at from given";
            tx.execute_for_each(insert, sold, vec![Bind::from(sku), vec![1_u8, 0, 0, 0, 1, 9].into()]).await?;
            let old = (1..=OLD).map(|n| batch_row![Uuid::new_v4().to_string(), format!("CO{n}")]).collect();
            let insert = "with given (public_id text, order_no text)
                insert into orders (public_id, order_no, merchant_id, mode, surface, state, currency, original_amount,
                    discount_amount, amount, created_at, closed_at)
                select given.public_id, given.order_no, $1, $2, 'checkout', 'completed', 'CNY', 50, 0, 50, $3, $3
                from given";
            tx.execute_for_each(insert, old, vec![owner.merchant.into(), owner.mode.into(), NOW.into()]).await?;
            for insert in [
                "insert into order_contacts (order_id, email, normalized_email)
                    select id, 'old@example.com', 'old@example.com' from orders where state = 'completed'",
                "insert into order_lines (order_id, line_no, sku_id, quantity, unit_price, state)
                    select o.id, 1, s.id, 1, 50, 'delivered' from orders o, skus s
                    where o.state = 'completed' and s.id = (select min(id) from skus)",
                "insert into payments (public_id, order_id, merchant_id, mode, method, state, created_at, closed_at)
                    select public_id, id, merchant_id, mode, 'alipay', 'succeeded', created_at, created_at from orders
                    where state = 'completed'",
            ] {
                db::execute!(tx, insert)?;
            }
            Ok(())
        })
    })
    .await;
}

/// Creates orders, reads their status, looks them up, delivers nothing and cancels them.
async fn create_read_and_cancel_orders(shop: &Fixture) {
    for _ in 0..ORDERS {
        let order = shop.create_order(shop.build_crypto_order(2)).await.unwrap().order;
        let id: Uuid = order.public_id.parse().unwrap();
        let status = orders::find_order_status(&shop.db, shop.shop, SURFACE, id).await.unwrap();
        assert_eq!(status.unwrap().state, orders::State::AwaitingPayment);
        let (owner, product) = (shop.shop, shop.product_id);
        run_write(&shop.db, move |tx| {
            Box::pin(async move {
                let (number, email) = (&order.order_no, "ann@example.com");
                let found = orders::find_order_by_number_and_email(tx, owner, SURFACE, number, email).await?;
                assert_eq!(found.unwrap().order.id, order.id);
                let scheme = PricingScheme::Tiered;
                let sku = catalog::find_orderable_sku(tx, owner, Currency::CNY, product, 2, scheme).await?;
                assert!(sku.is_some());
                let id = product.to_string();
                assert!(catalog::find_product_in_any_state(tx, owner, &id).await?.is_some());
                assert!(catalog::find_priced_product_in_any_state(tx, owner, Currency::CNY, &id).await?.is_some());
                orders::cancel_unpaid_order(tx, NOW, order.id).await.unwrap();
                Ok(())
            })
        })
        .await;
    }
}

#[tokio::test]
async fn postgres_reads_few_rows_with_statistics_and_without() {
    for analysed in [false, true] {
        let database = TestDatabase::new(Backend::Postgres).await;
        let db = open_with_one_connection(&database).await;
        let shop = Fixture::new(db, 100).await;
        fill_with_old_rows(&shop).await;
        if analysed {
            run_write(&shop.db, |tx| Box::pin(async move { db::execute!(tx, "analyze") })).await;
        }
        let before = count_postgres_rows_read(&shop.db).await;
        create_read_and_cancel_orders(&shop).await;
        let after = count_postgres_rows_read(&shop.db).await;
        assert!(after["stock_items"] > before["stock_items"], "the work is counted");
        for (table, rows) in &after {
            // Without statistics, PostgreSQL may read the few pages of these two small tables as a whole.
            if !analysed && ["products", "skus"].contains(&table.as_str()) {
                continue;
            }
            let read = rows - before.get(table).unwrap_or(&0);
            assert!(read <= ROWS_READ_MAX, "{read} rows of {table} were read; analysed: {analysed}");
        }
    }
}

#[tokio::test]
async fn sqlite_takes_few_steps_with_statistics_and_without() {
    for analysed in [false, true] {
        let shop = Fixture::new(db::testing::open_migrated(Backend::Sqlite).await, 100).await;
        fill_with_old_rows(&shop).await;
        if analysed {
            run_write(&shop.db, |tx| Box::pin(async move { db::execute!(tx, "analyze") })).await;
        }
        let _filling = take_sqlite_steps();
        create_read_and_cancel_orders(&shop).await;
        let steps = take_sqlite_steps();
        assert!(steps.len() > 10, "the work is counted: {steps:?}");
        for (statement, steps) in steps {
            assert!(steps <= STEPS_MAX, "{steps} steps; analysed: {analysed}: {statement}");
        }
    }
}
