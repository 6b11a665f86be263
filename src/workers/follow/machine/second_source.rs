//! The check of deposits by second sources. Blocks of some chains can be invented without cost. There, an endpoint of
//! another provider is asked for the transfers of deposits that are deep enough to advance, and only the deposits whose
//! transfers it shows advance.

use std::collections::{BTreeMap, VecDeque};

use chain::source::Corroboration;
use chain::{BlockRef, Height};

use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{AfterStore, Machine, Phase, StepError};
use clock::Instant;
use ids::DepositId;
use money::cursors::Position;
use money::deposits::BlockToCorroborate;

/// Maximum number of deposits that are listed at once for a check.
pub(super) const LIST_MAX: i64 = 512;
/// Maximum number of blocks about which a second source is asked in one run.
pub(super) const BLOCKS_MAX: usize = 16;
/// The time, in milliseconds, after which a run asks about no further block, so that a silent endpoint does not keep the
/// follower from reading blocks.
pub(super) const ASKING_MAX_MS: i64 = 3_000;
/// Minimum time, in milliseconds, between two listings without a new block while deposits wait for a second source.
pub(super) const CHECK_INTERVAL_MS: i64 = 1_000;

/// A check of listed deposits by second sources, in progress.
#[derive(Debug)]
pub(super) struct SecondSourceCheck {
    started_at: Instant,
    /// The position up to which deposits advance.
    advance_to: Position,
    /// The block about which a second source is asked.
    asked: BlockToCorroborate,
    /// The blocks about which a second source is asked next.
    left: VecDeque<BlockToCorroborate>,
    /// True when further deposits wait, which this run does not check.
    more: bool,
    /// The answers up to now.
    answers: BTreeMap<DepositId, Corroboration>,
    after_store: AfterStore,
}

impl Machine {
    /// Continues after blocks were stored. When the chain needs a second source, requests the deposits that it has not
    /// shown yet. `advance_to` is the position up to which deposits were advanced; with `None`, no deposit may advance,
    /// and the check is repeated later.
    pub(super) fn request_unchecked_or_continue(
        &mut self,
        now: Instant,
        advance_to: Option<Position>,
        after_store: AfterStore,
    ) -> Action {
        match advance_to {
            None => {
                self.branch.check_again_at = Some(now.plus_ms(CHECK_INTERVAL_MS));
                self.continue_after_store(now, after_store)
            }
            Some(advance_to) if self.needs_second_source => self.list_unchecked_deposits(advance_to, after_store),
            Some(_) => {
                self.branch.check_again_at = None;
                self.continue_after_store(now, after_store)
            }
        }
    }

    /// Requests the deposits that would advance at this position and that no second source has shown yet.
    pub(super) fn list_unchecked_deposits(&mut self, advance_to: Position, after_store: AfterStore) -> Action {
        self.phase = Phase::Unchecked { advance_to, after_store };
        Action::ListUnchecked(advance_to, LIST_MAX)
    }

    /// Asks a second source about the first of these blocks, and keeps at most [`BLOCKS_MAX`] of them for this run.
    /// Continues after the storage when there is no block.
    pub(super) fn ask_about_first_block_or_continue(
        &mut self,
        now: Instant,
        advance_to: Position,
        blocks: Vec<BlockToCorroborate>,
        after_store: AfterStore,
    ) -> Action {
        let listed: usize = blocks.iter().map(|block| block.deposits.len()).sum();
        let more = blocks.len() > BLOCKS_MAX || i64::try_from(listed).is_ok_and(|listed| listed >= LIST_MAX);
        let mut left: VecDeque<BlockToCorroborate> = blocks.into_iter().take(BLOCKS_MAX).collect();
        let Some(asked) = left.pop_front() else {
            // Deposits whose next check is not due yet are not listed, so the listing is repeated.
            let again = self.branch.check_again_at.filter(|_| self.branch.unfinished);
            self.branch.check_again_at = again.map(|_| now.plus_ms(CHECK_INTERVAL_MS));
            return self.continue_after_store(now, after_store);
        };
        let (started_at, answers) = (now, BTreeMap::new());
        self.ask_about_block(SecondSourceCheck { started_at, advance_to, asked, left, more, answers, after_store })
    }

    fn ask_about_block(&mut self, check: SecondSourceCheck) -> Action {
        let (block, transfers) = (check.asked.block, check.asked.transfers.clone());
        self.phase = Phase::Answers(check);
        Action::ConfirmTransfers { block, transfers }
    }

    /// Keeps the answers about a block, and asks about the next block. After the last block, or when [`ASKING_MAX_MS`]
    /// have passed, requests to store all answers.
    ///
    /// # Errors
    /// The source returned another number of answers than it was asked for.
    pub(super) fn ask_next_block_or_store_answers(
        &mut self,
        now: Instant,
        mut check: SecondSourceCheck,
        answers: Vec<Corroboration>,
    ) -> Result<Action, StepError> {
        let BlockRef { height, .. } = check.asked.block;
        let (asked, answered) = (check.asked.transfers.len(), answers.len());
        self.report_missing_answers(height, &answers);
        let found = check.asked.match_answers(answers);
        check.answers.extend(found.ok_or(StepError::WrongNumberOfAnswers { height, asked, answered })?);
        match check.left.pop_front() {
            Some(next) if now.since(check.started_at) < ASKING_MAX_MS => {
                check.asked = next;
                return Ok(self.ask_about_block(check));
            }
            Some(_) => check.more = true,
            None => {}
        }
        let SecondSourceCheck { advance_to, answers, more, mut after_store, .. } = check;
        let is_shown = |answer: &Corroboration| matches!(answer, Corroboration::Shown { .. });
        let all_shown = answers.values().all(is_shown);
        self.branch.check_again_at = match (all_shown, more) {
            (true, false) => None,
            (true, true) => Some(now),
            (false, _) => Some(now.plus_ms(CHECK_INTERVAL_MS)),
        };
        if let AfterStore::AtTip { worked, .. } = &mut after_store {
            *worked |= answers.values().any(is_shown);
        }
        self.phase = Phase::AnswersStored(after_store);
        Ok(Action::StoreAnswers { answers, advance_to })
    }

    /// Adds a notice with the reason when no endpoint could answer about a transfer of this block; only once in a row
    /// for the same height.
    fn report_missing_answers(&mut self, height: Height, answers: &[Corroboration]) {
        let reason = answers.iter().find_map(|answer| match answer {
            Corroboration::CannotSay { reason } => Some(reason),
            Corroboration::Shown { .. } | Corroboration::Contradicted { .. } => None,
        });
        let Some(reason) = reason else { return };
        if self.unanswered_height.replace(height) != Some(height) {
            self.notices.push(Notice::NotCorroborated { height, reason: reason.clone() });
        }
    }
}
