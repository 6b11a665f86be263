//! The baseline: writes only the rows that a paid deposit needs, without any reads or checks. There are six changes per
//! deposit (deposit, hold, its posting, the settlement, invoice, payment) and three per block.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlx::{Connection as _, PgConnection};

use crate::databases::NOW;
use crate::synthetic::header;
use crate::usdt;

const ACCOUNTS: &str = "insert into accounts (id, mode, code, asset, non_negative)
    values (1, 'test', 'onchain', 'x', 0), (2, 'test', 'incoming', 'x', 0), (3, 'test', 'pending', 'x', 0)";
const AMOUNT: [u8; 32] = [0; 32];

pub struct Sqlite {
    connection: Connection,
    height: i64,
    paid: i64,
}

impl Sqlite {
    pub fn start(connection: Connection) -> Sqlite {
        connection.execute(ACCOUNTS, []).expect("the accounts are inserted");
        let chain = usdt::asset().chain;
        let cursor = "insert into cursors (chain, height, hash, block_time, final_height, first_height) values (?1, 0, ?2, 0, 0, 0)";
        connection.execute(cursor, (chain.as_str(), AMOUNT)).expect("the cursor is stored");
        Sqlite { connection, height: 0, paid: 0 }
    }

    pub fn book(&mut self, deposits: u64, in_block: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..deposits / in_block {
            self.connection.execute_batch("begin immediate").expect("the transaction begins");
            self.block(i64::try_from(in_block).expect("the number is small")).expect("the rows are valid");
            self.connection.execute_batch("commit").expect("the transaction commits");
        }
        start.elapsed()
    }

    fn block(&mut self, deposits: i64) -> rusqlite::Result<()> {
        self.height += 1;
        let (token, header, now) = (usdt::asset(), header(self.height.unsigned_abs()), NOW.0);
        let chain = token.chain.as_str();
        let run =
            |sql: &str, values: &[&dyn rusqlite::ToSql]| self.connection.prepare_cached(sql)?.execute(values).map(drop);
        for number in 0..deposits {
            self.paid += 1;
            let (id, seq) = (self.paid, self.paid * 3);
            let mut txid = header.hash.0;
            txid[16..24].copy_from_slice(&number.to_be_bytes());
            let postings =
                [(seq - 2, "pending", None, 1, 2), (seq - 1, "post", Some(seq - 2), 1, 2), (seq, "posted", None, 2, 3)];
            for (seq, kind, pending, debit, credit) in postings {
                run(
                    "insert into postings (seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at, hash_chain_no,
                     hash) values (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, 'deposit seen', ?8, ?1, ?7)",
                    &[&seq, &format!("deposit/{id}/{kind}"), &kind, &pending, &debit, &credit, &AMOUNT, &now],
                )?;
            }
            run(
                "insert into deposits (chain, height, tx_index, part, block_hash, block_time, txid, asset, address_id,
                 invoice_id, amount, sender, state, disposition, confirm_height, seen_at, confirmed_at)
                 values (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, '0x00000000000000000000000000000000000000Aa',
                 'confirmed', 'counted', ?2, ?10, ?10)",
                &[
                    &chain,
                    &self.height,
                    &number,
                    &header.hash.0,
                    &header.time,
                    &txid,
                    &token.id.as_str(),
                    &id,
                    &AMOUNT,
                    &now,
                ],
            )?;
            run(
                "update invoices set state = 'paid', credited_amount = ?2, settlement_count = 1, closed_at = ?3 where id = ?1",
                &[&id, &AMOUNT, &now],
            )?;
            run("update payments set state = 'success', closed_at = ?2 where id = ?1", &[&id, &now])?;
        }
        run(
            "insert into blocks (chain, height, hash, block_time) values (?1, ?2, ?3, ?4)",
            &[&chain, &self.height, &header.hash.0, &header.time],
        )?;
        run("delete from blocks where chain = ?1 and height < ?2", &[&chain, &(self.height - 256)])?;
        run(
            "update cursors set height = ?2, hash = ?3, block_time = ?4 where chain = ?1",
            &[&chain, &self.height, &header.hash.0, &header.time],
        )
    }
}

pub struct Postgres {
    connection: PgConnection,
    height: i64,
    paid: i64,
}

impl Postgres {
    pub async fn start(url: &str) -> Postgres {
        let mut connection = PgConnection::connect(url).await.expect("the database opens");
        sqlx::query(ACCOUNTS).execute(&mut connection).await.expect("the accounts are inserted");
        let cursor = "insert into cursors (chain, height, hash, block_time, final_height, first_height) values ($1, 0, $2, 0, 0, 0)";
        let cursor = sqlx::query(cursor).bind(usdt::asset().chain.as_str().to_owned()).bind(AMOUNT.to_vec());
        cursor.execute(&mut connection).await.expect("the cursor is stored");
        Postgres { connection, height: 0, paid: 0 }
    }

    pub async fn book(&mut self, deposits: u64, in_block: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..deposits / in_block {
            self.block(in_block).await;
        }
        start.elapsed()
    }

    /// Writes a block with one statement, which is one transaction.
    async fn block(&mut self, deposits: u64) {
        self.height += 1;
        let token = usdt::asset();
        let count = i64::try_from(deposits).expect("the number is small");
        let header = header(self.height.unsigned_abs());
        let ids: Vec<i64> = (self.paid + 1..=self.paid + count).collect();
        self.paid += count;
        let txid = |id: &i64| [&id.to_be_bytes()[..], &header.hash.0[8..]].concat();
        let txids: Vec<Vec<u8>> = ids.iter().map(txid).collect();
        sqlx::query(
            "with input as (select * from unnest($1::bigint[], $2::bytea[]) as t(id, txid)),
             posted as (insert into postings (seq, entry, line_no, kind, hold_seq, debit_account_id, credit_account_id, amount, reason, created_at)
                 select id * 3 - back, 'deposit/' || id || '/' || kind, 0, kind, case kind when 'post' then id * 3 - 2 end,
                 debit, debit + 1, $3, 'deposit seen', $4
                 from input cross join (values (2, 'pending', 1), (1, 'post', 1), (0, 'posted', 2)) as v(back, kind, debit)),
             seen as (insert into deposits (chain, height, tx_index, part, block_hash, block_time, txid, asset, address_id,
                 invoice_id, amount, sender, state, disposition, confirm_height, seen_at, confirmed_at)
                 select $5, $6, id, id, $7, $8, txid, $9, id, id, $3, '0x00000000000000000000000000000000000000Aa',
                 'confirmed', 'counted', $6, $4, $4 from input),
             paid as (update invoices set state = 'paid', credited_amount = $3, settlement_count = 1, closed_at = $4
                 from input where invoices.id = input.id),
             closed as (update payments set state = 'success', closed_at = $4 from input where payments.id = input.id),
             block as (insert into blocks (chain, height, hash, block_time) values ($5, $6, $7, $8)),
             old as (delete from blocks where chain = $5 and height < $6 - 256)
             update cursors set height = $6, hash = $7, block_time = $8 where chain = $5",
        )
        .bind(ids)
        .bind(txids)
        .bind(AMOUNT.to_vec())
        .bind(NOW.0)
        .bind(token.chain.as_str().to_owned())
        .bind(self.height)
        .bind(header.hash.0.to_vec())
        .bind(header.time)
        .bind(token.id.as_str().to_owned())
        .execute(&mut self.connection)
        .await
        .expect("the rows are valid");
    }
}
