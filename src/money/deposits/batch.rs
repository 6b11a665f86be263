//! Batches: the deposits that one database transaction books. A batch reads all their invoices together, decides in
//! memory, and stores all results together. Therefore a block with a thousand deposits needs as many SQL statements as
//! a block with one deposit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use chain::{AddressKey, Amount, Header, Height, Transfer};

use crate::assets::{FollowedChain, is_dust_amount};
use crate::cursors::Position;
use crate::deposits::block_sums::BlockSums;
use crate::deposits::{self, Corroboration, Deposit, DepositService, Grace, NewDeposit, State, machine, store};
use crate::effects::{Effects, ReviewChange, ReviewRequest};
use crate::invoices::{self, Arrival, CountedSums, Disposition, InvoiceUpdate, decide_disposition_ignoring_dust};
use crate::ledger::{Account, EntryLine, JournalEntry, Suspense};
use crate::unclaimed;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;
use records::reviews;

/// The new deposits, and the stored deposits with a new state, that one database transaction stores.
pub(super) struct DepositBatch<'c> {
    now: Instant,
    chain: &'c FollowedChain,
    /// The corroboration with which new deposits are stored: unchecked when the chain needs a second source, otherwise
    /// shown.
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
    /// The number of transfers that were stored for the first time, as deposits or as unclaimed transfers.
    pub booked: usize,
    /// True when at least one deposit of the batch is not final yet.
    pub unfinished: bool,
    /// True when at least one deposit of the batch became final.
    pub finished: bool,
    /// True when the batch had transfers to addresses that belong to no invoice.
    pub unclaimed: bool,
}

