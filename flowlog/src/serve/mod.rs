//! The service: the management API for flow logs, and the desired state of agents.
//!
//! | module | what it holds |
//! |---|---|
//! | [`http`] | the faces: listener, signatures, RPC, REST, agent protocol |
//! | [`service`] | what the service does, whichever face it is asked by |
//! | [`store`] | the state on the disk |
//! | [`secrets`], [`nonces`], [`rate`] | access keys' secrets at rest, replays, rates |
//! | [`config`], [`error`], [`moment`] | configuration, errors, moments |
pub mod config;
pub mod error;
pub mod http;
pub mod moment;
pub mod nonces;
pub mod options;
mod panics;
pub mod rate;
mod run;
pub mod secrets;
pub mod service;
mod start;
pub mod store;

use std::process::ExitCode;

pub use options::{BackupOptions, ServeOptions};
pub use start::{ADMINISTRATOR_FILE, AdministratorFile};

use start::StartError;

/// `EX_USAGE` of sysexits.h: the options or the configuration are to be mended.
const EXIT_CONFIGURATION: u8 = 64;

/// Runs the service.
pub(crate) fn main(options: &ServeOptions) -> ExitCode {
    run::start_tracing();
    panics::end_the_process();
    ended(run::run(options))
}

/// Copies the state.
pub(crate) fn backup(options: &BackupOptions) -> ExitCode {
    let BackupOptions { data_dir, file } = options;
    let copied = store::backup(data_dir, file).map_err(StartError::from);
    if copied.is_ok() {
        run::print(&format!(
            "{} is a copy of the state, without logs. Keep {} with it: without that, its access keys are of no use.
",
            file.display(),
            data_dir.join(secrets::KEY_FILE).display()
        ));
    }
    ended(copied)
}

fn ended(result: Result<(), StartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowlog: {error}");
            if error.is_configuration() {
                ExitCode::from(EXIT_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
