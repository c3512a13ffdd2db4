//! Flow logs that the service manages, beside those of the configuration.
//!
//! | file | what it does |
//! |---|---|
//! | `link` | asks the service for the desired state, and tells it how the agent stands; tasks of their own |
//! | `flow_logs` | what the agent is to do for a desired state |
//! | `host` | how the service knows this host |
//!
//! The loop owns all but the tasks. A desired state comes to it whole, through a slot of one, in which a newer state takes the place of
//! one that was not followed yet; reports go the other way in the same manner. So neither side waits for the other.
mod flow_logs;
mod host;
mod link;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use flowlog_client::{AccessKey, Client, ClientError, KeyFileError};
use flowlog_model::{
    managed::DeliverStatus,
    protocol::{
        self, DesiredState, EniReport, FlowLogReport, MAX_ENIS, MAX_MESSAGE_CHARS, Report, Version,
    },
    record::Eni,
};
use thiserror::Error;

use crate::{
    config::{FlowLogConfig, ServiceConfig},
    window::Now,
};
pub(crate) use link::Standing;
use link::{Link, Shared};

/// Between two looks at whether all devices have been told of, so that the first report can be made.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Why the agent cannot follow a service.
#[derive(Debug, Error)]
pub enum ManagementError {
    /// The access key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Whom to trust.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A clock: what time it is now.
pub(crate) type ReadClock = Arc<dyn Fn() -> Now + Send + Sync>;

/// The loop's side of the management.
pub(crate) struct Management {
    config: ServiceConfig,
    host_id: String,
    link: Link,
    /// The state that the agent works by.
    followed: DesiredState,
    /// What of it the agent cannot do, by flow log.
    refused: BTreeMap<String, String>,
    /// The state to be followed next.
    wanted: Option<DesiredState>,
    /// Whether there is something new to report.
    report_is_due: bool,
    /// When it is to be looked again whether a report can be made, as a boot time.
    look_again: Option<Duration>,
}

/// What the agent is to do for a desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Managed {
    /// Its flow logs, those that do not capture now included.
    pub(crate) flow_logs: Vec<FlowLogConfig>,
    /// What of it cannot be done, and why, by flow log.
    pub(crate) refused: BTreeMap<String, String>,
}

/// A client of the service, with the access key as it is in its file now.
///
/// # Errors
///
/// [`ManagementError`] if there is no access key, or nobody to trust.
pub(crate) fn client(config: &ServiceConfig) -> Result<Client, ManagementError> {
    let key = AccessKey::load(&config.access_key_file)?;
    Ok(Client::new(
        config.url.clone(),
        key,
        config.ca_file.as_deref(),
    )?)
}

impl Management {
    /// Begins to follow the service; until it answers, the state that it gave last. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ManagementError`] if there is no access key, or nobody to trust.
    pub(crate) fn start(
        config: ServiceConfig,
        last: Option<DesiredState>,
        now: ReadClock,
    ) -> Result<Self, ManagementError> {
        let shared = Shared::new(config.clone(), client(&config)?, now);
        Ok(Self {
            host_id: config.host_id.clone().unwrap_or_else(host::name),
            link: Link::start(shared),
            config,
            followed: last.unwrap_or(DesiredState {
                version: 0,
                flow_logs: Vec::new(),
            }),
            refused: BTreeMap::new(),
            wanted: None,
            report_is_due: true,
            look_again: None,
        })
    }

