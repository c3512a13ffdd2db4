//! The configuration as TOML has it, and the checks that concern more than one value.
use std::ops::Range;

use flowlog_model::input::{Document, InputError, Table};
use flowlog_model::security_group::session::WhenFull;
use flowlog_model::text::WholeNumber;
use serde::Deserialize;
use toml::Spanned;

use super::values::{AbsolutePath, Age, AnyPath, ListenAddr, Size, SocketPath};
use super::{
    AttachMode, CaptureConfig, Config, MetricsConfig, OnExit, Position, SecurityConfig,
    SpoolConfig, flow_logs, service,
};

/// Where pins are unless the configuration says otherwise.
const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/flowlog";

/// Where the lock is unless the configuration says otherwise.
const DEFAULT_LOCK_FILE: &str = "/run/flowlog-agent.lock";

/// Where the status is told unless the configuration says otherwise.
pub(crate) const DEFAULT_STATUS_SOCKET: &str = "/run/flowlog-agent.sock";

type FlowMapEntries = WholeNumber<64, 16_777_216>;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawConfig {
    inventory: AnyPath,
    pin_path: Option<AbsolutePath>,
    lock_file: Option<AbsolutePath>,
    status_socket: Option<SocketPath>,
    #[serde(default)]
    on_exit: OnExit,
    #[serde(default)]
    capture: Table<RawCapture>,
    #[serde(default)]
    spool: Table<RawSpool>,
    #[serde(default)]
    security: Table<RawSecurity>,
    #[serde(default)]
    metrics: Table<RawMetrics>,
    service: Option<Spanned<Table<service::RawService>>>,
    #[serde(default)]
    flow_log: Vec<Spanned<Table<flow_logs::RawFlowLog>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawCapture {
    #[serde(default)]
    attach: AttachMode,
    #[serde(default)]
    position: Position,
    clsact_priority: Option<WholeNumber<1, 65_535>>,
    flow_map_min_entries: Option<Spanned<FlowMapEntries>>,
    flow_map_max_entries: Option<Spanned<FlowMapEntries>>,
    overflow_ring_kib: Option<WholeNumber<4, 1_048_576>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawSpool {
    path: Option<AbsolutePath>,
    /// 1 MiB to 1 TiB.
    max_size: Option<Size<0x10_0000, 0x100_0000_0000>>,
    max_age: Option<Age>,
    max_flows_in_memory: Option<WholeNumber<1024, 16_777_216>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawSecurity {
    max_sessions: Option<WholeNumber<1024, 16_777_216>>,
    #[serde(default)]
    when_full: WhenFull,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawMetrics {
    listen: Option<ListenAddr>,
}

pub(super) fn parse(text: &str, file: &str) -> Result<Config, InputError> {
    let document = Document::new(text, file);
    let RawConfig {
        inventory,
        pin_path,
        lock_file,
        status_socket,
        on_exit,
        capture,
        spool,
        security,
        metrics,
        service,
        flow_log,
    } = document.parse()?;
    let service = service.map(|service| service::check(service, &document));
    Ok(Config {
        inventory: inventory.0,
        pin_path: pin_path.map_or(DEFAULT_PIN_PATH.into(), |path| path.0),
        lock_file: lock_file.map_or(DEFAULT_LOCK_FILE.into(), |path| path.0),
        status_socket: status_socket.map_or(Some(DEFAULT_STATUS_SOCKET.into()), |socket| socket.0),
        on_exit,
        capture: capture.0.check(&document)?,
        spool: spool.0.into(),
        security: security.0.into(),
        metrics: MetricsConfig {
            listen: metrics.0.listen.map(|listen| listen.0),
        },
        service: service.transpose()?,
        flow_logs: flow_logs::check(flow_log, &document)?,
    })
}

impl RawCapture {
    fn check(self, document: &Document<'_>) -> Result<CaptureConfig, InputError> {
        let default = CaptureConfig::default();
        let min = entries(self.flow_map_min_entries.as_ref())
            .unwrap_or((default.flow_map_min_entries, None));
        let max = entries(self.flow_map_max_entries.as_ref())
            .unwrap_or((default.flow_map_max_entries, None));
        if max.0 < min.0 {
            // One of them is in the file, for the defaults get on with each other.
            let error = match (max.1, min.1) {
                (Some(span), _) => document.refuse(
                    &span,
                    format_args!(
                        "allowed is no less than flow-map-min-entries, which is {}",
                        min.0
                    ),
                ),
                (None, span) => {
                    let clause = format_args!(
                        "allowed is no more than flow-map-max-entries, which is {}",
                        max.0
                    );
                    document.refuse(&span.unwrap_or_default(), clause)
                }
            };
            return Err(error);
        }
        Ok(CaptureConfig {
            attach: self.attach,
            position: self.position,
            clsact_priority: narrow(self.clsact_priority, default.clsact_priority),
            flow_map_min_entries: min.0,
            flow_map_max_entries: max.0,
            overflow_ring_kib: narrow(self.overflow_ring_kib, default.overflow_ring_kib),
        })
    }
}

impl From<RawSpool> for SpoolConfig {
    fn from(raw: RawSpool) -> Self {
        let default = Self::default();
        Self {
            path: raw.path.map_or(default.path, |path| path.0),
            max_size_bytes: raw.max_size.map_or(default.max_size_bytes, Size::bytes),
            max_age: raw.max_age.map_or(default.max_age, |age| age.0),
            max_flows_in_memory: narrow(raw.max_flows_in_memory, default.max_flows_in_memory),
        }
    }
}

impl From<RawSecurity> for SecurityConfig {
    fn from(raw: RawSecurity) -> Self {
        Self {
            max_sessions: narrow(raw.max_sessions, Self::default().max_sessions),
            when_full: raw.when_full,
        }
    }
}

fn entries(value: Option<&Spanned<FlowMapEntries>>) -> Option<(u32, Option<Range<usize>>)> {
    let value = value?;
    Some((
        u32::try_from(value.get_ref().get()).ok()?,
        Some(value.span()),
    ))
}

/// The number in the type that the configuration has for it, which is wide enough for its bounds; the default if there is none.
pub(super) fn narrow<N: TryFrom<u64>, const MIN: u64, const MAX: u64>(
    number: Option<WholeNumber<MIN, MAX>>,
    default: N,
) -> N {
    number
        .and_then(|number| N::try_from(number.get()).ok())
        .unwrap_or(default)
}
