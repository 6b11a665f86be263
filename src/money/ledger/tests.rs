use std::collections::HashMap;

use proptest::prelude::*;

use chain::{Amount, AssetId};

use super::*;
use crate::audit::{AuditReport, audit_ledger};
use crate::ledger::journal_entries::is_postable_amount;
use clock::Instant;
use db::both;
use db::{Backend, Db, execute, testing};
use ids::{AccountId, MerchantId, Mode, UserId};

const NOW: Instant = Instant(1_000);
const MERCHANT: MerchantId = MerchantId(1);
const USER: UserId = UserId(7);

fn cny_asset() -> AssetId {
    AssetId::fiat("CNY")
}

fn cny_entry_line(debit: Account, credit: Account, units: u128) -> EntryLine {
    EntryLine { debit, credit, asset: cny_asset(), amount: Amount::from_units(units) }
}

async fn book_entry(db: &Db, entry: JournalEntry) -> Result<(), PostError> {
    db.write("book", move |tx| Box::pin(async move { book_journal_entries(tx, NOW, &[entry]).await })).await
}

async fn post_entry_line(db: &Db, name: &str, line: EntryLine) -> Result<(), PostError> {
    book_entry(db, JournalEntry::new_post_entry(Mode::Live, name, "test", vec![line])).await
}

async fn hold_entry_line(db: &Db, name: &str, line: EntryLine) -> Result<(), PostError> {
    book_entry(db, JournalEntry::new_hold_entry(Mode::Live, name, "test", line)).await
}

async fn resolve_hold(db: &Db, name: &str, hold: &str, amount: Option<u128>, void: bool) -> Result<(), PostError> {
    let entry = match void {
        true => JournalEntry::new_void_hold_entry(name, "test", hold.to_owned()),
        false => JournalEntry::new_post_hold_entry(name, "test", hold.to_owned(), amount.map(Amount::from_units)),
    };
    book_entry(db, entry).await
}

async fn load_available_units(db: &Db, account: Account) -> u128 {
    let balance = db
        .read("balance", move |tx| {
            Box::pin(async move { find_balance_or_zero(tx, Mode::Live, &account, &cny_asset()).await })
        })
        .await
        .unwrap();
    balance.available_amount().units().try_into().unwrap()
}

async fn run_audit(db: &Db) -> AuditReport {
    db.read("audit", |tx| Box::pin(async move { audit_ledger(tx).await })).await.unwrap()
}

async fn append_all_to_hash_chain(db: &Db) {
    db.write("append_to_hash_chain", |tx| Box::pin(async move { append_postings_to_hash_chain(tx, 10_000).await }))
        .await
        .unwrap();
}

