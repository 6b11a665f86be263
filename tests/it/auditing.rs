//! The audit reports rows that were changed from outside or that a bug left incomplete.

use money::audit;
use serde_json::json;

use crate::world::World;

/// The error with which the transaction is rolled back after the audit ran in it.
enum Undone {
    With(String),
    Db(db::Error),
}

impl From<db::Error> for Undone {
    fn from(error: db::Error) -> Undone {
        Undone::Db(error)
    }
}

/// Makes a change, audits the ledger in the same transaction, rolls the change back and returns the report.
async fn audit_after(world: &World, change: &'static [&'static str]) -> String {
    let audited = world.db.write("corrupt", move |tx| {
        Box::pin(async move {
            for sql in change {
                let changed = tx.execute(sql, Vec::new()).await?;
                assert!(changed > 0, "`{sql}` changes nothing");
            }
            // Pages of three rows, so that the trail of each object spans several of them.
            let report = audit::audit_ledger_in_pages(tx, 3).await?;
            Err::<(), _>(Undone::With(report.to_string()))
        })
    });
    match audited.await {
        Err(Undone::With(report)) => report,
        Err(Undone::Db(error)) => panic!("{change:?}: {error}"),
        Ok(()) => unreachable!("nothing is kept"),
    }
}

both! {
    async fn the_audit_reports_every_inconsistency(world: World) {
        // Invoice 1 is paid with a surplus, and its money is final. Invoice 2 is paid, but its money is not final.
        // Invoice 3 expired with a part payment and another asset at its address. Invoice 4 is open. Order 5 was paid
        // from a balance.
        let paid = world.place_order("erc20_usdt").await;
        let twice = paid.due.checked_mul(2).unwrap();
        world.pay_order(&paid, twice);
        world.mine_deep(paid.coin);
        world.run_until_idle().await;
        let young = world.place_order("erc20_usdt").await;
        world.pay_order(&young, young.due);
        world.mine(young.coin, 12);
        world.run_until_idle().await;
        let short = world.place_order("bnb").await;
        world.pay(short.coin, &short.address, "0.0001");
        world.pay("bep20_usdt", &short.address, "3");
        world.mine(short.coin, 300);
        world.run_until_idle().await;
        world.advance_seconds(32 * 60);
        world.mine(short.coin, 1);
        world.run_until_idle().await;
        for (order, status) in [(&paid, "completed"), (&young, "completed"), (&short, "expired")] {
            assert_eq!(world.status(&order.id).await.text_at("status"), status);
        }
        let open = world.place_order("erc20_usdt").await;
        world.assert_status(&open, "pending", "pending").await;
        let (_, token) = world.user_with_balance(1_000, 0).await;
        let body = json!({
            "productId": world.product.id, "quantity": 2, "contactEmail": "buyer@example.com",
            "paymentMethod": "balance_cny",
        });
        assert_eq!(world.post_as(&token, "/api/orders", &body).await.status, 201);
        world.run_until_idle().await;
        assert!(world.audit().await.has_no_findings(), "{}", world.audit().await);

        let table: [(&'static [&'static str], &str); 21] = [
            (
                &["update postings set debit_account_id = (select min(id) from accounts a where a.code like 'onchain:%'
                   and a.id <> postings.debit_account_id) where entry = 'deposit/2/seen'"],
                "deposit 2 ",
            ),
            (&["update deposits set asset = 'ethereum/native' where id = 2"], "deposit 2 "),
            (&["update deposits set chain = 'bsc' where id = 2"], "deposit 2 "),
            (&["delete from balances where account_id = (select min(id) from accounts where code like 'onchain:%')"], "its balance row is missing"),
            (&["update deposits set corroboration = 'contradicted' where id = 1"], "it is confirmed, and no second source shows it"),
            (&["update deposits set disposition = 'late' where id = 2"], "it is late, and the ledger does not have it as unallocated"),
            (&["delete from postings where entry like 'deposit/%/unallocated'"], "it is foreign, and the ledger does not have it as unallocated"),
            (&["update deposits set disposition = 'counted' where disposition = 'foreign'"], "it is counted, and the ledger has it as unallocated"),
            (
                &["insert into postings (seq, entry, line_no, kind, debit_account_id, credit_account_id, amount, reason, created_at)
                   select 9999, 'deposit/77/seen', 0, kind, debit_account_id, credit_account_id, amount, reason, created_at
                   from postings where entry = 'deposit/1/seen'"],
                "deposit 77: the ledger has entries for it",
            ),
            (&["delete from postings where entry = 'invoice/1/paid/1'"], "settlement 1 has no entry"),
            (&["update postings set entry = 'invoice/1/paid/2' where entry = 'invoice/1/paid/1'"],
                "invoice 1: the ledger has entries for a settlement that it does not have"),
            (&["delete from deposits where id = 1"], "deposit 1: the ledger has entries for it"),
            (&["delete from postings where entry = 'invoice/1/final/1'"], "its entries do not match its finality"),
            (&["update invoices set finalized_at = null where id = 1"], "its entries do not match its finality"),
            (&["update invoices set finalized_at = 1 where id = 2"], "its entries do not match its finality"),
            (&["delete from postings where entry = 'invoice/3/expired'"], "not all of its partial payments"),
            (&["update invoices set state = 'paid' where id = 4"], "invoice 4 (paid): 0 settlements do not match"),
            (
                &["update invoices set state = 'paid', settlement_count = 1, credited_amount = amount_due where id = 4"],
                "invoice 4 (paid): settlement 1 has no entry",
            ),
            (
                &[
                    "delete from postings where entry like 'invoice/2/%'",
                    "update invoices set state = 'open', settlement_count = 0, credited_amount = null, closed_at = null where id = 2",
                ],
                "invoice 2 (open): its deposits brought enough, and it was not settled",
            ),
            (&["delete from postings where entry like 'payment/%/paid'"], "did not take it from the balance"),
            (&["update payments set state = 'failed' where method = 'balance_cny'"], "the ledger has entries for it"),
        ];
        for (change, expected) in table {
            let report = audit_after(&world, change).await;
            let named = report.lines().any(|line| line.contains("WRONG") && line.contains(expected));
            assert!(named, "{change:?}: `{expected}` is not in {report}");
        }
        let whole = world.audit().await;
        assert!(whole.has_no_findings());
        let paged = world.db.read("audit", |tx| Box::pin(async move { audit::audit_ledger_in_pages(tx, 1).await }));
        let paged: audit::AuditReport = paged.await.unwrap_or_else(|e: db::Error| panic!("{e}"));
        assert_eq!(paged.to_string(), whole.to_string(), "the size of a page changes nothing");
    }
}
