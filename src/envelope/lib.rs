//! Encryption at rest of what must be readable again: stock lines and signing secrets.
//!
//! A ciphertext opens only for the purpose and the owner it was sealed for: a row that somebody moved to another owner
//! does not open. The newest key seals, every key of the ring opens, and digests stay the same when a key is added.
//!
//! **When the key file is lost, everything sealed under it is lost**: undelivered stock lines must be imported again,
//! delivered ones can no longer be shown, signing secrets must be replaced. Money is not affected. The file is not part
//! of a database backup, so that a stolen backup shows nothing: keep a copy of it apart from the backups.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | id of the key, big-endian |
//! | 24 | random nonce |
//! | n | encrypted text |
//! | 16 | tag of XChaCha20-Poly1305; purpose, owner, version and id are its associated data |

mod ring;

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

pub use ring::{FILE_NAME, KeysError, rotate};

const VERSION: u8 = 1;
const KEY: usize = 32;
const NONCE: usize = 24;
const HEADER: usize = 1 + 4;

/// What a sealed text has beyond the text itself, in bytes.
pub const OVERHEAD: usize = HEADER + NONCE + 16;

pub struct Envelope {
    /// Ascending by id; never empty.
    keys: Vec<(u32, XChaCha20Poly1305)>,
    digest_key: Zeroizing<[u8; KEY]>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("this is nothing that was sealed here")]
    Malformed,
    #[error("it was sealed under key {0}, which envelope.keys does not have: is it the file of this database?")]
    UnknownKey(u32),
    #[error("it was altered, or sealed for another purpose or owner")]
    Refused,
}

impl Envelope {
    /// With a key of its own that nothing else opens: for tests.
    pub fn generate() -> Envelope {
        Envelope::of(&ring::Ring::generate())
    }

    fn of(ring: &ring::Ring) -> Envelope {
        let keys = ring.keys().iter();
        let keys = keys.map(|(id, key)| (*id, XChaCha20Poly1305::new((&*derive(key, b"seal")).into()))).collect();
        Envelope { keys, digest_key: derive(ring.first(), b"digest") }
    }

    /// Encrypts under the newest key, with a nonce of its own: the same text never looks the same.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn seal(&self, purpose: &str, owner: &str, plain: &[u8]) -> Vec<u8> {
        let (id, cipher) = self.keys.last().expect("a ring is never empty");
        let mut nonce = [0; NONCE];
        SysRng.try_fill_bytes(&mut nonce).expect("the system has randomness");
        let mut sealed = vec![VERSION];
        sealed.extend(id.to_be_bytes());
        let associated = associated(&sealed, purpose, owner);
        let payload = Payload { msg: plain, aad: &associated };
        let encrypted = cipher.encrypt(&XNonce::from(nonce), payload).expect("texts are far below 256 GiB");
        sealed.extend(nonce);
        sealed.extend(encrypted);
        sealed
    }

    /// The text again, if it was sealed for exactly this purpose and owner.
    pub fn open(&self, purpose: &str, owner: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (header, rest) = sealed.split_at_checked(HEADER).ok_or(OpenError::Malformed)?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE>().ok_or(OpenError::Malformed)?;
        let (version, id) = header.split_first_chunk::<1>().ok_or(OpenError::Malformed)?;
        if version != &[VERSION] {
            return Err(OpenError::Malformed);
        }
        let id = u32::from_be_bytes(id.try_into().map_err(|_| OpenError::Malformed)?);
        let (_, cipher) = self.keys.iter().find(|(known, _)| *known == id).ok_or(OpenError::UnknownKey(id))?;
        let payload = Payload { msg: encrypted, aad: &associated(header, purpose, owner) };
        cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| OpenError::Refused)
    }

    /// The id of the key that a text was sealed under; `None` for what was not sealed here.
    pub fn key_of(sealed: &[u8]) -> Option<u32> {
        let (version, id) = sealed.first_chunk::<HEADER>()?.split_first_chunk::<1>()?;
        (version == &[VERSION]).then_some(u32::from_be_bytes(id.try_into().ok()?))
    }

    /// Knows a text again without showing it. The same for ever: it is keyed with the first key of the ring.
    pub fn digest(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        let mut mac = hmac(&self.digest_key);
        mac.update(&prefixed(purpose));
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

/// Shows which keys there are, never a key.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u32> = self.keys.iter().map(|(id, _)| *id).collect();
        write!(f, "Envelope(keys {ids:?})")
    }
}

/// What a key of the ring is used for is a key of its own.
fn derive(key: &[u8; KEY], what_for: &[u8]) -> Zeroizing<[u8; KEY]> {
    let mut mac = hmac(key);
    mac.update(b"settled envelope 1 ");
    mac.update(what_for);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn hmac(key: &[u8; KEY]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// Fields carry their lengths, so that none can bleed into the next.
fn associated(header: &[u8], purpose: &str, owner: &str) -> Vec<u8> {
    [header, &prefixed(purpose), owner.as_bytes()].concat()
}

fn prefixed(purpose: &str) -> Vec<u8> {
    let length = u32::try_from(purpose.len()).expect("purposes are words of ours");
    [&length.to_be_bytes(), purpose.as_bytes()].concat()
}
