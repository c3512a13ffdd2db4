//! Creating, describing and changing flow logs.
use flowlog_model::flow_log::ResourceType;
use flowlog_model::managed::{
    Description, ID_CHARS, ID_PREFIX, IpVersion, LogFormat, MAX_TAGS, Name, State,
};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Row, Transaction, params, params_from_iter};
use serde_json::json;

use super::checked::{self, NewFlowLog};
use super::transitions::{self, Target};
use super::{Context, Need, audit, shown, tags};
use crate::api;
use crate::serve::error::{ApiError, Code};
use crate::serve::moment::Moment;
use crate::serve::secrets::{LOWER, random_text};

/// Flow logs on a page, where nobody says.
const DEFAULT_PAGE_SIZE: u64 = 20;
/// The most flow logs on a page.
pub const MAX_PAGE_SIZE: u64 = 50;

/// Creates a flow log; it starts on its way to Active.
///
/// # Errors
/// Where a value is not allowed, the resource is not known, or the quota is used up.
pub fn create(
    state: &Transaction<'_>,
    cx: &Context,
    asked: &api::CreateFlowLog,
) -> Result<api::FlowLog, ApiError> {
    cx.caller.may(Need::Change)?;
    let region = cx.region(asked.region.as_deref())?;
    let new = NewFlowLog::check(asked)?;
    if !(asked.allow_unknown_resource || cx.config.allow_unknown_resources) {
        check_resource(state, cx, &region, new.resource_type, &new.resource_id)?;
    }
    check_quota(state, cx, &region)?;
    let id = format!("{ID_PREFIX}{}", random_text(LOWER, ID_CHARS)?);
    let mut insert = state.prepare_cached(
        "INSERT INTO flow_log (id, account_id, region, name, description, resource_type, resource_id, traffic_type, project,
             logstore, aggregation_interval, ip_version, log_format, traffic_path, resource_group, status, target, version, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'Activating', 'Active', 0, ?)",
    )?;
    insert.execute(params![
        id,
        cx.caller.account_id,
        region,
        new.name,
        new.description,
        new.resource_type.as_str(),
        new.resource_id,
        new.traffic_type.as_str(),
        new.project,
        new.logstore,
        i64::try_from(new.aggregation_interval).map_err(ApiError::internal)?,
        new.ip_version.as_str(),
        new.log_format,
        new.traffic_path,
        new.resource_group,
        cx.now.0,
    ])?;
    tags::set(state, &id, &new.tags)?;
    let detail = serde_json::to_value(asked).map_err(ApiError::internal)?;
    audit::note(state, cx, "CreateFlowLog", &id, &detail)?;
    transitions::begin(state, cx, &id, State::Activating, Target::Active)?;
    find(state, cx, Some(&region), &id)
}

fn check_resource(
    state: &Transaction<'_>,
    cx: &Context,
    region: &str,
    kind: ResourceType,
    id: &str,
) -> Result<(), ApiError> {
    let known = state
        .prepare_cached(
            "SELECT 1 FROM host_resource WHERE account_id = ? AND resource_type = ? AND resource_id = ? AND region IN ('', ?)",
        )?
        .query_row(params![cx.caller.account_id, kind.as_str(), id, region], |_| Ok(()))
        .optional()?;
    known.ok_or_else(|| {
        let message = format!("No agent has reported the {kind} {id} in the region {region}.");
        ApiError::new(Code::ResourceNotFound, message)
    })
}

fn check_quota(state: &Transaction<'_>, cx: &Context, region: &str) -> Result<(), ApiError> {
    let count: i64 = state
        .prepare_cached("SELECT count(*) FROM flow_log WHERE account_id = ? AND region = ?")?
        .query_row([&cx.caller.account_id, region], |row| row.get(0))?;
    let quota = cx.config.flow_logs_per_region;
    if count.unsigned_abs() >= quota {
        let message =
            format!("The region {region} has {count} flow logs, and the quota allows {quota}.");
        return Err(ApiError::new(Code::QuotaFlowLogs, message));
    }
    if count > 0 {
        return Ok(());
    }
    let regions: i64 = state
        .prepare_cached("SELECT count(DISTINCT region) FROM flow_log WHERE account_id = ?")?
        .query_row([&cx.caller.account_id], |row| row.get(0))?;
    cx.check_regions(regions)
}

