//! Instants, to the microsecond: what every database keeps.

use std::fmt;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use rustix::time::{ClockId, clock_gettime};

use crate::store::Instant;

/// A moment in UTC, to the microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Instant)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// This process's clock. What is stored takes its instants from the store's clock instead.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// A clock that shows a time before 1970 counts as 1970, so that nothing that reads it fails.
    fn of(clock: SystemTime) -> Self {
        let since_1970 = clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_micros()).ok().and_then(Self::from_micros).unwrap_or_default()
    }

    /// The moment this many microseconds after 1970-01-01T00:00:00Z, if the calendar reaches that far.
    pub fn from_micros(micros: i64) -> Option<Self> {
        DateTime::from_timestamp_micros(micros).map(Self)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn micros(self) -> i64 {
        self.0.timestamp_micros()
    }

    /// How long it is from `earlier` to this moment: nothing, if that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        (self.0 - earlier.0).to_std().unwrap_or_default()
    }

    /// How far it is from `other`, which may be earlier or later.
    pub fn distance(self, other: Self) -> Duration {
        self.since(other).max(other.since(self))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

/// An instant on a clock that nobody sets: the time since the machine's boot, the time in which it
/// slept included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// This instant.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
        Self(Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default()))
    }

    /// The instant so long after the boot.
    #[cfg(test)]
    pub fn after(boot: Duration) -> Self {
        Self(boot)
    }

    /// How long it is from `earlier` to this instant: nothing, if that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long ago this instant was.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// Microseconds since the boot.
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

/// RFC 3339 with six digits and a Z.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text).map(|it| Self(it.to_utc().trunc_subsecs(6)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_shows_1970() {
        let clock = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(Timestamp::of(clock(0) - Duration::from_secs(1)), Timestamp::default());
        assert_eq!(Timestamp::of(clock(1)).to_string(), "1970-01-01T00:00:01.000000Z");
    }
}
