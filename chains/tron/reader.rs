//! Reads blocks with their transfers: every transaction of a block and all its receipts, verified against each other.
//!
//! A gateway distributes requests over nodes of different heights, and a lagging node answers `{}` or `[]` for a block
//! that it does not have. So an empty answer is accepted only when the block's own transaction root is empty.

use std::sync::MutexGuard;

use chain::{Block, Header, Height, SourceError, WatchSet};
use futures_util::{StreamExt, stream};
use rpc::{AdaptiveSize, Rejection, Request, RpcError, Target, Verdict};
use serde_json::json;
use tracing::info;

use crate::{
    Tron,
    block::{self, ParsedBlock},
    receipts::{self, ReceiptsError},
    source::serialize_body,
    wire,
};

/// The maximum number of concurrent requests for receipts.
const CONCURRENCY: usize = 3;

/// The two views of the chain in a node's HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiView {
    /// Blocks up to the newest solidified one, on top of which 19 of the 27 block producers have built. These blocks
    /// are irreversible.
    Solid,
    /// All blocks. Those above the solidified one may be orphaned.
    Head,
}

impl ApiView {
    /// Returns the URL path of an API method in this view.
    pub fn api_path(self, method: &str) -> String {
        match self {
            ApiView::Solid => format!("walletsolidity/{method}"),
            ApiView::Head => format!("wallet/{method}"),
        }
    }
}

impl Tron {
    /// Returns consecutive blocks that begin with `from` and end at `to` or earlier, at least one, with their transfers
    /// to `watched` addresses.
    pub(crate) async fn read_blocks(
        &self,
        view: ApiView,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        let blocks = self.read_block_range(view, from, to, watched).await?;
        let mut complete =
            stream::iter(blocks.into_iter().map(|body| self.fetch_receipt_transfers(view, body, watched)));
        let mut complete = complete.by_ref().buffered(CONCURRENCY);
        let mut blocks = Vec::new();
        while let Some(block) = complete.next().await {
            match block {
                Ok(block) => blocks.push(block),
                // The blocks before the one that failed are complete.
                Err(_) if !blocks.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// Returns the header at `height`, or the newest header if `height` is `None`, with the index of the endpoint that
    /// returned it. A request for the newest header begins with the endpoint `first`. Returns `None` when no endpoint
    /// has the block.
    pub(crate) async fn read_header(
        &self,
        view: ApiView,
        height: Option<Height>,
        first: usize,
    ) -> Result<Option<(usize, Header)>, RpcError> {
        let request = match height {
            Some(height) => json!({ "id_or_num": height.to_string(), "detail": false }),
            None => json!({ "detail": false }),
        };
        let accept = |reply: &rpc::Reply<'_>| {
            let header = block::parse_header(&wire::parse_json_reply(reply)?).map_err(Rejection::Invalid)?;
            let Some(header) = header else { return Ok(Verdict::Fallback(None)) };
            match height {
                Some(height) if height != header.height => {
                    Err(Rejection::Invalid(format!("requested block {height}, received block {}", header.height)))
                }
                Some(_) | None => Ok(Verdict::Accept(Some((reply.endpoint, header)))),
            }
        };
        let path = view.api_path("getblock");
        // Endpoints take turns for the newest block. Any other block is requested in order of preference.
        let target = if height.is_some() { Target::Any } else { Target::From(first) };
        self.pool.send_request(Request::http_post(&path, serialize_body(&request)).with_target(target), accept).await
    }

    /// Returns consecutive blocks that begin with `from`, without receipts. The number of blocks depends on how many
    /// blocks the endpoint has and on the maximum size of a reply.
    async fn read_block_range(
        &self,
        view: ApiView,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<ParsedBlock>, SourceError> {
        loop {
            let to = to.min(from.saturating_add(self.lock_range_size().size() - 1));
            let used = to.saturating_sub(from) + 1;
            // The end of a range is exclusive.
            let request = json!({ "startNum": from, "endNum": to.saturating_add(1) });
            let path = view.api_path("getblockbylimitnext");
            let answer = self.pool.send_request(Request::http_post(&path, serialize_body(&request)), |reply| {
                let blocks =
                    self.parse_block_range(&wire::parse_json_reply::<wire::Blocks<'_>>(reply)?, from, to, watched);
                let blocks = blocks.map_err(Rejection::Invalid)?;
                Ok(if blocks.is_empty() { Verdict::Fallback(blocks) } else { Verdict::Accept(blocks) })
            });
            match answer.await {
                Ok(blocks) if blocks.is_empty() => return Err(SourceError::BlockNotFound(from)),
                Ok(blocks) => {
                    self.lock_range_size().count_success_and_grow(used);
                    return Ok(blocks);
                }
                Err(failure) => {
                    let smaller = self.lock_range_size().shrink_if_too_large(used, &failure);
                    // After a timeout, no time is left for a second request. The caller repeats the call later, and the
                    // range is then smaller.
                    if !smaller || !matches!(failure, RpcError::TooLarge(_)) {
                        return Err(failure.into_source_error(from));
                    }
                    info!(chain = %self.config.chain, "the answer for a range of {used} blocks is too large; requesting fewer: {failure}");
                }
            }
        }
    }

    /// Parses the blocks of an answer, up to the first that is incomplete or not the child of the one before.
    fn parse_block_range(
        &self,
        answer: &wire::Blocks<'_>,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<ParsedBlock>, String> {
        let watched = watched.lock_addresses();
        let mut blocks: Vec<ParsedBlock> = Vec::with_capacity(answer.block.len());
        for (height, found) in (from..=to).zip(&answer.block) {
            let Some(body) = block::parse_block(found, self.assets.native.as_ref(), &watched)? else { break };
            if body.header.height != height {
                return Err(format!("requested block {height}, received block {}", body.header.height));
            }
            // The node switched to another branch; the blocks before this one are still linked.
            if blocks.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            blocks.push(body);
        }
        Ok(blocks)
    }

    /// Returns a block with the transfers from its receipts. A block without transactions has no receipts, so none are
    /// requested.
    async fn fetch_receipt_transfers(
        &self,
        view: ApiView,
        found: ParsedBlock,
        watched: &WatchSet,
    ) -> Result<Block, SourceError> {
        let header = found.header;
        if found.txids.is_empty() {
            return Ok(Block { header, transfers: Vec::new(), spends: Vec::new() });
        }
        let path = view.api_path("gettransactioninfobyblocknum");
        let request = serialize_body(&json!({ "num": header.height }));
        let answer = self.pool.send_request(Request::http_post(&path, request), |reply| {
            let infos: Vec<wire::TransactionInfo<'_>> = wire::parse_json_reply(reply)?;
            match receipts::list_transfers(&found, &infos, &self.assets, &watched.lock_addresses()) {
                Ok(transfers) => Ok(Verdict::Accept(Some(transfers))),
                Err(ReceiptsError::Incomplete) => Ok(Verdict::Fallback(None)),
                // The node may have switched to another branch between the two requests.
                Err(ReceiptsError::Wrong(_)) if view == ApiView::Head => Ok(Verdict::Fallback(None)),
                Err(ReceiptsError::Wrong(reason)) => Err(Rejection::Invalid(reason)),
            }
        });
        match answer.await.map_err(|failure| failure.into_source_error(header.height))? {
            Some(transfers) => Ok(Block { header, transfers, spends: Vec::new() }),
            None => Err(SourceError::Unavailable(format!("no endpoint has the receipts of block {}", header.height))),
        }
    }

    fn lock_range_size(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.span.lock().expect("the lock is never poisoned: no code panics while holding it")
    }
}
