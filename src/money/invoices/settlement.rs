//! Settlements of invoices: confirmed deposits pay an invoice, a reorg undoes its settlement, and final deposits make
//! the credited amount available to the merchant.

use chain::Amount;

use crate::effects::{Effects, ReviewChange, ReviewRequest};
use crate::invoices::InvoiceUpdate;
use crate::invoices::machine::{self, Input, State};
use crate::ledger::{self, Account, EntryLine, JournalEntry, Suspense};
use crate::payments::{self, PaymentChange};
use clock::Instant;
use records::reviews;

impl InvoiceUpdate {
    /// Settles the invoice when `confirmed`, the sum of its confirmed and counted deposits in base units, reaches the
    /// amount due, less the tolerance. The invoice and its payment become paid. The sum, up to the amount due, is
    /// credited to the pending account of the merchant, and any excess goes to the surplus account. An excess of
    /// `dust_limit` base units or more opens a review.
    pub fn settle_invoice_if_paid(
        &mut self,
        now: Instant,
        confirmed: Amount,
        dust_limit: Amount,
        effects: &mut Effects,
    ) {
        if self.book_settlement_if_paid(now, confirmed, dust_limit, effects) {
            effects.payments.push(PaymentChange::Paid(self.payment_id()));
        }
    }

    /// Settles an invoice again after a reorg removed one of its deposits, if the remaining deposits are enough. `left`
    /// is the sum of the remaining confirmed deposits, and `dust_limit` the smallest surplus that opens a review, both
    /// in base units. The payment was paid before and stays paid, so no payment change is reported.
    pub fn settle_again_if_enough_remains(
        &mut self,
        now: Instant,
        left: Amount,
        dust_limit: Amount,
        effects: &mut Effects,
    ) {
        self.book_settlement_if_paid(now, left, dust_limit, effects);
    }

