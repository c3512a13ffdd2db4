//! `flowlog tail`: new records as they arrive, each once.
//!
//! The store gives each log a number in the order of arrival, `__seq__`. What was shown last is remembered by it, so that a record that
//! comes late, with a time long past, is shown too, and none is shown twice.
use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::answer::text;
use super::{GetLogs, Logs, LogstoreOptions};

/// How far back a record's time may be when it arrives, and how far ahead.
const LATE: Duration = Duration::from_secs(24 * 3600);
const EARLY: Duration = Duration::from_secs(15 * 60);
/// Most records at once; more follow at once.
const MAX_ROWS: usize = 1000;

/// The options of `flowlog tail`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct TailOptions {
    #[command(flatten)]
    pub(in crate::cli) logstore: LogstoreOptions,
    /// How many of the records that are there already to begin with: those that arrived last.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
    /// A JSON object for each record, in a line of its own; values are texts.
    #[arg(long)]
    json: bool,
    /// Which records, as in 'action:REJECT and dstport:22'.
    #[arg(value_name = "SEARCH", default_value = "*")]
    search: String,
}

/// Follows a logstore.
#[derive(Debug)]
pub(in crate::cli) struct Tail {
    options: TailOptions,
    /// The number of the last record that was shown; none before the first look.
    last: Option<i64>,
}

impl Tail {
    /// Follows; nothing is asked yet.
    pub(in crate::cli) fn new(options: TailOptions) -> Self {
        Self {
            options,
            last: None,
        }
    }

