//! The encrypted seed file. Argon2id derives a key from the passphrase, and XChaCha20-Poly1305 encrypts the seed with
//! this key.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `SETTSEED` |
//! | 2 | version, 1 |
//! | 12 | Argon2id (version 0x13): memory in KiB, passes, lanes |
//! | 16 | salt |
//! | 24 | nonce |
//! | 307 | encrypted: length and 32 bytes of entropy, length and 256 bytes of BIP39 passphrase |
//! | 16 | tag; the associated data is everything before the ciphertext, and [`FILE_KIND`] |
//! | 32 | SHA-256 of everything before |
//!
//! Numbers are big-endian. All files have the same size, so the size reveals nothing about the seed. A wrong checksum
//! means that the file is damaged. A wrong tag with a correct checksum means that the passphrase is wrong or the file
//! was forged.

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

/// The first bytes of every seed file.
const MAGIC: [u8; 8] = *b"SETTSEED";
/// The version of the layout of the file.
const VERSION: u16 = 1;

/// The last part of the associated data, which the tag of the file protects together with the header. Another kind of
/// encrypted file with the same layout and passphrase has another `FILE_KIND`, so it cannot be opened as a seed file.
const FILE_KIND: &[u8] = b"settled seed";

/// The length of the salt, in bytes.
const SALT: usize = 16;
/// The length of the nonce, in bytes.
const NONCE: usize = 24;
/// The length of all fields before the ciphertext, in bytes.
const HEADER: usize = MAGIC.len() + 2 + 12 + SALT + NONCE;
/// The maximum length of the entropy of a seed, in bytes.
const ENTROPY_MAX: usize = 32;
/// The length of the plaintext and of the ciphertext, in bytes.
const PLAIN: usize = 1 + ENTROPY_MAX + 2 + seed::PASSPHRASE_MAX;
/// The length of the authentication tag of the ciphertext, in bytes.
const TAG: usize = 16;
/// The length of the checksum, in bytes.
const CHECKSUM: usize = 32;

/// The size of a seed file, in bytes.
pub const FILE_SIZE: usize = HEADER + PLAIN + TAG + CHECKSUM;

/// The parameters of Argon2id, which decide how much time and memory one guess of the passphrase takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    memory_kib: u32,
    /// The number of times that Argon2id processes the whole memory.
    passes: u32,
    /// The number of lanes: parts of the computation that may run in parallel.
    lanes: u32,
}

/// The error for a parameter of Argon2id that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id takes 8 KiB per lane to 4 GiB, 1 to 64 passes and 1 to 16 lanes")]
pub struct BadKdfCost;

impl KdfCost {
    /// The default parameters: 256 MiB, 3 passes and 1 lane. One guess of the passphrase takes about a second.
    pub const DEFAULT: KdfCost = KdfCost { memory_kib: 256 * 1024, passes: 3, lanes: 1 };

    /// Returns the parameters if they are in range. Parameters that were read from a file are checked too, so that a
    /// forged file cannot use up all memory or time of the machine.
    ///
    /// # Errors
    ///
    /// Fails when a parameter is out of range.
    pub fn new_if_in_range(memory_kib: u32, passes: u32, lanes: u32) -> Result<KdfCost, BadKdfCost> {
        let fits = (1..=16).contains(&lanes)
            && (8 * lanes..=4 * 1024 * 1024).contains(&memory_kib)
            && (1..=64).contains(&passes);
        if fits { Ok(KdfCost { memory_kib, passes, lanes }) } else { Err(BadKdfCost) }
    }
}