    /// Settles the invoice and returns true when `confirmed`, in base units, is enough to pay it. Otherwise returns
    /// false and changes nothing.
    fn book_settlement_if_paid(
        &mut self,
        now: Instant,
        confirmed: Amount,
        dust_limit: Amount,
        effects: &mut Effects,
    ) -> bool {
        let input = Input::Confirmed(confirmed);
        let Some(next) = machine::next_invoice_state(self.state, input, self.due, self.tolerance) else { return false };
        let incoming = Account::MerchantIncoming(self.shop.merchant);
        let earned = if self.was_surplus { Amount::ZERO } else { confirmed.min(self.due) };
        let surplus = confirmed.saturating_sub(earned);
        let mut lines =
            self.split_into_entry_lines(incoming.clone(), Account::MerchantPending(self.shop.merchant), earned);
        if !surplus.is_zero() {
            lines.extend(self.split_into_entry_lines(
                incoming,
                Account::Suspense(self.shop.merchant, Suspense::Surplus),
                surplus,
            ));
        }
        // A second payment has a review of its own.
        if !surplus.is_zero() && surplus >= dust_limit && !self.was_surplus {
            let detail = format!("{surplus} base units of {} above what was due", self.asset);
            let request = ReviewRequest {
                amount: Some(surplus),
                ..self.build_invoice_review(reviews::Kind::PaymentSurplus, detail)
            };
            effects.reviews.push(ReviewChange::Open(request));
        }
        let invoice = &mut self.invoice;
        invoice.state = next;
        invoice.settled = Some(earned);
        invoice.settlements += 1;
        invoice.closed_at = Some(now);
        invoice.released_at = None;
        self.changed = true;
        self.payment = Some(payments::State::Success);
        let name = format!("invoice/{}/paid/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::new_post_entry(self.shop.mode, name, "invoice paid", lines));
        true
    }

    /// Undoes the settlement of a paid invoice because a reorg removed a counted deposit, and reverses its postings.
    /// `before` and `left` are the sums of the confirmed deposits before and after the reorg, in base units. Returns
    /// true, and reports the payment as reversed, when `left` is too little to pay the invoice. When `left` is enough,
    /// returns false, and the caller settles the invoice again. An invoice that is not paid stays unchanged.
    pub fn undo_settlement_and_report_if_lost(&mut self, before: Amount, left: Amount, effects: &mut Effects) -> bool {
        let Some(settled) = self.settled.filter(|_| self.state == State::Paid) else { return false };
        let (merchant, incoming) = (self.shop.merchant, Account::MerchantIncoming(self.shop.merchant));
        let earned_account = match self.released_at {
            Some(_) => Account::MerchantAvailable(merchant),
            None => Account::MerchantPending(merchant),
        };
        let mut lines = self.split_into_entry_lines(earned_account, incoming.clone(), settled);
        let surplus = before.saturating_sub(settled);
        if !surplus.is_zero() {
            lines.extend(self.split_into_entry_lines(
                Account::Suspense(merchant, Suspense::Surplus),
                incoming,
                surplus,
            ));
            effects.reviews.push(self.build_reorg_retraction(reviews::Kind::PaymentSurplus, None));
        }
        self.was_surplus = settled.is_zero();
        let name = format!("invoice/{}/reversed/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::new_post_entry(self.shop.mode, name, "invoice reversed", lines));
        let lost = machine::next_invoice_state(State::Paid, Input::Lost(left), self.due, self.tolerance).is_some();
        let invoice = &mut self.invoice;
        invoice.state = State::Reversed;
        invoice.settled = None;
        invoice.closed_at = None;
        invoice.released_at = None;
        self.changed = true;
        if lost {
            effects.payments.push(PaymentChange::Reversed(self.payment_id()));
        }
        lost
    }

    /// Moves the credited amount of a paid invoice from the pending account of the merchant to the available account,
    /// unless it was moved before. The caller has checked that all counted deposits are final.
    pub fn release_credited_amount_if_paid(&mut self, now: Instant, effects: &mut Effects) {
        let earned = self.settled.filter(|_| self.state == State::Paid && self.released_at.is_none());
        // The credited amount is zero when another payment had already paid for the same order.
        let Some(earned) = earned.filter(|earned| !earned.is_zero()) else { return };
        let merchant = self.shop.merchant;
        let lines = self.split_into_entry_lines(
            Account::MerchantPending(merchant),
            Account::MerchantAvailable(merchant),
            earned,
        );
        let name = format!("invoice/{}/final/{}", self.id, self.settlements);
        effects.entries.push(JournalEntry::new_post_entry(self.shop.mode, name, "invoice final", lines));
        self.invoice.released_at = Some(now);
        self.changed = true;
    }

    /// Sets the amount that the last settlement credited to the merchant to zero. Returns the amount, and the journal
    /// entry that moves it to the surplus account, which the caller must book. `None` when nothing is credited.
    pub(super) fn take_credited_amount_as_surplus(&mut self) -> Option<(JournalEntry, Amount)> {
        let credited = self.settled.filter(|credited| self.state == State::Paid && !credited.is_zero())?;
        let merchant = self.shop.merchant;
        let holder = match self.released_at {
            Some(_) => Account::MerchantAvailable(merchant),
            None => Account::MerchantPending(merchant),
        };
        let lines = self.split_into_entry_lines(holder, Account::Suspense(merchant, Suspense::Surplus), credited);
        self.invoice.settled = Some(Amount::ZERO);
        self.invoice.released_at = None;
        self.changed = true;
        let name = format!("invoice/{}/surplus/{}", self.id, self.settlements);
        Some((JournalEntry::new_post_entry(self.shop.mode, name, "second payment", lines), credited))
    }

    /// Returns journal entry lines that debit `debit` and credit `credit` with `amount` base units in total. There are
    /// several lines when the amount exceeds the maximum of one posting.
    pub(super) fn split_into_entry_lines(&self, debit: Account, credit: Account, amount: Amount) -> Vec<EntryLine> {
        let line =
            |amount| EntryLine { debit: debit.clone(), credit: credit.clone(), asset: self.asset.clone(), amount };
        ledger::split_into_postable_amounts(amount).map(line).collect()
    }
}
