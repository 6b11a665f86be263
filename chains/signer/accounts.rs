//! The accounts of a seed: their purposes, paths, xpubs and addresses.
//!
//! An account is the key at the hardened path `m/purpose'/coin'/account'` (BIP32). The first level is 84 (BIP84) or 86
//! (BIP86) for Bitcoin, and 44 (BIP44) for EVM and TRON. The coin is 0 for Bitcoin on mainnet, 1 on other Bitcoin
//! networks, 60 for EVM and 195 for TRON. Deposits and each hot wallet have accounts of their own, because an xpub and
//! one private key below it reveal all other private keys below it. Each kind of Bitcoin address has an account of its
//! own too, because wallets search for Taproot addresses only below `m/86'`.
//!
//! The account number is `use + 100 × epoch`. The use is 0 for deposits, 1 for deposits in test mode, and 10 + n for
//! hot wallet n. A restore of a backup increases the epoch, so that no address that was issued after the backup is
//! issued again.

use std::{fmt, str::FromStr};

use bip32::{ChildNumber, Prefix};
use bitcoin::{CompressedPublicKey, Network};
use chain::{Address, Family, address::AddressScheme};

use crate::seed::Seed;

/// The number of account numbers in one epoch. Every restore of a backup increases the epoch by one.
const EPOCH: u32 = 100;

/// The account number of the first hot wallet, within its epoch. Payouts and fees are paid from hot wallets.
const FIRST_HOT_WALLET: u32 = 10;

/// The highest epoch, chosen so that all account numbers stay below 2^31.
pub const EPOCH_MAX: u32 = (ChildNumber::HARDENED_FLAG - EPOCH) / EPOCH;

/// The highest number of a hot wallet.
pub const HOT_WALLET_MAX: u8 = 89;

/// The reason why an account does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The number of the hot wallet is above [`HOT_WALLET_MAX`].
    #[error("there is no hot wallet {0}; hot wallets have the numbers 0 to {HOT_WALLET_MAX}")]
    NoSuchWallet(u8),
    /// The epoch (the number of restores from a backup) is above [`EPOCH_MAX`].
    #[error("there is no epoch {0}; epochs have the numbers 0 to {EPOCH_MAX}")]
    NoSuchEpoch(u32),
}

/// The use of an account, such as deposits or a hot wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountPurpose {
    /// The account of the deposit addresses, one for each invoice. The daemon has the xpub of this account.
    Deposit,
    /// The account of the deposit addresses in test mode.
    TestDeposit,
    /// The account of a hot wallet, from which payouts and fees are paid. The field is the number of the wallet, from 0
    /// to [`HOT_WALLET_MAX`].
    Hot(u8),
}

/// Writes the purpose as `deposit`, `deposit-test` or `hot-N`.
impl fmt::Display for AccountPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountPurpose::Deposit => f.write_str("deposit"),
            AccountPurpose::TestDeposit => f.write_str("deposit-test"),
            AccountPurpose::Hot(number) => write!(f, "hot-{number}"),
        }
    }
}

/// The error for a text that is not a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a purpose is `deposit`, `deposit-test` or `hot-N` with N from 0 to {HOT_WALLET_MAX}")]
pub struct BadPurpose;

impl FromStr for AccountPurpose {
    type Err = BadPurpose;

    fn from_str(text: &str) -> Result<AccountPurpose, BadPurpose> {
        let purpose = match text {
            "deposit" => AccountPurpose::Deposit,
            "deposit-test" => AccountPurpose::TestDeposit,
            other => {
                let number = other.strip_prefix("hot-").and_then(|number| number.parse().ok()).ok_or(BadPurpose)?;
                AccountPurpose::Hot(number)
            }
        };
        // Only the form that `Display` writes is valid, so `hot-007` and `hot-+7` are errors.
        let known =
            !matches!(purpose, AccountPurpose::Hot(number) if number > HOT_WALLET_MAX) && purpose.to_string() == text;
        if known { Ok(purpose) } else { Err(BadPurpose) }
    }
}

/// The kind of the addresses of a Bitcoin account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// P2WPKH addresses (BIP84), which begin with `bc1q` on mainnet.
    P2wpkh,
    /// P2TR addresses without a script path (BIP86), also called Taproot addresses.
    P2tr,
}

