//! The two text forms of a TRON address: Base58Check in wallets, 42 hexadecimal digits in the node's API. The virtual
//! machine uses only the 20 bytes of the key.

use bitcoin::base58;
use chain::{Address, AddressKey, address::encode_tron_address};

/// The byte that precedes the key in both text forms and in every protobuf field that holds an address.
pub const PREFIX: u8 = 0x41;

/// The error for a text that is not a TRON address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a TRON address: expected 34 letters and digits beginning with T; upper and lower case matter")]
pub struct BadAddress;

/// Parses the Base58Check form, as wallets show it. Length, alphabet, checksum and prefix must be correct.
pub fn parse_tron_address(text: &str) -> Result<Address, BadAddress> {
    let payload = base58::decode_check(text).map_err(|_| BadAddress)?;
    let address = parse_prefixed_bytes(&payload).map(encode_tron_address).ok_or(BadAddress)?;
    if address.text == text { Ok(address) } else { Err(BadAddress) }
}

/// Returns the 21 bytes that address fields of protobuf messages contain: the prefix and the key.
pub fn to_prefixed_bytes(key: AddressKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(21);
    bytes.push(PREFIX);
    bytes.extend_from_slice(&key.0);
    bytes
}

/// Parses the 21 bytes that [`to_prefixed_bytes`] returns.
pub fn parse_prefixed_bytes(bytes: &[u8]) -> Option<AddressKey> {
    let (prefix, key) = bytes.split_first()?;
    if *prefix == PREFIX { key.try_into().ok().map(AddressKey) } else { None }
}

/// Returns 42 hexadecimal digits beginning with `41`, the form that nodes use unless a request sets `visible`.
pub fn to_prefixed_hex(key: AddressKey) -> String {
    const_hex::encode(to_prefixed_bytes(key))
}

/// Parses the 42 hexadecimal digits that [`to_prefixed_hex`] returns.
pub fn parse_hex_with_network_prefix(text: &str) -> Option<AddressKey> {
    let mut bytes = [0u8; 21];
    const_hex::decode_to_slice(text, &mut bytes).ok()?;
    parse_prefixed_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_are_not_addresses_are_rejected() {
        for text in [
            "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdh",
            "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYd",
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
            "41c8599111f29c1e1e061265b4af93ea1f274ad78a",
            " TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH",
            "",
        ] {
            assert_eq!(parse_tron_address(text), Err(BadAddress), "{text}");
        }
        assert_eq!(
            parse_tron_address("T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb").map(|zero| zero.key),
            Ok(AddressKey([0; 20]))
        );
    }

    proptest! {
        #[test]
        fn texts_round_trip(key in any::<[u8; 20]>().prop_map(AddressKey)) {
            prop_assert_eq!(parse_tron_address(&encode_tron_address(key).text).map(|address| address.key), Ok(key));
            prop_assert_eq!(parse_hex_with_network_prefix(&to_prefixed_hex(key)), Some(key));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,50}") {
            let _ = parse_tron_address(&text);
            let _ = parse_hex_with_network_prefix(&text);
        }
    }
}
