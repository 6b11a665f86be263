//! A chain that is made up, for the invoices of `books`.

use chain::{AddressKey, Asset, BlockHash, Header};

use crate::books::{NOW, Rows, SqliteFile, fill_sqlite};

/// What every open invoice asks for: one whole token.
pub const DUE: u64 = 1_000_000;

impl SqliteFile {
    /// With so many open invoices.
    pub async fn filled(asset: &Asset, open: u64) -> SqliteFile {
        let file = SqliteFile::new();
        file.open().await.close().await;
        fill_sqlite(&file.path(), asset, open);
        file
    }
}

/// The account of the invoice with this number; numbers follow each other, accounts do not.
pub fn account(number: u64) -> AddressKey {
    let scattered = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
    let mut key = [0; 20];
    key[..4].copy_from_slice(&scattered.to_be_bytes()[4..]);
    key[12..].copy_from_slice(&number.to_be_bytes());
    AddressKey(key)
}

/// Each block is the parent of the next.
pub fn header(height: u64) -> Header {
    let hash = |height: u64| {
        let mut hash = [0xb1; 32];
        hash[..8].copy_from_slice(&height.to_be_bytes());
        BlockHash(hash)
    };
    Header { height, hash: hash(height), parent: hash(height.saturating_sub(1)), time: NOW.unix_seconds() }
}

/// The same invoices in PostgreSQL.
pub async fn fill_postgres(connection: &mut sqlx::PgConnection, asset: &Asset, count: u64) {
    let from = format!("from generate_series(1::bigint, {count}) as n(i)");
    let rows = Rows {
        before: "",
        from: &from,
        key: "decode(lpad(to_hex((i * 2654435761) & 4294967295), 8, '0') || lpad(to_hex(i), 32, '0'), 'hex')",
        due: "decode(lpad(to_hex(1000000), 64, '0'), 'hex')",
        zero: "decode(repeat('00', 32), 'hex')",
    };
    for sql in rows.statements(asset) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.expect("rows");
    }
    sqlx::raw_sql("analyze").execute(connection).await.expect("statistics");
}
