//! The cron dialect: what a schedule may say, and what is wrong with one that says something else.
//!
//! The library reads more than this, and says of what it refuses neither the field nor the value.
//! Only what users write is checked: a schedule that is stored goes on.

/// A field of an expression.
struct Field {
    name: &'static str,
    first: u16,
    last: u16,
    /// Names of values, from the first on.
    names: &'static [&'static str],
    days: Days,
}

/// What a field may say beside numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Days {
    None,
    OfMonth,
    OfWeek,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const FIELDS: [Field; 6] = [
    Field { name: "second", first: 0, last: 59, names: &[], days: Days::None },
    Field { name: "minute", first: 0, last: 59, names: &[], days: Days::None },
    Field { name: "hour", first: 0, last: 23, names: &[], days: Days::None },
    Field { name: "day of month", first: 1, last: 31, names: &[], days: Days::OfMonth },
    Field { name: "month", first: 1, last: 12, names: &MONTHS, days: Days::None },
    Field { name: "day of week", first: 0, last: 7, names: &WEEKDAYS, days: Days::OfWeek },
];

/// What is wrong with an expression, each with the name of the field.
pub(super) fn problems(expression: &str) -> Vec<String> {
    let texts: Vec<&str> = expression.split_whitespace().collect();
    if texts.len() != FIELDS.len() {
        return vec![format!("there are 6 fields, not {}.", texts.len())];
    }
    let checked = FIELDS.iter().zip(texts).filter_map(|(field, text)| {
        let problem = field.check(&text.to_ascii_uppercase()).err()?;
        Some(format!("{}: {problem}", field.name))
    });
    checked.collect()
}

impl Field {
    fn check(&self, text: &str) -> Result<(), String> {
        let text = if self.days == Days::OfWeek { text.strip_prefix('+').unwrap_or(text) } else { text };
        if text == "*" || (text == "?" && self.days != Days::None) {
            return Ok(());
        }
        let parts: Vec<&str> = text.split(',').collect();
        if parts.contains(&"L") && parts.contains(&"LW") {
            return Err("L and LW cannot be in one list".to_owned());
        }
        parts.into_iter().try_for_each(|part| self.check_part(part))
    }

    fn check_part(&self, part: &str) -> Result<(), String> {
        if part.is_empty() {
            return Err("a part of the list is empty".to_owned());
        }
        match self.days {
            Days::OfMonth if part == "L" || part == "LW" => return Ok(()),
            Days::OfMonth if part.ends_with('W') => return self.value(part.trim_end_matches('W'), part).map(drop),
            Days::OfWeek if part == "L" => return Err("L needs a day: 5L is the last Friday".to_owned()),
            Days::OfWeek if part.ends_with('L') && part.len() > 1 => {
                let day = part.trim_end_matches('L').trim_end_matches('#');
                return self.value(day, part).map(drop);
            }
            Days::OfWeek if part.contains('#') => return self.check_nth(part),
            _ => {}
        }
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" && step.is_some() => (self.first, self.last),
            Some((first, last)) => (self.value(first, part)?, self.range_end(last, part)?),
            None if step.is_some() => {
                return Err(format!("{part} has a step without a range: write */N or A-B/N"));
            }
            None => return self.value(range, part).map(drop),
        };
        if first > last {
            return Err(format!("the range {range} is empty: it ends before it begins"));
        }
        // Whether this is one day or every day is a matter of taste, and programs differ.
        if self.days == Days::OfWeek && (first, last) == (0, 7) && range != "*" {
            return Err(format!(
                "the range {range} begins and ends on a Sunday: write SUN for Sundays, * for every day"
            ));
        }
        let Some(step) = step else { return Ok(()) };
        match digits(step) {
            None => Err(format!("{part} has a step that is not a number")),
            Some(0) => Err(format!("{part} has a step of 0")),
            Some(step) if step > last - first => {
                Err(format!("the step of {part} is larger than the range {first}-{last}"))
            }
            Some(_) => Ok(()),
        }
    }

    /// `N#K`: the Kth of a weekday in the month.
    fn check_nth(&self, part: &str) -> Result<(), String> {
        let (day, nth) = part.split_once('#').unwrap_or((part, ""));
        self.value(day, part)?;
        match digits(nth) {
            Some(1..=5) => Ok(()),
            _ => Err(format!("{part} has no number between 1 and 5 after #")),
        }
    }

    /// A value: a number in the range of the field, or a name.
    fn value(&self, text: &str, part: &str) -> Result<u16, String> {
        if let Some(nth) = self.names.iter().position(|name| *name == text) {
            return Ok(self.first + u16::try_from(nth).unwrap_or_default());
        }
        let (first, last) = (self.first, self.last);
        let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        match digits(text) {
            Some(value) if (first..=last).contains(&value) => Ok(value),
            _ if is_number => Err(format!("{text} is not between {first} and {last}")),
            _ => Err(format!("{part} cannot be read")),
        }
    }

    /// The end of a range: a week may end on a Sunday.
    fn range_end(&self, text: &str, part: &str) -> Result<u16, String> {
        if self.days == Days::OfWeek && text == "SUN" { Ok(self.last) } else { self.value(text, part) }
    }
}

