//! Reorganisations: the search for the newest block that the followed branch and another branch have in common (the
//! common ancestor), and the rewind to this block. When there is none among the stored blocks, the chain is halted.

use chain::follower::ForkSearch;
use chain::{BlockRef, Header, Height, SourceError, Tip};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::Action;
use crate::workers::follow::machine::cross_check::CrossCheckPurpose;
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{Machine, Phase, StepError};
use clock::Instant;

impl Machine {
    /// Decides what to do when the newest block of an endpoint is not above the cursor and not on the followed branch.
    /// `preferred` is the header of the preferred endpoint at the same height; `None` when it has none. When this
    /// header is on another branch, too, the follower searches for the common ancestor. Otherwise the conflict is only
    /// logged: endpoints differ for a moment when two new blocks compete, and permanently when an endpoint returns
    /// forged blocks.
    pub(super) fn switch_branch_or_log_conflict(
        &mut self,
        now: Instant,
        tip: Tip,
        preferred: Option<Header>,
    ) -> Result<Action, StepError> {
        let Some(preferred) = preferred else { return Ok(Action::Finish(Ran::Idle)) };
        if self.branch.follower.is_on_our_branch(preferred.block_ref()) == Some(false) {
            return self.search_ancestor_or_rewind_or_halt(preferred);
        }
        let head = tip.head.block_ref();
        if self.conflicting_head.replace(head) != Some(head) {
            self.notices.push(Notice::ConflictingHead(head));
        }
        Ok(self.store_recheck_or_expire_at_tip(now, tip))
    }

    /// Takes one step in the search for the common ancestor of the followed branch and another branch, whose lowest
    /// known block is `lowest`: requests the parent of this block, or ends the search with a rewind or a halt. A second
    /// endpoint is asked before a rewind that reverses confirmed deposits and before a halt, unless there is no second
    /// endpoint.
    pub(super) fn search_ancestor_or_rewind_or_halt(&mut self, lowest: Header) -> Result<Action, StepError> {
        let theirs = lowest.block_ref();
        Ok(match self.branch.follower.search_fork_below(&lowest) {
            ForkSearch::RequestHeader(height) => {
                self.phase = Phase::ForkParent { lowest, height };
                Action::ReadHeader(height)
            }
            ForkSearch::RewindTo(to) if !self.cross_checkable => self.rewind_branch(to),
            ForkSearch::RewindTo(to) => {
                self.phase = Phase::ConfirmedAbove { to, theirs };
                Action::FindConfirmedAbove(to.height)
            }
            ForkSearch::TooDeep if !self.cross_checkable => self.request_halt(),
            ForkSearch::TooDeep => self.request_cross_check(theirs, CrossCheckPurpose::Rewind { to: None }),
        })
    }

    /// Continues the search for the common ancestor with `parent`, the header at `height`, which must be the parent of
    /// `lowest`, the lowest known block of the other branch.
    ///
    /// # Errors
    /// The endpoint returned another block than the parent, or has no block at this height.
    pub(super) fn continue_ancestor_search(
        &mut self,
        lowest: Header,
        height: Height,
        parent: Option<Header>,
    ) -> Result<Action, StepError> {
        match parent {
            Some(parent) if parent.hash == lowest.parent => self.search_ancestor_or_rewind_or_halt(parent),
            Some(_) => {
                let reason = format!(
                    "block {} was returned, and then a block {height} that is not its parent: the branch changed or is invented",
                    lowest.height
                );
                Err(SourceError::InvalidResponse(reason).into())
            }
            None => Err(SourceError::BlockNotFound(height).into()),
        }
    }

    /// Moves the branch back to the common ancestor `to`. When no stored block is above `to`, this changes only memory;
    /// otherwise an action rewinds the database first.
    pub(super) fn rewind_branch(&mut self, to: BlockRef) -> Action {
        let depth = self.branch.follower.cursor().height - to.height;
        self.notices.push(Notice::Reorganised { depth, to: to.height });
        if to.height >= self.branch.stored.height {
            self.branch.pending.retain(|block| block.header.height <= to.height);
            self.branch.follower.rewind_to(to);
            return Action::Finish(Ran::Worked);
        }
        self.branch.pending.clear();
        self.phase = Phase::Rewound(to);
        Action::Rewind { from: self.branch.stored, to }
    }

    /// Returns the action that halts the chain, because the other branch leaves the followed one at a block that is
    /// final or no longer stored, so the follower cannot rewind to it.
    pub(super) fn request_halt(&mut self) -> Action {
        self.phase = Phase::Halted;
        Action::Halt(format!(
            "the node's branch departs from the followed one below the final block {} or deeper than {} blocks; compare the nodes before anything \
             is paid out",
            self.branch.follower.final_height(),
            self.deposit_limits.keep
        ))
    }
}
