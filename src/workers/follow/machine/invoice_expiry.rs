//! The expiry of invoices. The follower lists the invoices whose payment window has ended. Before they expire, it
//! compares the balances of their addresses with their deposits, to find payments that it has missed.

use chain::{BlockRef, Family, SourceError, Tip};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{AfterStore, Machine, Phase, StepError};
use clock::Instant;
use ids::InvoiceId;

/// The minimum time, in milliseconds, between two searches for expired invoices while the follower still reads old
/// blocks.
pub(super) const EXPIRY_INTERVAL_MS: i64 = 5_000;
/// The number of blocks below the cursor from which on a block is too old for a balance check, because nodes delete old
/// states.
const BALANCE_BLOCK_DEPTH_MAX: u64 = 64;

/// One search for expired invoices.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpiryCheck {
    /// The node's tip in this run.
    pub(super) tip: Tip,
    /// True when the same run also read blocks. A failed balance check leaves the invoices open in any case; it ends the
    /// run with an error only when this is false.
    pub(super) while_reading: bool,
}

impl ExpiryCheck {
    /// Returns the action that ends the run with the result `ran`; with `Worked` when blocks were read in the same run.
    pub(super) fn finish_run(self, ran: Ran) -> Action {
        Action::Finish(if self.while_reading { Ran::Worked } else { ran })
    }
}

impl Machine {
    /// Requests the invoices whose payment window and grace period have ended by the clock *and* by the chain: every
    /// block that could contain a payment in time has been read.
    pub(super) fn request_expirable_invoices(&mut self, now: Instant, check: ExpiryCheck) -> Action {
        self.branch.expiry_checked_at = now;
        let read_until = Instant::from_unix_seconds(self.branch.time);
        let seen_until = self.branch.quiet_until.map_or(read_until, |quiet| quiet.max(read_until)).min(now);
        self.phase = Phase::Expirable(check);
        Action::ListExpirable { passed: seen_until.plus_ms(-self.deposit_limits.grace.ms) }
    }

    /// Continues with the invoices whose payment window has ended. Without any, finishes the run. Otherwise stores the
    /// blocks that are only in memory, and then requests the balance check of the invoices.
    pub(super) fn store_blocks_before_balance_check(
        &mut self,
        now: Instant,
        invoices: Vec<InvoiceId>,
        check: ExpiryCheck,
    ) -> Action {
        if invoices.is_empty() {
            // No invoice waits for a balance check now, so the time without balances is counted anew. Otherwise an
            // earlier failure would shorten the time that the next invoice waits.
            self.balances_unavailable_since = None;
            return check.finish_run(Ran::Idle);
        }
        if self.branch.pending.is_empty() {
            return self.request_balance_check_or_expiry(invoices, check);
        }
        self.settle_dispute_and_store_blocks(now, &check.tip, AfterStore::InvoicesExpired { invoices, check })
    }

    /// Requests the balances of the invoices' addresses, to find a transfer that the scan of the blocks missed. On
    /// Bitcoin the invoices expire without this check, because a block contains every output and its Merkle root proves
    /// that it is complete.
    pub(super) fn request_balance_check_or_expiry(&mut self, invoices: Vec<InvoiceId>, check: ExpiryCheck) -> Action {
        if self.chain.family == Family::Bitcoin {
            return self.request_expiry(invoices, None, check);
        }
        let branch = &mut self.branch;
        let cursor = branch.follower.cursor();
        let is_near = |block: &BlockRef| cursor.height.saturating_sub(block.height) < BALANCE_BLOCK_DEPTH_MAX;
        let is_usable = |block: &BlockRef| is_near(block) && branch.follower.is_on_our_branch(*block) == Some(true);
        // The balance at an older block says nothing about an invoice whose window ended after that block. Such an invoice
        // is checked in a later run.
        let earlier = branch.balance_block.take().filter(|(at, _)| is_usable(at)).and_then(|(at, waiting)| {
            let again: Vec<InvoiceId> = invoices.iter().filter(|id| waiting.contains(id)).copied().collect();
            (!again.is_empty()).then_some((at, again))
        });
        let (at, invoices) = earlier.unwrap_or((cursor, invoices));
        branch.balance_block = Some((at, invoices.clone()));
        self.phase = Phase::Balances { invoices: invoices.clone(), check };
        Action::CheckBalances { at, invoices }
    }

    /// Expires the invoices when their deposits explain the balances of their addresses. When a credit was booked,
    /// advances deposits instead, and the invoices are listed again later. When no endpoint returns balances, the
    /// invoices stay open for at most `balance_patience_ms` and then expire without the check.
    pub(super) fn expire_or_delay_invoices(
        &mut self,
        now: Instant,
        invoices: Vec<InvoiceId>,
        result: Result<bool, SourceError>,
        check: ExpiryCheck,
    ) -> Result<Action, StepError> {
        let error = match result {
            Ok(explained) => {
                (self.branch.balance_block, self.balances_unavailable_since) = (None, None);
                return Ok(match explained {
                    true => self.request_expiry(invoices, None, check),
                    // A credit was booked. Its block may already be deep enough for a confirmation, so deposits are
                    // advanced.
                    false => self.settle_dispute_and_store_blocks(now, &check.tip, AfterStore::CreditBooked),
                });
            }
            Err(error) => error,
        };
        // The expiry is delayed only for a limited time, because the blocks themselves were read and verified.
        let unavailable_ms = now.since(*self.balances_unavailable_since.get_or_insert(now));
        if unavailable_ms < self.limits.balance_patience_ms {
            if check.while_reading {
                self.notices.push(Notice::ExpiryDelayed(error.to_string()));
                return Ok(check.finish_run(Ran::Idle));
            }
            return Err(StepError::BalancesUnavailable(error));
        }
        let (minutes, reason) = (unavailable_ms / 60_000, error.to_string());
        let unchecked = format!(
            "the invoice expired without a check of its address's balance, because no endpoint returned balances for {minutes} \
             minutes: {reason}"
        );
        self.notices.push(Notice::ExpiredUnchecked { minutes, reason });
        Ok(self.request_expiry(invoices, Some(unchecked), check))
    }

    /// Requests the action that marks these invoices as expired. `unchecked` is the text of the review for each invoice
    /// whose balance could not be checked; `None` when the balances were checked.
    pub(super) fn request_expiry(
        &mut self,
        invoices: Vec<InvoiceId>,
        unchecked: Option<String>,
        check: ExpiryCheck,
    ) -> Action {
        self.phase = Phase::Expired(check);
        Action::ExpireInvoices { invoices, unchecked }
    }
}
