//! The configuration: one TOML file, of which `agent.toml` in the root of the repository is a commented sample.
//!
//! | key | default | allowed |
//! |---|---|---|
//! | `inventory` | required | a path; if relative, to the configuration's folder |
//! | `pin-path` | `/sys/fs/bpf/flowlog` | an absolute path, on a BPF file system |
//! | `lock-file` | `/run/flowlog-agent.lock` | an absolute path |
//! | `status-socket` | `/run/flowlog-agent.sock` | an absolute path of at most 107 bytes, or `off` |
//! | `on-exit` | `detach` | `detach`, `stay` |
//! | `capture.attach` | `auto` | `auto`, `tcx`, `clsact` |
//! | `capture.position` | `first` | `first`, `last` |
//! | `capture.clsact-priority` | 1 | 1 to 65535 |
//! | `capture.flow-map-min-entries` | 65536 | 64 to 16777216 |
//! | `capture.flow-map-max-entries` | 1048576 | the least to 16777216 |
//! | `capture.overflow-ring-kib` | 4096 | 4 to 1048576, rounded up to a power of two |
//! | `spool.path` | `/var/lib/flowlog-agent/spool` | an absolute path |
//! | `spool.max-size` | `1GiB` | `1MiB` to `1024GiB` |
//! | `spool.max-age` | `7d` | `1m` to `365d`: minutes (`m`), hours (`h`) or days (`d`) |
//! | `spool.max-flows-in-memory` | 262144 | 1024 to 16777216 |
//! | `security.max-sessions` | 262144 | 1024 to 16777216 |
//! | `security.when-full` | `accept` | `accept`, `reject` |
//! | `metrics.listen` | off | address and port |
//! | `service` | none | [`ServiceConfig`] |
//! | `flow-log` | none | up to 100 of [`FlowLogConfig`] |
//!
//! Paths that the agent writes to are absolute, so that none depends on the folder in which it was started.
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowlog_client::ServiceUrl;
use flowlog_common::MAX_SESSIONS;
use flowlog_model::flow_log::FlowLog;
use flowlog_model::format::Format;
use flowlog_model::input::InputError;
use flowlog_model::managed::{Logstore, Project};
use flowlog_model::security_group::session::WhenFull;
use flowlog_model::spelled_enum;

mod flow_logs;
mod raw;
mod service;
mod values;

pub(crate) use raw::DEFAULT_STATUS_SOCKET;
pub use service::{ManagedDestination, ServiceConfig};

/// Most flow logs that a configuration can have.
pub const MAX_FLOW_LOGS: usize = 100;

/// Largest configuration, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The inventory's file. [`Config::load`] makes it relative to the configuration's folder.
    pub inventory: PathBuf,
    /// Folder of a BPF file system in which maps and links are pinned.
    pub pin_path: PathBuf,
    /// The file whose lock says that an agent runs on this host.
    pub lock_file: PathBuf,
    /// The Unix socket on which the running agent tells its status; none if it tells nobody.
    pub status_socket: Option<PathBuf>,
    /// What becomes of programs and maps when the agent ends.
    pub on_exit: OnExit,
    /// How packets are counted.
    pub capture: CaptureConfig,
    /// Where windows are kept until every flow log has them.
    pub spool: SpoolConfig,
    /// How the security groups are judged in the kernel.
    pub security: SecurityConfig,
    /// Where metrics are served.
    pub metrics: MetricsConfig,
    /// The service that manages further flow logs; none if there are those of the file alone.
    pub service: Option<ServiceConfig>,
    /// The flow logs, in the order of the file, also those that are Inactive.
    pub flow_logs: Vec<FlowLogConfig>,
}

/// How packets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// How programs are attached.
    pub attach: AttachMode,
    /// Where in the TCX chain they stand.
    pub position: Position,
    /// Priority of the clsact filters, from 1 (before all others).
    pub clsact_priority: u16,
    /// Entries that each flow map (IPv4, IPv6) has at least.
    pub flow_map_min_entries: u32,
    /// Entries to which each flow map grows with the traffic; not less than the least.
    pub flow_map_max_entries: u32,
    /// Size of the ring in which packets wait that had no room in a flow map, in KiB.
    pub overflow_ring_kib: u32,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            attach: AttachMode::Auto,
            position: Position::First,
            clsact_priority: 1,
            flow_map_min_entries: 65_536,
            flow_map_max_entries: 1_048_576,
            overflow_ring_kib: 4096,
        }
    }
}

/// Where windows are kept until every flow log has them. What exceeds a limit is given up, oldest first, and told of in SKIPDATA records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Its folder; absolute.
    pub path: PathBuf,
    /// Size of all its files, in bytes.
    pub max_size_bytes: u64,
    /// How long a window is kept for a flow log that does not take it.
    pub max_age: Duration,
    /// Flows of a drain that are held in memory at once; it is written to the spool in parts of this size.
    pub max_flows_in_memory: u32,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            path: "/var/lib/flowlog-agent/spool".into(),
            max_size_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_flows_in_memory: 262_144,
        }
    }
}

