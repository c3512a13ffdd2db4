//! Records in short, for people: when, where, what, from where to where, how much.
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::answer::{text, visible};

/// What the parts of a record in short are called.
pub(super) const HEADER: [&str; COLUMNS] = [
    "TIME",
    "ENI",
    "DIR",
    "ACTION",
    "PROTO",
    "SOURCE",
    "DESTINATION",
    "PACKETS",
    "BYTES",
];
/// How many parts there are.
pub(super) const COLUMNS: usize = 9;
/// The parts that are numbers.
pub(super) const NUMBERS: [usize; 2] = [7, 8];

/// What stands for what a record does not have.
const NOTHING: &str = "-";

/// Whether the row is a record of a flow log; clients may put anything else into a logstore.
pub(super) fn is_record(row: &Map<String, Value>) -> bool {
    ["eni-id", "log-status"]
        .iter()
        .all(|key| row.get(*key).is_some_and(|value| !value.is_null()))
}

/// The parts of a record. The time is that of the day in UTC, with the date if that is asked for.
pub(super) fn cells(row: &Map<String, Value>, with_date: bool) -> [String; COLUMNS] {
    let of = |key: &str| text(row.get(key)).map(|text| visible(&text));
    let end = |address: &str, port: &str| {
        Some(match (of(address)?, of(port)) {
            // ICMP has no ports, and is recorded with zeros.
            (address, None) => address,
            (address, Some(port)) if port == "0" => address,
            (address, Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
            (address, Some(port)) => format!("{address}:{port}"),
        })
    };
    let cells = [
        time(row).map(|time| shown(time, with_date)),
        of("eni-id"),
        of("direction"),
        // What has no action says by its status what it is.
        of("action").or_else(|| of("log-status")),
        of("protocol").map(|number| protocol(&number).to_owned()),
        end("srcaddr", "srcport"),
        end("dstaddr", "dstport"),
        of("packets"),
        of("bytes"),
    ];
    cells.map(|cell| cell.unwrap_or_else(|| NOTHING.to_owned()))
}

/// The time of a row.
pub(super) fn time(row: &Map<String, Value>) -> Option<OffsetDateTime> {
    let seconds = text(row.get("__time__"))?.parse().ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

fn shown(time: OffsetDateTime, with_date: bool) -> String {
    let (hour, minute, second) = time.to_hms();
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    if with_date {
        format!("{} {clock}", time.date())
    } else {
        clock
    }
}

/// Names that people know; the others are numbers as in IANA's registry.
fn protocol(number: &str) -> &str {
    match number {
        "1" => "icmp",
        "2" => "igmp",
        "6" => "tcp",
        "17" => "udp",
        "33" => "dccp",
        "47" => "gre",
        "50" => "esp",
        "51" => "ah",
        "58" => "icmpv6",
        "132" => "sctp",
        "136" => "udplite",
        other => other,
    }
}

/// Lines of records whose parts stand below each other: of those that are shown at once, and as far as is known from those before.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned([usize; COLUMNS]);

impl Aligned {
    /// The lines of these records.
    pub(super) fn lines(&mut self, records: &[[String; COLUMNS]]) -> Vec<String> {
        for cells in records {
            for (width, cell) in self.0.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        records.iter().map(|cells| self.line(cells)).collect()
    }

    fn line(&self, cells: &[String; COLUMNS]) -> String {
        let parts = cells.iter().zip(self.0).enumerate();
        let parts = parts.map(|(index, (cell, width))| {
            if NUMBERS.contains(&index) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        parts.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_record_in_short_has_what_the_record_has() {
        let flow = row(json!({
            "__time__": "1795356575", "eni-id": "eni-1", "direction": "in", "action": "ACCEPT", "protocol": "6", "srcaddr": "fd00::1",
            "srcport": "50000", "dstaddr": "10.0.0.2", "dstport": "22", "packets": "3", "bytes": "180", "log-status": "OK",
        }));
        let ping = row(json!({
            "__time__": "1795356575", "eni-id": "eni-22", "direction": "out", "action": "REJECT", "protocol": "1", "srcaddr": "10.0.0.1",
            "srcport": "0", "dstaddr": "10.0.0.2", "dstport": "0", "packets": "12345", "bytes": "1", "log-status": "OK",
        }));
        let none =
            row(json!({"__time__": "1795356575", "eni-id": "a\u{1b}[31m", "log-status": "NODATA"}));
        let mut aligned = Aligned::default();
        assert_eq!(
            aligned.lines(&[cells(&flow, false)]),
            ["14:09:35  eni-1  in  ACCEPT  tcp  [fd00::1]:50000  10.0.0.2:22  3  180"]
        );
        assert_eq!(
            aligned.lines(&[&none, &ping].map(|row| cells(row, false))),
            [
                "14:09:35  a [31m  -    NODATA  -     -                -                -    -",
                "14:09:35  eni-22  out  REJECT  icmp  10.0.0.1         10.0.0.2     12345    1",
            ]
        );
        assert_eq!(cells(&none, true)[0], "2026-11-22 14:09:35");
        assert!(is_record(&none) && !is_record(&row(json!({"eni-id": "x"}))));
    }
}
