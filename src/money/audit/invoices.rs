//! Compares the stored invoices with their postings and their deposits: the amounts, the accounts, and the postings
//! that the state of an invoice requires.

use chain::{Amount, AssetId};

use crate::audit::deposits::{DepositSums, sum_counted_and_short_by_invoice};
use crate::audit::posting_index::{InvoicePosting, InvoiceStep, PostingIndex};
use crate::audit::{AccountIds, Auditor, saturating_add_amounts, store};
use crate::invoices;
use crate::ledger::{Account, Suspense};
use db::{self, Tx};
use ids::{AccountId, MerchantId, Mode};

/// The ids of the ledger accounts of a merchant for one asset. A field is `None` when the account was never used.
struct MerchantAccounts {
    incoming: Option<AccountId>,
    pending: Option<AccountId>,
    available: Option<AccountId>,
    short: Option<AccountId>,
    surplus: Option<AccountId>,
}

impl MerchantAccounts {
    fn find_for_asset(account_ids: &AccountIds, mode: Mode, merchant: MerchantId, asset: &AssetId) -> MerchantAccounts {
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
    /// Checks that the stored settlements, reversals, finality and expiry of each invoice match its postings and its
    /// deposits.
    pub(super) async fn audit_invoices(&mut self, tx: &mut Tx, account_ids: &AccountIds) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_invoices_after(tx, after, self.page).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let ids: Vec<i64> = page.iter().map(|invoice| invoice.id).collect();
            let mut received = sum_counted_and_short_by_invoice(tx, &ids).await?;
            let entries: Vec<String> = page.iter().flat_map(list_possible_entry_names).collect();
            let mut index = PostingIndex::read_entries_and_hold_resolutions(tx, &entries).await?;
            for invoice in &page {
                let postings = index.invoices.remove(&invoice.id).unwrap_or_default();
                let received = received.remove(&invoice.id).unwrap_or_default();
                let accounts =
                    MerchantAccounts::find_for_asset(account_ids, invoice.mode, invoice.merchant, &invoice.asset);
                if let Err(difference) = compare_with_postings_and_deposits(invoice, &accounts, &postings, received) {
                    let state = invoice.state.as_str();
                    self.report
                        .count_finding_and_add_if_room(format!("invoice {} ({state}): {difference}", invoice.id));
                }
            }
        }
    }
}

/// Returns the names of all journal entries that the invoice may have: the entry of its expiry, and the entries of each
/// of its settlements. Entries of settlements with other numbers are found when the hash chain is audited.
fn list_possible_entry_names(invoice: &store::AuditedInvoice) -> Vec<String> {
    let id = invoice.id;
    let mut names = vec![format!("invoice/{id}/expired")];
    for number in 1..=invoice.settlement_count {
        names.extend(["paid", "surplus", "reversed", "final"].map(|step| format!("invoice/{id}/{step}/{number}")));
    }
    names
}

fn compare_with_postings_and_deposits(
    invoice: &store::AuditedInvoice,
    accounts: &MerchantAccounts,
    postings: &[InvoicePosting],
    received: DepositSums,
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
    // The sum of the postings that a settlement or the expiry of the invoice explains. At the end it must equal the sum
    // of all postings of the invoice.
    let mut explained = Amount::ZERO;
    let mut last = (Amount::ZERO, Amount::ZERO);
    for number in 1..=invoice.settlement_count {
        let earned = sum_of(InvoiceStep::Paid, number, incoming, pending);
        let surplus_part = sum_of(InvoiceStep::Paid, number, incoming, surplus);
        let finalized = sum_of(InvoiceStep::Final, number, pending, available);
        let reversed_pending = sum_of(InvoiceStep::Reversed, number, pending, incoming);
        let reversed_available = sum_of(InvoiceStep::Reversed, number, available, incoming);
        let reversed_surplus = sum_of(InvoiceStep::Reversed, number, surplus, incoming);
        // When another payment has already paid for the same order, the whole settlement moves to the surplus account.
        let moved_pending = sum_of(InvoiceStep::Surplus, number, pending, surplus);
        let moved_available = sum_of(InvoiceStep::Surplus, number, available, surplus);
        let moved = saturating_add_amounts(moved_pending, moved_available);
        if !moved.is_zero() && moved != earned {
            return Err(format!("settlement {number}: not all of it was moved to the surplus account"));
        }
        let (kept, surplus_total) = (earned.saturating_sub(moved), saturating_add_amounts(surplus_part, moved));
        if earned.is_zero() && surplus_part.is_zero() {
            return Err(format!("settlement {number} has no entry, or one between other accounts"));
        }
        let is_current = is_paid && number == invoice.settlement_count;
        let (to_reverse, surplus_to_reverse) =
            if is_current { (Amount::ZERO, Amount::ZERO) } else { (kept, surplus_total) };
        // A reversal takes the money from the account that holds it: from the pending account before the deposits are
        // final, and from the available account afterwards.
        let expected_pending = if finalized.is_zero() { to_reverse } else { Amount::ZERO };
        let expected_available = if finalized == earned { to_reverse } else { Amount::ZERO };
        let is_reversed = reversed_pending == expected_pending
            && reversed_available == expected_available
            && reversed_surplus == surplus_to_reverse;
        if !is_reversed || !(finalized.is_zero() || finalized == earned) {
            return Err(format!("settlement {number}: its entries do not match its reversal or its finality"));
        }
        let is_final = !kept.is_zero() && !finalized.is_zero();
        if is_current && is_final != invoice.is_final {
            return Err(format!("settlement {number}: its entries do not match its finality"));
        }
        last = (kept, surplus_total);
        let reversed = [reversed_pending, reversed_available, reversed_surplus];
        for sum in [earned, surplus_part, moved, finalized].into_iter().chain(reversed) {
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
