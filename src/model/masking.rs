//! Which parts of a sensitive value are masked in logs.

/// Shorter parts, in bytes, are not masked: they occur in everything.
const SHORTEST_MASKED: usize = 4;

/// The parts of a sensitive value that are masked: the value, and each of its lines, since a program that writes a log puts a prefix before
/// every line. White space at both ends does not count, and parts below [`SHORTEST_MASKED`] bytes are left out.
pub fn masked_parts(value: &str) -> impl Iterator<Item = &str> {
    let parts = std::iter::once(value.trim()).chain(value.lines().map(str::trim));
    parts.filter(|part| part.len() >= SHORTEST_MASKED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_and_its_lines_are_masked_without_white_space() {
        let parts: Vec<&str> = masked_parts("  first \r\n\n abc\nsecond\n").collect();
        assert_eq!(parts, ["first \r\n\n abc\nsecond", "first", "second"]);
        assert_eq!(masked_parts("one line").collect::<Vec<_>>(), ["one line", "one line"]);
    }
}
