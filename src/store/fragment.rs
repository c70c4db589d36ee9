//! Pieces of queries that Diesel does not have.

use diesel::backend::Backend;
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Bool, Nullable};

/// A condition that holds for every row where there is none. Unlike a boxed query it keeps the database out of the type.
#[derive(Debug, Clone)]
pub(super) struct Maybe<E>(Option<E>);

/// The condition made from a value, if there is one.
pub(super) fn maybe<T, E>(value: Option<T>, condition: impl FnOnce(T) -> E) -> Maybe<E> {
    Maybe(value.map(condition))
}

/// A condition in SQL as it stands in the definition of a partial index. With bound values in its place, which Diesel would make of
/// it, a database cannot know that the index has what is asked for.
pub(super) fn as_indexed(condition: &'static str) -> SqlLiteral<Bool> {
    sql(condition)
}

/// Jobs that a runner may take: `jobs_queue`.
pub(super) const IN_QUEUE: &str = "jobs.status = 'QUEUED' AND jobs.type IN \
    ('WORKSPACE_INIT', 'PIPELINE_CONFIG', 'PIPELINE_VERIFY', 'PIPELINE_RUN')";
/// Jobs that have not ended: `jobs_active`.
pub(super) const ACTIVE: &str = "jobs.status IN ('QUEUED', 'RUNNING')";
/// The same of another job: `jobs_active`.
pub(super) const OTHER_ACTIVE: &str = "other.status IN ('QUEUED', 'RUNNING')";
/// Active runs: `jobs_one_active_run`.
pub(super) const ACTIVE_RUN: &str = "jobs.type = 'PIPELINE_RUN' AND jobs.status IN ('QUEUED', 'RUNNING')";

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
