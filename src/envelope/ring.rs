//! The key ring and its file: a line per key with its id and 64 hexadecimal digits, for the owner's eyes only.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use crate::{Envelope, KEY};

/// In the data folder, or among the credentials that systemd passes.
pub const FILE_NAME: &str = "envelope.keys";

/// Keys of one ring; a rotation a week lasts for years.
const KEYS_MAX: usize = 1_000;

const HEAD: &str =
    "# Keys of settled's envelopes. Without them undelivered stock is lost: keep a copy apart from the backups.\n";

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{0} exists already and was left as it is")]
    Exists(PathBuf),
    #[error("{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`")]
    Open { path: PathBuf, mode: u32 },
    #[error("{path}, line {line}: {problem}")]
    Malformed { path: PathBuf, line: usize, problem: &'static str },
    #[error("{0} holds {KEYS_MAX} keys already")]
    Full(PathBuf),
    #[error("{0} was passed by systemd and cannot be changed here; add the key where it comes from")]
    Credential(PathBuf),
}

/// Ascending by id; never empty.
pub struct Ring(Vec<(u32, Zeroizing<[u8; KEY]>)>);

impl Envelope {
    /// Reads `$CREDENTIALS_DIRECTORY/envelope.keys` if systemd passed it, else the file in the data folder.
    pub fn load(data_folder: &Path) -> Result<Envelope, KeysError> {
        let credential = credential().filter(|path| path.exists());
        let ring = match credential {
            Some(path) => Ring::read(&path)?,
            None => Ring::read_own(&data_folder.join(FILE_NAME))?,
        };
        Ok(Envelope::of(&ring))
    }

    /// Makes the file in the data folder with one key. Never overwrites: that would lose what older keys sealed.
    pub fn create(data_folder: &Path) -> Result<Envelope, KeysError> {
        let (ring, path) = (Ring::generate(), data_folder.join(FILE_NAME));
        ring.write_new(&path)?;
        Ok(Envelope::of(&ring))
    }

    /// Makes the file if there is none anywhere: beside a credential it would be used until the next start, and what it
    /// sealed could not be opened any more.
    pub fn load_or_create(data_folder: &Path) -> Result<Envelope, KeysError> {
        match Envelope::load(data_folder) {
            Err(KeysError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Envelope::create(data_folder)
            }
            found => found,
        }
    }
}

/// Adds a key to the file in the data folder and returns its id. Running daemons seal under it from their next start on.
pub fn rotate(data_folder: &Path) -> Result<u32, KeysError> {
    if let Some(path) = credential().filter(|path| path.exists()) {
        return Err(KeysError::Credential(path));
    }
    let path = data_folder.join(FILE_NAME);
    let mut ring = Ring::read_own(&path)?;
    let id = ring.add(&path)?;
    let beside = data_folder.join(format!("{FILE_NAME}.new"));
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(KeysError::Io { path: beside, error });
    }
    ring.write_new(&beside)?;
    let replaced = fs::rename(&beside, &path).and_then(|()| sync_folder_of(&path));
    replaced.map_err(|error| KeysError::Io { path, error })?;
    Ok(id)
}

impl Ring {
    pub fn generate() -> Ring {
        Ring(vec![(1, new_key())])
    }

    pub fn keys(&self) -> &[(u32, Zeroizing<[u8; KEY]>)] {
        &self.0
    }

    pub fn first(&self) -> &[u8; KEY] {
        &self.0.first().expect("a ring is never empty").1
    }

    fn add(&mut self, path: &Path) -> Result<u32, KeysError> {
        let newest = self.0.last().map_or(0, |(id, _)| *id);
        let id = newest.checked_add(1).filter(|_| self.0.len() < KEYS_MAX);
        let id = id.ok_or_else(|| KeysError::Full(path.to_owned()))?;
        self.0.push((id, new_key()));
        Ok(id)
    }

    /// Refuses a file that others may read.
    fn read_own(path: &Path) -> Result<Ring, KeysError> {
        let metadata = fs::metadata(path).map_err(|error| KeysError::Io { path: path.to_owned(), error })?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeysError::Open { path: path.to_owned(), mode });
        }
        Ring::read(path)
    }

    fn read(path: &Path) -> Result<Ring, KeysError> {
        let text = fs::read_to_string(path).map_err(|error| KeysError::Io { path: path.to_owned(), error })?;
        let text = Zeroizing::new(text);
        let malformed = |line, problem| KeysError::Malformed { path: path.to_owned(), line, problem };
        let mut keys: Vec<(u32, Zeroizing<[u8; KEY]>)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (id, key) =
                line.split_once(' ').ok_or_else(|| malformed(number, "an id, a blank and a key stand here"))?;
            let id: u32 = id.parse().map_err(|_| malformed(number, "the id is no number"))?;
            if keys.last().is_some_and(|(before, _)| id <= *before) {
                return Err(malformed(number, "the id is not above the one before"));
            }
            let mut bytes = Zeroizing::new([0; KEY]);
            const_hex::decode_to_slice(key.trim_end(), bytes.as_mut_slice())
                .map_err(|_| malformed(number, "the key is not 64 hexadecimal digits"))?;
            keys.push((id, bytes));
        }
        if keys.is_empty() { Err(malformed(1, "there is no key")) } else { Ok(Ring(keys)) }
    }

    fn write_new(&self, path: &Path) -> Result<(), KeysError> {
        let mut text = Zeroizing::new(String::from(HEAD));
        for (id, key) in &self.0 {
            let digits = Zeroizing::new(const_hex::encode(key.as_slice()));
            text.push_str(&format!("{id} "));
            text.push_str(&digits);
            text.push('\n');
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.and_then(|()| sync_folder_of(path)).map_err(|error| {
            let path = path.to_owned();
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            if exists { KeysError::Exists(path) } else { KeysError::Io { path, error } }
        })
    }
}

fn new_key() -> Zeroizing<[u8; KEY]> {
    let mut key = Zeroizing::new([0; KEY]);
    SysRng.try_fill_bytes(key.as_mut_slice()).expect("the system has randomness");
    key
}

fn credential() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(FILE_NAME))
}

/// A new name is durable only when its folder is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
