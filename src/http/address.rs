//! The address of a client: that of its connection or, behind a trusted proxy, the one that the proxy names.
//!
//! A client can send any forwarded header itself, so a header counts only if a trusted proxy sent the request. A proxy appends the
//! address that it sees to the header of the client. The list is therefore read from its right end, as far as the addresses are those
//! of trusted proxies.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// What limits per client count by: an IPv4 address, or an IPv6 network of 64 bits. One IPv6 client has a whole network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ClientAddress(IpAddr);

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// The proxies whose forwarded headers are believed. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl From<Vec<IpNet>> for TrustedProxies {
    fn from(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }
}

/// Reads a value of `--trusted-proxy`: an address, or a network such as `10.0.0.0/8`.
pub fn trusted_proxy(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => {
            text.parse().map_err(|_| "expected an address or a network, such as 10.0.0.7 or 10.0.0.0/8".to_owned())?
        }
    };
    if network.prefix_len() == 0 {
        return Err("this network contains every client, which could then choose its own address".to_owned());
    }
    Ok(network)
}

impl TrustedProxies {
    /// Whether this is the address of a trusted proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        !self.0.is_empty() && {
            let address = address.to_canonical();
            self.0.iter().any(|network| network.contains(&address))
        }
    }

    /// The client that sent a request over a connection of this peer. It is the peer itself unless the peer is a trusted proxy and its
    /// headers are well-formed. Where `X-Forwarded-For` and `Forwarded` name different clients, neither is believed: most proxies write
    /// one of them and pass on the other as the client sent it.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let named = match (headers.contains_key(X_FORWARDED_FOR), headers.contains_key(FORWARDED)) {
            (false, false) => None,
            (true, false) => self.by_x_forwarded_for(headers),
            (false, true) => self.by_forwarded(headers),
            (true, true) => {
                self.by_x_forwarded_for(headers).filter(|client| self.by_forwarded(headers) == Some(*client))
            }
        };
        named.unwrap_or(peer)
    }

    fn by_x_forwarded_for(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut search = Search { proxies: self, last: None };
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for node in value.to_str().ok()?.split(',').rev() {
                if let Some(client) = search.found(node_address(node.trim())?) {
                    return Some(client);
                }
            }
        }
        search.last
    }

    fn by_forwarded(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut search = Search { proxies: self, last: None };
        for value in headers.get_all(FORWARDED).iter().rev() {
            for element in split_unquoted(value.to_str().ok()?, ',')?.into_iter().rev() {
                if let Some(client) = search.found(forwarded_for(element)?) {
                    return Some(client);
                }
            }
        }
        search.last
    }
}

/// The search for the rightmost address that is not a trusted proxy's.
struct Search<'a> {
    proxies: &'a TrustedProxies,
    /// The address looked at last. If all are trusted, the leftmost one sent the request.
    last: Option<IpAddr>,
}

impl Search<'_> {
    fn found(&mut self, address: IpAddr) -> Option<IpAddr> {
        self.last = Some(address);
        (!self.proxies.contains(address)).then_some(address)
    }
}

/// The `for` of one element of a `Forwarded` header (RFC 7239), if it is an address.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_unquoted(element, ';')? {
        let (name, value) = pair.trim().split_once('=')?;
        if name.eq_ignore_ascii_case("for") {
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?,
                None => value,
            };
            if found.replace(node_address(value)?).is_some() {
                return None;
            }
        }
    }
    found
}

/// The parts of a text between separators that are outside of quotes; none if a quote is not closed.
fn split_unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            // No address needs one, and it could hide the end of a quotation.
            '\\' => return None,
            _ if character == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

