//! Sinks: where records go. Each destination has a thread of its own, so that a slow one holds up neither the capture nor the others.
mod file;
mod lines;
mod table;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use flowlog_model::{flow_log::FlowLog, format::Format};
use tokio::sync::mpsc::UnboundedSender;

use crate::{config::Destination, route, store::ClosedWindow};
use file::RotatingFile;
use lines::LineWriter;

/// Windows that may wait for one sink. When they are this many, the agent waits for the sink, and the kernel counts on meanwhile.
const MAX_WAITING_WINDOWS: usize = 16;

/// Time between attempts to write on after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How records are shown.
#[derive(Clone, Debug)]
pub enum Rendering {
    /// One a line.
    Lines(Format),
    /// A table for people, a window at a time.
    Table,
}

/// A flow log and how and where its records are written.
#[derive(Clone, Debug)]
pub struct Output {
    /// The flow log.
    pub flow_log: FlowLog,
    /// How.
    pub rendering: Rendering,
    /// Where.
    pub destination: Destination,
}

/// What a sink tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkEvent {
    /// Records of a window are written.
    Written {
        /// Name of the flow log.
        flow_log: String,
        /// Records.
        records: u64,
    },
    /// Nobody reads standard output any more.
    StdoutClosed,
}

struct Batch {
    output: Arc<Output>,
    window: Arc<ClosedWindow>,
}

/// What identifies a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Stdout,
    File(PathBuf),
}

struct Sink {
    queue: SyncSender<Batch>,
    thread: JoinHandle<()>,
}

/// The sinks of all flow logs.
pub(crate) struct Sinks {
    sinks: HashMap<Target, Sink>,
    events: UnboundedSender<SinkEvent>,
    closing: Arc<AtomicBool>,
}

impl Sinks {
    /// No sinks yet; each is opened with its first window.
    #[must_use]
    pub(crate) fn new(events: UnboundedSender<SinkEvent>) -> Self {
        Self {
            sinks: HashMap::new(),
            events,
            closing: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Gives a closed window to the sink of an output.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub(crate) fn write(
        &mut self,
        output: &Arc<Output>,
        window: &Arc<ClosedWindow>,
    ) -> io::Result<()> {
        let sink = match self.sinks.entry(target(&output.destination)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let sink = open(
                    entry.key(),
                    &output.destination,
                    self.events.clone(),
                    Arc::clone(&self.closing),
                )?;
                entry.insert(sink)
            }
        };
        let batch = Batch {
            output: Arc::clone(output),
            window: Arc::clone(window),
        };
        match sink.queue.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => {
                tracing::warn!(
                    flow_log = output.flow_log.name.as_str(),
                    "its sink is {MAX_WAITING_WINDOWS} windows behind: waiting for it"
                );
                let _ = sink.queue.send(batch);
            }
            // The sink has said why it ended.
            Err(TrySendError::Disconnected(_)) => {}
        }
        Ok(())
    }

    /// Waits until all that was given is written. What a sink cannot write now is reported and given up.
    pub(crate) fn close(self) {
        self.closing.store(true, Ordering::Relaxed);
        for (target, Sink { queue, thread }) in self.sinks {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!(?target, "the sink's thread has panicked");
            }
        }
    }
}

fn target(destination: &Destination) -> Target {
    match destination {
        Destination::Stdout => Target::Stdout,
        Destination::File { path, .. } => Target::File(path.clone()),
    }
}

fn open(
    target: &Target,
    destination: &Destination,
    events: UnboundedSender<SinkEvent>,
    closing: Arc<AtomicBool>,
) -> io::Result<Sink> {
    let (queue, batches) = sync_channel(MAX_WAITING_WINDOWS);
    let mut writer = SinkWriter {
        device: match destination {
            Destination::Stdout => Device::Stdout,
            Destination::File {
                path,
                max_size_bytes,
                max_files,
            } => Device::File(RotatingFile::new(path.clone(), *max_size_bytes, *max_files)),
        },
        closing,
    };
    let name = match target {
        Target::Stdout => "sink-stdout",
        Target::File(_) => "sink-file",
    };
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || write_all(&batches, &mut writer, &events))?;
    Ok(Sink { queue, thread })
}

fn write_all(
    batches: &Receiver<Batch>,
    writer: &mut SinkWriter,
    events: &UnboundedSender<SinkEvent>,
) {
    while let Ok(batch) = batches.recv() {
        let flow_log = &batch.output.flow_log;
        let written = match &batch.output.rendering {
            Rendering::Lines(format) => {
                let mut lines = LineWriter::new(format, writer);
                route::records(&batch.window, flow_log, |record| lines.write(record));
                lines.finish()
            }
            Rendering::Table => table::write(&batch.window, flow_log, writer),
        };
        match written {
            Ok(records) => {
                let flow_log = flow_log.name.as_str().to_owned();
                let _ = events.send(SinkEvent::Written { flow_log, records });
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let _ = events.send(SinkEvent::StdoutClosed);
                return;
            }
            Err(error) => {
                let name = flow_log.name.as_str();
                tracing::error!(flow_log = name, %error, "its records of the window that began at {} are not all written", batch.window.window.start);
            }
        }
    }
}

enum Device {
    Stdout,
    File(RotatingFile),
}

/// Writes whole lines, and tries again after an error, from where it stopped, for as long as the agent runs.
struct SinkWriter {
    device: Device,
    closing: Arc<AtomicBool>,
}

impl SinkWriter {
    /// Writes `lines`, which end with a line's end.
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        self.retrying(|device| match device {
            Device::Stdout => Ok(()),
            Device::File(file) => file.make_room_for(lines.len() as u64),
        })?;
        let mut rest = lines;
        while !rest.is_empty() {
            let written = self.retrying(|device| match device {
                Device::Stdout => io::Write::write(&mut io::stdout().lock(), rest),
                Device::File(file) => file.write(rest),
            })?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Shows what was written to those who wait for it.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.device {
            Device::Stdout => io::Write::flush(&mut io::stdout().lock()),
            Device::File(_) => Ok(()),
        }
    }

    fn retrying<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Device) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut told = false;
        loop {
            match attempt(&mut self.device) {
                Ok(value) => return Ok(value),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::BrokenPipe
                        || self.closing.load(Ordering::Relaxed) =>
                {
                    return Err(error);
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "cannot write records; trying again every {RETRY:?}");
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }
}
