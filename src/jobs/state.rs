//! The state machine of a job, as pure functions from one state to the next.
//!
//! ```text
//! QUEUED ──▶ RUNNING ──▶ COMPLETE, ERROR, STOPPED
//!   │  ▲________│            another try, or the same one after a shutdown
//!   ├──▶ STOPPED
//!   └──▶ COMPLETE            the two user tasks only
//! ```

use std::time::Duration;

use crate::error::Error;
use crate::model::{Job, JobStatus, JobStopReason, JobType, Node, SupervisorIdentity, Timestamp};

/// How many attempts a system task has. It may be run again after a crash at any point, so a crash of its server does not end it.
pub(super) const SYSTEM_TASK_ATTEMPTS: i32 = 3;

/// How an attempt came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Its process exited, and all that it started is gone.
    Exited {
        /// 128 + n for signal n.
        code: i32,
        /// The commit it made in the workspace's repository.
        commit_id: Option<String>,
    },
    /// It could not be started.
    NotStarted {
        /// Whether another try may help: the machine was short of something.
        short: bool,
    },
    /// Who held it died; what the attempt started is ended.
    Lost(Holder),
    /// The server has lost its lease; all that the attempt started is gone.
    CutOff,
    /// The server shuts down; all that the attempt started is gone.
    Interrupted,
    /// The server was not told that the job was its own, and has started nothing.
    NotBegun,
    /// A system task needs more from the server than it was given: it is done again, which does not count.
    NeedsMore,
}

/// Who holds a job's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The server, through a supervisor.
    Server,
    /// A server that nobody has heard of for too long.
    LateServer {
        /// What people call it.
        name: String,
        /// Where it keeps the lines that it could not store.
        unstored: String,
    },
    /// The supervisor.
    Supervisor,
}

/// The next state of a job that a runner takes.
pub(super) fn start(job: &Job, node: &Node, supervisor: SupervisorIdentity, now: Timestamp) -> Job {
    Job {
        status: JobStatus::Running,
        not_before: None,
        start_time: Some(now),
        owner: Some(node.id),
        node: Some(node.name.clone()),
        supervisor_pid: Some(supervisor.pid),
        supervisor_start: Some(supervisor.start),
        supervisor_boot: Some(supervisor.boot),
        ..job.clone()
    }
}

/// The next state of a job whose attempt has ended. The wish to stop it comes before everything else. A run is tried again whatever ended it, a
/// system task only if that was not its own doing: what it says of a definition or a repository stays true.
pub(super) fn end(job: &Job, ending: &Ending, backoff: Duration, now: Timestamp) -> Job {
    let is_system_task = JobType::SYSTEM_TASKS.contains(&job.type_);
    // Earlier versions of the server queued system tasks with one attempt.
    let max_attempts = if is_system_task { job.max_attempts.max(SYSTEM_TASK_ATTEMPTS) } else { job.max_attempts };
    let tries_left = job.attempt < max_attempts;
    let next = |job: &Job| Job { attempt: job.attempt + 1, max_attempts, ..requeue(job) };
    match ending {
        _ if job.stop_requested.is_some() => finish(job, JobStatus::Stopped, ending, now),
        Ending::Exited { code: 0, .. } => finish(job, JobStatus::Complete, ending, now),
        Ending::Exited { .. } if is_system_task => finish(job, JobStatus::Error, ending, now),
        Ending::Exited { .. } | Ending::NotStarted { short: true } if tries_left => {
            Job { not_before: Some(now + backoff), ..next(job) }
        }
        Ending::Lost(_) | Ending::CutOff if tries_left => next(job),
        Ending::Interrupted | Ending::NotBegun | Ending::NeedsMore => requeue(job),
        Ending::Exited { .. } | Ending::Lost(_) | Ending::CutOff | Ending::NotStarted { .. } => {
            finish(job, JobStatus::Error, ending, now)
        }
    }
}

/// The next state of a job that is to be stopped: a queued one stops at once, a running one has the wish noted.
pub(super) fn stop(job: &Job, reason: JobStopReason, now: Timestamp) -> Result<Job, Error> {
    let wished = Job {
        stop_requested: job.stop_requested.or(Some(now)),
        stop_reason: job.stop_reason.or(Some(reason)),
        ..job.clone()
    };
    match job.status {
        JobStatus::Queued => Ok(Job { status: JobStatus::Stopped, not_before: None, end_time: Some(now), ..wished }),
        JobStatus::Running => Ok(wished),
        done => Err(Error::JobNotActive { status: done.as_str() }),
    }
}

/// The next state of a user task once the person has done what it asks.
pub(super) fn complete_user_task(job: &Job, now: Timestamp) -> Job {
    Job { status: JobStatus::Complete, end_time: Some(now), ..job.clone() }
}

/// Whether a job of this type may go from one status to the other.
pub(super) fn allowed(type_: JobType, from: JobStatus, to: JobStatus) -> bool {
    use JobStatus::{Complete, Error, Queued, Running, Stopped};
    let user_task = JobType::USER_TASKS.contains(&type_);
    match (from, to) {
        (Queued, Running) => !user_task,
        (Queued, Stopped) => true,
        (Queued, Complete) => user_task,
        (Running, Complete | Error | Stopped | Queued) => true,
        _ => false,
    }
}

fn finish(job: &Job, status: JobStatus, ending: &Ending, now: Timestamp) -> Job {
    let (exit_code, commit_id) = match ending {
        Ending::Exited { code, commit_id } => (Some(*code), commit_id.clone()),
        Ending::NotStarted { .. }
        | Ending::Lost(_)
        | Ending::CutOff
        | Ending::Interrupted
        | Ending::NotBegun
        | Ending::NeedsMore => (None, None),
    };
    Job { status, end_time: Some(now), exit_code, commit_id, ..release(job) }
}

