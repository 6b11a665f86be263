//! Secrets are named by the file that holds them.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

/// Longest secret in bytes; more is another file named by mistake.
const LENGTH_MAX: u64 = 64 * 1024;

/// Begins the name of something that systemd passed by `LoadCredential=`.
const CREDENTIAL: &str = "credential:";

/// A path, `credential:NAME`, or empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct SecretFile(String);

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{path}: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{0} is longer than {LENGTH_MAX} bytes: is it the right file?")]
    TooLong(PathBuf),
    #[error("{0} is empty")]
    Empty(PathBuf),
    #[error("`credential:{0}` needs `LoadCredential={0}:PATH` in the unit: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
}

impl SecretFile {
    pub fn at(path: &Path) -> SecretFile {
        SecretFile(path.display().to_string())
    }

    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Its content without the line's end; `None` when no file is named.
    pub fn read(&self) -> Result<Option<SecretString>, SecretError> {
        let Some(path) = self.path()? else { return Ok(None) };
        let unreadable = |error| SecretError::Unreadable { path: path.clone(), error };
        if std::fs::metadata(&path).map_err(unreadable)?.len() > LENGTH_MAX {
            return Err(SecretError::TooLong(path));
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(unreadable)?);
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretError::Empty(path));
        }
        Ok(Some(SecretString::from(secret)))
    }

    pub(super) fn begin_at(&mut self, folder: &Path) {
        if !self.is_none() && !self.0.starts_with(CREDENTIAL) {
            self.0 = folder.join(&self.0).display().to_string();
        }
    }

    /// Returns the path of the file, for a caller that reads it again whenever it changes; `None` when no file is named.
    ///
    /// # Errors
    /// Fails when the value is a `credential:` and systemd set no `CREDENTIALS_DIRECTORY`.
    pub fn path(&self) -> Result<Option<PathBuf>, SecretError> {
        if self.is_none() {
            return Ok(None);
        }
        let Some(name) = self.0.strip_prefix(CREDENTIAL) else { return Ok(Some(PathBuf::from(&self.0))) };
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
        let folder = folder.ok_or_else(|| SecretError::NoCredentials(name.to_owned()))?;
        Ok(Some(Path::new(&folder).join(name)))
    }
}