/// Lists flow logs, the newest first.
///
/// # Errors
/// Where the filter or the page is not allowed.
pub fn list(
    state: &Transaction<'_>,
    cx: &Context,
    filter: &api::FlowLogFilter,
    tags: &[(String, String)],
) -> Result<api::FlowLogPage, ApiError> {
    cx.caller.may(Need::Read)?;
    checked::filter(filter)?;
    if tags.len() > MAX_TAGS {
        return Err(checked::too_many_tags());
    }
    let page_number = filter.page_number.unwrap_or(1);
    let page_size = filter.page_size.unwrap_or(DEFAULT_PAGE_SIZE);
    if page_number == 0 || page_number > u64::from(u32::MAX) {
        return Err(ApiError::invalid(
            "PageNumber",
            "allowed are whole numbers from 1 to 4294967295",
        ));
    }
    if !(1..=MAX_PAGE_SIZE).contains(&page_size) {
        return Err(ApiError::invalid(
            "PageSize",
            "allowed are whole numbers from 1 to 50",
        ));
    }
    let (condition, mut values) = condition(cx, filter, tags)?;
    let total: i64 = state
        .prepare_cached(&format!("SELECT count(*) FROM flow_log WHERE {condition}"))?
        .query_row(params_from_iter(&values), |row| row.get(0))?;
    values.push(Value::Integer(
        i64::try_from(page_size).map_err(ApiError::internal)?,
    ));
    values.push(Value::Integer(
        i64::try_from((page_number - 1) * page_size).map_err(ApiError::internal)?,
    ));
    let mut statement = state.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM flow_log WHERE {condition} ORDER BY created_at DESC, id LIMIT ? OFFSET ?"
    ))?;
    let flow_logs = statement
        .query_map(params_from_iter(&values), read)?
        .collect::<Result<Vec<_>, _>>()?;
    let flow_logs = flow_logs
        .into_iter()
        .map(|flow_log| complete(state, flow_log))
        .collect::<Result<_, _>>()?;
    Ok(api::FlowLogPage {
        flow_logs,
        page_number,
        page_size,
        total_count: total.unsigned_abs(),
    })
}

/// The condition that a filter makes, with its values in the order of its question marks.
fn condition(
    cx: &Context,
    filter: &api::FlowLogFilter,
    tags: &[(String, String)],
) -> Result<(String, Vec<Value>), ApiError> {
    let mut condition = String::from("account_id = ?");
    let mut values = vec![Value::Text(cx.caller.account_id.clone())];
    let mut with = |clause: &str, given: &[&str]| {
        condition.push_str(" AND ");
        condition.push_str(clause);
        values.extend(given.iter().map(|text| Value::Text((*text).to_owned())));
    };
    if let Some(region) = &filter.region {
        with("region = ?", &[&cx.region(Some(region))?]);
    }
    let columns = [
        ("id = ?", &filter.id),
        ("name = ?", &filter.name),
        ("description = ?", &filter.description),
        ("resource_type = ?", &filter.resource_type),
        ("resource_id = ?", &filter.resource_id),
        ("traffic_type = ?", &filter.traffic_type),
        ("project = ?", &filter.project),
        ("logstore = ?", &filter.logstore),
        ("status = ?", &filter.status),
        ("resource_group = ?", &filter.resource_group),
    ];
    for (clause, given) in columns {
        if let Some(given) = given {
            with(clause, &[given]);
        }
    }
    if let Some(part) = &filter.search {
        with("(instr(name, ?) > 0 OR instr(id, ?) > 0)", &[part, part]);
    }
    if let Some(vpc) = &filter.vpc_id {
        let known = "SELECT 1 FROM eni WHERE eni.account_id = flow_log.account_id";
        with(
            &format!(
                "CASE resource_type WHEN 'VPC' THEN resource_id = ?
                     WHEN 'VSwitch' THEN EXISTS ({known} AND vswitch_id = resource_id AND vpc_id = ?)
                     ELSE EXISTS ({known} AND eni_id = resource_id AND vpc_id = ?) END"
            ),
            &[vpc, vpc, vpc],
        );
    }
    for (key, value) in tags {
        let any = "EXISTS (SELECT 1 FROM tag WHERE flow_log_id = flow_log.id AND key = ?)";
        let one =
            "EXISTS (SELECT 1 FROM tag WHERE flow_log_id = flow_log.id AND key = ? AND value = ?)";
        if value.is_empty() {
            with(any, &[key]);
        } else {
            with(one, &[key, value]);
        }
    }
    Ok((condition, values))
}