/// The reason why a seed file cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file with this name exists; it is left unchanged.
    #[error("the file exists already, and a seed file is never overwritten; choose another name")]
    Exists,
    /// The key cannot be derived from the passphrase, for example because memory is short.
    #[error("Argon2id: {0}")]
    Kdf(argon2::Error),
    /// The operating system returned no random bytes for the salt and the nonce.
    #[error("the operating system returned no entropy: {0}")]
    Entropy(#[from] SysError),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The reason why a seed file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file does not begin with the magic bytes.
    #[error("the file is not a seed file of settled")]
    NotASeedFile,
    /// The file has this version, which this program does not support.
    #[error("the file has version {0}, but this program supports only version {VERSION}")]
    Version(u16),
    /// The file was changed or cut off. The field describes the part that is wrong.
    #[error("the file is damaged: {0}; restore it from a backup or import the words again")]
    Damaged(&'static str),
    /// The tag is wrong, although the checksum is right: the passphrase is wrong, or the file was forged.
    #[error("the passphrase is wrong (or the file was forged)")]
    WrongPassphrase,
    /// The key cannot be derived from the passphrase, for example because memory is short.
    #[error("Argon2id: {0}")]
    Kdf(argon2::Error),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The parsed content of a seed file, in which the seed is still encrypted.
pub struct SeedFile {
    header: [u8; HEADER],
    cost: KdfCost,
    /// The encrypted seed.
    sealed: [u8; PLAIN],
    tag: [u8; TAG],
}

impl SeedFile {
    /// Encrypts a seed and writes it to a new file that only its owner can read. The file is on disk when this function
    /// returns. An existing file is never overwritten.
    ///
    /// # Errors
    ///
    /// Fails when the file exists or cannot be written.
    pub fn create_encrypted(
        path: &Path,
        seed: &Seed,
        passphrase: &SecretString,
        cost: KdfCost,
    ) -> Result<(), CreateError> {
        // The seed is encrypted before the file is created, so that a program stopped during Argon2id leaves no file.
        let bytes = SeedFile::encrypt_seed(seed, passphrase, cost)?.to_bytes_with_checksum();
        let mut file = match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CreateError::Exists),
            Err(error) => return Err(error.into()),
        };
        let written = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| sync_parent_folder(path));
        if written.is_err() {
            // The file may be removed, because this call created it. An error of the removal is not reported.
            let _ = std::fs::remove_file(path);
        }
        Ok(written?)
    }

    /// Reads a seed file and decrypts its seed.
    ///
    /// # Errors
    ///
    /// Fails when the file is not a valid seed file, or the passphrase is wrong.
    pub fn open_and_decrypt(path: &Path, passphrase: &SecretString) -> Result<Seed, OpenError> {
        SeedFile::read_and_verify_checksum(path)?.decrypt_seed(passphrase)
    }

    /// Reads a seed file and verifies its version and checksum. The seed stays encrypted.
    ///
    /// # Errors
    ///
    /// Fails when the file is not a valid seed file.
    pub fn read_and_verify_checksum(path: &Path) -> Result<SeedFile, OpenError> {
        let mut bytes = Vec::with_capacity(FILE_SIZE);
        let bound = u64::try_from(FILE_SIZE + 1).expect("a seed file has a few hundred bytes");
        File::open(path)?.take(bound).read_to_end(&mut bytes)?;
        SeedFile::parse_and_verify_checksum(&bytes)
    }

    /// Returns the parameters of Argon2id that this file uses.
    pub fn cost(&self) -> KdfCost {
        self.cost
    }

    /// Encrypts a seed with a new salt and a new nonce. Writes no file.
    fn encrypt_seed(seed: &Seed, passphrase: &SecretString, cost: KdfCost) -> Result<SeedFile, CreateError> {
        let mut header = [0; HEADER];
        let (fixed, random) = header.split_at_mut(HEADER - SALT - NONCE);
        let numbers = [cost.memory_kib, cost.passes, cost.lanes].map(u32::to_be_bytes);
        fixed.copy_from_slice(&[&MAGIC[..], &VERSION.to_be_bytes(), numbers.as_flattened()].concat());
        SysRng.try_fill_bytes(random)?;

        let mut sealed = *encode_padded_seed(seed);
        let key = derive_encryption_key(passphrase, &header, cost).map_err(CreateError::Kdf)?;
        let tag = XChaCha20Poly1305::new((&*key).into())
            .encrypt_inout_detached(
                &parse_nonce(&header),
                &build_associated_data(&header),
                sealed.as_mut_slice().into(),
            )
            .expect("the message is shorter than the limit of the cipher");
        Ok(SeedFile { header, cost, sealed, tag: tag.into() })
    }

    /// Derives the key from the passphrase and decrypts the seed. Takes as long as the Argon2id parameters of the file
    /// ([`KdfCost`]) demand.
    ///
    /// # Errors
    ///
    /// Fails when the passphrase is wrong.
    pub fn decrypt_seed(&self, passphrase: &SecretString) -> Result<Seed, OpenError> {
        let key = derive_encryption_key(passphrase, &self.header, self.cost).map_err(OpenError::Kdf)?;
        let mut plain = Zeroizing::new(self.sealed);
        XChaCha20Poly1305::new((&*key).into())
            .decrypt_inout_detached(
                &parse_nonce(&self.header),
                &build_associated_data(&self.header),
                plain.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .map_err(|_| OpenError::WrongPassphrase)?;
        decode_padded_seed(&plain).ok_or(OpenError::Damaged("its content is not a seed"))
    }

    /// Returns the bytes of the file, with the checksum at their end.
    fn to_bytes_with_checksum(&self) -> Vec<u8> {
        let mut bytes = [&self.header[..], &self.sealed, &self.tag].concat();
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Parses the bytes of a file, and verifies the magic bytes, the version, the size and the checksum.
    fn parse_and_verify_checksum(bytes: &[u8]) -> Result<SeedFile, OpenError> {
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
        Ok(SeedFile { header: *header, cost: parse_kdf_cost(header)?, sealed: *sealed, tag })
    }
}

fn parse_kdf_cost(header: &[u8; HEADER]) -> Result<KdfCost, OpenError> {
    let number =
        |offset: usize| u32::from_be_bytes(header[offset..offset + 4].try_into().expect("the slice has four bytes"));
    let first = MAGIC.len() + 2;
    KdfCost::new_if_in_range(number(first), number(first + 4), number(first + 8))
        .map_err(|_| OpenError::Damaged("its Argon2id parameters are out of range"))
}

fn parse_nonce(header: &[u8; HEADER]) -> XNonce {
    let nonce: [u8; NONCE] = header[HEADER - NONCE..].try_into().expect("the header ends with the nonce");
    XNonce::from(nonce)
}

fn build_associated_data(header: &[u8; HEADER]) -> Vec<u8> {
    [&header[..], FILE_KIND].concat()
}

/// Derives the encryption key of a file from the passphrase and the salt in the header, with Argon2id.
fn derive_encryption_key(
    passphrase: &SecretString,
    header: &[u8; HEADER],
    cost: KdfCost,
) -> Result<Zeroizing<[u8; 32]>, argon2::Error> {
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

/// Returns the plaintext of a file: the entropy and the BIP39 passphrase of a seed, each with its length before it and
/// padded with zeros.
fn encode_padded_seed(seed: &Seed) -> Zeroizing<[u8; PLAIN]> {
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

/// Returns the seed that [`encode_padded_seed`] encoded, or `None` when the plaintext is not a seed.
fn decode_padded_seed(plain: &[u8; PLAIN]) -> Option<Seed> {
    let (&entropy_length, rest) = plain.split_first()?;
    let (entropy, rest) = rest.split_first_chunk::<ENTROPY_MAX>()?;
    let (passphrase_length, passphrase) = rest.split_first_chunk()?;
    let entropy = entropy.get(..usize::from(entropy_length))?;
    let passphrase = passphrase.get(..usize::from(u16::from_be_bytes(*passphrase_length)))?;
    let passphrase = SecretString::from(std::str::from_utf8(passphrase).ok()?);
    Seed::from_entropy(entropy, passphrase).ok()
}

/// Writes the folder of a new file to the disk, so that the name of the file is not lost when the power fails.
fn sync_parent_folder(path: &Path) -> io::Result<()> {
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

    fn low_kdf_cost() -> KdfCost {
        KdfCost::new_if_in_range(64, 1, 1).unwrap()
    }

    fn to_secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    fn encrypt_test_seed(passphrase: &str) -> Vec<u8> {
        let seed = Seed::from_words(&to_secret(WORDS), to_secret("пароль")).unwrap();
        SeedFile::encrypt_seed(&seed, &to_secret(passphrase), low_kdf_cost()).unwrap().to_bytes_with_checksum()
    }

    fn decrypt_test_file(bytes: &[u8], passphrase: &str) -> Result<Seed, OpenError> {
        SeedFile::parse_and_verify_checksum(bytes)?.decrypt_seed(&to_secret(passphrase))
    }

    fn decrypt_error(bytes: &[u8], passphrase: &str) -> OpenError {
        match decrypt_test_file(bytes, passphrase) {
            Ok(_) => panic!("the file was opened"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_created_file_opens_with_its_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        for length in [16, 20, 24, 28, 32] {
            let path = folder.path().join(format!("seed-{length}"));
            let seed = Seed::from_entropy(&vec![7; length], to_secret(&"p".repeat(256))).unwrap();
            SeedFile::create_encrypted(&path, &seed, &to_secret("open sesame"), low_kdf_cost()).unwrap();
            let again = SeedFile::open_and_decrypt(&path, &to_secret("open sesame")).unwrap();
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
        let create = |seed: &Seed| SeedFile::create_encrypted(&path, seed, &to_secret("open sesame"), low_kdf_cost());
        let first = Seed::generate().unwrap();
        create(&first).unwrap();
        assert!(matches!(create(&Seed::generate().unwrap()), Err(CreateError::Exists)));
        assert_eq!(
            SeedFile::open_and_decrypt(&path, &to_secret("open sesame")).unwrap().fingerprint(),
            first.fingerprint()
        );
    }

    #[test]
    fn a_failed_encryption_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        let impossible = KdfCost { memory_kib: 1, passes: 1, lanes: 1 };
        let seed = Seed::generate().unwrap();
        assert!(matches!(
            SeedFile::create_encrypted(&path, &seed, &to_secret("x"), impossible),
            Err(CreateError::Kdf(_))
        ));
        assert!(!path.exists());
    }

    #[test]
    fn a_wrong_passphrase_is_not_reported_as_damage() {
        let bytes = encrypt_test_seed("right");
        assert!(decrypt_test_file(&bytes, "right").is_ok());
        assert!(matches!(decrypt_error(&bytes, "wrong"), OpenError::WrongPassphrase));
        assert!(matches!(decrypt_error(&bytes, ""), OpenError::WrongPassphrase));
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let bytes = encrypt_test_seed("right");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match (bit / 8, decrypt_error(&flipped, "right")) {
                (0..8, OpenError::NotASeedFile) | (8..10, OpenError::Version(_)) | (10.., OpenError::Damaged(_)) => {}
                (byte, error) => panic!("byte {byte}: {error}"),
            }
        }
    }

    #[test]
    fn a_truncated_or_longer_file_is_rejected() {
        let bytes = encrypt_test_seed("right");
        for length in 0..bytes.len() {
            match (length, decrypt_error(&bytes[..length], "right")) {
                (0..8, OpenError::NotASeedFile) | (8.., OpenError::Damaged(_)) => {}
                (length, error) => panic!("{length} bytes: {error}"),
            }
        }
        assert!(matches!(decrypt_error(&[&bytes[..], b"\n"].concat(), "right"), OpenError::Damaged(_)));
    }

    /// An attacker who can write the file can also correct its checksum. The tag then reveals the change, also in every
    /// field of the header.
    #[test]
    fn a_forged_file_is_rejected() {
        let bytes = encrypt_test_seed("right");
        for position in MAGIC.len() + 2..FILE_SIZE - CHECKSUM {
            let mut forged = bytes[..FILE_SIZE - CHECKSUM].to_vec();
            forged[position] ^= 1;
            let checksum = Sha256::digest(&forged);
            forged.extend_from_slice(&checksum);
            let error = decrypt_error(&forged, "right");
            let cost_out_of_bounds = position < HEADER - SALT - NONCE && matches!(error, OpenError::Damaged(_));
            assert!(cost_out_of_bounds || matches!(error, OpenError::WrongPassphrase), "byte {position}: {error}");
        }
    }

    #[test]
    fn a_cost_that_would_exhaust_the_machine_is_rejected() {
        assert_eq!(KdfCost::new_if_in_range(4 * 1024 * 1024 + 1, 3, 1), Err(BadKdfCost));
        assert_eq!(KdfCost::new_if_in_range(256 * 1024, 65, 1), Err(BadKdfCost));
        assert_eq!(KdfCost::new_if_in_range(7, 1, 1), Err(BadKdfCost));
        assert_eq!(KdfCost::new_if_in_range(u32::MAX, u32::MAX, u32::MAX), Err(BadKdfCost));
        assert_eq!(KdfCost::new_if_in_range(256 * 1024, 3, 1), Ok(KdfCost::DEFAULT));
    }

    #[test]
    fn two_encryptions_differ_and_contain_no_secret() {
        let (one, two) = (encrypt_test_seed("right"), encrypt_test_seed("right"));
        assert_ne!(one[HEADER..], two[HEADER..]);
        for clear in ["abandon", "пароль", "right"] {
            assert!(!one.windows(clear.len()).any(|window| window == clear.as_bytes()));
        }
    }
}
