//! The deposits that one database transaction books. The batch reads all their invoices together, decides in memory,
//! and stores all results together. Therefore a block with a thousand deposits needs as many SQL statements as a block
//! with one deposit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use chain::{AddressKey, Amount, Header, Height, Transfer};

use crate::assets::{FollowedChain, is_dust_amount};
use crate::cursors::Position;
use crate::deposits::block_sums::BlockSums;
use crate::deposits::{self, Corroboration, Deposit, DepositService, Grace, NewDeposit, State, machine, store};
use crate::effects::{Effects, ReviewChange, ReviewRequest};
use crate::invoices::{self, Arrival, CountedSums, Disposition, InvoiceUpdate, decide_disposition};
use crate::ledger::{Account, EntryLine, JournalEntry, Suspense};
use crate::unclaimed;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;
use records::reviews;

/// The new and stored deposits that one database transaction changes.
pub(super) struct DepositBatch<'c> {
    now: Instant,
    chain: &'c FollowedChain,
    /// The evidence with which new deposits are stored.
    corroboration: Corroboration,
    /// The locked invoices of the deposits.
    invoices: BTreeMap<InvoiceId, InvoiceUpdate>,
    /// Deposits that are not stored yet.
    fresh: Vec<NewDeposit>,
    /// Deposits that are already stored, each with its next state.
    older: Vec<(Deposit, State)>,
    /// Transfers to addresses that belong to no invoice.
    unclaimed: Vec<(Header, Transfer)>,
    /// The effects that have been decided so far.
    effects: Effects,
}

/// The result of storing a batch.
pub(super) struct StoredBatch {
    /// The effects of the batch, which the caller must apply.
    pub effects: Effects,
    /// True when some of the deposits are not final yet.
    pub unfinished: bool,
    /// True when some of the deposits became final.
    pub finished: bool,
    /// True when the batch had transfers to addresses that belong to no invoice.
    pub unclaimed: bool,
}

/// Dust that an invoice could count.
#[derive(Debug, Clone, Copy)]
enum DustPart<'d> {
    /// A stored deposit.
    Stored(&'d Deposit),
    /// The place of a new transfer among the received ones, and its amount.
    New(usize, Amount),
}

impl DustPart<'_> {
    fn amount(&self) -> Amount {
        match self {
            DustPart::Stored(deposit) => deposit.amount,
            DustPart::New(_, amount) => *amount,
        }
    }
}