impl AddressKind {
    /// Returns P2TR for the text of a Taproot address (`bc1p…`, `tb1p…` or `bcrt1p…`), and P2WPKH for any other text.
    pub(crate) fn detect_taproot_or_assume_p2wpkh(address: &str) -> AddressKind {
        let address = address.trim().to_ascii_lowercase();
        if ["bc1p", "tb1p", "bcrt1p"].iter().any(|prefix| address.starts_with(prefix)) {
            AddressKind::P2tr
        } else {
            AddressKind::P2wpkh
        }
    }
}

/// An account of a seed: a chain family, a purpose and an epoch, which decide the BIP32 path. This type contains no
/// key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAccount {
    family: Family,
    network: Network,
    kind: AddressKind,
    purpose: AccountPurpose,
    epoch: u32,
}

impl KeyAccount {
    /// Returns an account. `network` matters for Bitcoin only, because EVM and TRON use the same keys on all networks.
    /// A Bitcoin account has P2WPKH addresses, unless [`KeyAccount::with_address_kind`] sets another kind.
    ///
    /// # Errors
    ///
    /// Fails when the number of the hot wallet or the epoch is too high.
    pub fn with_default_address_kind(
        family: Family,
        network: Network,
        purpose: AccountPurpose,
        epoch: u32,
    ) -> Result<KeyAccount, AccountError> {
        match purpose {
            AccountPurpose::Hot(number) if number > HOT_WALLET_MAX => Err(AccountError::NoSuchWallet(number)),
            AccountPurpose::Deposit | AccountPurpose::TestDeposit | AccountPurpose::Hot(_) if epoch > EPOCH_MAX => {
                Err(AccountError::NoSuchEpoch(epoch))
            }
            AccountPurpose::Deposit | AccountPurpose::TestDeposit | AccountPurpose::Hot(_) => {
                Ok(KeyAccount { family, network, kind: AddressKind::P2wpkh, purpose, epoch })
            }
        }
    }

    /// Returns the same account with addresses of another kind. The kind matters for Bitcoin only.
    pub fn with_address_kind(self, kind: AddressKind) -> KeyAccount {
        KeyAccount { kind, ..self }
    }

    /// Returns the chain family of the account.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Returns the Bitcoin network of the account, which has no meaning for EVM and TRON.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Returns the purpose of the account, which decides the account number within the epoch.
    pub fn purpose(&self) -> AccountPurpose {
        self.purpose
    }

    /// Returns the epoch of the account, from 0 to [`EPOCH_MAX`].
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns the account number of the path, `use + 100 × epoch`, below 2^31.
    pub fn account_number(&self) -> u32 {
        let within = match self.purpose {
            AccountPurpose::Deposit => 0,
            AccountPurpose::TestDeposit => 1,
            AccountPurpose::Hot(number) => FIRST_HOT_WALLET + u32::from(number),
        };
        within + self.epoch * EPOCH
    }

    /// Returns the derivation path, such as `m/84'/0'/0'`.
    pub fn derivation_path(&self) -> String {
        let [purpose, coin, number] = self.path_numbers();
        format!("m/{purpose}'/{coin}'/{number}'")
    }

    /// Returns the rule that makes addresses from the public keys of this account.
    pub fn address_scheme(&self) -> AddressScheme {
        match (self.family, self.kind) {
            (Family::Bitcoin, AddressKind::P2tr) => AddressScheme::P2tr(self.network.into()),
            (family, AddressKind::P2wpkh | AddressKind::P2tr) => AddressScheme::for_family(family, self.network),
        }
    }

    /// Returns the public key of the account (depth 3) in Base58Check (BIP32), as [`chain::Deriver::from_account_key`] expects it.
    /// The text begins with `xpub` on all networks. The key reveals all addresses of the account and cannot spend.
    pub fn derive_xpub(&self, seed: &Seed) -> String {
        let key = seed.derive_private_key(&self.hardened_child_numbers());
        key.public_key().to_extended_key(Prefix::XPUB).to_string()
    }

    /// Returns the address at `…account'/0/index`, derived from the private key. The daemon derives the same address
    /// from the xpub with another library, so comparing both addresses reveals an error in either.
    ///
    /// # Errors
    ///
    /// Fails when the index is 2^31 or more.
    pub fn derive_address(&self, seed: &Seed, index: u32) -> Result<Address, BadIndex> {
        let index = ChildNumber::new(index, false).map_err(|_| BadIndex(index))?;
        let [purpose, coin, number] = self.hardened_child_numbers();
        let key = seed.derive_private_key(&[purpose, coin, number, ChildNumber::default(), index]);
        let public_key = CompressedPublicKey::from_slice(&key.public_key().to_bytes());
        Ok(self.address_scheme().encode_address(&public_key.expect("a private key has a valid public key").0))
    }

