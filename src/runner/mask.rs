//! Masking: sensitive values do not reach a log.
//!
//! It works on the bytes as they are read, before they are cut into lines, so a value is found whatever it is cut up by: writes, reads,
//! lines, pieces. What may be the beginning of a value is held back until it cannot be one any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, BuildError};
use zeroize::Zeroizing;

/// Shorter values occur in everything.
const SHORTEST: usize = 4;
const MASK: &[u8] = b"***";

/// The values that a job must not show. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Secrets(Option<Arc<Patterns>>);

struct Patterns {
    values: Vec<Zeroizing<Vec<u8>>>,
    automaton: AhoCorasick,
}

impl Secrets {
    /// These values. Of one with several lines each line is too: who writes a log puts something before every line.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        let values =
            values.into_iter().flat_map(|value| std::iter::once(value.trim()).chain(value.lines().map(str::trim)));
        let values: BTreeSet<&str> = values.filter(|value| value.len() >= SHORTEST).collect();
        if values.is_empty() {
            return Ok(Self(None));
        }
        let automaton = AhoCorasick::new(&values)?;
        let values = values.into_iter().map(|value| Zeroizing::new(value.as_bytes().to_vec())).collect();
        Ok(Self(Some(Arc::new(Patterns { values, automaton }))))
    }
}

/// Masks one stream of bytes.
pub(super) struct Mask {
    secrets: Secrets,
    /// What is not emitted yet.
    held: Vec<u8>,
    /// How many bytes at its beginning belong to a value whose mask was emitted.
    masked: usize,
}

impl Mask {
    /// Of a job that must not show these.
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets, held: Vec::new(), masked: 0 }
    }

    /// Takes bytes, and emits those of which it is known that they are to be seen, and a mask for each value among them.
    pub(super) fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        let Some(patterns) = self.secrets.0.clone() else { return emit(bytes) };
        self.held.extend_from_slice(bytes);
        self.release(&patterns, patterns.open_at(&self.held), &mut emit);
    }

    /// Emits what was held back, at the end of the stream.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(&[u8])) {
        if let Some(patterns) = self.secrets.0.clone() {
            self.release(&patterns, self.held.len(), &mut emit);
        }
    }

    /// Emits what begins before `end`; a value that began there may reach beyond it.
    fn release(&mut self, patterns: &Patterns, end: usize, emit: &mut impl FnMut(&[u8])) {
        let mut at = self.masked;
        for (start, stop) in patterns.found_in(&self.held) {
            if start >= end {
                break;
            }
            if start >= at {
                emit(&self.held[at..start]);
                emit(MASK);
            }
            at = at.max(stop);
        }
        if at < end {
            emit(&self.held[at..end]);
        }
        self.masked = at.saturating_sub(end);
        self.held.drain(..end);
    }
}

impl Patterns {
    /// Where values are, by where they begin. They may overlap.
    fn found_in(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found: Vec<_> =
            self.automaton.find_overlapping_iter(bytes).map(|found| (found.start(), found.end())).collect();
        found.sort_unstable();
        found
    }

    /// Where the longest end of these bytes begins that may be the beginning of a value.
    fn open_at(&self, bytes: &[u8]) -> usize {
        let open = |value: &[u8]| {
            let from = bytes.len().saturating_sub(value.len() - 1);
            let begins = |at: &usize| value.starts_with(&bytes[*at..]);
            memchr::memchr_iter(value[0], &bytes[from..]).map(|at| from + at).find(begins)
        };
        self.values.iter().filter_map(|value| open(value)).min().unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(secrets: &Secrets, reads: &[&[u8]]) -> String {
        let mut shown = Vec::new();
        let mut mask = Mask::new(secrets.clone());
        for read in reads {
            mask.push(read, |bytes| shown.extend_from_slice(bytes));
        }
        mask.finish(|bytes| shown.extend_from_slice(bytes));
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn values_are_masked_and_nothing_else() {
        let secrets = Secrets::of(["hunter2", "abc", "key: one\nkey: two\n", "unter"]).unwrap();
        let text = b"abc hunter2 hunter hunter2hunter2 key: one\nkey: two\nkey: three key: one";
        assert_eq!(mask(&secrets, &[text]), "abc *** h***  ******  ***\nkey: three ***".replace("  ", " "));
        assert_eq!(mask(&Secrets::of(["abc", "  "]).unwrap(), &[b"abc"]), "abc", "too short to be told from anything");
    }

    #[test]
    fn the_beginning_of_a_value_waits_for_the_rest() {
        let mut mask = Mask::new(Secrets::of(["hunter2"]).unwrap());
        let mut shown = Vec::new();
        mask.push(b"a hun", |bytes| shown.extend_from_slice(bytes));
        assert_eq!(shown, b"a ");
        mask.push(b"ger", |bytes| shown.extend_from_slice(bytes));
        assert_eq!(shown, b"a hunger");
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_stream_is_cut(
            values in proptest::collection::vec("[ab]{4,7}", 1..4),
            text in "[abc]{0,60}",
            cuts in proptest::collection::vec(0..60_usize, 0..8),
        ) {
            let secrets = Secrets::of(values.iter().map(String::as_str)).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let reads: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
            let shown = mask(&secrets, &reads);
            prop_assert_eq!(&shown, &mask(&secrets, &[text.as_bytes()]));
            prop_assert!(values.iter().all(|value| !shown.contains(value)), "{}", shown);
        }
    }
}