/// A flow log of the account; in this region, where one is given.
///
/// # Errors
/// [`Code::FlowLogNotFound`].
pub fn get(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
) -> Result<api::FlowLog, ApiError> {
    cx.caller.may(Need::Read)?;
    find(state, cx, region, id)
}

pub(super) fn find(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
) -> Result<api::FlowLog, ApiError> {
    let region = region.map(|region| cx.region(Some(region))).transpose()?;
    let found = state
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM flow_log WHERE id = ?1 AND account_id = ?2 AND (?3 IS NULL OR region = ?3)"
        ))?
        .query_row(params![id, cx.caller.account_id, region], read)
        .optional()?;
    match found {
        Some(flow_log) => complete(state, flow_log),
        None => Err(ApiError::new(
            Code::FlowLogNotFound,
            format!("There is no flow log \"{}\".", shown(id)),
        )),
    }
}

const COLUMNS: &str =
    "id, region, name, description, resource_type, resource_id, traffic_type, project, logstore,
    aggregation_interval, ip_version, log_format, traffic_path, resource_group, status, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<api::FlowLog> {
    let paths: String = row.get(12)?;
    Ok(api::FlowLog {
        id: row.get(0)?,
        region: row.get(1)?,
        name: row.get(2)?,
        description: row.get(3)?,
        resource_type: row.get(4)?,
        resource_id: row.get(5)?,
        traffic_type: row.get(6)?,
        project: row.get(7)?,
        logstore: row.get(8)?,
        aggregation_interval: row.get::<_, i64>(9)?.unsigned_abs(),
        ip_version: row.get(10)?,
        log_format: row.get(11)?,
        traffic_path: paths.split(',').map(str::to_owned).collect(),
        resource_group: row.get(13)?,
        status: row.get(14)?,
        deliver_status: String::new(),
        deliver_error_message: String::new(),
        created_at: Moment(row.get(15)?).rfc3339(),
        tags: Default::default(),
    })
}

/// Adds what other tables have: tags, and what agents say of deliveries.
fn complete(state: &Transaction<'_>, mut flow_log: api::FlowLog) -> Result<api::FlowLog, ApiError> {
    flow_log.tags = tags::of(state, &flow_log.id)?;
    // Failures first; of several agents that fail, one speaks for all.
    let delivery: Option<[String; 3]> = state
        .prepare_cached(
            "SELECT status, host_id, message FROM delivery WHERE flow_log_id = ? ORDER BY status = 'FAILED' DESC, host_id LIMIT 1",
        )?
        .query_row([&flow_log.id], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?])
        })
        .optional()?;
    if let Some([status, host, message]) = delivery {
        if status == flowlog_model::managed::DeliverStatus::Failed.as_str() {
            flow_log.deliver_error_message = format!("{host}: {message}");
        }
        flow_log.deliver_status = status;
    }
    Ok(flow_log)
}

