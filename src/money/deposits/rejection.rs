//! Rejection: an operator decides that a deposit which an endpoint contradicts does not exist. Its endpoint invented it,
//! or was wrong.

use std::collections::BTreeSet;

use chain::ChainId;

use crate::cursors::{self, Position};
use crate::deposits::{Corroboration, DepositService, State, rewind, store};
use crate::effects::{self, Effects};
use crate::invoices;
use crate::ledger::PostError;
use clock::Instant;
use db::{self, Tx};
use ids::DepositId;
use records::audit_log::{self, Action, Actor};

/// The reason why a deposit was not rejected.
#[derive(Debug, thiserror::Error)]
pub enum RejectError {
    /// No deposit of the chain has this id.
    #[error("there is no deposit {0}")]
    Missing(DepositId),
    /// Only deposits that are contradicted and not confirmed can be rejected. The field says what the deposit is.
    #[error("deposit {0} is {1}; only a deposit that is seen and contradicted can be rejected")]
    NotContradicted(DepositId, String),
    /// The ledger refused an entry, or the database failed.
    #[error(transparent)]
    Post(#[from] PostError),
}

impl From<db::Error> for RejectError {
    fn from(error: db::Error) -> RejectError {
        RejectError::Post(error.into())
    }
}

/// Returns the chain of a deposit; `None` when no deposit has this id.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_deposit_chain(tx: &mut Tx, id: DepositId) -> Result<Option<ChainId>, db::Error> {
    store::find_deposit_chain(tx, id).await
}

impl DepositService {
    /// Treats a contradicted deposit as if a reorg had removed it: the ledger voids its hold, its reviews are closed, and
    /// its invoice no longer waits for it. Records the action and the operator's note in the audit log. Locks the cursor
    /// of the chain first, so that the follower cannot confirm the deposit at the same time.
    ///
    /// # Errors
    /// [`RejectError`] when the deposit is not a contradicted one that waits, and when the ledger refuses an entry.
    pub async fn reject_contradicted_deposit(
        &self,
        tx: &mut Tx,
        now: Instant,
        actor: &Actor,
        id: DepositId,
        note: &str,
    ) -> Result<(), RejectError> {
        cursors::lock_cursor_and_check_deposits_or_fail(tx, &self.chain.id, Position::NONE).await?;
        let found = store::lock_deposit(tx, &self.chain.id, id).await?;
        let deposit = found.ok_or(RejectError::Missing(id))?;
        if deposit.state != State::Seen || deposit.corroboration != Corroboration::Contradicted {
            let is = format!("{} and {}", deposit.state.as_str(), deposit.corroboration.as_str());
            return Err(RejectError::NotContradicted(id, is));
        }
        let mut locked = invoices::lock_invoices(tx, &BTreeSet::from([deposit.invoice])).await?;
        let missing = || db::Error::Statement(format!("invoice {} does not exist", deposit.invoice));
        let invoice = locked.get_mut(&deposit.invoice).ok_or_else(missing)?;
        let mut effects = Effects::default();
        let cause = "the operator rejected the deposit";
        rewind::reverse_orphaned_deposit(tx, now, &self.chain, &deposit, invoice, cause, &mut effects).await?;
        effects.invoices = locked.into_values().collect();
        let changes = effects::apply_effects(tx, now, effects).await?;
        audit_log::record_action(tx, now, actor, Action::DepositReject, &format!("deposit/{id}"), note).await?;
        Ok(changes.dispatch_to_listener(tx, now, &*self.listener).await?)
    }
}