/// A deposit or transfer below the dust limit that an invoice counts if it completes the payment.
#[derive(Debug, Clone, Copy)]
enum DustPart<'d> {
    /// A stored deposit.
    Stored(&'d Deposit),
    /// A new transfer: its index in the list of received transfers, and its amount in base units.
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

/// Returns the parts that together reach `missing`, the amount that an invoice still needs. Larger parts are chosen
/// first. Returns no parts when all of them together are too little, or when `missing` is zero.
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
    /// Returns an empty batch for the chain of the service. When the chain needs a second source, new deposits stay
    /// seen until a second source shows them.
    pub fn empty_for_service(now: Instant, service: &'c DepositService) -> DepositBatch<'c> {
        let corroboration = if service.needs_second_source() { Corroboration::Unchecked } else { Corroboration::Shown };
        let (chain, invoices, fresh, older) = (&service.chain, BTreeMap::new(), Vec::new(), Vec::new());
        let (unclaimed, effects) = (Vec::new(), Effects::default());
        DepositBatch { now, chain, corroboration, invoices, fresh, older, unclaimed, effects }
    }

    /// Adds the transfers to addresses of invoices as new deposits, each with its disposition. Locks these invoices.
    /// Ignores transfers of zero base units. A transfer whose amount is too large to be booked opens a review instead.
    /// Stored dust is counted when the new deposits and the dust together complete a payment. A transfer to an address without an invoice is added as unclaimed.
    pub async fn add_received_transfers(
        &mut self,
        tx: &mut Tx,
        grace: Grace,
        block_sums: BlockSums,
        transfers: &[(Header, &Transfer)],
    ) -> Result<(), db::Error> {
        let keys: BTreeSet<AddressKey> = transfers.iter().map(|(_, transfer)| transfer.to).collect();
        let mut targets = invoices::lock_invoices_by_address(tx, &self.chain.id, &keys).await?;
        // The key of an address owns the same address on every chain of the family and mode, so a buyer may pay on
        // another of these chains. Look there for the invoices that were not found.
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
            // Anyone can mint a token without limit and send such an amount to the address. An error here would stop
            // the follower.
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
        // A late transfer counts as in time if its transaction was seen in time: in a block that a reorg removed, or as
        // an unconfirmed transfer.
        let was_in_time = store::filter_late_transactions_seen_in_time(tx, &late).await?;

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
        self.book_stored_dust_as_counted(tx, completing).await?;
        let has_stored_deposits = !block_sums.is_empty();
        let depths = self.compute_required_confirmations_by_block(&received, &dispositions, block_sums);
        if has_stored_deposits {
            store::raise_confirm_heights(tx, &self.chain.id, &depths).await?;
        }
        for ((header, transfer, target), used) in received.into_iter().zip(dispositions) {
            let Some(invoice) = self.invoices.get(&target) else { continue };
            let depth = depths.get(&header.height).copied().unwrap_or(1);
            let deposit =
                NewDeposit::from_transfer(self.chain, header, transfer, invoice, used, depth, self.corroboration);
            self.fresh.push(deposit);
        }
        Ok(())
    }

    /// Returns the disposition of each received transfer, in their order, and the stored dust that must now be counted.
    ///
    /// Transfers that may be dust are decided after all others, and larger transfers before smaller ones. Therefore the
    /// result does not depend on the order of transactions in a block. A transfer that an invoice counted before a
    /// reorg is never dust: after the reorg, it may be mined before the larger transfer of the same payment.
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
        let counted = invoices::sum_counted_or_short_deposits(tx, &asked).await?;
        let mut seen: HashMap<InvoiceId, Amount> = counted.into_iter().map(|(id, sums)| (id, sums.seen)).collect();
        let small: Vec<_> =
            small.iter().map(|(_, transfer, target)| (*target, transfer.txid, transfer.amount)).collect();
        let counted_before = store::filter_transfers_counted_before_reorg(tx, &small).await?;

        let may_be_dust = |transfer: &Transfer, target: InvoiceId| {
            is_small(transfer) && !counted_before.contains(&(target, transfer.txid, transfer.amount))
        };
        let mut order: Vec<(usize, &ReceivedTransfer<'_>)> = received.iter().enumerate().collect();
        order.sort_by_cached_key(|(_, (_, transfer, target))| {
            (may_be_dust(transfer, *target), Reverse(transfer.amount))
        });
        // The loop below sets the disposition of each transfer whose invoice is locked.
        let mut dispositions = vec![Disposition::Dust; received.len()];
        let mut dust: BTreeMap<InvoiceId, Vec<DustPart>> = BTreeMap::new();
        for stored in stored_dust {
            dust.entry(stored.invoice).or_default().push(DustPart::Stored(stored));
        }
        for (place, (header, transfer, target)) in order {
            let Some(invoice) = self.invoices.get(target) else { continue };
            let own = invoice.asset == transfer.asset;
            let mut used = decide_disposition_ignoring_dust(invoice.state, own, arrival(header, transfer, invoice));
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

    /// Returns the stored dust that the invoices of the received transfers could count. Such dust is in the requested
    /// asset, arrived in time, and its invoice is open or reversed. Invoices without earlier deposits have no dust, so
    /// they are left out of the query.
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
        if asked.is_empty() { Ok(Vec::new()) } else { store::list_countable_dust_in_time(tx, grace, &asked).await }
    }

    /// Marks stored dust as counted by its invoice, because together with new deposits it completes the payment. When
    /// the dust is already confirmed, its money moves from the suspense account for dust to the incoming account of the
    /// merchant.
    async fn book_stored_dust_as_counted(&mut self, tx: &mut Tx, dust: Vec<Deposit>) -> Result<(), db::Error> {
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

    /// Returns the number of confirmations that the deposits of each block need, by block height. The number depends on
    /// the total value of the counted deposits in the block, because this is the value that a payer would win by
    /// reversing the block.
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

    /// Adds a review to open to the effects of the batch.
    pub fn add_review_request(&mut self, request: ReviewRequest) {
        self.add_review_change(ReviewChange::Open(request));
    }

    /// Adds a change of a review to the effects of the batch: a review to open, to resolve or to retract.
    pub fn add_review_change(&mut self, change: ReviewChange) {
        self.effects.reviews.push(change);
    }

    /// Returns the dust limit for the asset of a transfer, in base units.
    fn compute_dust_limit_of_transfer(&self, transfer: &Transfer) -> Amount {
        self.chain.dust.compute_dust_limit_or_zero(self.now, &transfer.asset)
    }

    /// Locks the stored deposits that `position` confirms (at most `limit`) or makes final (at most `limit`), together
    /// with their invoices, and adds them to the batch. Deposits that wait for a second source are left out.
    pub async fn lock_advancing_deposits_with_invoices(
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

    /// Stores each deposit in the state that it has at `position`, and returns the effects, which the caller must
    /// apply. The effects hold the amounts of new deposits in the ledger, post the amounts of confirmed deposits,
    /// settle the invoices that these deposits pay, and release the credited money of invoices whose deposits are all
    /// final. `None` confirms no deposit.
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
                self.confirm_moving_unallocated_with_review(deposit);
                if deposit.used == Disposition::Counted {
                    settling.insert(deposit.invoice);
                }
            }
            if *to == State::Final {
                releasing.insert(deposit.invoice);
            }
        }
        store::set_changed_states_and_dispositions(tx, self.now, &older).await?;

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
            booked: fresh.len() + self.unclaimed.len(),
            unfinished: reached.clone().any(|to| to != State::Final),
            finished: reached.any(|to| to == State::Final),
            unclaimed: !self.unclaimed.is_empty(),
        })
    }

    /// Returns the sums of the counted deposits of the invoices `ids`, by invoice id. For an invoice without earlier
    /// deposits, the sums are computed from the new deposits `fresh` without a query.
    async fn sum_stored_and_new_counted_deposits(
        &self,
        tx: &mut Tx,
        ids: &BTreeSet<InvoiceId>,
        fresh: &[(Deposit, State)],
    ) -> Result<BTreeMap<InvoiceId, CountedSums>, db::Error> {
        let may_have_earlier_deposits =
            |id: &InvoiceId| self.invoices.get(id).is_none_or(InvoiceUpdate::may_have_earlier_deposits);
        let asked = ids.iter().copied().filter(may_have_earlier_deposits).collect();
        let mut counted = invoices::sum_counted_or_short_deposits(tx, &asked).await?;
        for (deposit, state) in fresh.iter().filter(|(deposit, _)| deposit.used == Disposition::Counted) {
            if ids.contains(&deposit.invoice) && !asked.contains(&deposit.invoice) {
                let sums = counted.entry(deposit.invoice).or_insert(CountedSums::NOTHING);
                sums.add_counted_deposit(deposit.amount, *state != State::Seen, *state == State::Final)?;
            }
        }
        Ok(counted)
    }

    /// Adds a journal entry that holds the amount of a new deposit. When the invoice is open and counts the deposit,
    /// marks the payment as confirming.
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

    /// Adds a journal entry that posts the held amount of a deposit. When the invoice does not count the deposit, adds
    /// an entry that moves the money to a suspense account, and opens a review, except for amounts as small as dust. A
    /// counted deposit becomes surplus when earlier deposits have already paid the invoice.
    fn confirm_moving_unallocated_with_review(&mut self, deposit: &mut Deposit) {
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
        // Dust gets no review, because anyone can send dust to any address. A surplus below the dust limit gets none
        // either, because the operator would not send it back.
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
