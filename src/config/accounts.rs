//! `[[accounts]]`: watch-only account keys, as `settled-signer keys xpubs` prints them.

use std::fmt;

use bitcoin::Network;
use chain::{Family, derive::AddressScheme};
use serde::Deserialize;

use crate::{AddressKind, ChainConfig};
use ids::Mode;

/// A watch-only account key, from which deposit addresses are derived. Its `Debug` output has no xpub, which reveals
/// every address.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Account {
    /// The family of the chains for which addresses are derived.
    #[serde(rename = "chain-family")]
    pub family: Family,
    /// The mode of the chains for which addresses are derived.
    pub purpose: Purpose,
    /// The number of the account; the highest one is used. A restore from a backup increases it, so that no index is
    /// used twice.
    #[serde(default)]
    pub epoch: u32,
    /// The derivation path of the account, for people and for the signer. Its first level determines the kind of
    /// Bitcoin addresses.
    #[serde(default)]
    pub path: String,
    /// The extended public key of the account.
    pub xpub: String,
}

/// The use of an account's addresses. Accounts for payouts are known to the signer only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Deposits on chains in live mode.
    Deposit,
    /// Deposits on chains in test mode.
    DepositTest,
}

impl Account {
    /// Returns the kind of the account's Bitcoin addresses: Taproot when the path begins with `m/86'` (BIP 86),
    /// otherwise, and without a path, P2WPKH.
    pub fn address_kind(&self) -> AddressKind {
        let path = self.path.trim().trim_start_matches("m/");
        let purpose = path.split('/').next().unwrap_or_default().trim_end_matches(['\'', 'h', 'H']);
        if purpose == "86" { AddressKind::P2tr } else { AddressKind::P2wpkh }
    }

    /// Returns how addresses are derived on the main network.
    pub fn address_scheme(&self) -> AddressScheme {
        match (self.family, self.address_kind()) {
            (Family::Bitcoin, AddressKind::P2tr) => AddressScheme::P2tr(Network::Bitcoin.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => AddressScheme::for_family(family, Network::Bitcoin),
        }
    }

    fn fits_chain(&self, chain: &ChainConfig) -> bool {
        self.family == chain.family && self.purpose == Purpose::for_deposits_in(chain.mode)
    }
}

impl Purpose {
    /// Returns the purpose as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Deposit => "deposit",
            Purpose::DepositTest => "deposit-test",
        }
    }

    /// Returns the purpose of deposit addresses in a mode.
    pub fn for_deposits_in(mode: Mode) -> Purpose {
        match mode {
            Mode::Live => Purpose::Deposit,
            Mode::Test => Purpose::DepositTest,
        }
    }
}

/// Returns the first level of the derivation path of an account with addresses of this kind.
fn bip_purpose_number(kind: AddressKind) -> u32 {
    match kind {
        AddressKind::P2wpkh => 84,
        AddressKind::P2tr => 86,
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({:?} {:?} epoch {})", self.family, self.purpose, self.epoch)
    }
}

impl super::Config {
    /// Returns the account from which a chain's new deposit addresses are derived: the one with the highest epoch for
    /// the chain's family and mode and, on Bitcoin, its kind of addresses, because wallets search each kind in its own
    /// account. `None` when there is no such account.
    pub fn find_deposit_account(&self, chain: &ChainConfig) -> Option<&Account> {
        let has_kind =
            |account: &Account| chain.family != Family::Bitcoin || account.address_kind() == chain.address_kind;
        let fitting = self.accounts.iter().filter(|account| account.fits_chain(chain) && has_kind(account));
        fitting.max_by_key(|account| account.epoch)
    }

    /// Returns the problem of a Bitcoin chain whose only accounts have another kind of addresses; `None` when it has no
    /// account at all.
    pub fn describe_address_kind_mismatch(&self, chain: &ChainConfig) -> Option<String> {
        let other = self.accounts.iter().find(|account| account.fits_chain(chain))?;
        let (kind, level) = (chain.address_kind.as_str(), bip_purpose_number(chain.address_kind));
        let path = if other.path.is_empty() { "without a path" } else { other.path.as_str() };
        Some(format!(
            "is \"{kind}\", whose account is m/{level}'/…, but the [[accounts]] for it is {path} with {} addresses; paste what \
             `settled-signer keys xpubs SEED --chain bitcoin --kind {kind} --purpose {}` prints",
            other.address_kind().as_str(),
            other.purpose.as_str()
        ))
    }
}
