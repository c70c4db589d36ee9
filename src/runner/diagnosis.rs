//! Why a job failed, from what it prints.
//!
//! Of what may be telling the most telling is kept: an exception rather than a line that speaks of an error, that rather than the last
//! line of standard error, and of Meltano's plugins the first that raised one, for the others fail because it did.

use crate::model::{Failure, LogStream};

/// The longest summary, in characters.
const LONGEST: usize = 300;

/// Sees the lines of an attempt, after sensitive values are masked, and keeps the one that says most about a failure.
#[derive(Debug)]
pub(super) struct Diagnosis {
    /// The number of the line that comes next.
    next: i64,
    best: Option<Clue>,
}

#[derive(Debug)]
struct Clue {
    weight: Weight,
    text: String,
    plugin: Option<String>,
    line: i64,
}

/// How much a line says. What is later in this order says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Something on standard error.
    Last,
    /// Meltano says that a plugin failed, not why.
    PluginFailed,
    /// It speaks of an error.
    Error,
    /// The exception that a traceback ends with.
    Exception,
}

impl Diagnosis {
    /// Of an attempt whose first line has this number.
    pub(super) fn starting_at(first: i64) -> Self {
        Self { next: first, best: None }
    }

    /// Sees the line that comes next.
    pub(super) fn see(&mut self, stream: LogStream, text: &str) {
        let line = self.next;
        self.next += 1;
        let Some((weight, plugin, text)) = clue(stream, text) else { return };
        let better = match &self.best {
            None => true,
            // What fails after it does so because of it.
            Some(best) if best.weight == Weight::Exception && best.plugin.as_deref() != plugin => false,
            Some(best) => weight >= best.weight,
        };
        if better {
            let text = text.chars().take(LONGEST).collect();
            self.best = Some(Clue { weight, text, plugin: plugin.map(str::to_owned), line });
        }
    }

    /// Why an attempt that ended with this code failed.
    pub(super) fn failure(self, code: i32) -> Failure {
        match self.best {
            Some(Clue { text, plugin, line, .. }) => Failure { summary: text, plugin, line: Some(line) },
            None => Failure { summary: exit(code), plugin: None, line: None },
        }
    }
}

/// What a line says about a failure, if anything.
fn clue(stream: LogStream, text: &str) -> Option<(Weight, Option<&str>, &str)> {
    if stream == LogStream::System {
        return None;
    }
    let said = Said::of(text);
    let text = said.text.trim();
    let weight = if text.is_empty() {
        return None;
    } else if is_exception(text) {
        Weight::Exception
    } else if said.level == Some("error") && said.by == Some("meltano") {
        match text {
            // What it says at the end of every run.
            "Block run completed" | "Run completed" => return None,
            _ if text.ends_with(" failed") => Weight::PluginFailed,
            _ => Weight::Error,
        }
    } else if said.level.is_some_and(|level| level == "error" || level == "critical") || speaks_of_an_error(text) {
        Weight::Error
    } else if stream == LogStream::Stderr && said.level.is_none() {
        Weight::Last
    } else {
        return None;
    };
    Some((weight, said.by.filter(|by| *by != "meltano"), text))
}

/// A line, as Meltano logs it: `2026-11-24T04:51:48.426248Z [info     ] tap-x        ValueError: the source is gone`.
struct Said<'a> {
    level: Option<&'a str>,
    by: Option<&'a str>,
    text: &'a str,
}

impl<'a> Said<'a> {
    fn of(line: &'a str) -> Self {
        let parse = || {
            let (time, rest) = line.split_once(" [")?;
            let (level, rest) = rest.split_once("] ")?;
            let (by, text) = rest.split_once(' ')?;
            let is_time = time.len() > 20 && time.ends_with('Z') && time.starts_with(|c: char| c.is_ascii_digit());
            is_time.then_some(Self { level: Some(level.trim()), by: Some(by), text })
        };
        parse().unwrap_or(Self { level: None, by: None, text: line })
    }
}

/// Whether a line is the end of a traceback: `package.SomeError: what is wrong`.
fn is_exception(text: &str) -> bool {
    let name = text.split_once(':').map_or(text, |(name, _)| name);
    let kinds = ["Error", "Exception", "Exit", "Interrupt", "Iteration"];
    let is_name = name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    });
    // A name of one word, such as "Error: …", is what programs in general begin a message with.
    is_name && kinds.iter().any(|kind| name.ends_with(kind) && name.len() > kind.len())
}

fn speaks_of_an_error(text: &str) -> bool {
    let lower: String = text.chars().take(LONGEST).collect::<String>().to_lowercase();
    let begins = ["error", "fatal", "critical", "panic", "failed", "abort"].iter().any(|word| lower.starts_with(word));
    begins
        || [
            ": error:",
            " error: ",
            "error]",
            "[error",
            "fatal error",
            "command not found",
            "no such file",
            "permission denied",
        ]
        .iter()
        .any(|words| lower.contains(words))
}

