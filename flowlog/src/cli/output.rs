//! Tables for people, JSON for programs.
use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputForm {
    /// Tables and sentences for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// What stands for nothing in a table.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// A table without lines.
pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A table of what one thing is, without a header.
pub(super) fn facts<const ROWS: usize>(facts: [(&str, String); ROWS]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in facts {
        table.add_row([name.to_owned(), or_dash(&value)]);
    }
    table
}

/// Writes lines to standard output, without trailing spaces. Whoever reads may have gone, which is no concern of ours.
pub(super) fn print_lines<'l>(lines: impl IntoIterator<Item = impl AsRef<str> + 'l>) {
    let mut stdout = io::stdout().lock();
    for line in lines {
        if writeln!(stdout, "{}", line.as_ref().trim_end()).is_err() {
            return;
        }
    }
}

/// Prints a document: as JSON, or as the lines that people are to see.
pub(super) fn print<L: AsRef<str>>(
    form: OutputForm,
    document: &impl Serialize,
    lines: impl FnOnce() -> Vec<L>,
) {
    match form {
        OutputForm::Table => print_lines(lines()),
        // Text and numbers with text keys always can be.
        OutputForm::Json => {
            print_lines([serde_json::to_string_pretty(document).unwrap_or_default()]);
        }
    }
}
