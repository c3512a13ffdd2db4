//! Sinks: where records go. Each destination has a thread of its own, so that one that is slow or dead holds up neither the capture
//! nor the others. A flow log's windows are delivered one after another, each until it is complete; then its cursor is stored.
//!
//! | destination | a crash in a delivery | a failure in a delivery |
//! |---|---|---|
//! | standard output | the window is delivered again from its beginning; `batch-id` tells a reader what it has already | it goes on where it stopped |
//! | file | what there was of the window is taken away, and it is delivered again | likewise |
//! | folder | the window's file was not there yet, or is replaced by itself | likewise |
//! | Log Service | the window is delivered again from its beginning; batches that are there are not stored again | likewise |
mod attempts;
mod cursor;
mod delivery;
mod disk;
mod file;
mod folder;
mod lines;
mod log_service;
mod stdout;
mod stored;
mod table;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use backon::ExponentialBuilder;
use flowlog_model::{flow_log::FlowLog, format::Format};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::config::{Destination, LogstoreDestination};
use attempts::{Closing, PAUSES};
pub(crate) use cursor::CursorStore;
pub(crate) use delivery::Delivery;
pub(crate) use stored::{StoredCursors, StoredDelivery};
use worker::{Device, Job, Message, Worker};

/// How records are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// One a line.
    Lines(Format),
    /// A table for people, a window at a time.
    Table,
}

/// A flow log and how and where its records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The flow log.
    pub flow_log: FlowLog,
    /// How.
    pub rendering: Rendering,
    /// Where.
    pub destination: Destination,
}

/// What was written of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Records.
    pub records: u64,
    /// Octets of their lines.
    pub bytes: u64,
    /// Packets that netfilter dropped, of flows that the window does not have: they are ACCEPT in the window before.
    pub dropped_late: u64,
}

/// What a sink tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkEvent {
    /// A window is delivered, and the cursor behind it is stored.
    Delivered {
        /// Name of the flow log.
        flow_log: String,
        /// Number of the window.
        window: u64,
        /// What was written; nothing if it had been delivered before.
        written: Written,
    },
    /// An attempt to deliver a window has failed.
    Failed {
        /// Name of the flow log.
        flow_log: String,
        /// Why.
        error: String,
        /// Attempts that have failed since the last one that has not.
        attempts: u32,
        /// Time until the next.
        pause: Duration,
    },
    /// A window can never be read; it is passed over.
    Unreadable {
        /// Number of the window.
        window: u64,
        /// Why.
        error: String,
    },
    /// Nobody reads standard output any more.
    StdoutClosed,
}

/// What identifies a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Stdout,
    File(PathBuf),
    Folder(PathBuf),
    LogService(LogstoreDestination),
}

struct Sink {
    /// As many windows may wait in it as the spool has.
    queue: mpsc::Sender<Message>,
    thread: JoinHandle<()>,
}

/// A flow log that was given windows.
struct Served {
    target: Target,
    /// Windows that were given and are not delivered.
    left: Arc<AtomicU64>,
}

/// The sinks of all flow logs.
pub(crate) struct Sinks {
    sinks: HashMap<Target, Sink>,
    /// By flow log.
    served: BTreeMap<String, Served>,
    cursors: Arc<dyn CursorStore>,
    events: UnboundedSender<SinkEvent>,
    closing: Arc<Closing>,
    pauses: ExponentialBuilder,
    /// Requests say when they are sent.
    clock: Clock,
    /// Every thread has a copy, which goes with the thread.
    running: mpsc::Sender<Infallible>,
    ended: mpsc::Receiver<Infallible>,
}

impl Sinks {
    /// No sinks yet; each is opened with its first window.
    #[must_use]
    pub(crate) fn new(
        events: UnboundedSender<SinkEvent>,
        cursors: Arc<dyn CursorStore>,
        clock: Clock,
    ) -> Self {
        let (running, ended) = mpsc::channel();
        Self {
            sinks: HashMap::new(),
            served: BTreeMap::new(),
            cursors,
            events,
            closing: Arc::default(),
            pauses: PAUSES,
            clock,
            running,
            ended,
        }
    }

