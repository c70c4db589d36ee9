//! Which parts of a sensitive value are masked in logs, and which values are too weak to be masked well.

/// Shorter parts, in bytes, are not masked: they occur in everything.
pub const SHORTEST_MASKED: usize = 4;
/// Shorter values, in bytes, are likely to occur in unrelated text,
const SHORTEST_TELLING: usize = 8;
/// and so are shorter ones that are only letters or only digits.
const SHORTEST_TELLING_OF_ONE_KIND: usize = 16;

/// The parts of a sensitive value that are masked: the value, and each of its lines, since a program that writes a log puts a prefix before
/// every line. White space at both ends does not count, and parts below [`SHORTEST_MASKED`] bytes are left out.
pub fn masked_parts(value: &str) -> impl Iterator<Item = &str> {
    let parts = std::iter::once(value.trim()).chain(value.lines().map(str::trim));
    parts.filter(|part| part.len() >= SHORTEST_MASKED)
}

/// Why a sensitive value is masked badly, for the user who sets it. Nothing of the value is in the text.
pub fn weakness(value: &str) -> Option<&'static str> {
    let is_weak = |part: &str| {
        let one_kind = part.chars().all(char::is_alphabetic) || part.chars().all(char::is_numeric);
        part.len() < SHORTEST_TELLING || (one_kind && part.len() < SHORTEST_TELLING_OF_ONE_KIND)
    };
    match value.trim() {
        "" => None,
        whole if whole.len() < SHORTEST_MASKED => {
            Some("The value is not masked in logs: it is shorter than 4 bytes, so it would match in unrelated text.")
        }
        whole if is_weak(whole) => Some(
            "The value is masked in logs wherever it occurs, also in unrelated text. Values of fewer than 8 bytes, or of fewer than 16 \
             that are only letters or only digits, are likely to occur there.",
        ),
        whole if whole.lines().count() > 1 && masked_parts(whole).any(is_weak) => Some(
            "Each line of the value is masked in logs wherever it occurs, also in unrelated text. Lines of fewer than 8 bytes, or of fewer \
             than 16 that are only letters or only digits, are likely to occur there.",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_common_values_are_weak() {
        for value in ["abc", "true", "data", "2026", "hunter2", "password", "20261128", "production", " data\n", "é"] {
            assert!(weakness(value).is_some(), "{value:?}");
        }
        for value in
            ["", "  ", "correct horse", "x7$Kq9!z", "0123456789abcdef", "1234567890123456", "line one 1\nline two 2"]
        {
            assert_eq!(weakness(value), None, "{value:?}");
        }
        assert!(weakness("line one 1\ntrue").is_some_and(|it| it.starts_with("Each line")));
        assert_eq!(weakness("line one 1\n}"), None, "a line below 4 bytes is not masked, and the rest is");
    }

    #[test]
    fn a_value_and_its_lines_are_masked_without_white_space() {
        let parts: Vec<&str> = masked_parts("  first \r\n\n abc\nsecond\n").collect();
        assert_eq!(parts, ["first \r\n\n abc\nsecond", "first", "second"]);
        assert_eq!(masked_parts("one line").collect::<Vec<_>>(), ["one line", "one line"]);
    }
}
