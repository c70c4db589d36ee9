//! Why a job failed, from what it prints.
//!
//! Of what may be telling the most telling is kept: an exception rather than a line that speaks of an error, that rather than the last
//! line of standard error, a hint only where there is nothing else; and of Meltano's plugins the first that raised an exception, for the
//! others fail because it did. The time per line is bounded.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use zeroize::Zeroizing;

use super::mask::Secrets;
use super::printed::{self, Level, Partial, PrintedLine};
use crate::model::{Failure, LogStream, masked_parts, one_line};

/// How many bytes of a line are looked at for words.
const LOOKED_AT: usize = 512;

/// Sees the lines of an attempt, after sensitive values are masked, and keeps the one that says most about a failure.
#[derive(Debug)]
pub(super) struct Diagnosis {
    /// The number of the line that comes next.
    next: i64,
    best: Option<Clue>,
    /// The lines of standard output and standard error that have not ended.
    partial: [Partial; 2],
    /// The stream whose next line says what the best clue announces.
    announced: Option<LogStream>,
    /// The last line of the server's own.
    remark: Option<(i64, String)>,
}

#[derive(Debug)]
struct Clue {
    weight: Weight,
    text: String,
    plugin: Option<String>,
    line: i64,
    /// The text may end in the middle of what was printed.
    was_cut: bool,
}

/// How much a line says. What is later in this order says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Something beside the reason on standard error: a hint, a stack frame, a warning.
    Hint,
    /// Something on standard error.
    Last,
    /// It tells of what is not as it should be, on standard error.
    Trouble,
    /// Meltano says that a plugin failed, not why.
    PluginFailed,
    /// It speaks of an error.
    Error,
    /// The exception that a traceback ends with.
    Exception,
    /// What dbt says of the error of a model. The first is kept.
    Dbt,
}

impl Diagnosis {
    /// Of an attempt whose first line has this number.
    pub(super) fn starting_at(first: i64) -> Self {
        Self { next: first, best: None, partial: Default::default(), announced: None, remark: None }
    }

    /// Sees the line, or the piece of a line, that comes next.
    pub(super) fn see(&mut self, stream: LogStream, continued: bool, text: &str) {
        let number = self.next;
        self.next += 1;
        let place = match stream {
            LogStream::Stdout => 0,
            LogStream::Stderr => 1,
            LogStream::System => {
                self.remark = Some((number, text.to_owned()));
                return;
            }
        };
        let is_whole = !continued && self.partial[place].is_empty() && self.announced != Some(stream);
        if stream == LogStream::Stdout && is_whole && !may_tell(text) {
            return;
        }
        let mut partial = std::mem::take(&mut self.partial[place]);
        let (first, line) = partial.add(number, text);
        self.weigh(stream, continued, line, first);
        if !continued {
            partial.clear();
        }
        self.partial[place] = partial;
    }

    fn weigh(&mut self, stream: LogStream, continued: bool, line: &str, number: i64) {
        let clue = clue(stream, line);
        // A cut does not split a character, so up to three bytes are missing.
        let was_cut = continued || line.len() + 3 >= printed::LOOKED_AT;
        if self.announced == Some(stream)
            && let Some(best) = &mut self.best
            && !line.trim().is_empty()
        {
            if !continued {
                self.announced = None;
            }
            if clue.is_none_or(|(weight, ..)| weight <= best.weight) {
                if !continued && !best.was_cut {
                    best.was_cut = was_cut;
                    let separator = if best.text.ends_with(':') { " " } else { ": " };
                    best.text = format!("{}{separator}{}", best.text, PrintedLine::of(line).text.trim());
                }
                return;
            }
        }
        let Some((weight, plugin, text)) = clue else { return };
        let better = match &self.best {
            None => true,
            // The same line, of which there is more by now.
            Some(best) if best.line == number => weight >= best.weight,
            // What fails after it does so because of it.
            Some(best) if best.weight == Weight::Dbt => false,
            Some(best) if best.weight == Weight::Exception && best.plugin.as_deref() != plugin => false,
            Some(best) => weight >= best.weight,
        };
        if better {
            let announces = !continued && (weight == Weight::Dbt || (weight >= Weight::Error && text.ends_with(':')));
            self.announced = announces.then_some(stream);
            let (text, plugin) = (text.to_owned(), plugin.map(str::to_owned));
            self.best = Some(Clue { weight, text, plugin, line: number, was_cut });
        }
    }