    /// Whether these outputs can be given to the sinks as they are. They cannot where a flow log was given windows for another destination,
    /// nor where another flow log wrote to its file or folder: a sink knows where each of its flow logs stands, and takes away what is
    /// behind that. Then close the sinks, and give new ones what is left.
    pub(crate) fn suit(&self, outputs: &[Arc<Output>]) -> bool {
        outputs.iter().all(|output| {
            let (name, wanted) = (output.flow_log.name.as_str(), target(&output.destination));
            self.served.iter().all(|(served, Served { target, .. })| {
                if served == name {
                    *target == wanted
                } else {
                    *target != wanted || wanted == Target::Stdout
                }
            })
        })
    }

    /// Gives a closed window to the sink of an output, after those of the same flow log that are to be delivered before it.
    ///
    /// The sinks must suit the output: see [`Self::suit`].
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub(crate) fn deliver(
        &mut self,
        output: &Arc<Output>,
        delivery: Arc<dyn Delivery>,
    ) -> io::Result<()> {
        let target = target(&output.destination);
        if !self.sinks.contains_key(&target) {
            self.start(
                target.clone(),
                Device::open(&output.destination, self.clock)?,
            )?;
        }
        let left = &self
            .served
            .entry(output.flow_log.name.as_str().to_owned())
            .or_insert_with(|| Served {
                target: target.clone(),
                left: Arc::default(),
            })
            .left;
        left.fetch_add(1, Ordering::Relaxed);
        let job = Job {
            output: Arc::clone(output),
            delivery,
            left: Arc::clone(left),
        };
        if let Some(sink) = self.sinks.get(&target) {
            // A sink that has ended has said why.
            let _ = sink.queue.send(Message::Deliver(job));
        }
        Ok(())
    }

    /// A flow log has all that it is to have. A sink that nobody else writes to ends with what it has in hand.
    pub(crate) fn forget(&mut self, flow_log: &str) {
        let Some(Served { target, .. }) = self.served.remove(flow_log) else {
            return;
        };
        if self.served.values().all(|served| served.target != target) {
            // Its thread is not waited for: at the end, all are.
            self.sinks.remove(&target);
        } else if let Some(sink) = self.sinks.get(&target) {
            let _ = sink.queue.send(Message::Forget(flow_log.to_owned()));
        }
    }

    fn start(&mut self, target: Target, device: Device) -> io::Result<()> {
        let (queue, messages) = mpsc::channel();
        let worker = Worker {
            device,
            cursors: Arc::clone(&self.cursors),
            events: self.events.clone(),
            closing: Arc::clone(&self.closing),
            pauses: self.pauses,
        };
        let name = match target {
            Target::Stdout => "sink-stdout",
            Target::File(_) => "sink-file",
            Target::Folder(_) => "sink-folder",
            Target::LogService(_) => "sink-logs",
        };
        let running = self.running.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                worker.run(&messages);
                drop(running);
            })?;
        self.sinks.insert(target, Sink { queue, thread });
        Ok(())
    }

    /// Waits until all that was given is delivered, or has failed once more, but no longer than `patience`. Says how many windows
    /// of which flow logs are left, and gives them. A thread that waits for its destination even then writes no more than what it is just
    /// writing.
    pub(crate) fn close(self, patience: Duration) -> BTreeMap<String, u64> {
        let Self {
            sinks,
            served,
            closing,
            running,
            ended,
            ..
        } = self;
        closing.begin();
        let threads: Vec<(Target, JoinHandle<()>)> = sinks
            .into_iter()
            .map(|(target, Sink { thread, .. })| (target, thread))
            .collect();
        drop(running);
        let all_ended = ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected);
        closing.end();
        for (target, thread) in threads {
            if !all_ended && !thread.is_finished() {
                tracing::warn!(
                    ?target,
                    "it takes too long: it is not waited for any longer"
                );
            } else if thread.join().is_err() {
                tracing::error!(?target, "the sink's thread has panicked");
            }
        }
        let left: BTreeMap<String, u64> = served
            .into_iter()
            .map(|(flow_log, served)| (flow_log, served.left.load(Ordering::Relaxed)))
            .filter(|(_, left)| *left > 0)
            .collect();
        for (flow_log, windows) in &left {
            tracing::warn!(
                flow_log,
                "{windows} of its windows are left for the agent's next start"
            );
        }
        left
    }
}

fn target(destination: &Destination) -> Target {
    match destination {
        Destination::Stdout => Target::Stdout,
        Destination::File { path, .. } => Target::File(path.clone()),
        Destination::Folder { path, .. } => Target::Folder(path.clone()),
        Destination::LogService(logstore) => Target::LogService(logstore.clone()),
    }
}

#[cfg(test)]
mod tests;
