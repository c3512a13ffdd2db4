//! Ranges of time.
use std::time::{Duration, SystemTime};

use clap::Args;

/// A range of time.
#[derive(Clone, Debug, Args)]
pub(super) struct RangeOptions {
    /// The last so many seconds, minutes, hours or days: 90s, 15m, 1h, 7d.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "15m", conflicts_with = "from")]
    last: Duration,
    /// The first second: Unix seconds, or a UTC time as 2026-11-22T04:52:11Z.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    from: Option<u32>,
    /// The second after the last one, likewise; now, without it.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    to: Option<u32>,
}

impl RangeOptions {
    /// From and to, in Unix seconds. `now` is since 1970. What was recorded within the present second is in the range.
    pub(super) fn at(&self, now: Duration) -> (u32, u32) {
        let to = self
            .to
            .unwrap_or_else(|| saturated(now.as_secs().saturating_add(1)));
        let from = self
            .from
            .unwrap_or_else(|| to.saturating_sub(saturated(self.last.as_secs().max(1))));
        (from, to)
    }
}

fn saturated(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Unix seconds, or a time as in RFC 3339.
fn seconds(text: &str) -> Result<u32, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time = humantime::parse_rfc3339_weak(text)
        .ok()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let seconds = time.and_then(|time| u32::try_from(time.as_secs()).ok());
    seconds.ok_or_else(|| {
        "allowed are Unix seconds and a UTC time as 2026-11-22T04:52:11Z, from 1970 to 2106"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        range: RangeOptions,
    }

    #[test]
    fn a_range_ends_with_the_present_second() {
        let range = |line: &[&str]| {
            Line::try_parse_from([&["x"], line].concat())
                .map(|line| line.range.at(Duration::from_secs(10_000)))
        };
        for (line, expected) in [
            (&[][..], (9101, 10_001)),
            (&["--last", "1h"], (6401, 10_001)),
            (&["--last", "9days"], (0, 10_001)),
            (&["--from", "5"], (5, 10_001)),
            (&["--from", "5", "--to", "1970-01-01T00:01:00Z"], (5, 60)),
            (
                &["--to", "1970-01-01 01:00:00", "--last", "10m"],
                (3000, 3600),
            ),
        ] {
            assert_eq!(range(line).ok().unwrap(), expected, "{line:?}");
        }
        for line in [
            &["--from", "yesterday"][..],
            &["--last", "1"],
            &["--from", "1", "--last", "1h"],
            &["--to", "1960-01-01T00:00:00Z"],
        ] {
            assert!(range(line).is_err(), "{line:?}");
        }
    }
}
