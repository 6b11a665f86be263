//! Databases with open invoices, as a busy shop has them, made at once instead of one order after another.

pub mod postgres;

use std::path::{Path, PathBuf};

use chain::{AddressKey, Asset};
use clock::Instant;
use db::{Config, Db};
use rusqlite::Connection;

/// 2026-02-11T12:00:00Z.
pub const NOW: Instant = Instant(1_770_811_200_000);

/// What every open invoice asks for: one whole token.
pub const DUE: u64 = 1_000_000;

/// A database file on the disk of the build, which is a real one; a folder for temporary files may be memory.
pub struct SqliteFile {
    folder: tempfile::TempDir,
}

impl SqliteFile {
    pub fn new() -> SqliteFile {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder of the build");
        SqliteFile { folder }
    }

    /// With so many open invoices.
    pub async fn filled(asset: &Asset, open: u64) -> SqliteFile {
        let file = SqliteFile::new();
        file.open().await.close().await;
        fill_sqlite(&file.path(), asset, open);
        file
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("settled.db")
    }

    pub async fn open(&self) -> Db {
        let config = Config::new(format!("sqlite:{}", self.path().display()));
        let db = Db::open(&config).await.expect("a database");
        db.migrate().await.expect("a schema");
        db
    }

    /// A connection with the settings of settled's own writer.
    pub fn connect(&self) -> Connection {
        let connection = Connection::open(self.path()).expect("a database");
        for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "full"), ("foreign_keys", "on")] {
            connection.pragma_update(None, pragma, value).expect("a setting");
        }
        connection.pragma_update(None, "wal_autocheckpoint", 16_384).expect("a setting");
        connection.pragma_update(None, "cache_size", -65_536).expect("a setting");
        connection.set_prepared_statement_cache_capacity(128);
        connection
    }
}

/// Orders 1 to `count`, each with a pending payment and an open invoice of its own, confirmed by the first block. Nobody
/// else has the file open.
pub fn fill_sqlite(file: &Path, asset: &Asset, count: u64) {
    let numbers = format!("with recursive n(i) as (select 1 union all select i + 1 from n where i < {count})");
    let rows = Rows {
        before: &numbers,
        from: "from n",
        key: "unhex(printf('%08x%032x', (i * 2654435761) & 4294967295, i))",
        due: "unhex(printf('%064x', 1000000))",
        zero: "zeroblob(32)",
    };
    let batch: String = rows.statements(asset).map(|sql| sql + ";").collect();
    let connection = Connection::open(file).expect("a database");
    // Nothing here must outlive a crash.
    connection.execute_batch(FAST).expect("settings");
    connection.execute_batch(&format!("begin;{batch}commit;pragma journal_mode = wal;")).expect("rows");
}

/// The account of the invoice with this number; numbers follow each other, accounts do not.
pub fn account(number: u64) -> AddressKey {
    let scattered = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
    let mut key = [0; 20];
    key[..4].copy_from_slice(&scattered.to_be_bytes()[4..]);
    key[12..].copy_from_slice(&number.to_be_bytes());
    AddressKey(key)
}

const FAST: &str = "pragma journal_mode = delete; pragma journal_mode = off; pragma synchronous = off;
    pragma foreign_keys = off; pragma cache_size = -1000000;";

/// What the two databases write differently.
pub struct Rows<'a> {
    /// Stands before, and after, what is selected; `i` counts from 1.
    pub before: &'a str,
    pub from: &'a str,
    /// The account of invoice `i`, scattered: its lower 32 bits after a multiplication by 2,654,435,761, then `i`.
    pub key: &'a str,
    /// One whole token, and nothing.
    pub due: &'a str,
    pub zero: &'a str,
}

impl Rows<'_> {
    pub fn statements(&self, asset: &Asset) -> impl Iterator<Item = String> {
        let Rows { before, from, key, due, zero } = self;
        // Open for a century: a daemon that runs by the real clock must not begin to end them.
        let (now, later) = (NOW.0, NOW.plus_seconds(3_155_760_000).0);
        let (chain, id) = (&asset.chain, &asset.id);
        let public = |kind: &str| format!("'{kind}-' || i");
        let (order, payment, invoice) = (public("order"), public("payment"), public("invoice"));
        [
            format!(
                "insert into merchants (id, public_id, slug, name, created_at) values (1, 'm', 'bench', 'Bench', {now})
                 on conflict do nothing"
            ),
            "insert into address_accounts (id, family, xpub, next_index) values (1, 'evm', 'none', 0)
             on conflict do nothing"
                .to_owned(),
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

/// What a process has in memory, by `/proc`.
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1_024
}
