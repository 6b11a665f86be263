//! Reviews that ask the operator to decide about an invoice, and the retraction of such reviews after a reorg.

use chain::Amount;

use crate::effects::{Effects, Retraction, ReviewChange, ReviewRequest};
use crate::invoices::InvoiceUpdate;
use records::reviews;

impl InvoiceUpdate {
    /// Returns the review for an expired invoice that received only partial payments, `arrived` base units in total.
    pub(super) fn build_short_payment_review(&self, arrived: Amount) -> ReviewRequest {
        let detail = format!("{arrived} of {} base units of {} arrived", self.due, self.asset);
        self.build_invoice_review(reviews::Kind::PaymentShort, detail)
    }

    /// Adds the retraction of the review about the partial payments of an expired invoice, because a reorg removed one
    /// of them. When partial payments of `left` base units remain, a review about them is opened instead.
    pub fn retract_short_payment_review(&self, left: Amount, effects: &mut Effects) {
        let replacement = (!left.is_zero()).then(|| self.build_short_payment_review(left));
        effects.reviews.push(self.build_reorg_retraction(reviews::Kind::PaymentShort, replacement));
    }

    pub(super) fn build_invoice_review(&self, kind: reviews::Kind, detail: String) -> ReviewRequest {
        ReviewRequest { kind, subject: format!("invoice/{}", self.id), detail, amount: None }
    }

    pub(super) fn build_reorg_retraction(
        &self,
        kind: reviews::Kind,
        replacement: Option<ReviewRequest>,
    ) -> ReviewChange {
        let subject = format!("invoice/{}", self.id);
        ReviewChange::Retract(Retraction {
            kind,
            subject,
            note: "a reorg removed a block with money of the invoice",
            replacement,
        })
    }
}
