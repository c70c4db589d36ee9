//! Pages of lists that are newest first, by keyset: a page begins and ends at rows, not at counts, so it stays where it is while
//! others come and go.
//!
//! Many pages are one statement: each is a limited query of its own, and so is each question whether there is more beyond it.

use std::cmp::Reverse;

use super::conn::{Conn, Rows};
use super::fragment::UnionAll;
use crate::error::Error;

/// A row of a list, and its number: lists are in the order of numbers, which the database gives to
/// rows as they are stored. No clock decides.
pub type Numbered<T> = (T, i64);

/// Which part of a list is wanted: keyset pages, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageRequest<P> {
    /// Only what comes after this position, in the order of the list.
    pub after: Option<P>,
    /// Only what comes before this position.
    pub before: Option<P>,
    /// How many at the most, from the front; from the back where `backwards`.
    pub limit: i64,
    /// Whether the page is the last `limit` of what is left by `after` and `before`.
    pub backwards: bool,
}

/// A part of a list, in the order of the list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are others before them.
    pub has_previous: bool,
    /// Whether there are others after them.
    pub has_next: bool,
}

impl<T> Page<T> {
    /// The page with its rows made into something else.
    pub(super) fn try_map<U>(self, row: impl FnMut(T) -> Result<U, Error>) -> Result<Page<U>, Error> {
        let rows = self.rows.into_iter().map(row).collect::<Result<_, _>>()?;
        Ok(Page { rows, has_previous: self.has_previous, has_next: self.has_next })
    }
}

/// What one query reads for a page: rows of the list between positions, from one of its ends.
#[derive(Debug)]
pub(super) struct Part<P> {
    pub(super) older_than: Option<P>,
    pub(super) newer_than: Option<P>,
    pub(super) not_newer_than: Option<P>,
    pub(super) not_older_than: Option<P>,
    pub(super) oldest_first: bool,
    pub(super) limit: i64,
}

/// The conditions of a part, for a list whose positions are a number and an id. The first
/// comparison of each is for the index.
macro_rules! within {
    ($part:expr, $number:expr, $id:expr) => {{
        let (older, newer) = ($part.older_than, $part.newer_than);
        let (not_newer, not_older) = ($part.not_newer_than, $part.not_older_than);
        maybe(older, |(at, it)| $number.le(at).and($number.lt(at).or($id.lt(it))))
            .and(maybe(newer, |(at, it)| $number.ge(at).and($number.gt(at).or($id.gt(it)))))
            .and(maybe(not_newer, |(at, it)| $number.le(at).and($number.lt(at).or($id.le(it)))))
            .and(maybe(not_older, |(at, it)| $number.ge(at).and($number.gt(at).or($id.ge(it)))))
    }};
}
pub(super) use within;

impl<P: Copy> PageRequest<P> {
    /// The rows of the page, and one more if there are that many.
    fn rows(&self) -> Part<P> {
        Part { older_than: self.after, newer_than: self.before, ..Part::of(self.limit + 1, self.backwards) }
    }

    /// The row next to the page that `after` cuts off.
    fn previous(&self) -> Option<Part<P>> {
        self.after.is_some().then(|| Part { not_older_than: self.after, ..Part::of(1, true) })
    }

    /// The row next to the page that `before` cuts off.
    fn next(&self) -> Option<Part<P>> {
        self.before.is_some().then(|| Part { not_newer_than: self.before, ..Part::of(1, false) })
    }
}

impl<P> Part<P> {
    fn of(limit: i64, oldest_first: bool) -> Self {
        let (older_than, newer_than, not_newer_than, not_older_than) = (None, None, None, None);
        Self { older_than, newer_than, not_newer_than, not_older_than, oldest_first, limit }
    }
}

impl Conn {
    /// A page for each request. `query` makes the query for a part of one, numbered as for [`Conn::each`], and `position` tells
    /// where in the list a row is.
    pub(super) async fn pages<'q, F, P, Q, T>(
        &mut self,
        requests: &[(F, PageRequest<P>)],
        query: impl Fn(i32, &F, &Part<P>) -> Q,
        position: impl Fn(&T) -> P,
    ) -> Result<Vec<Page<T>>, Error>
    where
        P: Copy + Ord,
        T: Send + 'q,
        UnionAll<Q>: Rows<'q, (i32, T)>,
    {
        let parts: Vec<(&F, Part<P>)> = requests
            .iter()
            .flat_map(|(filter, it)| {
                let parts = [Some(it.rows()), it.previous(), it.next()];
                parts.into_iter().flatten().map(move |part| (filter, part))
            })
            .collect();
        let mut found = self.each(&parts, |number, (filter, part)| query(number, filter, part)).await?.into_iter();
        let mut pages = Vec::with_capacity(requests.len());
        for (_, request) in requests {
            // In the order of the parts.
            let rows = found.next().unwrap_or_default();
            let has_previous = request.after.is_some() && found.next().is_some_and(|it| !it.is_empty());
            let has_next = request.before.is_some() && found.next().is_some_and(|it| !it.is_empty());
            pages.push(Page { rows, has_previous, has_next }.finish(request, &position));
        }
        Ok(pages)
    }
}

impl<T> Page<T> {
    /// Puts its rows in the order of the list, and takes off the one too many that tells of more.
    fn finish<P: Ord>(mut self, request: &PageRequest<P>, position: impl Fn(&T) -> P) -> Self {
        self.rows.sort_unstable_by_key(|row| Reverse(position(row)));
        let beyond = self.rows.len().saturating_sub(usize::try_from(request.limit).unwrap_or(0));
        if request.backwards {
            self.rows.drain(..beyond);
            self.has_previous |= beyond > 0;
        } else {
            self.rows.truncate(self.rows.len() - beyond);
            self.has_next |= beyond > 0;
        }
        self
    }
}
