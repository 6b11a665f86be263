//! `settled-signer keys`: creates and imports seeds, prints their public account keys, and checks derived addresses.

use std::{io::Write, path::Path, process::ExitCode};

use anyhow::{bail, ensure};
use chain::{Deriver, Family};
use clap::ValueEnum;
use rustix::termios::isatty;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    accounts::{AddressKind, KeyAccount},
    keys_args::{CheckArgs, Command, CreateArgs, DeriveArgs, FamilyArg, ImportArgs, XpubsArgs},
    secret_input,
    seed::Seed,
    seed_file::OpenError,
};

/// The end of the command-line help: the exit codes, and a note on secrets.
pub const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure; 2 wrong usage; 3 wrong passphrase; 4 the file is damaged or is not a seed file; \
5 the key or the address does not belong to this seed.

Secrets are never read from arguments or environment variables.";

/// The error when a key or an address that the operator gave differs from the derived one.
#[derive(Debug, thiserror::Error)]
#[error("{item} is {derived}, not {given}")]
struct KeyMismatch {
    /// The name of the derived key or address, with its path.
    item: String,
    /// The derived key or address.
    derived: String,
    /// The key or address that the operator gave.
    given: String,
}

/// Runs one subcommand of `settled-signer keys`. Results are written to `out`, prompts and warnings to standard error.
///
/// # Errors
///
/// Fails with an error from which [`exit_code_of_error`] makes the exit code.
pub fn run_keys_command(command: &Command, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Create(args) => create_seed_file_and_print_words(args, out),
        Command::Import(args) => import_words_to_seed_file(args, out),
        Command::Xpubs(args) => print_account_xpubs(args, out),
        Command::Derive(args) => print_derived_addresses(args, out),
        Command::Check(args) => check_keys_against_seed_file(args, out),
    }
}

/// Returns the exit code for an error of [`run_keys_command`]; [`EXIT_CODES`] explains the codes.
pub fn exit_code_of_error(error: &anyhow::Error) -> ExitCode {
    if error.is::<KeyMismatch>() {
        return ExitCode::from(5);
    }
    match error.downcast_ref() {
        Some(OpenError::WrongPassphrase) => ExitCode::from(3),
        Some(OpenError::NotASeedFile | OpenError::Version(_) | OpenError::Damaged(_)) => ExitCode::from(4),
        Some(OpenError::Kdf(_) | OpenError::Io(_)) | None => ExitCode::FAILURE,
    }
}

