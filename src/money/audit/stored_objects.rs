//! Checks that the ledger has no postings for deposits, invoices or payments that are not stored. The opposite check,
//! that stored rows have their postings, stands in the files that audit these rows.

use std::collections::{HashMap, HashSet};

use crate::audit::posting_index::{InvoiceStep, PostingIndex};
use crate::audit::{Auditor, FINDINGS_MAX, store};
use crate::ledger::StoredPosting;
use db::{self, Tx};

impl Auditor {
    /// Checks that each deposit, invoice and payment that these postings name is stored in a state that explains the
    /// postings.
    pub(super) async fn check_that_objects_are_stored(
        &mut self,
        tx: &mut Tx,
        page: &[StoredPosting],
    ) -> Result<(), db::Error> {
        let mut index = PostingIndex::default();
        page.iter().for_each(|posting| index.index_posting_by_entry_name(posting));
        let deposits: Vec<i64> = index.deposits.keys().copied().collect();
        let stored = store::filter_stored_deposit_ids(tx, &deposits).await?;
        self.report_objects_without_rows("deposit", deposits, &stored);
        let payments: Vec<i64> = index.payments.keys().copied().collect();
        let stored = store::filter_paid_balance_payment_ids(tx, &payments).await?;
        self.report_objects_without_rows("payment", payments, &stored);
        self.check_that_posted_settlements_exist(tx, &index).await
    }

    /// Checks that each invoice which the postings name is stored. Also checks that the invoice was settled as often as
    /// the settlement numbers in the names of the entries require.
    async fn check_that_posted_settlements_exist(
        &mut self,
        tx: &mut Tx,
        index: &PostingIndex,
    ) -> Result<(), db::Error> {
        let invoices: Vec<i64> = index.invoices.keys().copied().collect();
        let settlements: HashMap<i64, i64> =
            store::list_settlement_counts_of_invoices(tx, &invoices).await?.into_iter().collect();
        let stored: Vec<i64> = settlements.keys().copied().collect();
        self.report_objects_without_rows("invoice", invoices, &stored);
        for (id, postings) in &index.invoices {
            let Some(count) = settlements.get(id) else { continue };
            let is_unknown = postings.iter().any(|posting| match posting.step {
                InvoiceStep::Paid | InvoiceStep::Surplus | InvoiceStep::Reversed | InvoiceStep::Final => {
                    !(1..=*count).contains(&posting.settlement)
                }
                InvoiceStep::Expired => false,
            });
            if is_unknown
                && self.reported_objects.len() < FINDINGS_MAX
                && self.reported_objects.insert(("invoice", *id))
            {
                self.report.count_finding_and_add_if_room(format!(
                    "invoice {id}: the ledger has entries for a settlement that it does not have"
                ));
            }
        }
        Ok(())
    }

    /// Adds a finding for each id in `named` that is not in `stored`. The ledger has postings for these deposits,
    /// invoices or payments, but no stored row explains the postings. A missing object is reported once; after 100
    /// different objects, the same object may be counted again.
    fn report_objects_without_rows(&mut self, noun: &'static str, named: Vec<i64>, stored: &[i64]) {
        let stored: HashSet<i64> = stored.iter().copied().collect();
        let mut missing: Vec<i64> = named.into_iter().filter(|id| !stored.contains(id)).collect();
        missing.sort_unstable();
        for id in missing {
            if self.reported_objects.len() >= FINDINGS_MAX || self.reported_objects.insert((noun, id)) {
                self.report.count_finding_and_add_if_room(format!(
                    "{noun} {id}: the ledger has entries for it, but it is not stored in such a state"
                ));
            }
        }
    }
}
