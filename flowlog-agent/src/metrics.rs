//! Prometheus metrics, in the OpenMetrics text format.
mod standing;

use std::{fmt, net::SocketAddr, sync::atomic::AtomicU64};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flowlog_common::DIRECTION_OUT;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::{
    bpf::{Fill, MapSizes},
    capture::Capture,
    drain::{Drain, Drainer},
    sink::Written,
    slots::EniTable,
    status::{Conservation, Loss, SecurityStatus, ServiceStatus, SinkStatus, SpoolStatus},
};
use standing::StandingMetrics;

/// A request for the current text.
pub type Scrape = oneshot::Sender<String>;

/// Scrapes that may wait at once.
const MAX_WAITING_SCRAPES: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EniLabels {
    eni: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotInFlowLabels {
    eni: String,
    direction: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProgramLabels {
    eni: String,
    program: &'static str,
    hook: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabels {
    family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLogLabels {
    flow_log: String,
}

impl FlowLogLabels {
    fn new(flow_log: &str) -> Self {
        Self {
            flow_log: flow_log.to_owned(),
        }
    }
}

/// What the gauges tell: how the agent stands now. Parts of it are those of the status.
pub struct Standing<'a> {
    /// The captured devices.
    pub capture: &'a Capture,
    /// The kernel's maps.
    pub drainer: &'a Drainer,
    /// What waits on disk.
    pub spool: &'a SpoolStatus,
    /// How far each flow log has come.
    pub sinks: &'a [SinkStatus],
    /// How the agent stands with the service that manages flow logs.
    pub service: Option<&'a ServiceStatus>,
    /// What is in no record, by cause, since the spool was made.
    pub losses: &'a [Loss],
    /// What judges packets.
    pub security: &'a SecurityStatus,
}

/// All metrics of the agent.
pub struct Metrics {
    registry: Registry,
    packets: Family<EniLabels, Counter>,
    bytes: Family<EniLabels, Counter>,
    not_in_flow: Family<NotInFlowLabels, Counter>,
    without_session: Family<EniLabels, Counter>,
    unmatched_drops: Family<EniLabels, Counter>,
    map_flows: Family<FamilyLabels, Gauge>,
    map_entries: Family<FamilyLabels, Gauge>,
    program_runs: Family<ProgramLabels, Gauge>,
    program_seconds: Family<ProgramLabels, Gauge<f64, AtomicU64>>,
    drain_seconds: Histogram,
    commit_seconds: Histogram,
    early_drains: Counter,
    overflowed: Counter,
    windows: Counter,
    records: Family<FlowLogLabels, Counter>,
    dropped_late: Family<FlowLogLabels, Counter>,
    enis_captured: Gauge,
    devices_waiting: Gauge,
    standing: StandingMetrics,
}

impl Metrics {
    /// All at 0.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("flowlog_agent");
        let metrics = Self {
            packets: Family::default(),
            bytes: Family::default(),
            not_in_flow: Family::default(),
            without_session: Family::default(),
            unmatched_drops: Family::default(),
            map_flows: Family::default(),
            map_entries: Family::default(),
            program_runs: Family::default(),
            program_seconds: Family::default(),
            drain_seconds: durations(),
            commit_seconds: durations(),
            early_drains: Counter::default(),
            overflowed: Counter::default(),
            windows: Counter::default(),
            records: Family::default(),
            dropped_late: Family::default(),
            enis_captured: Gauge::default(),
            devices_waiting: Gauge::default(),
            standing: StandingMetrics::default(),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register(
            "packets",
            "Packets counted in flows, as on the wire",
            metrics.packets.clone(),
        );
        r.register_with_unit(
            "ip",
            "Octets of IP datagrams counted in flows",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        r.register(
            "packets_not_in_flow",
            "Packets that are in no flow, by cause: map_full and unparsable become SKIPDATA; not_ip is not part of a flow log",
            metrics.not_in_flow.clone(),
        );
        r.register(
            "packets_without_session",
            "Packets for whose session there was no room",
            metrics.without_session.clone(),
        );
        r.register(
            "packets_dropped_unmatched",
            "Packets that netfilter dropped and whose flow could not be told",
            metrics.unmatched_drops.clone(),
        );
        r.register(
            "flow_map_flows",
            "Flows in the kernel's active flow map",
            metrics.map_flows.clone(),
        );
        r.register(
            "flow_map_entries",
            "Size of the kernel's active flow map, in entries",
            metrics.map_entries.clone(),
        );
        r.register(
            "program_runs",
            "Runs of a BPF program since it was attached; 0 unless kernel.bpf_stats_enabled",
            metrics.program_runs.clone(),
        );
        r.register_with_unit(
            "program_run_time",
            "Time spent in a BPF program since it was attached; 0 unless kernel.bpf_stats_enabled",
            Unit::Seconds,
            metrics.program_seconds.clone(),
        );
        r.register_with_unit(
            "drain",
            "Time that a drain took, from flip to clean",
            Unit::Seconds,
            metrics.drain_seconds.clone(),
        );
        r.register_with_unit(
            "commit",
            "Time of a drain in which what was read was committed to the spool, with waiting for the disk",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register(
            "early_drains",
            "Drains because a flow map was half full",
            metrics.early_drains.clone(),
        );
        r.register(
            "packets_overflowed",
            "Packets that had no room in a flow map and came to their flows by the overflow ring",
            metrics.overflowed.clone(),
        );
        r.register("windows", "Capture windows closed", metrics.windows.clone());
        r.register(
            "records",
            "Records written, by flow log",
            metrics.records.clone(),
        );
        r.register(
            "packets_dropped_late",
            "Packets that netfilter dropped when the window in which they were counted was closed: they are ACCEPT in it, by flow log",
            metrics.dropped_late.clone(),
        );
        r.register(
            "devices_captured",
            "Devices that are captured",
            metrics.enis_captured.clone(),
        );
        r.register(
            "devices_not_captured",
            "Devices that should be captured and are not",
            metrics.devices_waiting.clone(),
        );
        metrics.standing.register(r);
        Self {
            registry,
            ..metrics
        }
    }

    /// A drain was made.
    pub fn drained(&self, drain: &Drain, enis: &EniTable, seconds: f64, early: bool) {
        self.drain_seconds.observe(seconds);
        self.commit_seconds.observe(drain.commit_time.as_secs_f64());
        if early {
            self.early_drains.inc();
        }
        self.overflowed.inc_by(drain.overflowed);
        let eni_id = |slot: u32| Some(enis.get(slot as usize)?.as_ref()?.eni.eni_id.clone());
        for (slot, volumes) in &drain.committed.volumes {
            let Some(eni) = eni_id(*slot) else { continue };
            for (direction, volume) in [("in", volumes.r#in), ("out", volumes.out)] {
                let labels = EniLabels {
                    eni: eni.clone(),
                    direction,
                };
                self.packets.get_or_create(&labels).inc_by(volume.packets);
                self.bytes.get_or_create(&labels).inc_by(volume.bytes);
            }
        }
        for (index, counters) in (0_u32..).zip(&drain.aside) {
            for (family, packets) in [
                (&self.without_session, counters.without_session),
                (&self.unmatched_drops, counters.unmatched_drops),
            ] {
                if packets > 0
                    && let Some(eni) = eni_id(index / 2)
                {
                    let direction = direction((index % 2) as u8);
                    let labels = EniLabels { eni, direction };
                    family.get_or_create(&labels).inc_by(packets);
                }
            }
            let causes = [
                ("map_full", counters.map_full),
                ("unparsable", counters.unparsable),
                ("not_ip", counters.not_ip),
            ];
            for (cause, volume) in causes.into_iter().filter(|(_, volume)| volume.packets > 0) {
                if let Some(eni) = eni_id(index / 2) {
                    let labels = NotInFlowLabels {
                        eni,
                        direction: direction((index % 2) as u8),
                        cause,
                    };
                    self.not_in_flow
                        .get_or_create(&labels)
                        .inc_by(volume.packets);
                }
            }
        }
    }

    /// A capture window was closed.
    pub fn window_closed(&self) {
        self.windows.inc();
    }

    /// A flow log has a window, of which so much was written.
    pub(crate) fn delivered(&self, flow_log: &str, written: &Written) {
        let labels = FlowLogLabels::new(flow_log);
        self.records.get_or_create(&labels).inc_by(written.records);
        self.dropped_late
            .get_or_create(&labels)
            .inc_by(written.dropped_late);
        self.standing.delivered(&labels);
    }

    /// An attempt to deliver a window to a flow log has failed.
    pub fn delivery_failed(&self, flow_log: &str) {
        self.standing.delivery_failed(&FlowLogLabels::new(flow_log));
    }

    /// A flow log is followed no more, and nothing of it waits: nothing of it is shown on.
    pub fn forget_flow_log(&self, flow_log: &str) {
        let labels = FlowLogLabels::new(flow_log);
        self.records.remove(&labels);
        self.standing.forget_flow_log(&labels);
    }

    /// The devices were read at a drain: whether what was counted adds up.
    pub fn accounted(&self, conservation: &[Conservation]) {
        self.standing.set_conservation(conservation);
    }

    /// The text, with the gauges as they are now.
    #[must_use]
    pub fn text(&self, standing: &Standing<'_>) -> String {
        if let Ok((fill, sizes)) = standing.drainer.fill() {
            self.set_maps(fill, sizes);
        }
        self.set_devices(standing.capture);
        self.standing.set_spool(standing.spool);
        self.standing.set_sinks(standing.sinks);
        self.standing.set_service(standing.service);
        self.standing.set_losses(standing.losses);
        self.standing.set_security(standing.security);
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => String::new(),
        }
    }

    fn set_devices(&self, capture: &Capture) {
        let captured = capture.captured();
        self.enis_captured.set(shown(captured.len() as u64));
        self.devices_waiting
            .set(shown(capture.waiting().count() as u64));
        // Programs that are gone must not be shown on.
        self.program_runs.clear();
        self.program_seconds.clear();
        for device in captured {
            for ((program, hook), stats) in ["ingress", "egress"]
                .into_iter()
                .zip(device.hooks)
                .zip(device.run_stats)
            {
                let labels = ProgramLabels {
                    eni: device.eni_id.clone(),
                    program,
                    hook: hook.as_str(),
                };
                self.program_runs
                    .get_or_create(&labels)
                    .set(shown(stats.runs));
                self.program_seconds
                    .get_or_create(&labels)
                    .set(stats.time.as_secs_f64());
            }
        }
    }

    fn set_maps(&self, fill: Fill, sizes: MapSizes) {
        let families = [("ipv4", fill.v4, sizes.v4), ("ipv6", fill.v6, sizes.v6)];
        for (family, flows, entries) in families {
            let labels = FamilyLabels { family };
            self.map_flows.get_or_create(&labels).set(shown(flows));
            self.map_entries
                .get_or_create(&labels)
                .set(i64::from(entries));
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From a millisecond to half a minute.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// What a gauge can show of a number.
fn shown(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn direction(direction: u8) -> &'static str {
    if direction == DIRECTION_OUT {
        "out"
    } else {
        "in"
    }
}

/// Serves `/metrics`. Each scrape is answered by whoever receives from the channel.
///
/// # Errors
///
/// If the address cannot be listened on.
pub async fn serve(listen: SocketAddr) -> std::io::Result<mpsc::Receiver<Scrape>> {
    let listener = TcpListener::bind(listen).await?;
    let (sender, receiver) = mpsc::channel(MAX_WAITING_SCRAPES);
    let app = Router::new()
        .route("/metrics", get(scrape))
        .with_state(sender);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(receiver)
}

async fn scrape(State(scrapes): State<mpsc::Sender<Scrape>>) -> Response {
    let (reply, text) = oneshot::channel();
    if scrapes.try_send(reply).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match text.await {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