    /// Asks once, and writes what is new. Says whether there may be more at once. `now` is since 1970; `ask` asks the service.
    ///
    /// # Errors
    /// That of `ask`, and that the records cannot be written.
    pub(in crate::cli) fn step<E: From<std::io::Error>>(
        &mut self,
        now: Duration,
        ask: impl FnOnce(&GetLogs) -> Result<Logs, E>,
        out: &mut impl Write,
    ) -> Result<bool, E> {
        let mut rows = ask(&self.request(now))?.data;
        let first = self.last.is_none();
        if first {
            // They were asked for from the end.
            rows.reverse();
        }
        // Of an empty logstore, whatever comes is new.
        self.last = rows.last().and_then(number).or(self.last).or(Some(-1));
        let skipped = if first {
            rows.len().saturating_sub(self.options.lines.into())
        } else {
            0
        };
        for row in &mut rows[skipped..] {
            row.remove("__seq__");
            let line = if self.options.json {
                Value::Object(row.clone()).to_string()
            } else {
                line(row)
            };
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        Ok(!first && rows.len() == MAX_ROWS)
    }

    fn request(&self, now: Duration) -> GetLogs {
        let (search, lines) = (&self.options.search, self.options.lines.max(1));
        let which = match self.last {
            None => format!("ORDER BY __seq__ DESC LIMIT {lines}"),
            Some(last) => format!("WHERE __seq__ > {last} ORDER BY __seq__ LIMIT {MAX_ROWS}"),
        };
        let query = format!(
            "{search} | SELECT __seq__, __time__, \"eni-id\", direction, action, protocol, srcaddr, srcport, dstaddr, dstport, packets, \
             bytes, \"log-status\" {which}"
        );
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        GetLogs {
            from: seconds(now.saturating_sub(LATE)),
            to: seconds(now.saturating_add(EARLY)),
            query,
            ..GetLogs::default()
        }
    }
}

fn number(row: &Map<String, Value>) -> Option<i64> {
    text(row.get("__seq__"))?.parse().ok()
}

/// A record for people: `14:09:35 eni-1 in ACCEPT 6 10.0.0.1:50000 > 10.0.0.2:22 3 packets 180 bytes`.
fn line(row: &Map<String, Value>) -> String {
    let of = |key: &str| text(row.get(key)).map(|text| text.replace(char::is_control, " "));
    let time = of("__time__")
        .and_then(|time| OffsetDateTime::from_unix_timestamp(time.parse().ok()?).ok());
    let time = time.map(|time| {
        format!(
            "{:02}:{:02}:{:02}",
            time.hour(),
            time.minute(),
            time.second()
        )
    });
    let end = |address: &str, port: &str| {
        Some(match (of(address)?, of(port)) {
            (address, Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
            (address, Some(port)) => format!("{address}:{port}"),
            (address, None) => address,
        })
    };
    let ends = end("srcaddr", "srcport")
        .zip(end("dstaddr", "dstport"))
        .map(|(source, destination)| format!("{source} > {destination}"));
    let counts = of("packets")
        .zip(of("bytes"))
        .map(|(packets, bytes)| format!("{packets} packets {bytes} bytes"));
    // What has no action says by its status what it is.
    let said = of("action").or_else(|| of("log-status"));
    let parts = [
        time,
        of("eni-id"),
        of("direction"),
        said,
        of("protocol"),
        ends,
        counts,
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::log_service::query::check;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: TailOptions,
    }

    fn tail(line: &[&str]) -> Tail {
        let fixed = ["x", "--project", "project-1", "--logstore", "logstore-1"];
        Tail::new(
            Line::try_parse_from(fixed.iter().chain(line))
                .unwrap_or_else(|error| panic!("{error}"))
                .options,
        )
    }

    /// A step of a tail whose service answers with these numbers; gives the query and the lines.
    fn step(tail: &mut Tail, numbers: &[i64]) -> (String, Vec<String>, bool) {
        let mut asked = String::new();
        let mut out = Vec::new();
        let ask = |request: &GetLogs| {
            check(&request.query).unwrap();
            assert_eq!((request.from, request.to), (100_000 - 86_400, 100_900));
            asked.clone_from(&request.query);
            let row = |number: &i64| json!({"__seq__": number.to_string(), "__time__": "50975", "eni-id": format!("eni-{number}"), "log-status": "NODATA"});
            let rows: Vec<Value> = numbers.iter().map(row).collect();
            Ok::<_, std::io::Error>(
                serde_json::from_value(json!({"meta": {"progress": "Complete"}, "data": rows}))
                    .unwrap(),
            )
        };
        let more = tail
            .step(Duration::from_secs(100_000), ask, &mut out)
            .unwrap();
        (
            asked,
            String::from_utf8(out)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect(),
            more,
        )
    }

    #[test]
    fn each_record_is_shown_once_in_the_order_of_arrival() {
        let mut tail = tail(&["-n", "2", "not action: ACCEPT"]);
        let (asked, lines, _) = step(&mut tail, &[9, 7]);
        assert!(
            asked.starts_with("not action: ACCEPT | SELECT __seq__")
                && asked.ends_with("ORDER BY __seq__ DESC LIMIT 2"),
            "{asked}"
        );
        assert_eq!(lines, ["14:09:35 eni-7 NODATA", "14:09:35 eni-9 NODATA"]);
        let (asked, lines, more) = step(&mut tail, &[]);
        assert!(
            asked.contains("WHERE __seq__ > 9 ORDER BY __seq__ LIMIT 1000"),
            "{asked}"
        );
        assert!(lines.is_empty() && !more);
        let many: Vec<i64> = (10..1010).collect();
        let (_, lines, more) = step(&mut tail, &many);
        assert!(lines.len() == 1000 && more);
        let (asked, ..) = step(&mut tail, &[]);
        assert!(asked.contains("__seq__ > 1009 "), "{asked}");
    }

    #[test]
    fn of_an_empty_logstore_all_is_new_and_of_none_wanted_nothing_is_shown() {
        let mut empty = tail(&[]);
        assert!(step(&mut empty, &[]).1.is_empty());
        assert!(step(&mut empty, &[0]).0.contains("__seq__ > -1 "));
        let mut none = tail(&["-n", "0"]);
        assert!(step(&mut none, &[5]).1.is_empty());
        assert!(step(&mut none, &[]).0.contains("__seq__ > 5 "));
    }

    #[test]
    fn a_line_has_what_the_record_has() {
        let row = json!({
            "__time__": "50975", "eni-id": "eni-1", "direction": "in", "action": "ACCEPT", "protocol": "6", "srcaddr": "fd00::1", "srcport": "50000",
            "dstaddr": "10.0.0.2", "dstport": "22", "packets": "3", "bytes": "180", "log-status": "OK",
        });
        let Value::Object(row) = row else {
            unreachable!()
        };
        assert_eq!(
            line(&row),
            "14:09:35 eni-1 in ACCEPT 6 [fd00::1]:50000 > 10.0.0.2:22 3 packets 180 bytes"
        );
    }
}
