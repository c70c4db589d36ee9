//! Masking: sensitive values do not reach a log.
//!
//! It works on the bytes as they are read, before they are cut into lines, so a value is found whatever it is cut up by: writes, reads,
//! lines, pieces. What may be the beginning of a value is held back until it cannot be one any more.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::patterns::{Patterns, State};
use crate::model::{SHORTEST_MASKED, masked_parts};

const MASK: &[u8] = b"***";

/// The values that a job must not show. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Secrets(Option<Arc<Patterns>>);

impl Secrets {
    /// The parts of these values that are masked. This takes a while for large values, so it is nothing for the async runtime.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let parts: BTreeSet<&str> = values.into_iter().flat_map(masked_parts).collect();
        Self((!parts.is_empty()).then(|| Arc::new(Patterns::new(&parts))))
    }

    /// Masks a whole text. If the text was cut, the beginning of a value at its end is masked too.
    pub(super) fn mask(&self, text: &str, was_cut: bool) -> String {
        let mut shown = Vec::with_capacity(text.len());
        let mut mask = Mask::new(self.clone());
        mask.push(text.as_bytes(), |bytes| shown.extend_from_slice(bytes));
        if was_cut && mask.held.len() - mask.released >= SHORTEST_MASKED {
            shown.extend_from_slice(MASK);
        } else {
            mask.finish(|bytes| shown.extend_from_slice(bytes));
        }
        String::from_utf8_lossy(&shown).into_owned()
    }
}

/// Masks one stream of bytes. Each byte takes constant time on average, whatever the values are.
pub(super) struct Mask {
    secrets: Secrets,
    state: State,
    /// The bytes that are not emitted yet: those from `released` on. The ones before it go when they are as many.
    held: Vec<u8>,
    released: usize,
    /// Where in the stream the first byte of `held` is.
    base: u64,
    /// Where values are that begin in what is held back, in order. What overlaps is one.
    found: VecDeque<(u64, u64)>,
    /// Up to where the stream belongs to a value whose mask is emitted.
    masked: u64,
}

impl Mask {
    /// Of a job that must not show these.
    pub(super) fn new(secrets: Secrets) -> Self {
        let (held, found) = Default::default();
        Self { secrets, state: 0, held, released: 0, base: 0, found, masked: 0 }
    }

    /// Takes bytes, and emits those of which it is known that they are to be seen, and a mask for each value among them.
    pub(super) fn push(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        let Some(patterns) = self.secrets.0.clone() else { return emit(bytes) };
        let mut at = self.base + self.held.len() as u64;
        self.held.extend_from_slice(bytes);
        for byte in bytes {
            self.state = patterns.next(self.state, *byte);
            at += 1;
            let length = patterns.matched(self.state);
            if length > 0 {
                self.find(at - length as u64, at);
            }
        }
        self.release(at - patterns.open(self.state) as u64, &mut emit);
    }

