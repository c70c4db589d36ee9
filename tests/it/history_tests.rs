//! The checker finds what is wrong with made-up histories, and nothing in one that is right.

use super::*;

fn change(cursor: usize, job: &str, path: (Option<&str>, &str), attempt: i64) -> Change {
    Change {
        cursor: cursor.to_string(),
        job: job.to_owned(),
        status: path.1.to_owned(),
        previous: path.0.map(str::to_owned),
        attempt,
        deleted: false,
    }
}

fn line(sequence: i64, stream: &str, text: &str) -> Line {
    Line { sequence, stream: stream.to_owned(), text: text.to_owned() }
}

/// A job that was cut off by a kill, tried again, failed, and is complete after its third attempt; and one that was stopped.
fn good() -> (Vec<Event>, FinalState) {
    let lines = vec![
        line(0, "STDOUT", "1 0 2"),
        line(1, "SYSTEM", "The server ended while the job was running in attempt 1 of 3; queued again."),
        line(2, "STDOUT", "2 0 2"),
        line(3, "STDOUT", "2 1 2"),
        line(4, "SYSTEM", "Exit code 3 in attempt 2 of 3. Trying again in 1s."),
        line(5, "STDOUT", "3 0 2"),
        line(6, "STDOUT", "3 1 2"),
    ];
    let changes = vec![
        change(1, "a", (None, "QUEUED"), 1),
        change(2, "a", (Some("QUEUED"), "RUNNING"), 1),
        change(3, "s", (None, "QUEUED"), 1),
        change(4, "a", (Some("RUNNING"), "QUEUED"), 2),
        change(5, "a", (Some("QUEUED"), "RUNNING"), 2),
        change(6, "s", (Some("QUEUED"), "STOPPED"), 1),
        change(7, "a", (Some("RUNNING"), "QUEUED"), 3),
        change(8, "a", (Some("QUEUED"), "RUNNING"), 3),
        change(9, "a", (Some("RUNNING"), "COMPLETE"), 3),
    ];
    let created = |pipeline: &str, job: &str| Wish::CreateJob { pipeline: pipeline.to_owned(), job: job.to_owned() };
    let mut history = vec![
        Event::Acknowledged(created("p", "a")),
        Event::Acknowledged(created("q", "s")),
        Event::Acknowledged(Wish::Stop { job: "s".to_owned() }),
        Event::Refused("PIPELINE_BUSY".to_owned()),
    ];
    history.extend(changes.iter().take(7).cloned().map(Event::ChangeSeen));
    history.extend(lines.iter().cloned().map(|line| Event::LineSeen { subscriber: 1, job: "a".to_owned(), line }));
    let job = FinalJob {
        type_: "PIPELINE_RUN".to_owned(),
        pipeline: Some("p".to_owned()),
        status: "COMPLETE".to_owned(),
        attempt: 3,
        max_attempts: 3,
        exit_code: Some(0),
        stop_requested: false,
        lines,
    };
    let stopped = FinalJob {
        pipeline: Some("q".to_owned()),
        status: "STOPPED".to_owned(),
        attempt: 1,
        exit_code: None,
        stop_requested: true,
        lines: Vec::new(),
        ..job.clone()
    };
    let attempts = |numbers: &[i64]| numbers.iter().map(|it| ("a".to_owned(), *it)).collect();
    let state = FinalState {
        jobs: BTreeMap::from([("a".to_owned(), job), ("s".to_owned(), stopped)]),
        pipelines: BTreeSet::from(["p".to_owned(), "q".to_owned()]),
        changes,
        begun: attempts(&[1, 2, 3]),
        ended: attempts(&[2, 3]),
        complaints: Vec::new(),
    };
    (history, state)
}

/// The violations in the good history after somebody has spoilt it.
fn spoilt(spoil: impl FnOnce(&mut Vec<Event>, &mut FinalState)) -> Vec<Violation> {
    let (mut history, mut state) = good();
    spoil(&mut history, &mut state);
    check(&history, &state)
}

fn job<'a>(state: &'a mut FinalState, id: &str) -> &'a mut FinalJob {
    state.jobs.get_mut(id).expect("the job")
}

fn a() -> String {
    "a".to_owned()
}

#[test]
fn nothing_is_wrong_with_a_good_history() {
    assert_eq!(spoilt(|_, _| {}), []);
}

#[test]
fn an_acknowledged_job_that_is_lost_is_found() {
    let found = spoilt(|_, state| drop(state.jobs.remove("a")));
    assert!(found.contains(&Violation::AcknowledgedIsLost("job a".to_owned())), "{found:?}");
    let asked = Event::Asked(Wish::DeleteJob { job: a() });
    let found = spoilt(|history, state| {
        state.jobs.remove("a");
        history.push(asked);
    });
    assert_eq!(found, [], "it may have been deleted");
}

#[test]
fn a_deleted_job_or_pipeline_that_is_there_is_found() {
    let found = spoilt(|history, _| history.push(Event::Acknowledged(Wish::DeleteJob { job: a() })));
    assert_eq!(found, [Violation::DeletedIsThere("job a".to_owned())]);
    let deleted = Wish::DeletePipeline { pipeline: "p".to_owned() };
    let found = spoilt(|history, _| history.push(Event::Acknowledged(deleted)));
    assert_eq!(found, [Violation::DeletedIsThere("pipeline p".to_owned())]);
}

