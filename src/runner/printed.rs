//! What a printed line says, without what is only for a terminal or a log file: escape sequences, overwritten text, timestamps, prefixes.

use std::borrow::Cow;

/// How many bytes of a line are looked at.
pub(super) const LOOKED_AT: usize = 4096;
/// How many words a log level is looked for in.
const LEVEL_WORDS: usize = 5;

/// A line of one stream that comes in pieces: what a terminal would show of it last.
#[derive(Debug, Default)]
pub(super) struct Partial {
    text: String,
    /// The number of the piece in which that begins.
    first: i64,
    /// The cursor is at the beginning of the line, so the next text overwrites it.
    returned: bool,
}

impl Partial {
    /// Adds a piece, and answers the line as it is now, with the number of the piece in which that begins.
    pub(super) fn add(&mut self, number: i64, piece: &str) -> (i64, &str) {
        let plain = without_escapes(piece);
        let last_return = plain.trim_end_matches(['\r', ' ', '\t']).rfind('\r');
        let shown = last_return.map_or(&*plain, |at| &plain[at + 1..]);
        if last_return.is_some() || self.text.is_empty() || (self.returned && !shown.trim().is_empty()) {
            self.text.clear();
            self.first = number;
        }
        self.returned = plain.ends_with('\r');
        let room = LOOKED_AT - self.text.len();
        self.text.push_str(&shown[..shown.floor_char_boundary(room)]);
        (self.first, self.text.trim_end_matches('\r'))
    }

    /// Whether a line begins with the next piece.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The line has ended.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.returned = false;
    }
}

fn without_escapes(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte < b' ' && byte != b'\t' && byte != b'\r') {
        true => Cow::Owned(anstream::adapter::strip_str(text).to_string()),
        false => Cow::Borrowed(text),
    }
}

/// How bad a line is, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It is a warning, or information.
    Harmless,
    Error,
}

/// What a line says.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrintedLine<'a> {
    pub(super) level: Option<Level>,
    /// The plugin, or Meltano, by Meltano's log.
    pub(super) by: Option<&'a str>,
    /// The text, without a timestamp.
    pub(super) text: &'a str,
}

impl<'a> PrintedLine<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        let text = without_time(line.trim());
        if text.len() < line.trim().len()
            && let Some(said) = Self::by_meltano(text)
        {
            return said;
        }
        Self { level: level(text), by: None, text }
    }

    /// As Meltano logs it after the time: `[info     ] tap-x        ValueError: the source is gone`. A plugin's line may have a time of its own.
    fn by_meltano(text: &'a str) -> Option<Self> {
        let (level, rest) = text.strip_prefix('[')?.split_once("] ")?;
        let (by, text) = rest.split_once(' ')?;
        let level = known_level(level.trim())?;
        Some(Self { level: Some(level), by: Some(by), text: without_time(text.trim()) })
    }
}

/// The level that a line names in one of its first words: in capitals, in brackets, before a colon, or as `level=`.
fn level(text: &str) -> Option<Level> {
    text.split_whitespace().take(LEVEL_WORDS).find_map(|word| {
        let named = word.strip_prefix("level=").or_else(|| word.strip_prefix("severity="));
        let marked = named.is_some() || word.starts_with('[') || word.ends_with(':');
        let word = named.unwrap_or(word).trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '=' && c != '_');
        let capitals = word.bytes().all(|byte| byte.is_ascii_uppercase());
        if marked || capitals { known_level(word) } else { None }
    })
}

fn known_level(word: &str) -> Option<Level> {
    const HARMLESS: [&str; 7] = ["trace", "debug", "info", "notice", "warn", "warning", "note"];
    const ERRORS: [&str; 7] = ["error", "err", "fatal", "critical", "severe", "panic", "emerg"];
    let is_in = |words: &[&str]| words.iter().any(|it| it.eq_ignore_ascii_case(word));
    match () {
        () if is_in(&HARMLESS) => Some(Level::Harmless),
        () if is_in(&ERRORS) => Some(Level::Error),
        () => None,
    }
}

/// A text without the timestamps at its beginning, and what stands between them and the rest.
fn without_time(mut text: &str) -> &str {
    while let Some(rest) = after_time(text) {
        text = rest;
    }
    text
}

