//! The bodies of the REST face, `/api/v1/`: JSON, for the service and for its clients. `openapi.json` is made of them.
//!
//! | request | parameters or body → answer |
//! |---|---|
//! | `GET /api/v1/flow-logs` | [`FlowLogFilter`] in the query → [`FlowLogPage`] |
//! | `POST /api/v1/flow-logs` | [`CreateFlowLog`] → [`FlowLog`] |
//! | `GET`, `PATCH`, `DELETE /api/v1/flow-logs/{id}` | -, [`ModifyFlowLog`], - → [`FlowLog`] |
//! | `POST /api/v1/flow-logs/{id}/activate`, `…/deactivate` | - → [`FlowLog`] |
//! | `PUT /api/v1/flow-logs/{id}/resource-group` | [`MoveResourceGroup`] → [`FlowLog`] |
//! | `PATCH /api/v1/flow-logs/{id}/tags` | [`ChangeTags`] → [`FlowLog`] |
//! | `GET`, `POST /api/v1/access-keys` | -, [`CreateAccessKey`] → [`AccessKeys`], [`CreatedAccessKey`] |
//! | `PATCH`, `DELETE /api/v1/access-keys/{id}` | [`ModifyAccessKey`], - → [`AccessKey`] |
//! | `GET /api/v1/resources` | - → [`Resources`] |
//! | `GET /api/v1/agents` | - → [`Agents`] |
//! | `GET /api/v1/audit` | [`AuditFilter`] in the query → [`Audit`] |
//! | `GET`, `POST /api/v1/service` | - → [`Service`] |
//!
//! Each request is signed by ACS3 ([`flowlog_model::signature::acs3`]). Every error has an [`ErrorBody`], as on the RPC face. What the
//! query of a request on one flow log may have besides is `region`, which must then be the flow log's.
//! Times are UTC as in RFC 3339: `2026-11-22T04:52:11Z`.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A flow log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowLog {
    /// Id: `fl-` and 21 characters of `[a-z0-9]`.
    pub id: String,
    /// Region.
    pub region: String,
    /// Name; empty if it has none.
    pub name: String,
    /// Description; empty if it has none.
    pub description: String,
    /// What kind of resource it captures: NetworkInterface, VSwitch or VPC.
    pub resource_type: String,
    /// Which resource it captures.
    pub resource_id: String,
    /// Which traffic it records: All, Allow or Drop.
    pub traffic_type: String,
    /// Project that its records go to.
    pub project: String,
    /// Logstore that its records go to.
    pub logstore: String,
    /// Length of its capture windows, in minutes.
    pub aggregation_interval: u64,
    /// Which IP versions it records: IPv4, IPv6 or DualStack.
    pub ip_version: String,
    /// Template of its records; empty for the default fields.
    pub log_format: String,
    /// Which traffic's path it records: all.
    pub traffic_path: Vec<String>,
    /// Resource group.
    pub resource_group: String,
    /// State: Activating, Active, Deactivating, Inactive, Modifying or Deleting.
    pub status: String,
    /// Whether its records reach the logstore: SUCCESS or FAILED; empty until an agent has told.
    pub deliver_status: String,
    /// What the sinks say, if they do not.
    pub deliver_error_message: String,
    /// When it was created.
    pub created_at: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// What a flow log is created of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateFlowLog {
    /// Region; the service's default region without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// NetworkInterface, VSwitch or VPC.
    pub resource_type: String,
    /// Which resource to capture.
    pub resource_id: String,
    /// All, Allow or Drop.
    pub traffic_type: String,
    /// Name: 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description: 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Logstore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logstore: Option<String>,
    /// Length of the capture windows, in minutes: 1, 5 or 10, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation_interval: Option<u64>,
    /// IPv4, IPv6 or DualStack, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<String>,
    /// Template of the records, as `${srcaddr} ${dstaddr}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// all, which is the default. The product's internetGateway is refused: no agent can tell what crosses a gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic_path: Vec<String>,
    /// Resource group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_group: Option<String>,
    /// Tags, at most 20.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether the resource may be one that no agent has reported yet.
    #[serde(default)]
    pub allow_unknown_resource: bool,
}

/// What of a flow log changes; what is not given stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifyFlowLog {
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Length of the capture windows, in minutes: 1, 5 or 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation_interval: Option<u64>,
    /// IPv4, IPv6 or DualStack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<String>,
    /// Template of the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
}

/// Which flow logs to list; all that are given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlowLogFilter {
    /// Region; all regions without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Part of the name or of the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// NetworkInterface, VSwitch or VPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// The VPC that the resource is, or is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// All, Allow or Drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_type: Option<String>,
    /// Project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Logstore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logstore: Option<String>,
    /// State.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Resource group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group: Option<String>,
    /// Number of the page, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_number: Option<u64>,
    /// Flow logs on a page: 1 to 50; 20 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
}

