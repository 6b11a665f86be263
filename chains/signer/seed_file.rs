//! A seed at rest: Argon2id turns a passphrase into a key, XChaCha20-Poly1305 encrypts the seed with it.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `SETTSEED` |
//! | 2 | version, 1 |
//! | 12 | Argon2id (version 0x13): memory in KiB, passes, lanes |
//! | 16 | salt |
//! | 24 | nonce |
//! | 307 | encrypted: length and 32 bytes of entropy, length and 256 bytes of BIP39 passphrase |
//! | 16 | tag; the associated data is everything before the ciphertext, and [`PURPOSE`] |
//! | 32 | SHA-256 of everything before |
//!
//! Numbers are big-endian. Every file has the same size, which says nothing about the seed. The checksum has no key: it
//! tells a damaged file from a wrong passphrase, and the tag tells a wrong passphrase or a forgery from the truth.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use rand::{
    TryRng,
    rngs::{SysError, SysRng},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::seed::{self, Seed};

const MAGIC: [u8; 8] = *b"SETTSEED";
const VERSION: u16 = 1;

/// Binds the ciphertext to what it is for: another kind of file with the same layout and passphrase does not open as a seed.
const PURPOSE: &[u8] = b"settled seed";

const SALT: usize = 16;
const NONCE: usize = 24;
const HEADER: usize = MAGIC.len() + 2 + 12 + SALT + NONCE;
const ENTROPY_MAX: usize = 32;
const PLAIN: usize = 1 + ENTROPY_MAX + 2 + seed::PASSPHRASE_MAX;
const TAG: usize = 16;
const CHECKSUM: usize = 32;

/// Size of every seed file in bytes.
pub const FILE_SIZE: usize = HEADER + PLAIN + TAG + CHECKSUM;

/// What one guess of the passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id takes 8 KiB per lane to 4 GiB, 1 to 64 passes and 1 to 16 lanes")]
pub struct BadKdfCost;

impl KdfCost {
    /// 256 MiB, 3 passes, 1 lane: about a second.
    pub const DEFAULT: KdfCost = KdfCost { memory_kib: 256 * 1024, passes: 3, lanes: 1 };

