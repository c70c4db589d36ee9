//! Where webhooks may lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

const LONGEST: usize = 2_000;

/// What is wrong with the address of a webhook, as far as that can be told without looking up names.
pub fn fault(url: &str, private_allowed: bool) -> Option<String> {
    let Ok(parsed) = Url::parse(url) else { return Some("This is not a URL.".to_owned()) };
    if !["http", "https"].contains(&parsed.scheme()) {
        return Some("It begins with https:// or http://.".to_owned());
    }
    if url.len() > LONGEST {
        return Some(format!("It has at most {LONGEST} bytes."));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some("It cannot hold a password, which everybody could read.".to_owned());
    }
    match parsed.host() {
        None => Some("It names no host.".to_owned()),
        Some(Host::Ipv4(address)) if !private_allowed && !is_public(address.into()) => Some(PRIVATE.to_owned()),
        Some(Host::Ipv6(address)) if !private_allowed && !is_public(address.into()) => Some(PRIVATE.to_owned()),
        Some(_) => None,
    }
}

/// What is said of an address that is not public.
pub const PRIVATE: &str = "It leads to a private address, which the server does not allow (--allow-private-webhooks).";

/// Whether an address is one of the internet's, and of no network that the server may be in.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b); // carriers' own
    let protocols = (a, b, c) == (192, 0, 0) || (a == 198 && (18..20).contains(&b)); // and benchmarks
    let relays = (a, b, c) == (192, 88, 99); // into IPv6
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || shared
        || protocols
        || relays
        || a == 0
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = embedded_v4(address) {
        return is_public_v4(inner);
    }
    let [first, second, ..] = address.segments();
    let protocols = first == 0x2001 && second < 0x0200; // tunnels to IPv4 addresses among them
    let documentation = (first, second) == (0x2001, 0x0db8) || (first == 0x3fff && second < 0x1000);
    // Only this part of the space is given out.
    first & 0xe000 == 0x2000 && !protocols && !documentation
}

/// The IPv4 address that is reached through an IPv6 address: mapped, NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => address.to_ipv4_mapped(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for address in ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "3fff::1",
            "2001:0:7f00:1::1",
            "2001:20::1",
            "192.88.99.1",
            "64:ff9b:1::7f00:1",
            "::127.0.0.1",
            "fec0::1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_looked_at_before_it_is_stored() {
        for url in ["https://example.com/hook", "http://1.1.1.1:8080/"] {
            assert_eq!(fault(url, false), None, "{url}");
        }
        for url in [
            "ftp://example.com",
            "no url",
            "http://user:password@example.com",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://2130706433/",
            "http://0x7f.1/",
        ] {
            assert!(fault(url, false).is_some(), "{url}");
        }
        assert_eq!(fault("http://127.0.0.1/", true), None);
    }
}
