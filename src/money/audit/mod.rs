//! The audit recomputes the whole ledger from its postings and reports every difference from the stored data:
//! balances, holds, the hash chain, and the deposits, invoices and payments that caused the postings.

mod compare;
mod posting_index;
mod store;

use std::collections::HashMap;
use std::fmt;

use chain::Amount;

use crate::audit::posting_index::PostingIndex;
use crate::ledger::{
    Balance, BalanceChange, GENESIS_HASH, PostingKind, Side, StoredPosting, list_hashed_postings_after,
    list_postings_without_hash,
};
use db::{self, Tx};
use ids::{AccountId, PostingSeq};

/// The number of rows that one query reads.
const PAGE: i64 = 10_000;
/// The maximum number of findings that the report describes. Further findings are only counted.
const FINDINGS_MAX: usize = 100;

/// The result of an audit.
#[derive(Debug, Default)]
pub struct Report {
    /// The number of audited postings.
    pub postings: u64,
    /// The number of postings that are not in the hash chain yet. On PostgreSQL a worker appends new postings within
    /// about a second, so a few are normal.
    pub without_hash: u64,
    /// The number of ledger accounts.
    pub accounts: u64,
    /// The number of audited deposits.
    pub deposits: u64,
    /// The number of holds that are neither posted nor voided.
    pub open_holds: u64,
    /// The first 100 findings, each a sentence that names a posting, account, deposit, invoice or payment.
    pub findings: Vec<String>,
    /// The number of all findings, including those that `findings` leaves out.
    pub findings_total: u64,
}

impl Report {
    /// Returns true when the audit found no difference.
    pub fn has_no_findings(&self) -> bool {
        self.findings_total == 0
    }

