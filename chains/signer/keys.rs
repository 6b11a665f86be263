//! `settled-signer keys`: creates and imports seeds, prints their public account keys, and checks derived addresses.

use std::{
    env,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context, bail, ensure};
use bitcoin::Network;
use chain::{Deriver, Family};
use clap::{Args, Subcommand, ValueEnum};
use rustix::termios::isatty;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    accounts::{self, KeyAccount, Purpose},
    seed::Seed,
    seed_file::{KdfCost, OpenError, SeedFile},
    terminal,
};

/// The end of the command-line help: the exit codes, and where secrets come from.
pub const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure; 2 wrong usage; 3 wrong passphrase; 4 the file is damaged or is not a seed file; \
5 the key or the address does not belong to this seed.

Secrets are never read from arguments or environment variables.";

/// The minimum length of a new passphrase, in characters.
const PASSPHRASE_MIN: usize = 8;

/// The name of the passphrase among the credentials that systemd passes to a unit.
const CREDENTIAL: &str = "seed-passphrase";

/// The maximum number of addresses that one call derives.
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
    file: PathBuf,
    /// Print the words even if standard output is not a terminal.
    #[arg(long)]
    show_mnemonic: bool,
    #[command(flatten)]
    encryption: EncryptionArgs,
}

/// The arguments of `keys import`.
#[derive(Args)]
pub struct ImportArgs {
    /// The seed file to create. An existing file is never overwritten.
    file: PathBuf,
    /// Also ask for the BIP39 passphrase of the words (the "25th word"). The seed file stores it with the words.
    #[arg(long)]
    ask_bip39_passphrase: bool,
    #[command(flatten)]
    encryption: EncryptionArgs,
}

/// The arguments of `keys xpubs`.
#[derive(Args)]
pub struct XpubsArgs {
    /// The seed file.
    file: PathBuf,
    /// The chain families to print; without this option, all of them. Bitcoin has one account per kind of address.
    /// settled uses the one that fits a chain's `address_kind`, so the configuration may contain both.
    #[arg(long, value_enum)]
    chain: Vec<FamilyArg>,
    /// The purpose of the accounts: deposit, deposit-test or hot-N. Can be repeated.
    #[arg(long, default_value = "deposit")]
    purpose: Vec<Purpose>,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// The arguments of `keys derive`.
#[derive(Args)]
pub struct DeriveArgs {
    /// The seed file.
    file: PathBuf,
    /// The chain family of the account.
    #[arg(long, value_enum)]
    chain: FamilyArg,
    /// The purpose of the account: deposit, deposit-test or hot-N.
    #[arg(long, default_value = "deposit")]
    purpose: Purpose,
    /// One index, or a range without its end: 0..5 stands for the indices 0 to 4.
    #[arg(long)]
    index: IndexRange,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// The arguments of `keys check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The seed file.
    file: PathBuf,
    /// Compare the account's xpub with this one.
    #[arg(long, requires = "chain")]
    xpub: Option<String>,
    /// Compare the address at --index with this one.
    #[arg(long, requires_all = ["chain", "index"])]
    address: Option<String>,
    /// The index of the address, below 2^31.
    #[arg(long, requires = "address")]
    index: Option<u32>,
    /// The chain family of the account.
    #[arg(long, value_enum)]
    chain: Option<FamilyArg>,
    /// The purpose of the account: deposit, deposit-test or hot-N.
    #[arg(long, default_value = "deposit")]
    purpose: Purpose,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// The encryption of a new seed file.
#[derive(Args)]
struct EncryptionArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Memory that Argon2id uses, in MiB.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(19..=4096))]
    kdf_memory_mib: u32,
    /// Number of passes of Argon2id.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    kdf_passes: u32,
    /// Number of lanes (threads) of Argon2id.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    kdf_lanes: u32,
}

