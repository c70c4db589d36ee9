//! Pages and cursors.

use std::sync::Arc;

use async_graphql::connection::{Connection, CursorType, Edge, EmptyFields};
use async_graphql::{Context, OutputType};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::limits::Limits;
use crate::error::{Error, Problem};
use crate::model::{self, Id};
use crate::store::{Numbered, Page, PageRequest};

const DEFAULT_PAGE: i32 = 50;
/// No option allows more.
const LARGEST_PAGE: i32 = 500;

/// The arguments of a list.
#[derive(Debug, Default)]
pub(super) struct PageArguments {
    pub(super) first: Option<i32>,
    pub(super) after: Option<String>,
    pub(super) last: Option<i32>,
    pub(super) before: Option<String>,
}

impl PageArguments {
    /// What they ask for.
    pub(super) fn request<T>(self, ctx: &Context<'_>) -> Result<PageRequest<(i64, Id<T>)>, Error> {
        let largest = ctx.data_unchecked::<Arc<Limits>>().max_page;
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message });
        for (path, size) in [("first", self.first), ("last", self.last)] {
            if size.is_some_and(|size| !(1..=largest).contains(&size)) {
                problem(path, format!("A page has 1 to {largest} items."));
            }
        }
        if self.first.is_some() && self.last.is_some() {
            problem("last", "Give `first` or `last`, not both.".to_owned());
        }
        let mut position = |path: &str, cursor: Option<String>| {
            let position = cursor.as_deref().map(Position::parse);
            if position.as_ref().is_some_and(Option::is_none) {
                problem(path, MALFORMED.to_owned());
            }
            position.flatten().map(|it| (it.0, it.1))
        };
        let (after, before) = (position("after", self.after), position("before", self.before));
        if !problems.is_empty() {
            return Err(Error::BadUserInput(problems));
        }
        let limit = self.first.or(self.last).unwrap_or(DEFAULT_PAGE.min(largest)).into();
        Ok(PageRequest { after, before, limit, backwards: self.last.is_some() })
    }
}

/// What a list costs: itself, and what is asked for of an item as often as its page has items.
pub(super) fn complexity(first: Option<i32>, last: Option<i32>, of_an_item: usize) -> usize {
    let items = first.or(last).unwrap_or(DEFAULT_PAGE).clamp(0, LARGEST_PAGE);
    product(items, of_an_item)
}

/// The cost of something that is there once, and of what is asked for so often. It is cut off far above every limit, so that what
/// fits in a document can be added up and multiplied again.
pub(super) fn product(times: i32, of_each: usize) -> usize {
    usize::try_from(times).unwrap_or(0).saturating_mul(of_each).saturating_add(1).min(u32::MAX as usize)
}

const MALFORMED: &str = "This is not a cursor that this server gave out.";

/// An item's place in a list: its number, and its id. The number of an item from before there were
/// numbers is the instant at which it was created, so the cursors of that time hold.
#[derive(Debug)]
pub(super) struct Position<T: 'static>(i64, Id<T>);

const LIST: u8 = b'l';

impl<T> Position<T> {
    fn parse(cursor: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (number, id) = bytes.strip_prefix(&[LIST])?.split_first_chunk::<8>()?;
        Some(Self(i64::from_be_bytes(*number), Uuid::from_slice(id).ok()?.into()))
    }
}

impl<T> CursorType for Position<T> {
    type Error = Error;

    fn decode_cursor(cursor: &str) -> Result<Self, Error> {
        Self::parse(cursor).ok_or_else(|| Error::bad_input("after", MALFORMED))
    }

    fn encode_cursor(&self) -> String {
        let bytes: Vec<u8> = [&[LIST][..], &self.0.to_be_bytes(), self.1.as_bytes()].concat();
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// The position in the stream of changes that a cursor stands for.
pub(super) fn stream_position(cursor: &str) -> Result<i64, Error> {
    model::stream_position(cursor).ok_or_else(|| Error::bad_input("after", MALFORMED))
}

/// Makes a connection of a page.
pub(super) fn connect<M, N: OutputType, F: async_graphql::ObjectType, T: 'static>(
    page: Page<Numbered<M>>,
    fields: F,
    id: impl Fn(&M) -> Id<T>,
    node: impl Fn(M) -> N,
) -> Connection<Position<T>, N, F, EmptyFields> {
    let mut connection = Connection::with_additional_fields(page.has_previous, page.has_next, fields);
    let edges = page.rows.into_iter().map(|(row, number)| Edge::new(Position(number, id(&row)), node(row)));
    connection.edges.extend(edges);
    connection
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Job, stream_cursor};

    #[test]
    fn the_cost_of_a_list_is_that_of_its_items_and_one() {
        assert_eq!(complexity(None, None, 3), 151);
        assert_eq!((complexity(Some(20), None, 3), complexity(None, Some(20), 3)), (61, 61));
        assert_eq!((complexity(Some(i32::MAX), None, 3), complexity(Some(-1), None, 3)), (1_501, 1));
    }

    proptest! {
        #[test]
        fn a_list_cursor_gives_back_its_position(number in any::<i64>(), id in any::<u128>()) {
            let id = Id::<Job>::from(Uuid::from_u128(id));
            let parsed = Position::<Job>::parse(&Position(number, id).encode_cursor());
            prop_assert_eq!(parsed.map(|it| (it.0, it.1)), Some((number, id)));
        }

        #[test]
        fn a_stream_cursor_gives_back_its_position(position in 0..i64::MAX) {
            prop_assert_eq!(stream_position(&stream_cursor(position)).ok(), Some(position));
        }

        #[test]
        fn the_cost_of_a_list_can_be_multiplied_for_ever(sizes in proptest::collection::vec(any::<Option<i32>>(), 0..50)) {
            let cost = sizes.iter().fold(1, |cost, size| complexity(*size, None, cost));
            prop_assert!(cost <= u32::MAX as usize);
        }

        #[test]
        fn any_other_text_is_refused(text in any::<String>()) {
            if let Some(position) = Position::<Job>::parse(&text) {
                prop_assert_eq!(position.encode_cursor(), text.clone());
            }
            if let Ok(position) = stream_position(&text) {
                prop_assert_eq!(stream_cursor(position), text);
            }
        }
    }
}
