//! Everything a developer of Flowlog runs: `cargo xtask --help` lists it.

mod cli;
mod commands;
mod licences;
mod lint;
mod process;
mod setup;
mod toolchain;

use std::{path::Path, process::ExitCode};

use clap::Parser as _;

use crate::{
    cli::{Cli, Task},
    process::say,
    setup::Purpose,
};

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let own_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own_folder.parent().unwrap_or(own_folder);
    match task {
        Task::Setup { dry_run } => setup::setup(root, Purpose::Test, dry_run),
        Task::Build { release } => commands::build(root, release),
        Task::Ebpf(options) => commands::ebpf(root, &options),
        Task::BuildAndRun(options) => commands::build_and_run(root, &options),
        Task::Test { arguments } => commands::test(root, &arguments),
        Task::Bench { arguments } => commands::bench(root, &arguments),
        Task::Soak { minutes, seed } => commands::soak(root, minutes, seed),
        Task::Lint => lint::lint(root),
    }
}
