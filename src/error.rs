//! What can go wrong, as a client is told it.
//!
//! [`Error`] is the one error type at the edge. Its `Display` is safe for a client; what is not safe
//! stays in its [`source`](std::error::Error::source) and goes to the server's log, once, where it is answered.

use std::fmt;
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

/// A detail that only the server's log may show. Clones are the same failure, which is logged once however many requests it meets.
#[derive(Clone)]
pub struct Detail(Arc<Failure>);

struct Failure {
    cause: Box<dyn std::error::Error + Send + Sync>,
    logged_as: OnceLock<Uuid>,
}

impl Detail {
    fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::new(Failure { cause: cause.into(), logged_as: OnceLock::new() }))
    }

    /// The id under which the log has it, for a client that is told of it. Whoever asks first has it logged.
    pub fn logged_as(&self, code: &str) -> Uuid {
        *self.0.logged_as.get_or_init(|| {
            let request_id = Uuid::new_v4();
            tracing::error!(%request_id, code, detail = ?self, "a request failed");
            request_id
        })
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.cause.fmt(f)
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.cause)
    }
}

impl std::error::Error for Detail {}

/// Why a request was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The thing with this id is not there, or not any more.
    #[error("There is no {what} {id}.")]
    NotFound {
        /// What was looked for: "job", "pipeline" …
        what: &'static str,
        /// The id that it was looked for by.
        id: String,
    },
    /// Something else has the name already.
    #[error("{0}")]
    Conflict(String),
    /// The pipeline has a run that has not ended.
    #[error("The pipeline has an active run already: job {job_id}.")]
    PipelineBusy {
        /// The active run.
        job_id: String,
    },
    /// The job has ended, so there is nothing to stop.
    #[error("The job is {status}: only a QUEUED or RUNNING job can be stopped.")]
    JobNotActive {
        /// The job's final status.
        status: &'static str,
    },
    /// The workspace or pipeline is FAILED.
    #[error("{0}")]
    NotReady(String),
    /// The status stream is no longer kept as far back as the cursor.
    #[error("The changes after this cursor are no longer kept. Subscribe without `after` to begin with the present.")]
    CursorExpired,
    /// What the request says is not right; every problem is named.
    #[error("{}", summary(.0))]
    BadUserInput(Vec<Problem>),
    /// The token is missing or wrong.
    #[error("A valid bearer token is needed.")]
    Unauthenticated,
    /// The request is not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// The request asks for more than the server allows.
    #[error("{0}")]
    LimitExceeded(String),
    /// The document that the request names is not known.
    // The text is what the clients of automatic persisted queries look for.
    #[error("PersistedQueryNotFound")]
    PersistedQueryNotFound,
    /// The database cannot be written or read at the moment; nothing was changed.
    #[error("The database is not available at the moment. Nothing was changed; try again.")]
    Unavailable(#[source] Detail),
    /// The database went away while something was being stored: it may be stored, or not.
    #[error(
        "The database went away while this was being stored: it may be stored or not. Look, and try again if it is not."
    )]
    Uncertain(#[source] Detail),
    /// The write expected another state than the job has: somebody else changed it.
    #[error("The job has changed meanwhile.")]
    Stale,
    /// A fault of the server's own.
    #[error("Internal error.")]
    Internal(#[source] Detail),
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where: the argument's path, such as `input.properties.0.name`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// What is wrong at a path.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

fn summary(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
    lines.join("; ")
}

/// Both values; or, if both are bad input, the problems of both.
pub fn both<A, B>(one: Result<A, Error>, other: Result<B, Error>) -> Result<(A, B), Error> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(Error::BadUserInput(mut problems)), Err(Error::BadUserInput(more))) => {
            problems.extend(more);
            Err(Error::BadUserInput(problems))
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

impl Error {
    /// The error for an id that nothing has.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    /// The error for one wrong argument.
    pub fn bad_input(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::BadUserInput(vec![Problem { path: path.into(), message: message.into() }])
    }

    /// A fault of the server's own, with what only its log may show.
    pub fn internal(detail: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(Detail::new(detail))
    }

    /// What has become of something that panicked.
    pub fn after_panic(what: &str, panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::internal(format!("{what} panicked: {}", text.unwrap_or("no message")))
    }

    /// The database is away or full, with what only the server's log may show.
    pub fn unavailable(detail: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Detail::new(detail))
    }

    /// The database went away during a commit, with what only the server's log may show.
    pub fn uncertain(detail: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Uncertain(Detail::new(detail))
    }

    /// The code that clients tell errors apart by: `extensions.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "NOT_FOUND",
            Self::Conflict(_) => "CONFLICT",
            Self::PipelineBusy { .. } => "PIPELINE_BUSY",
            Self::JobNotActive { .. } => "JOB_NOT_ACTIVE",
            Self::NotReady(_) => "NOT_READY",
            Self::CursorExpired => "CURSOR_EXPIRED",
            Self::BadUserInput(_) => "BAD_USER_INPUT",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::LimitExceeded(_) => "LIMIT_EXCEEDED",
            Self::PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
            Self::Unavailable(_) | Self::Uncertain(_) => "UNAVAILABLE",
            Self::Stale | Self::Internal(_) => "INTERNAL",
        }
    }

    /// The detail for the server's log, where there is one.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Self::Unavailable(detail) | Self::Uncertain(detail) | Self::Internal(detail) => Some(detail),
            _ => None,
        }
    }
}
