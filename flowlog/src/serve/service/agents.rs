//! What agents report, and what they are to do.
use std::collections::BTreeSet;

use flowlog_model::protocol::{
    DesiredFlowLog, DesiredState, FlowLogReport, MAX_ENIS, MAX_FLOW_LOGS, MAX_MESSAGE_CHARS,
    Report, ReportAnswer, Version,
};
use flowlog_model::text::{Id, Text as _};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::json;

use super::{Context, Need, access_keys, audit, enis, presence, transitions};
use crate::serve::error::{ApiError, Code};

/// Takes a report: the host's ENIs, what is applied, and how deliveries stand.
///
/// # Errors
/// Where the access key is bound to another host, or the host to another access key; where the report is not valid.
pub fn report(
    state: &Transaction<'_>,
    cx: &Context,
    report: &Report,
) -> Result<ReportAnswer, ApiError> {
    cx.caller.may(Need::Agent)?;
    check(report)?;
    bind(state, cx, report)?;
    let (refused_enis, accepted_enis) = enis::take(state, cx, report)?;
    take_deliveries(state, cx, &report.host_id, &report.flow_logs)?;
    transitions::settle(state, cx)?;
    let version = state
        .prepare_cached("SELECT desired_version FROM agent WHERE account_id = ? AND host_id = ?")?
        .query_row([&cx.caller.account_id, &report.host_id], |row| {
            row.get::<_, i64>(0)
        })?;
    Ok(ReportAnswer {
        accepted_enis,
        refused_enis,
        version: version.unsigned_abs(),
    })
}

fn check(report: &Report) -> Result<(), ApiError> {
    let too_many = |what, most| {
        ApiError::new(
            Code::QuotaAgents,
            format!("A report has at most {most} {what}."),
        )
    };
    if report.enis.len() > MAX_ENIS {
        return Err(too_many("ENIs", MAX_ENIS));
    }
    if report.flow_logs.len() > MAX_FLOW_LOGS {
        return Err(too_many("flow logs", MAX_FLOW_LOGS));
    }
    let id = |parameter, text: &str| {
        text.parse::<Id>()
            .map(|_| ())
            .map_err(|_| ApiError::invalid(parameter, Id::allowed()))
    };
    id("host_id", &report.host_id)?;
    if !(1..=64).contains(&report.agent_version.chars().count()) {
        return Err(ApiError::invalid(
            "agent_version",
            "allowed are 1 to 64 characters",
        ));
    }
    let mut seen = BTreeSet::new();
    for eni in &report.enis {
        id("enis.eni_id", &eni.eni_id)?;
        id("enis.vswitch_id", &eni.vswitch_id)?;
        id("enis.vpc_id", &eni.vpc_id)?;
        id("enis.account_id", &eni.account_id)?;
        for optional in [&eni.vm_id, &eni.region].into_iter().flatten() {
            id("enis.vm_id or region", optional)?;
        }
        if !seen.insert(&eni.eni_id) {
            return Err(ApiError::invalid("enis.eni_id", "each ENI is named once"));
        }
    }
    Ok(())
}

/// Binds the access key to its host with the first report, and notes the agent's version, what it has applied, and when.
fn bind(state: &Transaction<'_>, cx: &Context, report: &Report) -> Result<(), ApiError> {
    let account = &cx.caller.account_id;
    let bound = host_of(state, cx)?;
    if bound.as_ref().is_some_and(|host| *host != report.host_id) {
        return Err(ApiError::new(
            Code::ForbiddenHost,
            format!(
                "This access key is bound to another host than {}.",
                report.host_id
            ),
        ));
    }
    if bound.is_none() {
        let version = transitions::next_version(state, cx.now)?;
        let made = state
            .prepare_cached(
                "INSERT OR IGNORE INTO agent (account_id, host_id, key_id, agent_version, applied_version, desired_version, last_seen)
                 VALUES (?, ?, ?, '', 0, ?, ?)",
            )?
            .execute(params![account, report.host_id, cx.caller.key_id, version, cx.now.0])?;
        if made == 0 {
            return Err(ApiError::new(
                Code::ForbiddenHost,
                format!(
                    "The host {} is bound to another access key: delete that first.",
                    report.host_id
                ),
            ));
        }
        let detail = json!({ "host_id": report.host_id });
        audit::note(state, cx, "BindAccessKey", &cx.caller.key_id, &detail)?;
    }
    presence::heard(state, cx, &report.host_id)?;
    let applied = i64::try_from(report.applied_version).unwrap_or(i64::MAX);
    // What was applied cannot be more than what there is to apply.
    state
        .prepare_cached(
            "UPDATE agent SET agent_version = ?1, applied_version = min(?2, desired_version) WHERE account_id = ?3 AND host_id = ?4
                 AND (agent_version, applied_version) IS NOT (?1, min(?2, desired_version))",
        )?
        .execute(params![report.agent_version, applied, account, report.host_id])?;
    Ok(())
}

/// The host to which the caller's access key is bound.
fn host_of(state: &Transaction<'_>, cx: &Context) -> Result<Option<String>, ApiError> {
    Ok(state
        .prepare_cached("SELECT host_id FROM agent WHERE key_id = ?")?
        .query_row([&cx.caller.key_id], |row| row.get(0))
        .optional()?)
}

