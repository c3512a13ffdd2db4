//! `flowlog tail`: new records as they arrive, each once.
//!
//! The store gives each log a number in the order of arrival, `__seq__`. What was shown last is remembered by it, so that a record that
//! comes late, with a time long past, is shown too, and none is shown twice.
use std::io::Write;
use std::time::Duration;

use flowlog_model::field::Field;
use serde_json::{Map, Value};

use super::answer::text;
use super::form::object;
use super::record::{self, Aligned};
use super::{GetLogs, Logs, LogstoreOptions};

/// How far back a record's time may be when it arrives, and how far ahead.
const LATE: Duration = Duration::from_secs(24 * 3600);
const EARLY: Duration = Duration::from_secs(15 * 60);
/// Most records at once; more follow at once.
const MAX_ROWS: usize = 1000;

/// The form of records that are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum RecordForm {
    /// Records in short, in columns.
    #[default]
    Table,
    /// A JSON object for each record, in a line of its own.
    Json,
}

/// The options of `flowlog tail`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct TailOptions {
    #[command(flatten)]
    pub(in crate::cli) logstore: LogstoreOptions,
    /// How many of the records that are there already to begin with: those that arrived last.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
    /// Which records, as in 'action:REJECT and dstport:22'.
    #[arg(value_name = "SEARCH", default_value = "*")]
    search: String,
}

/// Follows a logstore.
#[derive(Debug)]
pub(in crate::cli) struct Tail {
    options: TailOptions,
    form: RecordForm,
    /// The number of the last record that was shown; none before the first look.
    last: Option<i64>,
    aligned: Aligned,
}

impl Tail {
    /// Follows; nothing is asked yet.
    pub(in crate::cli) fn new(options: TailOptions, form: RecordForm) -> Self {
        Self {
            options,
            form,
            last: None,
            aligned: Aligned::default(),
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
        let mut found = ask(&self.request(now))?;
        let mut rows = std::mem::take(&mut found.data);
        let columns = found.columns();
        let first = self.last.is_none();
        if first {
            // They were asked for from the end.
            rows.reverse();
        }
        // Of an empty logstore, whatever comes is new.
        self.last = rows.last().and_then(number).or(self.last).or(Some(-1));
        let more = !first && rows.len() == MAX_ROWS;
        let skipped = if first {
            rows.len().saturating_sub(self.options.lines.into())
        } else {
            0
        };
        rows.drain(..skipped);
        for row in &mut rows {
            // What a record does not have is not worth a word.
            row.retain(|key, value| key != "__seq__" && !value.is_null());
        }
        let lines = match self.form {
            RecordForm::Table => {
                let cells = rows.iter().map(|row| record::cells(row, false));
                self.aligned.lines(&cells.collect::<Vec<_>>())
            }
            RecordForm::Json => {
                let objects = rows.iter().map(|row| object(row, &columns).to_string());
                objects.collect()
            }
        };
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        Ok(more)
    }

    fn request(&self, now: Duration) -> GetLogs {
        let (search, lines) = (&self.options.search, self.options.lines.max(1));
        let which = match self.last {
            None => format!("ORDER BY __seq__ DESC LIMIT {lines}"),
            Some(last) => format!("WHERE __seq__ > {last} ORDER BY __seq__ LIMIT {MAX_ROWS}"),
        };
        let fields = Field::ALL
            .iter()
            .map(|field| format!("\"{}\"", field.as_str()));
        let fields = fields.collect::<Vec<_>>().join(", ");
        let query = format!("{search} | SELECT __seq__, __time__, {fields} {which}");
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
            RecordForm::Table,
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
        assert_eq!(
            lines,
            [7, 9].map(|eni| format!("14:09:35  eni-{eni}  -  NODATA  -  -  -  -  -"))
        );
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
    fn json_has_what_the_record_has() {
        let mut tail = tail(&[]);
        tail.form = RecordForm::Json;
        let ask = |_: &GetLogs| {
            let meta = json!({"progress": "Complete", "keys": ["__seq__", "packets", "action"], "columnTypes": ["bigint", "bigint", "varchar"]});
            let rows = [json!({"__seq__": "5", "packets": "3", "action": null})];
            Ok::<_, std::io::Error>(
                serde_json::from_value(json!({"meta": meta, "data": rows})).unwrap(),
            )
        };
        let mut out = Vec::new();
        tail.step(Duration::from_secs(100_000), ask, &mut out)
            .unwrap();
        assert_eq!(out, b"{\"packets\":3}\n");
    }
}