both! {
    async fn a_non_negative_account_never_goes_below_zero(db: Db) {
        post_entry_line(&db, "credit/1", cny_entry_line(Account::OperatorEquity, Account::User(USER), 100)).await.unwrap();
        let spend = |units| cny_entry_line(Account::User(USER), Account::MerchantAvailable(MERCHANT), units);
        let refused = post_entry_line(&db, "spend/1", spend(101)).await.unwrap_err();
        assert!(matches!(refused, PostError::Insufficient { available } if available == Amount::from_units(100)));
        post_entry_line(&db, "spend/2", spend(60)).await.unwrap();
        hold_entry_line(&db, "hold/1", spend(40)).await.unwrap();
        assert_eq!(load_available_units(&db, Account::User(USER)).await, 0, "a held amount cannot be spent");
        assert!(matches!(post_entry_line(&db, "spend/3", spend(1)).await, Err(PostError::Insufficient { .. })));
        resolve_hold(&db, "hold/1/post", "hold/1", Some(30), false).await.unwrap();
        assert_eq!(load_available_units(&db, Account::User(USER)).await, 10, "the rest of a posted hold is released");
        assert_eq!(load_available_units(&db, Account::MerchantAvailable(MERCHANT)).await, 90);
        assert!(run_audit(&db).await.has_no_findings());
    }

    async fn a_hold_is_resolved_once(db: Db) {
        post_entry_line(&db, "credit/1", cny_entry_line(Account::OperatorEquity, Account::User(USER), 100)).await.unwrap();
        hold_entry_line(&db, "hold/1", cny_entry_line(Account::User(USER), Account::OperatorEquity, 40)).await.unwrap();
        assert!(matches!(resolve_hold(&db, "too/much", "hold/1", Some(41), false).await, Err(PostError::AboveHold { .. })));
        resolve_hold(&db, "hold/1/void", "hold/1", None, true).await.unwrap();
        let again = resolve_hold(&db, "hold/1/post", "hold/1", None, false).await.unwrap_err();
        assert!(matches!(again, PostError::NoHold(name) if name == "hold/1"));
        assert!(matches!(resolve_hold(&db, "x", "credit/1", None, true).await, Err(PostError::NoHold(_))));
        assert_eq!(load_available_units(&db, Account::User(USER)).await, 100);
        assert!(run_audit(&db).await.has_no_findings());
    }

    async fn an_entry_is_booked_once(db: Db) {
        let credit = || cny_entry_line(Account::OperatorEquity, Account::User(USER), 5);
        post_entry_line(&db, "credit/1", credit()).await.unwrap();
        assert!(matches!(post_entry_line(&db, "credit/1", credit()).await, Err(PostError::Db(error)) if error.is_unique()));
        assert_eq!(load_available_units(&db, Account::User(USER)).await, 5);
        for bad in [0, 1 << 127] {
            let line = cny_entry_line(Account::OperatorEquity, Account::User(USER), bad);
            assert!(matches!(post_entry_line(&db, "credit/2", line).await, Err(PostError::BadAmount(_))));
        }
    }

    async fn concurrent_spenders_cannot_overdraw(db: Db) {
        post_entry_line(&db, "credit/1", cny_entry_line(Account::OperatorEquity, Account::User(USER), 10)).await.unwrap();
        let spenders = (0..40).map(|n| {
            let db = db.clone();
            async move {
                let line = cny_entry_line(Account::User(USER), Account::MerchantAvailable(MERCHANT), 1);
                post_entry_line(&db, &format!("spend/{n}"), line).await
            }
        });
        let outcomes = futures_util::future::join_all(spenders).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(PostError::Insufficient { .. }))));
        assert!(run_audit(&db).await.has_no_findings());
    }

    async fn the_audit_reports_a_changed_posting(db: Db) {
        for n in 0..5u32 {
            let line = cny_entry_line(Account::OperatorEquity, Account::User(USER), 10);
            post_entry_line(&db, &format!("credit/{n}"), line).await.unwrap();
        }
        append_all_to_hash_chain(&db).await;
        assert!(run_audit(&db).await.has_no_findings());
        db.write("corrupt", |tx| Box::pin(async move {
            execute!(tx, "update postings set amount = $1 where entry = 'credit/2'", Amount::from_units(11))
        })).await.unwrap();
        let report = run_audit(&db).await;
        assert!(!report.has_no_findings());
        assert!(report.findings.iter().any(|finding| finding.contains("(credit/2)") && finding.contains("hash")), "{report}");
        assert!(report.findings.iter().any(|finding| finding.contains("user:7")), "{report}");
    }

    async fn the_audit_reports_a_removed_posting(db: Db) {
        for n in 0..4u32 {
            let line = cny_entry_line(Account::OperatorEquity, Account::User(USER), 10);
            post_entry_line(&db, &format!("credit/{n}"), line).await.unwrap();
        }
        append_all_to_hash_chain(&db).await;
        db.write("corrupt", |tx| Box::pin(async move {
            execute!(tx, "delete from postings where entry = 'credit/1'")
        })).await.unwrap();
        let report = run_audit(&db).await;
        assert!(report.findings.iter().any(|finding| finding.contains("(credit/2)") && finding.contains("missing")), "{report}");
    }

    async fn a_roll_up_reads_only_new_postings(db: Db) {
        let plan = db
            .write("explain", |tx| Box::pin(async move { store::explain_hashed_balance_changes(tx, AccountId(1), 1).await }))
            .await
            .unwrap();
        let bounds = match db.backend() {
            Backend::Sqlite => ["(debit_account_id=? AND hash_chain_no>?)", "(credit_account_id=? AND hash_chain_no>?)"],
            Backend::Postgres => ["(debit_account_id = '1'::bigint) AND (hash_chain_no > '1'::bigint)", "(credit_account_id = '1'::bigint) AND (hash_chain_no > '1'::bigint)"],
        };
        for bound in bounds {
            assert!(plan.contains(bound), "{bound} is not in {plan}");
        }
    }

    async fn a_roll_up_changes_no_balance(db: Db) {
        for n in 0..20u32 {
            let line = cny_entry_line(Account::OperatorEquity, Account::User(USER), u128::from(n + 1));
            post_entry_line(&db, &format!("credit/{n}"), line).await.unwrap();
            if n % 5 == 0 {
                append_all_to_hash_chain(&db).await;
                db.write("roll_up", |tx| Box::pin(async move { roll_up_balances(tx, 100).await })).await.unwrap();
            }
        }
        hold_entry_line(&db, "hold", cny_entry_line(Account::User(USER), Account::OperatorEquity, 9)).await.unwrap();
        append_all_to_hash_chain(&db).await;
        db.write("roll_up", |tx| Box::pin(async move { roll_up_balances(tx, 100).await })).await.unwrap();
        resolve_hold(&db, "hold/void", "hold", None, true).await.unwrap();
        append_all_to_hash_chain(&db).await;
        db.write("roll_up", |tx| Box::pin(async move { roll_up_balances(tx, 100).await })).await.unwrap();
        let equity = db
            .read("balance", |tx| Box::pin(async move { find_balance_or_zero(tx, Mode::Live, &Account::OperatorEquity, &cny_asset()).await }))
            .await
            .unwrap();
        assert_eq!(equity.debits_posted, Amount::from_units(210));
        assert_eq!(equity.credits_pending, Amount::ZERO);
        assert!(run_audit(&db).await.has_no_findings());
        let idle = db.write("roll_up", |tx| Box::pin(async move { roll_up_balances(tx, 100).await })).await.unwrap();
        assert_eq!(idle, 0, "nothing is rolled up twice");
    }
}

