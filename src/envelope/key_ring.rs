//! The key ring and the key file, which only its owner may read. Each line of the file has a key id and a key of 64
//! hexadecimal digits.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use crate::{Envelope, KEY_LENGTH};

/// The name of the key file. The file is in the data folder, or in the folder in which systemd passes credentials.
pub const FILE_NAME: &str = "envelope.keys";

/// The maximum number of keys in one key ring. With one new key each week, a key ring is full after 19 years.
const KEYS_MAX: usize = 1_000;

/// The first line of the key file, which is a comment for people.
const FILE_COMMENT: &str =
    "# Encryption keys of settled. Without them undelivered stock is lost: keep a copy apart from the backups.\n";

/// The reason why the key file cannot be read, created or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file system returned an error.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    /// The key file that should be created exists already.
    #[error("{0} already exists and was not changed")]
    Exists(PathBuf),
    /// Other users may read the key file.
    #[error("{path} can be read by other users (mode {mode:o}); run `chmod 600 {path}`")]
    ReadableByOthers { path: PathBuf, mode: u32 },
    /// The line with this number, counted from 1, is not a key id with a key, or the whole file has no key.
    #[error("{path}, line {line}: {problem}")]
    Malformed { path: PathBuf, line: usize, problem: &'static str },
    /// The key file already has the maximum number of keys, or the largest possible key id.
    #[error("{0} already has the maximum of {KEYS_MAX} keys")]
    Full(PathBuf),
    /// The key file is a systemd credential, which this program cannot change.
    #[error("{0} is a systemd credential and cannot be changed here; add the key to its source")]
    Credential(PathBuf),
}

/// The key ring: the encryption keys with their ids, sorted by id in ascending order. It has at least one key.
pub struct KeyRing(Vec<(u32, Zeroizing<[u8; KEY_LENGTH]>)>);

impl Envelope {
    /// Reads the key file `$CREDENTIALS_DIRECTORY/envelope.keys` if systemd passes this file, and otherwise the key
    /// file in the data folder.
    ///
    /// # Errors
    /// Fails when the key file is missing or malformed, or when other users may read the key file in the data folder.
    pub fn load_credential_or_key_file(data_folder: &Path) -> Result<Envelope, KeysError> {
        let credential = find_credential_path().filter(|path| path.exists());
        let ring = match credential {
            Some(path) => KeyRing::read_key_file(&path)?,
            None => KeyRing::read_key_file_if_private(&data_folder.join(FILE_NAME))?,
        };
        Ok(Envelope::derive_from_ring(&ring))
    }

    /// Creates the key file in the data folder with one random key. An existing file is never overwritten, because
    /// everything that is encrypted with its keys would be lost.
    ///
    /// # Errors
    /// Fails when the key file exists or cannot be written.
    pub fn create_new_key_file(data_folder: &Path) -> Result<Envelope, KeysError> {
        let (ring, path) = (KeyRing::generate(), data_folder.join(FILE_NAME));
        ring.write_new_key_file(&path)?;
        Ok(Envelope::derive_from_ring(&ring))
    }

    /// Reads the key file, or creates the key file in the data folder when no key file exists. When systemd passes a
    /// key file, no file is created.
    ///
    /// # Errors
    /// Fails when [`Envelope::load_credential_or_key_file`] or [`Envelope::create_new_key_file`] fails.
    pub fn load_key_file_or_create_if_none(data_folder: &Path) -> Result<Envelope, KeysError> {
        match Envelope::load_credential_or_key_file(data_folder) {
            Err(KeysError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Envelope::create_new_key_file(data_folder)
            }
            found => found,
        }
    }
}

/// Adds a random key to the key file in the data folder and returns the id of the key. A running daemon uses the new
/// key only after a restart.
///
/// # Errors
/// Fails when the key file is missing, malformed or full, when other users may read it, when it is a systemd
/// credential, or when it cannot be replaced.
pub fn add_random_key_to_file(data_folder: &Path) -> Result<u32, KeysError> {
    if let Some(path) = find_credential_path().filter(|path| path.exists()) {
        return Err(KeysError::Credential(path));
    }
    let path = data_folder.join(FILE_NAME);
    let mut ring = KeyRing::read_key_file_if_private(&path)?;
    let id = ring.add_random_key_unless_full(&path)?;
    let new_path = data_folder.join(format!("{FILE_NAME}.new"));
    if let Err(error) = fs::remove_file(&new_path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(KeysError::Io { path: new_path, error });
    }
    ring.write_new_key_file(&new_path)?;
    let replaced = fs::rename(&new_path, &path).and_then(|()| sync_parent_folder(&path));
    replaced.map_err(|error| KeysError::Io { path, error })?;
    Ok(id)
}

