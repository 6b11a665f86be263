//! Databases with many open invoices. The rows are inserted directly, because creating orders one by one would take too long.

pub mod postgres;

use std::path::{Path, PathBuf};

use chain::{AddressKey, Asset};
use clock::Instant;
use db::{Config, Db};
use rusqlite::Connection;

/// The time of the benchmarks: 2026-02-11T12:00:00Z.
pub const NOW: Instant = Instant(1_770_811_200_000);

/// The amount due of every open invoice: 1 USDT, in base units.
pub const DUE: u64 = 1_000_000;

/// A SQLite database file. It is in the folder of the build, because a folder for temporary files may be in memory.
pub struct SqliteFile {
    folder: tempfile::TempDir,
}

impl SqliteFile {
    pub fn new() -> SqliteFile {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build folder is writable");
        SqliteFile { folder }
    }

    /// Returns a database with a number of open invoices.
    pub async fn with_open_invoices(asset: &Asset, open: u64) -> SqliteFile {
        let file = SqliteFile::new();
        file.open().await.close().await;
        fill_sqlite(&file.path(), asset, open);
        file
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("settled.db")
    }

    /// Opens the database as the daemon does, and creates its tables.
    pub async fn open(&self) -> Db {
        let config = Config::new(format!("sqlite:{}", self.path().display()));
        let db = Db::open(&config).await.expect("the database opens");
        db.migrate().await.expect("the migrations apply");
        db
    }

    /// Returns a connection with the same settings as the daemon's writer.
    pub fn connect(&self) -> Connection {
        let connection = Connection::open(self.path()).expect("the database opens");
        for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "full"), ("foreign_keys", "on")] {
            connection.pragma_update(None, pragma, value).expect("the setting is valid");
        }
        connection.pragma_update(None, "wal_autocheckpoint", 16_384).expect("the setting is valid");
        connection.pragma_update(None, "cache_size", -65_536).expect("the setting is valid");
        connection.set_prepared_statement_cache_capacity(128);
        connection
    }
}

/// Inserts the orders 1 to `count`, each with a pending payment and an open invoice that needs one confirmation. No other
/// connection may have the file open.
pub fn fill_sqlite(file: &Path, asset: &Asset, count: u64) {
    let numbers = format!("with recursive n(i) as (select 1 union all select i + 1 from n where i < {count})");
    let rows = InvoiceRows {
        before: &numbers,
        from: "from n",
        key: "unhex(printf('%08x%032x', (i * 2654435761) & 4294967295, i))",
        due: "unhex(printf('%064x', 1000000))",
        zero: "zeroblob(32)",
        account_key: "zeroblob(65)",
    };
    let batch: String = rows.statements(asset).map(|sql| sql + ";").collect();
    let connection = Connection::open(file).expect("the database opens");
    // The rows need not survive a crash, so durability is switched off for speed.
    connection.execute_batch(FAST).expect("the settings are valid");
    connection.execute_batch(&format!("begin;{batch}commit;pragma journal_mode = wal;")).expect("the rows are valid");
}

/// Returns the deposit address of the invoice with a number. Consecutive numbers give scattered addresses.
pub fn invoice_address(number: u64) -> AddressKey {
    let scattered = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
    let mut key = [0; 20];
    key[..4].copy_from_slice(&scattered.to_be_bytes()[4..]);
    key[12..].copy_from_slice(&number.to_be_bytes());
    AddressKey(key)
}

const FAST: &str = "pragma journal_mode = delete; pragma journal_mode = off; pragma synchronous = off;
    pragma foreign_keys = off; pragma cache_size = -1000000;";

/// The SQL expressions for the rows, which differ between the two databases.
pub struct InvoiceRows<'a> {
    /// The text before each `select`.
    pub before: &'a str,
    /// The `from` clause of each `select`. It defines the column `i`, which counts from 1.
    pub from: &'a str,
    /// The key of [`invoice_address`] for invoice `i`.
    pub key: &'a str,
    /// The amount [`DUE`].
    pub due: &'a str,
    /// The amount 0.
    pub zero: &'a str,
    /// The key bytes of the account, 65 zeros.
    pub account_key: &'a str,
}

impl InvoiceRows<'_> {
    /// Returns the statements that insert all rows.
    pub fn statements(&self, asset: &Asset) -> impl Iterator<Item = String> {
        let InvoiceRows { before, from, key, due, zero, account_key } = self;
        // The invoices are open for a hundred years, so that a daemon with the real clock does not expire them.
        let (now, later) = (NOW.0, NOW.plus_seconds(3_155_760_000).0);
        let (chain, id) = (&asset.chain, &asset.id);
        let public_id = |kind: &str| format!("'{kind}-' || i");
        let (order, payment, invoice) = (public_id("order"), public_id("payment"), public_id("invoice"));
        [
            format!(
                "insert into merchants (id, public_id, slug, name, created_at) values (1, 'm', 'bench', 'Bench', {now})
                 on conflict do nothing"
            ),
            format!(
                "insert into address_accounts (id, family, key, purpose, mode, path, next_index)
                 values (1, 'evm', {account_key}, 'deposit-test', 'test', '', 0) on conflict do nothing"
            ),
            format!(
                "insert into orders (id, public_id, order_no, merchant_id, mode, surface, state, currency, original_amount,
                 discount_amount, amount, created_at, expires_at) {before}
                 select i, {order}, 'CO' || i, 1, 'test', 'checkout', 'awaiting_payment', 'CNY', 724, 0, 724, {now},
                 {later} {from}"
            ),
            format!(
                "insert into payments (id, public_id, order_id, merchant_id, mode, method, state, created_at) {before}
                 select i, {payment}, i, 1, 'test', 'crypto', 'pending', {now} {from}"
            ),
            format!(
                "insert into addresses (id, chain, key, text, account_id, derivation_index, issued_at) {before}
                 select i, '{chain}', {key}, 'address-' || i, 1, i, {now} {from}"
            ),
            format!(
                "insert into invoices (id, public_id, payment_id, merchant_id, mode, chain, asset, address_id, state, amount_due,
                 tolerance, currency, price, rate, rate_source, rated_at, confirmations, created_at, expires_at, settlement_count)
                 {before} select i, {invoice}, i, 1, 'test', '{chain}', '{id}', i, 'open', {due}, {zero}, 'CNY', 724, '7.24',
                 'fixed', {now}, 1, {now}, {later}, 0 {from}"
            ),
        ]
        .into_iter()
    }
}

/// Returns the resident memory of a process in bytes, from `/proc`. `process` is a process id or `self`.
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process exists");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux reports VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kB");
    kib * 1_024
}
