//! The seed of the demo and the account keys derived from it. The passphrase of the seed is stored beside it, because
//! the coins of the demo have no value.

use std::path::Path;

use bitcoin::Network;
use chain::Family;
use secrecy::SecretString;
use signer::accounts::{AccountPurpose, KeyAccount};
use signer::seed::Seed;
use signer::seed_file::{KdfCost, SeedFile};

use crate::commands::command_error::CommandError;
use crate::commands::private_files::write_private_file;

const SEED: &str = "seed";
const PASSPHRASE: &str = "seed.passphrase";
/// The memory cost of the key derivation, in KiB. It is low, so that the demo starts quickly.
const KDF_MEMORY_KIB: u32 = 1024;

/// Decrypts the seed of the demo and returns it; `None` when the demo was never started in this folder.
pub fn open_demo_seed_if_exists(folder: &Path) -> Result<Option<Seed>, CommandError> {
    let file = folder.join(SEED);
    if !file.exists() {
        return Ok(None);
    }
    let passphrase = std::fs::read_to_string(folder.join(PASSPHRASE))
        .map_err(|e| CommandError::error_with_context(folder.join(PASSPHRASE).display(), e))?;
    let seed = SeedFile::open_and_decrypt(&file, &SecretString::from(passphrase.trim_end()));
    seed.map(Some).map_err(|e| CommandError::error_with_context(file.display(), e))
}

/// Returns the seed of the demo. Creates the seed and its passphrase file when the demo has no seed yet.
pub fn open_or_create_demo_seed(folder: &Path) -> Result<Seed, CommandError> {
    if let Some(seed) = open_demo_seed_if_exists(folder)? {
        return Ok(seed);
    }
    let failed =
        |what: &str, e: &dyn std::fmt::Display| CommandError::error_with_context(folder.join(what).display(), e);
    let passphrase = "worthless";
    write_private_file(&folder.join(PASSPHRASE), passphrase)?;
    let seed = Seed::generate().map_err(|e| failed(SEED, &e))?;
    let cost = KdfCost::new_if_in_range(KDF_MEMORY_KIB, 1, 1).map_err(|e| failed(SEED, &e))?;
    let created = SeedFile::create_encrypted(&folder.join(SEED), &seed, &SecretString::from(passphrase), cost);
    created.map_err(|e| failed(SEED, &e))?;
    Ok(seed)
}

/// Derives the test account keys of Bitcoin, EVM and TRON from the seed, and returns them as `[[accounts]]` tables in
/// TOML.
pub fn derive_accounts_toml_from_seed(seed: &Seed) -> Result<String, CommandError> {
    let mut text = String::new();
    for (family, name) in [(Family::Bitcoin, "bitcoin"), (Family::Evm, "evm"), (Family::Tron, "tron")] {
        let account = KeyAccount::with_default_address_kind(family, Network::Bitcoin, AccountPurpose::TestDeposit, 0);
        let account = account.map_err(|e| CommandError::general_error(e.to_string()))?;
        let (path, xpub) = (account.derivation_path(), account.derive_xpub(seed));
        text.push_str(&format!(
            "[[accounts]]\nchain-family = \"{name}\"\npurpose = \"deposit-test\"\npath = \"{path}\"\nxpub = \"{xpub}\"\n\n"
        ));
    }
    Ok(text)
}
