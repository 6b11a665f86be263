//! `settled-signer keys`: make a seed, show its public account keys, and check what they derive.

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

pub const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 something failed; 2 wrong usage; 3 wrong passphrase; 4 the seed file is damaged or no seed file; \
5 a key or an address is not of this seed.

Secrets are never taken from arguments or from the environment.";

/// Fewest characters of a new passphrase: Argon2id makes a guess slow, not a short passphrase long.
const PASSPHRASE_MIN: usize = 8;

/// Name of the passphrase among the credentials that systemd hands to a unit.
const CREDENTIAL: &str = "seed-passphrase";

/// Most addresses that one call derives.
const ADDRESSES_MAX: u32 = 10_000;

#[derive(Subcommand)]
pub enum Command {
    /// Make a new seed of 24 words and write it, encrypted, to a new file.
    Create(CreateArgs),
    /// Take the words of an existing seed and write it, encrypted, to a new file.
    ///
    /// The words are asked for on the terminal. When standard input is no terminal, its lines are: the words; the BIP39
    /// passphrase, if asked for; the passphrase of the file, if there is no --passphrase-file.
    Import(ImportArgs),
    /// Print account xpubs as TOML for the configuration of settled.
    ///
    /// An xpub can spend nothing, but whoever has it sees every address of the account.
    Xpubs(XpubsArgs),
    /// Print addresses: index, path and address, separated by tabs.
    Derive(DeriveArgs),
    /// Open a seed file, derive again, and compare with an xpub or an address.
    Check(CheckArgs),
}

#[derive(Args)]
pub struct CreateArgs {
    /// The seed file to make; an existing file is never overwritten.
    file: PathBuf,
    /// Print the words even though standard output is no terminal.
    #[arg(long)]
    show_mnemonic: bool,
    #[command(flatten)]
    lock: EncryptionArgs,
}

#[derive(Args)]
pub struct ImportArgs {
    /// The seed file to make; an existing file is never overwritten.
    file: PathBuf,
    /// Also ask for the BIP39 passphrase of the words (the "25th word"); the seed file keeps it with them.
    #[arg(long)]
    ask_bip39_passphrase: bool,
    #[command(flatten)]
    lock: EncryptionArgs,
}

#[derive(Args)]
pub struct XpubsArgs {
    /// The seed file.
    file: PathBuf,
    /// Families to print; all of them if none is named. Bitcoin has an account for each kind of its addresses: settled takes
    /// the one that fits a chain's `address_kind`, so both may be pasted.
    #[arg(long, value_enum)]
    chain: Vec<FamilyArg>,
    /// What the accounts are for: deposit, deposit-test or hot-N. Can be repeated.
    #[arg(long, default_value = "deposit")]
    purpose: Vec<Purpose>,
    #[command(flatten)]
    place: AccountArgs,
    #[command(flatten)]
    unlock: PassphraseArgs,
}

#[derive(Args)]
pub struct DeriveArgs {
    /// The seed file.
    file: PathBuf,
    /// Family of the account.
    #[arg(long, value_enum)]
    chain: FamilyArg,
    /// What the account is for: deposit, deposit-test or hot-N.
    #[arg(long, default_value = "deposit")]
    purpose: Purpose,
    /// One index, or a range whose end is not included, such as 0..5.
    #[arg(long)]
    index: IndexRange,
    #[command(flatten)]
    place: AccountArgs,
    #[command(flatten)]
    unlock: PassphraseArgs,
}

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
    /// Index of the address, below 2^31.
    #[arg(long, requires = "address")]
    index: Option<u32>,
    /// Family of the account.
    #[arg(long, value_enum)]
    chain: Option<FamilyArg>,
    /// What the account is for: deposit, deposit-test or hot-N.
    #[arg(long, default_value = "deposit")]
    purpose: Purpose,
    #[command(flatten)]
    place: AccountArgs,
    #[command(flatten)]
    unlock: PassphraseArgs,
}

/// How a new seed file is encrypted.
#[derive(Args)]
struct EncryptionArgs {
    #[command(flatten)]
    unlock: PassphraseArgs,
    /// Memory of Argon2id in MiB.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(19..=4096))]
    kdf_memory_mib: u32,
    /// Passes of Argon2id.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    kdf_passes: u32,
    /// Lanes of Argon2id.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    kdf_lanes: u32,
}

/// Where the passphrase of the file comes from.
#[derive(Args)]
struct PassphraseArgs {
    /// Read the passphrase of the seed file from this file. Otherwise it is the credential `seed-passphrase` that systemd
    /// gives to a unit, or else it is asked for.
    #[arg(long, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
}

