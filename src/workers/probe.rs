//! Finds native coins that a contract sent, on chains whose blocks do not show them: balances of addresses with open
//! invoices are compared with what their deposits explain, and a rise is traced to its block by bisection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use chain::{Amount, AssetId, AssetKind, Height, Internals, Part, Place, Source, SourceError, Transfer, TxId};

use crate::clock::Clock;
use crate::db::Db;
use crate::money::coins::Chain;
use crate::money::deposits::{self, Grace, Suspect};
use crate::money::ledger::PostError;
use crate::shop::orders;
use crate::workers::{Ran, Worker};

/// Addresses compared in one run.
const COMPARE_MAX: i64 = 500;

pub struct Probe {
    db: Db,
    clock: Clock,
    chain: Chain,
    source: Arc<dyn Source>,
    grace: Grace,
}

impl Probe {
    pub fn new(db: Db, clock: Clock, chain: Chain, source: Arc<dyn Source>, grace: Grace) -> Probe {
        Probe { db, clock, chain, source, grace }
    }

    /// The first block after which the address had more than before `low`, between a known and a risen height.
    async fn bisect(&self, suspect: &Suspect, mut low: Height, mut high: Height, explained: Amount) -> anyhow::Result<Height> {
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.balance_at(suspect, middle).await {
                Ok(balance) if balance > explained => high = middle,
                // A node that forgot old states cannot tell; the rise is then booked where it was noticed.
                Ok(_) | Err(SourceError::Unsupported(_)) => low = middle,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(high)
    }

    async fn balance_at(&self, suspect: &Suspect, height: Height) -> Result<Amount, SourceError> {
        let header = self.source.header(height).await?.ok_or(SourceError::NotThere(height))?;
        let balances = self.source.balances(&header.position(), std::slice::from_ref(&suspect.address)).await?;
        balances.first().copied().ok_or_else(|| SourceError::Wrong("no balance came".into()))
    }

    async fn book(&self, suspect: &Suspect, at: Height, rise: Amount) -> anyhow::Result<()> {
        let header = self.source.header(at).await?.with_context(|| format!("block {at} vanished"))?;
        let transfer = Transfer {
            txid: TxId([0; 32]),
            // Unique among probes of a block: the address's own number.
            place: Place { tx_index: suspect.number(), part: Part::Probe },
            asset: AssetId::of(&self.chain.id, &AssetKind::Native),
            to: suspect.address.key,
            from: None,
            amount: rise,
        };
        let (now, chain, grace) = (self.clock.now(), self.chain.clone(), self.grace);
        self.db
            .write("book_probe", move |tx| {
                Box::pin(async move {
                    let changes: Vec<_> = deposits::see(tx, now, &chain, grace, &header, &transfer).await?.into_iter().collect();
                    orders::follow(tx, now, &changes).await?;
                    Ok::<_, PostError>(())
                })
            })
            .await?;
        tracing::info!(chain = %self.chain.id, height = at, "a balance rose without a visible transfer and was booked");
        Ok(())
    }
}

#[async_trait]
impl Worker for Probe {
    fn name(&self) -> String {
        format!("probe {}", self.chain.id)
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(15)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        if self.source.internals() != Internals::ByBalance {
            return Ok(Ran::Idle);
        }
        let id = self.chain.id.clone();
        let (cursor, suspects) = self
            .db
            .read("list_suspects", move |tx| Box::pin(async move { deposits::list_suspects(tx, &id, COMPARE_MAX).await }))
            .await?;
        let Some(cursor) = cursor.filter(|_| !suspects.is_empty()) else { return Ok(Ran::Idle) };
        let addresses: Vec<_> = suspects.iter().map(|suspect| suspect.address.clone()).collect();
        let balances = self.source.balances(&cursor, &addresses).await?;
        let mut ran = Ran::Idle;
        for (suspect, balance) in suspects.iter().zip(balances) {
            let Some(rise) = balance.checked_sub(suspect.explained).filter(|rise| !rise.is_zero()) else { continue };
            let at = self.bisect(suspect, suspect.since, cursor.height, suspect.explained).await?;
            self.book(suspect, at, rise).await?;
            ran = Ran::Worked;
        }
        Ok(ran)
    }
}
