//! The agent that the integration tests run. It is the real one: only its name differs, and that cargo builds it with the tests.
use std::process::ExitCode;

fn main() -> ExitCode {
    flowlog_agent::cli::main()
}
