//! The running agent: one loop that owns everything.
//!
//! | file | what it does |
//! |---|---|
//! | `start` | goes on where the agent before it stopped, however that was |
//! | `windows` | drains, closes windows, keeps what the next agent needs |
//! | `counting` | has the capture attach and detach, and enters in the ledger what the devices count by themselves |
//! | `deliver` | gives closed windows to the sinks, and takes note of what they have delivered |
//! | `reload` | follows another inventory, and other flow logs |
//! | `managed` | follows the flow logs that the service manages, and reports to it |
//! | `status` | tells how it stands |
//! | `end` | ends, orderly |
mod counting;
mod deliver;
mod end;
mod error;
mod managed;
mod reload;
mod saved;
mod start;
mod status;
mod windows;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

pub use error::AgentError;
pub use reload::{MAX_INVENTORY_BYTES, load_inventory};

use crate::{
    adoption::Adopted,
    bpf::{
        self, Wake, Woken,
        pins::{self, Pins},
    },
    capture::Capture,
    clock::{Alarm, Clock},
    config::{Config, OnExit},
    discovery::{DeviceEvent, DeviceKey, Discovery},
    drain::Drainer,
    ledger::Ledger,
    lock::HostLock,
    management::Management,
    metrics::{Metrics, Scrape},
    output::OutputOptions,
    privileges,
    sink::{Output, SinkEvent, Sinks},
    spool::{Compacted, Spool},
    status::{Request, Requests},
    watch::FileWatch,
    window::Window,
    windows::Windows,
};
use deliver::SinkHealth;
use windows::{ToClose, Why};

/// How often sessions that are over are cleared away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time between two sweeps, when there is no room for sessions.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// What the command line says over the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End after this many windows.
    pub windows: Option<u64>,
    /// Where and how records are written.
    pub output: OutputOptions,
}

/// Runs the agent until it is told to end. To be called on a current-thread runtime, before there are other threads.
///
/// # Errors
///
/// [`AgentError`]. What was counted and is not in the spool then stays in the kernel, for the next agent.
pub async fn run(config_path: &Path, options: &RunOptions) -> Result<(), AgentError> {
    let config = Config::load(config_path)?;
    let inventory = load_inventory(&config.inventory)?;
    let lock = HostLock::take(&config.lock_file)?;
    if let Err(error) = privileges::raise_file_limit() {
        tracing::warn!("cannot raise the limit of open files (ulimit -n): {error}");
    }
    let pin_folder = bpf::pin_folder(&config.pin_path);
    let left = pins::prepare(&pin_folder)?;
    let on_exit = config.on_exit;
    let started = Agent::start(config_path, config, inventory, (&pin_folder, left), options).await;
    let (is_empty, result) = match started {
        Ok(mut agent) => {
            let result = agent.run_until_end().await;
            agent.end(result)
        }
        // Where there was nothing before, nothing was counted yet.
        Err(error) => (left == Pins::New, Err(error)),
    };
    if on_exit == OnExit::Detach && is_empty {
        pins::remove(&pin_folder);
    }
    drop(lock);
    result
}

