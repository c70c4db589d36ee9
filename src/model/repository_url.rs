//! Where a workspace's repository comes from and goes to, as a user names it.

use std::fmt;

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::sql_types::Text;
use url::Url;
use zeroize::Zeroizing;

const LONGEST: usize = 2_000;

/// A git URL: https, http, ssh, git or file, or `user@host:path`. It may hold a password, so its `Debug` and `Display` leave out what stands before
/// the host.
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
                f.write_str(url.as_str())
            }
            None => f.write_str(self.0.rsplit_once('@').map_or(&self.0, |(_, rest)| rest)),
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
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("It cannot hold white space or control characters.".to_owned());
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
        ] {
            assert!(fault(text, false).is_some(), "{text}");
        }
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
        assert_eq!(url("git@example.com:a/b.git").to_string(), "example.com:a/b.git");
        assert_eq!(url("ssh://git@example.com/a").to_string(), "ssh://example.com/a");
        assert_eq!(url("ssh://git@example.com/a").access().address, "ssh://git@example.com/a");
    }
}