/// A number that is digits only.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Schedule;

    #[test]
    fn the_dialect_is_what_the_guide_says() {
        let expressions = [
            "* * * * * *",
            "0 0 9-17 * * MON-FRI",
            "*/15 */2 * 1,15 * ?",
            "0 0 0 L * *",
            "0 0 0 LW * *",
            "0 0 0 15W * *",
            "0 0 12 * * 5L",
            "0 0 12 * * FRI#2",
            "0 0 12 * * fri#L",
            "0 0 0 */2 * MON",
            "0 0 0 1-7 * +MON",
            "00 05 00 01 jan-mar SAT-SUN",
            "10-40/15,50 0 0 * * 0,7",
            "0 0 0 29 FEB *",
            "0 0 0 * * */2",
            "0 0 0 * * 0-6",
            "0 0 0 * * 1-7",
            "0 0 0 * * 0-0",
            "0 0 0 * * 7-SUN",
        ];
        for expression in expressions {
            assert_eq!(problems(expression), Vec::<String>::new(), "{expression}");
            let zone = jiff::tz::TimeZone::UTC;
            let schedule = Schedule::read(expression, zone).unwrap_or_else(|| panic!("{expression} is not read"));
            assert!(schedule.next_after("2026-11-28T00:00:00Z".parse().unwrap()).is_some(), "{expression}");
        }
    }

    #[test]
    fn a_problem_names_the_field() {
        let problems_of = [
            ("60 * * * * *", "second: 60 is not between 0 and 59"),
            ("0 75 * * * *", "minute: 75 is not between 0 and 59"),
            ("0 0 24 * * *", "hour: 24 is not between 0 and 23"),
            ("0 0 0 0 * *", "day of month: 0 is not between 1 and 31"),
            ("0 0 0 1 13 *", "month: 13 is not between 1 and 12"),
            ("0 0 0 * * 8", "day of week: 8 is not between 0 and 7"),
            ("0 99999999 * * * *", "minute: 99999999 is not between 0 and 59"),
            ("0 */90 * * * *", "minute: the step of */90 is larger than the range 0-59"),
            ("0 */60 * * * *", "minute: the step of */60 is larger than the range 0-59"),
            ("0 0 */24 * * *", "hour: the step of */24 is larger than the range 0-23"),
            ("0 10-20/15 * * * *", "minute: the step of 10-20/15 is larger than the range 10-20"),
            ("0 */0 * * * *", "minute: */0 has a step of 0"),
            ("0 5/10 * * * *", "minute: 5/10 has a step without a range: write */N or A-B/N"),
            ("0 /10 * * * *", "minute: /10 has a step without a range: write */N or A-B/N"),
            ("0 20-10 * * * *", "minute: the range 20-10 is empty: it ends before it begins"),
            ("0 0 0 * * FRI-MON", "day of week: the range FRI-MON is empty: it ends before it begins"),
            ("0 1,,2 * * * *", "minute: a part of the list is empty"),
            ("0 -5 * * * *", "minute: -5 cannot be read"),
            ("0 +5 * * * *", "minute: +5 cannot be read"),
            ("0 MON * * * *", "minute: MON cannot be read"),
            (
                "0 0 0 * * SUN-SUN",
                "day of week: the range SUN-SUN begins and ends on a Sunday: write SUN for Sundays, * for every day",
            ),
            (
                "0 0 0 * * MON,0-7/2",
                "day of week: the range 0-7 begins and ends on a Sunday: write SUN for Sundays, * for every day",
            ),
            (
                "0 0 0 * * SUN-7",
                "day of week: the range SUN-7 begins and ends on a Sunday: write SUN for Sundays, * for every day",
            ),
            (
                "0 0 0 * * 0-sun",
                "day of week: the range 0-SUN begins and ends on a Sunday: write SUN for Sundays, * for every day",
            ),
            ("0 0 0 * MON *", "month: MON cannot be read"),
            ("0 0 0 * * L", "day of week: L needs a day: 5L is the last Friday"),
            ("0 0 0 * * 5#6", "day of week: 5#6 has no number between 1 and 5 after #"),
            ("0 0 0 L,LW * *", "day of month: L and LW cannot be in one list"),
            ("0 0 0 32W * *", "day of month: 32 is not between 1 and 31"),
            ("0 ? * * * *", "minute: ? cannot be read"),
            ("* * * * *", "there are 6 fields, not 5."),
            ("@daily", "there are 6 fields, not 1."),
            ("", "there are 6 fields, not 0."),
        ];
        for (expression, problem) in problems_of {
            assert_eq!(problems(expression), [problem], "{expression}");
        }
        assert_eq!(problems("60 60 * * * *").len(), 2, "all at once");
    }
}