/// Which of the accounts for one purpose.
#[derive(Args)]
struct AccountArgs {
    /// Network of the Bitcoin accounts.
    #[arg(long, value_enum, default_value = "mainnet")]
    network: NetworkArg,
    /// What addresses the Bitcoin accounts have: `p2wpkh` (bc1q…, below m/84') or `p2tr` (bc1p…, below m/86'). Without it,
    /// `xpubs` prints both, `derive` takes p2wpkh, and `check` looks at what it is to compare with.
    #[arg(long, value_enum)]
    kind: Option<AddressKindArg>,
    /// Epoch of the accounts; a restore bumps it.
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
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is not an index"));
        let range = match text.split_once("..") {
            Some((from, to)) => number(from)?..number(to)?,
            None => {
                let index = number(text)?;
                index..index.checked_add(1).ok_or("indices end below 2^31")?
            }
        };
        match range.end.checked_sub(range.start) {
            Some(1..=ADDRESSES_MAX) if range.end <= 1 << 31 => Ok(IndexRange(range)),
            Some(_) | None => Err(format!("a range has 1 to {ADDRESSES_MAX} indices below 2^31")),
        }
    }
}

/// A key or an address that this seed does not have.
#[derive(Debug, thiserror::Error)]
#[error("{what} is {ours}, not {theirs}")]
struct KeyMismatch {
    what: String,
    ours: String,
    theirs: String,
}

/// Runs one command; what it prints goes to `out`, what it asks and warns of to standard error.
pub fn run(command: &Command, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create(args, out),
        Command::Import(args) => import(args, out),
        Command::Xpubs(args) => xpubs(args, out),
        Command::Derive(args) => derive(args, out),
        Command::Check(args) => check(args, out),
    }
}

/// The exit code that [`EXIT_CODES`] promises for an error of [`run`].
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

fn create(args: &CreateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    refuse_existing(&args.file)?;
    let seed = Seed::generate()?;
    args.lock.write(&args.file, &seed)?;
    if args.show_mnemonic || isatty(std::io::stdout()) {
        eprintln!(
            "\nThese 24 words are the seed. Write them on paper now: they are shown this once. Whoever reads them can take \
             all the money; without them, a lost file or passphrase loses it.\n"
        );
        writeln!(out, "{}", seed.words().expose_secret())?;
        out.flush()?;
    } else {
        eprintln!(
            "The words were not shown, because standard output is no terminal and --show-mnemonic was not given: {} and its \
             passphrase are the only way to the money. Back up both.",
            args.file.display()
        );
    }
    eprintln!("\nSeed {} was written to {}.", seed.fingerprint(), args.file.display());
    Ok(())
}

fn import(args: &ImportArgs, out: &mut impl Write) -> anyhow::Result<()> {
    refuse_existing(&args.file)?;
    let words = terminal::read_secret("Words of the seed")?;
    let passphrase = if args.ask_bip39_passphrase {
        terminal::read_secret("BIP39 passphrase of the words")?
    } else {
        SecretString::default()
    };
    let seed = Seed::from_words(&words, passphrase)?;
    args.lock.write(&args.file, &seed)?;
    writeln!(out, "Seed {} was written to {}.", seed.fingerprint(), args.file.display())?;
    Ok(())
}

fn xpubs(args: &XpubsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.unlock.open(&args.file)?;
    let chains = if args.chain.is_empty() { FamilyArg::value_variants() } else { &args.chain };
    writeln!(out, "# Account keys of seed {}. They show every address and can spend nothing.", seed.fingerprint())?;
    for &purpose in &args.purpose {
        for &chain in chains {
            for account in args.place.accounts(chain, purpose)? {
                writeln!(out)?;
                write_account(&seed, &account, out)?;
            }
        }
    }
    Ok(())
}

/// One `[[accounts]]` table of settled's configuration. No value needs an escape.
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
    writeln!(out, "path = \"{}\"", account.path())?;
    writeln!(out, "xpub = \"{}\"", seed.account_xpub(account))
}

fn derive(args: &DeriveArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.unlock.open(&args.file)?;
    let account = args.place.account(args.chain, args.purpose, AddressKindArg::P2wpkh)?;
    for index in args.index.0.clone() {
        writeln!(out, "{index}\t{}/0/{index}\t{}", account.path(), address(&seed, &account, index)?)?;
    }
    Ok(())
}