/// What follows a timestamp: `2026-11-24T04:51:48.426248Z `, `[2026/11/24 04:51:48,426 +01:00] `, `04:51:48  `.
fn after_time(text: &str) -> Option<&str> {
    let open = text.strip_prefix(['[', '(']);
    let text = open.unwrap_or(text);
    let (rest, is_dated) = match shaped(text, "0000-00-00").or_else(|| shaped(text, "0000/00/00")) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let clock = if is_dated { rest.strip_prefix(['T', ' ', '_']).unwrap_or(rest) } else { rest };
    let rest = match shaped(clock, "00:00:00").or_else(|| shaped(clock, "00:00")) {
        Some(rest) => {
            let digits = |it: &'_ str| it.len() - it.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let rest = match rest.strip_prefix(['.', ',']) {
                Some(fraction) if digits(fraction) > 0 => &fraction[digits(fraction)..],
                _ => rest,
            };
            without_zone(rest)
        }
        None if is_dated => rest,
        None => return None,
    };
    let rest = if open.is_some() { rest.strip_prefix([']', ')'])? } else { rest };
    let separators = |c: char| c.is_whitespace() || matches!(c, '|' | ':');
    let text = rest.trim_start_matches(separators);
    let text = text.strip_prefix("- ").unwrap_or(text);
    (rest.is_empty() || text.len() < rest.len()).then_some(text)
}

fn without_zone(text: &str) -> &str {
    let offset = text.strip_prefix(' ').filter(|it| it.starts_with(['+', '-'])).unwrap_or(text);
    if let Some(rest) = offset.strip_prefix(['+', '-']) {
        return shaped(rest, "00:00").or_else(|| shaped(rest, "0000")).unwrap_or(text);
    }
    ["Z", " UTC", " GMT"].iter().find_map(|zone| text.strip_prefix(zone)).unwrap_or(text)
}

/// What follows a text of this shape, in which 0 stands for any digit.
fn shaped<'a>(text: &'a str, shape: &str) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(shape.len())?;
    let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    begin.bytes().zip(shape.bytes()).all(fits).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_skipped() {
        let times = [
            "2026-11-24T04:51:48.426248Z ",
            "2026-11-24 04:51:48,426 - ",
            "[2026/11/24 04:51:48] ",
            "[2026-11-24T04:51:48+01:00]: ",
            "2026-11-24 04:51:48.1 +0100 | ",
            "2026-11-24 04:51:48 UTC ",
            "2026-11-24 ",
            "(04:51:48) ",
            "04:51:48.123  ",
            "04:51 ",
            "2026-11-24T04:51:48Z 04:51:48  ",
        ];
        for time in times {
            assert_eq!(PrintedLine::of(&format!("{time}it is broken")).text, "it is broken", "{time:?}");
        }
        for text in ["2026 rows", "12:30pm it was", "1 of 5 ERROR creating", "404: not found", "127.0.0.1: refused"] {
            assert_eq!(PrintedLine::of(text).text, text);
        }
    }

    #[test]
    fn levels_are_found_where_logs_have_them() {
        let errors = [
            "ERROR it",
            "app - ERROR - it",
            "[error] it",
            "[ERROR   ] it",
            "fatal: it",
            "level=error msg=it",
            "1 of 5 ERROR creating",
        ];
        for line in errors {
            assert_eq!(PrintedLine::of(line).level, Some(Level::Error), "{line}");
        }
        for line in ["INFO it", "[warning  ] it", "app | WARN | error rate", "info: no error"] {
            assert_eq!(PrintedLine::of(line).level, Some(Level::Harmless), "{line}");
        }
        for line in ["it has no error", "Done. PASS=0 ERROR=1", "an information", ""] {
            assert_eq!(PrintedLine::of(line).level, None, "{line}");
        }
    }

    #[test]
    fn a_line_in_pieces_is_what_a_terminal_shows_last() {
        let shown = |pieces: &[&str]| {
            let mut partial = Partial::default();
            let added = pieces.iter().zip(5..).map(|(piece, number)| {
                let (first, text) = partial.add(number, piece);
                (text.to_owned(), first)
            });
            added.last().unwrap_or_default()
        };
        assert_eq!(shown(&["10 %\r20 %\rdone"]), ("done".to_owned(), 5));
        assert_eq!(shown(&["10 %\r", "20 %\r", "error: it\r"]), ("error: it".to_owned(), 7));
        assert_eq!(shown(&["error: ", "it", " broke"]), ("error: it broke".to_owned(), 5));
        assert_eq!(shown(&["\u{1b}[31merror\u{1b}[0m: it\r"]).0, "error: it");
        assert_eq!(shown(&["10 %\r\u{1b}[K", "\u{1b}[1mfailed"]), ("failed".to_owned(), 6));
        assert_eq!(shown(&["x".repeat(9000).as_str(), "y"]).0.len(), LOOKED_AT);
    }
}
