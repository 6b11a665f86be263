//! Corroboration: on chains on which a false block costs nothing, an endpoint of another provider must show a deposit
//! before the deposit is confirmed. While no such endpoint can be asked, deposits up to a total value are confirmed at
//! twice the number of confirmations; all others wait, with a review. A deposit that such an endpoint contradicts is
//! not confirmed until one of these endpoints shows it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chain::{BlockRef, ChainId, Transfer, source};

use crate::cursors::{self, Position};
use crate::deposits::apply_blocks::ADVANCE_MAX;
use crate::deposits::batch::DepositBatch;
use crate::deposits::second_source::{
    self, InvoicePrice, SINGLE_SOURCE_PERIOD_MS, SingleSourceDecision, SingleSourceLimit, UnansweredDeposit,
};
use crate::deposits::{AppliedBlocks, Corroboration, Deposit, DepositService, State, store};
use crate::effects::{self, ReviewChange, ReviewRequest};
use crate::ledger::PostError;
use clock::Instant;
use db::{self, Tx};
use ids::DepositId;
use records::reviews;

/// The deposits of one block that a second source has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockToCorroborate {
    /// The block that contains the deposits.
    pub block: BlockRef,
    /// The ids of the deposits.
    pub deposits: Vec<DepositId>,
    /// The argument of [`chain::Source::confirm`]: first the transfers of other deposits that count already and have
    /// the block, the receiver and the asset of an asked one, then the transfer of each deposit in `deposits`, in the same
    /// order. The first ones are asked about again, so that a transfer like them, which one endpoint invents, neither
    /// matches the transfer nor the increase of a balance that exists only once.
    pub transfers: Vec<Transfer>,
}

impl BlockToCorroborate {
    /// Returns the answer about each deposit, from the answers about `transfers`; `None` when their number is wrong.
    pub fn match_answers(
        &self,
        mut answers: Vec<source::Corroboration>,
    ) -> Option<Vec<(DepositId, source::Corroboration)>> {
        if answers.len() != self.transfers.len() {
            return None;
        }
        let asked = answers.split_off(self.transfers.len().checked_sub(self.deposits.len())?);
        Some(self.deposits.iter().copied().zip(asked).collect())
    }
}

/// A deposit for which an endpoint of another provider was asked, with the stored data from which the result is
/// decided.
#[derive(Debug)]
pub(super) struct CheckedDeposit {
    pub deposit: Deposit,
    /// The number of checks that did not show the deposit.
    pub failed_checks: u32,
    /// The price and the amount due of the invoice, which give the value of the deposit.
    pub invoice: InvoicePrice,
}

/// The new values of the columns of a deposit that a check changes.
#[derive(Debug)]
pub(super) struct CheckResult {
    pub id: DepositId,
    pub corroboration: Corroboration,
    pub failed_checks: u32,
    /// The time from which the deposit may be checked again.
    pub check_after: Instant,
    pub single_source_usd_cents: Option<i64>,
}

/// Returns blocks with at most `limit` deposits for which a second source must be asked now. These deposits have enough
/// confirmations at `position`, no second source has shown them, and the delay since their last check is over. Deposits
/// that were confirmed without a second source in the last 24 hours are included, but come last. Otherwise the deposits
/// that wait longest for their next check come first.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_blocks_to_corroborate(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    position: Position,
    limit: i64,
) -> Result<Vec<BlockToCorroborate>, db::Error> {
    let since = now.plus_ms(-SINGLE_SOURCE_PERIOD_MS);
    let found = store::list_unchecked_deposits(tx, now, chain, position, since, limit).await?;
    let mut blocks: Vec<BlockToCorroborate> = Vec::new();
    let mut places: HashMap<BlockRef, usize> = HashMap::new();
    for (id, block, transfer) in found {
        let place = *places.entry(block).or_insert(blocks.len());
        if place == blocks.len() {
            blocks.push(BlockToCorroborate { block, deposits: Vec::new(), transfers: Vec::new() });
        }
        if let Some(unchecked) = blocks.get_mut(place) {
            unchecked.deposits.push(id);
            unchecked.transfers.push(transfer);
        }
    }
    add_evidenced_transfers(tx, chain, &mut blocks, &places).await?;
    Ok(blocks)
}

/// Puts the transfers of deposits that count already before the asked ones of the same block, receiver and asset.
async fn add_evidenced_transfers(
    tx: &mut Tx,
    chain: &ChainId,
    blocks: &mut [BlockToCorroborate],
    places: &HashMap<BlockRef, usize>,
) -> Result<(), db::Error> {
    let (mut asked, mut receivers) = (BTreeSet::new(), BTreeSet::new());
    for block in &*blocks {
        asked.extend(block.deposits.iter().copied());
        let BlockRef { height, hash } = block.block;
        receivers.extend(block.transfers.iter().map(|transfer| (height, hash, transfer.to, transfer.asset.clone())));
    }
    for (id, block, transfer) in store::list_evidenced_deposits(tx, chain, &receivers).await? {
        let place = places.get(&block).and_then(|place| blocks.get_mut(*place));
        if let Some(block) = place.filter(|_| !asked.contains(&id)) {
            block.transfers.insert(0, transfer);
        }
    }
    Ok(())
}

