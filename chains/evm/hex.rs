//! Parses the hexadecimal strings of Ethereum's JSON-RPC: quantities and byte strings. All functions return `None` for
//! malformed input.

use alloy_primitives::{Address, B256};
use ruint::aliases::U256;

/// Parses a quantity such as `0x1f` of at most 64 bits.
pub fn parse_quantity(text: &str) -> Option<u64> {
    u64::from_str_radix(strip_hex_prefix(text)?, 16).ok()
}

/// Parses a quantity such as `0x1f` of at most 256 bits.
pub fn parse_u256(text: &str) -> Option<U256> {
    U256::from_str_radix(strip_hex_prefix(text)?, 16).ok()
}

/// Parses a hash of 32 bytes from hexadecimal digits.
pub fn parse_hash(text: &str) -> Option<B256> {
    parse_bytes(text).map(B256::new)
}

/// Parses an address of 20 bytes from hexadecimal digits. The checksum in the case of the letters is not verified.
pub fn parse_address(text: &str) -> Option<Address> {
    parse_bytes(text).map(Address::new)
}

/// Parses exactly `N` bytes from hexadecimal digits.
pub fn parse_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    const_hex::decode_to_array(text).ok()
}

/// Formats a number as a quantity such as `0x1f`, without leading zeros.
pub fn to_quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// Returns the hexadecimal digits after `0x`; `None` for any other text. A sign is not a digit here, although
/// `from_str_radix` would accept a sign.
fn strip_hex_prefix(text: &str) -> Option<&str> {
    text.strip_prefix("0x").filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
