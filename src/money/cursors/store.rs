//! All SQL of cursors (for each chain, the last block that the follower has read) and of the recent blocks.

use chain::{BlockHash, BlockRef, ChainId, Header, Height};

use crate::cursors::Position;
use db::{self, Tx, batch_row, deferred, deferred_for_each, execute, row, rows};

/// The stored progress of a chain's follower.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The most recent blocks that the follower has read, lowest first. The last of them is the block of the cursor.
    pub recent: Vec<BlockRef>,
    /// The height of the highest final block. A reorg cannot remove this block.
    pub final_height: Height,
    /// The time in the header of the cursor's block, in Unix seconds.
    pub time: i64,
    /// The reason why the chain is halted; `None` when it is not halted.
    pub halted: Option<String>,
}

/// The row of a cursor, with facts about the deposits and unclaimed transfers of its chain.
pub struct CursorRow {
    /// The height of the last block that the follower has read.
    pub height: Height,
    /// The height of the highest final block. A reorg cannot remove this block.
    pub final_height: Height,
    /// True when at least one deposit of the chain is seen or confirmed, and so not final yet.
    pub unfinished: bool,
    /// True when at least one deposit of the chain can become confirmed or final at the position that the caller asked
    /// for. Deposits that wait for a second source are not considered.
    pub due: bool,
    /// True when some unclaimed transfers become final.
    pub unclaimed_due: bool,
}

/// Returns the cursor of a chain with the recent blocks; `None` when the follower of the chain has never started.
pub async fn find_cursor(tx: &mut Tx, chain: &ChainId) -> Result<Option<Cursor>, db::Error> {
    let found = row!(tx, "select final_height, block_time, halt_reason from cursors where chain = $1", chain.as_str())?;
    let Some(found) = found else { return Ok(None) };
    let recent = rows!(tx, "select height, hash from blocks where chain = $1 order by height", chain.as_str())?;
    let recent = recent
        .iter()
        .map(|row| Ok(BlockRef { height: row.get("height")?, hash: BlockHash(row.get("hash")?) }))
        .collect::<Result<_, db::Error>>()?;
    Ok(Some(Cursor {
        recent,
        final_height: found.get("final_height")?,
        time: found.get("block_time")?,
        halted: found.get("halt_reason")?,
    }))
}

/// Locks the cursor of a chain and returns its row. The field `due` tells if a deposit can advance at `position`.
/// `None` when the daemon has never started to follow the chain. Every database transaction that books or reverses
/// deposits of the chain locks the cursor first, so that these transactions run one after another.
pub async fn lock_cursor_and_check_deposits(
    tx: &mut Tx,
    chain: &ChainId,
    position: Position,
) -> Result<Option<CursorRow>, db::Error> {
    let found = row!(
        tx,
        "select height, final_height,
         case when exists (select 1 from deposits where chain = $1 and state = 'seen')
                or exists (select 1 from deposits where chain = $1 and state = 'confirmed') then 1 else 0 end as unfinished,
         case when exists (select 1 from deposits where chain = $1 and state = 'seen' and confirm_height <= $2
                           and (corroboration = 'shown' or single_source_usd_cents is not null))
                or exists (select 1 from deposits where chain = $1 and state = 'seen' and height <= $3
                           and (corroboration = 'shown' or single_source_usd_cents is not null))
                or exists (select 1 from deposits where chain = $1 and state = 'confirmed' and height <= $3)
              then 1 else 0 end as due,
         case when exists (select 1 from unclaimed_transfers where chain = $1 and state = 'seen' and height <= $3)
              then 1 else 0 end as unclaimed_due
         from cursors where chain = $1 for update",
        chain.as_str(),
        position.cursor,
        position.last
    )?;
    let at = |row: db::Row| {
        Ok(CursorRow {
            height: row.get("height")?,
            final_height: row.get("final_height")?,
            unfinished: row.get("unfinished")?,
            due: row.get("due")?,
            unclaimed_due: row.get("unclaimed_due")?,
        })
    };
    found.map(at).transpose()
}

/// Inserts the cursor of a chain at the block `header`, with no final block: the final height is 0.
pub async fn insert_cursor(tx: &mut Tx, chain: &ChainId, header: &Header) -> Result<(), db::Error> {
    execute!(
        tx,
        "insert into cursors (chain, height, hash, block_time, final_height, first_height) values ($1, $2, $3, $4, 0, $2)",
        chain.as_str(),
        header.height,
        header.hash.0,
        header.time
    )?;
    Ok(())
}

