//! Prometheus metrics of the service.
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rusqlite::Transaction;

use super::App;
use crate::serve::error::ApiError;
use crate::serve::service::presence::{IS_PRESENT, away_before};

/// Upper bounds of the durations' buckets, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 60.0];

/// Both labels have few values: actions and codes that there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    action: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    status: String,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Histogram,
    flow_logs: Family<ByStatus, Gauge>,
    enis: Gauge,
    agents: Gauge,
    agents_present: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("flowlog_service");
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Histogram::new(BUCKETS),
            flow_logs: Family::default(),
            enis: Gauge::default(),
            agents: Gauge::default(),
            agents_present: Gauge::default(),
        };
        let requests = metrics.requests.clone();
        registry.register("requests", "Requests that were answered", requests);
        registry.register(
            "request_duration_seconds",
            "How long answers took",
            metrics.durations.clone(),
        );
        let flow_logs = metrics.flow_logs.clone();
        registry.register("flow_logs", "Flow logs by status", flow_logs);
        registry.register(
            "enis",
            "ENIs that agents have reported",
            metrics.enis.clone(),
        );
        registry.register(
            "agents",
            "Agents that have reported",
            metrics.agents.clone(),
        );
        registry.register(
            "agents_present",
            "Agents that were heard of lately",
            metrics.agents_present.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Counts a request.
    pub(super) fn request(&self, action: &'static str, code: &'static str, took: Duration) {
        self.requests.get_or_create(&Request { action, code }).inc();
        self.durations.observe(took.as_secs_f64());
    }
}

/// What the state tells when it is asked: flow logs by status, ENIs, agents, agents that are present.
type Counts = (Vec<(String, i64)>, [i64; 3]);

fn counts(state: &Transaction<'_>, away_before: i64) -> Result<Counts, ApiError> {
    let mut statement =
        state.prepare_cached("SELECT status, count(*) FROM flow_log GROUP BY status")?;
    let flow_logs = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let others = state.query_row(
        &format!(
            "SELECT (SELECT count(*) FROM eni), count(*), count(*) FILTER (WHERE {IS_PRESENT}) FROM agent"
        ),
        [away_before],
        |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
    )?;
    Ok((flow_logs, others))
}

/// Answers `/metrics`.
pub(super) async fn answer(State(app): State<Arc<App>>) -> Response {
    let away_before = away_before((app.uptime)(), &app.config);
    let counted = app
        .store
        .read(move |state| counts(state, away_before))
        .await;
    let (flow_logs, [enis, agents, present]) = match counted {
        Ok(counted) => counted,
        Err(error) => return error.into_response(),
    };
    let metrics = &app.metrics;
    metrics.flow_logs.clear();
    for (status, count) in flow_logs {
        metrics
            .flow_logs
            .get_or_create(&ByStatus { status })
            .set(count);
    }
    metrics.enis.set(enis);
    metrics.agents.set(agents);
    metrics.agents_present.set(present);
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &metrics.registry) {
        return ApiError::internal(error).into_response();
    }
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, TYPE)], text).into_response()
}