    /// Returns when the service wants another state than the one before: see [`Self::wanted`]. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        let state = self.link.desired().await;
        self.wanted = (state != self.followed).then_some(state);
    }

    /// The state to be followed next, if it is another one.
    pub(crate) fn wanted(&self) -> Option<&DesiredState> {
        self.wanted.as_ref()
    }

    /// What the agent is to do for a state, beside the flow logs of its configuration.
    pub(crate) fn plan(&self, state: &DesiredState, local: &[FlowLogConfig]) -> Managed {
        flow_logs::plan(state, &self.config, local)
    }

    /// What the agent is to do for the state that it works by.
    pub(crate) fn followed(&self, local: &[FlowLogConfig]) -> Managed {
        self.plan(&self.followed, local)
    }

    /// The agent works by the state that was wanted from now on.
    pub(crate) fn has_followed(&mut self, refused: BTreeMap<String, String>) {
        if let Some(state) = self.wanted.take() {
            self.followed = state;
        }
        self.refused = refused;
        self.report_is_due = true;
    }

    /// Something has changed that the service is to know.
    pub(crate) fn report_is_due(&mut self) {
        self.report_is_due = true;
    }

    /// When it is to be looked whether a report can be made, as a boot time.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        self.look_again
    }

    /// Whether a report is to be made now; not before all devices have been told of, for what a report does not name is not there.
    pub(crate) fn can_report(&mut self, all_told: bool, now: Duration) -> bool {
        self.look_again = (self.report_is_due && !all_told).then_some(now + LOOK);
        self.report_is_due && all_told
    }

    /// Reports how the agent stands: its ENIs and whether they are captured, and the sentences of those flow logs whose records are not
    /// delivered. Does nothing where that is what was reported last.
    pub(crate) fn report(
        &mut self,
        enis: impl Iterator<Item = (Eni, bool)>,
        failures: &BTreeMap<&str, &str>,
    ) {
        self.report_is_due = false;
        let report = Report {
            host_id: self.host_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            enis: eni_reports(enis),
            applied_version: self.followed.version,
            flow_logs: self.flow_log_reports(failures),
        };
        self.link.report(report);
    }

    fn flow_log_reports(&self, failures: &BTreeMap<&str, &str>) -> Vec<FlowLogReport> {
        let report = |flow_log: &protocol::DesiredFlowLog| {
            let id = flow_log.flow_log_id.as_str();
            let refusal = self.refused.get(id).map(String::as_str);
            let error = refusal.or_else(|| failures.get(id).copied());
            FlowLogReport {
                flow_log_id: id.to_owned(),
                version: self.followed.version,
                deliver_status: match error {
                    None => DeliverStatus::Success,
                    Some(_) => DeliverStatus::Failed,
                },
                deliver_error_message: error
                    .unwrap_or_default()
                    .chars()
                    .take(MAX_MESSAGE_CHARS)
                    .collect(),
            }
        };
        self.followed.flow_logs.iter().map(report).collect()
    }

    /// The version of the state that the agent works by.
    pub(crate) fn version(&self) -> Version {
        self.followed.version
    }

    /// Flow logs of that state.
    pub(crate) fn flow_log_count(&self) -> usize {
        self.followed.flow_logs.len()
    }

    /// Where the service is.
    pub(crate) fn url(&self) -> String {
        self.config.url.to_string()
    }

    /// How the connection stands.
    pub(crate) fn standing(&self) -> Standing {
        self.link.standing()
    }
}

/// The ENIs, each once, in order.
fn eni_reports(enis: impl Iterator<Item = (Eni, bool)>) -> Vec<EniReport> {
    let mut reports: BTreeMap<String, EniReport> = BTreeMap::new();
    let mut left_out: BTreeSet<String> = BTreeSet::new();
    for (eni, captured) in enis {
        // It may be captured on one device, and not on another.
        if let Some(report) = reports.get_mut(&eni.eni_id) {
            report.captured |= captured;
        } else if reports.len() < MAX_ENIS {
            reports.insert(eni.eni_id.clone(), eni_report(eni, captured));
        } else {
            left_out.insert(eni.eni_id);
        }
    }
    if !left_out.is_empty() {
        tracing::warn!(
            "the service is told of {MAX_ENIS} ENIs, the most that it takes, and not of {} others",
            left_out.len()
        );
    }
    reports.into_values().collect()
}

fn eni_report(eni: Eni, captured: bool) -> EniReport {
    let Eni {
        eni_id,
        vswitch_id,
        vm_id,
        vpc_id,
        account_id,
        region,
    } = eni;
    EniReport {
        eni_id,
        vswitch_id,
        vpc_id,
        account_id,
        vm_id,
        region,
        captured,
    }
}

#[cfg(test)]
mod tests;