/// Returns the parts that together reach `missing`, the rest that an invoice needs; the largest parts come first. Returns
/// nothing when all parts together do not reach it, and when nothing is missing.
fn choose_dust_that_completes(mut parts: Vec<DustPart<'_>>, missing: Amount) -> Vec<DustPart<'_>> {
    parts.sort_by_key(|part| Reverse(part.amount()));
    let (mut chosen, mut left) = (Vec::new(), missing);
    for part in parts {
        if left.is_zero() {
            break;
        }
        left = left.saturating_sub(part.amount());
        chosen.push(part);
    }
    if left.is_zero() { chosen } else { Vec::new() }
}

/// A transfer with its block and with the invoice whose address received it.
type ReceivedTransfer<'m> = (&'m Header, &'m Transfer, InvoiceId);

impl<'c> DepositBatch<'c> {
    /// Returns an empty batch of the service's chain. When the chain needs a second source, new deposits stay `seen`
    /// until they are corroborated.
    pub fn new(now: Instant, service: &'c DepositService) -> DepositBatch<'c> {
        let corroboration = if service.needs_second_source() { Corroboration::Unchecked } else { Corroboration::Shown };
        let (chain, invoices, fresh, older) = (&service.chain, BTreeMap::new(), Vec::new(), Vec::new());
        let (unclaimed, effects) = (Vec::new(), Effects::default());
        DepositBatch { now, chain, corroboration, invoices, fresh, older, unclaimed, effects }
    }

    /// Adds the transfers as new deposits, each with its disposition. A transfer whose amount is too large to be booked
    /// opens a review instead. A transfer to an address without an invoice is added as unclaimed.
    pub async fn add_received_transfers(
        &mut self,
        tx: &mut Tx,
        grace: Grace,
        block_sums: BlockSums,
        transfers: &[(Header, &Transfer)],
    ) -> Result<(), db::Error> {
        let keys: BTreeSet<AddressKey> = transfers.iter().map(|(_, transfer)| transfer.to).collect();
        let mut targets = invoices::lock_invoices_by_address(tx, &self.chain.id, &keys).await?;
        // The same key owns the address on every chain of the family, so the address may receive money on all of them.
        for siblings in &self.chain.siblings {
            let missing: BTreeSet<AddressKey> =
                keys.iter().filter(|key| !targets.contains_key(*key)).copied().collect();
            if missing.is_empty() {
                break;
            }
            targets.extend(invoices::lock_invoices_by_address(tx, siblings, &missing).await?);
        }
        let invoice_of: HashMap<AddressKey, InvoiceId> =
            targets.iter().map(|(key, update)| (*key, update.id)).collect();
        self.invoices.extend(targets.into_values().map(|update| (update.id, update)));

        let mut received = Vec::with_capacity(transfers.len());
        for (header, transfer) in transfers {
            let Some(target) = invoice_of.get(&transfer.to) else {
                if deposits::is_bookable_amount(transfer.amount) {
                    self.unclaimed.push((*header, (*transfer).clone()));
                }
                continue;
            };
            // Any contract can emit transfers of zero base units to any address, so they are ignored.
            if transfer.amount.is_zero() {
                continue;
            }
            if deposits::is_bookable_amount(transfer.amount) {
                received.push((header, *transfer, *target));
                continue;
            }
            // Anyone can mint such a token and send it to the address, so the transfer must not stop the follower.
            self.effects.reviews.push(ReviewChange::Open(ReviewRequest {
                kind: reviews::Kind::DepositOutOfRange,
                subject: format!("invoice/{target}"),
                detail: format!("{} base units of {} in block {}", transfer.amount, transfer.asset, header.height),
                amount: None,
            }));
        }

        let window_end = |invoice: &InvoiceUpdate| invoice.expires_at.plus_ms(grace.ms);
        let is_late =
            |header: &Header, invoice: &InvoiceUpdate| Instant::from_unix_seconds(header.time) > window_end(invoice);
        let late = received.iter().filter_map(|(header, transfer, target)| {
            let invoice = self.invoices.get(target)?;
            is_late(header, invoice).then(|| (*target, transfer.txid, window_end(invoice)))
        });
        let late: Vec<_> = late.collect();
        // A transfer that was in time before a reorg stays in time when it is mined again later.
        let was_in_time = store::list_transactions_seen_in_time(tx, &late).await?;

        let is_old =
            |header: &Header, invoice: &InvoiceUpdate| invoice.is_older_than_lease(&self.chain.id, header.height);
        let old = received.iter().filter_map(|(header, transfer, target)| {
            let invoice = self.invoices.get(target)?;
            is_old(header, invoice).then_some((*target, transfer.txid))
        });
        let old: Vec<_> = old.collect();
        // After a reorg, a transfer that was seen after the lease may be mined again in a block as low as the lease.
        let was_new = store::list_transactions_seen_after_lease(tx, &old).await?;

        let arrival = |header: &Header, transfer: &Transfer, invoice: &InvoiceUpdate| {
            let transaction = (invoice.id, transfer.txid);
            if is_old(header, invoice) && !was_new.contains(&transaction) {
                Arrival::BeforeLease
            } else if is_late(header, invoice) && !was_in_time.contains(&transaction) {
                Arrival::Late
            } else {
                Arrival::InTime
            }
        };
        let stored_dust = self.list_stored_countable_dust(tx, grace, &received).await?;
        let (dispositions, completing) = self.decide_dispositions(tx, &received, &stored_dust, arrival).await?;
        self.count_stored_dust(tx, completing).await?;
        let has_stored_deposits = !block_sums.is_empty();
        let depths = self.compute_required_confirmations_by_block(&received, &dispositions, block_sums);
        if has_stored_deposits {
            store::raise_confirm_heights(tx, &self.chain.id, &depths).await?;
        }
        for ((header, transfer, target), used) in received.into_iter().zip(dispositions) {
            let Some(invoice) = self.invoices.get(&target) else { continue };
            let depth = depths.get(&header.height).copied().unwrap_or(1);
            let deposit = NewDeposit::new(self.chain, header, transfer, invoice, used, depth, self.corroboration);
            self.fresh.push(deposit);
        }
        Ok(())
    }

    /// Returns the disposition of each transfer.
    ///
    /// Transfers that may be dust are decided after all others, and larger transfers before smaller ones. Therefore the
    /// result does not depend on the order of transactions in a block. A transfer that an invoice counted before a
    /// reorg is never dust: after the reorg, the larger transfer that it completes may be in a later block.
    async fn decide_dispositions(
        &self,
        tx: &mut Tx,
        received: &[ReceivedTransfer<'_>],
        stored_dust: &[Deposit],
        arrival: impl Fn(&Header, &Transfer, &InvoiceUpdate) -> Arrival,
    ) -> Result<(Vec<Disposition>, Vec<Deposit>), db::Error> {
        let is_small = |transfer: &Transfer| transfer.amount < self.compute_dust_limit_of_transfer(transfer);
        let small: Vec<_> = received.iter().filter(|(_, transfer, _)| is_small(transfer)).collect();
        let asked = small.iter().map(|(_, _, target)| *target).chain(stored_dust.iter().map(|dust| dust.invoice));
        let asked = asked.collect();
        let counted = invoices::sum_counted_deposits(tx, &asked).await?;
        let mut seen: HashMap<InvoiceId, Amount> = counted.into_iter().map(|(id, sums)| (id, sums.seen)).collect();
        let small: Vec<_> =
            small.iter().map(|(_, transfer, target)| (*target, transfer.txid, transfer.amount)).collect();
        let counted_before = store::list_previously_counted_transfers(tx, &small).await?;

        let may_be_dust = |transfer: &Transfer, target: InvoiceId| {
            is_small(transfer) && !counted_before.contains(&(target, transfer.txid, transfer.amount))
        };
        let mut order: Vec<(usize, &ReceivedTransfer<'_>)> = received.iter().enumerate().collect();
        order.sort_by_cached_key(|(_, (_, transfer, target))| {
            (may_be_dust(transfer, *target), Reverse(transfer.amount))
        });
        // The loop below overwrites each element.
        let mut dispositions = vec![Disposition::Dust; received.len()];
        let mut dust: BTreeMap<InvoiceId, Vec<DustPart>> = BTreeMap::new();
        for stored in stored_dust {
            dust.entry(stored.invoice).or_default().push(DustPart::Stored(stored));
        }
        for (place, (header, transfer, target)) in order {
            let Some(invoice) = self.invoices.get(target) else { continue };
            let own = invoice.asset == transfer.asset;
            let mut used = decide_disposition(invoice.state, own, arrival(header, transfer, invoice));
            let so_far = seen.entry(*target).or_insert(Amount::ZERO);
            let missing = match used {
                Disposition::Counted => invoice.due.saturating_sub(invoice.tolerance).saturating_sub(*so_far),
                Disposition::Short
                | Disposition::Surplus
                | Disposition::Late
                | Disposition::Foreign
                | Disposition::Dust
                | Disposition::BeforeLease => Amount::ZERO,
            };
            // Dust that is older than the lease keeps its own disposition, so that no later deposit makes it count.
            if used != Disposition::BeforeLease
                && may_be_dust(transfer, *target)
                && is_dust_amount(
                    transfer.amount,
                    self.compute_dust_limit_of_transfer(transfer),
                    own.then_some(invoice.due),
                    missing,
                )
            {
                if used == Disposition::Counted {
                    dust.entry(*target).or_default().push(DustPart::New(place, transfer.amount));
                }
                used = Disposition::Dust;
            }
            if used == Disposition::Counted {
                *so_far = so_far.checked_add(transfer.amount).unwrap_or(Amount::MAX);
            }
            if let Some(disposition) = dispositions.get_mut(place) {
                *disposition = used;
            }
        }
        let mut completing = Vec::new();
        for (id, parts) in dust {
            let Some(invoice) = self.invoices.get(&id) else { continue };
            let missing = invoice.due.saturating_sub(invoice.tolerance);
            let missing = missing.saturating_sub(seen.get(&id).copied().unwrap_or(Amount::ZERO));
            for part in choose_dust_that_completes(parts, missing) {
                match part {
                    DustPart::Stored(stored) => completing.push(stored.clone()),
                    DustPart::New(place, _) => {
                        if let Some(disposition) = dispositions.get_mut(place) {
                            *disposition = Disposition::Counted;
                        }
                    }
                }
            }
        }
        Ok((dispositions, completing))
    }

    /// Returns the stored dust that the invoices of the transfers could count: in the requested asset, in time, and while
    /// the invoice still waits for money. Invoices without earlier deposits need no query.
    async fn list_stored_countable_dust(
        &self,
        tx: &mut Tx,
        grace: Grace,
        received: &[ReceivedTransfer<'_>],
    ) -> Result<Vec<Deposit>, db::Error> {
        let may_have_dust = |id: &InvoiceId| {
            self.invoices.get(id).is_some_and(|invoice| {
                invoice.may_have_earlier_deposits()
                    && matches!(invoice.state, invoices::State::Open | invoices::State::Reversed)
            })
        };
        let asked: BTreeSet<InvoiceId> = received.iter().map(|(_, _, target)| *target).filter(may_have_dust).collect();
        if asked.is_empty() { Ok(Vec::new()) } else { store::list_dust_in_time(tx, grace, &asked).await }
    }

    /// Counts stored dust, because the rest of its payment has arrived. Posted dust moves from the suspense account to
    /// the money of the invoice.
    async fn count_stored_dust(&mut self, tx: &mut Tx, dust: Vec<Deposit>) -> Result<(), db::Error> {
        for deposit in &dust {
            let Some(invoice) = self.invoices.get(&deposit.invoice) else { continue };
            match deposit.state {
                State::Confirmed | State::Final => {}
                State::Seen | State::Orphaned => continue,
            }
            let merchant = invoice.shop.merchant;
            let line = EntryLine {
                debit: Account::Suspense(merchant, Suspense::Dust),
                credit: Account::MerchantIncoming(merchant),
                asset: deposit.asset.clone(),
                amount: deposit.amount,
            };
            let name = format!("deposit/{}/counted", deposit.id);
            self.effects.entries.push(JournalEntry::new_post_entry(self.chain.mode, name, "dust counted", vec![line]));
        }
        store::set_dust_counted(tx, &dust).await
    }

    /// Returns the confirmations that the deposits of each block need, by height. They depend on the value of all counted
    /// deposits of the block together, which is what a payer would win by reversing the block.
    fn compute_required_confirmations_by_block(
        &self,
        received: &[ReceivedTransfer<'_>],
        dispositions: &[Disposition],
        mut block_sums: BlockSums,
    ) -> BTreeMap<Height, u32> {
        for ((header, transfer, target), used) in received.iter().zip(dispositions) {
            if let (Disposition::Counted, Some(invoice)) = (used, self.invoices.get(target)) {
                block_sums.add_value(header.height, invoice.value_in_usd_cents(transfer.amount));
            }
        }
        block_sums.required_confirmations(&self.chain.depths)
    }

    /// Adds a review to the effects of the batch.
    pub fn add_review_request(&mut self, request: ReviewRequest) {
        self.add_review_change(ReviewChange::Open(request));
    }

    /// Adds a review to open, to resolve or to retract to the effects of the batch.
    pub fn add_review_change(&mut self, change: ReviewChange) {
        self.effects.reviews.push(change);
    }

    /// Returns the dust limit for the asset of a transfer, in base units.
    fn compute_dust_limit_of_transfer(&self, transfer: &Transfer) -> Amount {
        self.chain.dust.compute_dust_limit_or_zero(self.now, &transfer.asset)
    }

    /// Locks at most `limit` stored deposits that `position` confirms or makes final, together with their invoices.
    /// Deposits that wait for a second source are left out.
    pub async fn lock_and_add_advancing_deposits(
        &mut self,
        tx: &mut Tx,
        position: Position,
        limit: i64,
    ) -> Result<(), db::Error> {
        let older = store::lock_advancing_deposits(tx, &self.chain.id, position, limit).await?;
        let locked = |id: &InvoiceId| self.invoices.contains_key(id);
        let missing = older.iter().map(|deposit| deposit.invoice).filter(|id| !locked(id)).collect();
        self.invoices.extend(invoices::lock_invoices(tx, &missing).await?);
        self.older = older.into_iter().map(|deposit| (deposit.clone(), deposit.state)).collect();
        Ok(())
    }

    /// Stores each deposit in the state that it has at `position`, and returns the effects: new deposits are held in
    /// the ledger; confirmed deposits are posted and settle the invoices that they pay.
    pub async fn store_deposits_and_settle_invoices(
        mut self,
        tx: &mut Tx,
        position: Option<Position>,
    ) -> Result<StoredBatch, db::Error> {
        let reached = |deposit: &Deposit| match position {
            Some(position) if !deposit.waits_for_second_source() => {
                machine::next_deposit_state(deposit.state, deposit.height, deposit.confirm_height, position)
            }
            Some(_) | None => deposit.state,
        };
        for fresh in &mut self.fresh {
            fresh.to = reached(&fresh.deposit);
        }
        for (deposit, to) in &mut self.older {
            *to = reached(deposit);
        }
        unclaimed::insert_transfers_and_open_reviews(tx, self.now, self.chain, &self.unclaimed).await?;
        // `insert_unbooked_deposits` returns only the transfers that were not booked before.
        let fresh =
            store::insert_unbooked_deposits(tx, self.now, &self.chain.id, std::mem::take(&mut self.fresh)).await?;
        let mut fresh: Vec<(Deposit, State)> = fresh.into_iter().map(|fresh| (fresh.deposit, fresh.to)).collect();
        for (deposit, _) in &fresh {
            self.hold_amount_and_mark_confirming(deposit);
        }

        let (mut settling, mut releasing) = (BTreeSet::new(), BTreeSet::new());
        let mut older = std::mem::take(&mut self.older);
        for (deposit, to) in older.iter_mut().chain(&mut fresh) {
            if deposit.state == State::Seen && *to != State::Seen {
                self.confirm_deposit_and_move_unallocated(deposit);
                if deposit.used == Disposition::Counted {
                    settling.insert(deposit.invoice);
                }
            }
            if *to == State::Final {
                releasing.insert(deposit.invoice);
            }
        }
        store::set_changed_deposit_states(tx, self.now, &older).await?;

        let counted = self.sum_stored_and_new_counted_deposits(tx, &(&settling | &releasing), &fresh).await?;
        for (id, counted) in &counted {
            let Some(invoice) = self.invoices.get_mut(id) else { continue };
            if settling.contains(id) {
                let dust_limit = self.chain.dust.compute_dust_limit_or_zero(self.now, &invoice.asset);
                invoice.settle_invoice_if_paid(self.now, counted.confirmed, dust_limit, &mut self.effects);
            }
            if releasing.contains(id) && counted.all_final {
                invoice.release_credited_amount_if_paid(self.now, &mut self.effects);
            }
        }
        self.effects.invoices = self.invoices.into_values().collect();
        let mut reached = older.iter().chain(&fresh).map(|(_, to)| *to);
        Ok(StoredBatch {
            effects: self.effects,
            unfinished: reached.clone().any(|to| to != State::Final),
            finished: reached.any(|to| to == State::Final),
            unclaimed: !self.unclaimed.is_empty(),
        })
    }

    /// Returns the sums of the counted deposits by invoice id. An invoice without earlier deposits has only the new
    /// ones and needs no query.
    async fn sum_stored_and_new_counted_deposits(
        &self,
        tx: &mut Tx,
        ids: &BTreeSet<InvoiceId>,
        fresh: &[(Deposit, State)],
    ) -> Result<BTreeMap<InvoiceId, CountedSums>, db::Error> {
        let may_have_earlier_deposits =
            |id: &InvoiceId| self.invoices.get(id).is_none_or(InvoiceUpdate::may_have_earlier_deposits);
        let asked = ids.iter().copied().filter(may_have_earlier_deposits).collect();
        let mut counted = invoices::sum_counted_deposits(tx, &asked).await?;
        for (deposit, state) in fresh.iter().filter(|(deposit, _)| deposit.used == Disposition::Counted) {
            if ids.contains(&deposit.invoice) && !asked.contains(&deposit.invoice) {
                let sums = counted.entry(deposit.invoice).or_insert(CountedSums::NOTHING);
                sums.add_counted_deposit(deposit.amount, *state != State::Seen, *state == State::Final)?;
            }
        }
        Ok(counted)
    }

    /// Holds the amount of a new deposit in the ledger.
    fn hold_amount_and_mark_confirming(&mut self, deposit: &Deposit) {
        let Some(invoice) = self.invoices.get_mut(&deposit.invoice) else { return };
        let line = EntryLine {
            debit: Account::OnChain(self.chain.id.clone()),
            credit: Account::MerchantIncoming(invoice.shop.merchant),
            asset: deposit.asset.clone(),
            amount: deposit.amount,
        };
        self.effects.entries.push(JournalEntry::new_hold_entry(
            self.chain.mode,
            deposit.hold_entry_name(),
            "deposit seen",
            line,
        ));
        if deposit.used == Disposition::Counted && invoice.state == invoices::State::Open {
            invoice.mark_payment_confirming(&mut self.effects);
        }
    }

    /// Posts the held amount. If the invoice does not count the deposit, moves the money to a suspense account at once.
    /// A counted deposit becomes surplus when earlier deposits have already paid the invoice.
    fn confirm_deposit_and_move_unallocated(&mut self, deposit: &mut Deposit) {
        let Some(invoice) = self.invoices.get(&deposit.invoice) else { return };
        let id = deposit.id;
        let entries = &mut self.effects.entries;
        entries.push(JournalEntry::new_post_hold_entry(
            format!("deposit/{id}/confirmed"),
            "deposit confirmed",
            deposit.hold_entry_name(),
            None,
        ));
        if deposit.used == Disposition::Counted && invoice.state == invoices::State::Paid {
            deposit.used = Disposition::Surplus;
        }
        let Some(suspense) = deposit.suspense_reason() else { return };
        let merchant = invoice.shop.merchant;
        let line = EntryLine {
            debit: Account::MerchantIncoming(merchant),
            credit: Account::Suspense(merchant, suspense),
            asset: deposit.asset.clone(),
            amount: deposit.amount,
        };
        entries.push(JournalEntry::new_post_entry(
            self.chain.mode,
            format!("deposit/{id}/unallocated"),
            "deposit unallocated",
            vec![line],
        ));
        // Dust is booked without a review, because anyone can send dust to any address. A surplus as small as dust is not
        // worth one either.
        let is_small = deposit.amount < self.chain.dust.compute_dust_limit_or_zero(self.now, &deposit.asset);
        if deposit.used == Disposition::Dust || (deposit.used == Disposition::Surplus && is_small) {
            return;
        }
        self.effects.reviews.push(ReviewChange::Open(ReviewRequest {
            kind: reviews::Kind::DepositUnallocated,
            subject: format!("deposit/{id}"),
            detail: format!("{} base units of {} ({})", deposit.amount, deposit.asset, deposit.used.as_str()),
            amount: None,
        }));
    }
}
