//! The passphrase of a seed file, which comes from a file, from a systemd credential or from the terminal.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    secret_input,
    seed::Seed,
    seed_file::{KdfCost, SeedFile},
};

/// The minimum length of a new passphrase, in characters.
const PASSPHRASE_MIN: usize = 8;

/// The name of the passphrase among the credentials that systemd passes to a unit.
const CREDENTIAL: &str = "seed-passphrase";

/// The options that decide how a new seed file is encrypted.
#[derive(Args)]
pub(crate) struct EncryptionArgs {
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

/// The option with which the operator names a file that contains the passphrase of a seed file.
#[derive(Args)]
pub(crate) struct PassphraseArgs {
    /// Read the passphrase of the seed file from this file. Without this option, the program uses the systemd
    /// credential `seed-passphrase` if there is one, and asks for the passphrase otherwise.
    #[arg(long, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
}

impl EncryptionArgs {
    /// Writes the seed to a new file that is encrypted with a passphrase. Uses the stored passphrase if there is one;
    /// otherwise asks the operator for a new one. Fails if the passphrase has fewer than eight characters or if the
    /// file exists.
    pub(crate) fn obtain_passphrase_and_create_file(&self, file: &Path, seed: &Seed) -> anyhow::Result<()> {
        let cost = KdfCost::new_if_in_range(self.kdf_memory_mib * 1024, self.kdf_passes, self.kdf_lanes)?;
        let passphrase = match self.passphrase.read_stored_passphrase()? {
            Some(passphrase) => passphrase,
            None => secret_input::prompt_for_new_secret("New passphrase of the seed file")?,
        };
        let length = passphrase.expose_secret().chars().count();
        ensure!(length >= PASSPHRASE_MIN, "the passphrase is too short; use at least {PASSPHRASE_MIN} characters");
        SeedFile::create_encrypted(file, seed, &passphrase, cost).with_context(|| file.display().to_string())
    }
}

impl PassphraseArgs {
    /// Reads a seed file and decrypts its seed. Uses the stored passphrase if there is one; otherwise asks the
    /// operator.
    pub(crate) fn obtain_passphrase_and_open_file(&self, file: &Path) -> anyhow::Result<Seed> {
        // The file is read before the passphrase is asked for, because no passphrase can open a damaged file.
        let seed_file = SeedFile::read_and_verify_checksum(file).with_context(|| file.display().to_string())?;
        let passphrase = match self.read_stored_passphrase()? {
            Some(passphrase) => passphrase,
            None => secret_input::prompt_for_secret("Passphrase of the seed file")?,
        };
        seed_file.decrypt_seed(&passphrase).with_context(|| file.display().to_string())
    }

    /// Reads the passphrase from the file that the operator gave, or from the systemd credential `seed-passphrase`.
    /// Returns `None` when there is neither, so that the operator must type the passphrase.
    fn read_stored_passphrase(&self) -> anyhow::Result<Option<SecretString>> {
        if let Some(path) = &self.passphrase_file {
            return secret_input::read_secret_file_unless_public(path).map(Some);
        }
        let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let path = Path::new(&folder).join(CREDENTIAL);
        if path.try_exists()? { secret_input::read_secret_file_unless_public(&path).map(Some) } else { Ok(None) }
    }
}
