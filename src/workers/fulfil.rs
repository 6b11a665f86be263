//! Hands out what was paid.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::db::Db;
use crate::envelope::Envelope;
use crate::shop::fulfilment::{self, Letters};
use crate::workers::{Ran, Worker};

pub struct Fulfil {
    db: Db,
    clock: Clock,
    envelope: Arc<Envelope>,
    letters: Arc<Letters>,
}

impl Fulfil {
    pub fn new(db: Db, clock: Clock, envelope: Arc<Envelope>, letters: Letters) -> Fulfil {
        Fulfil { db, clock, envelope, letters: Arc::new(letters) }
    }
}

#[async_trait]
impl Worker for Fulfil {
    fn name(&self) -> String {
        "fulfil".into()
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn run(&self) -> anyhow::Result<Ran> {
        let delivered = fulfilment::deliver_due(&self.db, self.clock.now(), &self.envelope, &self.letters).await?;
        Ok(if delivered > 0 { Ran::Worked } else { Ran::Idle })
    }
}
