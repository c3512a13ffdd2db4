//! Tags and resource groups of flow logs.
use std::collections::BTreeMap;

use flowlog_model::managed::{MAX_TAGS, TagKey, TagValue};
use flowlog_model::text::Id;
use rusqlite::Transaction;
use serde_json::json;

use super::{Context, Need, audit, checked, flow_logs};
use crate::api;
use crate::serve::error::ApiError;

/// The tags of a flow log.
///
/// # Errors
/// Of the state.
pub fn of(
    state: &Transaction<'_>,
    flow_log_id: &str,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut statement =
        state.prepare_cached("SELECT key, value FROM tag WHERE flow_log_id = ? ORDER BY key")?;
    let tags = statement.query_map([flow_log_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(tags.collect::<Result<_, _>>()?)
}

/// Sets tags, replacing those with the same keys.
///
/// # Errors
/// Where there would be more than a flow log can have.
pub fn set(
    state: &Transaction<'_>,
    flow_log_id: &str,
    tags: &[(TagKey, TagValue)],
) -> Result<(), ApiError> {
    let mut insert = state.prepare_cached(
        "INSERT INTO tag (flow_log_id, key, value) VALUES (?, ?, ?)
         ON CONFLICT (flow_log_id, key) DO UPDATE SET value = excluded.value",
    )?;
    for (key, value) in tags {
        insert.execute([flow_log_id, key.as_str(), value.as_str()])?;
    }
    if of(state, flow_log_id)?.len() > MAX_TAGS {
        return Err(checked::too_many_tags());
    }
    Ok(())
}

/// Changes the tags of flow logs: first some are removed, then some are set. All change, or none.
///
/// # Errors
/// Where a flow log is not there, a tag is not allowed, or there would be too many.
pub fn change(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    ids: &[&str],
    asked: &api::ChangeTags,
) -> Result<(), ApiError> {
    cx.caller.may(Need::Change)?;
    let tags = checked::tags(
        asked
            .set
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )?;
    for id in ids {
        let before = flow_logs::find(state, cx, region, id)?;
        for key in &asked.remove {
            state
                .prepare_cached("DELETE FROM tag WHERE flow_log_id = ? AND key = ?")?
                .execute([id, key.as_str()])?;
        }
        set(state, id, &tags)?;
        let detail = json!({ "from": before.tags, "to": of(state, id)? });
        audit::note(state, cx, "ChangeTags", id, &detail)?;
    }
    Ok(())
}

/// Moves a flow log to another resource group.
///
/// # Errors
/// Where the flow log is not there, or the group's id is not allowed.
pub fn move_resource_group(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
    id: &str,
    group: &str,
) -> Result<api::FlowLog, ApiError> {
    cx.caller.may(Need::Change)?;
    let group: Id = checked::text("NewResourceGroupId", group)?;
    let before = flow_logs::find(state, cx, region, id)?;
    state
        .prepare_cached("UPDATE flow_log SET resource_group = ? WHERE id = ?")?
        .execute([group.as_str(), id])?;
    let detail = json!({ "from": before.resource_group, "to": group.as_str() });
    audit::note(state, cx, "MoveResourceGroup", id, &detail)?;
    flow_logs::find(state, cx, None, id)
}

/// A tag of a flow log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The flow log.
    pub flow_log_id: String,
    /// The tag's key.
    pub key: String,
    /// The tag's value.
    pub value: String,
}

/// Lists tags of the account's flow logs in a region, sorted by flow log and key, after a place, at most `limit`.
///
/// # Errors
/// Of the region or the state.
pub fn list(
    state: &Transaction<'_>,
    cx: &Context,
    region: &str,
    after: (&str, &str),
    limit: usize,
    wanted: impl Fn(&Tagged) -> bool,
) -> Result<Vec<Tagged>, ApiError> {
    cx.caller.may(Need::Read)?;
    let region = cx.region(Some(region))?;
    let mut statement = state.prepare_cached(
        "SELECT id, key, value FROM flow_log JOIN tag ON flow_log_id = id
         WHERE account_id = ?1 AND region = ?2 AND (id, key) > (?3, ?4) ORDER BY id, key",
    )?;
    let rows = statement.query_map(
        [
            cx.caller.account_id.as_str(),
            region.as_str(),
            after.0,
            after.1,
        ],
        |row| {
            Ok(Tagged {
                flow_log_id: row.get(0)?,
                key: row.get(1)?,
                value: row.get(2)?,
            })
        },
    )?;
    let mut tags = Vec::new();
    for tag in rows {
        let tag = tag?;
        if wanted(&tag) {
            tags.push(tag);
        }
        if tags.len() == limit {
            break;
        }
    }
    Ok(tags)
}
