//! Cursors: one for each chain. A cursor stores the last block that the follower has read, the recent blocks up to it,
//! and the reason of a halt. Every database transaction that books or reverses deposits of a chain locks the cursor of
//! the chain first.

pub mod halt;
mod position;
mod store;

use chain::{ChainId, Header};

use db::{self, Tx};

#[cfg(test)]
pub(crate) use position::compute_final_height;
pub use position::{Position, compute_position};
pub use store::Cursor;
pub(crate) use store::{
    CursorRow, delete_blocks_above, delete_blocks_below, find_block_hash, find_block_header_without_parent,
    find_cursor_height, insert_blocks, lock_cursor_and_check_deposits, move_cursor_and_final_height, set_final_height,
};

/// Returns the cursor of a chain, from which the follower continues after a restart; `None` when the daemon has never
/// started to follow the chain.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn find_cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<Cursor>, db::Error> {
    store::find_cursor(tx, chain).await
}

/// Stores the first cursor of a chain at the block `header`, so that the follower reads the blocks after it. No address
/// may be issued on the chain before this call, because the follower would not find payments in earlier blocks.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn start_following_chain(tx: &mut Tx, chain: &ChainId, header: &Header) -> Result<(), db::Error> {
    store::insert_cursor(tx, chain, header).await?;
    store::insert_blocks(tx, chain, std::slice::from_ref(header)).await
}

/// Locks the cursor of a chain and returns its row, like [`lock_cursor_and_check_deposits`], but fails when the daemon has never started
/// to follow the chain.
pub(crate) async fn lock_cursor_and_check_deposits_or_fail(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
) -> Result<CursorRow, db::Error> {
    let not_followed = || db::Error::Statement(format!("{chain} is not followed yet"));
    store::lock_cursor_and_check_deposits(tx, chain, position).await?.ok_or_else(not_followed)
}
