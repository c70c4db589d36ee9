//! What clients recorded while servers were killed, and a checker that names every promise that was broken.

use std::collections::{BTreeMap, BTreeSet};

/// What happened, as those who asked and watched saw it, in the order in which they did.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody asked for this. What came of it is unknown, unless it is acknowledged later.
    Asked(Wish),
    /// The server said that it is done.
    Acknowledged(Wish),
    /// The server refused something, with this code.
    Refused(String),
    /// The subscriber to the status stream, which goes on after its last cursor with every server, saw this.
    ChangeSeen(Change),
    /// A subscriber to a log, which goes on after its last line with every server, saw this.
    LineSeen { subscriber: usize, job: String, line: Line },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    CreatePipeline { pipeline: String, job: String },
    CreateJob { pipeline: String, job: String },
    Stop { job: String },
    DeleteJob { job: String },
    DeletePipeline { pipeline: String },
}

/// An entry of the status stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub cursor: String,
    pub job: String,
    pub status: String,
    pub previous: Option<String>,
    pub attempt: i64,
    pub deleted: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub sequence: i64,
    pub stream: String,
    pub text: String,
}

/// A job when everything is over.
#[derive(Debug, Clone)]
pub struct FinalJob {
    pub type_: String,
    pub pipeline: Option<String>,
    pub status: String,
    pub attempt: i64,
    pub max_attempts: i64,
    pub exit_code: Option<i64>,
    pub stop_requested: bool,
    pub lines: Vec<Line>,
}

