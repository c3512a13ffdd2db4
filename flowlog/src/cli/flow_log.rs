//! `flowlog create`, `list`, `show`, `enable`, `disable`, `modify` and `delete`.
use clap::builder::{PossibleValuesParser, TypedValueParser};
use flowlog_client::ClientError;
use flowlog_model::{
    managed::{ID_CHARS, ID_PREFIX, IpVersion, State},
    signature::encoding::encode,
};
use serde::Serialize;

use super::{
    CliError,
    output::{OutputForm, facts, or_dash, print, table},
    session::Session,
    wait::WaitOptions,
};
use crate::api::{
    ChangeTags, CreateFlowLog, FlowLog, FlowLogFilter, FlowLogPage, ModifyFlowLog,
    MoveResourceGroup,
};
use crate::serve::error::Code;

/// Flow logs on a page, the most that the service gives.
const PAGE_SIZE: u64 = 50;

/// Most flow logs that are listed.
const MAX_LISTED: usize = 10_000;

/// Which region.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(super) struct RegionOptions {
    /// Region; the service's default region without it.
    #[arg(long, value_name = "REGION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// Which traffic is recorded.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Traffic {
    /// All of it.
    All,
    /// Only what was allowed: ACCEPT.
    Allow,
    /// Only what was not allowed: REJECT.
    Drop,
}

impl Traffic {
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "All",
            Self::Allow => "Allow",
            Self::Drop => "Drop",
        }
    }
}

/// The resource to capture.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ResourceOptions {
    /// Capture every ENI of this VPC, also those that come later.
    #[arg(long, value_name = "ID")]
    vpc: Option<String>,
    /// Capture every ENI of this VSwitch, also those that come later.
    #[arg(long, value_name = "ID")]
    vswitch: Option<String>,
    /// Capture this ENI.
    #[arg(long, value_name = "ID")]
    eni: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateOptions {
    #[command(flatten)]
    resource: ResourceOptions,
    /// Which traffic to record.
    #[arg(long, value_enum, default_value = "all")]
    traffic: Traffic,
    /// Name: 1 to 128 characters.
    #[arg(long)]
    name: Option<String>,
    /// Description: 1 to 256 characters.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Project that the records go to.
    #[arg(long)]
    project: Option<String>,
    /// Logstore that the records go to.
    #[arg(long)]
    logstore: Option<String>,
    #[command(flatten)]
    how: HowOptions,
    /// Resource group.
    #[arg(long, value_name = "ID")]
    resource_group: Option<String>,
    /// A tag; can be given several times.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// Take a resource of which no agent has reported an ENI yet.
    #[arg(long)]
    allow_unknown: bool,
    #[command(flatten)]
    region: RegionOptions,
    #[command(flatten)]
    wait: WaitOptions,
}

/// How records are made; what is not given is as the service has it, or stays.
#[derive(Debug, clap::Args)]
struct HowOptions {
    /// Length of the capture windows in minutes: 1, 5 or 10.
    #[arg(long, value_name = "MINUTES", value_parser = intervals())]
    interval: Option<u64>,
    /// Which IP versions to record: IPv4, IPv6 or DualStack.
    #[arg(long, value_name = "VERSION", value_parser = spellings(IpVersion::ALL.iter().copied().map(IpVersion::as_str)))]
    ip_version: Option<String>,
    /// Template of the records, such as '${srcaddr} ${dstaddr} ${action}'.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListOptions {
    /// Only those with this in their name or id.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE", value_parser = spellings(State::ALL.iter().copied().map(State::as_str)))]
    status: Option<String>,
    /// Only those of this VPC and what is in it.
    #[arg(long, value_name = "ID")]
    vpc: Option<String>,
    /// Only those of this resource.
    #[arg(long, value_name = "ID")]
    resource: Option<String>,
    /// Only those that record this traffic.
    #[arg(long, value_enum)]
    traffic: Option<Traffic>,
    /// Only those to this project.
    #[arg(long)]
    project: Option<String>,
    /// Only those to this logstore.
    #[arg(long)]
    logstore: Option<String>,
    /// Only those of this resource group.
    #[arg(long, value_name = "ID")]
    resource_group: Option<String>,
    /// Only those with this tag, whatever its value if none is given; can be given several times, and all must fit.
    #[arg(long = "tag", value_name = "KEY[=VALUE]")]
    tags: Vec<String>,
    #[command(flatten)]
    region: RegionOptions,
}

/// What is asked for when flow logs are listed.
#[derive(Clone, Debug, Serialize)]
struct ListQuery {
    #[serde(flatten)]
    filter: FlowLogFilter,
    tag: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct OneOptions {
    /// Id of the flow log, or its name if no other has the same.
    #[arg(value_name = "FLOW LOG")]
    flow_log: String,
    #[command(flatten)]
    region: RegionOptions,
}

#[derive(Debug, clap::Args)]
pub(super) struct ChangeOptions {
    #[command(flatten)]
    one: OneOptions,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Debug, clap::Args)]
