//! The thread of a destination: it delivers windows one after another.
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use backon::ExponentialBuilder;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Output, Rendering, SinkEvent, Written,
    attempts::{Attempts, Closing},
    cursor::{Cursor, CursorStore, Position},
    delivery::Delivery,
    file::RotatingFile,
    folder::{Folder, file_name},
    lines,
    log_service::LogServiceSink,
    stdout::Stdout,
    table,
};
use crate::{clock::Clock, config::Destination, failpoint};

/// A window for a flow log.
pub(super) struct Job {
    pub(super) output: Arc<Output>,
    pub(super) delivery: Arc<dyn Delivery>,
    /// Windows of this flow log that are not delivered yet.
    pub(super) left: Arc<AtomicU64>,
}

impl Job {
    fn flow_log(&self) -> &str {
        self.output.flow_log.name.as_str()
    }
}

/// What a sink is told.
pub(super) enum Message {
    Deliver(Job),
    /// Nothing more is delivered to the flow log of this name.
    Forget(String),
}

/// What a destination writes to.
pub(super) enum Device {
    Stdout(Stdout),
    File(RotatingFile),
    Folder(Folder),
    LogService(Box<LogServiceSink>),
}

impl Device {
    pub(super) fn open(destination: &Destination, clock: Clock) -> io::Result<Self> {
        Ok(match destination {
            Destination::Stdout => Self::Stdout(Stdout::open()?),
            Destination::File {
                path,
                max_size_bytes,
                max_files,
            } => Self::File(RotatingFile::new(path.clone(), *max_size_bytes, *max_files)),
            Destination::Folder { path, max_files } => {
                Self::Folder(Folder::new(path.clone(), *max_files))
            }
            Destination::LogService(logstore) => {
                Self::LogService(Box::new(LogServiceSink::open(logstore.clone(), clock)?))
            }
        })
    }

    /// Begins a window, with nothing of it there. Gives the position from which it goes on.
    fn begin(&mut self, job: &Job, at: &Position) -> io::Result<Position> {
        match self {
            Self::Stdout(_) | Self::LogService(_) => Ok(Position::Nothing),
            Self::File(file) => file.begin(at),
            Self::Folder(folder) => {
                let is_json =
                    matches!(&job.output.rendering, Rendering::Lines(format) if format.is_json());
                let name = file_name(job.delivery.label(), job.delivery.identity(), is_json)?;
                folder.begin(name).map(|()| Position::Nothing)
            }
        }
    }

    fn write(&mut self, lines: &[u8], attempts: &mut Attempts<'_>) -> io::Result<()> {
        attempts.check_not_over()?;
        match self {
            Self::Stdout(stdout) => stdout.write(lines, attempts),
            Self::File(file) => file.write(lines),
            Self::Folder(folder) => folder.write(lines),
            Self::LogService(_) => Err(io::Error::other("a logstore takes records, not lines")),
        }
    }

    /// Ends a window. Gives the position behind it.
    fn commit(&mut self) -> io::Result<Position> {
        match self {
            Self::Stdout(stdout) => stdout.flush().map(|()| Position::Nothing),
            Self::File(file) => file.commit(),
            Self::Folder(folder) => folder.commit().map(|()| Position::Nothing),
            // What was put is stored.
            Self::LogService(_) => Ok(Position::Nothing),
        }
    }
}

/// Why a window is not delivered.
enum Stop {
    /// The agent ends.
    Closing,
    /// Nobody reads standard output any more.
    ReaderGone,
}

/// Delivers windows.
pub(super) struct Worker {
    pub(super) device: Device,
    pub(super) cursors: Arc<dyn CursorStore>,
    pub(super) events: UnboundedSender<SinkEvent>,
    pub(super) closing: Arc<Closing>,
    pub(super) pauses: ExponentialBuilder,
}

