//! Where webhooks may lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::model::naming::is_unfit;

const LONGEST: usize = 2_000;

/// The address of a webhook as it is stored, in the form in which it is used; or what is wrong with it, as far as that can be told without
/// looking up names.
pub fn parse(url: &str, private_allowed: bool) -> Result<String, String> {
    if url.len() > LONGEST {
        return Err(format!("It has at most {LONGEST} bytes."));
    }
    // The URL standard would remove some of these without a word.
    if url.contains(|c: char| c.is_whitespace() || is_unfit(c)) {
        return Err("It cannot hold white space, control characters or invisible characters.".to_owned());
    }
    let parsed = Url::parse(url).map_err(|_| "This is not a URL.".to_owned())?;
    match fault(&parsed, private_allowed) {
        None if parsed.as_str().len() > LONGEST => Err(format!("It has at most {LONGEST} bytes.")),
        None => Ok(parsed.into()),
        Some(fault) => Err(fault),
    }
}

/// An address that was stored, in the form in which it is used: an earlier version stored addresses as they were given.
pub fn stored(url: String) -> String {
    Url::parse(&url).map_or(url, String::from)
}

fn fault(url: &Url, private_allowed: bool) -> Option<String> {
    if !["http", "https"].contains(&url.scheme()) {
        return Some("It begins with https:// or http://.".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("It cannot hold a password, which everybody could read.".to_owned());
    }
    match url.host() {
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

    fn fault(url: &str, private_allowed: bool) -> Option<String> {
        parse(url, private_allowed).err()
    }

    #[test]
    fn an_address_is_stored_as_it_is_used() {
        for (given, stored) in [
            ("https://example.com/hook", "https://example.com/hook"),
            ("https://EXAMPLE.com:443/a/../hook?key=a%20b", "https://example.com/hook?key=a%20b"),
            ("http://1.1.1.1:8080", "http://1.1.1.1:8080/"),
            ("https://bücher.example/é", "https://xn--bcher-kva.example/%C3%A9"),
            ("http://0x01010101/", "http://1.1.1.1/"),
            ("https:\\\\example.com\\hook", "https://example.com/hook"),
        ] {
            assert_eq!(parse(given, false).as_deref(), Ok(stored), "{given}");
        }
        assert_eq!(stored(" https://example.com/ho\r\nok\n".to_owned()), "https://example.com/hook");
        assert_eq!(parse("http://2130706433/", true).as_deref(), Ok("http://127.0.0.1/"));
    }

    #[test]
    fn an_address_that_leads_into_a_private_network_is_refused_however_it_is_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "0x7F.0x0.0x0.0x1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "①②⑦.⓪.⓪.①",
            "１２７.0.0.1",
            "127。0。0。1",
            "0",
            "0.0.0.0",
            "10.0.0.1",
            "167772161",
            "012.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "3232235521",
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:a9fe:a9fe]",
            "[0:0:0:0:0:ffff:10.0.0.1]",
            "[::127.0.0.1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::1]",
        ] {
            for url in [format!("http://{host}/"), format!("https://{host}:8443/hook"), format!("http:\\\\{host}/")] {
                assert_eq!(fault(&url, false).as_deref(), Some(PRIVATE), "{url}");
            }
        }
    }

    #[test]
    fn what_is_no_plain_web_address_is_refused() {
        for url in [
            "",
            "no url",
            "//example.com/",
            "/hook",
            "example.com/hook",
            "http://",
            "https://",
            "http://:80/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "dict://example.com:11211/",
            "javascript:alert(1)",
            "data:text/plain,x",
            "ws://example.com/",
            "http://user:password@example.com/",
            "http://user@example.com/",
            "http://:password@example.com/",
            "http://example.com@127.0.0.1/",
            "http://127.0.0.1@example.com/",
            "https://example.com:99999/",
            "http://[::1",
            "http://[fe80::1%25eth0]/",
            "http://256.256.256.256/",
            "http://exa mple.com/",
            "http://example.com/a b",
            "http://example.com/\r\nX-Injected: 1",
            "http://example.com/\n",
            "http://exam\tple.com/",
            "\thttp://example.com/",
            " http://example.com/",
            "http://example.com/ ",
            "http://example.com/\u{0}",
            "http://example.com/\u{200b}",
            "http://example.com/\u{202e}",
            "http://example.com/\u{a0}",
            "http://example.com/\u{7f}",
            "http://example.com/\u{2028}",
        ] {
            assert!(fault(url, false).is_some(), "{url:?}");
            assert!(!url.contains("127") && !url.contains("::1") || fault(url, true).is_some(), "{url:?}");
        }
        assert!(fault(&format!("https://example.com/{}", "a".repeat(LONGEST)), false).is_some());
        // Longer when it is encoded.
        assert!(fault(&format!("https://example.com/{}", "é".repeat(900)), false).is_some());
        assert_eq!(fault("http://127.0.0.1/", true), None);
    }
}