pub(super) struct ModifyOptions {
    #[command(flatten)]
    one: OneOptions,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// New name: 1 to 128 characters.
    #[arg(long)]
    name: Option<String>,
    /// New description: 1 to 256 characters.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// New length of the capture windows in minutes: 1, 5 or 10.
    #[arg(long, value_name = "MINUTES", value_parser = intervals())]
    interval: Option<u64>,
    /// Which IP versions to record from now on: IPv4, IPv6 or DualStack.
    #[arg(long, value_name = "VERSION", value_parser = spellings(IpVersion::ALL.iter().copied().map(IpVersion::as_str)))]
    ip_version: Option<String>,
    /// New template of the records, such as '${srcaddr} ${dstaddr} ${action}'.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// A tag to set, in the place of one with the same key; can be given several times.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// A tag to remove; can be given several times.
    #[arg(long = "remove-tag", value_name = "KEY")]
    remove_tags: Vec<String>,
    /// New resource group.
    #[arg(long, value_name = "ID")]
    resource_group: Option<String>,
}

/// Creates a flow log.
pub(super) fn create(
    session: &Session,
    options: &CreateOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    let ResourceOptions { vpc, vswitch, eni } = &options.resource;
    let resources = [
        ("VPC", vpc),
        ("VSwitch", vswitch),
        ("NetworkInterface", eni),
    ];
    // One of them is given: clap sees to it.
    let (resource_type, resource_id) = resources
        .into_iter()
        .find_map(|(kind, id)| Some((kind.to_owned(), id.clone()?)))
        .unwrap_or_default();
    let body = CreateFlowLog {
        region: options.region.region.clone(),
        resource_type,
        resource_id,
        traffic_type: options.traffic.as_str().to_owned(),
        name: options.name.clone(),
        description: options.description.clone(),
        project: options.project.clone(),
        logstore: options.logstore.clone(),
        aggregation_interval: options.how.interval,
        ip_version: options.how.ip_version.clone(),
        log_format: options.how.format.clone(),
        resource_group: options.resource_group.clone(),
        tags: options.tags.iter().cloned().collect(),
        allow_unknown_resource: options.allow_unknown,
        ..CreateFlowLog::default()
    };
    let created =
        session
            .change("POST", "/flow-logs", &(), &body)
            .map_err(|error| match &error {
                ClientError::Refused { code, .. } if code == Code::ResourceNotFound.as_str() => {
                    CliError::UnknownResource(error)
                }
                _ => error.into(),
            })?;
    finish(session, options.wait, created, form)
}

/// Lists flow logs.
pub(super) fn list(
    session: &Session,
    options: &ListOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    let filter = FlowLogFilter {
        region: options.region.region.clone(),
        search: options.search.clone(),
        status: options.status.clone(),
        vpc_id: options.vpc.clone(),
        resource_id: options.resource.clone(),
        traffic_type: options.traffic.map(|traffic| traffic.as_str().to_owned()),
        project: options.project.clone(),
        logstore: options.logstore.clone(),
        resource_group: options.resource_group.clone(),
        page_size: Some(PAGE_SIZE),
        ..FlowLogFilter::default()
    };
    let mut query = ListQuery {
        filter,
        tag: options.tags.clone(),
    };
    let mut listed: Vec<FlowLog> = Vec::new();
    for page_number in 1.. {
        query.filter.page_number = Some(page_number);
        let page: FlowLogPage = session.get("/flow-logs", &query)?;
        let is_last = (page.flow_logs.len() as u64) < PAGE_SIZE;
        listed.extend(page.flow_logs);
        if is_last {
            break;
        }
        if listed.len() >= MAX_LISTED {
            return Err(CliError::TooMany(MAX_LISTED));
        }
    }
    print(form, &listed, || {
        if listed.is_empty() {
            return vec!["There is no such flow log.".to_owned()];
        }
        list_lines(&listed)
    });
    Ok(())
}

fn list_lines(flow_logs: &[FlowLog]) -> Vec<String> {
    let mut table = table([
        "ID", "NAME", "RESOURCE", "TRAFFIC", "LOGSTORE", "STATUS", "DELIVERY", "CREATED",
    ]);
    for flow_log in flow_logs {
        table.add_row([
            flow_log.id.clone(),
            or_dash(&flow_log.name),
            format!("{} {}", flow_log.resource_type, flow_log.resource_id),
            flow_log.traffic_type.clone(),
            logstore(flow_log),
            flow_log.status.clone(),
            or_dash(&flow_log.deliver_status),
            flow_log.created_at.clone(),
        ]);
    }
    table.lines().collect()
}

fn logstore(flow_log: &FlowLog) -> String {
    match (&*flow_log.project, &*flow_log.logstore) {
        ("", "") => String::from("-"),
        (project, logstore) => format!("{}/{}", or_dash(project), or_dash(logstore)),
    }
}

/// Shows a flow log.
pub(super) fn show(
    session: &Session,
    options: &OneOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    let flow_log = session.get(&path(session, options)?, &options.region)?;
    print(form, &flow_log, || show_lines(&flow_log));
    Ok(())
}

