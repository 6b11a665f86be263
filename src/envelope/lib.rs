//! Encryption of stored data that the daemon must be able to read again, such as the lines of stock items.
//!
//! A ciphertext can be decrypted only for the purpose and the owner for which it was encrypted, so a ciphertext that is
//! copied to the database row of another owner cannot be decrypted. The newest key of the key ring encrypts, and every
//! key of the key ring decrypts. The digest of a text stays the same when a key is added.
//!
//! **When the key file is lost, everything encrypted with its keys is lost**: undelivered stock lines must be imported
//! again, and delivered stock lines can no longer be shown. Money is not affected. The key file is not part of a
//! database backup, so that a stolen backup reveals no secrets: keep a copy of the key file apart from the backups.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | id of the key, big-endian |
//! | 24 | random nonce |
//! | n | encrypted text |
//! | 16 | XChaCha20-Poly1305 tag; its associated data are version, key id, purpose and owner |

mod key_ring;

#[cfg(test)]
mod tests;

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use rand::{TryRng, rngs::SysRng};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use key_ring::{FILE_NAME, KeysError, add_random_key_to_file};

/// The version of the format, which is the first byte of each ciphertext.
const VERSION: u8 = 1;
/// The length of a key, in bytes.
const KEY_LENGTH: usize = 32;
/// The length of the nonce, in bytes.
const NONCE_LENGTH: usize = 24;
/// The length of the version and the key id together, in bytes.
const HEADER_LENGTH: usize = 1 + 4;

/// The number of bytes by which a ciphertext is longer than its plaintext.
pub const OVERHEAD: usize = HEADER_LENGTH + NONCE_LENGTH + 16;

/// The keys of one key ring, ready to encrypt, to decrypt and to compute digests.
pub struct Envelope {
    /// The keys with their ids, sorted by id in ascending order; never empty.
    keys: Vec<(u32, XChaCha20Poly1305)>,
    /// The key of the digests, derived from the oldest key of the key ring.
    digest_key: Zeroizing<[u8; KEY_LENGTH]>,
}

/// The reason why a ciphertext cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The bytes are not a ciphertext: their format is wrong.
    #[error("this is not a ciphertext of settled")]
    Malformed,
    /// The key ring does not have the key with this id.
    #[error(
        "it was encrypted with key {0}, which envelope.keys does not have; check that the file belongs to this database"
    )]
    UnknownKey(u32),
    /// The authentication tag does not match: the bytes were altered, or encrypted for another purpose or owner.
    #[error("it was altered, or encrypted for another purpose or owner")]
    NotAuthentic,
}

impl Envelope {
    /// Creates an envelope with a random key that is not stored anywhere; for tests.
    pub fn generate() -> Envelope {
        Envelope::derive_from_ring(&key_ring::KeyRing::generate())
    }

    /// Returns an envelope with the encryption keys and the digest key that are derived from the keys of a key ring.
    fn derive_from_ring(ring: &key_ring::KeyRing) -> Envelope {
        let keys = ring.keys().iter();
        let keys =
            keys.map(|(id, key)| (*id, XChaCha20Poly1305::new((&*derive_subkey(key, b"seal")).into()))).collect();
        Envelope { keys, digest_key: derive_subkey(ring.oldest_key(), b"digest") }
    }

    /// Encrypts a text with the newest key, for one purpose and owner. Each call uses a random nonce, so equal texts
    /// have different ciphertexts.
    ///
    /// # Panics
    /// Panics when the operating system provides no random bytes.
    pub fn encrypt(&self, purpose: &str, owner: &str, plain: &[u8]) -> Vec<u8> {
        let (id, cipher) = self.keys.last().expect("a key ring is never empty");
        let mut nonce = [0; NONCE_LENGTH];
        SysRng.try_fill_bytes(&mut nonce).expect("the operating system provides random bytes");
        let mut sealed = vec![VERSION];
        sealed.extend(id.to_be_bytes());
        let associated_data = build_associated_data(&sealed, purpose, owner);
        let payload = Payload { msg: plain, aad: &associated_data };
        let encrypted =
            cipher.encrypt(&XNonce::from(nonce), payload).expect("a text is far below the limit of 256 GiB");
        sealed.extend(nonce);
        sealed.extend(encrypted);
        sealed
    }

    /// Decrypts a text that was encrypted for exactly this purpose and owner.
    ///
    /// # Errors
    /// Fails when the ciphertext is malformed or altered, was encrypted for another purpose or owner, or needs a key
    /// that the key ring does not have.
    pub fn decrypt(&self, purpose: &str, owner: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        let (header, rest) = sealed.split_at_checked(HEADER_LENGTH).ok_or(DecryptError::Malformed)?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or(DecryptError::Malformed)?;
        let (version, id) = header.split_first_chunk::<1>().ok_or(DecryptError::Malformed)?;
        if version != &[VERSION] {
            return Err(DecryptError::Malformed);
        }
        let id = u32::from_be_bytes(id.try_into().map_err(|_| DecryptError::Malformed)?);
        let (_, cipher) = self.keys.iter().find(|(known, _)| *known == id).ok_or(DecryptError::UnknownKey(id))?;
        let payload = Payload { msg: encrypted, aad: &build_associated_data(header, purpose, owner) };
        cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| DecryptError::NotAuthentic)
    }

    /// Returns the id of the key with which a ciphertext was encrypted; `None` when the bytes are not a ciphertext.
    pub fn find_key_id(sealed: &[u8]) -> Option<u32> {
        let (version, id) = sealed.first_chunk::<HEADER_LENGTH>()?.split_first_chunk::<1>()?;
        (version == &[VERSION]).then_some(u32::from_be_bytes(id.try_into().ok()?))
    }

    /// Returns a keyed digest of a text, by which equal texts are recognized without decryption. The digest of a text
    /// stays the same when a key is added, because the digest key is derived from the oldest key of the key ring.
    pub fn digest(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        let mut mac = new_hmac(&self.digest_key);
        mac.update(&prefix_with_length(purpose));
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

/// `Debug` shows only the ids of the keys, and never a key.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u32> = self.keys.iter().map(|(id, _)| *id).collect();
        write!(f, "Envelope(keys {ids:?})")
    }
}

/// Derives a key for one usage from a key of the key ring. The usages are `seal` (encryption) and `digest`.
fn derive_subkey(key: &[u8; KEY_LENGTH], usage: &[u8]) -> Zeroizing<[u8; KEY_LENGTH]> {
    let mut mac = new_hmac(key);
    mac.update(b"settled envelope 1 ");
    mac.update(usage);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn new_hmac(key: &[u8; KEY_LENGTH]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC accepts keys of any length")
}

/// Returns the associated data of a ciphertext: header, purpose and owner. The length of the purpose comes before the
/// purpose, so that two different pairs of purpose and owner never have the same associated data.
fn build_associated_data(header: &[u8], purpose: &str, owner: &str) -> Vec<u8> {
    [header, &prefix_with_length(purpose), owner.as_bytes()].concat()
}

/// Returns the purpose with its length in front, as four big-endian bytes.
fn prefix_with_length(purpose: &str) -> Vec<u8> {
    let length = u32::try_from(purpose.len()).expect("a purpose is a short constant");
    [&length.to_be_bytes(), purpose.as_bytes()].concat()
}
