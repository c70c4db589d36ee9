//! Schedules: when a pipeline runs by itself.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::Timestamp;

/// A cron expression with seconds, in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
}

impl Schedule {
    /// Reads an expression, or says what is wrong with it.
    pub fn parse(expression: &str, zone: Tz) -> Result<Self, String> {
        let fields = expression.split_whitespace().count();
        if fields != 6 {
            return Err(format!("there are 6 fields, not {fields}."));
        }
        let cron = CronParser::builder().seconds(Seconds::Required).build().parse(expression);
        Ok(Self { cron: cron.map_err(|error| error.to_string())?, zone })
    }

    /// The first tick after a moment: none if there is no such day, as with the 30th of February.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let moment = DateTime::<Utc>::from_timestamp_micros(moment.micros())?.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&moment, false).ok()?;
        Timestamp::from_micros(next.timestamp_micros())
    }

    /// The last tick up to a moment, that included.
    pub fn last_until(&self, moment: Timestamp) -> Option<Timestamp> {
        let moment = DateTime::<Utc>::from_timestamp_micros(moment.micros())?.with_timezone(&self.zone);
        let last = self.cron.find_previous_occurrence(&moment, true).ok()?;
        Timestamp::from_micros(last.timestamp_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(expression: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, zone).unwrap();
        let first = schedule.next_after(after.parse().unwrap());
        std::iter::successors(first, |tick| schedule.next_after(*tick))
            .take(count)
            .map(|tick| tick.to_string())
            .collect()
    }

    #[test]
    fn ticks_are_in_the_time_zone() {
        assert_eq!(
            ticks("0 0 9-17 * * MON-FRI", Tz::UTC, "2026-11-27T16:30:00Z", 2),
            ["2026-11-27T17:00:00.000000Z", "2026-11-30T09:00:00.000000Z"]
        );
        assert_eq!(
            ticks("0 30 9 * * *", Tz::Europe__Berlin, "2026-06-01T00:00:00Z", 1),
            ["2026-06-01T07:30:00.000000Z"]
        );
    }

    #[test]
    fn an_hour_that_is_left_out_ticks_when_it_is_over_and_one_that_comes_twice_ticks_once() {
        // In Berlin the hour after 02:00 is left out on 29 March 2026, and comes twice on 25 October 2026.
        assert_eq!(
            ticks("0 30 2 * * *", Tz::Europe__Berlin, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00.000000Z", "2026-03-30T00:30:00.000000Z"]
        );
        assert_eq!(
            ticks("0 30 2 * * *", Tz::Europe__Berlin, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00.000000Z", "2026-10-26T01:30:00.000000Z"]
        );
    }

    #[test]
    fn of_several_times_of_day_none_is_made_up_for_and_each_ticks_as_often_as_it_comes() {
        assert_eq!(
            ticks("0 0,30 2 * * *", Tz::Europe__Berlin, "2026-03-28T12:00:00Z", 1),
            ["2026-03-30T00:00:00.000000Z"]
        );
        assert_eq!(
            ticks("0 0 1-3 * * *", Tz::Europe__Berlin, "2026-10-24T22:30:00Z", 5),
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
            ticks("0 */30 * * * *", Tz::Australia__Lord_Howe, "2026-04-04T14:45:00Z", 3),
            ["2026-04-04T15:00:00.000000Z", "2026-04-04T15:30:00.000000Z", "2026-04-04T16:00:00.000000Z"]
        );
    }

    #[test]
    fn an_expression_has_six_fields() {
        for expression in ["* * * * *", "0 0 0 1 1 * 2030", "60 * * * * *", "@daily", "often", ""] {
            assert!(Schedule::parse(expression, Tz::UTC).is_err(), "{expression}");
        }
    }

    #[test]
    fn a_day_that_seldom_comes_has_ticks() {
        assert_eq!(
            ticks("0 0 0 29 2 *", Tz::UTC, "2096-03-01T00:00:00Z", 2),
            ["2104-02-29T00:00:00.000000Z", "2108-02-29T00:00:00.000000Z"]
        );
    }

    #[test]
    fn a_day_that_never_comes_has_no_tick() {
        let schedule = Schedule::parse("0 0 0 30 2 *", Tz::UTC).unwrap();
        assert_eq!(schedule.next_after("2026-01-01T00:00:00Z".parse().unwrap()), None);
    }

    #[test]
    fn the_last_tick_may_be_now() {
        let schedule = Schedule::parse("*/10 * * * * *", Tz::UTC).unwrap();
        let last = |at: &str| schedule.last_until(at.parse().unwrap()).unwrap().to_string();
        assert_eq!(last("2026-01-01T00:00:10Z"), "2026-01-01T00:00:10.000000Z");
        assert_eq!(last("2026-01-01T00:00:19.999999Z"), "2026-01-01T00:00:10.000000Z");
    }
}
