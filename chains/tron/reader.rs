//! Blocks with the transfers in them: each whole block and all its receipts, held against each other.
//!
//! A gateway answers from nodes of different heights, and one that is behind says `{}` or `[]` for what it does not have.
//! So nothing empty is believed unless the block itself says that it is empty.

use std::sync::MutexGuard;

use chain::{Block, Header, Height, SourceError, WatchSet};
use futures_util::{StreamExt, stream};
use rpc::{AdaptiveSize, Answer, Rejection, RpcError};
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
            let header = block::parse_header(&wire::parse_reply(reply)?).map_err(Rejection::Wrong)?;
            let Some(header) = header else { return Ok(Answer::Doubtful(None)) };
            match height {
                Some(height) if height != header.height => {
                    Err(Rejection::Wrong(format!("asked for block {height}, got {}", header.height)))
                }
                Some(_) | None => Ok(Answer::Sure(Some((reply.endpoint, header)))),
            }
        };
        let path = view.path("getblock");
        match height {
            // In order of preference; the newest block is asked of each endpoint in turn.
            Some(_) => self.pool.fetch(&path, &path, Some(body(&question)), accept).await,
            None => self.pool.post_from(first, &path, body(&question), accept).await,
        }
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
            let answer = self.pool.fetch(&path, &path, Some(body(&question)), |reply| {
                let bodies = self.linked(&wire::parse_reply::<wire::Blocks<'_>>(reply)?, from, to, watched);
                let bodies = bodies.map_err(Rejection::Wrong)?;
                Ok(if bodies.is_empty() { Answer::Doubtful(bodies) } else { Answer::Sure(bodies) })
            });
            match answer.await {
                Ok(bodies) if bodies.is_empty() => return Err(SourceError::BlockNotFound(from)),
                Ok(bodies) => {
                    self.span().succeeded(used);
                    return Ok(bodies);
                }
                Err(failure) => {
                    let smaller = self.span().shrinks(used, &failure);
                    // What was too slow has taken its time already; the worker comes back with less.
                    if !smaller || !matches!(failure, RpcError::TooLarge(_)) {
                        return Err(failure.at(from));
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
        let answer = self.pool.fetch(&path, &path, Some(question), |reply| {
            let infos: Vec<wire::TransactionInfo<'_>> = wire::parse_reply(reply)?;
            match receipts::list_transfers(&found, &infos, &self.assets, &watched.read_addresses()) {
                Ok(transfers) => Ok(Answer::Sure(Some(transfers))),
                Err(ReceiptsError::Incomplete) => Ok(Answer::Doubtful(None)),
                // The head may have changed between the two questions.
                Err(ReceiptsError::Wrong(_)) if view == ApiView::Head => Ok(Answer::Doubtful(None)),
                Err(ReceiptsError::Wrong(reason)) => Err(Rejection::Wrong(reason)),
            }
        });
        match answer.await.map_err(|failure| failure.at(header.height))? {
            Some(transfers) => Ok(Block { header, transfers, spends: Vec::new() }),
            None => Err(SourceError::Unavailable(format!("no endpoint has the receipts of block {}", header.height))),
        }
    }

    fn span(&self) -> MutexGuard<'_, AdaptiveSize> {
        self.span.lock().expect("no panic while the span is held")
    }
}
