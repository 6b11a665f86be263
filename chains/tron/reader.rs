//! Blocks with the transfers in them: each whole block and all its receipts, held against each other.
//!
//! A gateway answers from nodes of different heights, and one that is behind says `{}` or `[]` for what it does not have.
//! So nothing empty is believed unless the block itself says that it is empty.

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
    source::body,
    wire,
};

/// Blocks whose receipts are under way at once.
const CONCURRENCY: usize = 3;

/// Which of a node's two states is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiView {
    /// Irreversible: what 19 of 27 producers have built on.
    Solid,
    /// What may still vanish.
    Head,
}

impl ApiView {
    pub fn path(self, call: &str) -> String {
        match self {
            ApiView::Solid => format!("walletsolidity/{call}"),
            ApiView::Head => format!("wallet/{call}"),
        }
    }
}

impl Tron {
    /// Blocks from `from` on, at least one, as far as `to`, as the endpoints have them complete.
    pub(crate) async fn read_blocks(
        &self,
        view: ApiView,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<Block>, SourceError> {
        let bodies = self.bodies(view, from, to, watched).await?;
        let mut complete = stream::iter(bodies.into_iter().map(|body| self.block(view, body, watched)));
        let mut complete = complete.by_ref().buffered(CONCURRENCY);
        let mut blocks = Vec::new();
        while let Some(block) = complete.next().await {
            match block {
                Ok(block) => blocks.push(block),
                // What stands before it is good.
                Err(_) if !blocks.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(blocks)
    }

    /// The header of a height, or of the newest block.
    pub(crate) async fn read_header(
        &self,
        view: ApiView,
        height: Option<Height>,
        first: usize,
    ) -> Result<Option<(usize, Header)>, RpcError> {
        let question = match height {
            Some(height) => json!({ "id_or_num": height.to_string(), "detail": false }),
            None => json!({ "detail": false }),
        };
        let accept = |reply: &rpc::Reply<'_>| {
            let header = block::parse_header(&wire::parse_reply(reply)?).map_err(Rejection::Invalid)?;
            let Some(header) = header else { return Ok(Verdict::Fallback(None)) };
            match height {
                Some(height) if height != header.height => {
                    Err(Rejection::Invalid(format!("asked for block {height}, got {}", header.height)))
                }
                Some(_) | None => Ok(Verdict::Accept(Some((reply.endpoint, header)))),
            }
        };
        let path = view.path("getblock");
        // The newest block is requested from each endpoint in turn, any other one in order of preference.
        let target = if height.is_some() { Target::Any } else { Target::From(first) };
        self.pool.send(Request::post(&path, body(&question)).to(target), accept).await
    }

    /// Blocks as far as an endpoint has them, each the parent of the next.
    async fn bodies(
        &self,
        view: ApiView,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<ParsedBlock>, SourceError> {
        loop {
            let to = to.min(from.saturating_add(self.span().size() - 1));
            let used = to.saturating_sub(from) + 1;
            // The end of a range is exclusive.
            let question = json!({ "startNum": from, "endNum": to.saturating_add(1) });
            let path = view.path("getblockbylimitnext");
            let answer = self.pool.send(Request::post(&path, body(&question)), |reply| {
                let bodies = self.linked(&wire::parse_reply::<wire::Blocks<'_>>(reply)?, from, to, watched);
                let bodies = bodies.map_err(Rejection::Invalid)?;
                Ok(if bodies.is_empty() { Verdict::Fallback(bodies) } else { Verdict::Accept(bodies) })
            });
            match answer.await {
                Ok(bodies) if bodies.is_empty() => return Err(SourceError::BlockNotFound(from)),
                Ok(bodies) => {
                    self.span().record_success(used);
                    return Ok(bodies);
                }
                Err(failure) => {
                    let smaller = self.span().record_failure(used, &failure);
                    // What was too slow has taken its time already; the worker comes back with less.
                    if !smaller || !matches!(failure, RpcError::TooLarge(_)) {
                        return Err(failure.into_source_error(from));
                    }
                    info!(chain = %self.config.chain, "a range of {used} blocks is too large: {failure}");
                }
            }
        }
    }

    /// The blocks of an answer up to the first that is not whole.
    fn linked(
        &self,
        answer: &wire::Blocks<'_>,
        from: Height,
        to: Height,
        watched: &WatchSet,
    ) -> Result<Vec<ParsedBlock>, String> {
        let watched = watched.read_addresses();
        let mut bodies: Vec<ParsedBlock> = Vec::with_capacity(answer.block.len());
        for (height, found) in (from..=to).zip(&answer.block) {
            let Some(body) = block::parse_block(found, self.assets.native.as_ref(), &watched)? else { break };
            if body.header.height != height {
                return Err(format!("asked for block {height}, got {}", body.header.height));
            }
            // Another branch, of a head that changed: what stands before it is good.
            if bodies.last().is_some_and(|last| last.header.hash != body.header.parent) {
                break;
            }
            bodies.push(body);
        }
        Ok(bodies)
    }

    /// A block with its receipts, which an empty one does not have.
    async fn block(&self, view: ApiView, found: ParsedBlock, watched: &WatchSet) -> Result<Block, SourceError> {
        let header = found.header;
        if found.txids.is_empty() {
            return Ok(Block { header, transfers: Vec::new(), spends: Vec::new() });
        }
        let path = view.path("gettransactioninfobyblocknum");
        let question = body(&json!({ "num": header.height }));
        let answer = self.pool.send(Request::post(&path, question), |reply| {
            let infos: Vec<wire::TransactionInfo<'_>> = wire::parse_reply(reply)?;
            match receipts::list_transfers(&found, &infos, &self.assets, &watched.read_addresses()) {
                Ok(transfers) => Ok(Verdict::Accept(Some(transfers))),
                Err(ReceiptsError::Incomplete) => Ok(Verdict::Fallback(None)),
                // The head may have changed between the two questions.
                Err(ReceiptsError::Wrong(_)) if view == ApiView::Head => Ok(Verdict::Fallback(None)),
                Err(ReceiptsError::Wrong(reason)) => Err(Rejection::Invalid(reason)),
            }
        });
        match answer.await.map_err(|failure| failure.into_source_error(header.height))? {
            Some(transfers) => Ok(Block { header, transfers, spends: Vec::new() }),
            None => Err(SourceError::Unavailable(format!("no endpoint has the receipts of block {}", header.height))),
        }
    }

    fn span(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.span.lock().expect("no panic while the span is held")
    }
}
