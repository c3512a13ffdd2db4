//! `flowlog-agent`.
use std::process::ExitCode;

fn main() -> ExitCode {
    flowlog_agent::cli::main()
}