struct Agent {
    config_path: PathBuf,
    config: Config,
    options: RunOptions,
    outputs: Vec<Arc<Output>>,
    /// Outputs that are followed no more, and still have windows to get.
    ending: Vec<Arc<Output>>,
    clock: Clock,
    alarm: Alarm,
    boot_id: String,
    capture: Capture,
    drainer: Drainer,
    ledger: Ledger,
    /// The boot time at which the agent was started.
    started: Duration,
    discovery: Discovery,
    inventory_watch: FileWatch,
    wake: Wake,
    windows: Windows,
    windows_left: Option<u64>,
    /// Counters of other ABI versions that are not drained yet.
    adopted: Vec<Adopted>,
    /// Whether there were pins when the agent was started.
    found_pins: bool,
    /// What a previous agent has left is looked for once, after the devices have been told of.
    leftovers_looked_for: bool,
    spool: Spool,
    /// Windows that are closed by the clock and not yet in the spool, in order.
    to_close: VecDeque<ToClose>,
    /// Windows that are in the spool, and to be delivered as soon as the state that follows them is.
    closed_unsaved: u64,
    /// Whether the spool has the state as it is now.
    state_is_saved: bool,
    /// When the spool is to be tried again, as a boot time.
    spool_retry: Option<Duration>,
    compaction: Option<JoinHandle<Compacted>>,
    /// Since the start.
    packets_without_session: u64,
    unmatched_drops: u64,
    /// When sessions are to be swept, if there is anything to be swept, and when they were last, as boot times.
    sweep_at: Duration,
    swept_at: Duration,
    sinks: Sinks,
    sink_sender: mpsc::UnboundedSender<SinkEvent>,
    sink_events: mpsc::UnboundedReceiver<SinkEvent>,
    /// The newest window that the sink of a flow log was given, by the flow log's name.
    given: BTreeMap<String, u64>,
    sink_health: BTreeMap<String, SinkHealth>,
    /// Windows that were put into the spool since the start.
    windows_committed: u64,
    /// Length in seconds and label of the newest of them.
    last_closed: Option<(u64, Window)>,
    /// The boot time and the sentence of what went wrong last.
    last_error: Option<(Duration, String)>,
    metrics: Metrics,
    scrapes: Option<mpsc::Receiver<Scrape>>,
    status_requests: Option<Requests>,
    /// The flow logs that a service manages, if there is one.
    management: Option<Management>,
    signals: Signals,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What the loop goes round for.
enum Event {
    Device(DeviceEvent),
    Woken(Woken),
    /// The time has come for something.
    Due,
    InventoryChanged,
    Reload,
    /// The service wants other flow logs.
    Service,
    Sink(SinkEvent),
    Compacted(Option<Compacted>),
    Scrape(Scrape),
    Status(Request),
    End(&'static str),
}

impl Agent {
    async fn run_until_end(&mut self) -> Result<(), AgentError> {
        loop {
            match self.next_event().await? {
                Event::Device(event) => self.device_event(event)?,
                Event::Woken(woken) => self.woken(woken)?,
                Event::Due if self.ends_with_this_window() => return Ok(()),
                Event::Due => self.due()?,
                Event::InventoryChanged => self.reload_inventory(),
                Event::Reload => self.reload()?,
                Event::Service => self.follow_service()?,
                Event::Sink(SinkEvent::StdoutClosed) => {
                    tracing::info!("nobody reads standard output any more");
                    return Ok(());
                }
                Event::Sink(event) => {
                    self.note_for_report(&event);
                    self.sink_event(event);
                }
                Event::Compacted(outcome) => self.compacted(outcome),
                // Whoever asked may have gone; that is no concern of ours.
                Event::Scrape(reply) => {
                    drop(reply.send(self.metrics_text()));
                }
                Event::Status(reply) => drop(reply.send(self.status()?)),
                Event::End(why) => {
                    tracing::info!("{why}: closing the open window");
                    return Ok(());
                }
            }
            if self.windows_left == Some(0) {
                return Ok(());
            }
            if self.capture.take_changed() {
                self.state_is_saved = false;
                self.report_is_due();
            }
            self.save_state();
            self.report();
        }
    }

    async fn next_event(&mut self) -> Result<Event, AgentError> {
        self.alarm
            .set(self.next_due())
            .map_err(|source| AgentError::System {
                what: "set the alarm",
                source,
            })?;
        // In no fixed order: under a flood of new flows there is always something to drain, and that must not keep the rest waiting.
        Ok(tokio::select! {
            _ = self.signals.terminate.recv() => Event::End("SIGTERM"),
            _ = self.signals.interrupt.recv() => Event::End("interrupted"),
            () = self.alarm.wait() => Event::Due,
            woken = self.wake.wait() => Event::Woken(woken),
            event = self.discovery.next() => Event::Device(event),
            _ = self.signals.hangup.recv() => Event::Reload,
            () = self.inventory_watch.changed() => Event::InventoryChanged,
            () = service_changed(&mut self.management) => Event::Service,
            Some(event) = self.sink_events.recv() => Event::Sink(event),
            outcome = finished(&mut self.compaction) => Event::Compacted(outcome),
            Some(scrape) = next_scrape(&mut self.scrapes) => Event::Scrape(scrape),
            Some(request) = next_status(&mut self.status_requests) => Event::Status(request),
        })
    }