    /// Returns the three numbers of the path: the purpose (84, 86 or 44), the coin (SLIP-44) and the account number.
    /// All three levels are hardened.
    fn path_numbers(&self) -> [u32; 3] {
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
        [purpose, coin, self.account_number()]
    }

    fn hardened_child_numbers(&self) -> [ChildNumber; 3] {
        self.path_numbers().map(|level| ChildNumber::new(level, true).expect("account numbers stay below 2^31"))
    }
}

/// The error for an address index of 2^31 or more; the field is the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address index must be below 2^31, but is {0}")]
pub struct BadIndex(pub u32);

#[cfg(test)]
mod tests {
    use chain::Deriver;
    use secrecy::SecretString;

    use super::*;

    const ABANDON: &str =
        "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    const JUNK: &str = "test test test test test test test test test test test junk";

    fn test_seed(words: &str) -> Seed {
        Seed::from_words(&SecretString::from(words), SecretString::default()).unwrap()
    }

    fn deposit_account(family: Family) -> KeyAccount {
        KeyAccount::with_default_address_kind(family, Network::Bitcoin, AccountPurpose::Deposit, 0).unwrap()
    }

    fn derive_from_xpub(seed: &Seed, account: &KeyAccount, index: u32) -> String {
        Deriver::from_account_key(&account.derive_xpub(seed), account.address_scheme())
            .unwrap()
            .derive_address(index)
            .unwrap()
            .text
    }

