//! Watch-only account keys, as `settled-signer keys xpubs` prints them.

use std::fmt;

use chain::Family;
use serde::Deserialize;

use crate::ids::Mode;

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Account {
    #[serde(rename = "chain-family")]
    pub family: Family,
    pub purpose: Purpose,
    /// A restore bumps it, so that no index is handed out a second time; the highest is used.
    #[serde(default)]
    pub epoch: u32,
    /// For people and for the signer; nothing here derives by it.
    #[serde(default)]
    pub path: String,
    pub xpub: String,
}

/// What the addresses of an account are for. Accounts that pay out are the signer's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    Deposit,
    DepositTest,
}

impl Purpose {
    pub fn deposits_of(mode: Mode) -> Purpose {
        match mode {
            Mode::Live => Purpose::Deposit,
            Mode::Test => Purpose::DepositTest,
        }
    }
}

/// Without the xpub: it shows every address.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({:?} {:?} epoch {})", self.family, self.purpose, self.epoch)
    }
}

impl super::Config {
    /// The account under which new deposit addresses are derived: the highest epoch of its family and mode.
    pub fn deposit_account(&self, family: Family, mode: Mode) -> Option<&Account> {
        let purpose = Purpose::deposits_of(mode);
        let fitting = self.accounts.iter().filter(|account| account.family == family && account.purpose == purpose);
        fitting.max_by_key(|account| account.epoch)
    }
}
