//! Compares the stored payments from user balances with their postings.

use crate::audit::posting_index::{AccountedAmount, PostingIndex};
use crate::audit::{AccountIds, Auditor, store};
use crate::ledger::Account;
use db::{self, Tx};

impl Auditor {
    /// Checks that each payment from a balance debited its user and credited its merchant.
    pub(super) async fn audit_balance_payments(
        &mut self,
        tx: &mut Tx,
        account_ids: &AccountIds,
    ) -> Result<(), db::Error> {
        let mut after = 0;
        loop {
            let page = store::list_successful_balance_payments_after(tx, after, self.page).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let entries: Vec<String> = page.iter().map(|payment| format!("payment/{}/paid", payment.id)).collect();
            let mut index = PostingIndex::read_entries_and_hold_resolutions(tx, &entries).await?;
            for payment in &page {
                let find = |account: Account| {
                    account_ids.get(&(payment.mode, account.account_code(), payment.asset.clone())).copied()
                };
                let debit = payment.user.and_then(|user| find(Account::User(user)));
                let credit = find(Account::MerchantAvailable(payment.merchant));
                let amount = payment.amount;
                let expected = debit.zip(credit).map(|(debit, credit)| AccountedAmount { debit, credit, amount });
                let posted = index.payments.remove(&payment.id);
                if posted.is_none() || posted != expected {
                    self.report.count_finding_and_add_if_room(format!(
                        "payment {} ({} of {}): the ledger did not take it from the balance of its user",
                        payment.id, payment.amount, payment.asset
                    ));
                }
            }
        }
    }
}
