//! Watch-only account keys, as `settled-signer keys xpubs` prints them.

use std::fmt;

use bitcoin::Network;
use chain::{Family, derive::AddressScheme};
use serde::Deserialize;

use crate::{AddressKind, ChainConfig};
use ids::Mode;

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Account {
    #[serde(rename = "chain-family")]
    pub family: Family,
    pub purpose: Purpose,
    /// A restore bumps it, so that no index is handed out a second time; the highest is used.
    #[serde(default)]
    pub epoch: u32,
    /// For people and for the signer; its first level says what addresses an account of Bitcoin has.
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

impl Account {
    /// What addresses of Bitcoin it has: Taproot below `m/86'` (BIP86), P2WPKH everywhere else, as accounts without a path
    /// always had.
    pub fn kind(&self) -> AddressKind {
        let path = self.path.trim().trim_start_matches("m/");
        let purpose = path.split('/').next().unwrap_or_default().trim_end_matches(['\'', 'h', 'H']);
        if purpose == "86" { AddressKind::P2tr } else { AddressKind::P2wpkh }
    }

    /// How its keys become addresses on the main network.
    pub fn scheme(&self) -> AddressScheme {
        match (self.family, self.kind()) {
            (Family::Bitcoin, AddressKind::P2tr) => AddressScheme::P2tr(Network::Bitcoin.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => AddressScheme::for_family(family, Network::Bitcoin),
        }
    }

    fn fits(&self, chain: &ChainConfig) -> bool {
        self.family == chain.family && self.purpose == Purpose::deposits_of(chain.mode)
    }
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Deposit => "deposit",
            Purpose::DepositTest => "deposit-test",
        }
    }

    pub fn deposits_of(mode: Mode) -> Purpose {
        match mode {
            Mode::Live => Purpose::Deposit,
            Mode::Test => Purpose::DepositTest,
        }
    }
}

fn level(kind: AddressKind) -> u32 {
    match kind {
        AddressKind::P2wpkh => 84,
        AddressKind::P2tr => 86,
    }
}

/// Without the xpub: it shows every address.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({:?} {:?} epoch {})", self.family, self.purpose, self.epoch)
    }
}

impl super::Config {
    /// The account under which a chain's new deposit addresses are derived: the highest epoch of its family and mode, on
    /// Bitcoin of its kind of addresses. A wallet into which the words are typed looks for each kind below its own account.
    pub fn deposit_account(&self, chain: &ChainConfig) -> Option<&Account> {
        let kind = |account: &Account| chain.family != Family::Bitcoin || account.kind() == chain.address_kind;
        let fitting = self.accounts.iter().filter(|account| account.fits(chain) && kind(account));
        fitting.max_by_key(|account| account.epoch)
    }

    /// Why a chain has no account although there is one for it: it has another kind of addresses.
    pub fn describe_kind_mismatch(&self, chain: &ChainConfig) -> Option<String> {
        let other = self.accounts.iter().find(|account| account.fits(chain))?;
        let (kind, level) = (chain.address_kind.as_str(), level(chain.address_kind));
        let path = if other.path.is_empty() { "without a path" } else { other.path.as_str() };
        Some(format!(
            "is \"{kind}\", whose account is m/{level}'/…, but the [[accounts]] for it is {path} with {} addresses; paste what \
             `settled-signer keys xpubs SEED --chain bitcoin --kind {kind} --purpose {}` prints",
            other.kind().as_str(),
            other.purpose.as_str()
        ))
    }
}
