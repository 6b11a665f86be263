//! Coins that contracts send inside transactions: asked for with each block where traces are configured, and done without
//! where they do not come.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use chain::{
    Address, AddressKey, Amount, BlockRef, Header, SourceError, Transfer, TxPart, WatchSet, derive::evm_address,
};
use rpc::{Answer, RefusalKind, Rejection, RpcError};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    Evm, Trace,
    block::Body,
    hex,
    trace::{self, FlatTrace, TxTrace},
};

impl Evm {
    /// The question for a block's traces, if they are to be read.
    pub(crate) fn trace_question(&self, header: &Header) -> Option<(&'static str, Value)> {
        self.native.as_ref()?;
        match self.config.trace {
            Trace::None => None,
            Trace::Debug => {
                let hash = B256::from(header.hash.0);
                Some(("debug_traceBlockByHash", json!([hash, { "tracer": "callTracer" }])))
            }
            Trace::Parity => Some(("trace_block", json!([hex::to_quantity(header.height)]))),
        }
    }

    /// Coins that contracts sent, if traces are configured, in a block with these transfers besides. An empty block needs no
    /// trace, and no trace holds up a block.
    pub(crate) async fn internal(
        &self,
        body: &Body,
        settled: &[Transfer],
        watched: &WatchSet,
    ) -> Result<Vec<Transfer>, SourceError> {
        let Some((method, params)) = self.trace_question(&body.header).filter(|_| !body.hashes.is_empty()) else {
            return Ok(Vec::new());
        };
        let Some(native) = &self.native else { return Ok(Vec::new()) };
        if !self.sight().may_ask(Instant::now()) {
            self.mark_incomplete(body, "rest", "traces failed several times in a row and rest");
            return Ok(Vec::new());
        }
        let answer = self.pool.ask(method, &params, |reply| {
            let watched = &watched.read_addresses();
            let transfers = match self.config.trace {
                Trace::None => Ok(Vec::new()),
                Trace::Debug => trace::nested(&reply.result::<Vec<TxTrace<'_>>>()?, body, native, watched),
                Trace::Parity => trace::flat(&reply.result::<Vec<FlatTrace<'_>>>()?, body, native, watched),
            };
            transfers.map(Answer::Sure).map_err(Rejection::Wrong)
        });
        let failure = match answer.await {
            Ok(transfers) => {
                self.sight().succeeded();
                return Ok(self.uncontradicted(body, settled, transfers).await);
            }
            Err(failure) => failure,
        };
        // A node that traces may be a little behind the one that told the block.
        let lags = matches!(&failure, RpcError::Refused(refusal) if refusal.kind == RefusalKind::NotThere);
        if (lags || matches!(failure, RpcError::Unavailable(_) | RpcError::Slow(_)))
            && self.sight().may_wait(Instant::now())
        {
            return Err(failure.at(body.header.height));
        }
        let cause = match &failure {
            RpcError::Unavailable(_) | RpcError::Slow(_) => "silence",
            RpcError::Missing(_) => "missing",
            RpcError::TooLarge(_) => "size",
            RpcError::Refused(_) => "refusal",
            RpcError::Wrong(_) => "unusable",
        };
        self.sight().failed(Instant::now());
        self.mark_incomplete(body, cause, &failure.to_string());
        Ok(Vec::new())
    }

    /// No header commits to traces, but balances after the block are proven where nodes allow it: what an address did not
    /// get is not credited.
    async fn uncontradicted(&self, body: &Body, settled: &[Transfer], transfers: Vec<Transfer>) -> Vec<Transfer> {
        if transfers.is_empty() || !self.config.verify.header {
            return transfers;
        }
        let mut sums: BTreeMap<AddressKey, Amount> =
            transfers.iter().map(|transfer| (transfer.to, Amount::ZERO)).collect();
        let coins = settled.iter().filter(|transfer| transfer.index.part == TxPart::Value).chain(&transfers);
        for transfer in coins {
            if let Some(sum) = sums.get_mut(&transfer.to) {
                *sum = sum.checked_add(transfer.amount).unwrap_or(Amount::MAX);
            }
        }
        let at = body.header.block_ref();
        let parent = BlockRef { height: at.height.saturating_sub(1), hash: body.header.parent };
        let got: Vec<(Address, Amount)> = sums.into_iter().map(|(to, sum)| (evm_address(to), sum)).collect();
        let contradicted = self.contradicted(&parent, &at, &got).await;
        let made_up: BTreeSet<AddressKey> =
            got.iter().zip(contradicted).filter(|(_, short)| *short).map(|((to, _), _)| to.key).collect();
        if !made_up.is_empty() {
            self.mark_incomplete(body, "made up", "its traces show more than addresses got");
        }
        transfers.into_iter().filter(|transfer| !made_up.contains(&transfer.to)).collect()
    }

    /// The block goes without all that it may hold, and from now on balances are compared.
    pub(crate) fn mark_incomplete(&self, body: &Body, cause: &'static str, why: &str) {
        if self.sight().lost(Instant::now(), cause) {
            warn!(
                chain = %self.config.chain,
                "block {} may hold coins that it does not show, and balances are compared instead: {why}",
                body.header.height
            );
        }
    }
}
