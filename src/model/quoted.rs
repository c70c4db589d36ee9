//! Texts of users in messages.

use std::fmt;

use super::naming::is_unfit;

/// More characters of a text than these are not repeated in a message.
const MOST: usize = 200;

/// Shows a text between quotation marks, as it is: without escapes, with a replacement for each character that nobody can see, and
/// shortened if it is long.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        f.write_str("\"")?;
        for c in chars.by_ref().take(MOST) {
            write!(f, "{}", if is_unfit(c) { char::REPLACEMENT_CHARACTER } else { c })?;
        }
        f.write_str(if chars.next().is_some() { "…\"" } else { "\"" })
    }
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn a_text_is_shown_without_escapes() {
        assert_eq!(Quoted("Cafe\u{301} \"au\" lait\\").to_string(), "\"Cafe\u{301} \"au\" lait\\\"");
        assert_eq!(Quoted("a\r\nb\u{202e}c\u{1b}[1m").to_string(), "\"a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}[1m\"");
        assert_eq!(Quoted(&"x".repeat(201)).to_string().chars().count(), 203);
    }
}
