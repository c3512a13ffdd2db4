//! `flowlog query`.
use std::io::Write;
use std::time::Duration;

use super::answer::MAX_LINES;
use super::form::{self, AnswerForm};
use super::range::RangeOptions;
use super::{GetLogs, Logs, LogstoreOptions};

/// The options of `flowlog query`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct QueryOptions {
    #[command(flatten)]
    pub(in crate::cli) logstore: LogstoreOptions,
    #[command(flatten)]
    range: RangeOptions,
    /// At most how many logs, the newest; of a search without SQL.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// What is looked for: `search`, or `search | SQL`, as in 'action:REJECT | SELECT srcaddr, count(1) GROUP BY srcaddr'.
    #[arg(value_name = "QUERY", default_value = "*")]
    query: String,
}

impl QueryOptions {
    /// At most how many logs a search without SQL gives.
    pub(in crate::cli) fn limit(&self) -> u64 {
        self.limit.into()
    }
}

/// Asks, and writes the answer. `now` is since 1970; `ask` asks the service; `width` is that of the terminal, if there is one.
///
/// # Errors
/// That of `ask`, and that the answer cannot be written.
pub(in crate::cli) fn query<E: From<std::io::Error>>(
    options: &QueryOptions,
    form: AnswerForm,
    now: Duration,
    width: Option<usize>,
    mut ask: impl FnMut(&GetLogs) -> Result<Logs, E>,
    out: &mut impl Write,
) -> Result<(), E> {
    let (from, to) = options.range.at(now);
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let mut request = GetLogs {
        from,
        to,
        query: options.query.clone(),
        line: limit.min(MAX_LINES),
        offset: 0,
        reverse: true,
        id: None,
    };
    let mut found = ask(&request)?;
    let mut last = found.data.len();
    // A page that is full is not the last; SQL has no pages.
    while !found.meta.has_sql && last == request.line && found.data.len() < limit {
        request.offset = found.data.len();
        request.line = (limit - found.data.len()).min(MAX_LINES);
        let page = ask(&request)?;
        last = page.data.len();
        found.append(page);
    }
    if !found.meta.has_sql {
        // The newest are shown last, as they came.
        found.data.reverse();
    }
    form::write(&found, form, width, out)?;
    if found.meta.progress != "Complete" {
        eprintln!(
            "flowlog: there is more than what is shown: narrow the time range or the search, or add a LIMIT"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Map, json};

    use super::*;
    use crate::cli::logs::answer::Meta;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: QueryOptions,
    }

    fn options(line: &[&str]) -> QueryOptions {
        let fixed = [
            "x",
            "--project",
            "project-1",
            "--logstore",
            "logstore-1",
            "--last",
            "1m",
        ];
        Line::try_parse_from(fixed.iter().chain(line))
            .unwrap_or_else(|error| panic!("{error}"))
            .options
    }

    /// Asks a service that has so many logs, the newest first; gives what was asked and what was written.
    fn asked(line: &[&str], logs: usize, has_sql: bool) -> (Vec<GetLogs>, Vec<serde_json::Value>) {
        let mut requests = Vec::new();
        let ask = |request: &GetLogs| {
            requests.push(request.clone());
            let row =
                |number: usize| Map::from_iter([("number".to_owned(), json!(number.to_string()))]);
            let end = if has_sql {
                logs
            } else {
                logs.min(request.offset + request.line)
            };
            Ok::<_, std::io::Error>(Logs {
                meta: Meta {
                    progress: "Complete".to_owned(),
                    has_sql,
                    keys: vec!["number".to_owned()],
                    column_types: Vec::new(),
                },
                data: (request.offset..end).map(row).collect(),
            })
        };
        let mut out = Vec::new();
        let now = Duration::from_secs(1000);
        query(&options(line), AnswerForm::Json, now, None, ask, &mut out).unwrap();
        let rows = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].clone())
            .collect();
        (requests, rows)
    }

    #[test]
    fn a_search_is_paged_until_there_are_enough() {
        for (line, logs, pages, rows) in [
            (&[][..], 250, &[(0, 100)][..], 100),
            (
                &["--limit", "250"],
                1000,
                &[(0, 100), (100, 100), (200, 50)],
                250,
            ),
            (&["--limit", "250"], 130, &[(0, 100), (100, 100)], 130),
            (&["--limit", "7"], 3, &[(0, 7)], 3),
            (&[], 0, &[(0, 100)], 0),
        ] {
            let (requests, found) = asked(line, logs, false);
            let asked: Vec<(usize, usize)> = requests
                .iter()
                .map(|request| (request.offset, request.line))
                .collect();
            assert_eq!(asked, pages, "{line:?}");
            assert_eq!(found.len(), rows);
            assert!(
                found.is_sorted_by_key(|number| std::cmp::Reverse(
                    number.as_str().unwrap().parse::<u32>().unwrap()
                )),
                "the newest is last"
            );
            assert!(requests.iter().all(|request| (
                request.from,
                request.to,
                request.query.as_str()
            ) == (941, 1001, "*")
                && request.reverse));
        }
    }

    #[test]
    fn sql_is_asked_once_and_keeps_its_order() {
        let (requests, rows) = asked(&["* | SELECT number"], 100, true);
        assert_eq!(requests.len(), 1);
        assert_eq!((rows.len(), &rows[0]), (100, &json!("0")));
    }
}
