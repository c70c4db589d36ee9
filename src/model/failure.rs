//! Why a job ended with ERROR.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};

use super::{Job, JobStatus};

/// The longest summary, in characters.
pub const LONGEST_SUMMARY: usize = 300;

/// Why a job ended with ERROR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Text)]
pub struct Failure {
    /// One line for a person, without control characters.
    pub summary: String,
    /// The plugin that failed, if one did.
    pub plugin: Option<String>,
    /// The number of the log line that says why.
    pub line: Option<i64>,
}

impl Failure {
    /// A failure with this summary and plugin, each of which is made one line.
    pub fn new(summary: &str, plugin: Option<&str>, line: Option<i64>) -> Self {
        let short = |text: &str| one_line(text).chars().take(LONGEST_SUMMARY).collect();
        Self { summary: short(summary), plugin: plugin.map(short), line }
    }

    /// What an exit code says by itself.
    pub fn of_exit_code(code: i32) -> Self {
        const SIGNALS: [(i32, &str); 9] = [
            (1, "HUP"),
            (2, "INT"),
            (3, "QUIT"),
            (4, "ILL"),
            (6, "ABRT"),
            (9, "KILL"),
            (11, "SEGV"),
            (13, "PIPE"),
            (15, "TERM"),
        ];
        let summary = match SIGNALS.iter().find(|(signal, _)| signal + 128 == code) {
            Some((_, name)) => format!("Exit code {code}: ended by the signal {name}."),
            None => format!("Exit code {code}."),
        };
        Self { summary, plugin: None, line: None }
    }
}

impl Job {
    /// Why the job ended with ERROR; none if it did not. Earlier versions of the server stored no reason for some jobs, so that is derived from
    /// the exit code then.
    pub fn reason_of_error(&self) -> Option<Failure> {
        if self.status != JobStatus::Error {
            return None;
        }
        Some(match (&self.failure, self.exit_code) {
            (Some(Failure { summary, plugin, line }), _) => Failure::new(summary, plugin.as_deref(), *line),
            (None, Some(code)) => Failure::of_exit_code(code),
            (None, None) => Failure::new(
                "The job has no exit code: it could not be started, or was lost in a crash. See its log.",
                None,
                None,
            ),
        })
    }
}

/// A text on one line: without escape sequences, control characters and the characters that change the direction of text.
pub fn one_line(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    let is_shown = |c: &char| !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let spaced = plain
        .chars()
        .filter(is_shown)
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c });
    spaced.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_one_line_without_control_characters() {
        let failure = Failure::new("\u{1b}[31merror\u{1b}[0m: a\tb\u{7}\u{202e}c\u{9b}\r\n", None, None);
        assert_eq!(failure.summary, "error: a bc");
    }
}
