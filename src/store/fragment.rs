//! Pieces of queries that Diesel does not have.

use diesel::Column;
use diesel::backend::Backend;
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::RunQueryDsl;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Nullable};
use diesel::sqlite::Sqlite;

use super::schema::jobs;

/// A condition that holds for every row where there is none. Unlike a boxed query it keeps the database out of the type.
#[derive(Debug, Clone)]
pub(super) struct Maybe<E>(Option<E>);

/// The condition made from a value, if there is one.
pub(super) fn maybe<T, E>(value: Option<T>, condition: impl FnOnce(T) -> E) -> Maybe<E> {
    Maybe(value.map(condition))
}

/// A condition in SQL as it stands in the definition of a partial index. With bound values in its place, which Diesel would make of
/// it, a database cannot know that the index has what is asked for. Unlike Diesel's own pieces of SQL it does not keep a statement from being
/// prepared once for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsIndexed(&'static str);

/// The condition of a partial index.
pub(super) fn as_indexed(condition: &'static str) -> AsIndexed {
    AsIndexed(condition)
}

/// Jobs that may start, and change the repository: `jobs_ready_for_repository`.
pub(super) const READY_FOR_REPOSITORY: &str =
    "jobs.ready IS NOT NULL AND jobs.type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG')";
/// The others that may start: `jobs_ready_to_run`.
pub(super) const READY_TO_RUN: &str = "jobs.ready IS NOT NULL AND jobs.type IN ('PIPELINE_VERIFY', 'PIPELINE_RUN')";
/// Jobs that have not ended: `jobs_active`.
pub(super) const ACTIVE: &str = "jobs.status IN ('QUEUED', 'RUNNING')";
/// Jobs that run: `jobs_running`.
pub(super) const RUNNING: &str = "jobs.status = 'RUNNING'";
/// Those of them that change the repository.
pub(super) const RUNNING_FOR_REPOSITORY: &str =
    "jobs.status = 'RUNNING' AND jobs.type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG')";
/// Active runs: `jobs_one_active_run`.
pub(super) const ACTIVE_RUN: &str = "jobs.type = 'PIPELINE_RUN' AND jobs.status IN ('QUEUED', 'RUNNING')";

impl Expression for AsIndexed {
    type SqlType = Bool;
}
impl<QS: ?Sized> AppearsOnTable<QS> for AsIndexed {}
impl<G> ValidGrouping<G> for AsIndexed {
    type IsAggregate = is_aggregate::Never;
}

// Its SQL is not in its type.
impl QueryId for AsIndexed {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend> QueryFragment<DB> for AsIndexed {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("(");
        out.push_sql(self.0);
        out.push_sql(")");
        Ok(())
    }
}

/// The number of a row, by which lists are in the order of creation. It is not among the columns of
/// `schema`, because no type of the model has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) &'static str);

impl Expression for Number {
    type SqlType = BigInt;
}
impl<QS: ?Sized> AppearsOnTable<QS> for Number {}
impl<QS: ?Sized> SelectableExpression<QS> for Number {}
impl<G> ValidGrouping<G> for Number {
    type IsAggregate = is_aggregate::Never;
}

// As of `AsIndexed`.
impl QueryId for Number {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend> QueryFragment<DB> for Number {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(self.0);
        Ok(())
    }
}

/// The same of a new job, as a column to insert.
#[derive(Debug, Clone, Copy, QueryId)]
pub(super) struct NumberOfJob;

impl Expression for NumberOfJob {
    type SqlType = BigInt;
}

impl Column for NumberOfJob {
    type Table = jobs::table;

    const NAME: &'static str = "number";
}

impl<E> Expression for Maybe<E> {
    type SqlType = Nullable<Bool>;
}
impl<E: AppearsOnTable<QS>, QS: ?Sized> AppearsOnTable<QS> for Maybe<E> {}
impl<E: SelectableExpression<QS>, QS: ?Sized> SelectableExpression<QS> for Maybe<E> {}
impl<E: ValidGrouping<G>, G> ValidGrouping<G> for Maybe<E> {
    type IsAggregate = E::IsAggregate;
}