/// Changes attributes. What agents need to know sends the flow log on its way; a name or a description is changed at once.
///
/// # Errors
/// Where a value is not allowed, nothing is given, or the flow log is on its way.
pub fn modify(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
    asked: &api::ModifyFlowLog,
) -> Result<api::FlowLog, ApiError> {
    cx.caller.may(Need::Change)?;
    let name = checked::optional::<Name>("FlowLogName", asked.name.as_deref())?;
    let description =
        checked::optional::<Description>("Description", asked.description.as_deref())?;
    let interval = asked
        .aggregation_interval
        .map(checked::interval)
        .transpose()?;
    let ip_version = checked::optional::<IpVersion>("IpVersion", asked.ip_version.as_deref())?;
    let log_format = checked::optional::<LogFormat>("LogFormat", asked.log_format.as_deref())?;
    if *asked == api::ModifyFlowLog::default() {
        return Err(ApiError::missing("FlowLogName"));
    }
    let before = settled(state, cx, region, id)?;
    let target = Target::ALL
        .iter()
        .find(|target| target.as_str() == before.status)
        .copied()
        .ok_or_else(|| ApiError::internal(format!("{id} is {}", before.status)))?;
    state
        .prepare_cached(
            "UPDATE flow_log SET name = coalesce(?, name), description = coalesce(?, description),
                 aggregation_interval = coalesce(?, aggregation_interval), ip_version = coalesce(?, ip_version),
                 log_format = coalesce(?, log_format) WHERE id = ?",
        )?
        .execute(params![
            name.map(|name| name.to_string()),
            description.map(|description| description.to_string()),
            interval.map(|minutes| i64::try_from(minutes).unwrap_or(i64::MAX)),
            ip_version.map(IpVersion::as_str),
            log_format.map(|format| format.to_string()),
            id,
        ])?;
    let detail = serde_json::to_value(asked).map_err(ApiError::internal)?;
    audit::note(state, cx, "ModifyFlowLogAttribute", id, &detail)?;
    let after = find(state, cx, None, id)?;
    let agents_need_it = |flow_log: &api::FlowLog| {
        (
            flow_log.aggregation_interval,
            flow_log.ip_version.clone(),
            flow_log.log_format.clone(),
        )
    };
    if agents_need_it(&before) == agents_need_it(&after) {
        // Agents show the name; nobody waits until they do.
        let version = transitions::next_version(state, cx.now)?;
        transitions::tell(state, id, version)?;
        return Ok(after);
    }
    transitions::begin(state, cx, id, State::Modifying, target)?;
    find(state, cx, None, id)
}

/// Activates an inactive flow log.
///
/// # Errors
/// Where it is not Inactive.
pub fn activate(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
) -> Result<api::FlowLog, ApiError> {
    let (from, to) = (State::Inactive, (State::Activating, Target::Active));
    switch(state, cx, region, id, "ActiveFlowLog", from, to)
}

/// Deactivates an active flow log.
///
/// # Errors
/// Where it is not Active.
pub fn deactivate(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
) -> Result<api::FlowLog, ApiError> {
    let (from, to) = (State::Active, (State::Deactivating, Target::Inactive));
    switch(state, cx, region, id, "DeactiveFlowLog", from, to)
}

fn switch(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
    action: &str,
    from: State,
    (status, target): (State, Target),
) -> Result<api::FlowLog, ApiError> {
    cx.caller.may(Need::Change)?;
    let before = settled(state, cx, region, id)?;
    if before.status != from.as_str() {
        return Err(incorrect_status(&before));
    }
    audit::note(
        state,
        cx,
        action,
        id,
        &json!({ "from": from.as_str(), "to": target.as_str() }),
    )?;
    transitions::begin(state, cx, id, status, target)?;
    find(state, cx, None, id)
}

/// Deletes a flow log that is Active or Inactive. What was captured stays in the logstore.
///
/// # Errors
/// Where it is on its way.
pub fn delete(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
) -> Result<api::FlowLog, ApiError> {
    cx.caller.may(Need::Change)?;
    let mut deleted = settled(state, cx, region, id)?;
    audit::note(
        state,
        cx,
        "DeleteFlowLog",
        id,
        &json!({ "name": deleted.name, "resource_type": deleted.resource_type, "resource_id": deleted.resource_id }),
    )?;
    transitions::begin(state, cx, id, State::Deleting, Target::Gone)?;
    // It may be gone by now.
    deleted.status = State::Deleting.as_str().into();
    Ok(deleted)
}

/// A flow log that is not on its way.
pub(super) fn settled(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
) -> Result<api::FlowLog, ApiError> {
    let flow_log = find(state, cx, region, id)?;
    if flow_log.status == State::Active.as_str() || flow_log.status == State::Inactive.as_str() {
        return Ok(flow_log);
    }
    Err(incorrect_status(&flow_log))
}

fn incorrect_status(flow_log: &api::FlowLog) -> ApiError {
    ApiError::new(
        Code::IncorrectStatus,
        format!(
            "The flow log {} is {}, which does not allow this.",
            flow_log.id, flow_log.status
        ),
    )
}