    /// Why an attempt that ended with this code failed. The failure shows none of these values. Large
    /// values take a while, so this is not for the async runtime.
    pub(super) fn failure(self, code: i32, sensitive: &[Zeroizing<String>]) -> Failure {
        match self.best {
            Some(clue) => masked(&clue, sensitive),
            None => Failure::of_exit_code(code),
        }
    }

    /// Why an attempt was not started, as the server says. The same holds for sensitive values.
    pub(super) fn remark(self, sensitive: &[Zeroizing<String>]) -> Option<Failure> {
        let (line, text) = self.remark?;
        Some(masked(&Clue { weight: Weight::Error, text, plugin: None, line, was_cut: false }, sensitive))
    }
}

/// The failure that a clue tells of. The output is masked as it is printed; without escape sequences and control
/// characters its parts may be a value again, so the text is masked once more, before it is shortened.
fn masked(clue: &Clue, sensitive: &[Zeroizing<String>]) -> Failure {
    let values = sensitive.iter().map(|value| value.as_str());
    // A value that is printed in pieces loses in the summary what every line loses there.
    let parts = values.clone().flat_map(masked_parts).flat_map(|part| std::iter::once(part).chain(part.split('\r')));
    let cleaned: Vec<Zeroizing<String>> = parts
        .flat_map(|part| {
            let part = Zeroizing::new(one_line(part));
            let said = Zeroizing::new(PrintedLine::of(&part).text.to_owned());
            [part, said]
        })
        .collect();
    let secrets = Secrets::of(values.chain(cleaned.iter().map(|value| value.as_str())));
    let mask = |text: &str, was_cut| secrets.mask(&one_line(text), was_cut);
    let plugin = clue.plugin.as_deref().map(|plugin| mask(plugin, false));
    Failure::new(&mask(&clue.text, clue.was_cut), plugin.as_deref(), Some(clue.line))
}

/// Whether a whole line of standard output can say anything about a failure. Nearly all lines of nearly
/// all jobs cannot, and this is much faster than [`clue`]. It has a word of everything that `clue` takes
/// for telling on standard output.
fn may_tell(text: &str) -> bool {
    const TELLING: [&str; 17] = [
        "err",
        "exception",
        "exit",
        "interrupt",
        "iteration",
        "fatal",
        "critical",
        "severe",
        "panic",
        "emerg",
        "fail",
        "abort",
        "caused by",
        "unhandled",
        "not found",
        "no s",
        "denied",
    ];
    static WORDS: LazyLock<Option<AhoCorasick>> =
        LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(TELLING).ok());
    // An escape sequence may stand in the middle of a word.
    let is_drawn = || text.bytes().any(|byte| byte < b' ' && byte != b'\t');
    WORDS.as_ref().is_none_or(|words| words.is_match(text)) || is_drawn()
}

/// What a line says about a failure, if anything.
fn clue(stream: LogStream, line: &str) -> Option<(Weight, Option<&str>, &str)> {
    let said = PrintedLine::of(line);
    let text = said.text.trim();
    let by_program = said.by.is_none();
    let weight = if text.is_empty() {
        return None;
    } else if is_dbt(text) {
        Weight::Dbt
    } else if is_exception(text) {
        Weight::Exception
    } else if said.level == Some(Level::Error) && said.by == Some("meltano") {
        match text {
            // What it says at the end of every run.
            "Block run completed" | "Run completed" => return None,
            _ if text.ends_with(" failed") => Weight::PluginFailed,
            _ => Weight::Error,
        }
    } else if is_beside(line, text) || (by_program && said.level == Some(Level::Harmless)) {
        if stream == LogStream::Stderr && by_program { Weight::Hint } else { return None }
    } else {
        match words(text) {
            _ if said.level == Some(Level::Error) => Weight::Error,
            Some(Weight::Error) => Weight::Error,
            words if stream == LogStream::Stderr && by_program => words.unwrap_or(Weight::Last),
            _ => return None,
        }
    };
    Some((weight, said.by.filter(|by| *by != "meltano"), text))
}

