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
pub(crate) mod host;
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
        DesiredFlowLog, DesiredState, EniReport, FlowLogReport, MAX_ENIS, MAX_FLOW_LOGS,
        MAX_MESSAGE_CHARS, Report, Version,
    },
    record::Eni,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    config::{FlowLogConfig, ServiceConfig},
    window::Now,
};
pub(crate) use link::Standing;
use link::{Link, Shared};

/// Between two looks at whether all devices have been told of, so that the first report can be made.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Most bytes of all messages in a report together, as JSON; each flow log has the same share. The rest of the greatest report, ids of
/// 64 characters included, and these stay within [`MAX_REPORT_BYTES`](flowlog_model::protocol::MAX_REPORT_BYTES).
const MAX_MESSAGES_BYTES: usize = 1 << 20;

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
    /// Whether it is what the service wanted, now or earlier; otherwise nobody knows what that was.
    is_known: bool,
    /// Flow logs that are gone from it, as long as they may wait for windows.
    gone: Vec<DesiredFlowLog>,
    /// Since when it works by it, as a boot time; none if it had it when it was started.
    followed_since: Option<Duration>,
    /// What the agent does for it.
    managed: Managed,
    /// The state to be followed next.
    wanted: Option<DesiredState>,
    /// Whether there is something new to report.
    report_is_due: bool,
    /// When it is to be looked again whether a report can be made, as a boot time.
    look_again: Option<Duration>,
}

/// What is kept on the disk of the service's wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// The version of the state that is followed.
    version: Version,
    /// Its flow logs.
    flow_logs: Vec<DesiredFlowLog>,
    /// Flow logs that are gone from it and wait for windows.
    gone: Vec<DesiredFlowLog>,
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
    /// Begins to follow the service; until it answers, what is kept of its wishes. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ManagementError`] if there is no access key, or nobody to trust.
    pub(crate) fn start(
        config: ServiceConfig,
        kept: Option<Kept>,
        now: ReadClock,
    ) -> Result<Self, ManagementError> {
        let shared = Shared::new(config.clone(), client(&config)?, now);
        let is_known = kept.is_some();
        let Kept {
            version,
            flow_logs,
            gone,
        } = kept.unwrap_or_default();
        Ok(Self {
            host_id: config.host_id.clone().unwrap_or_else(host::name),
            link: Link::start(shared),
            config,
            followed: DesiredState { version, flow_logs },
            is_known,
            gone,
            followed_since: None,
            managed: Managed::default(),
            wanted: None,
            report_is_due: true,
            look_again: None,
        })
    }

    /// Returns when the service wants another state than the one before: see [`Self::wanted`]. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        let state = self.link.desired().await;
        self.wanted = (!self.is_known || state != self.followed).then_some(state);
    }

    /// The state to be followed next, if it is another one.
    pub(crate) fn wanted(&self) -> Option<&DesiredState> {
        self.wanted.as_ref()
    }

    /// What is to be kept when a state is followed. `waiting` are the flow logs that are gone and wait for windows; those that are going
    /// now do, for their windows are open.
    pub(crate) fn kept(&self, state: &DesiredState, waiting: &BTreeSet<&str>) -> Kept {
        let mut known: BTreeSet<&str> = ids(&state.flow_logs).collect();
        let going = self.followed.flow_logs.iter();
        let waiting = self
            .gone
            .iter()
            .filter(|gone| waiting.contains(gone.flow_log_id.as_str()));
        let gone = going
            .chain(waiting)
            .filter(|gone| known.insert(&gone.flow_log_id))
            .cloned()
            .collect();
        Kept {
            version: state.version,
            flow_logs: state.flow_logs.clone(),
            gone,
        }
    }

    /// What the agent is to do for the flow logs of a state. `beside` are flow logs that there are already.
    pub(crate) fn plan(&self, flow_logs: &[DesiredFlowLog], beside: &[FlowLogConfig]) -> Managed {
        flow_logs::plan(flow_logs, &self.config, beside)
    }

    /// The flow logs of the state that the agent works by.
    pub(crate) fn flow_logs(&self) -> &[DesiredFlowLog] {
        &self.followed.flow_logs
    }

    /// Flow logs that are gone from it, as long as they may wait for windows.
    pub(crate) fn gone(&self) -> &[DesiredFlowLog] {
        &self.gone
    }

    /// Whether it is known what the service wants, or wanted last. Until then a flow log that the agent does not know may be the service's.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// What the agent does for it.
    pub(crate) fn managed(&self) -> &Managed {
        &self.managed
    }

    /// The agent does this from now on.
    pub(crate) fn set_managed(&mut self, managed: Managed) {
        self.managed = managed;
        self.report_is_due = true;
    }

    /// The agent works by what is kept from now on.
    pub(crate) fn has_followed(&mut self, kept: Kept, now: Duration) {
        let Kept {
            version,
            flow_logs,
            gone,
        } = kept;
        self.followed = DesiredState { version, flow_logs };
        self.is_known = true;
        self.gone = gone;
        self.followed_since = Some(now);
        self.wanted = None;
        self.report_is_due = true;
    }

    /// Something has changed that the service is to know.
    pub(crate) fn report_is_due(&mut self) {
        self.report_is_due = true;
    }

    /// Whether something has changed that the service is to know.
    pub(crate) fn has_news(&self) -> bool {
        self.report_is_due
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
        let count = self.followed.flow_logs.len().clamp(1, MAX_FLOW_LOGS);
        let report = |flow_log: &DesiredFlowLog| {
            let id = flow_log.flow_log_id.as_str();
            let refusal = self.managed.refused.get(id).map(String::as_str);
            let error = refusal.or_else(|| failures.get(id).copied());
            FlowLogReport {
                flow_log_id: id.to_owned(),
                version: self.followed.version,
                deliver_status: match error {
                    None => DeliverStatus::Success,
                    Some(_) => DeliverStatus::Failed,
                },
                deliver_error_message: cut(error.unwrap_or_default(), MAX_MESSAGES_BYTES / count),
            }
        };
        let flow_logs = self.followed.flow_logs.iter();
        flow_logs.take(MAX_FLOW_LOGS).map(report).collect()
    }

    /// The version of the state that the agent works by.
    pub(crate) fn version(&self) -> Version {
        self.followed.version
    }

    /// Since when the agent works by it, as a boot time; none if it had it when it was started.
    pub(crate) fn followed_since(&self) -> Option<Duration> {
        self.followed_since
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

fn ids(flow_logs: &[DesiredFlowLog]) -> impl Iterator<Item = &str> {
    flow_logs
        .iter()
        .map(|flow_log| flow_log.flow_log_id.as_str())
}

/// As much of a message as a report may have: so many characters, and so many bytes as JSON.
fn cut(message: &str, max_bytes: usize) -> String {
    let mut bytes = 0;
    let fits = |character: &char| {
        // A control character is written as `\u001f`.
        bytes += match character {
            '"' | '\\' => 2,
            '\0'..='\x1f' => 6,
            other => other.len_utf8(),
        };
        bytes <= max_bytes
    };
    let characters = message.chars().take(MAX_MESSAGE_CHARS);
    characters.take_while(fits).collect()
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
