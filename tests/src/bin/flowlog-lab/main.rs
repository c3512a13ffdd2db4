//! `flowlog-lab`: a small VPC in network namespaces, with traffic, the agent on it, and a service that keeps the records. `cargo xtask
//! build-and-run` runs its demo.
mod agent;
mod ask;
mod demo;
mod map;
mod program;
mod service;
mod signals;
mod traffic;
mod vpc;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

/// A lab for Flowlog: network namespaces that it makes itself, ordinary traffic between them, the agent on their interfaces, and a service
/// with the records.
#[derive(Debug, Parser)]
#[command(name = "flowlog-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make a VPC of three VMs, let them talk, show what the agent records and ask the service for it, until Ctrl-C. Nothing is left
    /// behind. Needs root.
    Demo(DemoArguments),
    /// Become a program that ends when its parent does.
    #[command(name = program::GUARD, hide = true)]
    Guarded {
        /// Process id of the parent.
        #[arg(long, value_name = "PID")]
        parent: u32,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<OsString>,
    },
}

/// Options of `flowlog-lab demo`.
#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// The program `flowlog-agent`.
    #[arg(long, value_name = "PATH")]
    agent: PathBuf,
    /// The program `flowlog`.
    #[arg(long, value_name = "PATH")]
    flowlog: PathBuf,
    /// End after this many windows, instead of at Ctrl-C.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    windows: Option<u64>,
    /// Length of a capture window, such as 5s or 1m.
    #[arg(long, value_name = "LENGTH", default_value = "5s", value_parser = window)]
    window: String,
    /// Form of the records, which alone go to standard output.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One JSON object a line.
    Json,
    /// One record a line, in the default field order.
    Text,
    /// A table, window by window.
    Table,
}

impl Output {
    /// As the agent's option has it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Table => "table",
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Guarded { parent, words } => match program::become_guarded(parent, &words) {
            Ok(never) => match never {},
            Err(error) => {
                demo::say(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// Checks the form of a window's length here, so that a slip is told before the lab is made.
fn window(text: &str) -> Result<String, String> {
    let number = text.strip_suffix(['s', 'm']).unwrap_or_default();
    if number.parse::<u32>().is_ok_and(|number| number > 0) {
        Ok(text.to_owned())
    } else {
        Err("allowed are whole seconds or minutes, as 5s or 1m".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, window};

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn windows_are_seconds_or_minutes() {
        for good in ["5s", "1m", "3600s"] {
            assert_eq!(window(good).as_deref(), Ok(good));
        }
        for bad in ["", "5", "0s", "s", "500ms", "1h", "-1s", "5 s"] {
            assert!(window(bad).is_err(), "{bad:?}");
        }
    }
}
