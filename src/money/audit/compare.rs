//! Compares the stored deposits, invoices and payments with their postings. Amounts and accounts must match, and
//! nothing may be missing on either side.

use std::collections::HashMap;

use chain::{Amount, AssetId};

use crate::audit::posting_index::{AccountedAmount, DepositPostings, InvoicePosting, InvoiceStep};
use crate::audit::{Auditor, PAGE, store};
use crate::deposits;
use crate::invoices::{self, Disposition};
use crate::ledger::{Account, Suspense};
use db::{self, Tx};
use ids::{AccountId, MerchantId, Mode};

/// Account ids by mode, account code and asset.
pub type AccountIds = HashMap<(Mode, String, AssetId), AccountId>;

/// The sums of the deposits of an invoice, in base units of the invoice's asset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// The sum of the deposits that count for the invoice and are confirmed or final.
    counted: Amount,
    /// The sum of the partial payments that the expiry of the invoice moved to the suspense account. Orphaned deposits
    /// are included, because a separate journal entry reverses them.
    short: Amount,
}

/// The accounts of a merchant for one asset; `None` for an account that was never used.
struct MerchantAccounts {
    incoming: Option<AccountId>,
    pending: Option<AccountId>,
    available: Option<AccountId>,
    short: Option<AccountId>,
    surplus: Option<AccountId>,
}

impl MerchantAccounts {
    fn new(account_ids: &AccountIds, mode: Mode, merchant: MerchantId, asset: &AssetId) -> MerchantAccounts {
        let find = |account: Account| account_ids.get(&(mode, account.account_code(), asset.clone())).copied();
        MerchantAccounts {
            incoming: find(Account::MerchantIncoming(merchant)),
            pending: find(Account::MerchantPending(merchant)),
            available: find(Account::MerchantAvailable(merchant)),
            short: find(Account::Suspense(merchant, Suspense::Short)),
            surplus: find(Account::Suspense(merchant, Suspense::Surplus)),
        }
    }
}