fn check(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.unlock.open(&args.file)?;
    writeln!(out, "{} opens: seed {}", args.file.display(), seed.fingerprint())?;
    let Some(chain) = args.chain else { return Ok(()) };
    if let Some(theirs) = &args.xpub {
        let accounts = args.place.accounts(chain, args.purpose)?;
        let Some(account) = accounts.iter().find(|account| theirs.trim() == seed.account_xpub(account)) else {
            let or = |each: &dyn Fn(&KeyAccount) -> String| accounts.iter().map(each).collect::<Vec<_>>().join(" or ");
            let (what, ours) =
                (or(&|account| format!("xpub of {}", account.path())), or(&|account| seed.account_xpub(account)));
            bail!(KeyMismatch { what, ours, theirs: theirs.clone() });
        };
        writeln!(out, "xpub of {} agrees", account.path())?;
    }
    if let (Some(theirs), Some(index)) = (&args.address, args.index) {
        let account = args.place.account(chain, args.purpose, address_kind_of(theirs))?;
        let (what, ours) = (format!("address {}/0/{index}", account.path()), address(&seed, &account, index)?);
        let same = match account.family() {
            // Hex and Bech32 may be written in either case.
            Family::Bitcoin | Family::Evm => theirs.trim().eq_ignore_ascii_case(&ours),
            Family::Tron => theirs.trim() == ours,
        };
        if !same {
            bail!(KeyMismatch { what, ours, theirs: theirs.clone() });
        }
        writeln!(out, "{what} agrees")?;
    }
    Ok(())
}

/// By the version of its witness program; whatever is no Taproot address is compared with the usual kind.
fn address_kind_of(address: &str) -> AddressKindArg {
    let address = address.trim().to_ascii_lowercase();
    if ["bc1p", "tb1p", "bcrt1p"].iter().any(|begin| address.starts_with(begin)) {
        AddressKindArg::P2tr
    } else {
        AddressKindArg::P2wpkh
    }
}

/// The address at an index, derived twice: from private keys, and from the xpub as the daemon does it.
fn address(seed: &Seed, account: &KeyAccount, index: u32) -> anyhow::Result<String> {
    let ours = seed.address(account, index)?.text;
    let daemons = Deriver::new(&seed.account_xpub(account), account.scheme())?.derive_address(index)?.text;
    if ours != daemons {
        bail!(KeyMismatch { what: format!("address {}/0/{index}", account.path()), ours, theirs: daemons });
    }
    Ok(ours)
}

fn refuse_existing(file: &Path) -> anyhow::Result<()> {
    ensure!(!file.try_exists()?, "{}: it exists already, and a seed file is never overwritten", file.display());
    Ok(())
}

impl EncryptionArgs {
    fn write(&self, file: &Path, seed: &Seed) -> anyhow::Result<()> {
        let cost = KdfCost::new(self.kdf_memory_mib * 1024, self.kdf_passes, self.kdf_lanes)?;
        let passphrase = match self.unlock.stored()? {
            Some(passphrase) => passphrase,
            None => terminal::read_new_secret("New passphrase of the seed file")?,
        };
        let length = passphrase.expose_secret().chars().count();
        ensure!(length >= PASSPHRASE_MIN, "a passphrase has at least {PASSPHRASE_MIN} characters");
        SeedFile::create(file, seed, &passphrase, cost).with_context(|| file.display().to_string())
    }
}

impl PassphraseArgs {
    fn open(&self, file: &Path) -> anyhow::Result<Seed> {
        // A file that cannot be opened with any passphrase needs none to be typed.
        let sealed = SeedFile::read(file).with_context(|| file.display().to_string())?;
        let passphrase = match self.stored()? {
            Some(passphrase) => passphrase,
            None => terminal::read_secret("Passphrase of the seed file")?,
        };
        sealed.unseal(&passphrase).with_context(|| file.display().to_string())
    }

    fn stored(&self) -> anyhow::Result<Option<SecretString>> {
        if let Some(path) = &self.passphrase_file {
            return terminal::read_secret_file(path).map(Some);
        }
        let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let path = Path::new(&folder).join(CREDENTIAL);
        if path.try_exists()? { terminal::read_secret_file(&path).map(Some) } else { Ok(None) }
    }
}

impl AccountArgs {
    /// Of the kind that was named, or else of `kind`.
    fn account(&self, chain: FamilyArg, purpose: Purpose, kind: AddressKindArg) -> anyhow::Result<KeyAccount> {
        let account = KeyAccount::new(chain.into(), self.network.into(), purpose, self.epoch)?;
        Ok(account.with_address_kind(self.kind.unwrap_or(kind).into()))
    }

    /// One for each kind of addresses that the family has, unless one was named.
    fn accounts(&self, chain: FamilyArg, purpose: Purpose) -> anyhow::Result<Vec<KeyAccount>> {
        let kinds = match chain {
            FamilyArg::Bitcoin if self.kind.is_none() => AddressKindArg::value_variants(),
            FamilyArg::Bitcoin | FamilyArg::Evm | FamilyArg::Tron => &[AddressKindArg::P2wpkh],
        };
        kinds.iter().map(|kind| self.account(chain, purpose, *kind)).collect()
    }
}