/// What an exit code says by itself.
fn exit(code: i32) -> String {
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
    match SIGNALS.iter().find(|(signal, _)| signal + 128 == code) {
        Some((_, name)) => format!("Exit code {code}: ended by the signal {name}."),
        None => format!("Exit code {code}."),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure(lines: &[(LogStream, &str)], code: i32) -> (String, Option<String>, Option<i64>) {
        let mut diagnosis = Diagnosis::starting_at(10);
        lines.iter().for_each(|(stream, text)| diagnosis.see(*stream, text));
        let Failure { summary, plugin, line } = diagnosis.failure(code);
        (summary, plugin, line)
    }

    fn stderr(text: &str) -> Vec<(LogStream, &str)> {
        text.lines().map(|line| (LogStream::Stderr, line)).collect()
    }

    #[test]
    fn of_a_plugin_that_raises_it_tells_the_exception() {
        let printed = r#"2026-11-24T04:51:48.422784Z [info     ] tap-x        the password is None
2026-11-24T04:51:48.426020Z [info     ] tap-x        Traceback (most recent call last):
2026-11-24T04:51:48.426140Z [info     ] tap-x          File "jobstream-tap-x", line 41, in <module>
2026-11-24T04:51:48.426198Z [info     ] tap-x            raise ValueError("the source is gone")
2026-11-24T04:51:48.426248Z [info     ] tap-x        ValueError: the source is gone
2026-11-24T04:51:48.436881Z [error    ] meltano      Extractor failed
2026-11-24T04:51:48.437090Z [error    ] meltano      Block run completed
2026-11-24T04:51:48.437215Z [info     ] meltano      Run completed"#;
        let expected = ("ValueError: the source is gone".to_owned(), Some("tap-x".to_owned()), Some(14));
        assert_eq!(failure(&stderr(printed), 1), expected);
    }

    #[test]
    fn of_two_plugins_that_raise_it_tells_the_first() {
        let printed = "2026-11-24T04:51:48.426020Z [info     ] target-y     OSError: [Errno 28] No space left on device\n\
                       2026-11-24T04:51:48.426248Z [info     ] tap-x        BrokenPipeError: [Errno 32] Broken pipe\n\
                       2026-11-24T04:51:48.436881Z [error    ] meltano      Loader failed";
        let (summary, plugin, _) = failure(&stderr(printed), 1);
        assert_eq!(
            (summary.as_str(), plugin.as_deref()),
            ("OSError: [Errno 28] No space left on device", Some("target-y"))
        );
    }

    #[test]
    fn of_meltano_itself_it_tells_what_it_says() {
        let printed = "2026-11-24T04:51:49.091682Z [info     ] meltano      Environment 'dev' is active\nError: Block nope not found";
        assert_eq!(failure(&stderr(printed), 1), ("Error: Block nope not found".to_owned(), None, Some(11)));
        let silent = "2026-11-24T04:51:48.436881Z [error    ] meltano      Extractor failed\n\
                      2026-11-24T04:51:48.437090Z [error    ] meltano      Block run completed";
        assert_eq!(failure(&stderr(silent), 1), ("Extractor failed".to_owned(), None, Some(10)));
    }

    #[test]
    fn of_a_script_it_tells_the_error_or_the_last_line_or_the_exit_code() {
        let printed = [
            (LogStream::Stdout, "working"),
            (LogStream::Stderr, "P: line 2: nonsense: command not found"),
            (LogStream::Stderr, "cleaning up"),
        ];
        assert_eq!(failure(&printed, 127), ("P: line 2: nonsense: command not found".to_owned(), None, Some(11)));
        let printed = [
            (LogStream::Stderr, "first"),
            (LogStream::Stderr, "last"),
            (LogStream::Stdout, "more"),
            (LogStream::Stderr, ""),
        ];
        assert_eq!(failure(&printed, 3), ("last".to_owned(), None, Some(11)));
        let printed = [(LogStream::Stdout, "only this"), (LogStream::System, "Ended 1 process.")];
        assert_eq!(failure(&printed, 3), ("Exit code 3.".to_owned(), None, None));
        assert_eq!(failure(&[], 137).0, "Exit code 137: ended by the signal KILL.");
    }

    proptest! {
        #[test]
        fn any_line_can_be_seen_and_a_summary_is_short(lines in proptest::collection::vec("(error: )?\\PC{0,400}", 0..5)) {
            let lines: Vec<(LogStream, &str)> = lines.iter().map(|line| (LogStream::Stderr, line.as_str())).collect();
            prop_assert!(failure(&lines, 1).0.chars().count() <= LONGEST);
        }
    }
}
