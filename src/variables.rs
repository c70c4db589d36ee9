//! Variables for a process's environment.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use zeroize::Zeroizing;

/// Names and values, which may hold any bytes but NUL. The values are wiped from memory when this is dropped. Its `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(OsString, Zeroizing<Vec<u8>>)>);

impl Variables {
    /// Adds a variable. Of two with the same name the later one counts.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl AsRef<OsStr>) {
        self.0.push((name.into(), Zeroizing::new(value.as_ref().as_bytes().to_vec())));
    }

    /// Adds all of these.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The variables, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), OsStr::from_bytes(value)))
    }

    /// As many bytes as [`Variables::encode`] answers.
    pub fn encoded_len(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum()
    }

    /// The form that an environment has: `NAME=VALUE`, and a NUL after each.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // It never grows, which would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.encoded_len()));
        for (name, value) in &self.0 {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value);
            bytes.push(0);
        }
        bytes
    }

    /// What was encoded.
    pub fn decode(bytes: &[u8]) -> Self {
        let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
            let end = variable.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (OsStr::from_bytes(&variable[..end]), &variable[end + 1..]);
            Some((name.to_owned(), Zeroizing::new(value.to_vec())))
        });
        Self(variables.collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_but_nul_are_kept() {
        let mut variables = Variables::default();
        variables.set("EMPTY", "");
        variables.set("LINES", "a\nb=c\n");
        variables.set("BYTES", OsStr::from_bytes(b"\xff\xfe"));
        let encoded = variables.encode();
        assert_eq!((encoded.len(), encoded.capacity()), (variables.encoded_len(), variables.encoded_len()));
        assert!(Variables::decode(&encoded) == variables);
        assert!(!format!("{variables:?}").contains("b=c"));
        assert!(Variables::decode(b"") == Variables::default());
    }
}
