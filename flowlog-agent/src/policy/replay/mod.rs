//! `policy replay`: which recorded flows new groups would reject that were accepted, and the reverse.
mod flows;
mod judge;
mod lines;
mod report;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::{PolicyError, ReplayArguments};
use crate::{agent::load_inventory, report::ReportForm};
use flows::{Flows, MAX_FLOWS};
use judge::Judge;
use report::Report;

/// Reads all records, and then reports.
pub(super) fn run(arguments: &ReplayArguments) -> Result<(), PolicyError> {
    let inventory = load_inventory(&arguments.inventory)?;
    let mut flows = Flows::new(&inventory, MAX_FLOWS);
    for path in &arguments.records {
        read(path, &mut flows)?;
    }
    let report = Report::new(&inventory, &flows, arguments.rows);
    match arguments.output {
        ReportForm::Json => crate::report::print_json(&report),
        ReportForm::Table => crate::report::print_lines(report.lines()),
    }
    Ok(())
}

fn read(path: &Path, flows: &mut Flows<'_>) -> Result<(), PolicyError> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let reader: io::Result<Box<dyn Read>> = if is_stdin {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    reader
        .and_then(|reader| {
            lines::for_each_line(BufReader::new(reader), |number, line| {
                flows.add_line(&name, number, line);
            })
        })
        .map_err(|source| PolicyError::Records { file: name, source })
}

#[cfg(test)]
mod tests;
