//! The provider of an endpoint: two endpoints of one provider are one source, because one operator answers for both.

use std::net::IpAddr;

use url::{Host, Url};

/// Labels below a country's domain under which that country registers names, such as `co` in `example.co.uk`.
const REGISTRY_LABELS: [&str; 10] = ["ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"];
/// Top-level domains of private networks, in which every name is a machine of the operator.
const PRIVATE_DOMAINS: [&str; 6] = ["arpa", "home", "internal", "lan", "local", "localdomain"];

/// The identity of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider(String);

impl Provider {
    /// Returns the provider of an endpoint with this URL. A public name belongs to the provider who registered its
    /// domain (`a.example.com` and `b.example.com` are one provider), and a public IP address is a provider of its own. On
    /// a private network each host and port is a provider of its own, because the operator runs a node there.
    pub fn from_url(url: &Url) -> Provider {
        let port = url.port_or_known_default().unwrap_or(0);
        Provider(match url.host() {
            Some(Host::Ipv4(address)) if address.is_loopback() => format!("loopback:{port}"),
            Some(Host::Ipv6(address)) if address.is_loopback() => format!("loopback:{port}"),
            Some(Host::Ipv4(address)) => name_provider_by_address(IpAddr::V4(address), port),
            Some(Host::Ipv6(address)) => {
                name_provider_by_address(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4), port)
            }
            Some(Host::Domain("localhost")) => format!("loopback:{port}"),
            Some(Host::Domain(name)) => name_provider_by_domain(name, port),
            None => "?".to_owned(),
        })
    }
}

/// Returns the name of the provider of an IP address: the address alone if it is public, the address with the port if
/// it is private.
fn name_provider_by_address(address: IpAddr, port: u16) -> String {
    let is_private = match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    if is_private { format!("{address}:{port}") } else { address.to_string() }
}

/// Returns the name of the provider of a host: the registered domain of a public name, such as `example.com`, or the
/// whole name with the port if it belongs to a private network. `name` is in lower case, because `Url` has converted
/// it.
fn name_provider_by_domain(name: &str, port: u16) -> String {
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    match labels.as_slice() {
        [] | [_] => format!("{name}:{port}"),
        [.., last] if PRIVATE_DOMAINS.contains(last) => format!("{name}:{port}"),
        [.., third, second, last] if last.len() == 2 && REGISTRY_LABELS.contains(second) => {
            format!("{third}.{second}.{last}")
        }
        [.., second, last] => format!("{second}.{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider_of(url: &str) -> Provider {
        Provider::from_url(&url.parse().unwrap())
    }

    #[test]
    fn endpoints_of_one_registered_domain_or_one_address_are_one_provider() {
        for (one, two) in [
            ("https://eth.example.com/v2/key", "https://ETH2.Example.com:8443"),
            ("https://example.com", "https://a.b.example.com."),
            ("https://a.example.co.uk", "https://b.example.co.uk"),
            ("http://203.0.113.7:8545", "http://203.0.113.7:8546"),
            ("http://localhost:8545", "http://127.0.0.1:8545"),
            ("http://[::1]:8545", "http://127.0.0.2:8545"),
            ("http://[::ffff:203.0.113.7]:1", "http://203.0.113.7:2"),
        ] {
            assert_eq!(provider_of(one), provider_of(two), "{one} {two}");
        }
    }

    #[test]
    fn endpoints_of_other_domains_addresses_and_private_ports_are_other_providers() {
        for (one, two) in [
            ("https://eth.example.com", "https://eth.example.org"),
            ("https://example.co.uk", "https://another.co.uk"),
            ("http://203.0.113.7", "http://203.0.113.8"),
            ("http://127.0.0.1:8545", "http://127.0.0.1:8546"),
            ("http://10.0.0.1:8545", "http://10.0.0.1:8546"),
            ("http://geth:8545", "http://reth:8545"),
            ("http://geth.internal:8545", "http://reth.internal:8545"),
            ("http://[fd00::1]:8545", "http://[fd00::1]:8546"),
        ] {
            assert_ne!(provider_of(one), provider_of(two), "{one} {two}");
        }
    }
}