/// Moves the cursor from the block `from` to the block `to`, forwards or backwards, and stores the height of the
/// highest final block. Fails when the cursor is not at `from`.
pub async fn move_cursor_and_final_height(
    tx: &mut Tx,
    chain: &ChainId,
    from: BlockRef,
    to: &Header,
    final_height: Height,
) -> Result<(), db::Error> {
    deferred!(
        tx,
        "update cursors set height = $4, hash = $5, block_time = $6, final_height = $7
         where chain = $1 and height = $2 and hash = $3",
        chain.as_str(),
        from.height,
        from.hash.0,
        to.height,
        to.hash.0,
        to.time,
        final_height
    )
}

/// Stores the height of the highest final block of a chain.
pub async fn set_final_height(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<(), db::Error> {
    execute!(tx, "update cursors set final_height = $2 where chain = $1", chain.as_str(), height)?;
    Ok(())
}

/// Returns the reason why the chain is halted; `None` when it is not halted.
pub async fn find_halt_reason(tx: &mut Tx, chain: &ChainId) -> Result<Option<String>, db::Error> {
    let found = row!(tx, "select halt_reason from cursors where chain = $1", chain.as_str())?;
    found.map_or(Ok(None), |row| row.get("halt_reason"))
}

/// Sets the reason why the chain is halted; `None` resumes it.
pub async fn set_halt_reason(tx: &mut Tx, chain: &ChainId, why: Option<&str>) -> Result<(), db::Error> {
    execute!(tx, "update cursors set halt_reason = $2 where chain = $1", chain.as_str(), why)?;
    Ok(())
}

/// Inserts blocks that the follower has read.
pub async fn insert_blocks(tx: &mut Tx, chain: &ChainId, headers: &[Header]) -> Result<(), db::Error> {
    deferred_for_each!(
        tx,
        headers.iter().map(|header| batch_row![header.height, header.hash.0, header.time]).collect(),
        "with given (height bigint, hash bytea, block_time bigint)
         insert into blocks (chain, height, hash, block_time) select $1, given.height, given.hash, given.block_time from given",
        chain.as_str()
    )
}

/// Returns the hash of the block that the follower has read at `height`; `None` when the block is not stored.
pub async fn find_block_hash(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<Option<BlockHash>, db::Error> {
    let found = row!(tx, "select hash from blocks where chain = $1 and height = $2", chain.as_str(), height)?;
    found.map(|row| row.get("hash").map(BlockHash)).transpose()
}

/// Returns the height, the hash and the time of a block that the follower has read; `None` when the block is on another
/// branch or no longer stored. The parent is not stored: the field `parent` of the result contains the hash of the
/// block itself, so it must not be used.
pub async fn find_block_header_without_parent(
    tx: &mut Tx,
    chain: &ChainId,
    at: BlockRef,
) -> Result<Option<Header>, db::Error> {
    let found = row!(
        tx,
        "select block_time from blocks where chain = $1 and height = $2 and hash = $3",
        chain.as_str(),
        at.height,
        at.hash.0
    )?;
    let header = |time| Header { height: at.height, hash: at.hash, parent: at.hash, time };
    found.map(|row| row.get("block_time").map(header)).transpose()
}

/// Deletes the stored blocks of the chain below `height`.
pub async fn delete_blocks_below(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<(), db::Error> {
    let sql = "delete from blocks where chain = $1 and height < $2";
    tx.defer_or_execute_statement(sql, Vec::new(), batch_row![chain.as_str(), height], None).await
}

/// Deletes the stored blocks of the chain above `height`.
pub async fn delete_blocks_above(tx: &mut Tx, chain: &ChainId, height: Height) -> Result<(), db::Error> {
    execute!(tx, "delete from blocks where chain = $1 and height > $2", chain.as_str(), height)?;
    Ok(())
}

/// Returns the height of the last block that the follower has read; `None` when it has not read any block yet.
pub async fn find_cursor_height(tx: &mut Tx, chain: &ChainId) -> Result<Option<Height>, db::Error> {
    let found = row!(tx, "select height from cursors where chain = $1", chain.as_str())?;
    found.map(|row| row.get("height")).transpose()
}
