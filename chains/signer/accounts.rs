//! Which account of the seed is for what.
//!
//! An account is a hardened child `m/purpose'/coin'/account'`: BIP84 or BIP86 for Bitcoin (coin 0, or 1 off mainnet), BIP44
//! for EVM (coin 60) and TRON (coin 195). Every use has an account of its own, because an xpub together with one private key
//! below it gives away every other key below it: deposits never share an account with money that goes out. Each kind of
//! Bitcoin's addresses has one, too: wallets look for Taproot below `m/86'` and nowhere else.
//!
//! The account number is `use + 100 × epoch`, where the use is 0 for deposits, 1 for deposits in test mode, and 10 + n
//! for hot wallet n. A restore bumps the epoch, so that an index that a lost database gave out is never given out again.

use std::{fmt, str::FromStr};

use alloy_primitives::keccak256;
use bip32::{ChildNumber, Prefix};
use bitcoin::{CompressedPublicKey, KnownHrp, Network};
use chain::{Address, AddressKey, Family, derive::AddressScheme};

use crate::seed::Seed;

/// Accounts that one epoch has.
const EPOCH: u32 = 100;

/// KeyAccount of the first hot wallet.
const FIRST_HOT_WALLET: u32 = 10;

/// Highest epoch whose accounts are all below 2^31.
pub const EPOCH_MAX: u32 = (ChildNumber::HARDENED_FLAG - EPOCH) / EPOCH;

/// Highest number of a hot wallet.
pub const HOT_WALLET_MAX: u8 = 89;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("hot wallets have numbers from 0 to {HOT_WALLET_MAX}, not {0}")]
    NoSuchWallet(u8),
    #[error("epochs end at {EPOCH_MAX}, there is no {0}")]
    NoSuchEpoch(u32),
}

/// What the addresses of an account are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// One address per invoice; the daemon has the xpub.
    Deposit,
    /// The same in test mode.
    TestDeposit,
    /// Money that goes out: payouts, gas. 0 to [`HOT_WALLET_MAX`].
    Hot(u8),
}

/// `deposit`, `deposit-test` or `hot-N`.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Deposit => f.write_str("deposit"),
            Purpose::TestDeposit => f.write_str("deposit-test"),
            Purpose::Hot(number) => write!(f, "hot-{number}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a purpose is `deposit`, `deposit-test` or `hot-N` with N from 0 to {HOT_WALLET_MAX}")]
pub struct BadPurpose;

impl FromStr for Purpose {
    type Err = BadPurpose;

    fn from_str(text: &str) -> Result<Purpose, BadPurpose> {
        let purpose = match text {
            "deposit" => Purpose::Deposit,
            "deposit-test" => Purpose::TestDeposit,
            other => {
                let number = other.strip_prefix("hot-").and_then(|number| number.parse().ok()).ok_or(BadPurpose)?;
                Purpose::Hot(number)
            }
        };
        // The one spelling that `Display` writes: no `hot-007`, no `hot-+7`, no `hot-90`.
        let known = !matches!(purpose, Purpose::Hot(number) if number > HOT_WALLET_MAX) && purpose.to_string() == text;
        if known { Ok(purpose) } else { Err(BadPurpose) }
    }
}

/// What addresses an account of Bitcoin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// BIP84.
    P2wpkh,
    /// BIP86: Taproot that only the key can spend.
    P2tr,
}

/// One account of a seed: its path is known without the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAccount {
    family: Family,
    network: Network,
    kind: AddressKind,
    purpose: Purpose,
    epoch: u32,
}

