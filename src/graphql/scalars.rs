//! Scalars, and ids as arguments.

use async_graphql::{ID, InputValueError, InputValueResult, Scalar, ScalarType, Value};

use crate::error::{Error, Problem};
use crate::model::{Id, Timestamp};

/// A moment in RFC 3339: UTC, with six digits of a second and a Z, as in `2026-11-23T09:30:00.000000Z`.
#[Scalar(name = "DateTime", specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339")]
impl ScalarType for Timestamp {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => text.parse().map_err(|_| InputValueError::custom("this is not an RFC 3339 instant")),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// Reads the arguments of a request that are ids, and collects what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Ids {
    problems: Vec<Problem>,
}

impl Ids {
    /// The id, if it is well formed.
    pub(super) fn read<T>(&mut self, path: &str, id: &ID) -> Option<Id<T>> {
        let read = id.parse().ok();
        if read.is_none() {
            let message = "This is not an id: ids are UUIDs, such as 3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b.".to_owned();
            self.problems.push(Problem { path: path.to_owned(), message });
        }
        read
    }

    /// The optional id, if it is there and well formed.
    pub(super) fn read_optional<T>(&mut self, path: &str, id: Option<&ID>) -> Option<Id<T>> {
        id.and_then(|id| self.read(path, id))
    }

    /// An error if any was malformed.
    pub(super) fn finish(self) -> Result<(), Error> {
        if self.problems.is_empty() { Ok(()) } else { Err(Error::BadUserInput(self.problems)) }
    }
}

/// Reads one id.
pub(super) fn id<T>(path: &str, id: &ID) -> Result<Id<T>, Error> {
    let mut ids = Ids::default();
    let read = ids.read(path, id);
    ids.finish()?;
    read.ok_or_else(|| Error::internal("an id without a problem was not read"))
}