/// The source of the seed file's passphrase.
#[derive(Args)]
struct PassphraseArgs {
    /// Read the passphrase of the seed file from this file. Without this option, the program uses the systemd
    /// credential `seed-passphrase` if there is one, and asks for the passphrase otherwise.
    #[arg(long, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
}

/// The options that select one account among those with the same family and purpose.
#[derive(Args)]
struct AccountArgs {
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

#[derive(Clone, Copy, ValueEnum)]
enum FamilyArg {
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AddressKindArg {
    P2wpkh,
    P2tr,
}

impl From<AddressKindArg> for accounts::AddressKind {
    fn from(kind: AddressKindArg) -> accounts::AddressKind {
        match kind {
            AddressKindArg::P2wpkh => accounts::AddressKind::P2wpkh,
            AddressKindArg::P2tr => accounts::AddressKind::P2tr,
        }
    }
}

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

#[derive(Clone)]
struct IndexRange(Range<u32>);

impl FromStr for IndexRange {
    type Err = String;

    fn from_str(text: &str) -> Result<IndexRange, String> {
        let parse = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is not an index"));
        let range = match text.split_once("..") {
            Some((from, to)) => parse(from)?..parse(to)?,
            None => {
                let index = parse(text)?;
                index..index.checked_add(1).ok_or("an index must be below 2^31")?
            }
        };
        match range.end.checked_sub(range.start) {
            Some(1..=ADDRESSES_MAX) if range.end <= 1 << 31 => Ok(IndexRange(range)),
            Some(_) | None => Err(format!("a range must contain 1 to {ADDRESSES_MAX} indices below 2^31")),
        }
    }
}

/// The key or address that the operator gave differs from the derived key or address.
#[derive(Debug, thiserror::Error)]
#[error("{item} is {derived}, not {given}")]
struct KeyMismatch {
    /// The path of the key or the address.
    item: String,
    derived: String,
    given: String,
}

/// Runs one command. Results go to `out`, prompts and warnings to standard error.
///
/// # Errors
///
/// Fails with an error that [`exit_code`] translates.
pub fn run_keys_command(command: &Command, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create_seed(args, out),
        Command::Import(args) => import_seed(args, out),
        Command::Xpubs(args) => print_xpubs(args, out),
        Command::Derive(args) => print_addresses(args, out),
        Command::Check(args) => check_keys(args, out),
    }
}

/// Returns the exit code of an error of [`run_keys_command`], as [`EXIT_CODES`] lists them.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<KeyMismatch>() {
        return ExitCode::from(5);
    }
    match error.downcast_ref() {
        Some(OpenError::WrongPassphrase) => ExitCode::from(3),
        Some(OpenError::NotASeedFile | OpenError::Version(_) | OpenError::Damaged(_)) => ExitCode::from(4),
        Some(OpenError::Kdf(_) | OpenError::Io(_)) | None => ExitCode::FAILURE,
    }
}

fn create_seed(args: &CreateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    reject_existing_file(&args.file)?;
    let seed = Seed::generate()?;
    args.encryption.write_seed_file(&args.file, &seed)?;
    if args.show_mnemonic || isatty(std::io::stdout()) {
        eprintln!(
            "\nThese 24 words are the seed. Write them on paper now: they are shown only once. Everyone who knows them can \
             spend all the money. Without them, the money is lost if the file or its passphrase is lost.\n"
        );
        writeln!(out, "{}", seed.words().expose_secret())?;
        out.flush()?;
    } else {
        eprintln!(
            "The words were not shown, because standard output is not a terminal and --show-mnemonic was not given. Back up \
             {} and its passphrase: without them the money is lost.",
            args.file.display()
        );
    }
    eprintln!("\nSeed {} was written to {}.", seed.fingerprint(), args.file.display());
    Ok(())
}