/// A page of flow logs, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowLogPage {
    /// The flow logs.
    pub flow_logs: Vec<FlowLog>,
    /// Number of the page, from 1.
    pub page_number: u64,
    /// Flow logs on a full page.
    pub page_size: u64,
    /// Flow logs on all pages.
    pub total_count: u64,
}

/// Where a flow log is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveResourceGroup {
    /// The new resource group.
    pub resource_group: String,
}

/// How a flow log's tags change: first some are removed, then some are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTags {
    /// Tags to set, by key.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys of the tags to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// An access key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessKey {
    /// Id.
    pub id: String,
    /// Account.
    pub account_id: String,
    /// administrator, reader or agent.
    pub role: String,
    /// Active or Inactive.
    pub status: String,
    /// What it is for; empty if nobody said.
    pub description: String,
    /// The host that it is bound to, if it is an agent's that has reported; otherwise empty.
    pub host_id: String,
    /// When it was created.
    pub created_at: String,
}

/// The access keys of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessKeys {
    /// The access keys, the oldest first.
    pub access_keys: Vec<AccessKey>,
}

/// What an access key is created of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccessKey {
    /// administrator, reader or agent.
    pub role: String,
    /// What it is for: at most 256 characters.
    #[serde(default)]
    pub description: String,
    /// Account; that of the request's own access key without it. Another one can be named by administrators of the service's own account,
    /// `account-id` of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
}

/// A new access key. The secret is told this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedAccessKey {
    /// Id.
    pub id: String,
    /// Secret.
    pub secret: String,
    /// Account.
    pub account_id: String,
    /// administrator, reader or agent.
    pub role: String,
}

/// What of an access key changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModifyAccessKey {
    /// Active or Inactive.
    pub status: String,
}

/// What agents have reported, of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// VPCs, sorted by id.
    pub vpcs: Vec<Vpc>,
    /// VSwitches, sorted by id.
    pub vswitches: Vec<VSwitch>,
    /// ENIs, sorted by id.
    pub enis: Vec<Eni>,
}

/// A VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vpc {
    /// Id.
    pub id: String,
    /// How many VSwitches of it are known.
    pub vswitches: u64,
    /// How many ENIs of it are known.
    pub enis: u64,
}

/// A VSwitch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VSwitch {
    /// Id.
    pub id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// How many ENIs of it are known.
    pub enis: u64,
}

/// An ENI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Eni {
    /// Id.
    pub id: String,
    /// Its VSwitch.
    pub vswitch_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// The instance that it is attached to; empty if none.
    pub vm_id: String,
    /// Its region; empty if it is in every region.
    pub region: String,
    /// The host on which it is.
    pub host_id: String,
    /// Whether the agent captures it.
    pub captured: bool,
}

/// The agents of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agents {
    /// The agents, sorted by host.
    pub agents: Vec<Agent>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its host.
    pub host_id: String,
    /// Its version.
    pub version: String,
    /// Its access key.
    pub access_key_id: String,
    /// The version of the desired state that it works by.
    pub applied_version: u64,
    /// The version of the desired state that it is to work by.
    pub desired_version: u64,
    /// When it was last heard of.
    pub last_seen: String,
    /// Whether it was heard of lately.
    pub present: bool,
    /// How many ENIs are its own.
    pub enis: u64,
}

/// Which changes to list, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditFilter {
    /// What was changed: a flow log's, an access key's or a host's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Only entries with smaller numbers: the smallest of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most this many: 1 to 1,000; 100 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// The entries, the newest first.
    pub entries: Vec<AuditEntry>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its number, which grows.
    pub number: u64,
    /// When.
    pub at: String,
    /// Who: the access key; `service` for what the service did by itself.
    pub access_key_id: String,
    /// What: the action's name, as CreateFlowLog.
    pub action: String,
    /// Of what: a flow log's or an access key's id; of ReportEnis the host's.
    pub resource_id: String,
    /// In which request; empty for what the service did by itself, or for another account's request.
    pub request_id: String,
    /// What was changed to what: a JSON object.
    pub detail: String,
}

/// Whether flow logs may be created in a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Whether the account has opened the service in the region.
    pub enabled: bool,
}

/// An error, in the product's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ErrorBody {
    /// The request, as in the access log and the header `x-acs-request-id`.
    pub request_id: String,
    /// The service, as the client called it.
    pub host_id: String,
    /// A stable code, as `InvalidFlowLogId.NotFound`.
    pub code: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where to read more.
    pub recommend: String,
}
