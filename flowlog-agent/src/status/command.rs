//! `flowlog-agent status`: asks the running agent, and prints what it says.
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    render,
    socket::{StatusError, ask},
};
use crate::{
    agent::AgentError,
    config::DEFAULT_STATUS_SOCKET,
    report::{self, ReportForm},
};

/// What the command line says.
pub(crate) struct StatusOptions<'o> {
    /// The configuration that names the socket.
    pub config: Option<&'o Path>,
    /// The socket, whatever the configuration says.
    pub socket: Option<&'o Path>,
    /// Form of the report.
    pub form: ReportForm,
    /// Whether troubles make the command fail.
    pub check: bool,
}

/// Asks, prints, and gives the exit code: 0, or 1 if there are troubles and they are to be told so.
///
/// # Errors
///
/// If the configuration is wrong, or no agent answers.
pub(crate) fn run(options: &StatusOptions<'_>) -> Result<ExitCode, AgentError> {
    let path = match options.socket {
        Some(path) => path.to_owned(),
        None => configured(options.config)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::System {
            what: "start the runtime",
            source,
        })?;
    let (document, text) = runtime.block_on(ask(&path))?;
    let troubles = document.troubles();
    match options.form {
        ReportForm::Json => report::print_lines([text]),
        ReportForm::Table => report::print_lines(render::lines(&document, &troubles)),
    }
    Ok(if options.check && !troubles.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn configured(path: Option<&Path>) -> Result<PathBuf, AgentError> {
    match report::configuration(path)? {
        None => Ok(DEFAULT_STATUS_SOCKET.into()),
        Some((config, found)) => Ok(found.status_socket.ok_or(StatusError::Off { config })?),
    }
}
