//! Decides if buyers can pay on a chain now. New orders are accepted only while the follower can read the chain. When
//! it cannot, `/readyz` and `settled status` report the problem from the same moment on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chain::{Asset, AssetId, ChainId, Height, SourceError};
use tracing::{error, info};

use crate::workers::follow::machine::StepError;
use money::addresses::Addresses;
use money::assets::Assets;
use web::health::Health;

/// Time for which the endpoints of a chain may leave the first request of a run unanswered. After it, the chain accepts
/// no new orders until a run succeeds.
const ENDPOINT_PATIENCE: Duration = Duration::from_secs(5);
/// Number of failed runs in a row, for whatever reason, after which a chain accepts no new orders.
const FAILED_RUNS_MAX: u32 = 3;

/// Offers and withdraws the coins of one chain, and reports the reason when they are withdrawn.
pub struct ChainReadiness {
    chain: ChainId,
    /// The addresses of all chains. An order needs a new address, which is issued only while the chain is followed.
    addresses: Arc<Addresses>,
    /// All payment assets, of which those with an unusable contract are withheld.
    assets: Arc<Assets>,
    health: Health,
    failed_runs: AtomicU32,
    /// The tokens whose contract was refused, each with the name of its problem at `/readyz`.
    withheld: Mutex<BTreeMap<AssetId, String>>,
}

impl ChainReadiness {
    /// Creates the readiness of a chain and withdraws the coins of the chain until its first run has succeeded.
    pub fn new(chain: ChainId, addresses: Arc<Addresses>, assets: Arc<Assets>, health: Health) -> ChainReadiness {
        addresses.set_chain_followed(&chain, false);
        let (failed_runs, withheld) = (AtomicU32::new(0), Mutex::default());
        ChainReadiness { chain, addresses, assets, health, failed_runs, withheld }
    }

    /// Returns the name of the follower, under which `/readyz` shows the problem of the chain.
    pub(super) fn part(&self) -> String {
        format!("follow {}", self.chain)
    }

    /// Offers the coins of the chain, removes the problem of the chain and resets the count of failed runs.
    pub(super) fn offer_coins_and_clear_problem(&self) {
        self.failed_runs.store(0, Ordering::Relaxed);
        self.addresses.set_chain_followed(&self.chain, true);
        self.health.clear_problem(&self.part());
    }

    /// Withdraws the coins of the chain, so that no new orders are accepted until a run succeeds, and reports the
    /// reason.
    pub(super) fn withdraw_coins_and_report(&self, reason: &str) {
        self.addresses.set_chain_followed(&self.chain, false);
        self.health.set_problem(self.part(), reason);
    }

    /// Counts a failed run and withdraws the coins of the chain: at once when no endpoint answers or has the next
    /// block, otherwise after [`FAILED_RUNS_MAX`] failures in a row. When only balances are missing, offers the coins,
    /// because blocks are read and payments are found.
    pub(super) fn decide_offer_after_failed_run(&self, error: &anyhow::Error) {
        if let Some(StepError::BalancesUnavailable(_)) = error.downcast_ref::<StepError>() {
            return self.offer_coins_and_clear_problem();
        }
        let failed_runs = self.failed_runs.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let is_unreachable = match error.downcast_ref::<SourceError>() {
            Some(SourceError::Unavailable(_) | SourceError::Unsupported(_)) => true,
            Some(SourceError::BlockNotFound(_) | SourceError::InvalidResponse(_)) | None => false,
        };
        if is_unreachable || failed_runs >= FAILED_RUNS_MAX {
            self.withdraw_coins_and_report(&format!("{error:#}"));
        }
    }

    /// Waits for an answer of the endpoints, without a limit. After [`ENDPOINT_PATIENCE`], withdraws the coins of the
    /// chain and waits on.
    pub(super) async fn wait_and_withdraw_coins_when_slow<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        match tokio::time::timeout(ENDPOINT_PATIENCE, &mut answer).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                let seconds = ENDPOINT_PATIENCE.as_secs();
                self.withdraw_coins_and_report(&format!("no endpoint of {} has answered for {seconds} s", self.chain));
                answer.await
            }
        }
    }

    /// Records the height of a block that a node reported, so that older money pays no invoice of a later lease.
    pub(super) fn raise_known_tip(&self, tip: Height) {
        self.addresses.raise_known_tip(&self.chain, tip);
    }

    /// Returns true when at least one token is withheld, so that its contract should be compared again.
    pub(super) fn has_withheld_tokens(&self) -> bool {
        !self.withheld.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Withholds a token whose contract cannot be used, and reports the reason. Other coins of the chain stay on offer.
    pub(super) fn withhold_token_and_report(&self, token: &Asset, reason: &str) {
        let part = format!("{} on {}", token.symbol, self.chain);
        self.assets.set_asset_withheld(&token.id, true);
        self.health.set_problem(part.as_str(), reason);
        let earlier = self.withheld.lock().unwrap_or_else(PoisonError::into_inner).insert(token.id.clone(), part);
        if earlier.is_none() {
            error!(chain = %self.chain, token = %token.id, "buyers cannot pay with {} on {}: {reason}", token.symbol, self.chain);
        }
    }

    /// Offers a token again after its contract was verified.
    pub(super) fn offer_verified_token(&self, token: &Asset) {
        self.assets.set_asset_withheld(&token.id, false);
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner).remove(&token.id);
        if let Some(part) = withheld {
            self.health.clear_problem(&part);
            info!(chain = %self.chain, token = %token.id, "buyers can pay with {} on {} again", token.symbol, self.chain);
        }
    }
}
