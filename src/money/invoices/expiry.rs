//! The expiry of invoices whose payment window has ended.

use std::collections::{BTreeMap, BTreeSet};

use chain::ChainId;

use crate::deposits::{self, Grace};
use crate::effects::{self, Effects, PaymentChanges, ReviewChange};
use crate::invoices::machine::{self, Input, State};
use crate::invoices::{Disposition, lock_invoices, store};
use crate::ledger::{Account, JournalEntry, PostError, Suspense};
use crate::payments::{self, PaymentChange};
use crate::unconfirmed;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;
use records::reviews;

/// Returns at most `limit` open invoices of a chain whose payment window ended before `passed`, and at most `limit`
/// reversed invoices whose time for the removed money to return ended before `passed`.
///
/// An invoice is left out while one of its counted deposits is not confirmed, and for some time after a reorg removed
/// one of them. It is also left out while an unconfirmed transfer to it was first seen in time and at most
/// [`unconfirmed::HOLD_MS`] ago.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_expirable_invoices(
    tx: &mut Tx,
    chain: &ChainId,
    now: Instant,
    passed: Instant,
    grace: Grace,
    limit: i64,
) -> Result<Vec<InvoiceId>, db::Error> {
    store::list_expirable_invoices(tx, chain, passed, now.plus_ms(-unconfirmed::HOLD_MS), grace, limit).await
}

/// Returns the number of open and reversed invoices on each chain that is not in `followed`, by chain name. Such
/// invoices never expire, because no follower reads the chain.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn count_waiting_on_unfollowed_chains(
    tx: &mut Tx,
    followed: &[ChainId],
) -> Result<BTreeMap<String, i64>, db::Error> {
    let mut waiting = store::count_waiting_invoices_by_chain(tx).await?;
    waiting.retain(|chain, _| followed.iter().all(|id| id.as_str() != chain));
    Ok(waiting)
}

/// Expires the open and reversed invoices in `ids`, except for those with a deposit that is not confirmed. The caller
/// has checked that their payment windows have ended. Partial payments move to the suspense account for short payments,
/// with a review. When the balances of the addresses could not be compared with the deposits, `unverified` is the
/// reason, and each expired invoice gets a review.
pub(crate) async fn expire_ended_invoices(
    tx: &mut Tx,
    now: Instant,
    ids: &BTreeSet<InvoiceId>,
    unverified: Option<&str>,
) -> Result<PaymentChanges, PostError> {
    let mut effects = Effects::default();
    for (id, mut update) in lock_invoices(tx, ids).await? {
        let Some(next) = machine::next_invoice_state(update.state, Input::WindowEnded, update.due, update.tolerance)
        else {
            continue;
        };
        let received = store::summarize_counted_or_short_deposits(tx, id, &update.chain).await?;
        if received.seen != received.confirmed {
            continue;
        }
        if !received.confirmed.is_zero() {
            let merchant = update.shop.merchant;
            let short = Account::Suspense(merchant, Suspense::Short);
            let lines = update.split_into_entry_lines(Account::MerchantIncoming(merchant), short, received.confirmed);
            let name = format!("invoice/{id}/expired");
            effects.entries.push(JournalEntry::new_post_entry(update.shop.mode, name, "invoice expired short", lines));
            deposits::replace_disposition_of_deposits(tx, id, Disposition::Counted, Disposition::Short).await?;
            effects.reviews.push(ReviewChange::Open(update.build_short_payment_review(received.confirmed)));
        }
        if let Some(reason) = unverified {
            effects.reviews.push(ReviewChange::Open(
                update.build_invoice_review(reviews::Kind::BalanceUnverified, reason.to_owned()),
            ));
        }
        effects.payments.push(match update.was {
            State::Reversed => PaymentChange::Lost(update.payment_id()),
            State::Open | State::Paid | State::Expired | State::Cancelled => {
                PaymentChange::Expired(update.payment_id())
            }
        });
        update.close_invoice_and_payment(now, next, payments::State::Expired);
        effects.invoices.push(update);
    }
    effects::apply_effects(tx, now, effects).await
}