fn import_seed(args: &ImportArgs, out: &mut impl Write) -> anyhow::Result<()> {
    reject_existing_file(&args.file)?;
    let words = terminal::read_secret("Words of the seed")?;
    let passphrase = if args.ask_bip39_passphrase {
        terminal::read_secret("BIP39 passphrase of the words")?
    } else {
        SecretString::default()
    };
    let seed = Seed::from_words(&words, passphrase)?;
    args.encryption.write_seed_file(&args.file, &seed)?;
    writeln!(out, "Seed {} was written to {}.", seed.fingerprint(), args.file.display())?;
    Ok(())
}

fn print_xpubs(args: &XpubsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.passphrase.open_seed_file(&args.file)?;
    let chains = if args.chain.is_empty() { FamilyArg::value_variants() } else { &args.chain };
    writeln!(out, "# Account keys of seed {}. They reveal every address and cannot spend money.", seed.fingerprint())?;
    for &purpose in &args.purpose {
        for &chain in chains {
            for account in args.account.select_accounts(chain, purpose)? {
                writeln!(out)?;
                write_account(&seed, &account, out)?;
            }
        }
    }
    Ok(())
}

/// Writes one `[[accounts]]` table for the configuration of settled. No value contains a character that TOML must
/// escape.
fn write_account(seed: &Seed, account: &KeyAccount, out: &mut impl Write) -> std::io::Result<()> {
    let family = match account.family() {
        Family::Bitcoin => "bitcoin",
        Family::Evm => "evm",
        Family::Tron => "tron",
    };
    writeln!(out, "[[accounts]]")?;
    writeln!(out, "chain-family = \"{family}\"")?;
    writeln!(out, "purpose = \"{}\"", account.purpose())?;
    writeln!(out, "epoch = {}", account.epoch())?;
    writeln!(out, "path = \"{}\"", account.derivation_path())?;
    writeln!(out, "xpub = \"{}\"", seed.derive_account_xpub(account))
}

fn print_addresses(args: &DeriveArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.passphrase.open_seed_file(&args.file)?;
    let account = args.account.select_account(args.chain, args.purpose, AddressKindArg::P2wpkh)?;
    for index in args.index.0.clone() {
        writeln!(out, "{index}\t{}/0/{index}\t{}", account.derivation_path(), derive_address(&seed, &account, index)?)?;
    }
    Ok(())
}

fn check_keys(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.passphrase.open_seed_file(&args.file)?;
    writeln!(out, "{} was opened: seed {}", args.file.display(), seed.fingerprint())?;
    let Some(chain) = args.chain else { return Ok(()) };
    if let Some(given) = &args.xpub {
        let accounts = args.account.select_accounts(chain, args.purpose)?;
        let Some(account) = accounts.iter().find(|account| given.trim() == seed.derive_account_xpub(account)) else {
            let join =
                |text: &dyn Fn(&KeyAccount) -> String| accounts.iter().map(text).collect::<Vec<_>>().join(" or ");
            let (item, derived) = (
                join(&|account| format!("xpub of {}", account.derivation_path())),
                join(&|account| seed.derive_account_xpub(account)),
            );
            bail!(KeyMismatch { item, derived, given: given.clone() });
        };
        writeln!(out, "xpub of {} matches", account.derivation_path())?;
    }
    if let (Some(given), Some(index)) = (&args.address, args.index) {
        let account = args.account.select_account(chain, args.purpose, detect_address_kind(given))?;
        let (item, derived) =
            (format!("address {}/0/{index}", account.derivation_path()), derive_address(&seed, &account, index)?);
        let same = match account.family() {
            // Hexadecimal and Bech32 texts may be in upper or lower case.
            Family::Bitcoin | Family::Evm => given.trim().eq_ignore_ascii_case(&derived),
            Family::Tron => given.trim() == derived,
        };
        if !same {
            bail!(KeyMismatch { item, derived, given: given.clone() });
        }
        writeln!(out, "{item} matches")?;
    }
    Ok(())
}

/// Returns P2TR for a Taproot address and P2WPKH for any other text.
fn detect_address_kind(address: &str) -> AddressKindArg {
    let address = address.trim().to_ascii_lowercase();
    if ["bc1p", "tb1p", "bcrt1p"].iter().any(|prefix| address.starts_with(prefix)) {
        AddressKindArg::P2tr
    } else {
        AddressKindArg::P2wpkh
    }
}