impl KeyAccount {
    /// `network` matters for Bitcoin only; EVM and TRON have the same keys on all of their networks. An account of Bitcoin has
    /// P2WPKH addresses; [`KeyAccount::with_address_kind`] names another.
    pub fn new(family: Family, network: Network, purpose: Purpose, epoch: u32) -> Result<KeyAccount, AccountError> {
        match purpose {
            Purpose::Hot(number) if number > HOT_WALLET_MAX => Err(AccountError::NoSuchWallet(number)),
            Purpose::Deposit | Purpose::TestDeposit | Purpose::Hot(_) if epoch > EPOCH_MAX => {
                Err(AccountError::NoSuchEpoch(epoch))
            }
            Purpose::Deposit | Purpose::TestDeposit | Purpose::Hot(_) => {
                Ok(KeyAccount { family, network, kind: AddressKind::P2wpkh, purpose, epoch })
            }
        }
    }

    /// The account of Bitcoin that has such addresses and is otherwise the same; the other families have one kind only.
    pub fn with_address_kind(self, kind: AddressKind) -> KeyAccount {
        KeyAccount { kind, ..self }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn network(&self) -> Network {
        self.network
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Number of the account in its path, below 2^31.
    pub fn number(&self) -> u32 {
        let within = match self.purpose {
            Purpose::Deposit => 0,
            Purpose::TestDeposit => 1,
            Purpose::Hot(number) => FIRST_HOT_WALLET + u32::from(number),
        };
        within + self.epoch * EPOCH
    }

    /// `m/84'/0'/0'`, for people and configuration.
    pub fn path(&self) -> String {
        let [purpose, coin, number] = self.levels();
        format!("m/{purpose}'/{coin}'/{number}'")
    }

    /// How public keys of this account become addresses.
    pub fn scheme(&self) -> AddressScheme {
        match (self.family, self.kind) {
            (Family::Bitcoin, AddressKind::P2tr) => AddressScheme::P2tr(self.network.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => AddressScheme::for_family(family, self.network),
        }
    }

    /// Purpose, coin (SLIP-44) and account, all hardened.
    fn levels(&self) -> [u32; 3] {
        let (purpose, coin) = match self.family {
            Family::Bitcoin => {
                let purpose = match self.kind {
                    AddressKind::P2wpkh => 84,
                    AddressKind::P2tr => 86,
                };
                (purpose, u32::from(self.network != Network::Bitcoin))
            }
            Family::Evm => (44, 60),
            Family::Tron => (44, 195),
        };
        [purpose, coin, self.number()]
    }

    fn steps(&self) -> [ChildNumber; 3] {
        self.levels().map(|level| ChildNumber::new(level, true).expect("account numbers stay below 2^31"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an account has indices below 2^31, not {0}")]
pub struct BadIndex(pub u32);

impl Seed {
    /// The public account key (depth 3) in BIP32's Base58Check with the version `xpub`, whatever the network: what
    /// [`chain::Deriver::new`] takes. It reveals all addresses of the account and can spend nothing.
    pub fn account_xpub(&self, account: &KeyAccount) -> String {
        self.key_at(&account.steps()).public_key().to_extended_key(Prefix::XPUB).to_string()
    }

    /// The address at `…account'/0/index`, derived from private keys: an independent check of what the daemon derives from
    /// the xpub with another library.
    pub fn address(&self, account: &KeyAccount, index: u32) -> Result<Address, BadIndex> {
        let index = ChildNumber::new(index, false).map_err(|_| BadIndex(index))?;
        let [purpose, coin, number] = account.steps();
        let key = self.key_at(&[purpose, coin, number, ChildNumber::default(), index]);
        let public = *key.private_key().verifying_key();
        Ok(match account.scheme() {
            AddressScheme::P2wpkh(hrp) => p2wpkh(&key.public_key().to_bytes(), hrp),
            AddressScheme::P2tr(hrp) => {
                let key = CompressedPublicKey::from_slice(&key.public_key().to_bytes());
                chain::derive::p2tr_address(&key.expect("the public half of a private key").0, hrp)
            }
            AddressScheme::Evm => chain::derive::evm_address(account_of(public.to_sec1_point(false).as_bytes())),
            AddressScheme::Tron => chain::derive::tron_address(account_of(public.to_sec1_point(false).as_bytes())),
        })
    }
}

fn p2wpkh(compressed: &[u8], hrp: KnownHrp) -> Address {
    let key = CompressedPublicKey::from_slice(compressed).expect("the public half of a private key");
    let program: [u8; 20] = *AsRef::<[u8; 20]>::as_ref(&key.wpubkey_hash());
    Address { key: AddressKey(program), text: bitcoin::Address::p2wpkh(&key, hrp).to_string() }
}

/// Last 20 bytes of Keccak-256 over an uncompressed key without its prefix (Yellow Paper, appendix F).
fn account_of(uncompressed: &[u8]) -> AddressKey {
    AddressKey(keccak256(&uncompressed[1..])[12..].try_into().expect("32 − 12 bytes"))
}

#[cfg(test)]
mod tests {
    use chain::Deriver;
    use secrecy::SecretString;

    use super::*;

    const ABANDON: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    const JUNK: &str = "test test test test test test test test test test test junk";

    fn seed(words: &str) -> Seed {
        Seed::from_words(&SecretString::from(words), SecretString::default()).unwrap()
    }

    fn deposits(family: Family) -> KeyAccount {
        KeyAccount::new(family, Network::Bitcoin, Purpose::Deposit, 0).unwrap()
    }

    fn derived(seed: &Seed, account: &KeyAccount, index: u32) -> String {
        Deriver::new(&seed.account_xpub(account), account.scheme()).unwrap().derive_address(index).unwrap().text
    }

    /// Published: BIP84's own vector, the BIP44 addresses of the BIP39 test phrase, and anvil's first account.
    #[test]
    fn published_addresses() {
        let vectors = [
            (ABANDON, Family::Bitcoin, 0, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"),
            (ABANDON, Family::Bitcoin, 1, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"),
            (ABANDON, Family::Evm, 0, "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
            (ABANDON, Family::Tron, 0, "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"),
            (JUNK, Family::Evm, 0, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            (JUNK, Family::Evm, 1, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        ];
        for (words, family, index, address) in vectors {
            let (seed, account) = (seed(words), deposits(family));
            assert_eq!(seed.address(&account, index).unwrap().text, address);
            assert_eq!(derived(&seed, &account, index), address);
        }
    }

    /// BIP86's own vector, from the words on.
    #[test]
    fn bip86_account() {
        let (seed, account) = (seed(ABANDON), deposits(Family::Bitcoin).with_address_kind(AddressKind::P2tr));
        assert_eq!(account.path(), "m/86'/0'/0'");
        let xpub = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
        assert_eq!(seed.account_xpub(&account), xpub);
        for (index, address) in [
            (0, "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"),
            (1, "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"),
        ] {
            assert_eq!(seed.address(&account, index).unwrap().text, address);
            assert_eq!(derived(&seed, &account, index), address);
        }
    }

    /// The zpub of BIP84's vector, written with BIP32's version bytes.
    #[test]
    fn bip84_account_key() {
        let xpub = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
        assert_eq!(seed(ABANDON).account_xpub(&deposits(Family::Bitcoin)), xpub);
    }

    #[test]
    fn paths_follow_bip84_bip86_and_bip44() {
        let path = |family, network, purpose, epoch| KeyAccount::new(family, network, purpose, epoch).unwrap().path();
        assert_eq!(path(Family::Bitcoin, Network::Bitcoin, Purpose::Deposit, 0), "m/84'/0'/0'");
        assert_eq!(path(Family::Bitcoin, Network::Regtest, Purpose::TestDeposit, 0), "m/84'/1'/1'");
        assert_eq!(path(Family::Bitcoin, Network::Testnet, Purpose::Deposit, 2), "m/84'/1'/200'");
        let taproot = KeyAccount::new(Family::Bitcoin, Network::Regtest, Purpose::Hot(1), 1)
            .unwrap()
            .with_address_kind(AddressKind::P2tr);
        assert_eq!(taproot.path(), "m/86'/1'/111'");
        assert_eq!(path(Family::Evm, Network::Bitcoin, Purpose::Hot(0), 0), "m/44'/60'/10'");
        assert_eq!(path(Family::Evm, Network::Testnet, Purpose::Deposit, 0), "m/44'/60'/0'");
        assert_eq!(path(Family::Tron, Network::Bitcoin, Purpose::Hot(89), 3), "m/44'/195'/399'");
        assert_eq!(path(Family::Evm, Network::Bitcoin, Purpose::Hot(89), EPOCH_MAX), "m/44'/60'/2147483599'");
    }

    #[test]
    fn accounts_of_different_uses_never_meet() {
        let purposes = (0..=HOT_WALLET_MAX).map(Purpose::Hot).chain([Purpose::Deposit, Purpose::TestDeposit]);
        let mut numbers: Vec<u32> = purposes
            .flat_map(|purpose| (0..4).map(move |epoch| (purpose, epoch)))
            .map(|(purpose, epoch)| KeyAccount::new(Family::Evm, Network::Bitcoin, purpose, epoch).unwrap().number())
            .collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }

    #[test]
    fn accounts_that_do_not_exist_are_refused() {
        let new = |purpose, epoch| KeyAccount::new(Family::Evm, Network::Bitcoin, purpose, epoch);
        assert_eq!(new(Purpose::Hot(90), 0), Err(AccountError::NoSuchWallet(90)));
        assert_eq!(new(Purpose::Deposit, EPOCH_MAX + 1), Err(AccountError::NoSuchEpoch(EPOCH_MAX + 1)));
        assert_eq!(seed(ABANDON).address(&deposits(Family::Evm), 1 << 31), Err(BadIndex(1 << 31)));
    }

    #[test]
    fn a_purpose_has_one_spelling() {
        for purpose in [Purpose::Deposit, Purpose::TestDeposit, Purpose::Hot(0), Purpose::Hot(89)] {
            assert_eq!(purpose.to_string().parse(), Ok(purpose));
        }
        for text in ["", "Deposit", "hot", "hot-", "hot-90", "hot-007", "hot-+7", "hot--1", "hot-256"] {
            assert_eq!(text.parse::<Purpose>(), Err(BadPurpose), "{text}");
        }
    }

    /// Public derivation (rust-bitcoin, what the daemon does) against private derivation (bip32), over families, networks,
    /// uses, epochs and indices up to the last.
    #[test]
    fn the_daemon_derives_what_the_seed_owns() {
        let seed = Seed::generate().unwrap();
        let purposes = [Purpose::Deposit, Purpose::TestDeposit, Purpose::Hot(3)];
        let kinds = [AddressKind::P2wpkh, AddressKind::P2tr];
        let accounts = [Family::Bitcoin, Family::Evm, Family::Tron]
            .into_iter()
            .flat_map(|family| kinds.map(|kind| (family, kind)));
        for (family, kind) in accounts {
            for network in [Network::Bitcoin, Network::Testnet, Network::Regtest] {
                for (purpose, epoch) in purposes.into_iter().zip([0, 1, EPOCH_MAX]) {
                    let account = KeyAccount::new(family, network, purpose, epoch).unwrap().with_address_kind(kind);
                    let deriver = Deriver::new(&seed.account_xpub(&account), account.scheme()).unwrap();
                    for index in [0, 1, 999, (1 << 31) - 1] {
                        assert_eq!(deriver.derive_address(index).unwrap(), seed.address(&account, index).unwrap());
                    }
                }
            }
        }
    }

    /// Somebody will paste the wrong half of a key into the configuration: refused, and not repeated in the error.
    #[test]
    fn the_daemon_refuses_a_private_key() {
        let account = deposits(Family::Evm);
        let xprv = seed(ABANDON).key_at(&account.steps()).to_extended_key(Prefix::XPRV).to_string();
        let error = Deriver::new(&xprv, account.scheme()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&xprv[4..20]));
    }
}
