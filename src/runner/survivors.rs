//! What a job's log says of processes that do not end.

use zeroize::Zeroizing;

use crate::model::{SHORTEST_MASKED, one_line};
use crate::supervisor::protocol::{Survivor, Survivors};

/// The line that says that the grace is over.
pub(super) fn killing(survivors: &Survivors, sensitive: &[Zeroizing<String>]) -> String {
    format!("Sending KILL to {} that did not end after TERM: {}.", processes(survivors), named(survivors, sensitive))
}

/// The line that says that KILL has not helped.
pub(super) fn unkillable(survivors: &Survivors, sensitive: &[Zeroizing<String>]) -> String {
    match survivors.count {
        0 => "Processes of the job are left after KILL, and cannot be found. The job is RUNNING until they end."
            .to_owned(),
        _ => format!(
            "KILL did not end {}: {}. The job is RUNNING until they end.",
            processes(survivors),
            named(survivors, sensitive)
        ),
    }
}

fn processes(Survivors { count, .. }: &Survivors) -> String {
    format!("{count} {}", if *count == 1 { "process" } else { "processes" })
}

fn named(Survivors { count, named }: &Survivors, sensitive: &[Zeroizing<String>]) -> String {
    let one = |Survivor { pid, name }: &Survivor| {
        // Without what is between the parts of a value.
        let name = one_line(name);
        if name.is_empty() || is_sensitive(&name, sensitive) { format!("{pid}") } else { format!("{name} ({pid})") }
    };
    let mut words: Vec<String> = named.iter().map(one).collect();
    if named.len() < *count {
        words.push("…".to_owned());
    }
    words.join(", ")
}

/// Whether a name shows a sensitive value, or a part of it: a process can call itself anything, and the kernel cuts its name.
fn is_sensitive(name: &str, sensitive: &[Zeroizing<String>]) -> bool {
    let begins = |value: &str| {
        let begins_at = |at: usize| name.get(at..).is_some_and(|end| value.starts_with(end));
        (0..=name.len().saturating_sub(SHORTEST_MASKED)).any(begins_at)
    };
    let shows =
        |value: &str| value.len() >= SHORTEST_MASKED && (value.contains(name) || name.contains(value) || begins(value));
    name.len() >= SHORTEST_MASKED
        && sensitive.iter().any(|value| shows(value) || value.lines().any(|line| shows(line.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(count: usize, names: &[&str]) -> Survivors {
        let named = names.iter().zip(1..).map(|(name, pid)| Survivor { pid, name: (*name).to_owned() });
        Survivors { count, named: named.collect() }
    }

    #[test]
    fn processes_are_named_unless_that_shows_a_sensitive_value() {
        let sensitive = [Zeroizing::new("hunter2hunter2hunter2".to_owned())];
        let line = killing(&survivors(4, &["bash", "hunter2hunter2h", "my-hunter2hunter2hunter2", ""]), &sensitive);
        assert_eq!(line, "Sending KILL to 4 processes that did not end after TERM: bash (1), 2, 3, 4.");
        let line = killing(&survivors(2, &["my-hunter2hunte", "hun\u{1b}[1mter2hun"]), &sensitive);
        assert_eq!(line, "Sending KILL to 2 processes that did not end after TERM: 1, 2.");
        let line = killing(&survivors(1, &["sleep"]), &[]);
        assert_eq!(line, "Sending KILL to 1 process that did not end after TERM: sleep (1).");
        let line = unkillable(&survivors(30, &["su"]), &[]);
        assert_eq!(line, "KILL did not end 30 processes: su (1), …. The job is RUNNING until they end.");
    }
}
