//! Execution of prepared operations.
//!
//! A query or mutation is executed on one snapshot of the database, each event of a subscription on one of its own. Subscriptions that are
//! the same are executed once (`live`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Executor, Response};
use async_stream::stream;
use futures_util::stream::{BoxStream, StreamExt};
use futures_util::{FutureExt, Stream};
use tokio_util::task::AbortOnDropHandle;

use super::allowance::LogAllowance;
use super::api::{Api, Prepared, What};
use super::completion::Types;
use super::errors;
use super::live::{Next, Step};
use super::loaders::Loaders;
use super::operation::Answer;
use super::plan::Plan;
use super::progress::Progress;
use crate::error::Error;
use crate::metrics::{self, Open};

/// How often a query is executed so that what it shows is in step with the stream of changes.
const TRIES_IN_STEP: u32 = 20;

impl Api {
    /// Carries out a query or mutation. A mutation is carried out to its end, also if the caller stops waiting.
    pub async fn execute(&self, prepared: Prepared) -> Answer {
        if prepared.kind() == OperationType::Query {
            return self.carry_out(prepared).await;
        }
        let api = self.clone();
        let carried_out = tokio::spawn(async move { api.carry_out(prepared).await });
        carried_out.await.unwrap_or_else(|error| Error::internal(error).into())
    }

    async fn carry_out(&self, prepared: Prepared) -> Answer {
        let plan = match prepared.what {
            What::Known(answer) => {
                let answer = Answer::Result(answer);
                self.count(metrics::OperationType::Query, &answer, false);
                return answer;
            }
            What::Unknown(plan) => plan,
        };
        let type_ = type_of(plan.kind);
        if plan.kind == OperationType::Query {
            self.metrics.answer_looked_up(false);
        }
        let response = match AssertUnwindSafe(self.execute_in_step(&plan)).catch_unwind().await {
            Ok(response) => finished(response, &plan, &self.types),
            Err(panic) => {
                let answer = panicked(&*panic);
                self.count(type_, &answer, true);
                return answer;
            }
        };
        let answer = Answer::of(&response, false);
        self.count(type_, &answer, !response.errors.is_empty());
        if let Answer::Result(json) = &answer
            && plan.kind == OperationType::Query
            && response.errors.is_empty()
            && !plan.reads_clock
        {
            self.answers.keep(plan.key, json.clone(), prepared.revision, plan.reads_logs);
        }
        answer
    }

    /// Executes a query or mutation on one snapshot. A query that shows a position in the stream of changes is executed again if it shows a job
    /// in a state that the stream does not tell yet: the position would be too early. If that does not help, such a change is told again.
    async fn execute_in_step(&self, plan: &Plan) -> Response {
        let mut tries = TRIES_IN_STEP;
        loop {
            let snapshot = Arc::new(self.store.snapshot());
            let request = plan.request().data(Loaders::new(&snapshot)).data(LogAllowance::default());
            let response = self.schema.execute(request).await;
            tries -= 1;
            // Numbering needs a connection, and so does whoever waits for one: this one is given back first.
            snapshot.close();
            if tries == 0 || plan.kind != OperationType::Query || !plan.reads_cursors || !snapshot.is_ahead() {
                return response;
            }
            self.store.number_changes().await;
        }
    }

