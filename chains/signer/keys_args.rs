//! The command line of `settled-signer keys`: its subcommands, arguments and options.

use std::{ops::Range, path::PathBuf, str::FromStr};

use bitcoin::Network;
use chain::Family;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    accounts::{AccountError, AccountPurpose, AddressKind, KeyAccount},
    passphrase::{EncryptionArgs, PassphraseArgs},
};

/// The maximum number of addresses that one `keys derive` prints.
const ADDRESSES_MAX: u32 = 10_000;

/// A subcommand of `settled-signer keys`.
#[derive(Subcommand)]
pub enum Command {
    /// Create a new seed of 24 words and write it to a new encrypted file.
    Create(CreateArgs),
    /// Import the words of an existing seed and write them to a new encrypted file.
    ///
    /// The program asks for the words on the terminal. When standard input is not a terminal, give one value per line:
    /// the words; the BIP39 passphrase, with --ask-bip39-passphrase; the passphrase of the file, without
    /// --passphrase-file.
    Import(ImportArgs),
    /// Print account xpubs as TOML for the configuration of settled.
    ///
    /// An xpub cannot spend money, but it reveals every address of the account.
    Xpubs(XpubsArgs),
    /// Print addresses: index, path and address, separated by tabs.
    Derive(DeriveArgs),
    /// Open a seed file and compare its keys with an xpub or an address.
    Check(CheckArgs),
}

/// The arguments of `keys create`.
#[derive(Args)]
pub struct CreateArgs {
    /// The seed file to create. An existing file is never overwritten.
    pub(crate) file: PathBuf,
    /// Print the words even if standard output is not a terminal.
    #[arg(long)]
    pub(crate) show_mnemonic: bool,
    #[command(flatten)]
    pub(crate) encryption: EncryptionArgs,
}

/// The arguments of `keys import`.
#[derive(Args)]
pub struct ImportArgs {
    /// The seed file to create. An existing file is never overwritten.
    pub(crate) file: PathBuf,
    /// Also ask for the BIP39 passphrase of the words (the "25th word"). The seed file stores it with the words.
    #[arg(long)]
    pub(crate) ask_bip39_passphrase: bool,
    #[command(flatten)]
    pub(crate) encryption: EncryptionArgs,
}

/// The arguments of `keys xpubs`.
#[derive(Args)]
pub struct XpubsArgs {
    /// The seed file.
    pub(crate) file: PathBuf,
    /// The chain families to print; without this option, all of them. Bitcoin has one account per kind of address.
    /// settled uses the one that fits a chain's `address_kind`, so the configuration may contain both.
    #[arg(long, value_enum)]
    pub(crate) chain: Vec<FamilyArg>,
    /// The purpose of the accounts: deposit, deposit-test or hot-N. Can be repeated.
    #[arg(long, default_value = "deposit")]
    pub(crate) purpose: Vec<AccountPurpose>,
    #[command(flatten)]
    pub(crate) account: AccountArgs,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// The arguments of `keys derive`.
#[derive(Args)]
pub struct DeriveArgs {
    /// The seed file.
    pub(crate) file: PathBuf,
    /// The chain family of the account.
    #[arg(long, value_enum)]
    pub(crate) chain: FamilyArg,
    /// The purpose of the account: deposit, deposit-test or hot-N.
    #[arg(long, default_value = "deposit")]
    pub(crate) purpose: AccountPurpose,
    /// One index, or a range without its end: 0..5 stands for the indices 0 to 4.
    #[arg(long)]
    pub(crate) index: IndexRange,
    #[command(flatten)]
    pub(crate) account: AccountArgs,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// The arguments of `keys check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The seed file.
    pub(crate) file: PathBuf,
    /// Compare the account's xpub with this one.
    #[arg(long, requires = "chain")]
    pub(crate) xpub: Option<String>,
    /// Compare the address at --index with this one.
    #[arg(long, requires_all = ["chain", "index"])]
    pub(crate) address: Option<String>,
    /// The index of the address, below 2^31.
    #[arg(long, requires = "address")]
    pub(crate) index: Option<u32>,
    /// The chain family of the account.
    #[arg(long, value_enum)]
    pub(crate) chain: Option<FamilyArg>,
    /// The purpose of the account: deposit, deposit-test or hot-N.
    #[arg(long, default_value = "deposit")]
    pub(crate) purpose: AccountPurpose,
    #[command(flatten)]
    pub(crate) account: AccountArgs,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// The options that select one account when several have the same family and purpose.
#[derive(Args)]
pub(crate) struct AccountArgs {
    /// The network of the Bitcoin accounts.
    #[arg(long, value_enum, default_value = "mainnet")]
    network: NetworkArg,
    /// The kind of addresses of the Bitcoin accounts: `p2wpkh` (bc1q…, below m/84') or `p2tr` (bc1p…, below m/86').
    /// Without this option, `xpubs` prints both, `derive` uses p2wpkh, and `check` uses the kind of the given address
    /// and accepts an xpub of either kind.
    #[arg(long, value_enum)]
    kind: Option<AddressKindArg>,
    /// The epoch of the accounts. It increases by one with every restore of a backup.
    #[arg(long, default_value_t = 0)]
    epoch: u32,
}

impl AccountArgs {
    /// Returns the account that the options select. Its addresses have the kind `default_kind` if the operator gave no
    /// `--kind`.
    pub(crate) fn select_account(
        &self,
        chain: FamilyArg,
        purpose: AccountPurpose,
        default_kind: AddressKind,
    ) -> Result<KeyAccount, AccountError> {
        let account = KeyAccount::with_default_address_kind(chain.into(), self.network.into(), purpose, self.epoch)?;
        Ok(account.with_address_kind(self.kind.map_or(default_kind, AddressKind::from)))
    }