fn show_lines(flow_log: &FlowLog) -> Vec<String> {
    let tags = flow_log
        .tags
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let facts = facts([
        ("id", flow_log.id.clone()),
        ("name", flow_log.name.clone()),
        ("description", flow_log.description.clone()),
        (
            "resource",
            format!("{} {}", flow_log.resource_type, flow_log.resource_id),
        ),
        ("traffic", flow_log.traffic_type.clone()),
        ("logstore", logstore(flow_log)),
        (
            "interval",
            format!("{} minutes", flow_log.aggregation_interval),
        ),
        ("ip version", flow_log.ip_version.clone()),
        ("format", flow_log.log_format.clone()),
        ("status", flow_log.status.clone()),
        ("delivery", flow_log.deliver_status.clone()),
        ("delivery error", flow_log.deliver_error_message.clone()),
        ("region", flow_log.region.clone()),
        ("resource group", flow_log.resource_group.clone()),
        ("tags", tags.collect::<Vec<_>>().join(", ")),
        ("created", flow_log.created_at.clone()),
    ]);
    facts.lines().collect()
}

/// Enables a flow log.
pub(super) fn enable(
    session: &Session,
    options: &ChangeOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    act(session, options, "activate", form)
}

/// Disables a flow log.
pub(super) fn disable(
    session: &Session,
    options: &ChangeOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    act(session, options, "deactivate", form)
}

fn act(
    session: &Session,
    options: &ChangeOptions,
    action: &str,
    form: OutputForm,
) -> Result<(), CliError> {
    let path = format!("{}/{action}", path(session, &options.one)?);
    let changed = session.change("POST", &path, &options.one.region, &())?;
    finish(session, options.wait, changed, form)
}

/// Changes a flow log's attributes, tags and resource group; first the attributes, for they alone may be refused because another change is
/// under way.
pub(super) fn modify(
    session: &Session,
    options: &ModifyOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    let path = path(session, &options.one)?;
    let (changes, region) = (&options.changes, &options.one.region);
    let attributes = ModifyFlowLog {
        name: changes.name.clone(),
        description: changes.description.clone(),
        aggregation_interval: changes.interval,
        ip_version: changes.ip_version.clone(),
        log_format: changes.format.clone(),
    };
    let tags = ChangeTags {
        set: changes.tags.iter().cloned().collect(),
        remove: changes.remove_tags.clone(),
    };
    if attributes != ModifyFlowLog::default() {
        session.change::<FlowLog>("PATCH", &path, region, &attributes)?;
    }
    if tags != ChangeTags::default() {
        session.change::<FlowLog>("PATCH", &format!("{path}/tags"), region, &tags)?;
    }
    if let Some(group) = &changes.resource_group {
        let body = MoveResourceGroup {
            resource_group: group.clone(),
        };
        session.change::<FlowLog>("PUT", &format!("{path}/resource-group"), region, &body)?;
    }
    let changed = session.get(&path, region)?;
    finish(session, options.wait, changed, form)
}

/// Deletes a flow log.
pub(super) fn delete(
    session: &Session,
    options: &ChangeOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    let path = path(session, &options.one)?;
    let changed = session.change("DELETE", &path, &options.one.region, &())?;
    finish(session, options.wait, changed, form)
}

/// Waits for a change, and prints what the flow log has become.
fn finish(
    session: &Session,
    wait: WaitOptions,
    changed: FlowLog,
    form: OutputForm,
) -> Result<(), CliError> {
    let mut last = changed.clone();
    match wait.wait(session, changed)? {
        Some(flow_log) => print(form, &flow_log, || {
            list_lines(std::slice::from_ref(&flow_log))
        }),
        None => {
            last.status = "Deleted".to_owned();
            print(form, &last, || vec![format!("{} is deleted.", last.id)]);
        }
    }
    Ok(())
}

/// The path of a flow log that is named by its id or its name.
fn path(session: &Session, options: &OneOptions) -> Result<String, CliError> {
    let named = &options.flow_log;
    let id = if is_id(named) {
        named.clone()
    } else {
        id_of(session, options)?
    };
    Ok(format!("/flow-logs/{}", encode(&id)))
}

fn is_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.strip_prefix(ID_PREFIX)
        .is_some_and(|rest| rest.len() == ID_CHARS && rest.bytes().all(legal))
}

fn id_of(session: &Session, options: &OneOptions) -> Result<String, CliError> {
    let name = options.flow_log.clone();
    let filter = FlowLogFilter {
        region: options.region.region.clone(),
        name: Some(name.clone()),
        page_size: Some(1),
        ..FlowLogFilter::default()
    };
    let page: FlowLogPage = session.get("/flow-logs", &filter)?;
    match (page.total_count, page.flow_logs.into_iter().next()) {
        (1, Some(flow_log)) => Ok(flow_log.id),
        (_, None) => Err(CliError::NoneOfName(name)),
        (count, _) => Err(CliError::SeveralOfName { name, count }),
    }
}

/// The lengths of capture windows, in minutes.
fn intervals() -> impl TypedValueParser<Value = u64> {
    PossibleValuesParser::new(["1", "5", "10"]).try_map(|minutes| minutes.parse::<u64>())
}

/// The values of an option that are spelled as the service spells them.
fn spellings(all: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(all)
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or("allowed is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests;