/// Whether it is a heading of dbt's: `Database Error in model x (models/x.sql)`, `Compilation Error`.
fn is_dbt(text: &str) -> bool {
    let Some((kind, rest)) = text.split_once(" Error") else { return false };
    let is_word = |word: &str| {
        let mut letters = word.chars();
        letters.next().is_some_and(|c| c.is_ascii_uppercase()) && letters.all(|c| c.is_ascii_alphabetic())
    };
    let words = kind.split(' ').count();
    words <= 2 && kind.split(' ').all(is_word) && (rest.is_empty() || rest.starts_with(" in "))
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

/// Whether a line stands beside the reason: advice, the heading or a frame of a stack trace, a rule of dashes.
fn is_beside(line: &str, text: &str) -> bool {
    const BEGINNINGS: [&str; 22] = [
        "hint",
        "note:",
        "help:",
        "tip:",
        "usage:",
        "see ",
        "see:",
        "try ",
        "for more",
        "for help",
        "please see",
        "please refer",
        "refer to",
        "run `",
        "run '",
        "more information",
        "read more",
        "did you mean",
        "detail:",
        "context:",
        "compiled code at",
        "traceback (",
    ];
    let is_frame = || line.starts_with([' ', '\t']) && begins(text, &["at ", "file \""]);
    begins(text, &BEGINNINGS) || is_frame() || !text.contains(char::is_alphanumeric)
}

/// What the words of a line say: an error, or that something is not as it should be.
fn words(text: &str) -> Option<Weight> {
    const BEGINNINGS: [&str; 9] =
        ["error", "fatal", "critical", "panic", "failed", "abort", "exception", "caused by", "unhandled"];
    const ERRORS: [&str; 10] = [
        ": error:",
        " error: ",
        "error]",
        "[error",
        "fatal error",
        "panicked at",
        "command not found",
        "no such file",
        "permission denied",
        "no space left",
    ];
    const TROUBLE: [&str; 28] = [
        "failed",
        "failure",
        "cannot",
        "can't",
        "could not",
        "couldn't",
        "unable to",
        "not found",
        "denied",
        "refused",
        "timed out",
        "timeout",
        "not exist",
        "doesn't exist",
        "no such",
        "invalid",
        "unexpected",
        "undefined",
        "unknown",
        "not permitted",
        "out of memory",
        "segmentation fault",
        "core dumped",
        "unreachable",
        "unauthorized",
        "forbidden",
        "rejected",
        "exception",
    ];
    static WORDS: LazyLock<Option<AhoCorasick>> =
        LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(ERRORS.iter().chain(&TROUBLE)).ok());
    if begins(text, &BEGINNINGS) {
        return Some(Weight::Error);
    }
    let text = &text[..text.floor_char_boundary(LOOKED_AT)];
    let found = WORDS.iter().flat_map(|words| words.find_overlapping_iter(text));
    found.map(|it| if it.pattern().as_usize() < ERRORS.len() { Weight::Error } else { Weight::Trouble }).max()
}

