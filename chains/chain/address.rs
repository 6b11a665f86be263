//! Addresses: the recipients of transfers on a chain, and the rules that make an address from a public key.

use std::{fmt, sync::LazyLock};

use alloy_primitives::keccak256;
use bitcoin::{
    CompressedPublicKey, KnownHrp, Network, base58,
    hashes::{Hash, sha256},
    key::TapTweak,
    secp256k1::{PublicKey, Secp256k1, VerifyOnly},
};

use crate::Family;

/// The context for operations with public keys on the curve secp256k1. It can verify, but not sign.
pub(crate) static CURVE: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// The version byte with which the Base58Check form of every TRON address begins.
const TRON_VERSION: u8 = 0x41;

/// The 20 bytes by which a block scan recognises a recipient on its chain: the account on EVM and TRON, the witness
/// program of a P2WPKH output, or the first 20 bytes of the SHA-256 of a P2TR output key. An attacker cannot find a
/// second address with the same 160 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey(pub [u8; 20]);

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

/// A recipient of transfers, with the canonical text that people and wallets use: EIP-55 on EVM chains, Base58Check on
/// TRON, Bech32 or Bech32m on Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The bytes by which a block scan recognises that this address receives a transfer.
    pub key: AddressKey,
    /// The address as text, in the canonical form of its chain.
    pub text: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The rule that makes an address from a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressScheme {
    /// P2WPKH (BIP84), in Bech32 with the prefix of the network: `bc`, `tb` or `bcrt`.
    P2wpkh(KnownHrp),
    /// P2TR without a script path (BIP86), in Bech32m with the prefix of the network: `bc`, `tb` or `bcrt`.
    P2tr(KnownHrp),
    /// The last 20 bytes of the Keccak-256 hash of the uncompressed public key, as EIP-55 text.
    Evm,
    /// The last 20 bytes of the Keccak-256 hash of the uncompressed public key, in Base58Check with version 0x41.
    Tron,
}

impl AddressScheme {
    /// Returns the default address scheme of a chain family. For Bitcoin, this is P2WPKH with the address prefix of
    /// `network`.
    pub fn for_family(family: Family, network: Network) -> AddressScheme {
        match family {
            Family::Bitcoin => AddressScheme::P2wpkh(KnownHrp::from(network)),
            Family::Evm => AddressScheme::Evm,
            Family::Tron => AddressScheme::Tron,
        }
    }

    /// Returns the address of a public key.
    pub fn encode_address(self, public_key: &PublicKey) -> Address {
        match self {
            AddressScheme::P2wpkh(hrp) => encode_p2wpkh_address(&CompressedPublicKey(*public_key), hrp),
            AddressScheme::P2tr(hrp) => encode_p2tr_address(public_key, hrp),
            AddressScheme::Evm => encode_evm_address(hash_public_key_to_account(public_key)),
            AddressScheme::Tron => encode_tron_address(hash_public_key_to_account(public_key)),
        }
    }
}

fn encode_p2wpkh_address(public_key: &CompressedPublicKey, hrp: KnownHrp) -> Address {
    let program: [u8; 20] = *AsRef::<[u8; 20]>::as_ref(&public_key.wpubkey_hash());
    Address { key: AddressKey(program), text: bitcoin::Address::p2wpkh(public_key, hrp).to_string() }
}

/// Returns the P2TR address (BIP86) that only the key `internal_key` can spend; it has no script path.
fn encode_p2tr_address(internal_key: &PublicKey, hrp: KnownHrp) -> Address {
    let (output, _) = internal_key.x_only_public_key().0.tap_tweak(&*CURVE, None);
    let text = bitcoin::Address::p2tr_tweaked(output, hrp).to_string();
    Address { key: hash_p2tr_output_key(&output.to_x_only_public_key().serialize()), text }
}

/// Returns the bytes by which a block scan recognises a P2TR output: the first 20 bytes of the SHA-256 of its output
/// key. The first 20 bytes of the output key itself are not safe: a sender can choose all bytes of an output key, and
/// so imitate the first 20 bytes of a watched one.
pub fn hash_p2tr_output_key(output_key: &[u8; 32]) -> AddressKey {
    let hash = sha256::Hash::hash(output_key).to_byte_array();
    AddressKey(*hash.first_chunk().expect("a hash of 32 bytes has a first part of 20"))
}

/// Returns the account of a public key on EVM and TRON: the last 20 bytes of the Keccak-256 hash of the uncompressed
/// key without its prefix (Ethereum Yellow Paper, appendix F).
fn hash_public_key_to_account(public_key: &PublicKey) -> AddressKey {
    let hash = keccak256(&public_key.serialize_uncompressed()[1..]);
    AddressKey(hash[12..].try_into().expect("a hash of 32 bytes without its first 12 has 20"))
}

/// Returns the address of an EVM account, with its EIP-55 text.
pub fn encode_evm_address(account: AddressKey) -> Address {
    let text = alloy_primitives::Address::from(account.0).to_checksum(None);
    Address { key: account, text }
}

/// Returns the address of a TRON account, with its Base58Check text.
pub fn encode_tron_address(account: AddressKey) -> Address {
    let mut payload = [0u8; 21];
    payload[0] = TRON_VERSION;
    payload[1..].copy_from_slice(&account.0);
    Address { key: account, text: base58::encode_check(&payload) }
}