    /// The bounds also hold for a cost that a file asks for, so that a forged file cannot exhaust the machine.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<KdfCost, BadKdfCost> {
        let fits = (1..=16).contains(&lanes)
            && (8 * lanes..=4 * 1024 * 1024).contains(&memory_kib)
            && (1..=64).contains(&passes);
        if fits { Ok(KdfCost { memory_kib, passes, lanes }) } else { Err(BadKdfCost) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("it exists already, and a seed file is never overwritten")]
    Exists,
    #[error("Argon2id: {0}")]
    Kdf(argon2::Error),
    #[error("the system gave no entropy: {0}")]
    Entropy(#[from] SysError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("it is not a seed file of settled")]
    NotASeedFile,
    #[error("it has version {0}, this program reads version {VERSION}")]
    Version(u16),
    #[error("it is damaged: {0}; take a copy of it from a backup or import the words")]
    Damaged(&'static str),
    #[error("the passphrase is wrong (or somebody altered the file on purpose)")]
    WrongPassphrase,
    #[error("Argon2id: {0}")]
    Kdf(argon2::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An encrypted seed, as it stands in a file.
pub struct SeedFile {
    header: [u8; HEADER],
    cost: KdfCost,
    sealed: [u8; PLAIN],
    tag: [u8; TAG],
}

impl SeedFile {
    /// Encrypts `seed` into a new file that only its owner can read, and returns when it is on the disk. What was there
    /// before is never overwritten.
    pub fn create(path: &Path, seed: &Seed, passphrase: &SecretString, cost: KdfCost) -> Result<(), CreateError> {
        // Sealed first: whoever stops the program while Argon2id runs leaves no file behind.
        let bytes = SeedFile::seal(seed, passphrase, cost)?.to_bytes();
        let mut file = match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CreateError::Exists),
            Err(error) => return Err(error.into()),
        };
        let written = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| sync_folder_of(path));
        if written.is_err() {
            // This call made the file and nobody relies on it yet; the first error is the one to report.
            let _ = std::fs::remove_file(path);
        }
        Ok(written?)
    }

    /// Reads and decrypts the seed in a file.
    pub fn open(path: &Path, passphrase: &SecretString) -> Result<Seed, OpenError> {
        SeedFile::read(path)?.unseal(passphrase)
    }

    /// Reads a file without decrypting it: it is whole and of a version this program knows.
    pub fn read(path: &Path) -> Result<SeedFile, OpenError> {
        let mut bytes = Vec::with_capacity(FILE_SIZE);
        let bound = u64::try_from(FILE_SIZE + 1).expect("a few hundred bytes");
        File::open(path)?.take(bound).read_to_end(&mut bytes)?;
        SeedFile::from_bytes(&bytes)
    }

    /// What one guess of the passphrase of this file costs.
    pub fn cost(&self) -> KdfCost {
        self.cost
    }

    fn seal(seed: &Seed, passphrase: &SecretString, cost: KdfCost) -> Result<SeedFile, CreateError> {
        let mut header = [0; HEADER];
        let (fixed, random) = header.split_at_mut(HEADER - SALT - NONCE);
        let numbers = [cost.memory_kib, cost.passes, cost.lanes].map(u32::to_be_bytes);
        fixed.copy_from_slice(&[&MAGIC[..], &VERSION.to_be_bytes(), numbers.as_flattened()].concat());
        SysRng.try_fill_bytes(random)?;

        let mut sealed = *encode(seed);
        let key = key(passphrase, &header, cost).map_err(CreateError::Kdf)?;
        let tag = XChaCha20Poly1305::new((&*key).into())
            .encrypt_inout_detached(&nonce(&header), &associated(&header), sealed.as_mut_slice().into())
            .expect("the cipher takes messages of gigabytes");
        Ok(SeedFile { header, cost, sealed, tag: tag.into() })
    }

    /// Decrypts the seed; this takes as long as [`KdfCost`] says.
    pub fn unseal(&self, passphrase: &SecretString) -> Result<Seed, OpenError> {
        let key = key(passphrase, &self.header, self.cost).map_err(OpenError::Kdf)?;
        let mut plain = Zeroizing::new(self.sealed);
        XChaCha20Poly1305::new((&*key).into())
            .decrypt_inout_detached(
                &nonce(&self.header),
                &associated(&self.header),
                plain.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .map_err(|_| OpenError::WrongPassphrase)?;
        decode(&plain).ok_or(OpenError::Damaged("what it encrypts is no seed"))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.header[..], &self.sealed, &self.tag].concat();
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<SeedFile, OpenError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(OpenError::NotASeedFile)?;
        let (version, _) = rest.split_first_chunk().ok_or(OpenError::Damaged("it is cut off"))?;
        let version = u16::from_be_bytes(*version);
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        let bytes: &[u8; FILE_SIZE] = bytes.try_into().map_err(|_| OpenError::Damaged("its size is wrong"))?;
        let (content, checksum) = bytes.split_at(FILE_SIZE - CHECKSUM);
        if Sha256::digest(content).as_slice() != checksum {
            return Err(OpenError::Damaged("its checksum is wrong"));
        }
        let (header, content) = content.split_first_chunk().expect("the size was checked");
        let (sealed, tag) = content.split_first_chunk().expect("the size was checked");
        let tag = tag.try_into().expect("the size was checked");
        Ok(SeedFile { header: *header, cost: cost_in(header)?, sealed: *sealed, tag })
    }
}

fn cost_in(header: &[u8; HEADER]) -> Result<KdfCost, OpenError> {
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let first = MAGIC.len() + 2;
    KdfCost::new(number(first), number(first + 4), number(first + 8))
        .map_err(|_| OpenError::Damaged("the cost of its passphrase is out of bounds"))
}

fn nonce(header: &[u8; HEADER]) -> XNonce {
    let nonce: [u8; NONCE] = header[HEADER - NONCE..].try_into().expect("the header ends with the nonce");
    XNonce::from(nonce)
}

fn associated(header: &[u8; HEADER]) -> Vec<u8> {
    [&header[..], PURPOSE].concat()
}

fn key(passphrase: &SecretString, header: &[u8; HEADER], cost: KdfCost) -> Result<Zeroizing<[u8; 32]>, argon2::Error> {
    let salt = &header[HEADER - NONCE - SALT..HEADER - NONCE];
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
        passphrase.expose_secret().as_bytes(),
        salt,
        key.as_mut_slice(),
    )?;
    Ok(key)
}

fn encode(seed: &Seed) -> Zeroizing<[u8; PLAIN]> {
    let (entropy, passphrase) = (seed.entropy(), seed.passphrase().expose_secret().as_bytes());
    let mut plain = Zeroizing::new([0; PLAIN]);
    plain[0] = u8::try_from(entropy.len()).expect("at most 32 bytes");
    plain[1..1 + entropy.len()].copy_from_slice(&entropy);
    let length = u16::try_from(passphrase.len()).expect("at most 256 bytes");
    let (head, tail) = plain[1 + ENTROPY_MAX..].split_at_mut(2);
    head.copy_from_slice(&length.to_be_bytes());
    tail[..passphrase.len()].copy_from_slice(passphrase);
    plain
}

fn decode(plain: &[u8; PLAIN]) -> Option<Seed> {
    let (&entropy_length, rest) = plain.split_first()?;
    let (entropy, rest) = rest.split_first_chunk::<ENTROPY_MAX>()?;
    let (passphrase_length, passphrase) = rest.split_first_chunk()?;
    let entropy = entropy.get(..usize::from(entropy_length))?;
    let passphrase = passphrase.get(..usize::from(u16::from_be_bytes(*passphrase_length)))?;
    let passphrase = SecretString::from(std::str::from_utf8(passphrase).ok()?);
    Seed::from_entropy(entropy, passphrase).ok()
}

