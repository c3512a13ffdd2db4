//! `flowlog query`, `tail` and `top`, over a session: once, or again and again.
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use flowlog_client::ClientError;
use flowlog_model::signature::encoding::encode;
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

/// Asks the Log Service, and calls `tick` while the answer is awaited.
fn ask(
    session: &Session,
    options: &LogstoreOptions,
    request: &GetLogs,
    tick: impl FnMut(),
) -> Result<Logs, ClientError> {
    let path = format!("/logstores/{}/logs", encode(options.logstore.as_str()));
    let project = Some(options.project.as_str());
    session.log_ticking(
        &LogRequest::new("POST", project, &path).with_body(request),
        tick,
    )
}

/// Searches once.
pub(super) fn query(
    session: &Session,
    options: &QueryOptions,
    form: AnswerForm,
) -> Result<(), CliError> {
    let mut progress = Progress::new(options.limit());
    let start = Instant::now();
    let ask = |request: &GetLogs| {
        let logs = request.offset as u64;
        let tick = || progress.tick(start.elapsed(), logs);
        Ok::<_, CliError>(ask(session, &options.logstore, request, tick)?)
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
            |request: &GetLogs| Ok::<_, CliError>(ask(session, &options.logstore, request, || ())?);
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
            |request: &GetLogs| Ok::<_, CliError>(ask(session, &options.logstore, request, || ())?);
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