// Its SQL depends on its value, so the type alone cannot name a cached statement.
impl<E> QueryId for Maybe<E> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<E: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for Maybe<E> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match &self.0 {
            Some(condition) => {
                out.push_sql("(");
                condition.walk_ast(out.reborrow())?;
                out.push_sql(")");
            }
            None => out.push_sql("1=1"),
        }
        Ok(())
    }
}

/// One of two expressions, chosen when the query is made.
#[derive(Debug, Clone)]
pub(super) enum Either<A, B> {
    A(A),
    B(B),
}

/// The first expression where the condition holds, else the second.
pub(super) fn either<A, B>(condition: bool, a: A, b: B) -> Either<A, B> {
    if condition { Either::A(a) } else { Either::B(b) }
}

impl<A: Expression, B: Expression<SqlType = A::SqlType>> Expression for Either<A, B> {
    type SqlType = A::SqlType;
}
impl<A, B, QS: ?Sized> AppearsOnTable<QS> for Either<A, B>
where
    A: AppearsOnTable<QS>,
    B: AppearsOnTable<QS, SqlType = A::SqlType>,
{
}
impl<A: ValidGrouping<G>, B, G> ValidGrouping<G> for Either<A, B> {
    type IsAggregate = A::IsAggregate;
}

// As of `Maybe`.
impl<A, B> QueryId for Either<A, B> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<A: QueryFragment<DB>, B: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for Either<A, B> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match self {
            Self::A(a) => a.walk_ast(out),
            Self::B(b) => b.walk_ast(out),
        }
    }
}

/// A query that locks the rows it finds until the transaction ends, and does not find those that others have locked. Where there is one writer,
/// there are no locks.
#[derive(Debug, Clone)]
pub(super) struct SkipLocked<Q>(pub(super) Q);

impl<Q: Query> Query for SkipLocked<Q> {
    type SqlType = Q::SqlType;
}
impl<Q, C> RunQueryDsl<C> for SkipLocked<Q> {}

impl<Q: QueryId> QueryId for SkipLocked<Q> {
    type QueryId = SkipLocked<Q::QueryId>;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: QueryFragment<Sqlite>> QueryFragment<Sqlite> for SkipLocked<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for SkipLocked<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(out.reborrow())?;
        out.push_sql(" FOR UPDATE SKIP LOCKED");
        Ok(())
    }
}

/// A statement that is kept prepared, as Diesel does with none that changes rows: one that is run for every job, and whose text is always the same.
#[derive(Debug, Clone)]
pub(super) struct Kept<S>(pub(super) S);

// As of `Maybe`: it is kept by its text.
impl<S> QueryId for Kept<S> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<S: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for Kept<S> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

/// How many queries one statement may hold. SQLite takes 500, but prepares so many only slowly.
pub(super) const MOST_MEMBERS: usize = 100;

/// Queries that are asked as one statement. Each has its own order and limit, and uses an index as it would alone. A column has
/// to say which of them a row answers, for no order of the rows is promised.
#[derive(Debug, Clone)]
pub(super) struct UnionAll<Q>(pub(super) Vec<Q>);

/// Unions of so many members are prepared once and kept; there is no end to longer ones.
const MOST_KEPT: usize = 2;

impl<Q: Query> Query for UnionAll<Q> {
    type SqlType = Q::SqlType;
}
impl<Q, C> RunQueryDsl<C> for UnionAll<Q> {}

// As of `Maybe`.
impl<Q> QueryId for UnionAll<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for UnionAll<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if let [alone] = &self.0[..] {
            return alone.walk_ast(out);
        }
        if self.0.len() > MOST_KEPT {
            out.unsafe_to_cache_prepared();
        }
        for (index, member) in self.0.iter().enumerate() {
            // An order and a limit of a member's own are not allowed but in a subquery.
            out.push_sql(if index == 0 { "SELECT * FROM (" } else { " UNION ALL SELECT * FROM (" });
            member.walk_ast(out.reborrow())?;
            out.push_sql(") AS member");
        }
        Ok(())
    }
}