fn begins(text: &str, beginnings: &[&str]) -> bool {
    let begins = |it: &&str| text.get(..it.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(it));
    beginnings.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::LONGEST_SUMMARY;

    fn failure(lines: &[(LogStream, &str)], code: i32) -> (String, Option<String>, Option<i64>) {
        let mut diagnosis = Diagnosis::starting_at(10);
        lines.iter().for_each(|(stream, text)| diagnosis.see(*stream, false, text));
        let Failure { summary, plugin, line } = diagnosis.failure(code, &[]);
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

    #[test]
    fn a_hint_does_not_win_over_what_went_wrong() {
        let reason = |printed: &str| failure(&stderr(printed), 1).0;
        assert_eq!(reason("psql: the server is away\nhint: see the manual"), "psql: the server is away");
        assert_eq!(reason("fatal: no upstream\nhint: error: see the manual\nSee 'git help'."), "fatal: no upstream");
        assert_eq!(reason("something is wrong\n2026-11-24 10:00:00 INFO cleaning up"), "something is wrong");
        assert_eq!(reason("could not connect to db\ncleaning up\n====="), "could not connect to db");
        assert_eq!(
            reason("thread 'main' panicked at src/main.rs:2:5:\nboom\nnote: run with `RUST_BACKTRACE=1`"),
            "thread 'main' panicked at src/main.rs:2:5: boom"
        );
        assert_eq!(
            reason("java.lang.IllegalStateException: boom\n\tat Main.main(Main.java:3)"),
            "java.lang.IllegalStateException: boom"
        );
        assert_eq!(reason("hint: see the manual"), "hint: see the manual", "there is nothing else");
    }

    #[test]
    fn escapes_overwritten_text_and_timestamps_are_left_out() {
        let reason = |printed: &str| failure(&[(LogStream::Stderr, printed)], 1).0;
        assert_eq!(reason("\u{1b}[1m\u{1b}[31merror\u{1b}[0m: it is broken"), "error: it is broken");
        assert_eq!(reason("10 %\r20 %\rerror: it is broken\r"), "error: it is broken");
        assert_eq!(reason("2026-11-24 04:51:48,426 - app - ERROR - it is broken"), "app - ERROR - it is broken");
        assert_eq!(reason("[2026-11-24T04:51:48Z] it is broken"), "it is broken");
        assert_eq!(reason("\u{1b}]0;title\u{7}it is\u{8} broken\u{0}"), "it is broken");
    }

    #[test]
    fn a_value_that_cleaning_puts_together_is_masked() {
        let sensitive = |value: &str| [Zeroizing::new(value.to_owned())];
        let summary = |value: &str, printed: &str| {
            let mut diagnosis = Diagnosis::starting_at(0);
            printed.split('\n').for_each(|line| diagnosis.see(LogStream::Stderr, false, line));
            diagnosis.failure(1, &sensitive(value)).summary
        };
        for between in ["\u{1b}[1m", "\u{0}", "\u{8}", "\u{7f}", "\u{200b}", "\u{202e}", "\u{1b}]8;;x\u{7}"] {
            let shown = summary("topsecret99", &format!("Error: a tops{between}ecret99 b"));
            assert!(!shown.contains("topsecret99"), "{shown}");
        }
        assert_eq!(summary("topsecret99", "Error: a \u{1b}[1mtop\u{1b}[msecret99"), "Error: a ***");
        assert_eq!(summary("topsecret99", "10 %\rError: tops\u{0}ecret99"), "Error: ***");
        assert_eq!(summary("top secret", "Error: top\u{1b}[m\tsecret"), "Error: ***");
        assert_eq!(summary("top\tsecret", "Error: top\u{1b}[m\tsecret"), "Error: ***");
        assert_eq!(summary("error:: secret", "error:\n: secret"), "error: : secret", "it is not the value");
        assert_eq!(summary("error: : secret", "error:\n: secret"), "***", "of two lines");
        assert_eq!(summary("2026-11-24 topsecret", "2026-11-24 top\u{0}secret"), "***");
        let cut = format!("Error: {}topsecret99", "\u{200b}".repeat((printed::LOOKED_AT - 14) / 3));
        assert_eq!(summary("topsecret99", &cut), "Error: ***");
        let shortened = format!("Error: {}tops\u{0}ecret99", "x".repeat(LONGEST_SUMMARY - 14));
        assert!(!summary("topsecret99", &shortened).contains("tops"));
        let mut diagnosis = Diagnosis::starting_at(0);
        let line = "2026-11-24T04:51:48.426248Z [info     ] top\u{0}secret99        ValueError: x";
        diagnosis.see(LogStream::Stderr, false, line);
        assert_eq!(diagnosis.failure(1, &sensitive("topsecret99")).plugin.as_deref(), Some("***"));
    }

    #[test]
    fn a_line_in_pieces_is_one() {
        let mut diagnosis = Diagnosis::starting_at(0);
        for (continued, text) in [(true, "10 %\r50 %\r"), (true, "error: it"), (false, " is broken")] {
            diagnosis.see(LogStream::Stderr, continued, text);
        }
        diagnosis.see(LogStream::Stderr, false, "bye");
        let failure = diagnosis.failure(1, &[]);
        assert_eq!((failure.summary.as_str(), failure.line), ("error: it is broken", Some(1)));
    }

    #[test]
    fn of_dbt_it_tells_the_first_error_from_standard_output() {
        let printed = "\u{1b}[0m10:20:30  Running with dbt=1.9.0\n\
                       \u{1b}[0m10:20:31  1 of 2 ERROR creating sql view model a ... [\u{1b}[31mERROR\u{1b}[0m in 0.05s]\n\
                       \u{1b}[0m10:20:31  \u{1b}[31mCompleted with 2 errors and 0 warnings:\u{1b}[0m\n\
                       \u{1b}[0m10:20:31  \n\
                       \u{1b}[0m10:20:31  \u{1b}[31m  Database Error in model a (models/a.sql)\u{1b}[0m\n\
                       \u{1b}[0m10:20:31    relation \"b\" does not exist\n\
                       \u{1b}[0m10:20:31    Compilation Error in model c (models/c.sql)\n\
                       \u{1b}[0m10:20:31  \n\
                       \u{1b}[0m10:20:31  Done. PASS=0 WARN=0 ERROR=2 SKIP=0 TOTAL=2";
        let stdout = |printed: &'static str| printed.lines().map(|line| (LogStream::Stdout, line)).collect::<Vec<_>>();
        let expected = "Database Error in model a (models/a.sql): relation \"b\" does not exist".to_owned();
        assert_eq!(failure(&stdout(printed), 1), (expected, None, Some(14)));
        let printed = "10:20:30  Encountered an error:\nCompilation Error\n  dbt found two models with the name \"a\".";
        assert_eq!(failure(&stdout(printed), 2).0, "Compilation Error: dbt found two models with the name \"a\".");
        let printed = "10:20:30  1 of 5 ERROR creating sql view model a ... [ERROR in 0.05s]\n10:20:31  Done.";
        assert_eq!(failure(&stdout(printed), 1).0, "1 of 5 ERROR creating sql view model a ... [ERROR in 0.05s]");
        let printed = "2026-11-24T04:51:48.426248Z [info     ] dbt-x        10:20:30  Runtime Error in model a\n\
                       2026-11-24T04:51:48.426248Z [info     ] dbt-x        10:20:30    it is broken\n\
                       2026-11-24T04:51:48.436881Z [error    ] meltano      Invoker failed";
        let expected = ("Runtime Error in model a: it is broken".to_owned(), Some("dbt-x".to_owned()), Some(10));
        assert_eq!(failure(&stderr(printed), 1), expected);
    }

    proptest! {
        #[test]
        fn a_line_that_cannot_tell_tells_nothing(line in "\\PC{0,80}|[a-zA-Z: ]{0,80}") {
            prop_assert!(may_tell(&line) || clue(LogStream::Stdout, &line).is_none(), "{line}");
        }

        #[test]
        fn any_line_can_be_seen_and_a_summary_is_short(lines in proptest::collection::vec("(error: )?(\\PC|\\x1b\\[31m|\r|\x00){0,400}", 0..5)) {
            let lines: Vec<(LogStream, &str)> = lines.iter().map(|line| (LogStream::Stderr, line.as_str())).collect();
            prop_assert!(failure(&lines, 1).0.chars().count() <= LONGEST_SUMMARY);
        }
    }
}
