//! The list of log lines, resolved in one go.
//!
//! Ten thousand lines of five fields each are 50,000 calls of resolvers, for what is a copy of some bytes. So the list looks once at which fields are wanted, and makes the values of all lines itself.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{Context, ContextSelectionSet, Name, OutputType, Positioned, ServerResult, SimpleObject, Value};

use crate::model::{self, LogLines, LogStream, Timestamp};

// Declares the type: its values are made by `Wanted::value`.
/// One line of a log, or one piece of a long line.
#[derive(SimpleObject)]
struct LogLine {
    /// Its number in the job's log, from 0, over all attempts.
    sequence: i64,
    /// When it was read.
    timestamp: Timestamp,
    /// Where it comes from.
    stream: LogStream,
    /// The text, without the line's end.
    text: String,
    /// Whether more of the same line follows in the next piece of this stream.
    continued: bool,
}

/// A list of `LogLine`, with the fields that were asked for. It is resolved once, and gives its value away then.
pub(super) struct Lines(Mutex<Value>);

/// The fields of a `LogLine`.
#[derive(Clone, Copy)]
enum Wanted {
    Sequence,
    Timestamp,
    Stream,
    Text,
    Continued,
    TypeName,
}

impl Lines {
    /// The lines, for the field that is being resolved.
    pub(super) fn new(lines: &LogLines, ctx: &Context<'_>) -> Self {
        let fields: Vec<(Name, Wanted)> = ctx
            .field()
            .selection_set()
            .map(|field| (Name::new(field.alias().unwrap_or(field.name())), Wanted::named(field.name())))
            .collect();
        let object =
            |line| Value::Object(fields.iter().map(|(key, wanted)| (key.clone(), wanted.value(line))).collect());
        Self(Mutex::new(Value::List(lines.iter().map(object).collect())))
    }
}

impl Wanted {
    fn named(name: &str) -> Self {
        match name {
            "sequence" => Self::Sequence,
            "timestamp" => Self::Timestamp,
            "stream" => Self::Stream,
            "text" => Self::Text,
            "continued" => Self::Continued,
            // Validation lets no other pass.
            _ => Self::TypeName,
        }
    }

    fn value(self, line: model::LogLine<'_>) -> Value {
        match self {
            Self::Sequence => line.sequence.into(),
            Self::Timestamp => line.timestamp.to_string().into(),
            Self::Stream => Value::Enum(Name::new(line.stream.as_str())),
            Self::Text => line.text.into(),
            Self::Continued => line.continued.into(),
            Self::TypeName => "LogLine".into(),
        }
    }
}

impl OutputType for Lines {
    fn type_name() -> Cow<'static, str> {
        Cow::Owned(format!("[{}]", LogLine::qualified_type_name()))
    }

    fn create_type_info(registry: &mut Registry) -> String {
        LogLine::create_type_info(registry);
        Self::qualified_type_name()
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