/// A new name is durable only when its folder is.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    fn cheap() -> KdfCost {
        KdfCost::new(64, 1, 1).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    fn sealed(passphrase: &str) -> Vec<u8> {
        let seed = Seed::from_words(&secret(WORDS), secret("пароль")).unwrap();
        SeedFile::seal(&seed, &secret(passphrase), cheap()).unwrap().to_bytes()
    }

    fn open(bytes: &[u8], passphrase: &str) -> Result<Seed, OpenError> {
        SeedFile::from_bytes(bytes)?.unseal(&secret(passphrase))
    }

    fn refusal(bytes: &[u8], passphrase: &str) -> OpenError {
        match open(bytes, passphrase) {
            Ok(_) => panic!("the file was opened"),
            Err(error) => error,
        }
    }

    #[test]
    fn what_was_created_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        for length in [16, 20, 24, 28, 32] {
            let path = folder.path().join(format!("seed-{length}"));
            let seed = Seed::from_entropy(&vec![7; length], secret(&"p".repeat(256))).unwrap();
            SeedFile::create(&path, &seed, &secret("open sesame"), cheap()).unwrap();
            let again = SeedFile::open(&path, &secret("open sesame")).unwrap();
            assert_eq!(again.words().expose_secret(), seed.words().expose_secret());
            assert_eq!(again.fingerprint(), seed.fingerprint());
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, FILE_SIZE.try_into().unwrap()));
        }
    }

    #[test]
    fn a_seed_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        let create = |seed: &Seed| SeedFile::create(&path, seed, &secret("open sesame"), cheap());
        let first = Seed::generate().unwrap();
        create(&first).unwrap();
        assert!(matches!(create(&Seed::generate().unwrap()), Err(CreateError::Exists)));
        assert_eq!(SeedFile::open(&path, &secret("open sesame")).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn a_file_that_could_not_be_sealed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        let impossible = KdfCost { memory_kib: 1, passes: 1, lanes: 1 };
        let seed = Seed::generate().unwrap();
        assert!(matches!(SeedFile::create(&path, &seed, &secret("x"), impossible), Err(CreateError::Kdf(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_wrong_passphrase_is_told_from_damage() {
        let bytes = sealed("right");
        assert!(open(&bytes, "right").is_ok());
        assert!(matches!(refusal(&bytes, "wrong"), OpenError::WrongPassphrase));
        assert!(matches!(refusal(&bytes, ""), OpenError::WrongPassphrase));
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let bytes = sealed("right");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match (bit / 8, refusal(&flipped, "right")) {
                (0..8, OpenError::NotASeedFile) | (8..10, OpenError::Version(_)) | (10.., OpenError::Damaged(_)) => {}
                (byte, error) => panic!("byte {byte}: {error}"),
            }
        }
    }

    #[test]
    fn a_truncated_or_longer_file_is_refused() {
        let bytes = sealed("right");
        for length in 0..bytes.len() {
            match (length, refusal(&bytes[..length], "right")) {
                (0..8, OpenError::NotASeedFile) | (8.., OpenError::Damaged(_)) => {}
                (length, error) => panic!("{length} bytes: {error}"),
            }
        }
        assert!(matches!(refusal(&[&bytes[..], b"\n"].concat(), "right"), OpenError::Damaged(_)));
    }

    /// Whoever can write the file can also correct its checksum: then the tag refuses it, for every field of the header too.
    #[test]
    fn a_forged_file_is_refused() {
        let bytes = sealed("right");
        for at in MAGIC.len() + 2..FILE_SIZE - CHECKSUM {
            let mut forged = bytes[..FILE_SIZE - CHECKSUM].to_vec();
            forged[at] ^= 1;
            let checksum = Sha256::digest(&forged);
            forged.extend_from_slice(&checksum);
            let error = refusal(&forged, "right");
            let cost_out_of_bounds = at < HEADER - SALT - NONCE && matches!(error, OpenError::Damaged(_));
            assert!(cost_out_of_bounds || matches!(error, OpenError::WrongPassphrase), "byte {at}: {error}");
        }
    }

    #[test]
    fn a_cost_that_would_exhaust_the_machine_is_refused() {
        assert_eq!(KdfCost::new(4 * 1024 * 1024 + 1, 3, 1), Err(BadKdfCost));
        assert_eq!(KdfCost::new(256 * 1024, 65, 1), Err(BadKdfCost));
        assert_eq!(KdfCost::new(7, 1, 1), Err(BadKdfCost));
        assert_eq!(KdfCost::new(u32::MAX, u32::MAX, u32::MAX), Err(BadKdfCost));
        assert_eq!(KdfCost::new(256 * 1024, 3, 1), Ok(KdfCost::DEFAULT));
    }

    #[test]
    fn one_seed_is_never_sealed_twice_the_same_and_shows_nothing() {
        let (one, two) = (sealed("right"), sealed("right"));
        assert_ne!(one[HEADER..], two[HEADER..]);
        for clear in ["abandon", "пароль", "right"] {
            assert!(!one.windows(clear.len()).any(|window| window == clear.as_bytes()));
        }
    }
}