impl DepositService {
    /// Stores the answers of second sources about deposits. Then confirms or finalizes the deposits that can advance at
    /// the position `reached`: those that a second source shows, and those that may be confirmed without one. Opens and
    /// closes the reviews of deposits that a second source contradicts or that no second source can show. Locks the
    /// cursor of the chain first.
    ///
    /// # Errors
    /// Returns an error when the chain was never started, and when the ledger refuses an entry.
    pub async fn store_answers_and_advance_deposits(
        &self,
        tx: &mut Tx,
        now: Instant,
        reached: Position,
        answers: &BTreeMap<DepositId, source::Corroboration>,
    ) -> Result<AppliedBlocks, PostError> {
        let chain = &self.chain;
        let before = cursors::lock_cursor_and_check_deposits_or_fail(tx, &chain.id, Position::NONE).await?;
        let position = Position { cursor: reached.cursor.min(before.height), last: before.final_height };
        let mut batch = DepositBatch::empty_for_service(now, self);
        if let Some(limit) = &self.second_source {
            let since = now.plus_ms(-SINGLE_SOURCE_PERIOD_MS);
            let mut check = Check {
                now,
                service: self,
                limit,
                position,
                used_cents: store::sum_single_source_usd_cents_since(tx, &chain.id, since).await?,
                reviews: Vec::new(),
            };
            let checked = store::list_unorphaned_deposits_with_prices(tx, answers.keys().copied()).await?;
            let results = checked.iter().filter_map(|checked| {
                let answer = answers.get(&checked.deposit.id)?;
                Some(check.decide_check_result_and_reviews(checked, answer))
            });
            let results: Vec<CheckResult> = results.collect();
            check.reviews.into_iter().for_each(|change| batch.add_review_change(change));
            store::set_check_results(tx, &results).await?;
        }
        batch.lock_advancing_deposits_with_invoices(tx, position, ADVANCE_MAX).await?;
        let stored = batch.store_deposits_and_settle_invoices(tx, Some(position)).await?;
        let changes = effects::apply_effects(tx, now, stored.effects).await?;
        let unfinished =
            cursors::lock_cursor_and_check_deposits_or_fail(tx, &chain.id, Position::NONE).await?.unfinished;
        changes.dispatch_to_listener(tx, now, &*self.listener).await?;
        Ok(AppliedBlocks { final_height: before.final_height, unfinished })
    }
}

/// The data for the decisions about the answers of second sources, and the reviews that these decisions open and close.
struct Check<'s> {
    now: Instant,
    service: &'s DepositService,
    limit: &'s SingleSourceLimit,
    position: Position,
    /// The value, in US cents, of the deposits that were confirmed without a second source in the last 24 hours.
    used_cents: i64,
    /// The reviews to open and to close.
    reviews: Vec<ReviewChange>,
}

