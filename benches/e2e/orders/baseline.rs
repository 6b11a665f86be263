//! The baseline: writes only the rows that an order needs, each order in its own commit: order, contact, line, the count of
//! the SKU, the reserved item, event, payment, the counter of the account, address, invoice.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

/// The number of connections, as in the daemon.
const CONNECTIONS: u32 = 16;
const NOW: i64 = 1_770_811_200_000;

pub struct Sqlite {
    connection: Connection,
    item: i64,
}

impl Sqlite {
    pub fn new(connection: Connection) -> Sqlite {
        Sqlite { connection, item: 0 }
    }

    /// Inserts orders and returns the time per order.
    pub fn orders(&mut self, count: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.connection.execute_batch("begin immediate").expect("the transaction begins");
            self.order().expect("the rows are valid");
            self.connection.execute_batch("commit").expect("the transaction commits");
        }
        start.elapsed() / count
    }

    fn order(&mut self) -> rusqlite::Result<()> {
        self.item += 1;
        let (item, id) = (self.item, uuid::Uuid::new_v4());
        let (text, key) = (id.to_string(), [id.as_bytes(), &[0; 4][..]].concat());
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            self.connection.prepare_cached(sql)?.execute(values)?;
            Ok::<i64, rusqlite::Error>(self.connection.last_insert_rowid())
        };
        let order = run(
            "insert into orders (public_id, order_no, merchant_id, mode, surface, state, currency, original_amount,
             discount_amount, amount, created_at, expires_at)
             values (?1, ?1, 1, 'test', 'checkout', 'awaiting_payment', 'CNY', 724, 0, 724, ?2, ?2)",
            &[&text, &NOW],
        )?;
        run(
            "insert into order_contacts (order_id, email, normalized_email) values (?1, 'a@example.com', 'a@example.com')",
            &[&order],
        )?;
        let line = run(
            "insert into order_lines (order_id, line_no, sku_id, quantity, unit_price, state)
             values (?1, 1, 1, 1, 724, 'pending')",
            &[&order],
        )?;
        run("update skus set available = available - 1 where id = 1", &[])?;
        run("update stock_items set state = 'reserved', order_line_id = ?2 where id = ?1", &[&item, &line])?;
        run(
            "insert into events (merchant_id, mode, kind, subject, payload, occurred_at)
             values (1, 'test', 'order.created', ?1, '{\"order_id\":\"00000000-0000-0000-0000-000000000000\"}', ?2)",
            &[&text, &NOW],
        )?;
        let payment = run(
            "insert into payments (public_id, order_id, merchant_id, mode, method, state, created_at)
             values (?1, ?2, 1, 'test', 'crypto', 'pending', ?3)",
            &[&text, &order, &NOW],
        )?;
        run("update address_accounts set next_index = next_index + 1 where id = 1", &[])?;
        let address = run(
            "insert into addresses (chain, key, text, account_id, derivation_index, issued_at) values ('ethereum', ?1, ?2, 1, ?3, ?4)",
            &[&key, &text, &item, &NOW],
        )?;
        run(
            "insert into invoices (public_id, payment_id, merchant_id, mode, chain, asset, address_id, state, amount_due,
             tolerance, currency, price, rate, rate_source, rated_at, confirmations, created_at, expires_at, settlement_count)
             values (?1, ?2, 1, 'test', 'ethereum', 'ethereum/0xdAC17F958D2ee523a2206206994597C13D831ec7', ?3, 'open',
             zeroblob(32), zeroblob(32), 'CNY', 724, '7.24', 'fixed', ?4, 12, ?4, ?4, 0)",
            &[&text, &payment, &address, &NOW],
        )?;
        Ok(())
    }
}

const ORDER: &str = "with o as (insert into orders (public_id, order_no, merchant_id, mode, surface, state, currency,
        original_amount, discount_amount, amount, created_at, expires_at)
        values ($1, $1, 1, 'test', 'checkout', 'awaiting_payment', 'CNY', 724, 0, 724, $4, $4) returning id),
    c as (insert into order_contacts (order_id, email, normalized_email) select id, 'a@example.com', 'a@example.com' from o),
    l as (insert into order_lines (order_id, line_no, sku_id, quantity, unit_price, state)
        select id, 1, 1, 1, 724, 'pending' from o returning id),
    k as (update skus set available = available - 1 where id = 1),
    t as (update stock_items set state = 'reserved', order_line_id = l.id from l where stock_items.id = $3),
    e as (insert into events (merchant_id, mode, kind, subject, payload, occurred_at)
        values (1, 'test', 'order.created', $1, '{\"order_id\":\"00000000-0000-0000-0000-000000000000\"}', $4)),
    p as (insert into payments (public_id, order_id, merchant_id, mode, method, state, created_at)
        select $1, id, 1, 'test', 'crypto', 'pending', $4 from o returning id),
    x as (update address_accounts set next_index = next_index + 1 where id = 1),
    a as (insert into addresses (chain, key, text, account_id, derivation_index, issued_at)
        values ('ethereum', $2, $1, 1, $3, $4) returning id)
    insert into invoices (public_id, payment_id, merchant_id, mode, chain, asset, address_id, state, amount_due, tolerance,
        currency, price, rate, rate_source, rated_at, confirmations, created_at, expires_at, settlement_count)
    select $1, p.id, 1, 'test', 'ethereum', 'ethereum/0xdAC17F958D2ee523a2206206994597C13D831ec7', a.id, 'open',
        decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), 'CNY', 724, '7.24', 'fixed', $4, 12, $4, $4, 0
    from p, a";

pub struct Postgres {
    connections: Vec<PgConnection>,
    item: i64,
}

impl Postgres {
    pub async fn connect(url: &str) -> Postgres {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(PgConnection::connect(url).await.expect("the database opens"));
        }
        Postgres { connections, item: 0 }
    }

    /// Inserts orders, one statement each, on all connections concurrently. Returns the wall time divided by the number of
    /// orders.
    pub async fn orders(&mut self, count: u32) -> Duration {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            let first = self.item + 1;
            self.item += i64::from(count / CONNECTIONS);
            let last = self.item;
            tasks.spawn(async move {
                for item in first..=last {
                    order(&mut connection, item).await;
                }
                connection
            });
        }
        self.connections = tasks.join_all().await;
        start.elapsed() / count
    }
}

async fn order(connection: &mut PgConnection, item: i64) {
    let id = uuid::Uuid::new_v4();
    let key = [id.as_bytes(), &[0; 4][..]].concat();
    let inserted = sqlx::query(ORDER).bind(id.to_string()).bind(key).bind(item).bind(NOW).execute(connection).await;
    inserted.expect("the rows are valid");
}
