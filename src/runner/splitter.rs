//! From bytes to lines.

use std::borrow::Cow;

/// The longest piece of a line, in bytes as they were read.
pub(super) const LONGEST_PIECE: usize = 64 * 1024;

/// Cuts one stream of bytes into lines, and long lines into pieces. Pieces end between characters; what is not UTF-8
/// is replaced; nothing else is changed. Put end to end, the pieces of a line are the line.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    /// Whether the last piece said that more of its line follows.
    open: bool,
}

impl Splitter {
    /// Takes bytes, and emits every piece that is complete: its text, and whether more of the same line follows.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&str, bool)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.partial.is_empty() && line.len() <= LONGEST_PIECE {
                emit(&text(line), false);
            } else {
                self.partial.extend_from_slice(line);
                self.cut(&mut emit);
                emit(&text(&self.partial), false);
                self.partial.clear();
            }
            self.open = false;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        self.cut(&mut emit);
    }

    /// Emits the beginning of a line whose end has not come for a while.
    pub(super) fn pause(&mut self, mut emit: impl FnMut(&str, bool)) {
        let end = self.partial.len() - begun_character(&self.partial);
        if end > 0 {
            emit(&text(&self.partial[..end]), true);
            self.partial.drain(..end);
            self.open = true;
        }
    }

    /// Emits what is left at the end of the stream.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(&str, bool)) {
        if !self.partial.is_empty() || self.open {
            emit(&text(&self.partial), false);
        }
        *self = Self::default();
    }

    /// Whether the beginning of a line waits for its end.
    pub(super) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    fn cut(&mut self, emit: &mut impl FnMut(&str, bool)) {
        let mut start = 0;
        while self.partial.len() - start > LONGEST_PIECE {
            let piece = &self.partial[start..start + LONGEST_PIECE];
            let end = start + LONGEST_PIECE - begun_character(piece);
            emit(&text(&self.partial[start..end]), true);
            self.open = true;
            start = end;
        }
        self.partial.drain(..start);
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// How many bytes at the end may be the beginning of a character whose rest has not come.
fn begun_character(bytes: &[u8]) -> usize {
    for length in 1..=bytes.len().min(3) {
        let needed = match bytes[bytes.len() - length] {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if needed > length { length } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a `Splitter` emits for a stream that arrives in these reads, with a pause after those that say so.
    fn split(reads: &[(Vec<u8>, bool)]) -> Vec<(String, bool)> {
        let mut pieces = Vec::new();
        let mut splitter = Splitter::default();
        for (bytes, pause) in reads {
            splitter.push(bytes, |text, continued| pieces.push((text.to_owned(), continued)));
            if *pause {
                splitter.pause(|text, continued| pieces.push((text.to_owned(), continued)));
            }
        }
        splitter.finish(|text, continued| pieces.push((text.to_owned(), continued)));
        pieces
    }

    /// The lines that pieces stand for.
    fn joined(pieces: &[(String, bool)]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for (text, continued) in pieces {
            line.push_str(text);
            if !continued {
                lines.push(std::mem::take(&mut line));
            }
        }
        assert!(line.is_empty(), "the last piece says that more follows");
        lines
    }

    /// The lines of a whole stream, cut the plain way.
    fn plain(bytes: &[u8]) -> Vec<String> {
        let mut lines: Vec<String> =
            bytes.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        if lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    fn any_read() -> impl Strategy<Value = (Vec<u8>, bool)> {
        let bytes = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            any::<String>().prop_map(String::into_bytes),
            Just(b"\n".to_vec()),
            (0..3_usize, any::<u8>()).prop_map(|(n, byte)| vec![byte; n * LONGEST_PIECE / 2 + 7]),
            Just("é€😀".repeat(LONGEST_PIECE / 9).into_bytes()),
        ];
        (bytes, any::<bool>())
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_the_lines(reads in proptest::collection::vec(any_read(), 0..12)) {
            let pieces = split(&reads);
            let whole: Vec<u8> = reads.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            prop_assert_eq!(joined(&pieces), plain(&whole));
            // A replaced byte takes three.
            prop_assert!(pieces.iter().all(|(text, _)| text.len() <= 3 * LONGEST_PIECE));
        }
    }

    #[test]
    fn a_line_of_exactly_the_longest_piece_is_one_piece() {
        let line = vec![b'x'; LONGEST_PIECE];
        let pieces = split(&[(line.clone(), false), (b"\n".to_vec(), false)]);
        assert_eq!(pieces, [(String::from_utf8_lossy(&line).into_owned(), false)]);
    }

    #[test]
    fn a_character_is_not_cut_by_a_pause() {
        let reads = [(vec![b'a', 0xE2, 0x82], true), (vec![0xAC, b'\n'], false)];
        assert_eq!(split(&reads), [("a".to_owned(), true), ("€".to_owned(), false)]);
    }
}
