//! The running agent: one loop that owns everything.
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use flowlog_model::{flow_log::Status, input::InputError, inventory::Inventory};
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use crate::{
    bpf::{
        self, BpfError, Wake,
        pins::{self, Pins},
    },
    capture::Capture,
    config::{Config, ConfigError, OnExit},
    discovery::{Device, DeviceEvent, Discovery, DiscoveryError, Settings},
    lock::{HostLock, LockError},
    metrics::{self, Metrics, Scrape},
    output::{self, OutputOptions},
    privileges::{self, PrivilegeError},
    sink::{Output, SinkEvent, Sinks},
    store::SharedDrain,
    watch::FileWatch,
    window::Now,
    windows::Windows,
};

/// Largest inventory, in bytes.
pub const MAX_INVENTORY_BYTES: u64 = 64 << 20;

/// Why the agent cannot run, or not go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InputError),
    /// The inventory cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    ReadInventory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// Devices cannot be discovered.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Privileges.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The metrics' address.
    #[error("cannot serve metrics on {listen}: {source}")]
    Metrics {
        /// The address.
        listen: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl AgentError {
    /// Whether the user can mend it in the configuration or the inventory.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Inventory(_) | Self::ReadInventory { .. }
        )
    }
}

/// What the command line says over the configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End after this many windows.
    pub windows: Option<u64>,
    /// Where and how records are written.
    pub output: OutputOptions,
}

/// The two clocks. The only place that reads them.
struct Clock {
    started: Instant,
}

impl Clock {
    fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            wall,
            monotonic: self.started.elapsed(),
        }
    }
}

/// Runs the agent until it is told to end. To be called on a current-thread runtime, before there are other threads.
///
/// # Errors
///
/// [`AgentError`]; nothing stays attached then.
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
    let result = run_locked(config_path, config, inventory, (&pin_folder, left), options).await;
    if on_exit == OnExit::Detach {
        pins::remove(&pin_folder);
    }
    drop(lock);
    result
}

async fn run_locked(
    config_path: &Path,
    config: Config,
    inventory: Inventory,
    pins: (&Path, Pins),
    options: &RunOptions,
) -> Result<(), AgentError> {
    let mut agent = Agent::start(config_path, config, inventory, pins, options).await?;
    let result = agent.run_until_end().await;
    let closed = agent.close_last_window();
    match agent.config.on_exit {
        OnExit::Detach => agent.capture.release_all(agent.clock.now().monotonic),
        OnExit::Stay => agent.capture.leave_all(),
    }
    agent.sinks.close();
    result.and(closed)
}

struct Agent {
    config_path: PathBuf,
    config: Config,
    options: RunOptions,
    outputs: Vec<Arc<Output>>,
    clock: Clock,
    capture: Capture,
    discovery: Discovery,
    inventory_watch: FileWatch,
    wake: Wake,
    windows: Windows,
    windows_left: Option<u64>,
    /// What a previous agent has left is looked for once, after the devices have been told of.
    leftovers_looked_for: bool,
    sinks: Sinks,
    sink_events: mpsc::UnboundedReceiver<SinkEvent>,
    metrics: Metrics,
    scrapes: Option<mpsc::Receiver<Scrape>>,
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
    HalfFull,
    WindowDue,
    RetryDue,
    InventoryChanged,
    Reload,
    Sink(SinkEvent),
    Scrape(Scrape),
    End(&'static str),
}

impl Agent {
    async fn start(
        config_path: &Path,
        config: Config,
        inventory: Inventory,
        (pin_folder, left): (&Path, Pins),
        options: &RunOptions,
    ) -> Result<Self, AgentError> {
        let system = |what| move |source| AgentError::System { what, source };
        let signals = Signals::new().map_err(system("handle signals"))?;
        let namespaces: BTreeSet<String> = inventory
            .namespaces()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let settings = Settings {
            namespaces,
            ..Settings::default()
        };
        let capture = Capture::new(
            pin_folder.to_owned(),
            left,
            settings.namespace_folder.clone(),
            &config.capture,
            inventory,
        )?;
        let scrapes = match config.metrics.listen {
            Some(listen) => Some(
                metrics::serve(listen)
                    .await
                    .map_err(|source| AgentError::Metrics { listen, source })?,
            ),
            None => None,
        };
        privileges::keep_only(&privileges::needed(!settings.namespaces.is_empty()))?;
        let (events, sink_events) = mpsc::unbounded_channel();
        let outputs = output::outputs(&config.flow_logs, &options.output);
        let clock = Clock {
            started: Instant::now(),
        };
        let windows = Windows::new(
            &outputs,
            config.capture.max_flows_per_window as usize,
            clock.now(),
        );
        Ok(Self {
            inventory_watch: FileWatch::new(&config.inventory)
                .map_err(system("watch the inventory"))?,
            config_path: config_path.to_owned(),
            wake: Wake::open(pin_folder)?,
            discovery: Discovery::start(settings)?,
            sinks: Sinks::new(events),
            options: options.clone(),
            windows_left: options.windows,
            leftovers_looked_for: false,
            metrics: Metrics::new(),
            config,
            outputs,
            clock,
            capture,
            windows,
            sink_events,
            scrapes,
            signals,
        })
    }

