//! How many tokens a text has, and how deep its brackets go, without parsing it.

/// What a text comes to. Counting ends where there are more tokens than are allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) tokens: usize,
    pub(super) nesting: usize,
}

/// Counts the tokens of a text, as the GraphQL grammar says what one is; a number such as `-1.5` counts as several. What is no GraphQL at
/// all is counted too: the parser refuses it.
pub(super) fn count(text: &str, enough: usize) -> Count {
    let mut rest = text.as_bytes();
    let (mut tokens, mut depth, mut nesting) = (0, 0_usize, 0);
    while let [first, after @ ..] = rest {
        let length = match first {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => {
                rest = after;
                continue;
            }
            b'#' => {
                rest = &rest[until(rest, |byte| byte == b'\n' || byte == b'\r')..];
                continue;
            }
            b'"' => string(rest),
            b'.' => until(rest, |byte| byte != b'.'),
            byte if is_name(*byte) => until(rest, |byte| !is_name(byte)),
            b'{' | b'[' | b'(' => {
                depth += 1;
                nesting = nesting.max(depth);
                1
            }
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => 1,
        };
        tokens += 1;
        if tokens > enough {
            break;
        }
        rest = &rest[length..];
    }
    Count { tokens, nesting }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How many bytes come before the first that is wanted.
fn until(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| wanted(*byte)).unwrap_or(bytes.len())
}

/// The length of the string, or block string, that these bytes begin with.
fn string(bytes: &[u8]) -> usize {
    let block = bytes.starts_with(b"\"\"\"");
    let mark: &[u8] = if block { b"\"\"\"" } else { b"\"" };
    let mut at = mark.len();
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(mark) {
            return at + mark.len();
        }
        at += match rest {
            [b'\\', b'"', b'"', b'"', ..] if block => 4,
            [b'\\', _, ..] if !block => 2,
            [b'\n', ..] if !block => return at, // it is not closed: the parser says so
            _ => 1,
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> (usize, usize) {
        let Count { tokens, nesting } = count(text, 1_000);
        (tokens, nesting)
    }

    #[test]
    fn tokens_are_those_of_the_grammar() {
        assert_eq!(counted(""), (0, 0));
        assert_eq!(counted("{ job(id: \"x\") { ...Parts } }"), (12, 2));
        assert_eq!(counted("query($a:[Int!]=[1,2]){a}"), (18, 2));
        assert_eq!(counted("# { { {\n{ a }\r#{"), (3, 1));
        assert_eq!(counted(r#"{ a(s: "{ \" {", t: """ " { \""" { """) }"#), (11, 2));
        assert_eq!(counted("\"not closed { \n {"), (2, 1));
    }

    #[test]
    fn counting_ends_where_there_is_enough() {
        assert_eq!(count(&"a ".repeat(1_000_000), 10), Count { tokens: 11, nesting: 0 });
        assert_eq!(counted(&"[".repeat(500)), (500, 500));
    }
}
