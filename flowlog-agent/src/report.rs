//! What the commands that report, `check` and `interfaces`, have in common.
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

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
