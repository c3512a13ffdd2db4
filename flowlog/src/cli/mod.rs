//! The command line.
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::serve;

/// Flow logs for your own Linux hosts: the service, and what manages it.
#[derive(Debug, Parser)]
#[command(name = "flowlog", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service, until SIGTERM or Ctrl-C.
    ///
    /// Exit code 64 means that the options or the configuration are to be mended.
    Serve(serve::ServeOptions),
    /// Copy the service's state to a file, also while it runs.
    Backup(serve::BackupOptions),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(options) => serve::main(&options),
        Command::Backup(options) => serve::backup(&options),
    }
}
