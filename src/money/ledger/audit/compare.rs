//! Deposits, invoices and payments as they are stored, against what is booked about them: amounts, accounts, and that nothing
//! is missing on either side.

use std::collections::HashMap;

use chain::{Amount, AssetId};

use crate::ledger::audit::posting_index::{Moved, OfDeposit, OfInvoice, Step};
use crate::ledger::audit::{Auditor, PAGE};
use crate::ledger::{Account, Suspense, store};
use db::{self, Tx};
use ids::{AccountId, MerchantId, Mode};

/// Accounts by what they are for.
pub type Directory = HashMap<(Mode, String, AssetId), AccountId>;

/// What of an invoice's deposits matters for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    /// Confirmed or final and counted.
    counted: Amount,
    /// Counted until it expired, taken back since or not.
    short: Amount,
}

/// The accounts of one merchant in one asset; one that was never used has none.
struct Accounts {
    incoming: Option<AccountId>,
    pending: Option<AccountId>,
    available: Option<AccountId>,
    short: Option<AccountId>,
    surplus: Option<AccountId>,
}

impl Accounts {
    fn new(directory: &Directory, mode: Mode, merchant: MerchantId, asset: &AssetId) -> Accounts {
        let find = |account: Account| directory.get(&(mode, account.code(), asset.clone())).copied();
        Accounts {
            incoming: find(Account::MerchantIncoming(merchant)),
            pending: find(Account::MerchantPending(merchant)),
            available: find(Account::MerchantAvailable(merchant)),
            short: find(Account::Suspense(merchant, Suspense::Short)),
            surplus: find(Account::Suspense(merchant, Suspense::Surplus)),
        }
    }
}

