//! What the agent and the service tell each other: JSON bodies under `/agent/v1/`, each request signed by
//! [ACS3](crate::signature::acs3) with an access key of the role agent.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /agent/v1/report` | [`Report`] → [`ReportAnswer`]: the ENIs of the host, what is applied, how deliveries stand |
//! | `GET /agent/v1/desired-state?after=VERSION&wait=SECONDS` | [`DesiredState`], at once if its version is not `after`, otherwise when it changes, at the latest after `wait` |
//!
//! - **Whole states.** A report names all ENIs of the host, and a desired state has all flow logs that concern the agent: those whose
//!   resource has an ENI which this agent has reported and which is its own. What is not named is not there.
//! - **Versions** grow, also over a restart of the service and when its state is restored from a backup. A client that finds another
//!   version than it has takes it, whichever is greater.
//! - **Binding.** The first report binds the access key to its `host_id`; a report with another is refused from then on. An ENI belongs
//!   to the agent that reported it first, until that agent reports without it, or is away.
//! - **Waiting.** Without a change the service answers after `wait` with the version that the client has. An agent counts as present
//!   while it waits, and for a while after each request; one that has been away for long is not waited for.
use serde::{Deserialize, Serialize};

use crate::flow_log::{ResourceType, Status, TrafficType};
use crate::managed::{DeliverStatus, IpVersion};

/// Path of [`Report`].
pub const REPORT_PATH: &str = "/agent/v1/report";
/// Path of [`DesiredState`].
pub const DESIRED_STATE_PATH: &str = "/agent/v1/desired-state";
/// Longest `wait`, in seconds; more is taken for this.
pub const MAX_WAIT_SECONDS: u64 = 60;
/// The most ENIs in a report.
pub const MAX_ENIS: usize = 4096;
/// The most flow logs in a report.
pub const MAX_FLOW_LOGS: usize = 4096;
/// Longest body of a report, in bytes: the most ENIs and flow logs, with the longest ids, take some 2.6 MiB, and messages the rest.
pub const MAX_REPORT_BYTES: usize = 4 << 20;
/// Longest [`FlowLogReport::deliver_error_message`], in characters; the service cuts what is longer.
pub const MAX_MESSAGE_CHARS: usize = 1024;

/// A state's version. 0 is none: that of an agent that has not applied any yet.
pub type Version = u64;

/// What an agent tells of its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What tells this host from others: 1 to 64 characters of `[A-Za-z0-9._:-]`, as an [`Id`](crate::text::Id).
    pub host_id: String,
    /// The agent's version: 1 to 64 characters.
    pub agent_version: String,
    /// Every ENI of the inventory that has a device, captured or not; at most [`MAX_ENIS`].
    pub enis: Vec<EniReport>,
    /// The version of the desired state that the agent works by.
    pub applied_version: Version,
    /// How each flow log stands that the agent has from the service; at most [`MAX_FLOW_LOGS`].
    #[serde(default)]
    pub flow_logs: Vec<FlowLogReport>,
}

/// An ENI of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EniReport {
    /// `eni-id`.
    pub eni_id: String,
    /// `vswitch-id`.
    pub vswitch_id: String,
    /// `vpc-id`.
    pub vpc_id: String,
    /// `account-id`: that of the agent's access key.
    pub account_id: String,
    /// `vm-id`; none where the ENI is attached to no instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_id: Option<String>,
    /// `region`; an ENI without one is in every region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the programs are attached to its device.
    pub captured: bool,
}

/// How a flow log stands at an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowLogReport {
    /// The flow log.
    pub flow_log_id: String,
    /// The version of the desired state from which the agent has it.
    pub version: Version,
    /// Whether its records reach the logstore.
    pub deliver_status: DeliverStatus,
    /// What the sink says, if they do not; otherwise empty.
    #[serde(default)]
    pub deliver_error_message: String,
}

/// The service's answer to a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// How many ENIs are this agent's.
    pub accepted_enis: usize,
    /// The ENIs that are not, and why.
    pub refused_enis: Vec<RefusedEni>,
    /// The version of the agent's desired state now.
    pub version: Version,
}

/// An ENI that the service does not take from this agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEni {
    /// The ENI.
    pub eni_id: String,
    /// Why, in one sentence.
    pub reason: String,
}

/// What an agent is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Its version.
    pub version: Version,
    /// Every flow log that concerns the agent, those that do not capture now included, sorted by id.
    pub flow_logs: Vec<DesiredFlowLog>,
}

/// A flow log as an agent is to have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredFlowLog {
    /// Its id, `fl-…`: what the agent knows it by.
    pub flow_log_id: String,
    /// Its name, as the API allows it ([`crate::managed::Name`]); empty if it has none.
    pub name: String,
    /// What kind of resource it captures.
    pub resource_type: ResourceType,
    /// Which resource it captures.
    pub resource_id: String,
    /// Its account: ENIs of other accounts are not captured.
    pub account_id: String,
    /// Its region: ENIs of other regions are not captured.
    pub region: String,
    /// Which traffic it records.
    pub traffic_type: TrafficType,
    /// Length of its windows, in minutes: 1, 5 or 10.
    pub aggregation_interval: u64,
    /// Which IP versions it records.
    pub ip_version: IpVersion,
    /// Template of its records; none for the default fields.
    pub log_format: Option<String>,
    /// Project that its records go to; empty if none was given.
    pub project: String,
    /// Logstore that its records go to; empty if none was given.
    pub logstore: String,
    /// Whether it captures.
    pub status: Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bodies as they travel: other programs may speak this protocol too.
    #[test]
    fn spelling_in_json() {
        let report = r#"{"host_id":"h","agent_version":"0.1.0","enis":[{"eni_id":"eni-1","vswitch_id":"vsw-1","vpc_id":"vpc-1",
            "account_id":"1","captured":true}],"applied_version":7,"flow_logs":[{"flow_log_id":"fl-1","version":7,
            "deliver_status":"FAILED","deliver_error_message":"disk full"}]}"#;
        let parsed: Report = serde_json::from_str(report).unwrap();
        assert_eq!(
            serde_json::to_string(&parsed).unwrap(),
            report.replace("\n            ", "")
        );
        assert!(serde_json::from_str::<Report>(&report.replace("host_id", "hostid")).is_err());
        let state = r#"{"version":8,"flow_logs":[{"flow_log_id":"fl-1","name":"n","resource_type":"VPC","resource_id":"vpc-1",
            "account_id":"1","region":"local","traffic_type":"Drop","aggregation_interval":10,"ip_version":"DualStack","log_format":null,
            "project":"p-1","logstore":"s-1","status":"Inactive"}]}"#;
        let parsed: DesiredState = serde_json::from_str(state).unwrap();
        assert_eq!(
            serde_json::to_string(&parsed).unwrap(),
            state.replace("\n            ", "")
        );
    }
}
