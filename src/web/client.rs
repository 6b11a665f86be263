//! Finds the IP address of the client: the address of the socket's peer, or the address in `X-Forwarded-For` when the
//! peer is a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use config::IpNetwork;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The remote address of the socket on which a request arrived: a client or a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The IP address of the client. Rate limits count the requests of each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(pub IpAddr);

impl Client {
    /// Returns the address of the client: that of the socket's peer unless the peer is a trusted proxy. Each proxy
    /// appends the address of its own peer to `X-Forwarded-For`, so the list is read from the end, as long as a trusted
    /// proxy wrote the entry. Reading stops at an entry that is not an address, because the client may have forged all
    /// entries before it.
    pub fn from_headers(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> Client {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains_address(address));
        let mut client = peer.to_canonical();
        let values = headers.get_all(FORWARDED_FOR).iter().rev();
        // The header is split as bytes: a client may send invalid UTF-8, which must not hide the entries of proxies.
        for entry in values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
            if !is_trusted(client) {
                break;
            }
            let Some(address) = std::str::from_utf8(entry).ok().and_then(|entry| parse_forwarded_address(entry.trim()))
            else {
                break;
            };
            client = address.to_canonical();
        }
        Client(client)
    }
}

/// Returns true when the peer is not a trusted proxy but sends `X-Forwarded-For`: a proxy that is missing in the
/// configuration, or a client that pretends to be one.
pub fn is_forwarded_by_untrusted_peer(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> bool {
    let peer = peer.to_canonical();
    headers.contains_key(FORWARDED_FOR) && !trusted.iter().any(|network| network.contains_address(peer))
}

/// Parses an entry of `X-Forwarded-For`: `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, each with or without a port.
fn parse_forwarded_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted: Vec<IpNetwork> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        Client::from_headers(peer.parse().unwrap(), &headers, &trusted).0.to_string()
    }

    #[test]
    fn the_forwarded_address_counts_only_from_trusted_proxies() {
        for (peer, forwarded, trusted, expected) in [
            ("192.0.2.9", &["198.51.100.1"][..], &[][..], "192.0.2.9"),
            ("192.0.2.9", &["198.51.100.1"], &["10.0.0.0/8"], "192.0.2.9"),
            ("10.0.0.1", &[], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.7, 198.51.100.1"], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.7, 198.51.100.1,10.0.0.2 , 10.1.1.1"], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.7", "198.51.100.1"], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.7, unknown"], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1:4711"], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::5]:80"], &["10.0.0.0/8"], "2001:db8::5"),
            ("10.0.0.1", &["[2001:db8::5]"], &["10.0.0.0/8"], "2001:db8::5"),
            ("10.0.0.1", &["é, 198.51.100.7"], &["10.0.0.0/8"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7, é"], &["10.0.0.0/8"], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &["10.0.0.0/8"], "10.0.0.3"),
        ] {
            assert_eq!(client(peer, forwarded, trusted), expected, "{peer} {forwarded:?} {trusted:?}");
        }
    }
}
