//! Halted and disputed chains. The follower stores no blocks of a halted chain until the operator resumes it. A chain
//! is disputed while its endpoints report different blocks; the dispute ends when they agree again.

use chain::ChainId;

use crate::cursors::{Position, store};
use clock::Instant;
use db::{self, Tx};
use records::audit_log::{self, Action, Actor};
use records::reviews;

/// Marks the chain as halted until the operator resumes it, and opens a review.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn halt_chain_and_open_review(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    why: &str,
) -> Result<(), db::Error> {
    store::set_halt_reason(tx, chain, Some(why)).await?;
    reviews::open_or_reopen_review(tx, now, reviews::Kind::ChainHalted, chain.as_str(), why).await
}

/// Returns the reason why the chain is halted; `None` when it is not halted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_halt_reason(tx: &mut Tx, chain: &ChainId) -> Result<Option<String>, db::Error> {
    store::find_halt_reason(tx, chain).await
}

/// Resumes a halted chain, closes its review and records the action in the audit log. Returns the reason of the halt;
/// `None` when the chain was not halted.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn resume_halted_chain(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    chain: &ChainId,
) -> Result<Option<String>, db::Error> {
    store::lock_cursor_and_check_deposits(tx, chain, Position::NONE).await?;
    let Some(reason) = store::find_halt_reason(tx, chain).await? else { return Ok(None) };
    store::set_halt_reason(tx, chain, None).await?;
    let note = format!("{actor} resumed it");
    reviews::resolve_review_if_open(tx, now, reviews::Kind::ChainHalted, chain.as_str(), &note).await?;
    audit_log::record_action(tx, now, actor, Action::ChainResume, chain.as_str(), &reason).await?;
    Ok(Some(reason))
}

/// Opens a review because two endpoints of the chain report different blocks. This function only opens the review; the
/// follower confirms no deposits until the endpoints agree.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn open_chain_disputed_review(
    tx: &mut Tx,
    now: Instant,
    chain: &ChainId,
    why: &str,
) -> Result<(), db::Error> {
    reviews::open_or_reopen_review(tx, now, reviews::Kind::ChainDisputed, chain.as_str(), why).await
}

/// Closes the review that [`open_chain_disputed_review`] opened, because the endpoints report the same blocks again.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn resolve_chain_disputed_review(tx: &mut Tx, now: Instant, chain: &ChainId) -> Result<(), db::Error> {
    reviews::resolve_review_if_open(tx, now, reviews::Kind::ChainDisputed, chain.as_str(), "endpoints agree again")
        .await
}
