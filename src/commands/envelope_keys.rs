//! Loads the envelope keys, which encrypt goods, and explains to the operator how to restore missing keys.

use std::io::ErrorKind;
use std::path::Path;

use crate::commands::command_error::CommandError;
use envelope::{Envelope, KeysError};

/// Loads the envelope keys. Fails when they are missing, because the database may already contain goods that need them.
pub fn load_existing_envelope_keys(folder: &Path) -> Result<Envelope, CommandError> {
    Envelope::load_credential_or_key_file(folder).map_err(|e| {
        let advice = match &e {
            KeysError::Io { error, .. } if error.kind() == ErrorKind::NotFound => NO_KEYS,
            KeysError::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
                ". Run this as the daemon's user, or as root"
            }
            KeysError::Malformed { .. } => ". Goods in the database can be decrypted only with them: restore the file",
            KeysError::Io { .. }
            | KeysError::Exists(_)
            | KeysError::ReadableByOthers { .. }
            | KeysError::Full(_)
            | KeysError::Credential(_) => "",
        };
        CommandError::general_error(format!("envelope keys: {e}{advice}"))
    })
}

const NO_KEYS: &str = "\
. Goods in the database can be decrypted only with them. If the unit passes them by LoadCredential, only the daemon can \
read them: start the daemon, or run the command with `systemd-run --pipe --wait -p User=settled -p \
LoadCredential=envelope.keys:FILE settled …`. If they are lost, restore the file";
