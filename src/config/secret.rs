//! Options whose value is the path of a secret file.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Maximum size of a secret file, in bytes. A larger file is probably the wrong file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The prefix of a value that names a systemd credential. systemd provides such credentials by `LoadCredential=`.
const CREDENTIAL_PREFIX: &str = "credential:";

/// The value of an option that ends in `_file`: a path, `credential:NAME`, or empty when no file is configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct SecretFile(String);

/// The reason why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("{path}: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    /// The file is longer than 64 KiB.
    #[error("{0} is longer than {FILE_BYTES_MAX} bytes; check that it is the right file")]
    TooLong(PathBuf),
    /// The file is empty.
    #[error("{0} is empty")]
    Empty(PathBuf),
    /// The option names this systemd credential, but systemd set no `CREDENTIALS_DIRECTORY`, the folder of credentials.
    #[error("$CREDENTIALS_DIRECTORY is not set; add `LoadCredential={0}:PATH` to the unit for `credential:{0}`")]
    NoCredentials(String),
}

impl SecretFile {
    /// Returns true when the option is empty, so that there is no file.
    pub fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the content of the file without trailing line breaks; `None` when no file is configured.
    ///
    /// # Errors
    /// Fails when the file cannot be read, is empty or too long.
    pub fn read_secret(&self) -> Result<Option<SecretString>, SecretError> {
        let Some(path) = self.resolve_path()? else { return Ok(None) };
        let unreadable = |error| SecretError::Unreadable { path: path.clone(), error };
        if std::fs::metadata(&path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(SecretError::TooLong(path));
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(unreadable)?);
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretError::Empty(path));
        }
        Ok(Some(SecretString::from(secret)))
    }

    /// Puts `folder` before a relative path. A `credential:` value and an unset option are not changed.
    pub(super) fn make_path_absolute(&mut self, folder: &Path) {
        if !self.is_unset() && !self.0.starts_with(CREDENTIAL_PREFIX) {
            self.0 = folder.join(&self.0).display().to_string();
        }
    }

    /// Returns the path of the file, for callers that read the file repeatedly; `None` when no file is configured.
    ///
    /// # Errors
    /// Fails when the value is a `credential:` and systemd set no `CREDENTIALS_DIRECTORY`.
    pub fn resolve_path(&self) -> Result<Option<PathBuf>, SecretError> {
        if self.is_unset() {
            return Ok(None);
        }
        let Some(name) = self.0.strip_prefix(CREDENTIAL_PREFIX) else { return Ok(Some(PathBuf::from(&self.0))) };
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
        let folder = folder.ok_or_else(|| SecretError::NoCredentials(name.to_owned()))?;
        Ok(Some(Path::new(&folder).join(name)))
    }
}
