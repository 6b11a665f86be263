//! Facts that may not change between two starts: which chain a name stands for, how many decimals a token has.

mod store;

use std::collections::BTreeMap;

use chain::{AssetId, ChainId};

use clock::Instant;
use db::{self, Tx};

/// A name and what it stood for when it was first read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub name: String,
    pub fact: String,
}

impl Fact {
    pub fn identity(chain: &ChainId, id: String) -> Fact {
        Fact { name: format!("identity of {chain}"), fact: id }
    }

    pub fn decimals(asset: &AssetId, decimals: u8) -> Fact {
        Fact { name: format!("decimals of {asset}"), fact: decimals.to_string() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    #[error(
        "{name} is {found}, but it was {stored} when it was first read: is another network configured under this name?"
    )]
    Changed { name: String, stored: String, found: String },
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Everything that is stored, by name.
pub async fn list(tx: &mut Tx) -> Result<BTreeMap<String, String>, db::Error> {
    store::list(tx).await
}

/// Stores what is new and refuses what differs.
pub async fn agree(tx: &mut Tx, now: Instant, facts: &[Fact]) -> Result<(), Disagreement> {
    for Fact { name, fact } in facts {
        let stored = store::insert_or_find(tx, now, name, fact).await?;
        if stored != *fact {
            return Err(Disagreement::Changed { name: name.clone(), stored, found: fact.clone() });
        }
    }
    Ok(())
}
