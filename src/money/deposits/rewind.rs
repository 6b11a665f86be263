//! Rewind: after a reorg, the cursor moves back to the common ancestor of both branches, and the deposits above it are
//! reversed.

use std::collections::BTreeSet;

use chain::BlockRef;

use crate::assets::FollowedChain;
use crate::cursors::{self, Position};
use crate::deposits::{Corroboration, Deposit, DepositService, State, store};
use crate::effects::{self, Effects, Retraction, ReviewChange};
use crate::invoices::{self, Disposition, InvoiceUpdate};
use crate::ledger::{Account, EntryLine, JournalEntry, PostError};
use crate::unclaimed;
use clock::Instant;
use db::{self, Tx};
use records::reviews;

impl DepositService {
    /// Moves the cursor back from `from` to `to`, the common ancestor of both branches. Marks every deposit above `to`
    /// that is not final as orphaned, and reverses its money by new postings. Outputs that were spent above `to` become
    /// unspent again.
    ///
    /// # Errors
    /// Returns an error when the cursor is not at `from`, when the block `to` is no longer stored, and when the ledger
    /// refuses an entry.
    pub async fn rewind_cursor_and_deposits(
        &self,
        tx: &mut Tx,
        now: Instant,
        from: BlockRef,
        to: BlockRef,
    ) -> Result<(), PostError> {
        let chain = &self.chain;
        let before = cursors::lock_cursor_and_check_deposits_or_fail(tx, &chain.id, Position::NONE).await?;
        let deposits = store::lock_unorphaned_deposits_above(tx, &chain.id, to.height).await?;
        let mut invoices =
            invoices::lock_invoices(tx, &deposits.iter().map(|deposit| deposit.invoice).collect()).await?;
        let mut effects = Effects::default();
        for deposit in deposits.into_iter().rev() {
            let missing = || db::Error::Statement(format!("invoice {} does not exist", deposit.invoice));
            let invoice = invoices.get_mut(&deposit.invoice).ok_or_else(missing)?;
            let cause = "a reorg removed the block of the deposit";
            reverse_orphaned_deposit(tx, now, chain, &deposit, invoice, cause, &mut effects).await?;
        }
        effects.invoices = invoices.into_values().collect();
        for (deposit, output) in store::set_outputs_unspent_above(tx, &chain.id, to.height).await? {
            // After a restart the watch set contains only outputs that were unspent at that time. The reorg made this
            // output unspent again, so add it.
            chain.watched.insert_outputs([output]);
            effects.reviews.push(ReviewChange::Retract(Retraction {
                kind: reviews::Kind::DepositSpent,
                subject: format!("deposit/{deposit}"),
                note: "a reorg removed the block that spent the output",
                replacement: None,
            }));
        }
        unclaimed::orphan_transfers_above(tx, now, chain, to.height).await?;
        cursors::delete_blocks_above(tx, &chain.id, to.height).await?;
        let not_kept = || db::Error::Statement(format!("block {} of {} is not kept", to.height, chain.id));
        let header = cursors::find_block_header_without_parent(tx, &chain.id, to).await?.ok_or_else(not_kept)?;
        let changes = effects::apply_effects(tx, now, effects).await?;
        cursors::move_cursor_and_final_height(tx, &chain.id, from, &header, before.final_height).await?;
        Ok(changes.dispatch_to_listener(tx, now, &*self.listener).await?)
    }
}

/// Reverses a deposit that does not exist any more: voids its hold or reverses its posting, and undoes the settlement that
/// the deposit was part of. `cause` is the note with which the reviews of the deposit are closed.
pub(super) async fn reverse_orphaned_deposit(
    tx: &mut Tx,
    now: Instant,
    chain: &FollowedChain,
    deposit: &Deposit,
    invoice: &mut InvoiceUpdate,
    cause: &'static str,
    effects: &mut Effects,
) -> Result<(), db::Error> {
    match deposit.state {
        State::Seen | State::Confirmed => {}
        State::Final | State::Orphaned => return Ok(()),
    }
    let entry = format!("deposit/{}/orphaned", deposit.id);
    let before = invoices::summarize_counted_or_short_deposits(tx, invoice).await?.confirmed;
    store::set_deposit_orphaned(tx, now, deposit).await?;
    if deposit.corroboration != Corroboration::Shown {
        for kind in [reviews::Kind::DepositContradicted, reviews::Kind::DepositUncorroborated] {
            effects.reviews.push(ReviewChange::Retract(Retraction {
                kind,
                subject: format!("deposit/{}", deposit.id),
                note: cause,
                replacement: None,
            }));
        }
    }
    if deposit.state == State::Seen {
        effects.entries.push(JournalEntry::new_void_hold_entry(entry, "deposit orphaned", deposit.hold_entry_name()));
    } else {
        let left = before.saturating_sub(deposit.amount);
        let lost =
            deposit.used == Disposition::Counted && invoice.undo_settlement_and_report_if_lost(before, left, effects);
        let line = EntryLine {
            debit: match deposit.suspense_reason() {
                None => Account::MerchantIncoming(invoice.shop.merchant),
                Some(suspense) => Account::Suspense(invoice.shop.merchant, suspense),
            },
            credit: Account::OnChain(chain.id.clone()),
            asset: deposit.asset.clone(),
            amount: deposit.amount,
        };
        effects.entries.push(JournalEntry::new_post_entry(chain.mode, entry, "deposit orphaned", vec![line]));
        // The reorg removed the money that these reviews are about. The reviews are closed, so that the operator does
        // not send the money back to the buyer.
        match deposit.used {
            Disposition::Counted | Disposition::Dust => {}
            Disposition::Short => invoice.retract_short_payment_review(left, effects),
            Disposition::Surplus | Disposition::Late | Disposition::Foreign | Disposition::BeforeLease => {
                effects.reviews.push(ReviewChange::Retract(Retraction {
                    kind: reviews::Kind::DepositUnallocated,
                    subject: format!("deposit/{}", deposit.id),
                    note: cause,
                    replacement: None,
                }));
            }
        }
        if deposit.used == Disposition::Counted && !lost {
            let dust_limit = chain.dust.compute_dust_limit_or_zero(now, &invoice.asset);
            invoice.settle_again_if_enough_remains(now, left, dust_limit, effects);
        }
    }
    // The orphaned deposit may have been the only one that was not final. If so, the credited amount becomes available.
    if invoices::sum_counted_or_short_deposits(tx, &BTreeSet::from([invoice.id]))
        .await?
        .values()
        .all(|counted| counted.all_final)
    {
        invoice.release_credited_amount_if_paid(now, effects);
    }
    Ok(())
}
