//! Prometheus metrics, in the OpenMetrics text format.
use std::{fmt, net::SocketAddr, sync::atomic::AtomicU64};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flowlog_common::{DIRECTION_IN, DIRECTION_OUT};
use flowlog_model::record::Eni;
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
    drain::Drain,
    flows::{Flow, FlowKey},
    store::Drained,
};

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

/// All metrics of the agent.
pub struct Metrics {
    registry: Registry,
    packets: Family<EniLabels, Counter>,
    bytes: Family<EniLabels, Counter>,
    not_in_flow: Family<NotInFlowLabels, Counter>,
    map_flows: Family<FamilyLabels, Gauge>,
    map_entries: Family<FamilyLabels, Gauge>,
    program_runs: Family<ProgramLabels, Gauge>,
    program_seconds: Family<ProgramLabels, Gauge<f64, AtomicU64>>,
    drain_seconds: Histogram,
    early_drains: Counter,
    overflowed: Counter,
    windows: Counter,
    records: Family<FlowLogLabels, Counter>,
    enis_captured: Gauge,
    devices_waiting: Gauge,
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
            map_flows: Family::default(),
            map_entries: Family::default(),
            program_runs: Family::default(),
            program_seconds: Family::default(),
            // From a millisecond to half a minute.
            drain_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            early_drains: Counter::default(),
            overflowed: Counter::default(),
            windows: Counter::default(),
            records: Family::default(),
            enis_captured: Gauge::default(),
            devices_waiting: Gauge::default(),
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
            "devices_captured",
            "Devices that are captured",
            metrics.enis_captured.clone(),
        );
        r.register(
            "devices_not_captured",
            "Devices that should be captured and are not",
            metrics.devices_waiting.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// A drain was made.
    pub fn drained(&self, drain: &Drain, capture: &Capture, seconds: f64, early: bool) {
        self.drain_seconds.observe(seconds);
        if early {
            self.early_drains.inc();
        }
        self.overflowed.inc_by(drain.overflowed);
        let enis = capture.enis();
        let eni = |slot: u32| Some(enis.by_slot.get(slot as usize)?.as_ref()?.eni.as_ref());
        let Drained {
            v4,
            v6,
            enis: aside,
        } = &drain.drained;
        self.count(v4.flows(), &eni);
        self.count(v6.flows(), &eni);
        for (index, counters) in (0_u32..).zip(aside) {
            let causes = [
                ("map_full", counters.map_full),
                ("unparsable", counters.unparsable),
                ("not_ip", counters.not_ip),
            ];
            for (cause, volume) in causes.into_iter().filter(|(_, volume)| volume.packets > 0) {
                if let Some(eni) = eni(index / 2) {
                    let labels = NotInFlowLabels {
                        eni: eni.eni_id.clone(),
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

    /// Flows are sorted by ENI, so that the labels of one are looked up once for each of its directions and stretches.
    fn count<'e, K: FlowKey>(&self, flows: &[Flow<K>], eni: &impl Fn(u32) -> Option<&'e Eni>) {
        for of_eni in flows.chunk_by(|a, b| a.key.slot() == b.key.slot()) {
            let Some(eni) = of_eni.first().and_then(|flow| eni(flow.key.slot())) else {
                continue;
            };
            for number in [DIRECTION_IN, DIRECTION_OUT] {
                let (packets, bytes) = of_eni
                    .iter()
                    .filter(|flow| flow.key.direction() == number)
                    .fold((0, 0), |(packets, bytes), flow| {
                        (packets + flow.packets, bytes + flow.bytes)
                    });
                let labels = EniLabels {
                    eni: eni.eni_id.clone(),
                    direction: direction(number),
                };
                self.packets.get_or_create(&labels).inc_by(packets);
                self.bytes.get_or_create(&labels).inc_by(bytes);
            }
        }
    }

    /// A capture window was closed.
    pub fn window_closed(&self) {
        self.windows.inc();
    }

    /// Records were written.
    pub fn written(&self, flow_log: String, records: u64) {
        self.records
            .get_or_create(&FlowLogLabels { flow_log })
            .inc_by(records);
    }

    /// The text, with the gauges as they are now.
    #[must_use]
    pub fn text(&self, capture: &Capture) -> String {
        if let Ok((fill, sizes)) = capture.fill() {
            self.set_maps(fill, sizes);
        }
        let captured = capture.captured();
        self.enis_captured
            .set(i64::try_from(captured.len()).unwrap_or(i64::MAX));
        self.devices_waiting
            .set(i64::try_from(capture.waiting().count()).unwrap_or(i64::MAX));
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
                    .set(i64::try_from(stats.runs).unwrap_or(i64::MAX));
                self.program_seconds
                    .get_or_create(&labels)
                    .set(stats.time.as_secs_f64());
            }
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => String::new(),
        }
    }

    fn set_maps(&self, fill: Fill, sizes: MapSizes) {
        let families = [("ipv4", fill.v4, sizes.v4), ("ipv6", fill.v6, sizes.v6)];
        for (family, flows, entries) in families {
            let labels = FamilyLabels { family };
            self.map_flows
                .get_or_create(&labels)
                .set(i64::try_from(flows).unwrap_or(i64::MAX));
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