/// Returns the address at an index. It is derived twice, from the private keys and from the xpub as the daemon does;
/// the function fails if the results differ.
fn derive_address(seed: &Seed, account: &KeyAccount, index: u32) -> anyhow::Result<String> {
    let from_seed = seed.derive_address(account, index)?.text;
    let from_xpub =
        Deriver::new(&seed.derive_account_xpub(account), account.address_scheme())?.derive_address(index)?.text;
    if from_seed != from_xpub {
        let item = format!("address {}/0/{index}", account.derivation_path());
        bail!(KeyMismatch { item, derived: from_seed, given: from_xpub });
    }
    Ok(from_seed)
}

fn reject_existing_file(file: &Path) -> anyhow::Result<()> {
    ensure!(
        !file.try_exists()?,
        "{}: the file exists already, and a seed file is never overwritten; choose another name",
        file.display()
    );
    Ok(())
}

impl EncryptionArgs {
    fn write_seed_file(&self, file: &Path, seed: &Seed) -> anyhow::Result<()> {
        let cost = KdfCost::new(self.kdf_memory_mib * 1024, self.kdf_passes, self.kdf_lanes)?;
        let passphrase = match self.passphrase.read_stored_passphrase()? {
            Some(passphrase) => passphrase,
            None => terminal::read_new_secret("New passphrase of the seed file")?,
        };
        let length = passphrase.expose_secret().chars().count();
        ensure!(length >= PASSPHRASE_MIN, "the passphrase is too short; use at least {PASSPHRASE_MIN} characters");
        SeedFile::create_encrypted(file, seed, &passphrase, cost).with_context(|| file.display().to_string())
    }
}

impl PassphraseArgs {
    fn open_seed_file(&self, file: &Path) -> anyhow::Result<Seed> {
        // Read the file before asking for the passphrase: a damaged file cannot be opened with any passphrase.
        let seed_file = SeedFile::read_seed_file(file).with_context(|| file.display().to_string())?;
        let passphrase = match self.read_stored_passphrase()? {
            Some(passphrase) => passphrase,
            None => terminal::read_secret("Passphrase of the seed file")?,
        };
        seed_file.decrypt_seed(&passphrase).with_context(|| file.display().to_string())
    }

    /// Returns the passphrase from the file or from the systemd credential, or `None` when the operator must type it.
    fn read_stored_passphrase(&self) -> anyhow::Result<Option<SecretString>> {
        if let Some(path) = &self.passphrase_file {
            return terminal::read_secret_file(path).map(Some);
        }
        let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let path = Path::new(&folder).join(CREDENTIAL);
        if path.try_exists()? { terminal::read_secret_file(&path).map(Some) } else { Ok(None) }
    }
}

impl AccountArgs {
    /// Returns the selected account. `kind` applies when the operator gave no `--kind`.
    fn select_account(&self, chain: FamilyArg, purpose: Purpose, kind: AddressKindArg) -> anyhow::Result<KeyAccount> {
        let account = KeyAccount::new(chain.into(), self.network.into(), purpose, self.epoch)?;
        Ok(account.with_address_kind(self.kind.unwrap_or(kind).into()))
    }

    /// Returns one account for each address kind of the family, or only that of the `--kind` that the operator gave.
    fn select_accounts(&self, chain: FamilyArg, purpose: Purpose) -> anyhow::Result<Vec<KeyAccount>> {
        let kinds = match chain {
            FamilyArg::Bitcoin if self.kind.is_none() => AddressKindArg::value_variants(),
            FamilyArg::Bitcoin | FamilyArg::Evm | FamilyArg::Tron => &[AddressKindArg::P2wpkh],
        };
        kinds.iter().map(|kind| self.select_account(chain, purpose, *kind)).collect()
    }
}