    fn add_audit_finding(&mut self, finding: String) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Report {
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

/// A hold that no later posting has posted or voided so far.
struct OpenHold {
    debit: AccountId,
    credit: AccountId,
    amount: Amount,
}

struct Auditor {
    report: Report,
    /// The sums of all postings, by account.
    computed: HashMap<AccountId, Balance>,
    /// The sums of the postings up to the account's `rolled_up_to`, which the balance row must equal; by account.
    computed_rolled_up: HashMap<AccountId, Balance>,
    open_holds: HashMap<PostingSeq, OpenHold>,
    /// The posted amount of each resolved hold; `None` for a voided hold.
    resolved_holds: HashMap<PostingSeq, Option<Amount>>,
    posting_index: PostingIndex,
}

/// Audits the whole ledger in one snapshot. The time grows with the number of postings, so run it on a connection
/// without a statement timeout.
///
/// # Errors
/// Any [`db::Error`] of the database. Differences are not errors; the report lists them.
pub async fn audit_ledger(tx: &mut Tx) -> Result<Report, db::Error> {
    let accounts: HashMap<AccountId, store::Account> =
        store::list_accounts_with_balances(tx).await?.into_iter().map(|account| (account.id, account)).collect();
    let mut auditor = Auditor {
        report: Report { accounts: u64::try_from(accounts.len()).unwrap_or(u64::MAX), ..Report::default() },
        computed: HashMap::new(),
        computed_rolled_up: HashMap::new(),
        open_holds: HashMap::new(),
        resolved_holds: HashMap::new(),
        posting_index: PostingIndex::default(),
    };
    auditor.audit_hash_chain(tx, &accounts).await?;
    let without_hash = list_postings_without_hash(tx, i64::MAX).await?;
    auditor.report.without_hash = u64::try_from(without_hash.len()).unwrap_or(u64::MAX);
    for posting in &without_hash {
        auditor.check_and_add_posting(posting, &accounts);
    }
    auditor.audit_balances(&accounts);
    let account_ids =
        accounts.values().map(|account| ((account.mode, account.code.clone(), account.asset.clone()), account.id));
    let account_ids = account_ids.collect();
    let received = auditor.audit_deposits(tx, &account_ids).await?;
    auditor.audit_invoices(tx, &account_ids, received).await?;
    auditor.audit_balance_payments(tx, &account_ids).await?;
    auditor.report.open_holds = u64::try_from(auditor.open_holds.len()).unwrap_or(u64::MAX);
    Ok(auditor.report)
}

impl Auditor {
    /// Checks that no number is missing in the hash chain and that every hash is correct. Adds all postings of the hash
    /// chain to the sums.
    async fn audit_hash_chain(
        &mut self,
        tx: &mut Tx,
        accounts: &HashMap<AccountId, store::Account>,
    ) -> Result<(), db::Error> {
        let (mut last_no, mut previous) = (0, GENESIS_HASH);
        loop {
            let page = list_hashed_postings_after(tx, last_no, PAGE).await?;
            for posting in &page {
                let hash_chain_no = posting.hash_chain_no.unwrap_or_default();
                if hash_chain_no != last_no + 1 {
                    self.report.add_audit_finding(format!(
                        "before posting {} ({}): number {} of the hash chain is missing",
                        posting.seq,
                        posting.entry,
                        last_no + 1
                    ));
                }
                let hash = posting.compute_hash_after(&previous, hash_chain_no);
                if posting.hash != Some(hash) {
                    self.report.add_audit_finding(format!(
                        "posting {} ({}): its hash does not match its content or the previous hash",
                        posting.seq, posting.entry
                    ));
                }
                // Continue from the stored hash, so that one changed posting gives one finding instead of one for
                // every later posting.
                previous = posting.hash.unwrap_or(hash);
                last_no = hash_chain_no;
                self.check_and_add_posting(posting, accounts);
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// Adds a posting to the computed sums. Adds a finding when the posting does not match its accounts or its hold.
    fn check_and_add_posting(&mut self, posting: &StoredPosting, accounts: &HashMap<AccountId, store::Account>) {
        self.report.postings += 1;
        let name = || format!("posting {} ({})", posting.seq, posting.entry);
        match (accounts.get(&posting.debit), accounts.get(&posting.credit)) {
            (Some(debit), Some(credit)) if debit.asset == credit.asset && debit.mode == credit.mode => {}
            (Some(_), Some(_)) => {
                self.report.add_audit_finding(format!("{}: its accounts differ in asset or mode", name()));
            }
            _ => self.report.add_audit_finding(format!("{}: one of its accounts does not exist", name())),
        }
        let change = match posting.kind {
            PostingKind::Posted => BalanceChange::Posted(posting.amount),
            PostingKind::Pending => {
                let hold = OpenHold { debit: posting.debit, credit: posting.credit, amount: posting.amount };
                self.open_holds.insert(posting.seq, hold);
                BalanceChange::Held(posting.amount)
            }
            PostingKind::Post | PostingKind::Void => {
                let hold = posting.hold_seq.and_then(|seq| Some((seq, self.open_holds.remove(&seq)?)));
                let Some((seq, hold)) = hold else {
                    return self.report.add_audit_finding(format!("{}: the hold that it resolves is not open", name()));
                };
                if (hold.debit, hold.credit) != (posting.debit, posting.credit) || posting.amount > hold.amount {
                    self.report.add_audit_finding(format!("{}: it does not match the hold that it resolves", name()));
                }
                let posted = (posting.kind == PostingKind::Post).then_some(posting.amount);
                self.resolved_holds.insert(seq, posted);
                BalanceChange::Resolved { held: hold.amount, posted: posted.unwrap_or(Amount::ZERO) }
            }
        };
        for (id, side) in [(posting.debit, Side::Debit), (posting.credit, Side::Credit)] {
            let balance = self.computed.entry(id).or_default();
            if balance.apply_balance_change(side, change).is_none() {
                self.report.add_audit_finding(format!("{}: a sum of account {id} leaves the range of amounts", name()));
            }
            if accounts.get(&id).is_some_and(|account| posting.hash_chain_no == Some(account.rolled_up_to)) {
                self.computed_rolled_up.insert(id, *balance);
            }
        }
        self.posting_index.index_posting(posting);
    }

    /// Checks every balance row, and that debits equal credits for every asset.
    fn audit_balances(&mut self, accounts: &HashMap<AccountId, store::Account>) {
        let mut sorted: Vec<_> = accounts.values().collect();
        sorted.sort_by_key(|account| account.id);
        for account in sorted {
            let computed = self.computed.get(&account.id).copied().unwrap_or_default();
            let name = format!("account {} ({} of {})", account.id, account.code, account.asset);
            if account.non_negative {
                if computed != account.balance {
                    self.report.add_audit_finding(format!("{name}: its balance row is not the sum of its postings"));
                }
                if computed.is_below_zero() {
                    self.report.add_audit_finding(format!("{name}: it is below zero"));
                }
            } else if account.code.starts_with("merchant:") && computed.debits_posted > computed.credits_posted {
                self.report.add_audit_finding(format!("{name}: its debits exceed its credits"));
            } else if account.rolled_up_to > 0 && self.computed_rolled_up.get(&account.id) != Some(&account.balance) {
                self.report.add_audit_finding(format!(
                    "{name}: its balance row is not the sum of its postings up to number {} of the hash chain",
                    account.rolled_up_to
                ));
            }
        }
        let mut totals: HashMap<&chain::AssetId, (Option<Amount>, Option<Amount>)> = HashMap::new();
        for (id, balance) in &self.computed {
            let Some(account) = accounts.get(id) else { continue };
            let total = totals.entry(&account.asset).or_insert((Some(Amount::ZERO), Some(Amount::ZERO)));
            total.0 = total.0.and_then(|sum| sum.checked_add(balance.debits_posted));
            total.1 = total.1.and_then(|sum| sum.checked_add(balance.credits_posted));
        }
        let mut unequal: Vec<_> = totals.into_iter().filter(|(_, (debits, credits))| debits != credits).collect();
        unequal.sort_by_key(|(asset, _)| (*asset).clone());
        for (asset, _) in unequal {
            self.report.add_audit_finding(format!("asset {asset}: the sum of debits differs from the sum of credits"));
        }
    }
}
