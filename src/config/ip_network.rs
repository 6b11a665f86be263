//! IP networks such as `10.0.0.0/8`.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer};

use crate::deserializers;

/// An IP network: all addresses whose first `bits` bits are the same as those of `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    bits: u8,
}

impl IpNetwork {
    /// Returns true when the address is in the network. An IPv4 address that is mapped to IPv6 counts as IPv4.
    pub fn contains_address(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Parses `10.0.0.0/8`, or an address without a prefix length, which is a network of one address.
impl FromStr for IpNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<IpNetwork, String> {
        let invalid = || format!("\"{text}\" is not a network such as \"10.0.0.0/8\" or \"::1/128\"");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), |bits| bits.parse().map_err(|_| invalid()))?;
        if bits > bits_max { Err(invalid()) } else { Ok(IpNetwork { address, bits }) }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> Deserialize<'de> for IpNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IpNetwork, D::Error> {
        deserializers::deserialize_from_str(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.6"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:126.0.0.1"),
        ] {
            let parsed: IpNetwork = network.parse().unwrap();
            assert!(parsed.contains_address(inside.parse().unwrap()), "{network} has {inside}");
            assert!(!parsed.contains_address(outside.parse().unwrap()), "{network} does not have {outside}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "host/8"] {
            assert!(text.parse::<IpNetwork>().is_err(), "{text}");
        }
    }
}