    /// When something is due, as a boot time.
    fn next_due(&self) -> Duration {
        // While the spool takes nothing, no window can be closed.
        let windows = self
            .spool_retry
            .unwrap_or_else(|| self.windows.next_deadline());
        let capture = self.capture.next_retry().unwrap_or(Duration::MAX);
        let report = self.management.as_ref().and_then(Management::next_look);
        let sweep = if self.capture.security().is_busy() {
            self.sweep_at
        } else {
            Duration::MAX
        };
        windows
            .min(capture)
            .min(report.unwrap_or(Duration::MAX))
            .min(sweep)
    }

    /// Whether the last window that was asked for is due, and the programs go with the agent: they must go before that window is closed, and
    /// all others with it, lest what they count after it is lost.
    fn ends_with_this_window(&self) -> bool {
        self.config.on_exit == OnExit::Detach
            && self.windows_left == Some(1)
            && self.spool_retry.is_none()
            && self.windows.is_shortest_due(self.clock.now().boot)
    }

    fn due(&mut self) -> Result<(), AgentError> {
        let now = self.clock.now().boot;
        if self.capture.next_retry().is_some_and(|at| at <= now) {
            let waiting: Vec<DeviceKey> = self.capture.waiting_devices().collect();
            self.with_capture(waiting, None, Capture::retry);
        }
        if self.sweep_at <= now {
            self.sweep_sessions();
        }
        if self.spool_retry.is_some_and(|at| at <= now) {
            self.drain(Why::Early)?;
        }
        if self.windows.next_deadline() <= now && self.spool_retry.is_none() {
            self.drain(Why::WindowDue)?;
        }
        if self.spool_retry.is_none() {
            // If the spool took nothing when it came.
            self.follow_service()?;
        }
        Ok(())
    }

    fn woken(&mut self, woken: Woken) -> Result<(), AgentError> {
        if woken.for_sessions {
            // Not at once each time: where none of many sessions is over, the next packet wakes the agent again.
            let soon = self.swept_at.saturating_add(SWEEP_PAUSE);
            self.sweep_at = self.sweep_at.min(soon);
        }
        if woken.for_flows {
            self.drain(Why::Early)?;
        }
        Ok(())
    }

    fn sweep_sessions(&mut self) {
        let monotonic = self.clock.monotonic();
        if let Err(error) = self.capture.security_mut().sweep(monotonic) {
            tracing::warn!("{error}");
            self.last_error = Some((self.clock.now().boot, error.to_string()));
        }
        self.swept_at = self.clock.now().boot;
        self.sweep_at = self.swept_at.saturating_add(SWEEP_INTERVAL);
    }

    fn device_event(&mut self, event: DeviceEvent) -> Result<(), AgentError> {
        match event {
            DeviceEvent::Appeared(device, _) | DeviceEvent::Changed(device, _) => {
                if self.ledger.is_unsettled() {
                    // It may be the next device of an ENI whose last one is not accounted for yet.
                    self.drain(Why::Early)?;
                }
                self.with_capture([device.key], None, |capture, now| {
                    capture.device(device, now);
                });
            }
            DeviceEvent::Vanished(key, counters) => {
                // Another device may take its place.
                let waiting: Vec<DeviceKey> = self.capture.waiting_devices().collect();
                self.with_capture(waiting, Some((key, counters)), |capture, now| {
                    capture.vanished(key, now);
                });
            }
            DeviceEvent::NamespaceUnavailable { name, reason } => {
                tracing::warn!(namespace = name, "cannot be watched: {reason}");
            }
            DeviceEvent::NamespaceGone { name } => tracing::info!(namespace = name, "is gone"),
        }
        Ok(())
    }
}

async fn next_scrape(scrapes: &mut Option<mpsc::Receiver<Scrape>>) -> Option<Scrape> {
    match scrapes {
        Some(scrapes) => scrapes.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_status(requests: &mut Option<Requests>) -> Option<Request> {
    match requests {
        Some(requests) => requests.recv().await,
        None => std::future::pending().await,
    }
}

async fn service_changed(management: &mut Option<Management>) {
    match management {
        Some(management) => management.changed().await,
        None => std::future::pending().await,
    }
}

/// The outcome of a compaction, if one is running; none if it has panicked.
async fn finished(compaction: &mut Option<JoinHandle<Compacted>>) -> Option<Compacted> {
    match compaction {
        Some(running) => {
            let outcome = running.await.ok();
            *compaction = None;
            outcome
        }
        None => std::future::pending().await,
    }
}
