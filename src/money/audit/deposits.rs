//! Compares the stored deposits with their postings: the amounts, the accounts, and the postings that the state of a
//! deposit requires.

use std::collections::HashMap;

use chain::Amount;

use crate::audit::posting_index::{AccountedAmount, DepositPostings, PostingIndex};
use crate::audit::{AccountIds, Auditor, saturating_add_amounts, store};
use crate::deposits;
use crate::invoices::Disposition;
use crate::ledger::{Account, Suspense};
use db::{self, Tx};
use ids::{AccountId, PostingSeq};

/// The sums of the deposits of an invoice, in base units of the invoice's asset.
#[derive(Debug, Clone, Copy, Default)]
pub struct DepositSums {
    /// The sum of the deposits that the invoice counts and that are confirmed or final.
    pub counted: Amount,
    /// The sum of the partial payments that were moved to the suspense account when the invoice expired. Deposits that
    /// a reorg orphaned later are included, because a separate journal entry reverses them.
    pub short: Amount,
}

impl Auditor {
    /// Checks the postings of each deposit. The deposit must have one hold, resolved as the deposit's state requires.
    /// If no invoice counts the deposit, its money must be in a suspense account. If the deposit is orphaned, its money
    /// must be reversed.
    pub(super) async fn audit_deposits(&mut self, tx: &mut Tx, account_ids: &AccountIds) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_deposits_after(tx, after, self.page).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let names = |deposit: &store::AuditedDeposit| {
                ["seen", "unallocated", "counted", "orphaned"].map(|step| format!("deposit/{}/{step}", deposit.id))
            };
            let entries: Vec<String> = page.iter().flat_map(names).collect();
            let mut index = PostingIndex::read_entries_and_hold_resolutions(tx, &entries).await?;
            for deposit in &page {
                self.report.deposits += 1;
                let postings = index.deposits.remove(&deposit.id).unwrap_or_default();
                if let Err(difference) =
                    compare_deposit_with_postings(account_ids, deposit, &postings, &index.resolved_holds)
                {
                    self.report.count_finding_and_add_if_room(format!(
                        "deposit {} ({} {} on {}): {difference}",
                        deposit.id, deposit.amount, deposit.asset, deposit.chain
                    ));
                }
            }
        }
    }
}

/// Returns the sums of the counted and of the short deposits of these invoices, by invoice id. Invoices without such
/// deposits are left out.
pub async fn sum_counted_and_short_by_invoice(
    tx: &mut Tx,
    invoices: &[i64],
) -> Result<HashMap<i64, DepositSums>, db::Error> {
    let mut received = HashMap::new();
    for deposit in store::list_deposits_of_invoices(tx, invoices).await? {
        let sums: &mut DepositSums = received.entry(deposit.invoice).or_default();
        let sum = match (deposit.disposition, deposit.state) {
            (Disposition::Counted, deposits::State::Confirmed | deposits::State::Final) => &mut sums.counted,
            (Disposition::Short, _) => &mut sums.short,
            (
                Disposition::Counted
                | Disposition::Surplus
                | Disposition::Late
                | Disposition::Foreign
                | Disposition::Dust
                | Disposition::BeforeLease,
                _,
            ) => continue,
        };
        *sum = saturating_add_amounts(*sum, deposit.amount);
    }
    Ok(received)
}

fn compare_deposit_with_postings(
    account_ids: &AccountIds,
    deposit: &store::AuditedDeposit,
    postings: &DepositPostings,
    resolved_holds: &HashMap<PostingSeq, Option<Amount>>,
) -> Result<(), String> {
    let find =
        |account: Account| account_ids.get(&(deposit.mode, account.account_code(), deposit.asset.clone())).copied();
    let (merchant, amount) = (deposit.merchant, deposit.amount);
    let on_chain = find(Account::OnChain(deposit.chain.clone()));
    let incoming = find(Account::MerchantIncoming(merchant));
    let suspense = deposit.disposition.suspense_reason().map(|suspense| find(Account::Suspense(merchant, suspense)));
    // The account that holds the money of the deposit now: its suspense account, or otherwise the merchant's incoming
    // account. A short deposit moved to its suspense account when the invoice expired.
    let current = suspense.unwrap_or(incoming);
    let unallocated_in = suspense.filter(|_| deposit.disposition != Disposition::Short);
    let between = |debit: Option<AccountId>, credit: Option<AccountId>| {
        debit.zip(credit).map(|(debit, credit)| AccountedAmount { debit, credit, amount })
    };

    let Some((seq, hold)) = postings.hold else { return Err("the ledger has no hold for it".into()) };
    if Some(hold) != between(on_chain, incoming) {
        return Err("its hold has another amount, or is between other accounts".into());
    }
    let resolved = resolved_holds.get(&seq).copied();
    let is_posted = resolved == Some(Some(amount));
    let matches = match deposit.state {
        deposits::State::Seen => resolved.is_none() && postings.reversal.is_none(),
        deposits::State::Confirmed | deposits::State::Final => is_posted && postings.reversal.is_none(),
        deposits::State::Orphaned if is_posted => {
            postings.reversal.is_some() && postings.reversal == between(current, on_chain)
        }
        deposits::State::Orphaned => resolved == Some(None) && postings.reversal.is_none(),
    };
    if !matches {
        return Err(format!("its postings do not match its state {}", deposit.state.as_str()));
    }
    if matches!(deposit.state, deposits::State::Confirmed | deposits::State::Final) && !deposit.may_be_confirmed {
        return Err("it is confirmed, and no second source shows it".into());
    }
    let disposition = deposit.disposition.as_str();
    if postings.counted.is_some() {
        let dust = find(Account::Suspense(merchant, Suspense::Dust));
        let is_counted = is_posted
            && unallocated_in.is_none()
            && postings.unallocated == between(incoming, dust)
            && postings.counted == between(dust, incoming);
        let difference = || format!("it is {disposition}, and the ledger has it as dust that was counted later");
        return if is_counted { Ok(()) } else { Err(difference()) };
    }
    match unallocated_in.filter(|_| is_posted) {
        Some(account) if postings.unallocated.is_none() || postings.unallocated != between(incoming, account) => {
            Err(format!("it is {disposition}, and the ledger does not have it as unallocated"))
        }
        None if postings.unallocated.is_some() => {
            Err(format!("it is {disposition}, and the ledger has it as unallocated"))
        }
        Some(_) | None => Ok(()),
    }
}
