//! A synthetic chain, and invoices in PostgreSQL.

use chain::{Asset, BlockHash, Header};

use crate::databases::{InvoiceRows, NOW};

/// Returns the header at a height; each is the parent of the next.
pub fn header(height: u64) -> Header {
    let hash = |height: u64| {
        let mut hash = [0xb1; 32];
        hash[..8].copy_from_slice(&height.to_be_bytes());
        BlockHash(hash)
    };
    Header { height, hash: hash(height), parent: hash(height.saturating_sub(1)), time: NOW.unix_seconds() }
}

/// Inserts the same invoices as [`crate::databases::fill_sqlite`] into PostgreSQL.
pub async fn fill_postgres(connection: &mut sqlx::PgConnection, asset: &Asset, count: u64) {
    let from = format!("from generate_series(1::bigint, {count}) as n(i)");
    let rows = InvoiceRows {
        before: "",
        from: &from,
        key: "decode(lpad(to_hex((i * 2654435761) & 4294967295), 8, '0') || lpad(to_hex(i), 32, '0'), 'hex')",
        due: "decode(lpad(to_hex(1000000), 64, '0'), 'hex')",
        zero: "decode(repeat('00', 32), 'hex')",
        account_key: "decode(repeat('00', 65), 'hex')",
    };
    for sql in rows.statements(asset) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.expect("the rows are valid");
    }
    sqlx::raw_sql("analyze").execute(connection).await.expect("the statistics are updated");
}