impl Check<'_> {
    /// Returns the new corroboration of a deposit, its number of failed checks and the time of its next check,
    /// according to the answer of a second source. Adds the reviews that the answer opens and closes.
    fn decide_check_result_and_reviews(
        &mut self,
        checked: &CheckedDeposit,
        answer: &source::Corroboration,
    ) -> CheckResult {
        let mut result = CheckResult {
            id: checked.deposit.id,
            corroboration: checked.deposit.corroboration,
            failed_checks: checked.failed_checks.saturating_add(1),
            check_after: self.now,
            single_source_usd_cents: checked.deposit.single_source_usd_cents,
        };
        match answer {
            source::Corroboration::Shown { endpoint } => {
                result.corroboration = Corroboration::Shown;
                result.failed_checks = checked.failed_checks;
                let note = format!("{endpoint} shows the transfer");
                self.close_review_if_any_check_failed(checked, reviews::Kind::DepositContradicted, &note);
                self.close_review_if_any_check_failed(checked, reviews::Kind::DepositUncorroborated, &note);
            }
            source::Corroboration::Contradicted { endpoint, detail } => {
                result.corroboration = Corroboration::Contradicted;
                let note = format!("{endpoint} contradicts the transfer");
                self.close_review_if_any_check_failed(checked, reviews::Kind::DepositUncorroborated, &note);
                self.open_contradicted_review(checked, detail);
            }
            source::Corroboration::CannotSay { reason } => {
                result.single_source_usd_cents = self.confirm_within_limit_or_open_review(checked, reason);
            }
        }
        let waits = result.corroboration == Corroboration::Unchecked && result.single_source_usd_cents.is_none();
        let delay_ms = second_source::compute_retry_delay_ms(result.failed_checks, waits);
        result.check_after = self.now.plus_ms(delay_ms);
        result
    }

    /// Decides about a deposit that no second source could show or contradict. Returns its value in US cents when it is
    /// confirmed without a second source; the value then counts towards the limit. Returns `None` when the deposit
    /// waits; a review is opened when it would exceed the limit or has no known value. A deposit that was contradicted
    /// waits until a second source shows it.
    fn confirm_within_limit_or_open_review(&mut self, checked: &CheckedDeposit, reason: &str) -> Option<i64> {
        let CheckedDeposit { deposit, invoice, .. } = checked;
        if deposit.state != State::Seen || deposit.corroboration == Corroboration::Contradicted {
            return deposit.single_source_usd_cents;
        }
        let usd_cents =
            self.limit.compute_usd_at_frozen_or_fresh_rate(self.now, &deposit.asset, deposit.amount, invoice);
        let unanswered =
            UnansweredDeposit { height: deposit.height, confirm_height: deposit.confirm_height, usd_cents };
        let (family, limit_cents) = (self.service.chain.family, self.limit.usd_cents_max());
        let (cursor, used_cents) = (self.position.cursor, self.used_cents);
        match second_source::decide_without_second_source(family, cursor, unanswered, used_cents, limit_cents) {
            SingleSourceDecision::WaitForDepth => None,
            SingleSourceDecision::Confirm(cents) => {
                self.used_cents = self.used_cents.saturating_add(cents);
                let note = "it was confirmed at twice its depth without a second source";
                self.close_review_if_any_check_failed(checked, reviews::Kind::DepositUncorroborated, note);
                Some(cents)
            }
            SingleSourceDecision::ExceedsLimit => {
                let limit_usd = rust_decimal::Decimal::new(limit_cents, 2);
                let why = format!("it would exceed the {limit_usd} USD in 24 hours of `policy.single_source_max_usd`");
                self.open_uncorroborated_review(checked, reason, &why);
                None
            }
            SingleSourceDecision::UnknownValue => {
                self.open_uncorroborated_review(checked, reason, "no fresh rate gives its value");
                None
            }
        }
    }

    fn open_contradicted_review(&mut self, checked: &CheckedDeposit, detail: &str) {
        let Deposit { amount, asset, height, state, .. } = &checked.deposit;
        let then = match state {
            State::Seen => format!(
                ". If the transfer does not exist, reject it with `settled admin deposit reject {}`",
                checked.deposit.id
            ),
            State::Confirmed | State::Final | State::Orphaned => String::new(),
        };
        let booked = match state {
            State::Seen => "it is not confirmed until an endpoint of another provider shows it",
            State::Confirmed | State::Final | State::Orphaned => {
                "it was confirmed before, because no endpoint of another provider could be asked"
            }
        };
        self.open_review(
            checked,
            reviews::Kind::DepositContradicted,
            format!(
                "{amount} base units of {asset} in block {height}: {detail}; {booked}. Compare the endpoints with a block \
                 explorer and remove the one that is wrong from the configuration{then}"
            ),
        );
    }

    fn open_uncorroborated_review(&mut self, checked: &CheckedDeposit, reason: &str, why: &str) {
        let Deposit { amount, asset, height, .. } = &checked.deposit;
        self.open_review(
            checked,
            reviews::Kind::DepositUncorroborated,
            format!(
                "{amount} base units of {asset} in block {height} wait for an endpoint of another provider: {reason}. The \
                 deposit is not confirmed without one, because {why}"
            ),
        );
    }

    /// Adds a review of the deposit to open. The review is not opened when the operator has already decided on this
    /// amount.
    fn open_review(&mut self, checked: &CheckedDeposit, kind: reviews::Kind, detail: String) {
        let (subject, amount) = (format!("deposit/{}", checked.deposit.id), Some(checked.deposit.amount));
        self.reviews.push(ReviewChange::Open(ReviewRequest { kind, subject, detail, amount }));
    }

    /// Closes a review of the deposit, if it is open. Only failed checks open such reviews, so without a failed check
    /// no statement is needed.
    fn close_review_if_any_check_failed(&mut self, checked: &CheckedDeposit, kind: reviews::Kind, note: &str) {
        if checked.failed_checks == 0 {
            return;
        }
        let subject = format!("deposit/{}", checked.deposit.id);
        self.reviews.push(ReviewChange::Resolve { kind, subject, note: note.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use chain::{AddressKey, Amount, AssetId, BlockHash, TransferIndex, TxId, TxPart};

    use super::*;

    #[test]
    fn answers_about_deposits_that_count_already_are_dropped() {
        let transfer = |log| Transfer {
            txid: TxId([1; 32]),
            index: TransferIndex { tx_index: 0, part: TxPart::Log(log) },
            asset: AssetId::from_stored("tron/token"),
            to: AddressKey([1; 20]),
            from: None,
            amount: Amount::from(5u64),
        };
        let shown = source::Corroboration::Shown { endpoint: "b".into() };
        let contradicted = source::Corroboration::Contradicted { endpoint: "b".into(), detail: "one only".into() };
        let asked = BlockToCorroborate {
            block: BlockRef { height: 4, hash: BlockHash([4; 32]) },
            deposits: vec![DepositId(2)],
            transfers: vec![transfer(0), transfer(1)],
        };
        assert_eq!(
            asked.match_answers(vec![shown.clone(), contradicted.clone()]),
            Some(vec![(DepositId(2), contradicted)])
        );
        assert_eq!(asked.match_answers(vec![shown]), None);
    }
}
