//! Hexadecimal texts of JSON-RPC: quantities and byte strings. Anything irregular is `None`, never a guess.

use alloy_primitives::{Address, B256};
use ruint::aliases::U256;

/// `0x1f`, at most 64 bits.
pub fn parse_quantity(text: &str) -> Option<u64> {
    u64::from_str_radix(strip_prefix(text)?, 16).ok()
}

/// `0x1f`, at most 256 bits.
pub fn parse_u256(text: &str) -> Option<U256> {
    U256::from_str_radix(strip_prefix(text)?, 16).ok()
}

pub fn parse_hash(text: &str) -> Option<B256> {
    parse_bytes(text).map(B256::new)
}

pub fn parse_address(text: &str) -> Option<Address> {
    parse_bytes(text).map(Address::new)
}

/// Exactly `N` bytes.
pub fn parse_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    const_hex::decode_to_array(text).ok()
}

/// The quantity as a node expects it.
pub fn to_quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// Digits only: signs, which `from_str_radix` takes, are no hexadecimal.
fn strip_prefix(text: &str) -> Option<&str> {
    text.strip_prefix("0x").filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