/// An address with or without a port, as proxies write it.
fn node_address(text: &str) -> Option<IpAddr> {
    let is_port = |text: &str| (1..=5).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        if !rest.is_empty() && !rest.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        IpAddr::from(address.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        IpAddr::from(address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    /// The names and values of headers.
    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn client(peer: &str, headers: Headers<'_>) -> Option<String> {
        let proxies: Vec<IpNet> =
            ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"].iter().filter_map(|it| trusted_proxy(it).ok()).collect();
        let headers: HeaderMap = headers
            .iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
            .collect();
        Some(TrustedProxies::from(proxies).client(peer.parse().ok()?, &headers).to_string())
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy() {
        let (x, f) = ("x-forwarded-for", "forwarded");
        let cases: &[(&str, Headers<'_>, &str)] = &[
            ("10.0.0.1", &[], "10.0.0.1"),
            ("192.0.2.1", &[(x, "198.51.100.7")], "192.0.2.1"),
            ("10.0.0.1", &[(x, "198.51.100.7")], "198.51.100.7"),
            ("::ffff:10.0.0.1", &[(x, "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[(x, "203.0.113.9, 198.51.100.7, 10.1.1.1")], "198.51.100.7"),
            ("10.0.0.1", &[(x, "203.0.113.9, 198.51.100.7"), (x, "10.1.1.1,127.0.0.1")], "198.51.100.7"),
            ("10.0.0.1", &[(x, "garbage, 198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[(x, "10.2.2.2, 10.1.1.1")], "10.2.2.2"),
            ("10.0.0.1", &[(x, "198.51.100.7:4711")], "198.51.100.7"),
            ("10.0.0.1", &[(x, "2001:db8::7")], "2001:db8::7"),
            ("10.0.0.1", &[(x, "[2001:db8::7]:443")], "2001:db8::7"),
            ("10.0.0.1", &[(x, "::ffff:198.51.100.7")], "198.51.100.7"),
            ("2001:db8:1::5", &[(x, "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[(f, "for=198.51.100.7;proto=https")], "198.51.100.7"),
            ("10.0.0.1", &[(f, r#"for=203.0.113.9, For="[2001:db8::7]:47";by="a,b", for=10.0.0.2"#)], "2001:db8::7"),
            ("10.0.0.1", &[(f, "for=198.51.100.7"), (x, "198.51.100.7")], "198.51.100.7"),
        ];
        for (peer, headers, expected) in cases {
            assert_eq!(client(peer, headers).as_deref(), Some(*expected), "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_malformed_header_leaves_the_peer() {
        let (x, f) = ("x-forwarded-for", "forwarded");
        let cases: &[Headers<'_>] = &[
            &[(x, "")],
            &[(x, "unknown")],
            &[(x, "198.51.100.7,")],
            &[(x, "198.51.100.7, garbage")],
            &[(x, "198.51.100.7 10.0.0.2")],
            &[(x, "198.51.100.7:")],
            &[(x, "198.51.100.7:x")],
            &[(x, "198.51.100.07")],
            &[(x, "[198.51.100.7]")],
            &[(x, "[2001:db8::7")],
            &[(x, "[2001:db8::7]x")],
            &[(x, "fe80::1%eth0")],
            &[(x, "198.51.100.7\u{e9}")],
            &[(f, "198.51.100.7")],
            &[(f, "for=unknown")],
            &[(f, "for=_hidden")],
            &[(f, "for=\"198.51.100.7")],
            &[(f, r#"for="198.51.100.7\""#)],
            &[(f, "for=198.51.100.7;for=198.51.100.8")],
            &[(f, "proto=https")],
            // A client behind a proxy that writes only one of them has sent the other.
            &[(f, "for=203.0.113.9"), (x, "198.51.100.7")],
            &[(f, "garbage"), (x, "198.51.100.7")],
        ];
        for headers in cases {
            assert_eq!(client("10.0.0.1", headers).as_deref(), Some("10.0.0.1"), "{headers:?}");
        }
    }

    #[test]
    fn limits_count_by_ipv4_address_and_by_ipv6_network() {
        let shown = |text: &str| text.parse::<IpAddr>().map(|it| ClientAddress::from(it).to_string()).ok();
        assert_eq!(shown("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(shown("::ffff:192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(shown("2001:db8:1:2:3:4:5:6").as_deref(), Some("2001:db8:1:2::/64"));
        for wrong in ["", "x", "10.0.0.0/33", "0.0.0.0/0", "::/0", "10.0.0", "localhost", "10.0.0.1:80"] {
            assert!(trusted_proxy(wrong).is_err(), "{wrong}");
        }
    }
}
