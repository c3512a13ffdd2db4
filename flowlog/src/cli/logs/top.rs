//! `flowlog top`: the heaviest talkers of the last windows.
use std::io::Write;
use std::time::Duration;

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
    /// Show them once, and end.
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

/// Asks for the talkers, and writes them. `now` is since 1970; `ask` asks the service.
///
/// # Errors
/// That of `ask`, and that the answer cannot be written.
pub(in crate::cli) fn top<E: From<std::io::Error>>(
    options: &TopOptions,
    now: Duration,
    ask: impl FnOnce(&GetLogs) -> Result<Logs, E>,
    out: &mut impl Write,
) -> Result<(), E> {
    let found = ask(&request(options, now))?;
    form::write(&found, AnswerForm::Table, out)?;
    Ok(())
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
            top(&options, Duration::from_secs(10_000), ask, &mut out).unwrap();
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
}
