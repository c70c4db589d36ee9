//! Seats, with executions that say what the test wants them to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

use async_graphql::Variables;
use async_graphql::parser::parse_query;
use async_graphql::parser::types::OperationType;
use futures_util::stream;
use tokio::sync::mpsc;

use super::super::operation::{Caller, Json};
use super::super::order::Order;
use super::*;

/// An execution whose steps the test sends.
struct Stage {
    live: Live,
    plan: Arc<Plan>,
    steps: mpsc::UnboundedSender<Step>,
    /// For the execution that is started next.
    next: Option<mpsc::UnboundedReceiver<Step>>,
}

impl Stage {
    fn new() -> Self {
        let (steps, next) = mpsc::unbounded_channel();
        let plan = Arc::new(plan_of(Caller::default()));
        Self { live: Live::new(Metrics::default()), plan, steps, next: Some(next) }
    }

    fn join(&mut self, at: i64) -> Option<Seat> {
        let next = &mut self.next;
        self.live.join(&self.plan, at, |_| {
            let steps = next.take().expect("only one execution is started");
            stream::unfold(steps, async |mut steps| steps.recv().await.map(|step| (step, steps))).boxed()
        })
    }

    /// The execution says something that leads from one position to another.
    fn say(&self, from: i64, to: i64) {
        let answer = Answer::Result(Json::of(&format!("to {to}")));
        self.steps.send(Step { after: from..=from, to, answer }).unwrap();
    }

    /// The execution ends.
    fn end(&mut self) {
        self.steps = mpsc::unbounded_channel().0;
    }

    fn executions(&self) -> usize {
        lock(&self.live.running).len()
    }
}

fn plan_of(caller: Caller) -> Plan {
    let document = "subscription { a }";
    Plan {
        key: Key { caller, query: document.into(), operation_name: None, variables: None },
        kind: OperationType::Subscription,
        document: parse_query(document).unwrap(),
        variables: Variables::default(),
        order: Order::default(),
        marked: false,
        reads_logs: false,
        reads_clock: false,
        reads_cursors: false,
    }
}

/// What the holder of a seat is told next.
async fn told(seat: &mut Seat) -> String {
    match seat.next().await {
        Next::Answer(Answer::Result(json)) => json.as_str().trim_matches('"').to_owned(),
        Next::Answer(Answer::Refused(_)) => "refused".to_owned(),
        Next::Behind(at) => format!("behind at {at}"),
        Next::Over => "over".to_owned(),
    }
}

#[tokio::test]
async fn each_is_told_what_comes_after_its_own_position() {
    let mut stage = Stage::new();
    let (mut first, mut ahead) = (stage.join(0).unwrap(), stage.join(3).unwrap());
    stage.say(0, 3);
    stage.say(3, 5);
    stage.end();
    for expected in ["to 3", "to 5", "over"] {
        assert_eq!(told(&mut first).await, expected);
    }
    for expected in ["to 5", "over"] {
        assert_eq!(told(&mut ahead).await, expected);
    }
}

#[tokio::test]
async fn whoever_is_behind_the_others_has_to_read_before_it_takes_a_seat() {
    let mut stage = Stage::new();
    let mut first = stage.join(0).unwrap();
    stage.say(0, 3);
    assert_eq!(told(&mut first).await, "to 3");
    assert!(stage.join(2).is_none());
    assert!(stage.join(3).is_some());
}

#[tokio::test]
async fn whoever_is_between_two_positions_of_the_others_has_to_read_again() {
    let mut stage = Stage::new();
    let (_first, mut between) = (stage.join(0).unwrap(), stage.join(2).unwrap());
    stage.say(0, 3);
    assert_eq!(told(&mut between).await, "behind at 2");
}

#[tokio::test]
async fn whoever_comes_between_the_last_answer_and_the_end_reads_again() {
    let mut stage = Stage::new();
    let mut first = stage.join(5).unwrap();
    stage.say(5, 5); // as the end of a log without a new line
    assert_eq!(told(&mut first).await, "to 5");
    let mut late = stage.join(5).unwrap();
    stage.end();
    assert_eq!(told(&mut first).await, "over");
    assert_eq!(told(&mut late).await, "behind at 5");
}

#[tokio::test]
async fn whoever_has_read_the_lines_of_the_last_answer_but_not_the_end_reads_again() {
    let mut stage = Stage::new();
    let (mut first, mut ahead) = (stage.join(0).unwrap(), stage.join(3).unwrap());
    stage.say(0, 3); // the last lines, and that the log is complete
    stage.end();
    assert_eq!(told(&mut first).await, "to 3");
    assert_eq!(told(&mut first).await, "over");
    assert_eq!(told(&mut ahead).await, "behind at 3");
}

#[tokio::test]
async fn whoever_takes_nothing_keeps_nobody_waiting_and_a_bounded_number_of_answers() {
    let mut stage = Stage::new();
    let (mut quick, mut slow) = (stage.join(0).unwrap(), stage.join(0).unwrap());
    for number in 0..1_000 {
        stage.say(number, number + 1);
        assert_eq!(told(&mut quick).await, format!("to {}", number + 1));
    }
    assert_eq!(quick.execution.steps.lock().waiting.len(), MOST_STEPS);
    assert_eq!(told(&mut slow).await, "behind at 0");
    drop(slow);
    assert_eq!(quick.execution.steps.lock().waiting.len(), 0, "nobody waits for them any more");
}

#[tokio::test]
async fn an_execution_ends_with_the_last_seat() {
    let mut stage = Stage::new();
    let (first, mut second) = (stage.join(0).unwrap(), stage.join(0).unwrap());
    drop(first);
    stage.say(0, 1);
    assert_eq!(told(&mut second).await, "to 1");
    assert_eq!(stage.executions(), 1);
    drop(second);
    assert_eq!(stage.executions(), 0);
    stage.steps.closed().await;
}

#[tokio::test]
async fn those_who_show_different_tokens_share_nothing() {
    let mut stage = Stage::new();
    let _first = stage.join(0);
    let other = mpsc::unbounded_channel();
    (stage.plan, stage.next) = (Arc::new(plan_of(Caller::with_token("another"))), Some(other.1));
    let _second = stage.join(0);
    assert_eq!(stage.executions(), 2);
}
