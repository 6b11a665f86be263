//! Recomputes the whole ledger from its postings and says where it disagrees with what is stored.

mod compare;
mod posting_index;

use std::collections::HashMap;
use std::fmt;

use chain::Amount;

use crate::ledger::audit::posting_index::PostingIndex;
use crate::ledger::hash_chain::GENESIS;
use crate::ledger::{Balance, Kind, Movement, Side, owed, store};
use db::{self, Tx};
use ids::{AccountId, PostingSeq};

/// Postings read at once.
const PAGE: i64 = 10_000;
/// Findings after which counting goes on but naming stops.
const FINDINGS_MAX: usize = 100;

#[derive(Debug, Default)]
pub struct Report {
    pub postings: u64,
    /// Stored but not in the hash chain yet; some are normal on PostgreSQL for a second.
    pub unsealed: u64,
    pub accounts: u64,
    pub deposits: u64,
    pub open_holds: u64,
    /// Sentences that name the posting, account or deposit.
    pub findings: Vec<String>,
    pub findings_total: u64,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    fn find(&mut self, finding: String) {
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
            "{} postings on {} accounts, {} open holds, {} deposits, {} not sealed yet",
            self.postings, self.accounts, self.open_holds, self.deposits, self.unsealed
        )?;
        for finding in &self.findings {
            writeln!(f, "  WRONG: {finding}")?;
        }
        match self.findings_total {
            0 => write!(f, "sums, balances, holds and the hash chain agree"),
            n => write!(
                f,
                "{n} findings: the ledger was changed from outside, or there is a bug. Stop payouts and restore."
            ),
        }
    }
}

/// What a hold is worth and whom it binds.
struct Open {
    debit: AccountId,
    credit: AccountId,
    amount: Amount,
}

struct Auditor {
    report: Report,
    computed: HashMap<AccountId, Balance>,
    /// Balances as they were at the seal up to which an account is folded.
    folded: HashMap<AccountId, Balance>,
    open: HashMap<PostingSeq, Open>,
    /// What of each ended hold was posted; nothing of a voided one.
    ended: HashMap<PostingSeq, Option<Amount>>,
    posting_index: PostingIndex,
}

/// Reads everything in one snapshot, for as long as that takes. Run it on a reader.
pub async fn audit(tx: &mut Tx) -> Result<Report, db::Error> {
    let accounts: HashMap<AccountId, store::AuditedAccount> =
        store::list_accounts(tx).await?.into_iter().map(|account| (account.id, account)).collect();
    let mut auditor = Auditor {
        report: Report { accounts: u64::try_from(accounts.len()).unwrap_or(u64::MAX), ..Report::default() },
        computed: HashMap::new(),
        folded: HashMap::new(),
        open: HashMap::new(),
        ended: HashMap::new(),
        posting_index: PostingIndex::default(),
    };
    let (mut no, mut previous) = (0, GENESIS);
    loop {
        let page = store::list_sealed(tx, no, PAGE).await?;
        for posting in &page {
            let sealed_as = posting.seal_no.unwrap_or_default();
            if sealed_as != no + 1 {
                auditor.report.find(format!(
                    "before posting {} ({}): seal {} is missing",
                    posting.seq,
                    posting.entry,
                    no + 1
                ));
            }
            let hash = posting.canonical(sealed_as).hash(&previous);
            if posting.hash != Some(hash) {
                auditor.report.find(format!(
                    "posting {} ({}): its hash does not fit its content or its predecessor",
                    posting.seq, posting.entry
                ));
            }
            // Go on from the stored hash, so that one changed posting is one finding.
            previous = posting.hash.unwrap_or(hash);
            no = sealed_as;
            auditor.apply(posting, &accounts);
        }
        if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    let unsealed = store::list_unsealed(tx, i64::MAX).await?;
    auditor.report.unsealed = u64::try_from(unsealed.len()).unwrap_or(u64::MAX);
    for posting in &unsealed {
        auditor.apply(posting, &accounts);
    }
    auditor.compare_balances(&accounts);
    let named =
        accounts.values().map(|account| ((account.mode, account.code.clone(), account.asset.clone()), account.id));
    let directory = named.collect();
    let sums = auditor.compare_deposits(tx, &directory).await?;
    auditor.compare_invoices(tx, &directory, sums).await?;
    auditor.compare_payments(tx, &directory).await?;
    auditor.report.open_holds = u64::try_from(auditor.open.len()).unwrap_or(u64::MAX);
    Ok(auditor.report)
}

impl Auditor {
    fn apply(&mut self, posting: &store::Stored, accounts: &HashMap<AccountId, store::AuditedAccount>) {
        self.report.postings += 1;
        let name = || format!("posting {} ({})", posting.seq, posting.entry);
        match (accounts.get(&posting.debit), accounts.get(&posting.credit)) {
            (Some(debit), Some(credit)) if debit.asset == credit.asset && debit.mode == credit.mode => {}
            (Some(_), Some(_)) => self.report.find(format!("{}: its accounts differ in asset or mode", name())),
            _ => self.report.find(format!("{}: it names an account that does not exist", name())),
        }
        let movement = match posting.kind {
            Kind::Posted => Movement::Posted(posting.amount),
            Kind::Pending => {
                let open = Open { debit: posting.debit, credit: posting.credit, amount: posting.amount };
                self.open.insert(posting.seq, open);
                Movement::Pending(posting.amount)
            }
            Kind::Post | Kind::Void => {
                let Some((seq, hold)) = posting.pending.and_then(|seq| Some((seq, self.open.remove(&seq)?))) else {
                    return self.report.find(format!("{}: the hold it resolves is not open", name()));
                };
                if (hold.debit, hold.credit) != (posting.debit, posting.credit) || posting.amount > hold.amount {
                    self.report.find(format!("{}: it does not fit the hold it resolves", name()));
                }
                self.ended.insert(seq, (posting.kind == Kind::Post).then_some(posting.amount));
                let posted = if posting.kind == Kind::Post { posting.amount } else { Amount::ZERO };
                Movement::Resolved { held: hold.amount, posted }
            }
        };
        for (id, side) in [(posting.debit, Side::Debit), (posting.credit, Side::Credit)] {
            let balance = self.computed.entry(id).or_default();
            if balance.apply(side, movement).is_none() {
                self.report.find(format!("{}: a sum of account {id} leaves the range of amounts", name()));
            }
            if accounts.get(&id).is_some_and(|account| posting.seal_no == Some(account.through)) {
                self.folded.insert(id, *balance);
            }
        }
        self.posting_index.note(posting);
    }

    fn compare_balances(&mut self, accounts: &HashMap<AccountId, store::AuditedAccount>) {
        let mut sorted: Vec<_> = accounts.values().collect();
        sorted.sort_by_key(|account| account.id);
        for account in sorted {
            let computed = self.computed.get(&account.id).copied().unwrap_or_default();
            let name = format!("account {} ({} of {})", account.id, account.code, account.asset);
            if account.non_negative {
                if computed != account.balance {
                    self.report.find(format!("{name}: its balance row is not the sum of its postings"));
                }
                if owed(&computed).is_none_or(|owed| owed > computed.credits_posted) {
                    self.report.find(format!("{name}: it is below zero"));
                }
            } else if account.code.starts_with("merchant:") && computed.debits_posted > computed.credits_posted {
                self.report.find(format!("{name}: more was taken from it than it was given"));
            } else if account.through > 0 && self.folded.get(&account.id) != Some(&account.balance) {
                self.report.find(format!("{name}: its folded balance is not the sum up to seal {}", account.through));
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
            self.report.find(format!("asset {asset}: debits and credits differ"));
        }
    }
}