    /// Emits what was held back, at the end of the stream.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(&[u8])) {
        self.release(self.base + self.held.len() as u64, &mut emit);
        self.state = 0;
    }

    /// Notes a value, which ends after all that were noted before. Those that it contains do not count.
    fn find(&mut self, start: u64, stop: u64) {
        if start < self.masked {
            self.found.clear(); // they begin after this one
            self.masked = stop;
            return;
        }
        while self.found.pop_back_if(|(earlier, _)| *earlier >= start).is_some() {}
        match self.found.back_mut() {
            Some(last) if start < last.1 => last.1 = stop,
            _ => self.found.push_back((start, stop)),
        }
    }

    /// Emits what begins before `end`; a value that began there may reach beyond it.
    fn release(&mut self, end: u64, emit: &mut impl FnMut(&[u8])) {
        let mut at = (self.base + self.released as u64).max(self.masked);
        while let Some((start, stop)) = self.found.pop_front_if(|(start, _)| *start < end) {
            emit(self.between(at, start));
            emit(MASK);
            at = stop;
            self.masked = stop;
        }
        if at < end {
            emit(self.between(at, end));
        }
        self.released = usize::try_from(end - self.base).unwrap_or(usize::MAX);
        if self.released * 2 >= self.held.len() {
            self.held.drain(..self.released);
            self.base = end;
            self.released = 0;
        }
    }

    /// Bytes that are held back, by where in the stream they are.
    fn between(&self, from: u64, to: u64) -> &[u8] {
        let place = |at: u64| usize::try_from(at - self.base).unwrap_or(usize::MAX);
        &self.held[place(from)..place(to)]
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
        let secrets = Secrets::of(["hunter2", "abc", "key: one\nkey: two\n", "unter"]);
        let text = b"abc hunter2 hunter hunter2hunter2 key: one\nkey: two\nkey: three key: one";
        assert_eq!(mask(&secrets, &[text]), "abc *** h***  ******  ***\nkey: three ***".replace("  ", " "));
        assert_eq!(mask(&Secrets::of(["abc", "  "]), &[b"abc"]), "abc", "too short to be told from anything");
    }

    #[test]
    fn the_beginning_of_a_value_is_masked_at_the_end_of_a_text_that_was_cut() {
        let secrets = Secrets::of(["hunter2", "abcd", "abcdefgh"]);
        assert_eq!(secrets.mask("a hunt", true), "a ***");
        assert_eq!(secrets.mask("a hunt", false), "a hunt");
        assert_eq!(secrets.mask("a hun", true), "a hun", "three bytes occur in everything");
        assert_eq!(secrets.mask("hunter2 abcdef", true), "*** ***");
        assert_eq!(secrets.mask("hunter2 abcdef", false), "*** ***ef");
        assert_eq!(secrets.mask("é hunter2", true), "é ***");
        assert_eq!(Secrets::default().mask("a hunt", true), "a hunt");
    }

    #[test]
    fn the_beginning_of_a_value_waits_for_the_rest() {
        let mut mask = Mask::new(Secrets::of(["hunter2"]));
        let mut shown = Vec::new();
        mask.push(b"a hun", |bytes| shown.extend_from_slice(bytes));
        assert_eq!(shown, b"a ");
        mask.push(b"ger", |bytes| shown.extend_from_slice(bytes));
        assert_eq!(shown, b"a hunger");
    }

    #[test]
    fn what_overlaps_has_one_mask_and_what_touches_has_two() {
        let secrets = Secrets::of(["abcd", "cdef", "xxxx"]);
        assert_eq!(mask(&secrets, &[b"-abcdef-abcdcdef-xxxxx-xxxxxxxx-"]), "-***-******-***-***-");
        let nested = Secrets::of(["bcde", "abcdefgh"]);
        assert_eq!(mask(&nested, &[b"abcdefgX abcdefgh"]), "a***fgX ***");
    }

    /// Masks as the rule says: the values by where they begin, one mask for each that does not begin inside another.
    #[derive(Default)]
    struct Naive {
        values: Vec<Vec<u8>>,
        held: Vec<u8>,
        masked: usize,
    }

    impl Naive {
        fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
            self.held.extend_from_slice(bytes);
            let begins = |at: &usize| {
                self.values.iter().any(|it| it.len() > self.held.len() - at && it.starts_with(&self.held[*at..]))
            };
            self.release((0..self.held.len()).find(begins).unwrap_or(self.held.len()))
        }

        fn release(&mut self, end: usize) -> Vec<u8> {
            let (mut shown, mut at) = (Vec::new(), self.masked);
            for start in 0..end {
                let found = self.values.iter().filter(|it| self.held[start..].starts_with(it));
                let Some(longest) = found.map(Vec::len).max() else { continue };
                if start >= at {
                    shown.extend_from_slice(&self.held[at..start]);
                    shown.extend_from_slice(MASK);
                }
                at = at.max(start + longest);
            }
            shown.extend_from_slice(self.held.get(at..end).unwrap_or_default());
            self.masked = at.saturating_sub(end);
            self.held.drain(..end);
            shown
        }
    }

    fn any_values() -> impl Strategy<Value = Vec<String>> {
        let repetitive = (prop_oneof!["a", "b", "ab", "aab"], 4..40_usize, "[ab]{0,3}")
            .prop_map(|(part, length, end)| part.chars().cycle().take(length).collect::<String>() + &end);
        let value = prop_oneof!["[ab]{4,7}", "[abc]{4,30}", repetitive, "[ab]{4,6}\\n[ab]{4,6}"];
        // With the beginnings and ends of values among them.
        proptest::collection::vec(value, 1..8).prop_flat_map(|values| {
            let cuts = proptest::collection::vec(0..40_usize, values.len());
            (Just(values), cuts).prop_map(|(mut values, cuts)| {
                for (index, cut) in cuts.into_iter().enumerate() {
                    let value = values[index].clone();
                    values.extend(value.get(cut..).map(str::to_owned));
                    values.extend(value.get(..cut).map(str::to_owned));
                }
                values
            })
        })
    }

    proptest! {
        #[test]
        fn masks_the_same_as_the_naive_rule_at_every_read(
            values in any_values(),
            pieces in proptest::collection::vec((any::<proptest::sample::Index>(), "[abc\\n]{0,9}"), 0..12),
            reads in proptest::collection::vec(1..70_usize, 0..20),
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|(value, more)| [value.get(&values).as_str(), more].concat().into_bytes()).collect();
            let secrets = Secrets::of(values.iter().map(String::as_str));
            let parts = values.iter().flat_map(|value| masked_parts(value)).map(|it| it.as_bytes().to_vec());
            let mut naive = Naive { values: parts.collect(), ..Naive::default() };
            let mut mask = Mask::new(secrets);
            let mut rest = &text[..];
            for length in reads.into_iter().chain([usize::MAX]) {
                let (read, more) = rest.split_at(length.min(rest.len()));
                rest = more;
                let mut shown = Vec::new();
                mask.push(read, |bytes| shown.extend_from_slice(bytes));
                prop_assert_eq!(shown, naive.push(read));
            }
            let mut shown = Vec::new();
            mask.finish(|bytes| shown.extend_from_slice(bytes));
            let length = naive.held.len();
            prop_assert_eq!(shown, naive.release(length));
        }

        #[test]
        fn it_is_the_same_however_the_stream_is_cut(
            values in proptest::collection::vec("[ab]{4,7}", 1..4),
            text in "[abc]{0,60}",
            cuts in proptest::collection::vec(0..60_usize, 0..8),
        ) {
            let secrets = Secrets::of(values.iter().map(String::as_str));
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
