//! `flowlog-bench`: everything in DESIGN's performance budget, measured beside a floor in the same run.
//!
//! `cargo xtask bench` builds and runs it. It prints tables to standard error and JSON to standard output or a file.

mod agent;
mod drain;
mod drops;
mod live;
mod log_service;
mod program;
mod report;
mod security;
mod service;
mod setting;
mod throughput;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

use report::Report;

/// Measures the programs, the drain, the agent and the service, beside floors.
#[derive(Debug, Parser)]
struct Arguments {
    /// The BPF object of the floors.
    #[arg(long, value_name = "FILE")]
    floor: PathBuf,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only the measurements whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write JSON here, besides the tables.
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> Result<ExitCode> {
    // The service whose ingest is measured is this program under another name: all of it is linked already, which takes minutes.
    if std::env::args_os()
        .next()
        .is_some_and(|name| name == log_service::SERVICE)
    {
        return Ok(flowlog::cli::main());
    }
    let arguments = Arguments::parse();
    let floor = fs::read(&arguments.floor)
        .with_context(|| format!("cannot read {}", arguments.floor.display()))?;
    let mut report = Report::default();
    type Measurement = fn(&[u8], usize, &mut Report) -> Result<()>;
    let measurements: [(&str, Measurement); 9] = [
        ("program", program::measure),
        ("security", security::measure),
        ("live", live::measure),
        ("throughput", throughput::measure),
        ("drain", drain::measure),
        ("drops", drops::measure),
        ("agent", agent::measure),
        ("service", service::measure),
        // It keeps to two processors from then on.
        ("log-service", log_service::measure),
    ];
    for (name, measure) in measurements {
        if arguments
            .only
            .as_ref()
            .is_none_or(|only| name == only.as_str())
        {
            eprintln!("measuring: {name} …");
            measure(&floor, arguments.rounds.max(1), &mut report)
                .with_context(|| format!("the measurement {name}"))?;
        }
    }
    eprintln!("{report}");
    if let Some(folder) = arguments.json.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&arguments.json, report.json())
        .with_context(|| format!("cannot write {}", arguments.json.display()))?;
    eprintln!("JSON: {}", arguments.json.display());
    Ok(ExitCode::SUCCESS)
}