impl Auditor {
    /// Each deposit has one hold between its own accounts, ended as its state says; what no invoice counts is apart, and what
    /// was credited and lost its block was taken back from where it was.
    pub(super) async fn compare_deposits(
        &mut self,
        tx: &mut Tx,
        directory: &Directory,
    ) -> Result<HashMap<i64, Sums>, db::Error> {
        let (mut after, mut sums) = (0, HashMap::new());
        loop {
            let page = store::list_deposits_for_audit(tx, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for deposit in &page {
                self.report.deposits += 1;
                let posting_index = self.posting_index.deposits.remove(&deposit.id).unwrap_or_default();
                if let Err(what) = self.deposit_agrees(directory, deposit, &posting_index) {
                    self.report.find(format!(
                        "deposit {} ({} {} on {}): {what}",
                        deposit.id, deposit.amount, deposit.asset, deposit.chain
                    ));
                }
                let of: &mut Sums = sums.entry(deposit.invoice).or_default();
                let sum = match (deposit.used.as_str(), deposit.state.as_str()) {
                    ("counted", "confirmed" | "final") => &mut of.counted,
                    ("short", _) => &mut of.short,
                    _ => continue,
                };
                *sum = sum.checked_add(deposit.amount).unwrap_or(Amount::MAX);
            }
        }
        let left = std::mem::take(&mut self.posting_index.deposits);
        self.name_leftovers("deposit", left.into_keys().collect());
        Ok(sums)
    }

    fn deposit_agrees(
        &self,
        directory: &Directory,
        deposit: &store::AuditedDeposit,
        posting_index: &OfDeposit,
    ) -> Result<(), String> {
        let find = |code: String| directory.get(&(deposit.mode, code, deposit.asset.clone())).copied();
        let (merchant, amount) = (deposit.merchant, deposit.amount);
        let on_chain = find(format!("onchain:{}", deposit.chain));
        let incoming = find(Account::MerchantIncoming(merchant).code());
        let suspense = |suspense| Some(find(Account::Suspense(merchant, suspense).code()));
        let (apart_in, home) = match deposit.used.as_str() {
            "counted" => (None, incoming),
            // The expiry of the invoice moved it, not an entry of its own.
            "short" => (None, suspense(Suspense::Short).flatten()),
            "surplus" => (suspense(Suspense::Surplus), suspense(Suspense::Surplus).flatten()),
            "late" => (suspense(Suspense::Late), suspense(Suspense::Late).flatten()),
            "foreign" => (suspense(Suspense::Foreign), suspense(Suspense::Foreign).flatten()),
            "dust" => (suspense(Suspense::Dust), suspense(Suspense::Dust).flatten()),
            other => return Err(format!("`{other}` is no use of a deposit")),
        };
        let moved = |debit: Option<AccountId>, credit: Option<AccountId>| {
            debit.zip(credit).map(|(debit, credit)| Moved { debit, credit, amount })
        };

        let Some((seq, hold)) = posting_index.hold else { return Err("the ledger never held it".into()) };
        if Some(hold) != moved(on_chain, incoming) {
            return Err("the ledger holds another amount, or holds it between other accounts".into());
        }
        let ended = self.ended.get(&seq).copied();
        let posted = ended == Some(Some(amount));
        let agrees = match deposit.state.as_str() {
            "seen" => ended.is_none() && posting_index.taken_back.is_none(),
            "confirmed" | "final" => posted && posting_index.taken_back.is_none(),
            "orphaned" if posted => {
                posting_index.taken_back.is_some() && posting_index.taken_back == moved(home, on_chain)
            }
            "orphaned" => ended == Some(None) && posting_index.taken_back.is_none(),
            _ => false,
        };
        if !agrees {
            return Err(format!("the ledger does not show it as {}", deposit.state));
        }
        match apart_in.filter(|_| posted) {
            Some(apart) if posting_index.apart.is_none() || posting_index.apart != moved(incoming, apart) => {
                Err(format!("the ledger does not keep it apart as {}", deposit.used))
            }
            None if posting_index.apart.is_some() => {
                Err(format!("the ledger keeps it apart, and it is {}", deposit.used))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Each invoice was settled, reversed, released and ended as it says, with the money that its deposits brought.
    pub(super) async fn compare_invoices(
        &mut self,
        tx: &mut Tx,
        directory: &Directory,
        mut sums: HashMap<i64, Sums>,
    ) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_invoices_for_audit(tx, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for invoice in &page {
                let legs = self.posting_index.invoices.remove(&invoice.id).unwrap_or_default();
                let sums = sums.remove(&invoice.id).unwrap_or_default();
                let accounts = Accounts::new(directory, invoice.mode, invoice.merchant, &invoice.asset);
                if let Err(what) = invoice_agrees(invoice, &accounts, &legs, sums) {
                    self.report.find(format!("invoice {} ({}): {what}", invoice.id, invoice.state));
                }
            }
        }
        let left = std::mem::take(&mut self.posting_index.invoices);
        self.name_leftovers("invoice", left.into_keys().collect());
        Ok(())
    }

    /// Each payment from a balance was taken from its user.
    pub(super) async fn compare_payments(&mut self, tx: &mut Tx, directory: &Directory) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_balance_payments_for_audit(tx, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for payment in &page {
                let find =
                    |account: Account| directory.get(&(payment.mode, account.code(), payment.asset.clone())).copied();
                let debit = payment.user.and_then(|user| find(Account::User(user)));
                let credit = find(Account::MerchantAvailable(payment.merchant));
                let expected = debit.zip(credit).map(|(debit, credit)| Moved { debit, credit, amount: payment.amount });
                let taken = self.posting_index.payments.remove(&payment.id);
                if taken.is_none() || taken != expected {
                    self.report.find(format!(
                        "payment {} ({} of {}): the ledger did not take it from the balance of its user",
                        payment.id, payment.amount, payment.asset
                    ));
                }
            }
        }
        let left = std::mem::take(&mut self.posting_index.payments);
        self.name_leftovers("payment", left.into_keys().collect());
        Ok(())
    }

    fn name_leftovers(&mut self, what: &str, mut ids: Vec<i64>) {
        ids.sort_unstable();
        for id in ids {
            self.report
                .find(format!("{what} {id}: the ledger has entries of it, and it is not stored, or not like that"));
        }
    }
}

fn invoice_agrees(
    invoice: &store::AuditedInvoice,
    accounts: &Accounts,
    legs: &[OfInvoice],
    sums: Sums,
) -> Result<(), String> {
    let total = |step: Step, number: i64, debit: Option<AccountId>, credit: Option<AccountId>| {
        let of = legs.iter().filter(|leg| {
            (leg.step, leg.settlement) == (step, number)
                && (Some(leg.moved.debit), Some(leg.moved.credit)) == (debit, credit)
        });
        Amount::checked_sum(of.map(|leg| leg.moved.amount)).unwrap_or(Amount::MAX)
    };
    let both = |one: Amount, other: Amount| one.checked_add(other).unwrap_or(Amount::MAX);
    let Accounts { incoming, pending, available, short, surplus } = *accounts;
    let is_paid = invoice.state == "paid";
    let mut explained = Amount::ZERO;
    let mut last = (Amount::ZERO, Amount::ZERO);
    for number in 1..=invoice.settlements {
        let earned = total(Step::Paid, number, incoming, pending);
        let above = total(Step::Paid, number, incoming, surplus);
        let released = total(Step::Final, number, pending, available);
        let back = [(pending, Amount::ZERO), (available, earned)].map(|(from, if_released)| {
            let expected = released == if_released;
            (expected, total(Step::Reversed, number, from, incoming))
        });
        let back_above = total(Step::Reversed, number, surplus, incoming);
        if earned.is_zero() {
            return Err(format!("settlement {number} has no entry, or one between other accounts"));
        }
        let stands = is_paid && number == invoice.settlements;
        let returned = if stands { (Amount::ZERO, Amount::ZERO) } else { (earned, above) };
        let returns = back.iter().all(|(expected, sum)| *sum == if *expected { returned.0 } else { Amount::ZERO });
        if !returns || back_above != returned.1 || !(released.is_zero() || released == earned) {
            return Err(format!("settlement {number} was not reversed or released as it says"));
        }
        if stands && released.is_zero() == invoice.is_released {
            return Err(format!("settlement {number} was not released as it says"));
        }
        last = (earned, above);
        for sum in [earned, above, released, back[0].1, back[1].1, back_above] {
            explained = both(explained, sum);
        }
    }
    let expired = total(Step::Expired, 0, incoming, short);
    if both(explained, expired) != Amount::checked_sum(legs.iter().map(|leg| leg.moved.amount)).unwrap_or(Amount::MAX) {
        return Err("the ledger has entries of it that it does not tell of, or between other accounts".into());
    }
    let was_settled = invoice.settlements > 0;
    let fits = match invoice.state.as_str() {
        "open" | "cancelled" => !was_settled,
        "paid" | "reversed" => was_settled,
        "expired" => true,
        _ => false,
    };
    if !fits || invoice.settled.is_some() != is_paid {
        return Err(format!("{} settlements do not fit its state", invoice.settlements));
    }
    if is_paid && (invoice.settled != Some(last.0) || both(last.0, last.1) != sums.counted) {
        return Err("it was not settled with the money that its deposits brought".into());
    }
    let enough = !sums.counted.is_zero() && sums.counted >= invoice.due.saturating_sub(invoice.tolerance);
    match invoice.state.as_str() {
        "open" | "reversed" if enough => Err("its deposits brought enough, and it was not settled".into()),
        "expired" | "cancelled" if !sums.counted.is_zero() => Err("deposits count for it, and it is over".into()),
        _ if sums.short != expired => Err("not all of its part payments were moved when it expired".into()),
        _ => Ok(()),
    }
}