/// A random operation of the property test. Amounts are base units; `pick` selects one of the open holds.
#[derive(Debug, Clone)]
enum RandomOperation {
    Credit { user: u8, amount: u64 },
    Spend { user: u8, amount: u64 },
    Hold { user: u8, amount: u64 },
    Post { pick: usize, part: u64 },
    Void { pick: usize },
}

fn random_operations() -> impl Strategy<Value = Vec<RandomOperation>> {
    let operation = prop_oneof![
        (0u8..3, 1u64..1_000).prop_map(|(user, amount)| RandomOperation::Credit { user, amount }),
        (0u8..3, 1u64..1_000).prop_map(|(user, amount)| RandomOperation::Spend { user, amount }),
        (0u8..3, 1u64..1_000).prop_map(|(user, amount)| RandomOperation::Hold { user, amount }),
        (any::<usize>(), 0u64..1_000).prop_map(|(pick, part)| RandomOperation::Post { pick, part }),
        any::<usize>().prop_map(|pick| RandomOperation::Void { pick }),
    ];
    proptest::collection::vec(operation, 1..60)
}

#[test]
fn a_split_amount_is_the_sum_of_its_parts() {
    let limit = Amount::from_units(1 << AMOUNT_BITS_MAX);
    let one = Amount::from_units(1);
    for (amount, count) in [
        (Amount::ZERO, 0),
        (one, 1),
        (limit.checked_sub(one).unwrap(), 1),
        (limit, 2),
        (limit.checked_mul(40).unwrap(), 41),
    ] {
        let parts: Vec<Amount> = split_into_postable_amounts(amount).collect();
        assert!(parts.iter().all(|part| is_postable_amount(*part)));
        assert_eq!((parts.len(), Amount::checked_sum(parts)), (count, Some(amount)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The ledger matches a map of integers after every operation, and the audit finds no difference.
    #[test]
    fn the_ledger_matches_a_map_of_integers(operations in random_operations()) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let db = testing::open_migrated(Backend::Sqlite).await;
            let mut model: HashMap<u8, (u64, u64)> = HashMap::new();
            let mut holds: Vec<(String, u8, u64)> = Vec::new();
            let user = |number: u8| Account::User(UserId(i64::from(number) + 1));
            for (n, operation) in operations.into_iter().enumerate() {
                match operation {
                    RandomOperation::Credit { user: u, amount } => {
                        post_entry_line(&db, &format!("{n}"), cny_entry_line(Account::OperatorEquity, user(u), amount.into())).await.unwrap();
                        model.entry(u).or_default().0 += amount;
                    }
                    RandomOperation::Spend { user: u, amount } => {
                        let done = post_entry_line(&db, &format!("{n}"), cny_entry_line(user(u), Account::OperatorEquity, amount.into())).await;
                        let (has, held) = model.entry(u).or_default();
                        assert_eq!(done.is_ok(), *has - *held >= amount);
                        if done.is_ok() { *has -= amount; }
                    }
                    RandomOperation::Hold { user: u, amount } => {
                        let done = hold_entry_line(&db, &format!("{n}"), cny_entry_line(user(u), Account::OperatorEquity, amount.into())).await;
                        let (has, held) = model.entry(u).or_default();
                        assert_eq!(done.is_ok(), *has - *held >= amount);
                        if done.is_ok() { *held += amount; holds.push((format!("{n}"), u, amount)); }
                    }
                    RandomOperation::Post { pick, part } => {
                        if holds.is_empty() { continue; }
                        let (hold, u, amount) = holds.remove(pick % holds.len());
                        let part = (part % amount).max(1).min(amount);
                        resolve_hold(&db, &format!("{n}"), &hold, Some(part.into()), false).await.unwrap();
                        let (has, held) = model.entry(u).or_default();
                        *held -= amount;
                        *has -= part;
                    }
                    RandomOperation::Void { pick } => {
                        if holds.is_empty() { continue; }
                        let (hold, u, amount) = holds.remove(pick % holds.len());
                        resolve_hold(&db, &format!("{n}"), &hold, None, true).await.unwrap();
                        model.entry(u).or_default().1 -= amount;
                    }
                }
            }
            for (u, (has, held)) in model {
                assert_eq!(load_available_units(&db, user(u)).await, u128::from(has - held));
            }
            let report = run_audit(&db).await;
            assert!(report.has_no_findings(), "{report}");
            assert_eq!(report.open_holds, u64::try_from(holds.len()).unwrap());
        });
    }
}
