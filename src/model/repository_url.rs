//! Where a workspace's repository comes from and goes to, as a user names it.

use std::fmt;

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::sql_types::Text;
use url::Url;
use zeroize::Zeroizing;

use super::naming::is_unfit;

const LONGEST: usize = 2_000;
/// What begins the query or the fragment of a URL.
const BEGIN_OF_QUERY: [char; 2] = ['?', '#'];

/// A git URL: https, http, ssh, git or file, or `user@host:path`. It may hold a password, so its `Debug` and `Display` leave out what stands before
/// the host. They also leave out a query and a fragment, which an earlier version accepted, and which may hold a secret too.
#[derive(Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub struct RepositoryUrl(String);

/// What git has to be told to use a URL.
pub struct Access {
    /// The address, without what nobody is to read.
    pub address: String,
    /// What git may use to get there, as GIT_ALLOW_PROTOCOL names it.
    pub protocols: &'static str,
    /// Who asks, if the URL says so and the address does not.
    pub user: Option<String>,
    /// The password that goes with it.
    pub password: Option<Zeroizing<String>>,
}

impl RepositoryUrl {
    /// The URL that a user gives, or what is wrong with it.
    pub fn parse(text: String, files_allowed: bool) -> Result<Self, String> {
        match fault(&text, files_allowed) {
            None => Ok(Self(text)),
            Some(fault) => Err(fault),
        }
    }

    /// All of it, as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How git gets there.
    pub fn access(&self) -> Access {
        let plain = |protocols| Access { address: self.0.clone(), protocols, user: None, password: None };
        let Some(mut url) = self.url() else { return plain("ssh") };
        let protocols = match url.scheme() {
            "https" => "https",
            "http" => "http:https", // it may be sent on
            "git" => return plain("git"),
            "file" => return plain("file"),
            _ => return plain("ssh"),
        };
        let user = decode(url.username()).filter(|it| !it.is_empty());
        let password = url.password().and_then(decode).map(Zeroizing::new);
        // Neither can fail where there is a host.
        let _ = (url.set_username(""), url.set_password(None));
        Access { address: url.into(), protocols, user, password }
    }

    /// The URL, unless it is of the form `user@host:path`.
    fn url(&self) -> Option<Url> {
        self.0.contains("://").then(|| Url::parse(&self.0).ok()).flatten()
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.url() {
            Some(mut url) => {
                let _ = (url.set_username(""), url.set_password(None)); // a file's has neither
                url.set_query(None);
                url.set_fragment(None);
                f.write_str(url.as_str())
            }
            None => {
                let address = self.0.split(BEGIN_OF_QUERY).next().unwrap_or_default();
                f.write_str(address.rsplit_once('@').map_or(address, |(_, rest)| rest))
            }
        }
    }
}