    /// Carries out any operation; a query or mutation has one answer.
    pub fn stream(&self, prepared: Prepared) -> BoxStream<'static, Answer> {
        let api = self.clone();
        match prepared.what {
            What::Unknown(plan) if plan.kind == OperationType::Subscription => api.subscribe(Arc::from(plan)).boxed(),
            // Executed by a task of its own: it has a snapshot, which must not wait for a client that does not read.
            _ => {
                let executed = AbortOnDropHandle::new(tokio::spawn(async move { api.execute(prepared).await }));
                executed.map(|done| done.unwrap_or_else(|error| Error::internal(error).into())).into_stream().boxed()
            }
        }
    }

    fn subscribe(self, mut plan: Arc<Plan>) -> impl Stream<Item = Answer> + Send {
        stream! {
            let mut from = None;
            let mut open = None;
            loop {
                let progress = Progress::replay(from);
                let mut replay = self.steps(&plan, &progress);
                while let Some(step) = replay.next().await {
                    let last = step.answer.is_last();
                    self.count_opening(&mut open, Some(&step.answer));
                    yield step.answer;
                    if last {
                        return;
                    }
                }
                let Some(at) = progress.caught_up() else { return };
                drop(replay);
                self.count_opening(&mut open, None);
                from = Some(at);
                let Some(mut seat) = self.live.join(&plan, at, |plan| self.steps(plan, &Progress::live(at))) else {
                    continue;
                };
                plan = seat.plan();
                loop {
                    match seat.next().await {
                        Next::Answer(answer) => {
                            let last = answer.is_last();
                            yield answer;
                            if last {
                                return;
                            }
                        }
                        Next::Behind(position) => {
                            self.metrics.subscriber_lagged();
                            from = Some(position);
                            break;
                        }
                        Next::Over => return,
                    }
                }
            }
        }
    }

    /// Carries out a subscription, telling its progress.
    fn steps(&self, plan: &Arc<Plan>, progress: &Progress) -> BoxStream<'static, Step> {
        let allowance = LogAllowance::default();
        let snapshot = Arc::new(self.store.snapshot_when_there());
        let request = plan.request().data(Loaders::new(&snapshot)).data(progress.clone()).data(allowance.clone());
        let responses = AssertUnwindSafe(Executor::execute_stream(&self.schema, request, None)).catch_unwind();
        let (plan, types, progress) = (Arc::clone(plan), Arc::clone(&self.types), progress.clone());
        let steps = responses.map(move |response| {
            let answer = match response {
                Ok(response) => Answer::of(&finished(response, &plan, &types), true),
                Err(panic) => panicked(&*panic),
            };
            // The next event is read from a snapshot of its own.
            snapshot.close();
            allowance.renew();
            let (after, to) = progress.newest();
            Step { after, to, answer }
        });
        steps.boxed()
    }

    /// Counts what became of an operation.
    fn count(&self, type_: metrics::OperationType, answer: &Answer, has_errors: bool) {
        match answer {
            Answer::Result(_) => self.metrics.operation_answered(type_, has_errors),
            Answer::Refused(refusal) => self.metrics.operation_refused(type_, &refusal.code),
        }
    }

    /// Counts a subscription as open, unless the first that it says is that it is refused.
    fn count_opening(&self, open: &mut Option<Open>, answer: Option<&Answer>) {
        if open.is_some() {
            return;
        }
        let type_ = metrics::OperationType::Subscription;
        if let Some(Answer::Refused(refusal)) = answer {
            self.metrics.operation_refused(type_, &refusal.code);
            self.metrics.subscription_refused(&refusal.code);
        } else {
            self.metrics.operation_answered(type_, false);
            *open = Some(self.metrics.subscription_opened());
        }
    }
}

fn type_of(kind: OperationType) -> metrics::OperationType {
    match kind {
        OperationType::Query => metrics::OperationType::Query,
        OperationType::Mutation => metrics::OperationType::Mutation,
        OperationType::Subscription => metrics::OperationType::Subscription,
    }
}

/// What the schema answers, as clients are to see it.
fn finished(mut response: Response, plan: &Plan, types: &Types) -> Response {
    if plan.marked || !response.errors.is_empty() {
        types.complete(&plan.document, plan.key.operation_name.as_deref(), &plan.variables, &mut response);
    }
    plan.order.apply(&mut response.data);
    errors::with_codes(response)
}

/// A fault of a resolver.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Answer {
    Error::after_panic("a resolver", panic).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_panic_a_client_is_told_an_id_and_nothing_more() {
        for panic in [Box::new("a secret") as Box<dyn std::any::Any + Send>, Box::new("a secret".to_owned())] {
            let Answer::Refused(refusal) = panicked(&*panic) else { panic!("it is no result") };
            let errors = refusal.errors.as_str();
            assert!(refusal.is_fault() && errors.contains("requestId"), "{errors}");
            assert!(!errors.contains("secret") && !errors.contains("panic"), "{errors}");
        }
    }
}