impl Auditor {
    /// Checks the postings of each deposit. The deposit must have one hold, resolved as the deposit's state requires.
    /// If no invoice counts the deposit, its money must be in a suspense account. If the deposit is orphaned, its money
    /// must be reversed. Returns the sums of the deposits by invoice id.
    pub(super) async fn audit_deposits(
        &mut self,
        tx: &mut Tx,
        account_ids: &AccountIds,
    ) -> Result<HashMap<i64, Received>, db::Error> {
        let (mut after, mut received) = (0, HashMap::new());
        loop {
            let page = store::list_deposits_after(tx, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for deposit in &page {
                self.report.deposits += 1;
                let postings = self.posting_index.deposits.remove(&deposit.id).unwrap_or_default();
                if let Err(difference) = self.compare_deposit_with_postings(account_ids, deposit, &postings) {
                    self.report.add_audit_finding(format!(
                        "deposit {} ({} {} on {}): {difference}",
                        deposit.id, deposit.amount, deposit.asset, deposit.chain
                    ));
                }
                let sums: &mut Received = received.entry(deposit.invoice).or_default();
                let sum = match (deposit.disposition, deposit.state) {
                    (Disposition::Counted, deposits::State::Confirmed | deposits::State::Final) => &mut sums.counted,
                    (Disposition::Short, _) => &mut sums.short,
                    (
                        Disposition::Counted
                        | Disposition::Surplus
                        | Disposition::Late
                        | Disposition::Foreign
                        | Disposition::Dust,
                        _,
                    ) => continue,
                };
                *sum = saturating_add_amounts(*sum, deposit.amount);
            }
        }
        let left = std::mem::take(&mut self.posting_index.deposits);
        self.report_unmatched_postings("deposit", left.into_keys().collect());
        Ok(received)
    }

    fn compare_deposit_with_postings(
        &self,
        account_ids: &AccountIds,
        deposit: &store::Deposit,
        postings: &DepositPostings,
    ) -> Result<(), String> {
        let find =
            |account: Account| account_ids.get(&(deposit.mode, account.account_code(), deposit.asset.clone())).copied();
        let (merchant, amount) = (deposit.merchant, deposit.amount);
        let on_chain = find(Account::OnChain(deposit.chain.clone()));
        let incoming = find(Account::MerchantIncoming(merchant));
        let suspense =
            deposit.disposition.suspense_reason().map(|suspense| find(Account::Suspense(merchant, suspense)));
        // The account that holds the money now: suspense if the deposit has one. The expiry of an invoice moves its
        // short deposits there.
        let current = suspense.unwrap_or(incoming);
        let unallocated_in = suspense.filter(|_| deposit.disposition != Disposition::Short);
        let between = |debit: Option<AccountId>, credit: Option<AccountId>| {
            debit.zip(credit).map(|(debit, credit)| AccountedAmount { debit, credit, amount })
        };

        let Some((seq, hold)) = postings.hold else { return Err("the ledger has no hold for it".into()) };
        if Some(hold) != between(on_chain, incoming) {
            return Err("its hold has another amount, or is between other accounts".into());
        }
        let resolved = self.resolved_holds.get(&seq).copied();
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
        let disposition = deposit.disposition.as_str();
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

    /// Checks that the stored settlements, reversals, finality and expiry of each invoice match its postings and its
    /// deposits.
    pub(super) async fn audit_invoices(
        &mut self,
        tx: &mut Tx,
        account_ids: &AccountIds,
        mut received: HashMap<i64, Received>,
    ) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_invoices_after(tx, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for invoice in &page {
                let postings = self.posting_index.invoices.remove(&invoice.id).unwrap_or_default();
                let received = received.remove(&invoice.id).unwrap_or_default();
                let accounts = MerchantAccounts::new(account_ids, invoice.mode, invoice.merchant, &invoice.asset);
                if let Err(difference) = compare_invoice_with_postings(invoice, &accounts, &postings, received) {
                    let state = invoice.state.as_str();
                    self.report.add_audit_finding(format!("invoice {} ({state}): {difference}", invoice.id));
                }
            }
        }
        let left = std::mem::take(&mut self.posting_index.invoices);
        self.report_unmatched_postings("invoice", left.into_keys().collect());
        Ok(())
    }

    /// Checks that each payment from a balance debited its user and credited its merchant.
    pub(super) async fn audit_balance_payments(
        &mut self,
        tx: &mut Tx,
        account_ids: &AccountIds,
    ) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_balance_payments_after(tx, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for payment in &page {
                let find = |account: Account| {
                    account_ids.get(&(payment.mode, account.account_code(), payment.asset.clone())).copied()
                };
                let debit = payment.user.and_then(|user| find(Account::User(user)));
                let credit = find(Account::MerchantAvailable(payment.merchant));
                let amount = payment.amount;
                let expected = debit.zip(credit).map(|(debit, credit)| AccountedAmount { debit, credit, amount });
                let posted = self.posting_index.payments.remove(&payment.id);
                if posted.is_none() || posted != expected {
                    self.report.add_audit_finding(format!(
                        "payment {} ({} of {}): the ledger did not take it from the balance of its user",
                        payment.id, payment.amount, payment.asset
                    ));
                }
            }
        }
        let left = std::mem::take(&mut self.posting_index.payments);
        self.report_unmatched_postings("payment", left.into_keys().collect());
        Ok(())
    }

    /// Adds a finding for each id in `ids`. The ledger has postings for these deposits, invoices or payments, but no
    /// stored row explains the postings.
    fn report_unmatched_postings(&mut self, noun: &str, mut ids: Vec<i64>) {
        ids.sort_unstable();
        for id in ids {
            self.report.add_audit_finding(format!(
                "{noun} {id}: the ledger has entries for it, but it is not stored in such a state"
            ));
        }
    }
}

/// Returns the sum of two amounts, or the largest amount when the sum is out of range. No stored amount is that large,
/// so the comparison with a stored amount then fails.
fn saturating_add_amounts(one: Amount, other: Amount) -> Amount {
    one.checked_add(other).unwrap_or(Amount::MAX)
}

