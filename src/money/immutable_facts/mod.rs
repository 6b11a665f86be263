//! Facts that may not change between two starts of the daemon: the chain that a name stands for, the decimals of a token.

mod store;

use std::collections::BTreeMap;

use chain::{AssetId, ChainId};

use clock::Instant;
use db::{self, Tx};

/// A named fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The name, such as `identity of ethereum`.
    pub name: String,
    /// The value as text.
    pub value: String,
}

impl Fact {
    /// The identity of a chain: its chain id, or the hash of its genesis block.
    pub fn identity(chain: &ChainId, id: String) -> Fact {
        Fact { name: format!("identity of {chain}"), value: id }
    }

    /// The number of decimal places of an asset.
    pub fn decimals(asset: &AssetId, decimals: u8) -> Fact {
        Fact { name: format!("decimals of {asset}"), value: decimals.to_string() }
    }
}

/// Why the facts were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// A fact differs from the value that is stored.
    #[error(
        "{name} is {found}, but it was {stored} when it was first recorded; check that the configuration does not name \
         another network or token"
    )]
    Changed {
        /// The name of the fact.
        name: String,
        /// The value that was recorded first.
        stored: String,
        /// The value now.
        found: String,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Returns all recorded facts: values by names.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list(tx: &mut Tx) -> Result<BTreeMap<String, String>, db::Error> {
    store::list(tx).await
}

/// Records new facts and compares the others with their recorded values.
///
/// # Errors
/// [`Mismatch::Changed`] for the first fact that differs.
pub async fn record_or_compare(tx: &mut Tx, now: Instant, facts: &[Fact]) -> Result<(), Mismatch> {
    for Fact { name, value } in facts {
        let stored = store::find_or_insert(tx, now, name, value).await?;
        if stored != *value {
            return Err(Mismatch::Changed { name: name.clone(), stored, found: value.clone() });
        }
    }
    Ok(())
}