    /// Returns one account for each kind of address of the chain family: two for Bitcoin, one for EVM and TRON. With
    /// `--kind`, returns only the account of this kind.
    pub(crate) fn list_accounts_of_selected_kinds(
        &self,
        chain: FamilyArg,
        purpose: AccountPurpose,
    ) -> Result<Vec<KeyAccount>, AccountError> {
        let kinds: &[AddressKind] = match chain {
            FamilyArg::Bitcoin if self.kind.is_none() => &[AddressKind::P2wpkh, AddressKind::P2tr],
            FamilyArg::Bitcoin | FamilyArg::Evm | FamilyArg::Tron => &[AddressKind::P2wpkh],
        };
        kinds.iter().map(|kind| self.select_account(chain, purpose, *kind)).collect()
    }
}

/// The values of `--chain`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FamilyArg {
    Bitcoin,
    Evm,
    Tron,
}

impl From<FamilyArg> for Family {
    fn from(chain: FamilyArg) -> Family {
        match chain {
            FamilyArg::Bitcoin => Family::Bitcoin,
            FamilyArg::Evm => Family::Evm,
            FamilyArg::Tron => Family::Tron,
        }
    }
}

/// The values of `--kind`.
#[derive(Clone, Copy, ValueEnum)]
enum AddressKindArg {
    P2wpkh,
    P2tr,
}

impl From<AddressKindArg> for AddressKind {
    fn from(kind: AddressKindArg) -> AddressKind {
        match kind {
            AddressKindArg::P2wpkh => AddressKind::P2wpkh,
            AddressKindArg::P2tr => AddressKind::P2tr,
        }
    }
}

/// The values of `--network`.
#[derive(Clone, Copy, ValueEnum)]
enum NetworkArg {
    Mainnet,
    Testnet,
    Regtest,
}

impl From<NetworkArg> for Network {
    fn from(network: NetworkArg) -> Network {
        match network {
            NetworkArg::Mainnet => Network::Bitcoin,
            NetworkArg::Testnet => Network::Testnet,
            NetworkArg::Regtest => Network::Regtest,
        }
    }
}

/// The value of `--index`: address indices below 2^31, at least one and at most [`ADDRESSES_MAX`].
#[derive(Clone)]
pub(crate) struct IndexRange(pub(crate) Range<u32>);

impl FromStr for IndexRange {
    type Err = String;

    fn from_str(text: &str) -> Result<IndexRange, String> {
        let parse_index = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is not an index"));
        let range = match text.split_once("..") {
            Some((from, to)) => parse_index(from)?..parse_index(to)?,
            None => {
                let index = parse_index(text)?;
                index..index.checked_add(1).ok_or("an index must be below 2^31")?
            }
        };
        match range.end.checked_sub(range.start) {
            Some(1..=ADDRESSES_MAX) if range.end <= 1 << 31 => Ok(IndexRange(range)),
            Some(_) | None => Err(format!("a range must contain 1 to {ADDRESSES_MAX} indices below 2^31")),
        }
    }
}
