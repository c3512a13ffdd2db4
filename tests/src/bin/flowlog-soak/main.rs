//! `flowlog-soak`: an agent under traffic that is killed, restarted, stopped and deprived of its disk, for as long as one likes, and
//! then the count of what is missing.
//!
//! `cargo xtask soak` builds and runs it. Its report goes to standard output, what happens meanwhile to standard error.

mod report;
mod run;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use report::Report;
use run::Run;

/// Runs an agent under traffic, disturbs it, and holds its records against what crossed.
#[derive(Debug, Parser)]
struct Arguments {
    /// The agent.
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// What is drawn at random is drawn from this number; drawn itself if it is not given.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments
        .seed
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("flowlog-soak: the seed is {seed}");
    let mut report = Report::new(seed);
    let result = soak(&arguments, &mut report);
    println!("{report}");
    match result {
        Ok(()) if report.differences.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("flowlog-soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(60 * arguments.minutes);
    let mut run = Run::start(&arguments.agent)?;
    while Instant::now() < end && report.differences.is_empty() {
        run.round(report)?;
        eprintln!("flowlog-soak: {}", report.line());
    }
    run.end()
}
