//! Immutable facts: values that must not change between two starts of the daemon, such as the chain id of the network
//! that a chain name stands for, and the decimals of a token.

mod store;

use std::collections::BTreeMap;

use chain::{AssetId, ChainId};

use clock::Instant;
use db::{self, Tx};

/// A named value that must stay the same between two starts of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The name of the fact, such as `identity of ethereum`.
    pub name: String,
    /// The value of the fact, as text.
    pub value: String,
}

impl Fact {
    /// Returns the fact that a chain has the identity `id`: its chain id, or the hash of its genesis block.
    pub fn new_chain_identity(chain: &ChainId, id: String) -> Fact {
        Fact { name: format!("identity of {chain}"), value: id }
    }

    /// Returns the fact that amounts of this asset have `decimals` decimal places.
    pub fn new_asset_decimals(asset: &AssetId, decimals: u8) -> Fact {
        Fact { name: format!("decimals of {asset}"), value: decimals.to_string() }
    }
}

/// The reason why the daemon refuses to start: a fact that must never change differs from the stored one, or the database
/// failed.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    /// A fact differs from its recorded value.
    #[error(
        "{name} is {found}, but it was {stored} when it was first recorded; check that the configuration does not name \
         another network or token"
    )]
    Changed {
        /// The name of the fact.
        name: String,
        /// The value that was recorded first.
        stored: String,
        /// The value at this start of the daemon.
        found: String,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Returns the values of all recorded facts by name.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_facts(tx: &mut Tx) -> Result<BTreeMap<String, String>, db::Error> {
    store::list_facts(tx).await
}

/// Records the facts whose names are new. Compares all other facts with their recorded values, and fails when one of
/// them differs.
///
/// # Errors
/// [`FactError::Changed`] for the first fact that differs; [`FactError::Db`] when the database fails.
pub async fn record_facts_refusing_changed(tx: &mut Tx, now: Instant, facts: &[Fact]) -> Result<(), FactError> {
    for Fact { name, value } in facts {
        let stored = store::find_or_insert_fact(tx, now, name, value).await?;
        if stored != *value {
            return Err(FactError::Changed { name: name.clone(), stored, found: value.clone() });
        }
    }
    Ok(())
}
