//! What the commands that report, `check`, `interfaces`, `status` and `policy`, have in common.
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    agent::AgentError,
    config::Config,
    discovery::{DiscoveryError, Listing, Settings, list_devices},
};

/// The configuration that is read when no other is named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/flowlog/agent.toml";

/// Columns of text of a report.
const WIDTH: u16 = 120;

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReportForm {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// The configuration at `path`, or the default one if there is one: a report can do without.
///
/// # Errors
///
/// If it cannot be read or says what is not allowed.
pub(crate) fn configuration(path: Option<&Path>) -> Result<Option<(PathBuf, Config)>, AgentError> {
    let default = Path::new(DEFAULT_CONFIG);
    match path {
        None if !default.exists() => Ok(None),
        _ => {
            let path = path.unwrap_or(default);
            Ok(Some((path.to_owned(), Config::load(path)?)))
        }
    }
}

/// Lists devices, on a runtime that is over when this returns: what blocks can be called afterwards.
///
/// # Errors
///
/// Netlink's.
pub(crate) fn devices(settings: Settings) -> Result<Listing, DiscoveryError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DiscoveryError::Host)?
        .block_on(list_devices(settings))
}

/// A table without lines, whose long cells are wrapped.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(header);
    table
}

/// Writes lines to standard output, without trailing spaces. Whoever reads may have gone, which is no concern of ours.
pub(crate) fn print_lines<'l>(lines: impl IntoIterator<Item = impl AsRef<str> + 'l>) {
    let mut stdout = io::stdout().lock();
    for line in lines {
        if writeln!(stdout, "{}", line.as_ref().trim_end()).is_err() {
            return;
        }
    }
}

/// Writes a JSON document to standard output.
pub(crate) fn print_json(document: &impl Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => print_lines([text]),
        // Numbers and text with text keys always can be.
        Err(error) => tracing::error!("cannot write the report as JSON: {error}"),
    }
}

/// With a comma before every three digits.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A Unix time as `2026-11-22 14:09:35 UTC`; its number if the calendar does not reach as far.
#[must_use]
pub(crate) fn timestamp(unix_seconds: u64) -> String {
    let time = i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    match time {
        Some(time) => {
            let (hour, minute, second) = time.to_hms();
            format!("{} {hour:02}:{minute:02}:{second:02} UTC", time.date())
        }
        None => unix_seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (1_795_356_575, "2026-11-22 14:09:35 UTC"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn large_numbers_have_commas() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
