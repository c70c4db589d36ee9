//! The Host and Origin headers, parsed as strictly as browsers write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::Url;

/// The value of a Host header: a host, and a port where it is not the default one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    host: Host<'a>,
    port: Option<u16>,
}

/// A host. Names are compared without regard to case.
#[derive(Debug, Clone, Copy)]
enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Name(one), Self::Name(other)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl Host<'_> {
    /// Whether this host can only be the client's own machine.
    fn is_local(self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => {
                let (start, suffix) = name.split_at_checked(name.len().saturating_sub(9)).unwrap_or((name, ""));
                suffix.eq_ignore_ascii_case("localhost") && (start.is_empty() || start.ends_with('.'))
            }
        }
    }
}

impl<'a> Authority<'a> {
    /// Parses `host` or `host:port`. A host is an IPv4 address, an IPv6 address in brackets, or a name of ASCII letters, digits, `-`,
    /// `_` and dots: other names are sent in their ASCII form (IDNA).
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let host = Host::Address(address.parse::<Ipv6Addr>().ok()?.into());
            let port = match rest.strip_prefix(':') {
                Some(digits) => Some(port(digits)?),
                None => rest.is_empty().then_some(None)?,
            };
            return Some(Self { host, port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (text, None),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return None;
        }
        let host = host.parse::<Ipv4Addr>().map_or(Host::Name(host), |it| Host::Address(it.into()));
        Some(Self { host, port })
    }

    /// Whether clients may call the server by this host: by any address, by a name of this machine, and by the names allowed.
    pub(super) fn is_known(&self, allowed: &[AllowedHost]) -> bool {
        match self.host {
            Host::Address(_) => true,
            Host::Name(name) => self.host.is_local() || allowed.iter().any(|it| it.0.eq_ignore_ascii_case(name)),
        }
    }
}

fn port(digits: &str) -> Option<u16> {
    digits.bytes().all(|it| it.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The origin of a page: the scheme, host and port that the page was loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: url::Host<String>,
    /// The port, where it is not the default one of the scheme.
    port: Option<u16>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Origin {
    /// Parses an Origin header. Browsers write an origin in one form only, the serialization of the URL standard; anything else, such as
    /// `null`, another case, a default port or a user name, is not an origin.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::of_url(text).filter(|origin| origin.to_string() == text)
    }

    /// The origin of a URL that has no more than an origin.
    fn of_url(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host()?.to_owned();
        bare.then(|| Self { scheme: url.scheme().to_owned(), host, port: url.port() })
    }

    fn host(&self) -> Host<'_> {
        match &self.host {
            url::Host::Domain(name) => Host::Name(name),
            url::Host::Ipv4(address) => Host::Address((*address).into()),
            url::Host::Ipv6(address) => Host::Address((*address).into()),
        }
    }

    /// The default port of the schemes that a web page is loaded by.
    fn default_port(&self) -> Option<u16> {
        match self.scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        }
    }

    /// Whether pages of this origin come from the server that the Host header names. A proxy may have taken TLS off, so both schemes
    /// of the web do; a port that the header leaves out is the default one of the origin's scheme.
    pub(super) fn is_of(&self, server: &Authority<'_>) -> bool {
        self.default_port().is_some_and(|default| {
            self.host() == server.host && self.port.unwrap_or(default) == server.port.unwrap_or(default)
        })
    }

    /// Whether pages of this origin and the server are both on the client's own machine.
    pub(super) fn is_neighbour_of(&self, server: &Authority<'_>) -> bool {
        self.default_port().is_some() && self.host().is_local() && server.host.is_local()
    }
}

/// A value of `--allow-origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `*`: any.
    Any,
    /// This one.
    Origin(Origin),
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err("pages of any site can have the origin null; to allow any page, use *".to_owned());
        }
        // A browser never sends one with an asterisk: it is not a wildcard.
        let origin = Origin::of_url(text).filter(|it| !it.host.to_string().contains('*')).map(Self::Origin);
        origin.ok_or_else(|| "expected a scheme, a host and a port, such as https://app.example.com".to_owned())
    }
}

impl AllowedOrigin {
    /// Whether this allows an origin; none where the header is not one.
    pub(super) fn allows(&self, origin: Option<&Origin>) -> bool {
        match self {
            Self::Any => true,
            Self::Origin(allowed) => origin == Some(allowed),
        }
    }
}

/// A value of `--allow-host`: a name in its ASCII form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(String);

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = url::Host::parse(text).map(|it| it.to_string()).ok();
        let host = host.filter(|it| Authority::parse(it).is_some());
        host.map(Self).ok_or_else(|| "expected a host name without a port, such as jobs.example.com".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_and_perhaps_a_port() {
        for right in
            ["localhost", "LocalHost:8080", "a.b-c_d", "127.0.0.1:0", "[::1]", "[::1]:65535", "localhost.", "1.2.3"]
        {
            assert!(Authority::parse(right).is_some(), "{right}");
        }
        for wrong in [
            "",
            ":80",
            "localhost:",
            "localhost:x",
            "localhost:+80",
            "localhost:65536",
            "localhost:80:80",
            "::1",
            "[::1",
            "[::1].evil.example",
            "[::1]:",
            "[::1]x",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "user@localhost",
            "localhost/",
            "localhost#",
            "localhost?",
            "local host",
            " localhost",
            "localhost\t",
            "l%6fcalhost",
            "lo\u{301}calhost",
        ] {
            assert!(Authority::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_local_host_is_a_loopback_address_or_localhost() {
        let is_local = |text: &str| Authority::parse(text).is_some_and(|it| it.host.is_local());
        for local in ["localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "127.9.9.9:80", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "localhost.",
            "notlocalhost",
            "localhost.example.com",
            "127.1",
            "0177.0.0.1",
            "128.0.0.1",
            "0.0.0.0",
            "[::2]",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn options_are_normalised_and_headers_are_not() {
        let allowed: Result<AllowedOrigin, _> = "HTTPS://App.Example.com:443/".parse();
        let header = Origin::parse("https://app.example.com");
        assert_eq!(allowed, header.map(AllowedOrigin::Origin).ok_or_else(String::new));
        for wrong in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/path",
            "https://me@a.example",
            "a.example:80",
        ] {
            assert!(wrong.parse::<AllowedOrigin>().is_err(), "{wrong}");
        }
        assert_eq!("Jobs.Example.com".parse(), Ok(AllowedHost("jobs.example.com".to_owned())));
        assert_eq!("b\u{fc}cher.example".parse(), Ok(AllowedHost("xn--bcher-kva.example".to_owned())));
        for wrong in ["", "jobs.example.com:8080", "http://jobs.example.com", "a b", "*.example.com"] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong}");
        }
    }
}