/// All that is stored when everything is over, and what the jobs themselves noted.
#[derive(Debug, Clone, Default)]
pub struct FinalState {
    pub jobs: BTreeMap<String, FinalJob>,
    pub pipelines: BTreeSet<String>,
    /// The whole status stream.
    pub changes: Vec<Change>,
    /// Attempts, by job and number, whose scripts began, and of those the ones that came to their end.
    pub begun: BTreeSet<(String, i64)>,
    pub ended: BTreeSet<(String, i64)>,
    /// What scripts found wrong: two at a time, a process of the server before.
    pub complaints: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Violation {
    AcknowledgedIsLost(String),
    DeletedIsThere(String),
    StopIgnored(String),
    StoppedUnasked(String),
    NotFinal(String),
    IllegalPath { job: String, path: Vec<String> },
    StatusDiffersFromStream(String),
    SeenChangeDiffers(String),
    LinesNotContiguous(String),
    SeenLineDiffers { job: String, sequence: i64 },
    LinesSeenOutOfOrder { subscriber: usize, job: String },
    OutputTorn { job: String, attempt: i64 },
    NotExplained { job: String, attempt: i64 },
    CompleteWithoutItsEnd(String),
    GaveUpEarly(String),
    TooManyAttempts(String),
    TwoActiveRuns(String),
    UnexpectedError(String),
    Complaint(String),
}

/// How servers say that they have ended what an attempt had started.
const ENDS: [&str; 3] = ["server ended", "was not heard of", "could not reach the database"];
const REFUSALS: [&str; 5] = ["NOT_FOUND", "CONFLICT", "PIPELINE_BUSY", "JOB_NOT_ACTIVE", "NOT_READY"];

/// Everything in the history and the final state that the promises do not allow.
pub fn check(history: &[Event], state: &FinalState) -> Vec<Violation> {
    let mut found: Vec<Violation> = state.complaints.iter().cloned().map(Violation::Complaint).collect();
    check_mutations(history, state, &mut found);
    check_stream(history, state, &mut found);
    check_active_runs(history, state, &mut found);
    check_seen_lines(history, state, &mut found);
    for (id, job) in &state.jobs {
        check_job(id, job, state, &mut found);
    }
    found
}

fn check_mutations(history: &[Event], state: &FinalState, found: &mut Vec<Violation>) {
    // What somebody asked to delete may be gone, whether that was acknowledged or not.
    let doomed = |wish: Wish| history.iter().any(|event| matches!(event, Event::Asked(asked) if *asked == wish));
    let pipeline_doomed = |id: &String| doomed(Wish::DeletePipeline { pipeline: id.clone() });
    let job_doomed = |id: &String| doomed(Wish::DeleteJob { job: id.clone() });
    for event in history {
        match event {
            Event::Acknowledged(Wish::CreatePipeline { pipeline, job }) => {
                if !state.pipelines.contains(pipeline) && !pipeline_doomed(pipeline) {
                    found.push(Violation::AcknowledgedIsLost(format!("pipeline {pipeline}")));
                }
                if !state.jobs.contains_key(job) && !pipeline_doomed(pipeline) && !job_doomed(job) {
                    found.push(Violation::AcknowledgedIsLost(format!("job {job}")));
                }
            }
            Event::Acknowledged(Wish::CreateJob { pipeline, job })
                if !state.jobs.contains_key(job) && !pipeline_doomed(pipeline) && !job_doomed(job) =>
            {
                found.push(Violation::AcknowledgedIsLost(format!("job {job}")));
            }
            Event::Acknowledged(Wish::Stop { job })
                if state.jobs.get(job).is_some_and(|it| it.status != "STOPPED" || !it.stop_requested) =>
            {
                found.push(Violation::StopIgnored(job.clone()));
            }
            Event::Acknowledged(Wish::DeleteJob { job }) if state.jobs.contains_key(job) => {
                found.push(Violation::DeletedIsThere(format!("job {job}")));
            }
            Event::Acknowledged(Wish::DeletePipeline { pipeline }) => {
                let jobs = state.jobs.values().any(|job| job.pipeline.as_ref() == Some(pipeline));
                if jobs || state.pipelines.contains(pipeline) {
                    found.push(Violation::DeletedIsThere(format!("pipeline {pipeline}")));
                }
            }
            Event::Refused(code) if !REFUSALS.contains(&code.as_str()) => {
                found.push(Violation::UnexpectedError(code.clone()));
            }
            _ => {}
        }
    }
}

/// What a job's status may be after another, and how far the attempt's number goes with it.
fn allowed(from: &Change, to: &Change) -> bool {
    let step = to.attempt - from.attempt;
    if to.deleted {
        let is_final = matches!(from.status.as_str(), "COMPLETE" | "ERROR" | "STOPPED");
        return is_final && !from.deleted && to.status == from.status && to.previous.is_none() && step == 0;
    }
    to.previous.as_ref() == Some(&from.status)
        && match (from.status.as_str(), to.status.as_str()) {
            // Nothing but a server that is told to end leaves the number as it is, and here none is.
            ("RUNNING", "QUEUED") => step == 1,
            ("QUEUED", "RUNNING" | "STOPPED" | "COMPLETE") | ("RUNNING", "COMPLETE" | "ERROR" | "STOPPED") => step == 0,
            _ => false,
        }
}

fn check_stream(history: &[Event], state: &FinalState, found: &mut Vec<Violation>) {
    let mut paths: BTreeMap<&String, Vec<&Change>> = BTreeMap::new();
    for change in &state.changes {
        paths.entry(&change.job).or_default().push(change);
    }
    for (job, path) in &paths {
        let first = path[0];
        let begins = first.status == "QUEUED" && first.previous.is_none() && first.attempt == 1 && !first.deleted;
        if !begins || !path.windows(2).all(|pair| allowed(pair[0], pair[1])) {
            let path = path.iter().map(|it| format!("{} {}", it.status, it.attempt)).collect();
            found.push(Violation::IllegalPath { job: job.to_string(), path });
        }
    }
    for (id, job) in &state.jobs {
        let last = paths.get(id).and_then(|path| path.last());
        if last.is_none_or(|last| (&last.status, last.attempt) != (&job.status, job.attempt) || last.deleted) {
            found.push(Violation::StatusDiffersFromStream(id.clone()));
        }
    }
    let seen = history.iter().filter_map(|event| match event {
        Event::ChangeSeen(change) => Some(change),
        _ => None,
    });
    let mut stored = state.changes.iter();
    for change in seen {
        if stored.next() != Some(change) {
            return found.push(Violation::SeenChangeDiffers(change.cursor.clone()));
        }
    }
}

fn check_active_runs(history: &[Event], state: &FinalState, found: &mut Vec<Violation>) {
    let mut pipelines: BTreeMap<&String, &String> = BTreeMap::new();
    for event in history {
        if let Event::Acknowledged(Wish::CreateJob { pipeline, job }) = event {
            pipelines.insert(job, pipeline);
        }
    }
    let mut active: BTreeMap<&String, &String> = BTreeMap::new();
    for change in &state.changes {
        let Some(pipeline) = pipelines.get(&change.job) else { continue };
        if !matches!(change.status.as_str(), "QUEUED" | "RUNNING") {
            active.retain(|_, job| *job != &change.job);
        } else if active.insert(pipeline, &change.job).is_some_and(|before| before != &change.job) {
            found.push(Violation::TwoActiveRuns(pipeline.to_string()));
        }
    }
}

fn check_seen_lines(history: &[Event], state: &FinalState, found: &mut Vec<Violation>) {
    let mut next: BTreeMap<(usize, &String), i64> = BTreeMap::new();
    for event in history {
        let Event::LineSeen { subscriber, job, line } = event else { continue };
        let expected = next.entry((*subscriber, job)).or_default();
        if line.sequence != *expected {
            found.push(Violation::LinesSeenOutOfOrder { subscriber: *subscriber, job: job.clone() });
        }
        *expected = line.sequence + 1;
        let Some(stored) = state.jobs.get(job) else { continue };
        let index = usize::try_from(line.sequence).unwrap_or(usize::MAX);
        if stored.lines.get(index) != Some(line) {
            found.push(Violation::SeenLineDiffers { job: job.clone(), sequence: line.sequence });
        }
    }
}

fn check_job(id: &str, job: &FinalJob, state: &FinalState, found: &mut Vec<Violation>) {
    let user_task = job.type_.starts_with("PROFILE");
    match job.status.as_str() {
        "COMPLETE" | "ERROR" | "STOPPED" => {}
        "QUEUED" if user_task => {}
        _ => found.push(Violation::NotFinal(id.to_owned())),
    }
    if job.status == "STOPPED" && !job.stop_requested {
        found.push(Violation::StoppedUnasked(id.to_owned()));
    }
    if job.attempt > job.max_attempts {
        found.push(Violation::TooManyAttempts(id.to_owned()));
    }
    if !job.lines.iter().zip(0..).all(|(line, sequence)| line.sequence == sequence) {
        found.push(Violation::LinesNotContiguous(id.to_owned()));
    }
    let said: Vec<&str> =
        job.lines.iter().filter(|line| line.stream == "SYSTEM").map(|line| line.text.as_str()).collect();
    let says = |what: &str, attempt: i64| {
        said.iter().any(|line| line.contains(what) && line.contains(&format!("in attempt {attempt} of")))
    };
    let not_started = said.iter().any(|line| line.contains("FAILED"));
    // A system task that fails by itself is not repeated.
    let is_final = not_started || (job.exit_code.is_some() && job.type_ != "PIPELINE_RUN");
    if job.status == "ERROR" && job.attempt < job.max_attempts && !is_final {
        found.push(Violation::GaveUpEarly(id.to_owned()));
    }
    for attempt in 1..=job.attempt {
        let last = attempt == job.attempt;
        let explained = if last { job.status != "ERROR" || job.exit_code.is_some() || not_started } else { false };
        let cut_off =
            state.begun.contains(&(id.to_owned(), attempt)) && !state.ended.contains(&(id.to_owned(), attempt));
        // A script that did not come to its end was cut off by the end of its server, or by a wish.
        let needs_rescue = cut_off && !(last && job.stop_requested);
        if (!explained && !says("", attempt)) || (needs_rescue && !ENDS.iter().any(|ends| says(ends, attempt))) {
            found.push(Violation::NotExplained { job: id.to_owned(), attempt });
        }
        if last && cut_off && job.status == "COMPLETE" {
            found.push(Violation::CompleteWithoutItsEnd(id.to_owned()));
        }
        let whole = says("Exit code", attempt) || (last && job.status == "COMPLETE");
        if job.type_ == "PIPELINE_RUN" && !output_is_right(job, attempt, whole) {
            found.push(Violation::OutputTorn { job: id.to_owned(), attempt });
        }
    }
}

/// Each attempt prints its number, the number of the line, and how many there are: those that are stored are the first, and
/// all of them if the attempt came to its end.
fn output_is_right(job: &FinalJob, attempt: i64, whole: bool) -> bool {
    let mut next = 0;
    let mut count = None;
    for line in job.lines.iter().filter(|line| line.stream == "STDOUT") {
        let numbers: Vec<i64> = line.text.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [of, number, all] = numbers[..] else { return false };
        if of != attempt {
            continue;
        }
        if number != next {
            return false;
        }
        next += 1;
        count = Some(all);
    }
    !whole || count == Some(next)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
