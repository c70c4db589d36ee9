//! Texts of users in messages.

use std::fmt;

use super::naming::is_unfit_at;

/// More characters of a text than these are not repeated in a message.
const MOST: usize = 200;

/// Shows a text between quotation marks, as it is: without escapes, with a replacement for each character that nobody can see, and
/// shortened if it is long.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One more than are shown: what an invisible character does depends on the next one.
        let chars: Vec<char> = self.0.chars().take(MOST + 1).collect();
        f.write_str("\"")?;
        for (place, c) in chars.iter().enumerate().take(MOST) {
            write!(f, "{}", if is_unfit_at(&chars, place) { char::REPLACEMENT_CHARACTER } else { *c })?;
        }
        f.write_str(if chars.len() > MOST { "…\"" } else { "\"" })
    }
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn a_text_is_shown_without_escapes() {
        assert_eq!(Quoted("Cafe\u{301} \"au\" lait\\").to_string(), "\"Cafe\u{301} \"au\" lait\\\"");
        assert_eq!(Quoted("a\r\nb\u{202e}c\u{1b}[1m").to_string(), "\"a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}[1m\"");
        let emoji = "👨\u{200d}👩\u{200d}👧 ☁\u{fe0f} 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
        assert_eq!(Quoted(emoji).to_string(), format!("\"{emoji}\""));
        assert_eq!(Quoted("a\u{200d}b\u{e0067}").to_string(), "\"a\u{fffd}b\u{fffd}\"");
        assert_eq!(Quoted(&"x".repeat(201)).to_string().chars().count(), 203);
    }
}