/// How the security groups are judged in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Sessions of all ENIs together that are known at a time.
    pub max_sessions: u32,
    /// What becomes of a packet that the rules accept when there is no room for its session.
    pub when_full: WhenFull,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            max_sessions: MAX_SESSIONS,
            when_full: WhenFull::Accept,
        }
    }
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Address and port; none for no metrics.
    pub listen: Option<SocketAddr>,
}

spelled_enum! {
    /// What becomes of programs and maps when the agent ends.
    #[derive(Default)]
    pub enum OnExit {
        /// Nothing of the agent is left on any interface.
        #[default]
        Detach = "detach",
        /// They stay and go on counting, for the next agent to take over.
        Stay = "stay",
    }
}

spelled_enum! {
    /// How programs are attached.
    #[derive(Default)]
    pub enum AttachMode {
        /// TCX where the kernel has it (6.6 and later), clsact below.
        #[default]
        Auto = "auto",
        /// TCX, or not at all.
        Tcx = "tcx",
        /// clsact, also where the kernel has TCX.
        Clsact = "clsact",
    }
}

spelled_enum! {
    /// Where in the TCX chain a program stands.
    #[derive(Default)]
    pub enum Position {
        /// Before all that are there: it sees what later ones drop.
        #[default]
        First = "first",
        /// After all that are there: it sees what they let through.
        Last = "last",
    }
}

/// One flow log: what it captures, how its records look and where they go.
///
/// | key | default | allowed |
/// |---|---|---|
/// | `name` | required, unique | see [`flowlog_model::flow_log`] |
/// | `resource-type`, `resource-id` | required | `NetworkInterface`, `VSwitch`, `VPC`, and an id |
/// | `traffic-type` | `All` | `All`, `Allow`, `Drop` |
/// | `window` | `10m` | `1m`, `5m`, `10m` |
/// | `status` | `Active` | `Active`, `Inactive` |
/// | `description` | none | see [`flowlog_model::flow_log`] |
/// | `format` | `text` | `json`, `text` |
/// | `template` | none | with `format = "text"` and without `fields`; see [`flowlog_model::template`] |
/// | `fields` | none | extended fields, after the default ones |
/// | `destination.type` | required | `stdout`, `file`, `folder`, `log-service` |
/// | `destination.path` | required of a file and a folder | an absolute path that no other flow log writes to |
/// | `destination.max-size` | `100MiB` | of a file: `1KiB` to `1TiB` |
/// | `destination.max-files` | 10 of a file, 10000 of a folder | 2 to 1000 of a file, 2 to 1000000 of a folder |
/// | `destination.endpoint` | required of a Log Service | `http` or `https`, a host and perhaps a port; without the project |
/// | `destination.project`, `destination.logstore` | required of a Log Service | names |
/// | `destination.access-key-file` | required of a Log Service | an absolute path |
/// | `destination.ca-file` | what the system trusts | of a Log Service: an absolute path |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLogConfig {
    /// What is captured.
    pub flow_log: FlowLog,
    /// How a record becomes a line.
    pub format: Format,
    /// Where the lines go.
    pub destination: Destination,
}

/// Where the lines of a flow log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The agent's standard output, which flow logs can share.
    Stdout,
    /// A file that is rotated by size.
    File {
        /// The file that is written to; absolute.
        path: PathBuf,
        /// Size in bytes at which the file is rotated.
        max_size_bytes: u64,
        /// Files that are kept in all, with the one that is written to.
        max_files: u16,
    },
    /// A folder with a file for each window.
    Folder {
        /// The folder; absolute.
        path: PathBuf,
        /// Files of windows that are kept; the oldest go.
        max_files: u32,
    },
    /// A logstore. What is put there are records with the fields of a line, not lines.
    LogService(LogstoreDestination),
}

/// A logstore of a Log Service, ours or the product's, which flow logs can share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogstoreDestination {
    /// Where the Log Service is.
    pub endpoint: ServiceUrl,
    /// The project.
    pub project: Project,
    /// The logstore in it.
    pub logstore: Logstore,
    /// The file with the access key that signs puts.
    pub access_key_file: PathBuf,
    /// The authorities to be trusted, in PEM; none for those that the system trusts.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File { path, .. } | Self::Folder { path, .. } => path.display().fmt(f),
            Self::LogService(LogstoreDestination {
                endpoint,
                project,
                logstore,
                ..
            }) => write!(f, "{project}/{logstore} at {endpoint}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the file says is not allowed.
    #[error(transparent)]
    Input(#[from] InputError),
}

impl Config {
    /// Reads a configuration; `file` is only for errors.
    ///
    /// # Errors
    /// [`InputError`] for something that is not allowed.
    pub fn parse(text: &str, file: &str) -> Result<Self, InputError> {
        raw::parse(text, file)
    }

    /// Reads the configuration in the file `path`, which may have [`MAX_CONFIG_BYTES`] at most.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read or is not allowed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let text = read_bounded(path).map_err(read_error)?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        if let Some(folder) = path.parent() {
            config.inventory = folder.join(&config.inventory);
            if let Some(service) = &mut config.service {
                service.read_from(folder);
            }
        }
        Ok(config)
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(MAX_CONFIG_BYTES + 1)
        .read_to_string(&mut text)?;
    if length as u64 > MAX_CONFIG_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
