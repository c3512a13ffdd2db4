//! Moments: when a request came, when something was made. Read from the clock once for each request, and handed down.
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment, in milliseconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Moment {
    /// The moment that a system's clock shows.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Reads a date as `2026-11-22T04:52:11Z`; none if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let milliseconds = date.unix_timestamp_nanos() / 1_000_000;
        (text.ends_with('Z')).then_some(Self(i64::try_from(milliseconds).ok()?))
    }

    /// How far two moments are apart, in milliseconds.
    #[must_use]
    pub const fn apart(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// As `2026-11-22T04:52:11Z`, without the milliseconds.
    #[must_use]
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000))
            .ok()
            .and_then(|date| date.format(&Rfc3339).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let moment = Moment::parse("2026-11-22T04:52:11Z").unwrap();
        assert_eq!(moment, Moment(1_795_323_131_000));
        assert_eq!(Moment(moment.0 + 999).rfc3339(), "2026-11-22T04:52:11Z");
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T04:52:11",
            "2026-11-22T04:52:11+00:00",
            "2026-13-22T04:52:11Z",
            "20261122T045211Z",
        ] {
            assert_eq!(Moment::parse(bad), None, "{bad}");
        }
        assert_eq!(Moment(0).apart(Moment(-5)), 5);
    }
}
