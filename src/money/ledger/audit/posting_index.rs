//! What the names of entries say they are about. An entry is named once for ever, so each of these is at most one entry.

use std::collections::HashMap;

use chain::Amount;

use crate::ledger::{Kind, store};
use ids::{AccountId, PostingSeq};

/// Between two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub debit: AccountId,
    pub credit: AccountId,
    pub amount: Amount,
}

/// What was booked about a deposit.
#[derive(Debug, Default)]
pub struct OfDeposit {
    pub hold: Option<(PostingSeq, Moved)>,
    pub apart: Option<Moved>,
    /// Posted when its block vanished after it was confirmed.
    pub taken_back: Option<Moved>,
}

/// A step of an invoice's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Paid,
    Reversed,
    Final,
    Expired,
}

/// One leg of a step, with the number of the settlement that it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct OfInvoice {
    pub step: Step,
    pub settlement: i64,
    pub moved: Moved,
}

#[derive(Debug, Default)]
pub struct PostingIndex {
    pub deposits: HashMap<i64, OfDeposit>,
    pub invoices: HashMap<i64, Vec<OfInvoice>>,
    /// What was taken from balances.
    pub payments: HashMap<i64, Moved>,
}

impl PostingIndex {
    /// Notes a posting by its name; whatever is named in another way belongs to none of these.
    pub fn note(&mut self, posting: &store::Stored) {
        let moved = Moved { debit: posting.debit, credit: posting.credit, amount: posting.amount };
        let parts: Vec<&str> = posting.entry.split('/').collect();
        let Some(id) = parts.get(1).and_then(|id| id.parse().ok()) else { return };
        match (parts.as_slice(), posting.kind) {
            (["deposit", _, "seen"], Kind::Pending) => self.deposit(id).hold = Some((posting.seq, moved)),
            (["deposit", _, "apart"], Kind::Posted) => self.deposit(id).apart = Some(moved),
            (["deposit", _, "orphaned"], Kind::Posted) => self.deposit(id).taken_back = Some(moved),
            (["invoice", _, "paid", number], Kind::Posted) => self.invoice(id, Step::Paid, number, moved),
            (["invoice", _, "reversed", number], Kind::Posted) => self.invoice(id, Step::Reversed, number, moved),
            (["invoice", _, "final", number], Kind::Posted) => self.invoice(id, Step::Final, number, moved),
            (["invoice", _, "expired"], Kind::Posted) => self.invoice(id, Step::Expired, "0", moved),
            (["payment", _, "paid"], Kind::Posted) => _ = self.payments.insert(id, moved),
            _ => {}
        }
    }

    fn deposit(&mut self, id: i64) -> &mut OfDeposit {
        self.deposits.entry(id).or_default()
    }

    /// A number that is none belongs to no settlement, and is found as such.
    fn invoice(&mut self, id: i64, step: Step, number: &str, moved: Moved) {
        let settlement = number.parse().unwrap_or(-1);
        self.invoices.entry(id).or_default().push(OfInvoice { step, settlement, moved });
    }
}
