//! Addresses: recipients of transfers on a chain.

use std::fmt;

/// The 20 bytes by which a block scan recognises a recipient on its chain: the account on EVM and TRON, the witness program
/// of a P2WPKH output, the first 20 bytes of the SHA-256 of a P2TR output key. An attacker cannot search for a second
/// address with the same 160 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey(pub [u8; 20]);

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

/// A recipient with the canonical text that people and wallets use: EIP-55 on EVM chains, Base58Check on TRON, Bech32 or
/// Bech32m on Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The bytes that a block scan compares.
    pub key: AddressKey,
    /// The address as text, in the canonical form of its chain.
    pub text: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
