//! Whether a second endpoint has a block too: a header only has to hash to itself, so one endpoint can show a whole branch that
//! nobody else has.

use std::collections::BTreeMap;

use chain::{BlockHash, BlockRef, Header, Height, source::CrossCheckResult};
use rpc::{Answer, Rejection, Reply, RpcError};
use serde_json::value::RawValue;

use crate::{Evm, block, hex};

/// Blocks whose endpoints are remembered: deeper ones are asked of two.
const GIVERS_MAX: usize = 10_000;

/// Which endpoint showed which block.
#[derive(Debug, Default)]
pub struct BlockOrigins(BTreeMap<Height, (BlockHash, usize)>);

impl BlockOrigins {
    fn insert(&mut self, block: BlockRef, endpoint: usize) {
        self.0.insert(block.height, (block.hash, endpoint));
        while self.0.len() > GIVERS_MAX {
            self.0.pop_first();
        }
    }

    fn find(&self, block: &BlockRef) -> Option<usize> {
        self.0.get(&block.height).filter(|(hash, _)| *hash == block.hash).map(|(_, endpoint)| *endpoint)
    }
}

impl Evm {
    pub(crate) fn was_given(&self, block: BlockRef, endpoint: usize) {
        self.givers.lock().expect("no panic while givers are held").insert(block, endpoint);
    }

    /// One request where it is known who showed the block, else two: some two endpoints must have it.
    pub(crate) async fn cross_check_block(&self, at: &BlockRef) -> CrossCheckResult {
        let mut known = self.givers.lock().expect("no panic while givers are held").find(at);
        let tag = hex::to_quantity(at.height);
        loop {
            match self.block_of_another(known, &tag).await {
                Ok(Some((endpoint, header))) if header.block_ref() != *at => {
                    return CrossCheckResult::Conflicting { endpoint: self.pool.label(endpoint), hash: header.hash };
                }
                Ok(Some(_)) if known.is_some() => return CrossCheckResult::Confirmed,
                Ok(Some((endpoint, _))) => known = Some(endpoint),
                Ok(None) | Err(RpcError::Refused(_)) => break,
                Err(failure) => return CrossCheckResult::NoAnswer(failure.to_string()),
            }
        }
        match self.block_of_another(known, "latest").await {
            Ok(Some((endpoint, head))) => CrossCheckResult::Behind { endpoint: self.pool.label(endpoint), head },
            Ok(None) => CrossCheckResult::NoAnswer("no other endpoint has a block".to_owned()),
            Err(failure) => CrossCheckResult::NoAnswer(failure.to_string()),
        }
    }

    /// A block of anybody but `known`, who is not asked: an answer that cannot count would end the wait for those that can.
    async fn block_of_another(&self, known: Option<usize>, tag: &str) -> Result<Option<(usize, Header)>, RpcError> {
        let params = (tag, false);
        let accept = |reply: &Reply<'_>| {
            let Some(block) = reply.result::<Option<&RawValue>>()? else { return Ok(Answer::Doubtful(None)) };
            let (_, header) = block::header(block, self.config.verify).map_err(Rejection::Wrong)?;
            Ok(Answer::Sure(Some((reply.endpoint, header))))
        };
        match known {
            Some(known) => self.pool.ask_excluding(known, "eth_getBlockByNumber", &params, accept).await,
            None => self.pool.ask_from(0, "eth_getBlockByNumber", &params, accept).await,
        }
    }
}
