//! `flowlog query`, `tail` and `top`, over a session: once, or again and again.
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use flowlog_client::ClientError;
use flowlog_model::signature::encoding::encode;
use serde::Deserialize;
use serde_json::json;
use terminal_size::{Height, Width, terminal_size_of};

use super::CliError;
use super::logs::{
    self, AnswerForm, GetLogs, Logs, LogstoreOptions, QueryOptions, RecordForm, Tail, TailOptions,
    TopOptions,
};
use super::progress::Progress;
use super::session::{LogRequest, Session, wall};

/// Between two looks at a logstore.
const LOOK: Duration = Duration::from_secs(1);

/// What the Log Service is asked with.
fn request<'r>(options: &'r LogstoreOptions, request: &GetLogs) -> LogRequest<'r> {
    let path = format!("/logstores/{}/logs", encode(options.logstore.as_str()));
    LogRequest::new("POST", Some(options.project.as_str()), &path).with_body(request)
}

/// How far a query has come.
#[derive(Clone, Debug, Deserialize)]
struct QueryProgress {
    /// The share of its files that is read, from 0 to 1; none if it is not known.
    progress: Option<f64>,
}

/// Asks the Log Service, and calls `tick` with the share of the work that is done while the answer is awaited.
fn ask(
    session: &Session,
    options: &LogstoreOptions,
    asked: &GetLogs,
    mut tick: impl FnMut(Option<f64>),
) -> Result<Logs, ClientError> {
    let id = format!("{}-{}", std::process::id(), wall().as_nanos());
    let path = format!("/logstores/{}", encode(options.logstore.as_str()));
    let watch = LogRequest::new("GET", Some(options.project.as_str()), &path)
        .with_query(&json!({ "type": "progress", "queryId": id }));
    let asked = GetLogs {
        id: Some(id),
        ..asked.clone()
    };
    let tick = |last: Option<QueryProgress>| tick(last.and_then(|last| last.progress));
    session.log_watched(&request(options, &asked), &watch, tick)
}

/// Searches once.
pub(super) fn query(
    session: &Session,
    options: &QueryOptions,
    form: AnswerForm,
) -> Result<(), CliError> {
    let mut progress = Progress::new(options.limit());
    let start = Instant::now();
    let ask = |asked: &GetLogs| {
        let logs = asked.offset as u64;
        let tick = |share| progress.tick(start.elapsed(), logs, share);
        Ok::<_, CliError>(ask(session, &options.logstore, asked, tick)?)
    };
    let mut found = Vec::new();
    let width = terminal_size_of(io::stdout()).map(|(Width(width), _)| width.into());
    logs::query(options, form, wall(), width, ask, &mut found)?;
    // What shows the progress is gone by now: nothing is written between its lines.
    drop(progress);
    unless_reader_gone(io::stdout().lock().write_all(&found).map_err(Into::into))
}

/// Follows, until the reader goes or the service refuses.
pub(super) fn tail(
    session: &Session,
    options: &TailOptions,
    form: RecordForm,
) -> Result<(), CliError> {
    let mut tail = Tail::new(options.clone(), form);
    let mut outage = Outage::default();
    loop {
        let ask =
            |asked: &GetLogs| Ok::<_, CliError>(session.log(&request(&options.logstore, asked))?);
        match tail.step(wall(), ask, &mut io::stdout().lock()) {
            Ok(more) => {
                outage.is_over();
                if more {
                    continue;
                }
            }
            Err(error @ CliError::Print(_)) => return unless_reader_gone(Err(error)),
            Err(error) => outage.of(error)?,
        }
        thread::sleep(LOOK);
    }
}

/// Shows the heaviest talkers: on a terminal until the service refuses, otherwise once.
pub(super) fn top(
    session: &Session,
    options: &TopOptions,
    form: AnswerForm,
) -> Result<(), CliError> {
    let live = form == AnswerForm::Table && !options.once && io::stdout().is_terminal();
    let mut outage = Outage::default();
    loop {
        let height = terminal_size_of(io::stdout()).map(|(_, Height(lines))| lines);
        let options = options.clone().within(height.filter(|_| live));
        let ask =
            |asked: &GetLogs| Ok::<_, CliError>(session.log(&request(&options.logstore, asked))?);
        let now = wall();
        let mut shown = Vec::new();
        match logs::top(&options, form, now, ask, &mut shown) {
            Ok(()) => outage.is_over(),
            Err(error) if live => outage.of(error)?,
            Err(error) => return Err(error),
        }
        if live && !shown.is_empty() {
            let table = String::from_utf8_lossy(&shown);
            shown = logs::screen(&options.title(now), &table).into_bytes();
        }
        let written = io::stdout().lock().write_all(&shown);
        if written.is_err() || !live {
            return unless_reader_gone(written.map_err(Into::into));
        }
        thread::sleep(LOOK);
    }
}

/// Whether the service is away for now: one that has answered before may be starting anew.
#[derive(Debug, Default)]
struct Outage {
    has_answered: bool,
    is_told: bool,
}

impl Outage {
    fn is_over(&mut self) {
        *self = Self {
            has_answered: true,
            is_told: false,
        };
    }

    /// The error, unless it is one to be waited out. That is told once.
    fn of(&mut self, error: CliError) -> Result<(), CliError> {
        match error {
            CliError::Client(ClientError::Unreachable { .. }) if self.has_answered => {
                if !std::mem::replace(&mut self.is_told, true) {
                    eprintln!("flowlog: {error}; it is tried again");
                }
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// Whoever reads may have gone, which is no concern of ours.
fn unless_reader_gone(result: Result<(), CliError>) -> Result<(), CliError> {
    match result {
        Err(CliError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
