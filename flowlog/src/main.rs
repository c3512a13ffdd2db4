//! `flowlog`.
use std::process::ExitCode;

fn main() -> ExitCode {
    flowlog::cli::main()
}
