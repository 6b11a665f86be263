//! What the HTTP side needs of the daemon.

use std::ops::Deref;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::envelope::Envelope;
use crate::http::health::Health;
use crate::ids::Shop;
use crate::money::addresses::Addresses;
use crate::money::coins::Coins;
use crate::money::pricing::{Currency, Fiat, RateBook};
use crate::shop::orders::payment::{Till, Tolerance};
use crate::tasks::Tasks;
use crate::workers::Wake;

/// What the daemon hands over.
pub struct Parts {
    pub config: Arc<Config>,
    pub db: Db,
    pub clock: Clock,
    pub coins: Arc<Coins>,
    pub book: RateBook,
    pub addresses: Arc<Addresses>,
    pub envelope: Arc<Envelope>,
    /// The shop of the checkout surface; without one the surface is not mounted.
    pub checkout_shop: Option<Shop>,
    pub tasks: Tasks,
    pub wake: Wake,
}

pub struct App {
    parts: Parts,
    /// What keeps the daemon from its work.
    pub health: Health,
}

impl App {
    pub fn new(parts: Parts) -> App {
        App { parts, health: Health::default() }
    }

    /// What taking money needs.
    pub fn till(&self) -> Till {
        Till {
            coins: self.coins.clone(),
            rates: self.book.clone(),
            addresses: Addresses::clone(&self.addresses),
            tolerance: Tolerance {
                basis_points: self.config.policy.tolerance_basis_points,
                usd: Fiat::new(Currency::USD, self.config.policy.tolerance_usd_cents),
            },
        }
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