impl Worker {
    /// Delivers each window, until there are no more to come. What cannot be delivered when the agent ends is left, and with it all
    /// later windows of the same flow log.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let mut cursors = HashMap::new();
        let mut stopped = HashSet::new();
        while let Ok(message) = messages.recv() {
            let job = match message {
                Message::Deliver(job) => job,
                Message::Forget(flow_log) => {
                    cursors.remove(&flow_log);
                    continue;
                }
            };
            if stopped.contains(job.flow_log()) {
                continue;
            }
            match self.deliver(&job, &mut cursors) {
                Ok(written) => {
                    job.left.fetch_sub(1, Ordering::Relaxed);
                    let _ = self.events.send(SinkEvent::Delivered {
                        flow_log: job.flow_log().to_owned(),
                        window: job.delivery.identity().window,
                        written,
                    });
                }
                Err(Stop::Closing) => {
                    stopped.insert(job.flow_log().to_owned());
                }
                Err(Stop::ReaderGone) => {
                    let _ = self.events.send(SinkEvent::StdoutClosed);
                    return;
                }
            }
        }
    }

    /// Delivers a window, unless it was delivered before, and stores the cursor behind it.
    fn deliver(
        &mut self,
        job: &Job,
        cursors: &mut HashMap<String, Cursor>,
    ) -> Result<Written, Stop> {
        let Self {
            device,
            cursors: store,
            events,
            closing,
            pauses,
        } = self;
        let name = job.flow_log();
        let mut attempts = Attempts::new(name, *pauses, closing, events);
        let mut cursor = match cursors.get(name) {
            Some(cursor) => cursor.clone(),
            None => attempts
                .until_done(|| store.load(name))
                .ok_or(Stop::Closing)?
                .unwrap_or_default(),
        };
        let window = job.delivery.identity().window;
        if cursor.window.is_some_and(|delivered| window <= delivered) {
            cursors.insert(name.to_owned(), cursor);
            return Ok(Written::default());
        }
        let written = loop {
            match attempt(device, job, &mut cursor, &**store, &mut attempts) {
                Ok(written) => break written,
                Err(error) if is_without_reader(device, &error) => return Err(Stop::ReaderGone),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let error = error.to_string();
                    let _ = events.send(SinkEvent::Unreadable { window, error });
                    break Written::default();
                }
                Err(error) if !attempts.again_after(&error) => return Err(Stop::Closing),
                Err(_) => {}
            }
        };
        attempts.succeeded();
        cursor.window = Some(window);
        attempts.check_not_over().map_err(|_| Stop::Closing)?;
        attempts
            .until_done(|| store.store(name, &cursor))
            .ok_or(Stop::Closing)?;
        failpoint::reached("delivery-cursor-stored");
        cursors.insert(name.to_owned(), cursor);
        Ok(written)
    }
}

/// Delivers a window from its beginning. Moves the cursor's position behind it.
fn attempt(
    device: &mut Device,
    job: &Job,
    cursor: &mut Cursor,
    store: &dyn CursorStore,
    attempts: &mut Attempts<'_>,
) -> io::Result<Written> {
    let from = device.begin(job, &cursor.position)?;
    if from != cursor.position {
        let moved = Cursor {
            window: cursor.window,
            position: from,
        };
        store.store(job.flow_log(), &moved)?;
        *cursor = moved;
    }
    failpoint::reached("delivery-begun");
    let flow_log = &job.output.flow_log;
    let delivery = &*job.delivery;
    let written = match (&mut *device, &job.output.rendering) {
        (Device::LogService(logstore), Rendering::Lines(format)) => {
            logstore.deliver(delivery, flow_log, format, attempts)?
        }
        (device, Rendering::Lines(format)) => {
            let mut write_lines = |lines: &[u8]| device.write(lines, attempts);
            lines::write(delivery, flow_log, format, &mut write_lines)?
        }
        (device, Rendering::Table) => {
            let mut write_lines = |lines: &[u8]| device.write(lines, attempts);
            table::write(delivery, flow_log, &mut write_lines)?
        }
    };
    failpoint::reached("delivery-written");
    cursor.position = device.commit()?;
    failpoint::reached("delivery-committed");
    Ok(written)
}

fn is_without_reader(device: &Device, error: &io::Error) -> bool {
    matches!(device, Device::Stdout(_)) && error.kind() == io::ErrorKind::BrokenPipe
}