fn requeue(job: &Job) -> Job {
    Job { status: JobStatus::Queued, start_time: None, ..release(job) }
}

fn release(job: &Job) -> Job {
    Job { owner: None, supervisor_pid: None, supervisor_start: None, supervisor_boot: None, ..job.clone() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Id, JobId, WorkspaceId};

    #[derive(Debug, Clone, PartialEq)]
    enum Step {
        Start,
        Stop(JobStopReason),
        End(Ending),
        CompleteUserTask,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Start),
            prop_oneof![Just(JobStopReason::Requested), Just(JobStopReason::Timeout)].prop_map(Step::Stop),
            (0..3).prop_map(|code| Step::End(Ending::Exited { code, commit_id: None })),
            prop_oneof![
                any::<bool>().prop_map(|short| Ending::NotStarted { short }),
                Just(Ending::Lost(Holder::Server)),
                Just(Ending::CutOff),
                Just(Ending::Interrupted),
                Just(Ending::NotBegun),
                Just(Ending::NeedsMore)
            ]
            .prop_map(Step::End),
            Just(Step::CompleteUserTask),
        ]
    }

    fn new_job(type_: JobType, max_attempts: i32, now: Timestamp) -> Job {
        super::super::unit::new_job(JobId::random(), WorkspaceId::random(), None, None, type_, max_attempts, now)
    }

    fn node(now: Timestamp) -> Node {
        Node {
            id: Id::random(),
            name: "node".to_owned(),
            started: now,
            lease_until: now,
            pid: 1,
            pid_start: 0,
            machine: String::new(),
            home: Id::random(),
            directory: String::new(),
            shared: Some(Id::random()),
            lease_length: 0,
        }
    }

    fn take(job: &Job, step: &Step, now: Timestamp) -> Option<Job> {
        let supervisor = || SupervisorIdentity { pid: 2, start: 3, boot: "boot".to_owned() };
        match step {
            Step::Start if job.status == JobStatus::Queued && !JobType::USER_TASKS.contains(&job.type_) => {
                Some(start(job, &node(now), supervisor(), now))
            }
            Step::Stop(reason) => stop(job, *reason, now).ok(),
            Step::End(ending) if job.status == JobStatus::Running => {
                Some(end(job, ending, Duration::from_secs(1), now))
            }
            Step::CompleteUserTask if job.status == JobStatus::Queued && JobType::USER_TASKS.contains(&job.type_) => {
                Some(complete_user_task(job, now))
            }
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn every_path_keeps_the_promises(
            type_ in proptest::sample::select(JobType::ALL),
            max_attempts in 1..4_i32,
            steps in proptest::collection::vec(any_step(), 0..30),
        ) {
            let mut now = Timestamp::now();
            let mut job = new_job(type_, max_attempts, now);
            for step in steps {
                now = now + Duration::from_secs(1);
                let Some(next) = take(&job, &step, now) else { continue };
                if next.status != job.status {
                    prop_assert!(allowed(type_, job.status, next.status), "{} to {}", job.status, next.status);
                }
                prop_assert!(!job.status.is_final(), "a final status changed");
                prop_assert!(next.attempt == job.attempt || next.attempt == job.attempt + 1);
                prop_assert!(next.attempt <= next.max_attempts);
                if next.max_attempts != job.max_attempts {
                    prop_assert!(JobType::SYSTEM_TASKS.contains(&type_) && next.max_attempts == SYSTEM_TASK_ATTEMPTS);
                }
                prop_assert_eq!(next.owner.is_some(), next.status == JobStatus::Running);
                prop_assert_eq!(next.end_time.is_some(), next.status.is_final());
                prop_assert!(next.exit_code.is_none() || next.status.is_final());
                prop_assert!(next.stop_requested.is_some() || job.stop_requested.is_none(), "a wish was forgotten");
                if job.stop_requested.is_some() && next.status != job.status {
                    prop_assert_eq!(next.status, JobStatus::Stopped, "a stopped job went on");
                }
                if matches!(step, Step::End(Ending::Interrupted | Ending::NotBegun | Ending::NeedsMore)) && next.status == JobStatus::Queued {
                    prop_assert_eq!(next.attempt, job.attempt, "what is not the job's own affair used up a try");
                }
                job = next;
            }
        }
    }

    #[test]
    fn a_system_task_is_tried_again_after_a_crash_and_not_after_a_failure() {
        let now = Timestamp::now();
        let crashes = [Ending::Lost(Holder::Server), Ending::Lost(Holder::Supervisor), Ending::CutOff];
        for (type_, max_attempts) in
            JobType::SYSTEM_TASKS.into_iter().flat_map(|it| [(it, 1), (it, SYSTEM_TASK_ATTEMPTS)])
        {
            let failed = Ending::Exited { code: 1, commit_id: None };
            let started = take(&new_job(type_, max_attempts, now), &Step::Start, now).unwrap();
            assert_eq!(end(&started, &failed, Duration::ZERO, now).status, JobStatus::Error);
            let mut job = started;
            for crash in &crashes[1..] {
                let queued = end(&job, crash, Duration::ZERO, now);
                assert_eq!((queued.status, queued.max_attempts), (JobStatus::Queued, SYSTEM_TASK_ATTEMPTS));
                job = take(&queued, &Step::Start, now).unwrap();
            }
            assert_eq!(end(&job, &crashes[0], Duration::ZERO, now).status, JobStatus::Error, "three attempts are all");
        }
    }
}