impl fmt::Debug for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<String> for RepositoryUrl {
    /// One that was stored.
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

fn fault(text: &str, files_allowed: bool) -> Option<String> {
    const FORMS: &str = "It is a git URL: https://…, http://…, ssh://…, git://… or user@host:path.";
    if text.len() > LONGEST {
        return Some(format!("It has at most {LONGEST} bytes."));
    }
    if text.contains(|c: char| c.is_whitespace() || is_unfit(c)) {
        return Some("It cannot hold white space, control characters or invisible characters.".to_owned());
    }
    if text.contains(BEGIN_OF_QUERY) {
        return Some("It cannot hold a query or a fragment (`?` or `#`): git does not use them, and a secret in them would be shown.".to_owned());
    }
    if text.starts_with('-') {
        return Some(FORMS.to_owned());
    }
    if !text.contains("://") {
        return (!is_ssh(text)).then(|| FORMS.to_owned());
    }
    let Ok(url) = Url::parse(text) else { return Some(FORMS.to_owned()) };
    // Of what follows, git and this would take different parts for the scheme and the host.
    let rest = text.strip_prefix(url.scheme()).and_then(|rest| rest.strip_prefix("://"));
    if rest.is_none_or(|rest| rest.contains('\\') || (rest.starts_with('/') && url.scheme() != "file")) {
        return Some(FORMS.to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "file" if !files_allowed => Some(
            "It leads to the server's disk, which the server does not allow (--allow-file-repositories).".to_owned(),
        ),
        "file" if !host.is_empty() => Some("It is file:///path, without a host.".to_owned()),
        "file" => None,
        "https" | "http" | "ssh" | "git" if host.is_empty() => Some("It names no host.".to_owned()),
        "https" | "http" => [Some(url.username()), url.password()]
            .into_iter()
            .flatten()
            .any(|it| decode(it).is_none())
            .then(|| "What stands before its host cannot be read.".to_owned()),
        "ssh" | "git" if url.password().is_some() || (url.scheme() == "git" && !url.username().is_empty()) => {
            Some("Only https:// and http:// know passwords; with ssh it is the key of the server's user.".to_owned())
        }
        // Either could be taken for an option of ssh's.
        "ssh" | "git" if [host, url.username()].iter().any(|it| it.starts_with('-') || it.contains('%')) => {
            Some(FORMS.to_owned())
        }
        "ssh" | "git" => None,
        _ => Some(FORMS.to_owned()),
    }
}

/// Whether it is of the form `user@host:path`.
fn is_ssh(text: &str) -> bool {
    let is_name = |it: &str| {
        !it.is_empty()
            && !it.starts_with('-')
            && it.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let parts = text.split_once(':').and_then(|(to, path)| Some((to.split_once('@')?, path)));
    parts.is_some_and(|((user, host), path)| {
        is_name(user) && is_name(host) && !path.is_empty() && !path.starts_with([':', '-'])
    })
}

/// Undoes the percent-encoding of a part of a URL. Nothing if that does not come to a text that can be handed on in a line.
fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|it| char::from(it).to_digit(16)).and_then(|it| u8::try_from(it).ok());
        bytes.push(if byte == b'%' { digit()? * 16 + digit()? } else { byte });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RepositoryUrl {
        RepositoryUrl::parse(text.to_owned(), true).unwrap()
    }

    #[test]
    fn what_leads_to_a_git_server_is_taken() {
        for text in [
            "https://example.com/a/b.git",
            "https://user:p%40ss@example.com/a.git",
            "http://example.com:8080/a",
            "ssh://git@example.com:2222/a.git",
            "git://example.com/a.git",
            "git@example.com:a/b.git",
        ] {
            assert_eq!(fault(text, false), None, "{text}");
        }
        assert_eq!(fault("file:///srv/a.git", true), None);
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for text in [
            "",
            "/srv/a.git",
            "../a.git",
            "a.git",
            "file:///srv/a.git",
            "ext::sh -c true",
            "ext::true",
            "ext::sh://example.com",
            "fd::17",
            "-oProxyCommand=true",
            "--upload-pack=true",
            "-git@example.com:a",
            "git@-oProxyCommand=true:a",
            "ssh://-oProxyCommand=true/a",
            "ssh://git:password@example.com/a",
            "ftp://example.com/a",
            "https:///a",
            "https:/example.com/a",
            "https://example.com\\@other/a",
            "ssh://%2DoProxyCommand=true/a",
            "https://user:a%0ab@example.com/a",
            "https://example.com/a b",
            "git@example.com::a",
            "https://example.com/a.git?access_token=secret",
            "https://example.com/a.git#secret",
            "http://example.com/a?x",
            "ssh://git@example.com/a.git?key=secret",
            "git://example.com/a#b",
            "git@example.com:a.git?token=secret",
            "git@example.com:a#b",
            "ext::sh -c 'touch /tmp/x'% >&2",
            "ext::ssh%20-oProxyCommand=true%20example.com",
            "transport::example.com",
            "fd::17,18/foo",
            "--upload-pack=touch /tmp/x",
            "--receive-pack=true",
            "-u",
            "-c",
            "git@example.com:-oProxyCommand=true",
            "git@example.com:--upload-pack=true",
            "git@-x:a",
            "@example.com:a",
            "git@:a",
            "git@example.com:",
            "ssh://git@-oProxyCommand=true/a",
            "ssh://-x@example.com/a",
            "ssh://%2d%6fProxyCommand=true@example.com/a",
            "git://user@example.com/a",
            "git://-x/a",
            "file://localhost/srv/a.git",
            "file:/srv/a.git",
            "FILE:///srv/a.git",
            "http:example.com/a",
            "http:///etc/passwd",
            "https://",
            "https://user:a%00b@example.com/a",
            "https://user:a%0d%0ab@example.com/a",
            "https://%ff@example.com/a",
            "https://example.com/a\nb",
            "https://example.com/a\r\n",
            "\thttps://example.com/a",
            "https://example.com/a\u{0}",
            "https://example.com/\u{202e}a",
            "https://example.com/a\u{200b}",
            "https://example.com/\u{a0}",
            "ftps://example.com/a",
            "rsync://example.com/a",
            "gopher://example.com/a",
            "javascript:alert(1)",
            "data:text/plain,x",
            "C:\\srv\\a.git",
            "\\\\example.com\\a.git",
            "~/a.git",
            "./a.git",
        ] {
            assert!(fault(text, false).is_some(), "{text}");
        }
        assert!(fault(&format!("https://example.com/{}", "a".repeat(LONGEST)), false).is_some());
        assert!(fault("file:///srv/a.git?x", true).is_some());
        assert!(fault("file://example.com/srv/a.git", true).is_some());
    }

    #[test]
    fn what_stands_before_the_host_is_not_shown() {
        let with_password = url("https://user:p%40ss@example.com/a.git");
        assert_eq!(format!("{with_password} {with_password:?}"), "https://example.com/a.git https://example.com/a.git");
        let access = with_password.access();
        assert_eq!((access.address.as_str(), access.protocols), ("https://example.com/a.git", "https"));
        assert_eq!(access.user.as_deref(), Some("user"));
        assert_eq!(access.password.as_ref().map(|it| it.as_str()), Some("p@ss"));
        for stored in
            ["https://user:pass@example.com/a.git?token=secret#secret", "https://example.com/a.git?token=secret"]
        {
            let stored = RepositoryUrl::from(stored.to_owned());
            assert_eq!(format!("{stored} {stored:?}"), "https://example.com/a.git https://example.com/a.git");
        }
        assert_eq!(RepositoryUrl::from("git@example.com:a?t=x@y".to_owned()).to_string(), "example.com:a");
        assert_eq!(url("git@example.com:a/b.git").to_string(), "example.com:a/b.git");
        assert_eq!(url("ssh://git@example.com/a").to_string(), "ssh://example.com/a");
        assert_eq!(url("ssh://git@example.com/a").access().address, "ssh://git@example.com/a");
    }
}