impl KeyRing {
    /// Creates a key ring with one random key.
    pub fn generate() -> KeyRing {
        KeyRing(vec![(1, generate_random_key())])
    }

    /// Returns the keys with their ids, sorted by id in ascending order.
    pub fn keys(&self) -> &[(u32, Zeroizing<[u8; KEY_LENGTH]>)] {
        &self.0
    }

    /// Returns the oldest key, which has the smallest id.
    pub fn oldest_key(&self) -> &[u8; KEY_LENGTH] {
        &self.0.first().expect("a key ring is never empty").1
    }

    /// Adds a random key in memory and returns its id, the largest id plus one. Fails when the key ring is full; `path`
    /// is only named in this error.
    fn add_random_key_unless_full(&mut self, path: &Path) -> Result<u32, KeysError> {
        let newest = self.0.last().map_or(0, |(id, _)| *id);
        let id = newest.checked_add(1).filter(|_| self.0.len() < KEYS_MAX);
        let id = id.ok_or_else(|| KeysError::Full(path.to_owned()))?;
        self.0.push((id, generate_random_key()));
        Ok(id)
    }

    /// Reads a key file. Fails when other users may read the file.
    fn read_key_file_if_private(path: &Path) -> Result<KeyRing, KeysError> {
        let metadata = fs::metadata(path).map_err(|error| KeysError::Io { path: path.to_owned(), error })?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeysError::ReadableByOthers { path: path.to_owned(), mode });
        }
        KeyRing::read_key_file(path)
    }

    /// Reads a key file without checking its permissions.
    fn read_key_file(path: &Path) -> Result<KeyRing, KeysError> {
        let text = fs::read_to_string(path).map_err(|error| KeysError::Io { path: path.to_owned(), error })?;
        let text = Zeroizing::new(text);
        let malformed = |line, problem| KeysError::Malformed { path: path.to_owned(), line, problem };
        let mut keys: Vec<(u32, Zeroizing<[u8; KEY_LENGTH]>)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (id, key) =
                line.split_once(' ').ok_or_else(|| malformed(number, "the line is not an id, a space and a key"))?;
            let id: u32 = id.parse().map_err(|_| malformed(number, "the id is not a number"))?;
            if keys.last().is_some_and(|(previous, _)| id <= *previous) {
                return Err(malformed(number, "the id is not greater than the one before"));
            }
            let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
            const_hex::decode_to_slice(key.trim_end(), bytes.as_mut_slice())
                .map_err(|_| malformed(number, "the key is not 64 hexadecimal digits"))?;
            keys.push((id, bytes));
        }
        if keys.is_empty() { Err(malformed(1, "the file has no key")) } else { Ok(KeyRing(keys)) }
    }

    /// Writes the keys to a new file that only its owner may read, and flushes the file and its folder to disk. Fails
    /// when the file exists.
    fn write_new_key_file(&self, path: &Path) -> Result<(), KeysError> {
        let mut text = Zeroizing::new(String::from(FILE_COMMENT));
        for (id, key) in &self.0 {
            let digits = Zeroizing::new(const_hex::encode(key.as_slice()));
            text.push_str(&format!("{id} "));
            text.push_str(&digits);
            text.push('\n');
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.and_then(|()| sync_parent_folder(path)).map_err(|error| {
            let path = path.to_owned();
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            if exists { KeysError::Exists(path) } else { KeysError::Io { path, error } }
        })
    }
}

fn generate_random_key() -> Zeroizing<[u8; KEY_LENGTH]> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    SysRng.try_fill_bytes(key.as_mut_slice()).expect("the operating system provides random bytes");
    key
}

/// Returns the path of the key file in the folder of the systemd credentials; `None` when systemd passes no
/// credentials. The file need not exist.
fn find_credential_path() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(FILE_NAME))
}

/// Flushes the folder of a file to disk. Without this flush, a new or renamed file may be lost in a power failure.
fn sync_parent_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