    async fn run_until_end(&mut self) -> Result<(), AgentError> {
        loop {
            match self.next_event().await {
                Event::Device(event) => self.device_event(event),
                Event::HalfFull => self.drain(false)?,
                Event::WindowDue => self.drain(true)?,
                Event::RetryDue => self.capture.retry(self.clock.now().monotonic),
                Event::InventoryChanged => self.reload_inventory(),
                Event::Reload => self.reload()?,
                Event::Sink(SinkEvent::Written { flow_log, records }) => {
                    self.metrics.written(flow_log, records);
                }
                Event::Sink(SinkEvent::StdoutClosed) => {
                    tracing::info!("nobody reads standard output any more");
                    return Ok(());
                }
                // Whoever asked may have gone; that is no concern of ours.
                Event::Scrape(reply) => drop(reply.send(self.metrics.text(&self.capture))),
                Event::End(why) => {
                    tracing::info!("{why}: closing the open window");
                    return Ok(());
                }
            }
            if self.windows_left == Some(0) {
                return Ok(());
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let now = self.clock.now().monotonic;
        let window_due = self.windows.next_deadline().saturating_sub(now);
        let retry_due = self.capture.next_retry().map(|at| at.saturating_sub(now));
        // In no fixed order: under a flood of new flows there is always something to drain, and that must not keep the rest waiting.
        // In no fixed order: under a flood of new flows there is always something to drain, and that must not keep the rest waiting.
        tokio::select! {
            _ = self.signals.terminate.recv() => Event::End("SIGTERM"),
            _ = self.signals.interrupt.recv() => Event::End("interrupted"),
            () = sleep(window_due) => Event::WindowDue,
            () = self.wake.wait() => Event::HalfFull,
            event = self.discovery.next() => Event::Device(event),
            () = sleep(retry_due.unwrap_or_default()), if retry_due.is_some() => Event::RetryDue,
            _ = self.signals.hangup.recv() => Event::Reload,
            () = self.inventory_watch.changed() => Event::InventoryChanged,
            Some(event) = self.sink_events.recv() => Event::Sink(event),
            Some(scrape) = next_scrape(&mut self.scrapes) => Event::Scrape(scrape),
        }
    }

    fn device_event(&mut self, event: DeviceEvent) {
        let now = self.clock.now().monotonic;
        match event {
            DeviceEvent::Appeared(device) | DeviceEvent::Changed(device) => {
                self.capture.device(device, now);
            }
            DeviceEvent::Vanished(key) => self.capture.vanished(key, now),
            DeviceEvent::NamespaceUnavailable { name, reason } => {
                tracing::warn!(namespace = name, "cannot be watched: {reason}");
            }
            DeviceEvent::NamespaceGone { name } => tracing::info!(namespace = name, "is gone"),
        }
    }

    /// Drains the kernel into the open windows.
    fn drain_kernel(&mut self, closing: bool) -> Result<(), AgentError> {
        let began = self.clock.now();
        let drain = self.capture.drainer().drain(closing)?;
        self.metrics.drained(
            &drain,
            &self.capture,
            (self.clock.now().monotonic - began.monotonic).as_secs_f64(),
            !closing,
        );
        self.windows.add(&SharedDrain::from(drain.drained));
        if !std::mem::replace(&mut self.leftovers_looked_for, true) {
            self.capture
                .remove_leftovers(self.discovery.devices().cloned());
        }
        Ok(())
    }

    /// Drains the kernel into the open windows, and closes those whose time has come.
    fn drain(&mut self, closing: bool) -> Result<(), AgentError> {
        self.drain_kernel(closing)?;
        if closing {
            for (closed, is_longest) in self
                .windows
                .close_due(self.clock.now(), &self.capture.enis())
            {
                self.deliver(&Arc::new(closed));
                if is_longest {
                    self.capture.all_windows_closed();
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, closed: &Arc<crate::windows::Closed>) {
        self.metrics.window_closed();
        for output in &self.outputs {
            let wanted = output.flow_log.window.seconds() == closed.length_seconds;
            if wanted
                && output.flow_log.status == Status::Active
                && let Err(error) = self.sinks.write(output, &closed.window)
            {
                tracing::error!(flow_log = output.flow_log.name.as_str(), %error, "cannot start its sink");
            }
        }
        if closed.length_seconds == self.windows.shortest_seconds() {
            self.windows_left = self.windows_left.map(|left| left.saturating_sub(1));
        }
    }

    fn close_last_window(&mut self) -> Result<(), AgentError> {
        if self.windows_left == Some(0) {
            return Ok(());
        }
        self.close_open_windows()
    }

    /// Closes all windows before their time. Others follow at once.
    fn close_open_windows(&mut self) -> Result<(), AgentError> {
        self.drain_kernel(true)?;
        for closed in self
            .windows
            .close_all(self.clock.now(), &self.capture.enis())
        {
            self.deliver(&Arc::new(closed));
        }
        self.capture.all_windows_closed();
        Ok(())
    }

    fn reload_inventory(&mut self) {
        match load_inventory(&self.config.inventory) {
            Ok(inventory) => {
                tracing::info!("the inventory has changed");
                self.discovery.set_namespaces(
                    inventory
                        .namespaces()
                        .into_iter()
                        .map(str::to_owned)
                        .collect(),
                );
                let devices: Vec<Device> = self.discovery.devices().cloned().collect();
                self.capture
                    .set_inventory(inventory, devices, self.clock.now().monotonic);
            }
            Err(error) => tracing::error!("{error}; the inventory stays as it was"),
        }
    }

    fn reload(&mut self) -> Result<(), AgentError> {
        self.reload_inventory();
        match Config::load(&self.config_path) {
            Ok(config) => {
                let restart_needed = Config {
                    flow_logs: self.config.flow_logs.clone(),
                    ..config.clone()
                } != self.config;
                if restart_needed {
                    tracing::warn!(
                        "of the configuration, only the flow logs are taken over; the rest takes a restart"
                    );
                }
                if config.flow_logs != self.config.flow_logs {
                    // What was captured until now is for the flow logs that there were, and not for those that come.
                    self.close_open_windows()?;
                }
                self.config.flow_logs = config.flow_logs;
                self.outputs = output::outputs(&self.config.flow_logs, &self.options.output);
                self.windows.set_lengths(&self.outputs, self.clock.now());
                tracing::info!("following {} flow logs", self.outputs.len());
            }
            Err(error) => tracing::error!("{error}; the configuration stays as it was"),
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

/// Reads the inventory.
///
/// # Errors
///
/// If it cannot be read, is too large or says what is not allowed.
pub fn load_inventory(path: &Path) -> Result<Inventory, AgentError> {
    let read_error = |source| AgentError::ReadInventory {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(read_error)?.len();
    if length > MAX_INVENTORY_BYTES {
        return Err(read_error(io::Error::other(format!(
            "it is larger than {MAX_INVENTORY_BYTES} bytes"
        ))));
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    Ok(Inventory::parse(&text, &path.display().to_string())?)
}
