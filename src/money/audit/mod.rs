//! The audit recomputes the whole ledger from its postings and reports every difference from the stored data:
//! balances, holds, the hash chain, and the deposits, invoices and payments that caused the postings.
//!
//! The audit reads all rows in pages. Its memory grows with the number of accounts and of open holds, not with the
//! number of postings.

mod ledger;
mod deposits;
mod invoices;
mod balance_payments;
mod stored_objects;
mod posting_index;
mod store;

use std::collections::{HashMap, HashSet};
use std::fmt;

use chain::{Amount, AssetId};

use crate::ledger::Balance;
use db::{self, Tx};
use ids::{AccountId, Mode, PostingSeq};

/// The number of rows that one query of an audit reads at most.
pub const PAGE: i64 = 10_000;
/// The maximum number of findings that the report describes. Further findings are only counted.
const FINDINGS_MAX: usize = 100;

/// The result of an audit.
#[derive(Debug, Default)]
pub struct AuditReport {
    /// The number of audited postings.
    pub postings: u64,
    /// The number of postings that are not in the hash chain yet. On PostgreSQL a worker appends new postings within
    /// about a second, so a few are normal.
    pub without_hash: u64,
    /// The number of ledger accounts that were audited.
    pub accounts: u64,
    /// The number of audited deposits.
    pub deposits: u64,
    /// The number of holds that are neither posted nor voided.
    pub open_holds: u64,
    /// The first 100 differences that the audit found. Each is a sentence that names a posting, account, deposit,
    /// invoice or payment.
    pub findings: Vec<String>,
    /// The number of all findings, including those that `findings` leaves out.
    pub findings_total: u64,
}

impl AuditReport {
    /// Returns true when the audit found no difference.
    pub fn has_no_findings(&self) -> bool {
        self.findings_total == 0
    }

    fn count_finding_and_add_if_room(&mut self, finding: String) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} postings on {} accounts, {} open holds, {} deposits, {} postings not in the hash chain yet",
            self.postings, self.accounts, self.open_holds, self.deposits, self.without_hash
        )?;
        for finding in &self.findings {
            writeln!(f, "  WRONG: {finding}")?;
        }
        match self.findings_total {
            0 => write!(f, "sums, balances, holds and the hash chain agree"),
            n => write!(
                f,
                "{n} findings: the database was changed by another program, or settled has a bug. Stop payouts and restore \
                 a backup."
            ),
        }
    }
}

/// The ids of ledger accounts by mode, account code and asset.
type AccountIds = HashMap<(Mode, String, AssetId), AccountId>;

/// A hold that no later posting has posted or voided so far.
struct OpenHold {
    debit: AccountId,
    credit: AccountId,
    amount: Amount,
}

/// An audit in progress: its report, and the sums that it has computed so far.
struct Auditor {
    report: AuditReport,
    /// The sums of all postings, by account.
    computed: HashMap<AccountId, Balance>,
    /// The sums of the postings of each account up to the hash chain number `rolled_up_to` of its balance row. The
    /// balance row must contain the same sums.
    computed_rolled_up: HashMap<AccountId, Balance>,
    open_holds: HashMap<PostingSeq, OpenHold>,
    /// The number of rows that one query reads.
    page: i64,
    /// The deposits, invoices and payments that were already reported as missing although the ledger has postings for
    /// them, each by its kind and id. The audit uses this set to report each of them once.
    reported_objects: HashSet<(&'static str, i64)>,
}

/// Audits the whole ledger in one snapshot. Each query reads at most [`PAGE`] rows. The duration grows with the number
/// of postings, so run the audit on a connection without a statement timeout.
///
/// # Errors
/// Any [`db::Error`] of the database. Differences are not errors; the report lists them.
pub async fn audit_ledger(tx: &mut Tx) -> Result<AuditReport, db::Error> {
    audit_ledger_in_pages(tx, PAGE).await
}

/// Audits the whole ledger like [`audit_ledger`], but with pages of at most `page` deposits, invoices, payments or
/// postings. A query for the rows of one page, such as the postings of its deposits, may return more rows.
///
/// # Errors
/// Any [`db::Error`] of the database. Differences are not errors; the report lists them.
pub async fn audit_ledger_in_pages(tx: &mut Tx, page: i64) -> Result<AuditReport, db::Error> {
    let accounts: HashMap<AccountId, store::AuditedAccount> =
        store::list_accounts_with_balances(tx).await?.into_iter().map(|account| (account.id, account)).collect();
    let mut auditor = Auditor {
        report: AuditReport { accounts: u64::try_from(accounts.len()).unwrap_or(u64::MAX), ..AuditReport::default() },
        computed: HashMap::new(),
        computed_rolled_up: HashMap::new(),
        open_holds: HashMap::new(),
        page,
        reported_objects: HashSet::new(),
    };
    auditor.audit_hashed_postings_and_sum(tx, &accounts).await?;
    auditor.check_and_sum_postings_without_hash(tx, &accounts).await?;
    auditor.audit_balances_and_asset_totals(&accounts);
    let account_ids =
        accounts.values().map(|account| ((account.mode, account.code.clone(), account.asset.clone()), account.id));
    let account_ids = account_ids.collect();
    auditor.audit_deposits(tx, &account_ids).await?;
    auditor.audit_invoices(tx, &account_ids).await?;
    auditor.audit_balance_payments(tx, &account_ids).await?;
    auditor.report.open_holds = u64::try_from(auditor.open_holds.len()).unwrap_or(u64::MAX);
    Ok(auditor.report)
}

impl Auditor {
    /// Returns true when a page has fewer rows than were requested, so that no further row is left.
    fn is_last_page(&self, rows: usize) -> bool {
        i64::try_from(rows).is_ok_and(|rows| rows < self.page)
    }
}

/// Returns the sum of two amounts, or the largest amount when the sum is out of range. No stored amount is that large,
/// so the comparison with a stored amount then fails.
fn saturating_add_amounts(one: Amount, other: Amount) -> Amount {
    one.checked_add(other).unwrap_or(Amount::MAX)
}