/// Creates a seed and writes it to a new encrypted file. Prints the words of the seed only if standard output is a
/// terminal or with `--show-mnemonic`.
fn create_seed_file_and_print_words(args: &CreateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    refuse_existing_file(&args.file)?;
    let seed = Seed::generate()?;
    args.encryption.obtain_passphrase_and_create_file(&args.file, &seed)?;
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

/// Asks for the words of a seed and writes the seed to a new file.
fn import_words_to_seed_file(args: &ImportArgs, out: &mut impl Write) -> anyhow::Result<()> {
    refuse_existing_file(&args.file)?;
    let words = secret_input::prompt_for_secret("Words of the seed")?;
    let passphrase = if args.ask_bip39_passphrase {
        secret_input::prompt_for_secret("BIP39 passphrase of the words")?
    } else {
        SecretString::default()
    };
    let seed = Seed::from_words(&words, passphrase)?;
    args.encryption.obtain_passphrase_and_create_file(&args.file, &seed)?;
    writeln!(out, "Seed {} was written to {}.", seed.fingerprint(), args.file.display())?;
    Ok(())
}

/// Opens the seed file and prints one `[[accounts]]` table with the xpub of each selected account.
fn print_account_xpubs(args: &XpubsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.passphrase.obtain_passphrase_and_open_file(&args.file)?;
    let chains = if args.chain.is_empty() { FamilyArg::value_variants() } else { &args.chain };
    writeln!(out, "# Account keys of seed {}. They reveal every address and cannot spend money.", seed.fingerprint())?;
    for &purpose in &args.purpose {
        for &chain in chains {
            for account in args.account.list_accounts_of_selected_kinds(chain, purpose)? {
                writeln!(out)?;
                write_account_toml(&seed, &account, out)?;
            }
        }
    }
    Ok(())
}

/// Writes the `[[accounts]]` table of an account for the configuration of settled. The values are not escaped, because
/// none contains a character that TOML requires to be escaped.
fn write_account_toml(seed: &Seed, account: &KeyAccount, out: &mut impl Write) -> std::io::Result<()> {
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
    writeln!(out, "xpub = \"{}\"", account.derive_xpub(seed))
}

/// Prints index, path and address for each selected index, separated by tabs.
fn print_derived_addresses(args: &DeriveArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.passphrase.obtain_passphrase_and_open_file(&args.file)?;
    let account = args.account.select_account(args.chain, args.purpose, AddressKind::P2wpkh)?;
    for index in args.index.0.clone() {
        writeln!(
            out,
            "{index}\t{}/0/{index}\t{}",
            account.derivation_path(),
            derive_address_and_verify_with_xpub(&seed, &account, index)?
        )?;
    }
    Ok(())
}

/// Opens a seed file, and compares the xpub and the address that the operator gave with the ones derived from the seed.
/// Fails at the first that differs. Without `--chain`, only opens the file.
fn check_keys_against_seed_file(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = args.passphrase.obtain_passphrase_and_open_file(&args.file)?;
    writeln!(out, "{} was opened: seed {}", args.file.display(), seed.fingerprint())?;
    let Some(chain) = args.chain else { return Ok(()) };
    if let Some(given) = &args.xpub {
        let accounts = args.account.list_accounts_of_selected_kinds(chain, args.purpose)?;
        let Some(account) = accounts.iter().find(|account| given.trim() == account.derive_xpub(&seed)) else {
            let join =
                |text: &dyn Fn(&KeyAccount) -> String| accounts.iter().map(text).collect::<Vec<_>>().join(" or ");
            let (item, derived) = (
                join(&|account| format!("xpub of {}", account.derivation_path())),
                join(&|account| account.derive_xpub(&seed)),
            );
            bail!(KeyMismatch { item, derived, given: given.clone() });
        };
        writeln!(out, "xpub of {} matches", account.derivation_path())?;
    }
    if let (Some(given), Some(index)) = (&args.address, args.index) {
        let account =
            args.account.select_account(chain, args.purpose, AddressKind::detect_taproot_or_assume_p2wpkh(given))?;
        let (item, derived) = (
            format!("address {}/0/{index}", account.derivation_path()),
            derive_address_and_verify_with_xpub(&seed, &account, index)?,
        );
        let same = match account.family() {
            // Hexadecimal and Bech32 addresses may be written in upper or lower case.
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

/// Returns the address at an index. Derives it from the private keys, and again from the xpub as the daemon does, and
/// fails if the two addresses differ.
fn derive_address_and_verify_with_xpub(seed: &Seed, account: &KeyAccount, index: u32) -> anyhow::Result<String> {
    let from_seed = account.derive_address(seed, index)?.text;
    let from_xpub =
        Deriver::from_account_key(&account.derive_xpub(seed), account.address_scheme())?.derive_address(index)?.text;
    if from_seed != from_xpub {
        let item = format!("address {}/0/{index}", account.derivation_path());
        bail!(KeyMismatch { item, derived: from_seed, given: from_xpub });
    }
    Ok(from_seed)
}

/// Fails if the file exists. This is checked first, so that the operator types no passphrase for a file that cannot be
/// written.
fn refuse_existing_file(file: &Path) -> anyhow::Result<()> {
    ensure!(
        !file.try_exists()?,
        "{}: the file exists already, and a seed file is never overwritten; choose another name",
        file.display()
    );
    Ok(())
}
