//! Finds money that blocks did not show: native coins that a contract sent where nothing can be traced, and whatever an
//! endpoint left out. Balances are compared with what deposits explain, and a rise is traced to its block by bisection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use chain::{Address, Amount, AssetKind, BlockRef, Internals, Source, SourceError};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::db::Db;
use crate::ids::InvoiceId;
use crate::money::coins::Chain;
use crate::money::deposits::{self, Grace, Rise, Suspect};
use crate::money::ledger::PostError;
use crate::shop::orders;
use crate::workers::{Ran, Worker};

/// Addresses compared in one run.
const COMPARE_MAX: i64 = 500;

/// Compares balances and books what they show.
#[derive(Clone)]
pub struct Prober {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) chain: Chain,
    pub(super) source: Arc<dyn Source>,
    pub(super) grace: Grace,
}

impl Prober {
    pub fn new(db: Db, clock: Clock, chain: Chain, source: Arc<dyn Source>, grace: Grace) -> Prober {
        Prober { db, clock, chain, source, grace }
    }

    /// Whether the invoices' addresses have no more at `cursor` than their deposits explain. What was missed is booked.
    pub async fn is_explained(&self, cursor: BlockRef, invoices: Vec<InvoiceId>) -> anyhow::Result<bool> {
        let suspects = self
            .db
            .read("find_suspects", move |tx| Box::pin(async move { deposits::find_suspects(tx, &invoices).await }))
            .await?;
        let mut explained = true;
        for (asset, suspects) in by_asset(suspects) {
            let addresses: Vec<Address> = suspects.iter().map(|suspect| suspect.address.clone()).collect();
            let balances = match self.source.balances(&cursor, &asset, &addresses).await {
                // A node without this state cannot tell; the scan is all there is.
                Err(SourceError::Unsupported(_)) => continue,
                answer => answer?,
            };
            if balances.len() != suspects.len() {
                return Err(SourceError::Wrong("other balances came than were asked for".into()).into());
            }
            for (suspect, balance) in suspects.iter().zip(balances).filter(|(suspect, has)| *has > suspect.explained) {
                let (block, rise) = self.find_rise(suspect, cursor, balance).await?;
                self.book(suspect, block, rise).await?;
                explained = false;
            }
        }
        Ok(explained)
    }

    /// The first block with which the address had more than is explained, and how much more. What later blocks added is
    /// left to the next look: it may vanish with them.
    async fn find_rise(
        &self,
        suspect: &Suspect,
        cursor: BlockRef,
        mut balance: Amount,
    ) -> anyhow::Result<(BlockRef, Amount)> {
        let (mut low, mut high) = (suspect.since.min(cursor.height.saturating_sub(1)), cursor);
        while high.height - low > 1 {
            let middle = low + (high.height - low) / 2;
            let header = self.source.header(middle).await?.with_context(|| format!("block {middle} vanished"))?;
            match self.balance_at(suspect, header.position()).await {
                Ok(more) if more > suspect.explained => (high, balance) = (header.position(), more),
                // Where old states are forgotten, the rise is booked where it was noticed.
                Ok(_) | Err(SourceError::Unsupported(_)) => low = middle,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((high, balance.saturating_sub(suspect.explained)))
    }

    async fn balance_at(&self, suspect: &Suspect, at: BlockRef) -> Result<Amount, SourceError> {
        let balances = self.source.balances(&at, &suspect.asset, std::slice::from_ref(&suspect.address)).await?;
        balances.first().copied().ok_or_else(|| SourceError::Wrong("no balance came".into()))
    }

    /// In a block of the branch that we follow, so that it is taken back with that block; any other is looked at again.
    async fn book(&self, suspect: &Suspect, at: BlockRef, rise: Amount) -> anyhow::Result<()> {
        let (now, chain, grace, suspect) = (self.clock.now(), self.chain.clone(), self.grace, suspect.clone());
        let outcome = self
            .db
            .write("book_rise", move |tx| {
                Box::pin(async move {
                    let outcome = deposits::book_rise(tx, now, &chain, grace, at, &suspect, rise).await?;
                    if let Rise::Booked(change) = &outcome {
                        orders::follow(tx, now, change.as_slice()).await?;
                    }
                    Ok::<_, PostError>(outcome)
                })
            })
            .await?;
        match outcome {
            Rise::Booked(_) => {
                info!(chain = %self.chain.id, height = at.height, "a balance rose without a visible transfer and was booked");
                Ok(())
            }
            // The next look compares with what was booked meanwhile.
            Rise::Outdated => Ok(()),
            Rise::Elsewhere => bail!(
                "{}: a balance rose in block {}, which is not on the branch that is followed",
                self.chain.id,
                at.height
            ),
        }
    }
}

/// One question may ask for one asset.
fn by_asset(suspects: Vec<Suspect>) -> Vec<(AssetKind, Vec<Suspect>)> {
    let mut groups: Vec<(AssetKind, Vec<Suspect>)> = Vec::new();
    for suspect in suspects {
        match groups.iter_mut().find(|(asset, _)| *asset == suspect.asset) {
            Some((_, group)) => group.push(suspect),
            None => groups.push((suspect.asset.clone(), vec![suspect])),
        }
    }
    groups
}

/// Looks now and then at open native invoices, on chains whose blocks do not show what contracts send.
pub struct Probe {
    prober: Prober,
}

impl Probe {
    pub fn new(prober: Prober) -> Probe {
        Probe { prober }
    }
}

#[async_trait]
impl Worker for Probe {
    fn name(&self) -> String {
        format!("probe {}", self.prober.chain.id)
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn heeds_wake(&self) -> bool {
        false
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        if self.prober.source.internals() != Internals::ByBalance {
            return Ok(Ran::Idle);
        }
        let chain = self.prober.chain.id.clone();
        let (cursor, invoices) = self
            .prober
            .db
            .read("list_native_open", move |tx| {
                Box::pin(async move { deposits::list_native_open(tx, &chain, COMPARE_MAX).await })
            })
            .await?;
        let Some(cursor) = cursor else { return Ok(Ran::Idle) };
        if i64::try_from(invoices.len())? == COMPARE_MAX {
            warn!(chain = %self.prober.chain.id, "more native invoices are open than are compared at once; tracing scales better");
        }
        let explained = self.prober.is_explained(cursor, invoices).await?;
        Ok(if explained { Ran::Idle } else { Ran::Worked })
    }
}
