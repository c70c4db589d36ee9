//! The values that labels can have: enums, so that their number is bounded.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::model::{JobStatus, JobType, LogStream};

/// An enum whose values are labels.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// Every value.
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        encoded_as_name!($name);
    };
}

macro_rules! encoded_as_name {
    ($($name:ident),+) => { $(
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.as_str())
            }
        }
    )+ };
}

encoded_as_name!(JobType, JobStatus, LogStream);

label! {
    /// What came of a try to deliver something to a webhook.
    DeliveryOutcome {
        /// It has arrived.
        Arrived = "arrived",
        /// It failed, and is tried again.
        Failed = "failed",
        /// It failed, and is not tried again.
        GivenUp = "given_up",
    }
}

label! {
    /// The method of an HTTP request.
    Method {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// OPTIONS.
        Options = "OPTIONS",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// DELETE.
        Delete = "DELETE",
        /// Any other.
        Other = "other",
    }
}

impl Method {
    /// The method of this name.
    pub fn named(name: &str) -> Self {
        Self::ALL.iter().copied().find(|it| it.as_str() == name).unwrap_or(Self::Other)
    }
}

label! {
    /// What a GraphQL operation is.
    OperationType {
        /// A query.
        Query = "query",
        /// A mutation.
        Mutation = "mutation",
        /// A subscription.
        Subscription = "subscription",
        /// It was refused before that could be told.
        Unknown = "unknown",
    }
}

label! {
    /// What became of a GraphQL operation.
    Outcome {
        /// It was carried out.
        Ok = "ok",
        /// It was carried out, and its answer has errors.
        Error = "error",
        /// It was not carried out.
        Refused = "refused",
    }
}

label! {
    /// Whether something was found in a cache.
    CacheResult {
        /// It was.
        Hit = "hit",
        /// It was not.
        Miss = "miss",
    }
}

label! {
    /// An error's code, as clients see it.
    Code {
        /// Wrong arguments.
        BadUserInput = "BAD_USER_INPUT",
        /// A name that is taken.
        Conflict = "CONFLICT",
        /// A cursor older than what is kept.
        CursorExpired = "CURSOR_EXPIRED",
        /// Not allowed.
        Forbidden = "FORBIDDEN",
        /// Not GraphQL.
        ParseFailed = "GRAPHQL_PARSE_FAILED",
        /// Not what the schema allows.
        ValidationFailed = "GRAPHQL_VALIDATION_FAILED",
        /// A fault of the server's own.
        Internal = "INTERNAL",
        /// Stopping what has ended.
        JobNotActive = "JOB_NOT_ACTIVE",
        /// More than the server allows.
        LimitExceeded = "LIMIT_EXCEEDED",
        /// Not there.
        NotFound = "NOT_FOUND",
        /// Not usable at the moment.
        NotReady = "NOT_READY",
        /// A hash of a document that the server has not seen.
        PersistedQueryNotFound = "PERSISTED_QUERY_NOT_FOUND",
        /// A second run.
        PipelineBusy = "PIPELINE_BUSY",
        /// The database is away.
        Unavailable = "UNAVAILABLE",
        /// Any other.
        Other = "other",
    }
}

impl Code {
    /// The code of this name.
    pub fn named(name: &str) -> Self {
        Self::ALL.iter().copied().find(|it| it.as_str() == name).unwrap_or(Self::Other)
    }
}

label! {
    /// The code that a WebSocket was closed with, by either side.
    CloseCode {
        /// Done.
        Normal = "1000",
        /// The page is left, or the peer ends.
        GoingAway = "1001",
        /// Not a WebSocket's frames.
        Protocol = "1002",
        /// Closed without a code.
        NoStatus = "1005",
        /// Lost, without a close frame.
        Abnormal = "1006",
        /// A text that is not UTF-8.
        NotText = "1007",
        /// A message that is too large.
        TooBig = "1009",
        /// A fault of the server's own.
        Internal = "1011",
        /// The server shuts down.
        Restart = "1012",
        /// Not a message of graphql-transport-ws.
        BadMessage = "4400",
        /// An operation before the connection was acknowledged.
        Unauthorized = "4401",
        /// A wrong token.
        Forbidden = "4403",
        /// The client did not begin.
        InitTimeout = "4408",
        /// An operation's id that is in use.
        Duplicate = "4409",
        /// The client began twice.
        TooMany = "4429",
        /// The client gave no sign of life.
        Silent = "4499",
        /// Any other.
        Other = "other",
    }
}

impl CloseCode {
    /// The code with this number; where there is none, the connection was lost.
    pub fn numbered(code: Option<u16>) -> Self {
        let Some(code) = code else { return Self::Abnormal };
        let text = code.to_string();
        Self::ALL.iter().copied().find(|it| it.as_str() == text).unwrap_or(Self::Other)
    }
}

label! {
    /// Why a connection that was to stay open was refused.
    ConnectionRefusal {
        /// As many are open as may be.
        Limit = "limit",
        /// As many are open from the client's address as may be.
        Address = "address",
        /// The client speaks no protocol that the server does.
        Protocol = "protocol",
    }
}

label! {
    /// How the database is used.
    DatabaseOperation {
        /// On a snapshot.
        Read = "read",
        /// Alone.
        Write = "write",
    }
}
