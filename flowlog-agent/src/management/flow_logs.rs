//! What the agent is to do for a desired state.
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use flowlog_model::{
    flow_log::{CaptureWindow, FlowLog, FlowLogName},
    format::Format,
    protocol::{DesiredFlowLog, MAX_FLOW_LOGS},
    text::{Id, InvalidText, Text},
};

use super::Managed;
use crate::config::{Destination, FlowLogConfig, ServiceConfig};

/// The flow logs of a state as the agent has those of its configuration, and what of it cannot be done. A flow log is known by its id
/// here, which stays when its name changes. `others` are flow logs that there are already.
pub(super) fn plan(
    flow_logs: &[DesiredFlowLog],
    config: &ServiceConfig,
    others: &[FlowLogConfig],
) -> Managed {
    let mut managed = Managed::default();
    let mut taken = Taken::default();
    for other in others {
        taken.take(other);
    }
    for desired in flow_logs {
        let planned = if managed.flow_logs.len() < MAX_FLOW_LOGS {
            flow_log(desired, config).and_then(|planned| taken.check(&planned).map(|()| planned))
        } else {
            Err(format!(
                "the agent has {MAX_FLOW_LOGS} flow logs, the most that it takes"
            ))
        };
        match planned {
            Ok(planned) => {
                taken.take(&planned);
                managed.flow_logs.push(planned);
            }
            Err(reason) => {
                managed.refused.insert(desired.flow_log_id.clone(), reason);
            }
        }
    }
    managed
}

/// What flow logs have for themselves.
#[derive(Default)]
struct Taken {
    names: HashSet<FlowLogName>,
    /// The flow log that writes to it.
    files: HashMap<PathBuf, FlowLogName>,
}

impl Taken {
    fn take(&mut self, flow_log: &FlowLogConfig) {
        let name = &flow_log.flow_log.name;
        self.names.insert(name.clone());
        if let Some(path) = path(&flow_log.destination) {
            self.files.insert(path.to_owned(), name.clone());
        }
    }

    /// Refuses what would be taken for a flow log that there is, or get in its way.
    fn check(&self, planned: &FlowLogConfig) -> Result<(), String> {
        let name = &planned.flow_log.name;
        if self.names.contains(name) {
            return Err(format!("the agent has another flow log called {name}"));
        }
        let owner = path(&planned.destination).and_then(|path| self.files.get(path));
        owner.map_or(Ok(()), |owner| {
            Err(format!("the flow log {owner} writes to its destination"))
        })
    }
}

fn path(destination: &Destination) -> Option<&Path> {
    match destination {
        Destination::Stdout | Destination::LogService(_) => None,
        Destination::File { path, .. } | Destination::Folder { path, .. } => Some(path),
    }
}

fn flow_log(desired: &DesiredFlowLog, config: &ServiceConfig) -> Result<FlowLogConfig, String> {
    let invalid = |error: InvalidText| error.to_string();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (project, logstore) = (given(&desired.project), given(&desired.logstore));
    let id = desired.flow_log_id.as_str();
    let destination = config.destination_of(id, project.as_deref(), logstore.as_deref())?;
    let format = match &desired.log_format {
        None => config.format.clone(),
        Some(template) => Format::template(template).map_err(|error| error.to_string())?,
    };
    Ok(FlowLogConfig {
        flow_log: FlowLog {
            name: id.parse::<FlowLogName>().map_err(invalid)?,
            resource_type: desired.resource_type,
            resource_id: desired.resource_id.parse::<Id>().map_err(invalid)?,
            traffic_type: desired.traffic_type,
            window: window(desired.aggregation_interval)?,
            status: desired.status,
            // Nothing that does not matter to a record: what changes of it changes nothing here.
            description: None,
            account_id: Some(desired.account_id.clone()),
            region: Some(desired.region.clone()),
            ip_version: desired.ip_version,
        },
        format,
        destination,
    })
}

fn window(minutes: u64) -> Result<CaptureWindow, String> {
    CaptureWindow::from_text(&format!("{minutes}m")).ok_or_else(|| {
        format!(
            "a window of {minutes} minutes is not known: {}",
            CaptureWindow::allowed()
        )
    })
}