    /// The vector of BIP84, the BIP44 addresses of the BIP39 test phrase, and the first accounts of anvil.
    #[test]
    fn addresses_match_published_vectors() {
        let vectors = [
            (ABANDON, Family::Bitcoin, 0, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"),
            (ABANDON, Family::Bitcoin, 1, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"),
            (ABANDON, Family::Evm, 0, "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
            (ABANDON, Family::Tron, 0, "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"),
            (JUNK, Family::Evm, 0, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            (JUNK, Family::Evm, 1, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        ];
        for (words, family, index, address) in vectors {
            let (seed, account) = (test_seed(words), deposit_account(family));
            assert_eq!(account.derive_address(&seed, index).unwrap().text, address);
            assert_eq!(derive_from_xpub(&seed, &account, index), address);
        }
    }

    /// The test vector of BIP86: an account and its first addresses.
    #[test]
    fn a_taproot_account_matches_the_bip86_vector() {
        let (seed, account) =
            (test_seed(ABANDON), deposit_account(Family::Bitcoin).with_address_kind(AddressKind::P2tr));
        assert_eq!(account.derivation_path(), "m/86'/0'/0'");
        let xpub = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
        assert_eq!(account.derive_xpub(&seed), xpub);
        for (index, address) in [
            (0, "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"),
            (1, "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"),
        ] {
            assert_eq!(account.derive_address(&seed, index).unwrap().text, address);
            assert_eq!(derive_from_xpub(&seed, &account, index), address);
        }
    }

    /// The account key of BIP84's test vector, with the version bytes of an xpub instead of a zpub.
    #[test]
    fn an_account_key_matches_the_bip84_vector() {
        let xpub = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
        assert_eq!(deposit_account(Family::Bitcoin).derive_xpub(&test_seed(ABANDON)), xpub);
    }

    #[test]
    fn paths_follow_bip84_bip86_and_bip44() {
        let path = |family, network, purpose, epoch| {
            KeyAccount::with_default_address_kind(family, network, purpose, epoch).unwrap().derivation_path()
        };
        assert_eq!(path(Family::Bitcoin, Network::Bitcoin, AccountPurpose::Deposit, 0), "m/84'/0'/0'");
        assert_eq!(path(Family::Bitcoin, Network::Regtest, AccountPurpose::TestDeposit, 0), "m/84'/1'/1'");
        assert_eq!(path(Family::Bitcoin, Network::Testnet, AccountPurpose::Deposit, 2), "m/84'/1'/200'");
        let taproot =
            KeyAccount::with_default_address_kind(Family::Bitcoin, Network::Regtest, AccountPurpose::Hot(1), 1)
                .unwrap()
                .with_address_kind(AddressKind::P2tr);
        assert_eq!(taproot.derivation_path(), "m/86'/1'/111'");
        assert_eq!(path(Family::Evm, Network::Bitcoin, AccountPurpose::Hot(0), 0), "m/44'/60'/10'");
        assert_eq!(path(Family::Evm, Network::Testnet, AccountPurpose::Deposit, 0), "m/44'/60'/0'");
        assert_eq!(path(Family::Tron, Network::Bitcoin, AccountPurpose::Hot(89), 3), "m/44'/195'/399'");
        assert_eq!(path(Family::Evm, Network::Bitcoin, AccountPurpose::Hot(89), EPOCH_MAX), "m/44'/60'/2147483599'");
    }

    #[test]
    fn different_purposes_and_epochs_have_different_accounts() {
        let purposes =
            (0..=HOT_WALLET_MAX).map(AccountPurpose::Hot).chain([AccountPurpose::Deposit, AccountPurpose::TestDeposit]);
        let mut numbers: Vec<u32> = purposes
            .flat_map(|purpose| (0..4).map(move |epoch| (purpose, epoch)))
            .map(|(purpose, epoch)| {
                KeyAccount::with_default_address_kind(Family::Evm, Network::Bitcoin, purpose, epoch)
                    .unwrap()
                    .account_number()
            })
            .collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }

    #[test]
    fn accounts_that_do_not_exist_are_rejected() {
        let new = |purpose, epoch| KeyAccount::with_default_address_kind(Family::Evm, Network::Bitcoin, purpose, epoch);
        assert_eq!(new(AccountPurpose::Hot(90), 0), Err(AccountError::NoSuchWallet(90)));
        assert_eq!(new(AccountPurpose::Deposit, EPOCH_MAX + 1), Err(AccountError::NoSuchEpoch(EPOCH_MAX + 1)));
        assert_eq!(deposit_account(Family::Evm).derive_address(&test_seed(ABANDON), 1 << 31), Err(BadIndex(1 << 31)));
    }

    #[test]
    fn a_purpose_has_exactly_one_text() {
        for purpose in
            [AccountPurpose::Deposit, AccountPurpose::TestDeposit, AccountPurpose::Hot(0), AccountPurpose::Hot(89)]
        {
            assert_eq!(purpose.to_string().parse(), Ok(purpose));
        }
        for text in ["", "Deposit", "hot", "hot-", "hot-90", "hot-007", "hot-+7", "hot--1", "hot-256"] {
            assert_eq!(text.parse::<AccountPurpose>(), Err(BadPurpose), "{text}");
        }
    }

    /// Compares public derivation (rust-bitcoin, as in the daemon) with private derivation (bip32), over families,
    /// networks, purposes, epochs and indices up to the last.
    #[test]
    fn the_xpub_and_the_seed_derive_the_same_addresses() {
        let seed = Seed::generate().unwrap();
        let purposes = [AccountPurpose::Deposit, AccountPurpose::TestDeposit, AccountPurpose::Hot(3)];
        let kinds = [AddressKind::P2wpkh, AddressKind::P2tr];
        let accounts = [Family::Bitcoin, Family::Evm, Family::Tron]
            .into_iter()
            .flat_map(|family| kinds.map(|kind| (family, kind)));
        for (family, kind) in accounts {
            for network in [Network::Bitcoin, Network::Testnet, Network::Regtest] {
                for (purpose, epoch) in purposes.into_iter().zip([0, 1, EPOCH_MAX]) {
                    let account = KeyAccount::with_default_address_kind(family, network, purpose, epoch)
                        .unwrap()
                        .with_address_kind(kind);
                    let deriver =
                        Deriver::from_account_key(&account.derive_xpub(&seed), account.address_scheme()).unwrap();
                    for index in [0, 1, 999, (1 << 31) - 1] {
                        assert_eq!(
                            deriver.derive_address(index).unwrap(),
                            account.derive_address(&seed, index).unwrap()
                        );
                    }
                }
            }
        }
    }

    /// An operator may paste a private key into the configuration by mistake. The error must not contain it.
    #[test]
    fn an_xprv_in_place_of_an_xpub_is_rejected_and_not_printed() {
        let account = deposit_account(Family::Evm);
        let xprv = test_seed(ABANDON)
            .derive_private_key(&account.hardened_child_numbers())
            .to_extended_key(Prefix::XPRV)
            .to_string();
        let error = Deriver::from_account_key(&xprv, account.address_scheme()).unwrap_err();
        let printed = format!("{error} {error:?}");
        // No part of the key may be printed: eight characters after the prefix are more than chance.
        for window in xprv.as_bytes()[4..].windows(8).map(|window| std::str::from_utf8(window).unwrap()) {
            assert!(!printed.contains(window), "{printed}");
        }
    }
}