fn compare_invoice_with_postings(
    invoice: &store::Invoice,
    accounts: &MerchantAccounts,
    postings: &[InvoicePosting],
    received: Received,
) -> Result<(), String> {
    let sum_of = |step: InvoiceStep, number: i64, debit: Option<AccountId>, credit: Option<AccountId>| {
        let matching = postings.iter().filter(|posting| {
            (posting.step, posting.settlement) == (step, number)
                && (Some(posting.posted.debit), Some(posting.posted.credit)) == (debit, credit)
        });
        Amount::checked_sum(matching.map(|posting| posting.posted.amount)).unwrap_or(Amount::MAX)
    };
    let MerchantAccounts { incoming, pending, available, short, surplus } = *accounts;
    let is_paid = invoice.state == invoices::State::Paid;
    // The sum of the postings that belong to a settlement or to the expiry. At the end it must equal the sum of all
    // postings.
    let mut explained = Amount::ZERO;
    let mut last = (Amount::ZERO, Amount::ZERO);
    for number in 1..=invoice.settlement_count {
        let earned = sum_of(InvoiceStep::Paid, number, incoming, pending);
        let surplus_part = sum_of(InvoiceStep::Paid, number, incoming, surplus);
        let finalized = sum_of(InvoiceStep::Final, number, pending, available);
        let reversed_pending = sum_of(InvoiceStep::Reversed, number, pending, incoming);
        let reversed_available = sum_of(InvoiceStep::Reversed, number, available, incoming);
        let reversed_surplus = sum_of(InvoiceStep::Reversed, number, surplus, incoming);
        if earned.is_zero() {
            return Err(format!("settlement {number} has no entry, or one between other accounts"));
        }
        let is_current = is_paid && number == invoice.settlement_count;
        let (to_reverse, surplus_to_reverse) =
            if is_current { (Amount::ZERO, Amount::ZERO) } else { (earned, surplus_part) };
        // A reversal takes the money from the account that holds it: pending before the deposits are final, available
        // after.
        let expected_pending = if finalized.is_zero() { to_reverse } else { Amount::ZERO };
        let expected_available = if finalized == earned { to_reverse } else { Amount::ZERO };
        let is_reversed = reversed_pending == expected_pending
            && reversed_available == expected_available
            && reversed_surplus == surplus_to_reverse;
        if !is_reversed || !(finalized.is_zero() || finalized == earned) {
            return Err(format!("settlement {number}: its entries do not match its reversal or its finality"));
        }
        if is_current && finalized.is_zero() == invoice.is_final {
            return Err(format!("settlement {number}: its entries do not match its finality"));
        }
        last = (earned, surplus_part);
        for sum in [earned, surplus_part, finalized, reversed_pending, reversed_available, reversed_surplus] {
            explained = saturating_add_amounts(explained, sum);
        }
    }
    let expired = sum_of(InvoiceStep::Expired, 0, incoming, short);
    let all = Amount::checked_sum(postings.iter().map(|posting| posting.posted.amount)).unwrap_or(Amount::MAX);
    if saturating_add_amounts(explained, expired) != all {
        return Err("the ledger has further entries for it, or entries between other accounts".into());
    }
    let was_settled = invoice.settlement_count > 0;
    let matches_state = match invoice.state {
        invoices::State::Open | invoices::State::Cancelled => !was_settled,
        invoices::State::Paid | invoices::State::Reversed => was_settled,
        invoices::State::Expired => true,
    };
    if !matches_state || invoice.credited_amount.is_some() != is_paid {
        return Err(format!("{} settlements do not match its state", invoice.settlement_count));
    }
    if is_paid
        && (invoice.credited_amount != Some(last.0) || saturating_add_amounts(last.0, last.1) != received.counted)
    {
        return Err("it was not settled with the money that its deposits brought".into());
    }
    let least = invoice.amount_due.saturating_sub(invoice.tolerance);
    let is_covered = !received.counted.is_zero() && received.counted >= least;
    match invoice.state {
        invoices::State::Open | invoices::State::Reversed if is_covered => {
            Err("its deposits brought enough, and it was not settled".into())
        }
        invoices::State::Expired | invoices::State::Cancelled if !received.counted.is_zero() => {
            Err("deposits count for it although it has ended".into())
        }
        _ if received.short != expired => Err("not all of its partial payments were moved when it expired".into()),
        invoices::State::Open
        | invoices::State::Reversed
        | invoices::State::Paid
        | invoices::State::Expired
        | invoices::State::Cancelled => Ok(()),
    }
}
