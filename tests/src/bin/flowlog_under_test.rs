//! The service and the command line that the integration tests run. It is the real program: only its name differs, and that cargo builds
//! it with the tests.
use std::process::ExitCode;

fn main() -> ExitCode {
    flowlog::cli::main()
}
