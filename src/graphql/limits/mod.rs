//! Bounds on what a document may ask for, checked before anything of it is carried out.
//!
//! A kilobyte can ask for gigabytes: fragments that double, lists of lists, aliases. What can be told from the text alone (`tokens`) is
//! told before it is parsed, what can be told from the document (`size`) before it is validated: both cost a fraction of what
//! they refuse. Depth and complexity need the schema, which checks them in its validation.

mod introspection;
mod size;
mod tokens;

use async_graphql::Variables;
use async_graphql::parser::types::{ExecutableDocument, SelectionSet};

use crate::error::Error;

pub(super) use introspection::{Introspection, WHOLE_SCHEMA};
pub(super) use size::Size;

/// How deep brackets may be nested, whatever they are. The parser calls itself for each.
const DEEPEST_NESTING: usize = 64;

/// What a field costs in the result of an introspection. With the default limit a result has at most 20,000; tools ask for 6,000.
const INTROSPECTION_FIELD: usize = 5;

/// The bounds. `jobstream --help` shows the defaults.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits of a document")]
pub struct Limits {
    /// How many bytes a document may have. What is long belongs into variables.
    #[arg(long, env = "JOBSTREAM_MAX_DOCUMENT_BYTES", value_name = "BYTES", default_value_t = 256 << 10)]
    pub max_document_bytes: usize,

    /// How many tokens (names, values, punctuation) a document may have.
    #[arg(long, env = "JOBSTREAM_MAX_TOKENS", value_name = "NUMBER", default_value_t = 10_000)]
    pub max_tokens: usize,

    /// How many selections a document may stand for when its fragments are written out.
    #[arg(long, env = "JOBSTREAM_MAX_SELECTIONS", value_name = "NUMBER", default_value_t = 10_000)]
    pub max_selections: u64,

    /// How many of them may have an alias.
    #[arg(long, env = "JOBSTREAM_MAX_ALIASES", value_name = "NUMBER", default_value_t = 100)]
    pub max_aliases: u64,

    /// How many directives there may be on all of them.
    #[arg(long, env = "JOBSTREAM_MAX_DIRECTIVES", value_name = "NUMBER", default_value_t = 50)]
    pub max_directives: u64,

    /// How deep fields may be nested. The introspection that tools ask for goes 14 deep.
    #[arg(long, env = "JOBSTREAM_MAX_DEPTH", value_name = "NUMBER", default_value_t = 20)]
    pub max_depth: usize,

    /// How deep selections may be nested, fragments in one another included.
    #[arg(long, env = "JOBSTREAM_MAX_RECURSION", value_name = "NUMBER", default_value_t = 24)]
    pub max_recursion: usize,

    /// How many fields may be asked for. Those of a list count as often as its page may have items, those of a log once for 20 lines. Those of an introspection count five times each time they are in the result.
    #[arg(long, env = "JOBSTREAM_MAX_COMPLEXITY", value_name = "NUMBER", default_value_t = 100_000)]
    pub max_complexity: usize,

    /// How many items a page of a list may have.
    #[arg(long, env = "JOBSTREAM_MAX_PAGE", value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(i32).range(1..=500))]
    pub max_page: i32,

    /// How many lines a page of a log may have.
    #[arg(long, env = "JOBSTREAM_MAX_LOG_PAGE", value_name = "LINES", default_value_t = 10_000, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub max_log_page: i32,
}

impl Limits {
    /// Refuses a text that is too long or too deeply nested to be parsed.
    pub(super) fn check_text(&self, text: &str) -> Result<(), Error> {
        within("A document has at most", text.len(), self.max_document_bytes, "bytes")?;
        let count = tokens::count(text, self.max_tokens);
        within("A document has at most", count.tokens, self.max_tokens, "tokens")?;
        within("Brackets are nested at most", count.nesting, DEEPEST_NESTING, "deep")
    }

    /// Measures a document, and refuses one that stands for too much.
    pub(super) fn check_document(&self, document: &ExecutableDocument) -> Result<Size, Error> {
        let size = size::measure(document);
        let limits = [
            (size.selections, self.max_selections, "selections, fragments written out"),
            (size.aliases, self.max_aliases, "aliases, fragments written out"),
            (size.directives, self.max_directives, "directives, fragments written out"),
        ];
        for (count, most, what) in limits {
            within("A document stands for at most", count, most, what)?;
        }
        Ok(size)
    }

    /// Refuses an introspection whose result would be too large.
    pub(super) fn check_introspection(
        &self,
        schema: &Introspection,
        document: &ExecutableDocument,
        root: &SelectionSet,
        variables: &Variables,
    ) -> Result<(), Error> {
        let most = (self.max_complexity / INTROSPECTION_FIELD) as u64;
        let cost = schema.cost(document, root, variables, most);
        within("An introspection has at most", cost, most, "fields in its result, 32 bytes of text counting as one")
    }
}

fn within<T: PartialOrd + std::fmt::Display>(sentence: &str, count: T, most: T, what: &str) -> Result<(), Error> {
    if count <= most { Ok(()) } else { Err(Error::LimitExceeded(format!("{sentence} {most} {what}."))) }
}
