//! The options `[[accounts]]`: watch-only account keys, as `settled-signer keys xpubs` prints them.

use std::fmt;

use bitcoin::Network;
use chain::{Family, address::AddressScheme};
use serde::Deserialize;

use crate::{AddressKind, ChainConfig};
use ids::Mode;

/// A watch-only account key, from which deposit addresses are derived. Its `Debug` output does not contain the xpub,
/// because an xpub reveals all addresses.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AccountKey {
    /// The family of the chains on which the addresses are used.
    #[serde(rename = "chain-family")]
    pub family: Family,
    /// The use of the addresses: deposits on chains in live mode or in test mode.
    pub purpose: Purpose,
    /// The number of the account. Of all accounts with the same family and purpose, the one with the highest number is
    /// used. After a restore from a backup, an account with a new number ensures that no address is issued twice.
    #[serde(default)]
    pub epoch: u32,
    /// The derivation path of the account; may be empty. Its first level determines the kind of Bitcoin addresses.
    #[serde(default)]
    pub path: String,
    /// The extended public key of the account.
    pub xpub: String,
}

/// The use of the addresses of an account. Accounts for payouts exist only in the signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The addresses receive deposits on chains in live mode.
    Deposit,
    /// The addresses receive deposits on chains in test mode.
    DepositTest,
}

impl AccountKey {
    /// Returns the kind of the account's Bitcoin addresses: Taproot when the path begins with `m/86'` (BIP 86),
    /// otherwise, and without a path, P2WPKH.
    pub fn address_kind(&self) -> AddressKind {
        let path = self.path.trim().trim_start_matches("m/");
        let purpose = path.split('/').next().unwrap_or_default().trim_end_matches(['\'', 'h', 'H']);
        if purpose == "86" { AddressKind::P2tr } else { AddressKind::P2wpkh }
    }

    /// Returns the scheme that turns public keys of this account into addresses. The network of the scheme is always
    /// the main network, because a key is only checked with it.
    pub fn address_scheme(&self) -> AddressScheme {
        match (self.family, self.address_kind()) {
            (Family::Bitcoin, AddressKind::P2tr) => AddressScheme::P2tr(Network::Bitcoin.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => AddressScheme::for_family(family, Network::Bitcoin),
        }
    }

    /// Returns true when the account has the family of the chain, and the purpose for the mode (live or test) of the
    /// chain.
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

    /// Returns the purpose of deposit addresses on chains in this mode.
    pub fn for_deposits_in(mode: Mode) -> Purpose {
        match mode {
            Mode::Live => Purpose::Deposit,
            Mode::Test => Purpose::DepositTest,
        }
    }
}

/// Returns the number at the first level of the derivation path for this kind of Bitcoin addresses: 84 or 86, after the
/// BIP that defines the kind.
fn bip_purpose_number(kind: AddressKind) -> u32 {
    match kind {
        AddressKind::P2wpkh => 84,
        AddressKind::P2tr => 86,
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountKey({:?} {:?} epoch {})", self.family, self.purpose, self.epoch)
    }
}

impl super::Config {
    /// Returns the account from which a chain's new deposit addresses are derived: the one with the highest epoch for
    /// the chain's family and mode and, on Bitcoin, its kind of addresses, because wallets search each kind in a
    /// separate account. `None` when there is no such account.
    pub fn find_newest_deposit_account_key(&self, chain: &ChainConfig) -> Option<&AccountKey> {
        let has_kind =
            |account: &AccountKey| chain.family != Family::Bitcoin || account.address_kind() == chain.address_kind;
        let fitting = self.accounts.iter().filter(|account| account.fits_chain(chain) && has_kind(account));
        fitting.max_by_key(|account| account.epoch)
    }

    /// Returns the error text for a Bitcoin chain for which accounts exist, but only with another kind of addresses;
    /// `None` when there is no account at all.
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
