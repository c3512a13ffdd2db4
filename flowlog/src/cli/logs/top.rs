//! `flowlog top`: the heaviest talkers of the last windows.
use std::io::Write;
use std::time::Duration;

use time::OffsetDateTime;

use super::form::{self, AnswerForm};
use super::{GetLogs, Logs, LogstoreOptions};

/// What talkers are told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum TopBy {
    /// Source and destination.
    #[default]
    Pair,
    /// Source.
    Source,
    /// Destination and its port.
    Destination,
    /// ENI and direction.
    Eni,
}

/// The options of `flowlog top`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct TopOptions {
    #[command(flatten)]
    pub(in crate::cli) logstore: LogstoreOptions,
    /// The last so many seconds, minutes or hours: 10m, 1h.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
    last: Duration,
    /// What talkers are told apart by.
    #[arg(long, value_enum, default_value_t)]
    by: TopBy,
    /// How many talkers.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Show them once, and end, as where there is no terminal.
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// Which records count, as in 'action:REJECT and dstport:22'.
    #[arg(value_name = "SEARCH", default_value = "*")]
    search: String,
}

impl TopBy {
    const fn columns(self) -> &'static str {
        match self {
            Self::Pair => "srcaddr, dstaddr",
            Self::Source => "srcaddr",
            Self::Destination => "dstaddr, dstport, protocol",
            Self::Eni => "\"eni-id\", direction",
        }
    }

    const fn first(self) -> &'static str {
        match self {
            Self::Pair | Self::Source => "srcaddr",
            Self::Destination => "dstaddr",
            Self::Eni => "eni_id",
        }
    }
}

/// Lines of a terminal that are not a talker's: title, header, and the one with the cursor.
const OTHER_LINES: u16 = 3;

/// Asks for the talkers, and writes them. `now` is since 1970; `ask` asks the service.
///
/// # Errors
/// That of `ask`, and that the answer cannot be written.
pub(in crate::cli) fn top<E: From<std::io::Error>>(
    options: &TopOptions,
    form: AnswerForm,
    now: Duration,
    ask: impl FnOnce(&GetLogs) -> Result<Logs, E>,
    out: &mut impl Write,
) -> Result<(), E> {
    let found = ask(&request(options, now))?;
    form::write(&found, form, None, out)?;
    Ok(())
}

impl TopOptions {
    /// With no more talkers than a terminal of so many lines has room for.
    pub(in crate::cli) fn within(mut self, lines: Option<u16>) -> Self {
        if let Some(lines) = lines {
            let room = lines.saturating_sub(OTHER_LINES).max(1);
            self.limit = self.limit.min(room);
        }
        self
    }

    /// What stands above the table, in place of what the terminal showed.
    pub(in crate::cli) fn title(&self, now: Duration) -> String {
        let LogstoreOptions { project, logstore } = &self.logstore;
        let last = humantime::format_duration(self.last);
        let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
        let clock = OffsetDateTime::from_unix_timestamp(seconds)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .to_hms();
        let (hour, minute, second) = clock;
        let search = match self.search.as_str() {
            "*" => String::new(),
            search => format!(" · {search}"),
        };
        format!(
            "{project}/{logstore} · the last {last} until {hour:02}:{minute:02}:{second:02} UTC{search} · Ctrl-C ends"
        )
    }
}

/// A screen in place of the one before: what is longer there is cleared line by line, so that nothing flickers.
pub(in crate::cli) fn screen(title: &str, table: &str) -> String {
    let lines = std::iter::once(title).chain(table.lines());
    let lines: String = lines.map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

fn request(options: &TopOptions, now: Duration) -> GetLogs {
    let (columns, first) = (options.by.columns(), options.by.first());
    let (search, limit) = (&options.search, options.limit);
    let query = format!(
        "{search} | SELECT {columns}, sum(bytes) AS bytes, sum(packets) AS packets, count_if(action = 'REJECT') AS rejected \
         WHERE {first} IS NOT NULL AND bytes IS NOT NULL GROUP BY {columns} ORDER BY bytes DESC, {columns} LIMIT {limit}"
    );
    let to = u32::try_from(now.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
    let last = u32::try_from(options.last.as_secs().max(1)).unwrap_or(u32::MAX);
    GetLogs {
        from: to.saturating_sub(last),
        to,
        query,
        ..GetLogs::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::log_service::query::check;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: TopOptions,
    }

    #[test]
    fn what_is_asked_is_a_query() {
        for by in ["pair", "source", "destination", "eni"] {
            let line = [
                "x",
                "--project",
                "project-1",
                "--logstore",
                "logstore-1",
                "--by",
                by,
                "--limit",
                "5",
                "action:REJECT or dstport:22",
            ];
            let options = Line::try_parse_from(line)
                .unwrap_or_else(|error| panic!("{error}"))
                .options;
            let mut asked = GetLogs::default();
            let ask = |request: &GetLogs| {
                asked = request.clone();
                Ok::<_, std::io::Error>(Logs::default())
            };
            let mut out = Vec::new();
            let now = Duration::from_secs(10_000);
            top(&options, AnswerForm::Table, now, ask, &mut out).unwrap();
            assert_eq!(out, b"Nothing was found.\n");
            assert_eq!((asked.from, asked.to), (9401, 10_001));
            check(&asked.query).unwrap();
            assert!(
                asked
                    .query
                    .starts_with("action:REJECT or dstport:22 | SELECT")
                    && asked.query.ends_with("LIMIT 5")
            );
        }
    }

    #[test]
    fn a_screen_has_a_title_and_as_many_talkers_as_there_is_room_for() {
        let line = ["x", "--project", "project-1", "--logstore", "logstore-1"];
        let options = |more: &[&str]| {
            Line::try_parse_from(line.iter().chain(more))
                .unwrap()
                .options
        };
        let title = options(&["--last", "90s", "action:REJECT"]).title(Duration::from_secs(50_975));
        assert_eq!(
            title,
            "project-1/logstore-1 · the last 1m 30s until 14:09:35 UTC · action:REJECT · Ctrl-C ends"
        );
        for (lines, talkers) in [(None, 20), (Some(100), 20), (Some(10), 7), (Some(2), 1)] {
            assert_eq!(options(&[]).within(lines).limit, talkers);
        }
        assert_eq!(
            screen("title", "a\nb\n"),
            "\x1b[Htitle\x1b[K\na\x1b[K\nb\x1b[K\n\x1b[J"
        );
    }
}