#[test]
fn an_acknowledged_stop_without_effect_is_found() {
    let found = spoilt(|history, _| history.push(Event::Acknowledged(Wish::Stop { job: a() })));
    assert_eq!(found, [Violation::StopIgnored(a())]);
    let found = spoilt(|_, state| job(state, "s").stop_requested = false);
    assert!(found.contains(&Violation::StoppedUnasked("s".to_owned())), "{found:?}");
}

#[test]
fn a_job_that_does_not_end_is_found() {
    let found = spoilt(|_, state| {
        state.changes.pop();
        job(state, "a").status = "RUNNING".to_owned();
    });
    assert!(found.contains(&Violation::NotFinal(a())), "{found:?}");
}

#[test]
fn an_illegal_path_is_found() {
    let is_found = |spoil: &dyn Fn(&mut Vec<Change>)| {
        let found = spoilt(|_, state| spoil(&mut state.changes));
        let hit = |it: &Violation| matches!(it, Violation::IllegalPath { job, .. } if job == "a");
        assert!(found.iter().any(hit), "{found:?}");
    };
    is_found(&|changes| changes.push(change(10, "a", (Some("COMPLETE"), "ERROR"), 3)));
    is_found(&|changes| changes.push(change(10, "a", (Some("RUNNING"), "COMPLETE"), 3)));
    is_found(&|changes| drop(changes.remove(0)));
    is_found(&|changes| drop(changes.remove(4)));
    is_found(&|changes| changes[3].attempt = 1);
    is_found(&|changes| changes[8].deleted = true);
}

#[test]
fn a_status_that_differs_from_the_stream_is_found() {
    let found = spoilt(|_, state| job(state, "a").status = "ERROR".to_owned());
    assert!(found.contains(&Violation::StatusDiffersFromStream(a())), "{found:?}");
}

#[test]
fn a_seen_change_that_is_not_stored_is_found() {
    let missing = spoilt(|_, state| drop(state.changes.remove(5)));
    assert!(missing.contains(&Violation::SeenChangeDiffers("6".to_owned())), "{missing:?}");
    let extra = change(99, "s", (Some("QUEUED"), "RUNNING"), 1);
    let extra = spoilt(|history, _| history.insert(4, Event::ChangeSeen(extra)));
    assert_eq!(extra, [Violation::SeenChangeDiffers("99".to_owned())]);
    let repeated = spoilt(|history, _| history.insert(5, history[4].clone()));
    assert_eq!(repeated, [Violation::SeenChangeDiffers("1".to_owned())]);
}

#[test]
fn lines_that_are_lost_changed_or_repeated_are_found() {
    let gap = spoilt(|_, state| drop(job(state, "a").lines.remove(3)));
    assert!(gap.contains(&Violation::LinesNotContiguous(a())), "{gap:?}");
    assert!(gap.contains(&Violation::OutputTorn { job: a(), attempt: 2 }), "{gap:?}");
    let changed = spoilt(|_, state| job(state, "a").lines[1].text.push('!'));
    assert_eq!(changed, [Violation::SeenLineDiffers { job: a(), sequence: 1 }]);
    let last = spoilt(|_, state| drop(job(state, "a").lines.pop()));
    assert!(last.contains(&Violation::SeenLineDiffers { job: a(), sequence: 6 }), "{last:?}");
    assert!(last.contains(&Violation::OutputTorn { job: a(), attempt: 3 }), "{last:?}");
    let repeated = spoilt(|history, _| history.push(history.last().expect("a line").clone()));
    assert_eq!(repeated, [Violation::LinesSeenOutOfOrder { subscriber: 1, job: a() }]);
}

#[test]
fn an_attempt_that_nobody_explains_is_found() {
    for sequence in [1, 4] {
        let found = spoilt(|history, state| {
            history.retain(|event| !matches!(event, Event::LineSeen { .. }));
            job(state, "a").lines[sequence].text = "Hello.".to_owned();
        });
        let attempt = if sequence == 1 { 1 } else { 2 };
        assert_eq!(found, [Violation::NotExplained { job: a(), attempt }]);
    }
    let cut_off = spoilt(|_, state| assert!(state.ended.remove(&(a(), 3))));
    assert!(cut_off.contains(&Violation::CompleteWithoutItsEnd(a())), "{cut_off:?}");
}

#[test]
fn too_few_and_too_many_attempts_are_found() {
    let early = spoilt(|_, state| {
        let job = job(state, "a");
        (job.status, job.exit_code, job.max_attempts) = ("ERROR".to_owned(), Some(1), 4);
    });
    assert!(early.contains(&Violation::GaveUpEarly(a())), "{early:?}");
    let many = spoilt(|_, state| job(state, "a").max_attempts = 2);
    assert_eq!(many, [Violation::TooManyAttempts(a())]);
}

#[test]
fn two_runs_of_a_pipeline_at_once_are_found() {
    let found = spoilt(|history, _| {
        history[1] = Event::Acknowledged(Wish::CreateJob { pipeline: "p".to_owned(), job: "s".to_owned() });
    });
    assert!(found.contains(&Violation::TwoActiveRuns("p".to_owned())), "{found:?}");
}

#[test]
fn complaints_and_unexpected_errors_are_found() {
    let found = spoilt(|history, state| {
        history.push(Event::Refused("INTERNAL".to_owned()));
        state.complaints.push("two at once".to_owned());
    });
    let expected = [Violation::Complaint("two at once".to_owned()), Violation::UnexpectedError("INTERNAL".to_owned())];
    assert_eq!(found, expected);
}
