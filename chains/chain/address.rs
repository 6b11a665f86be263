//! Where money can be sent on a chain.

use std::fmt;

/// The 20 bytes by which a block scan recognises a recipient on its chain: the account of EVM and TRON, the program of
/// P2WPKH, the first 20 bytes of the SHA-256 of a P2TR output key. 160 bits cannot be ground to collide with one of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey(pub [u8; 20]);

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

/// A recipient with the canonical text that people and wallets use (EIP-55, Base58Check, Bech32).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub key: AddressKey,
    pub text: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
