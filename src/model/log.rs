//! Log lines, many at a time.

use super::{LogStream, Timestamp};

/// Lines of one job's log, numbered without gaps. Their texts lie end to end in one buffer, so that a million
/// lines are a few allocations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogLines {
    first_sequence: i64,
    text: String,
    lines: Vec<Entry>,
}

/// What is known of a line beside its text.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    end: usize,
    timestamp: Timestamp,
    stream: LogStream,
    continued: bool,
}

/// One line, or one piece of a long one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogLine<'a> {
    /// Its number in the job's log, from 0.
    pub sequence: i64,
    /// When it was read.
    pub timestamp: Timestamp,
    /// Where it comes from.
    pub stream: LogStream,
    /// Whether more of the same line follows in a later piece.
    pub continued: bool,
    /// The text, without the line's end.
    pub text: &'a str,
}

impl LogLines {
    /// No lines yet; the first will have this number.
    pub fn starting_at(first_sequence: i64) -> Self {
        Self { first_sequence, ..Self::default() }
    }

    /// Adds a line at the end.
    pub fn push(&mut self, timestamp: Timestamp, stream: LogStream, continued: bool, text: &str) {
        self.text.push_str(text);
        self.lines.push(Entry { end: self.text.len(), timestamp, stream, continued });
    }

    /// The number of the first line.
    pub fn first_sequence(&self) -> i64 {
        self.first_sequence
    }

    /// The number that the line after the last one has.
    pub fn next_sequence(&self) -> i64 {
        self.first_sequence + i64::try_from(self.lines.len()).unwrap_or(i64::MAX)
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// All texts, end to end.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a line of output counts against the limit of a log: its text, and its end.
    pub fn output_cost(text: &str) -> i64 {
        i64::try_from(text.len() + 1).unwrap_or(i64::MAX)
    }

    /// What all lines count against the limit of a log. The server's own do not.
    pub fn output_bytes(&self) -> i64 {
        self.iter().filter(|line| line.stream != LogStream::System).map(|line| Self::output_cost(line.text)).sum()
    }

    /// The line at this place, counted from 0 in this batch.
    pub fn get(&self, index: usize) -> Option<LogLine<'_>> {
        let entry = self.lines.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.lines[before].end);
        Some(LogLine {
            sequence: self.first_sequence + i64::try_from(index).ok()?,
            timestamp: entry.timestamp,
            stream: entry.stream,
            continued: entry.continued,
            text: &self.text[start..entry.end],
        })
    }

    /// Every line, in order.
    pub fn iter(&self) -> impl Iterator<Item = LogLine<'_>> {
        (0..self.lines.len()).filter_map(|index| self.get(index))
    }

    /// Adds the lines of `other`; they are numbered on from here.
    pub fn append(&mut self, other: &Self) {
        let offset = self.text.len();
        self.text.push_str(&other.text);
        self.lines.extend(other.lines.iter().map(|it| Entry { end: it.end + offset, ..*it }));
    }

    /// The first lines, as many as fit in both bounds, and at least one if there is any.
    pub fn first_within(mut self, lines: usize, bytes: usize) -> Self {
        let fitting = self.lines.iter().take(lines).take_while(|it| it.end <= bytes).count();
        self.lines.truncate(fitting.max(1));
        self.text.truncate(self.lines.last().map_or(0, |it| it.end));
        self
    }

    /// The last lines, as many as fit in both bounds, and at least one if there is any.
    pub fn last_within(mut self, lines: usize, bytes: usize) -> Self {
        let total = self.text.len();
        let start = |index: usize, entries: &[Entry]| index.checked_sub(1).map_or(0, |before| entries[before].end);
        let mut first = self.lines.len().saturating_sub(lines);
        while first + 1 < self.lines.len() && total - start(first, &self.lines) > bytes {
            first += 1;
        }
        let cut = start(first, &self.lines);
        self.lines.drain(..first);
        self.lines.iter_mut().for_each(|it| it.end -= cut);
        self.text.drain(..cut);
        self.first_sequence += i64::try_from(first).unwrap_or(i64::MAX);
        self
    }
}
