//! Versions of the desired state, and the states of flow logs that follow the agents.
//!
//! Every change that agents have to apply gets a version. A flow log keeps the version that first has it as it is, and each agent
//! concerned (one with an ENI of the resource) the version that it is to have. A flow log is on its way while an agent that is
//! concerned and not away has applied a lesser version than the flow log's:
//!
//! | change | status meanwhile | target |
//! |---|---|---|
//! | create, activate | Activating | Active |
//! | deactivate | Deactivating | Inactive |
//! | modify | Modifying | as it was |
//! | delete | Deleting | Gone: then the row is deleted |
//!
//! A version is the moment of the change in milliseconds, or one more than the last: so versions grow also where the state comes
//! from a backup, and an agent's word about a version that the backup has not does not count for a later one.
use flowlog_model::managed::State;
use flowlog_model::spelled_enum;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::presence::{IS_PRESENT, away_before};
use super::{Context, audit};
use crate::serve::error::ApiError;
use crate::serve::moment::Moment;

spelled_enum! {
    /// Where a flow log is going, or is.
    pub enum Target {
        /// It captures.
        Active = "Active",
        /// It is kept.
        Inactive = "Inactive",
        /// It is deleted.
        Gone = "Gone",
    }
}

/// The next version.
///
/// # Errors
/// Of the state.
pub fn next_version(state: &Transaction<'_>, now: Moment) -> Result<i64, ApiError> {
    Ok(state
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES ('version', ?1)
             ON CONFLICT (name) DO UPDATE SET value = max(value + 1, ?1) RETURNING value",
        )?
        .query_row([now.0], |row| row.get(0))?)
}

/// The last version; 0 before the first.
///
/// # Errors
/// Of the state.
pub fn version(state: &Transaction<'_>) -> Result<i64, ApiError> {
    let version = state
        .prepare_cached("SELECT value FROM meta WHERE name = 'version'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(version.unwrap_or(0))
}

/// The agents that have an ENI of the flow log's resource: a condition on `flow_log` and `host_resource`.
pub(super) const CONCERNS: &str = "host_resource.account_id = flow_log.account_id
    AND host_resource.resource_type = flow_log.resource_type
    AND host_resource.resource_id = flow_log.resource_id
    AND host_resource.region IN ('', flow_log.region)";

/// Sends a flow log on its way: the agents concerned are to have the new version. Nobody may be concerned, or all away: then
/// it has arrived at once.
///
/// # Errors
/// Of the state.
pub fn begin(
    state: &Transaction<'_>,
    cx: &Context,
    flow_log_id: &str,
    status: State,
    target: Target,
) -> Result<(), ApiError> {
    let version = next_version(state, cx.now)?;
    state
        .prepare_cached("UPDATE flow_log SET status = ?, target = ?, version = ? WHERE id = ?")?
        .execute(params![
            status.as_str(),
            target.as_str(),
            version,
            flow_log_id
        ])?;
    tell(state, flow_log_id, version)?;
    settle(state, cx)
}

/// The agents concerned are to have this version.
///
/// # Errors
/// Of the state.
pub fn tell(state: &Transaction<'_>, flow_log_id: &str, version: i64) -> Result<(), ApiError> {
    state
        .prepare_cached(&format!(
            "UPDATE agent SET desired_version = ?1 FROM flow_log, host_resource
             WHERE flow_log.id = ?2 AND {CONCERNS}
               AND agent.account_id = host_resource.account_id AND agent.host_id = host_resource.host_id"
        ))?
        .execute(params![version, flow_log_id])?;
    Ok(())
}

/// Whether any flow log is on its way: what [`settle`] may have to do.
///
/// # Errors
/// Of the state.
pub fn any(state: &Transaction<'_>) -> Result<bool, ApiError> {
    Ok(state
        .prepare_cached("SELECT 1 FROM flow_log WHERE status <> target LIMIT 1")?
        .query_row([], |_| Ok(()))
        .optional()?
        .is_some())
}

/// Lets every flow log arrive that no agent keeps waiting.
///
/// # Errors
/// Of the state.
pub fn settle(state: &Transaction<'_>, cx: &Context) -> Result<(), ApiError> {
    let mut statement = state.prepare_cached(&format!(
        "SELECT id, account_id, status, target FROM flow_log WHERE status <> target AND NOT EXISTS (
             SELECT 1 FROM host_resource JOIN agent USING (account_id, host_id)
             WHERE {CONCERNS} AND agent.applied_version < flow_log.version AND {IS_PRESENT})"
    ))?;
    let arrived: Vec<[String; 4]> = statement
        .query_map([away_before(cx.uptime_ms, &cx.config)], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        })?
        .collect::<Result<_, _>>()?;
    for [id, account_id, from, to] in arrived {
        if to == Target::Gone.as_str() {
            state.execute("DELETE FROM flow_log WHERE id = ?", [&id])?;
        } else {
            state.execute("UPDATE flow_log SET status = target WHERE id = ?", [&id])?;
        }
        let mut arrival = cx.clone();
        // Another account's request is nothing to this one.
        if account_id != cx.caller.account_id {
            arrival.request_id.clear();
        }
        arrival.caller.account_id = account_id;
        arrival.caller.key_id = "service".into();
        audit::note(
            state,
            &arrival,
            "FlowLogArrived",
            &id,
            &serde_json::json!({ "from": from, "to": to }),
        )?;
    }
    Ok(())
}