/// Takes what the agent says of deliveries. It can speak of flow logs that concern it alone.
fn take_deliveries(
    state: &Transaction<'_>,
    cx: &Context,
    host: &str,
    reports: &[FlowLogReport],
) -> Result<(), ApiError> {
    let account = &cx.caller.account_id;
    let mut named = BTreeSet::new();
    let mut upsert = state.prepare_cached(&format!(
        "INSERT INTO delivery (flow_log_id, account_id, host_id, status, message)
         SELECT id, ?1, ?2, ?4, ?5 FROM flow_log WHERE id = ?3 AND account_id = ?1
            AND EXISTS (SELECT 1 FROM host_resource WHERE host_id = ?2 AND {})
         ON CONFLICT (flow_log_id, account_id, host_id) DO UPDATE SET status = excluded.status, message = excluded.message
         WHERE (status, message) IS NOT (excluded.status, excluded.message)",
        transitions::CONCERNS
    ))?;
    for report in reports {
        named.insert(report.flow_log_id.as_str());
        let message: String = report
            .deliver_error_message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_MESSAGE_CHARS)
            .collect();
        upsert.execute(params![
            account,
            host,
            report.flow_log_id,
            report.deliver_status.as_str(),
            message
        ])?;
    }
    let key = [account.as_str(), host];
    let known: Vec<String> = state
        .prepare_cached("SELECT flow_log_id FROM delivery WHERE account_id = ? AND host_id = ?")?
        .query_map(key, |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut delete = state.prepare_cached(
        "DELETE FROM delivery WHERE account_id = ? AND host_id = ? AND flow_log_id = ?",
    )?;
    for id in known.iter().filter(|id| !named.contains(id.as_str())) {
        delete.execute([account.as_str(), host, id.as_str()])?;
    }
    Ok(())
}

/// Notes that the agent was heard of, and gives the version of its desired state.
///
/// # Errors
/// As of [`version`].
pub fn touch(state: &Transaction<'_>, cx: &Context) -> Result<Version, ApiError> {
    let version = version(state, cx)?;
    if let Some(host) = host_of(state, cx)? {
        presence::heard(state, cx, &host)?;
    }
    Ok(version)
}

/// The version of the agent's desired state.
///
/// # Errors
/// Where it has not reported yet, or where its access key is no longer there or not active: it may have been when the agent began to wait.
pub fn version(state: &Transaction<'_>, cx: &Context) -> Result<Version, ApiError> {
    cx.caller.may(Need::Agent)?;
    access_keys::find_sealed(state, &cx.caller.key_id)?;
    let version: Option<i64> = state
        .prepare_cached("SELECT desired_version FROM agent WHERE key_id = ?")?
        .query_row([&cx.caller.key_id], |row| row.get(0))
        .optional()?;
    version.map(i64::unsigned_abs).ok_or_else(not_reported)
}

fn not_reported() -> ApiError {
    ApiError::new(
        Code::AgentNotReported,
        "This agent has not reported yet, and so has no desired state.",
    )
}

/// What the agent is to do: the flow logs whose resource has an ENI of its host.
///
/// # Errors
/// Where it has not reported yet.
pub fn desired_state(state: &Transaction<'_>, cx: &Context) -> Result<DesiredState, ApiError> {
    cx.caller.may(Need::Agent)?;
    let version: Option<(String, i64)> = state
        .prepare_cached("SELECT host_id, desired_version FROM agent WHERE key_id = ?")?
        .query_row([&cx.caller.key_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (host, version) = version.ok_or_else(not_reported)?;
    let mut statement = state.prepare_cached(&format!(
        // From the host's few resources to their flow logs, not through all flow logs: every agent concerned asks after a change.
        "SELECT id, name, resource_type, resource_id, region, traffic_type, aggregation_interval, ip_version, log_format, project,
             logstore, target, account_id FROM flow_log WHERE target <> 'Gone'
            AND id IN (SELECT flow_log.id FROM host_resource CROSS JOIN flow_log ON {}
                WHERE host_resource.account_id = ?1 AND host_resource.host_id = ?2) ORDER BY id",
        transitions::CONCERNS
    ))?;
    let rows = statement.query_map([&cx.caller.account_id, &host], |row| Ok(desired(row)))?;
    Ok(DesiredState {
        version: version.unsigned_abs(),
        flow_logs: rows
            .map(|row| row.map_err(ApiError::from).and_then(|row| row))
            .collect::<Result<_, _>>()?,
    })
}

fn desired(row: &Row<'_>) -> Result<DesiredFlowLog, ApiError> {
    let text = |column: usize| row.get::<_, String>(column);
    fn spelled<T: std::str::FromStr<Err = flowlog_model::text::InvalidText>>(
        text: &str,
    ) -> Result<T, ApiError> {
        text.parse().map_err(ApiError::internal)
    }
    Ok(DesiredFlowLog {
        flow_log_id: text(0)?,
        name: text(1)?,
        resource_type: spelled(&text(2)?)?,
        resource_id: text(3)?,
        region: text(4)?,
        traffic_type: spelled(&text(5)?)?,
        aggregation_interval: row.get::<_, i64>(6)?.unsigned_abs(),
        ip_version: spelled(&text(7)?)?,
        log_format: Some(text(8)?).filter(|format| !format.is_empty()),
        project: text(9)?,
        logstore: text(10)?,
        status: spelled(&text(11)?)?,
        account_id: text(12)?,
    })
}
