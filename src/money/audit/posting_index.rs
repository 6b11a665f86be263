//! An index of postings by the deposit, invoice or payment that caused them. The name of a journal entry, such as
//! `deposit/7/seen`, contains the kind and the id of this object. Entry names are unique.

use std::collections::HashMap;

use chain::Amount;

use crate::ledger::{PostingKind, StoredPosting, list_postings_of_entries, list_resolutions_of_holds};
use db::Tx;
use ids::{AccountId, PostingSeq};

/// The accounts and the amount of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountedAmount {
    /// The debited account.
    pub debit: AccountId,
    /// The credited account.
    pub credit: AccountId,
    /// The amount of the posting, in base units of the asset of both accounts.
    pub amount: Amount,
}

/// The postings of a deposit.
#[derive(Debug, Default)]
pub struct DepositPostings {
    /// The sequence number of the hold that was created when the deposit was first seen, with its accounts and amount;
    /// `None` when there is no such hold.
    pub hold: Option<(PostingSeq, AccountedAmount)>,
    /// The move to a suspense account, which is posted when no invoice counts the deposit.
    pub unallocated: Option<AccountedAmount>,
    /// The move from the suspense account back to the invoice, which is posted when dust is counted later.
    pub counted: Option<AccountedAmount>,
    /// The reversal, which is posted when a reorg removes the block of a confirmed deposit.
    pub reversal: Option<AccountedAmount>,
}

/// The step of an invoice that a posting books, such as its settlement or its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceStep {
    /// The invoice was paid: its money moved to the merchant's pending account.
    Paid,
    /// The credited money was moved to the surplus account, because another payment had paid for the same thing.
    Surplus,
    /// A reorg removed money of a paid invoice, and its settlement was undone.
    Reversed,
    /// The deposits became final: the money moved from the merchant's pending account to the available account.
    Final,
    /// The invoice expired: its partial payments moved to the suspense account.
    Expired,
}

/// A posting of an invoice.
#[derive(Debug, Clone, Copy)]
pub struct InvoicePosting {
    /// The step of the invoice that the posting books.
    pub step: InvoiceStep,
    /// The number of the settlement, counted from 1. It is 0 for the expiry, and -1 when the name of the journal entry
    /// has no valid number.
    pub settlement: i64,
    /// The accounts and the amount of the posting.
    pub posted: AccountedAmount,
}

/// The postings of one page of deposits, invoices or payments. An audit keeps only one such page in memory.
#[derive(Debug, Default)]
pub struct PostingIndex {
    /// The postings of deposits, by deposit id.
    pub deposits: HashMap<i64, DepositPostings>,
    /// The postings of invoices, by invoice id.
    pub invoices: HashMap<i64, Vec<InvoicePosting>>,
    /// The postings of payments from balances, by payment id.
    pub payments: HashMap<i64, AccountedAmount>,
    /// The posted amount of each resolved hold; `None` for a voided hold.
    pub resolved_holds: HashMap<PostingSeq, Option<Amount>>,
}

impl PostingIndex {
    /// Reads the postings of the named journal entries from the ledger, with the postings that resolve their holds.
    ///
    /// # Errors
    /// Any [`db::Error`] of the database.
    pub async fn read_entries_and_hold_resolutions(tx: &mut Tx, entries: &[String]) -> Result<PostingIndex, db::Error> {
        let mut index = PostingIndex::default();
        let postings = list_postings_of_entries(tx, entries).await?;
        postings.iter().for_each(|posting| index.index_posting_by_entry_name(posting));
        let holds: Vec<PostingSeq> =
            index.deposits.values().filter_map(|postings| postings.hold.map(|(seq, _)| seq)).collect();
        for resolution in list_resolutions_of_holds(tx, &holds).await? {
            let Some(hold) = resolution.hold_seq else { continue };
            let posted = (resolution.kind == PostingKind::Post).then_some(resolution.amount);
            index.resolved_holds.insert(hold, posted);
        }
        Ok(index)
    }

    /// Adds a posting to the index. The name of its journal entry, such as `invoice/7/paid/1`, tells the deposit,
    /// invoice or payment. Postings of journal entries with other names are ignored.
    pub fn index_posting_by_entry_name(&mut self, posting: &StoredPosting) {
        let posted = AccountedAmount { debit: posting.debit, credit: posting.credit, amount: posting.amount };
        let parts: Vec<&str> = posting.entry.split('/').collect();
        let Some(id) = parts.get(1).and_then(|id| id.parse().ok()) else { return };
        match (parts.as_slice(), posting.kind) {
            (["deposit", _, "seen"], PostingKind::Pending) => {
                self.find_or_add_deposit_postings(id).hold = Some((posting.seq, posted))
            }
            (["deposit", _, "unallocated"], PostingKind::Posted) => {
                self.find_or_add_deposit_postings(id).unallocated = Some(posted)
            }
            (["deposit", _, "counted"], PostingKind::Posted) => {
                self.find_or_add_deposit_postings(id).counted = Some(posted)
            }
            (["deposit", _, "orphaned"], PostingKind::Posted) => {
                self.find_or_add_deposit_postings(id).reversal = Some(posted)
            }
            (["invoice", _, "paid", number], PostingKind::Posted) => {
                self.add_invoice_posting(id, InvoiceStep::Paid, number, posted);
            }
            (["invoice", _, "surplus", number], PostingKind::Posted) => {
                self.add_invoice_posting(id, InvoiceStep::Surplus, number, posted);
            }
            (["invoice", _, "reversed", number], PostingKind::Posted) => {
                self.add_invoice_posting(id, InvoiceStep::Reversed, number, posted);
            }
            (["invoice", _, "final", number], PostingKind::Posted) => {
                self.add_invoice_posting(id, InvoiceStep::Final, number, posted);
            }
            (["invoice", _, "expired"], PostingKind::Posted) => {
                self.add_invoice_posting(id, InvoiceStep::Expired, "0", posted);
            }
            (["payment", _, "paid"], PostingKind::Posted) => _ = self.payments.insert(id, posted),
            _ => {}
        }
    }

    fn find_or_add_deposit_postings(&mut self, id: i64) -> &mut DepositPostings {
        self.deposits.entry(id).or_default()
    }

    fn add_invoice_posting(&mut self, id: i64, step: InvoiceStep, number: &str, posted: AccountedAmount) {
        let settlement = number.parse().unwrap_or(-1);
        self.invoices.entry(id).or_default().push(InvoicePosting { step, settlement, posted });
    }
}
