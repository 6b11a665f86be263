//! The postings of deposits, invoices and payments, by the names of their journal entries. Each name is used once, so each of
//! these is at most one entry.

use std::collections::HashMap;

use chain::Amount;

use crate::ledger::{PostingKind, StoredPosting};
use ids::{AccountId, PostingSeq};

/// The accounts and the amount of a posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountedAmount {
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Amount,
}

/// The postings of a deposit.
#[derive(Debug, Default)]
pub struct DepositPostings {
    pub hold: Option<(PostingSeq, AccountedAmount)>,
    /// Posted when no invoice counts the deposit.
    pub unallocated: Option<AccountedAmount>,
    /// Posted when the block of a confirmed deposit vanished.
    pub reversal: Option<AccountedAmount>,
}

/// The step of an invoice that a posting belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceStep {
    Paid,
    Reversed,
    Final,
    Expired,
}

/// A posting of an invoice.
#[derive(Debug, Clone, Copy)]
pub struct InvoicePosting {
    pub step: InvoiceStep,
    /// The number of the settlement, from 1; 0 for the expiry; -1 where the name has no valid number.
    pub settlement: i64,
    pub posted: AccountedAmount,
}

#[derive(Debug, Default)]
pub struct PostingIndex {
    pub deposits: HashMap<i64, DepositPostings>,
    pub invoices: HashMap<i64, Vec<InvoicePosting>>,
    /// Payments from balances.
    pub payments: HashMap<i64, AccountedAmount>,
}

impl PostingIndex {
    /// Adds a posting under the deposit, invoice or payment that the name of its entry begins with. Other postings are left
    /// out.
    pub fn add(&mut self, posting: &StoredPosting) {
        let posted = AccountedAmount { debit: posting.debit, credit: posting.credit, amount: posting.amount };
        let parts: Vec<&str> = posting.entry.split('/').collect();
        let Some(id) = parts.get(1).and_then(|id| id.parse().ok()) else { return };
        match (parts.as_slice(), posting.kind) {
            (["deposit", _, "seen"], PostingKind::Pending) => self.deposit(id).hold = Some((posting.seq, posted)),
            (["deposit", _, "apart"], PostingKind::Posted) => self.deposit(id).unallocated = Some(posted),
            (["deposit", _, "orphaned"], PostingKind::Posted) => self.deposit(id).reversal = Some(posted),
            (["invoice", _, "paid", number], PostingKind::Posted) => {
                self.add_invoice_posting(id, InvoiceStep::Paid, number, posted);
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

    fn deposit(&mut self, id: i64) -> &mut DepositPostings {
        self.deposits.entry(id).or_default()
    }

    fn add_invoice_posting(&mut self, id: i64, step: InvoiceStep, number: &str, posted: AccountedAmount) {
        let settlement = number.parse().unwrap_or(-1);
        self.invoices.entry(id).or_default().push(InvoicePosting { step, settlement, posted });
    }
}
