//! `flowlog query`, `tail` and `top`, over a session: once, or again and again.
use std::io::{self, ErrorKind};
use std::thread;
use std::time::Duration;

use flowlog_client::ClientError;
use flowlog_model::signature::encoding::encode;

use super::CliError;
use super::logs::{self, GetLogs, Logs, QueryOptions, Tail, TailOptions, TopOptions};
use super::session::{LogRequest, Session, wall};
use logs::LogstoreOptions;

/// Between two looks at a logstore.
const LOOK: Duration = Duration::from_secs(1);

/// Asks the Log Service.
fn ask(
    session: &Session,
    options: &LogstoreOptions,
    request: &GetLogs,
) -> Result<Logs, ClientError> {
    let path = format!("/logstores/{}/logs", encode(options.logstore.as_str()));
    let project = Some(options.project.as_str());
    session.log(&LogRequest::new("POST", project, &path).with_body(request))
}

/// Searches once.
pub(super) fn query(session: &Session, options: &QueryOptions) -> Result<(), CliError> {
    let ask = |request: &GetLogs| Ok(ask(session, &options.logstore, request)?);
    unless_reader_gone(logs::query(options, wall(), ask, &mut io::stdout().lock()))
}

/// Follows, until the reader goes or the service refuses.
pub(super) fn tail(session: &Session, options: &TailOptions) -> Result<(), CliError> {
    let mut tail = Tail::new(options.clone());
    loop {
        let ask = |request: &GetLogs| Ok::<_, CliError>(ask(session, &options.logstore, request)?);
        match tail.step(wall(), ask, &mut io::stdout().lock()) {
            Ok(true) => {}
            Ok(false) => thread::sleep(LOOK),
            Err(error) => return unless_reader_gone(Err(error)),
        }
    }
}

/// Shows the heaviest talkers, until the reader goes or the service refuses.
pub(super) fn top(session: &Session, options: &TopOptions) -> Result<(), CliError> {
    loop {
        let ask = |request: &GetLogs| Ok::<_, CliError>(ask(session, &options.logstore, request)?);
        let shown = logs::top(options, wall(), ask, &mut io::stdout().lock());
        if shown.is_err() || options.once {
            return unless_reader_gone(shown);
        }
        thread::sleep(LOOK);
    }
}

/// Whoever reads may have gone, which is no concern of ours.
fn unless_reader_gone(result: Result<(), CliError>) -> Result<(), CliError> {
    match result {
        Err(CliError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
