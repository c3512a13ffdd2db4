//! Logstores.
//!
//! One is removed in three steps, each of which can be done again: it is marked as going, from when on nobody sees it; its logs are
//! removed; its mark is. So no logs of an earlier logstore come back in a later one of the same name.
use std::collections::HashMap;

use flowlog_model::managed::Logstore;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::{Map, Value, json};

use super::{Page, Range, check_quota, project, valid};
use crate::log_service::api::{Code, LogError};
use crate::log_service::types::LogstoreKey;
use crate::serve::moment::Moment;
use crate::serve::service::{Context, audit, shown};

/// The most logstores of a project.
const MAX_LOGSTORES: u64 = 1000;
/// Longest index, in bytes of JSON.
const MAX_INDEX_BYTES: usize = 256 * 1024;
/// The most days that logs are kept for, which stands for ever.
pub const FOR_EVER_DAYS: u32 = 3650;

/// A logstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogstoreEntry {
    /// Its name.
    pub name: String,
    /// How many days logs are kept for; [`FOR_EVER_DAYS`] is for ever.
    pub ttl_days: u32,
    /// What clients set and read, and what makes no difference here.
    pub options: Map<String, Value>,
    /// How it is searched, as the client said; none where it is not.
    pub index: Option<Value>,
    /// When the index was changed.
    pub index_changed: Moment,
    /// When it was created.
    pub created: Moment,
    /// When it was changed.
    pub changed: Moment,
}

const LOGSTORE: &str = "SELECT name, ttl_days, options, search_index, index_changed_at, created_at, changed_at FROM logstore
    WHERE project = ?1 AND is_going = 0";

fn read_logstore(row: &Row<'_>) -> rusqlite::Result<LogstoreEntry> {
    let (options, index): (String, Option<String>) = (row.get(2)?, row.get(3)?);
    Ok(LogstoreEntry {
        name: row.get(0)?,
        ttl_days: row.get(1)?,
        // What was written is JSON.
        options: serde_json::from_str(&options).unwrap_or_default(),
        index: index.map(|index| serde_json::from_str(&index).unwrap_or_default()),
        index_changed: Moment(row.get(4)?),
        created: Moment(row.get(5)?),
        changed: Moment(row.get(6)?),
    })
}

/// A logstore of a project of the caller's account.
///
/// # Errors
/// As [`project`]; [`Code::LogStoreNotExist`].
pub fn logstore(
    state: &Transaction<'_>,
    cx: &Context,
    project_name: &str,
    name: &str,
) -> Result<LogstoreEntry, LogError> {
    project(state, cx, project_name)?;
    state
        .prepare_cached(&format!("{LOGSTORE} AND name = ?2"))?
        .query_row([project_name, name], read_logstore)
        .optional()?
        .ok_or_else(|| {
            let message = format!(
                "There is no logstore \"{}\" in the project {project_name}.",
                shown(name)
            );
            LogError::new(Code::LogStoreNotExist, message)
        })
}

/// What the data of a logstore is known by.
///
/// # Errors
/// [`Code::ParameterInvalid`] if a name is none.
pub fn key(project: &str, logstore: &str) -> Result<LogstoreKey, LogError> {
    Ok(LogstoreKey {
        project: valid("projectName", project)?,
        logstore: valid("logstoreName", logstore)?,
    })
}

/// Creates a logstore.
///
/// # Errors
/// As [`project`]; [`Code::LogStoreAlreadyExist`], [`Code::ParameterInvalid`], [`Code::QuotaExceed`].
pub fn create_logstore(
    state: &Transaction<'_>,
    cx: &Context,
    project_name: &str,
    name: &str,
    ttl_days: u32,
    options: &Map<String, Value>,
) -> Result<(), LogError> {
    project(state, cx, project_name)?;
    let name: Logstore = valid("logstoreName", name)?;
    check_ttl(ttl_days)?;
    let is_going: Option<bool> = state
        .query_row(
            "SELECT is_going FROM logstore WHERE project = ? AND name = ?",
            [project_name, name.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(is_going) = is_going {
        let (code, what) = if is_going {
            (Code::ServerBusy, "is still being removed: try again")
        } else {
            (Code::LogStoreAlreadyExist, "exists")
        };
        let message = format!("The logstore {name} of the project {project_name} {what}.");
        return Err(LogError::new(code, message));
    }
    let count = "SELECT count(*) FROM logstore WHERE project = ?";
    check_quota(
        state,
        count,
        project_name,
        MAX_LOGSTORES,
        "logstores of a project",
    )?;
    state.execute(
        "INSERT INTO logstore (project, name, ttl_days, options, search_index, index_changed_at, is_going, created_at, changed_at)
        VALUES (?1, ?2, ?3, ?4, NULL, ?5, 0, ?5, ?5)",
        params![project_name, name.as_str(), ttl_days, Value::from(options.clone()).to_string(), cx.now.0],
    )?;
    let detail = json!({ "ttl": ttl_days });
    audit::note(
        state,
        cx,
        "CreateLogStore",
        &format!("{project_name}/{name}"),
        &detail,
    )?;
    Ok(())
}

/// Changes a logstore's retention and what clients set.
///
/// # Errors
/// As [`logstore`]; [`Code::ParameterInvalid`].
pub fn update_logstore(
    state: &Transaction<'_>,
    cx: &Context,
    project_name: &str,
    name: &str,
    ttl_days: Option<u32>,
    options: Map<String, Value>,
) -> Result<(), LogError> {
    let mut entry = logstore(state, cx, project_name, name)?;
    let ttl_days = ttl_days.unwrap_or(entry.ttl_days);
    check_ttl(ttl_days)?;
    entry.options.extend(options);
    state.execute(
        "UPDATE logstore SET ttl_days = ?, options = ?, changed_at = ? WHERE project = ? AND name = ?",
        params![ttl_days, Value::from(entry.options).to_string(), cx.now.0, project_name, name],
    )?;
    let detail = json!({ "ttl": ttl_days, "ttl_before": entry.ttl_days });
    audit::note(
        state,
        cx,
        "UpdateLogStore",
        &format!("{project_name}/{name}"),
        &detail,
    )?;
    Ok(())
}

/// Sets a logstore's index, or removes it.
///
/// # Errors
/// As [`logstore`]; [`Code::ParameterInvalid`]. Whether there is one already is the caller's to check.
pub fn set_index(
    state: &Transaction<'_>,
    cx: &Context,
    project_name: &str,
    name: &str,
    index: Option<&Value>,
) -> Result<(), LogError> {
    logstore(state, cx, project_name, name)?;
    let text = index.map(Value::to_string);
    if text
        .as_ref()
        .is_some_and(|text| text.len() > MAX_INDEX_BYTES)
    {
        let message = format!("Allowed are {MAX_INDEX_BYTES} bytes for an index.");
        return Err(LogError::new(Code::PostBodyTooLarge, message));
    }
    state.execute(
        "UPDATE logstore SET search_index = ?, index_changed_at = ? WHERE project = ? AND name = ?",
        params![text, cx.now.0, project_name, name],
    )?;
    let action = if index.is_some() {
        "SetIndex"
    } else {
        "DeleteIndex"
    };
    audit::note(
        state,
        cx,
        action,
        &format!("{project_name}/{name}"),
        &json!({}),
    )?;
    Ok(())
}

/// Lists the logstores of a project.
///
/// # Errors
/// As [`project`].
pub fn logstores(
    state: &Transaction<'_>,
    cx: &Context,
    project_name: &str,
    range: Range<'_>,
) -> Result<Page<LogstoreEntry>, LogError> {
    project(state, cx, project_name)?;
    let total: i64 = state.query_row(
        "SELECT count(*) FROM logstore WHERE project = ? AND is_going = 0 AND instr(name, ?)",
        [project_name, range.name],
        |row| row.get(0),
    )?;
    let entries = state
        .prepare_cached(&format!(
            "{LOGSTORE} AND instr(name, ?2) ORDER BY name LIMIT ?3 OFFSET ?4"
        ))?
        .query_map(
            params![project_name, range.name, range.size, range.offset],
            read_logstore,
        )?
        .collect::<Result<_, _>>()?;
    Ok(Page {
        entries,
        total: total.unsigned_abs(),
    })
}

/// Marks a logstore as going.
///
/// # Errors
/// As [`logstore`].
pub fn mark_going(
    state: &Transaction<'_>,
    cx: &Context,
    project_name: &str,
    name: &str,
) -> Result<(), LogError> {
    logstore(state, cx, project_name, name)?;
    state.execute(
        "UPDATE logstore SET is_going = 1 WHERE project = ? AND name = ?",
        [project_name, name],
    )?;
    audit::note(
        state,
        cx,
        "DeleteLogStore",
        &format!("{project_name}/{name}"),
        &json!({}),
    )?;
    Ok(())
}

/// The logstores whose logs are still to be removed.
///
/// # Errors
/// Of the state.
pub fn going(state: &Transaction<'_>) -> Result<Vec<(String, String)>, LogError> {
    let mut select =
        state.prepare_cached("SELECT project, name FROM logstore WHERE is_going = 1")?;
    let going = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(going.collect::<Result<_, _>>()?)
}

/// Forgets a logstore that was going, and whose logs are removed.
///
/// # Errors
/// Of the state.
pub fn forget(state: &Transaction<'_>, project_name: &str, name: &str) -> Result<(), LogError> {
    state.execute(
        "DELETE FROM logstore WHERE project = ? AND name = ? AND is_going = 1",
        [project_name, name],
    )?;
    Ok(())
}

/// How many days each logstore keeps its logs for; those that keep them for ever are not in it.
///
/// # Errors
/// Of the state.
pub fn retentions(state: &Transaction<'_>) -> Result<HashMap<LogstoreKey, u32>, LogError> {
    let mut select =
        state.prepare_cached("SELECT project, name, ttl_days FROM logstore WHERE ttl_days < ?")?;
    let rows = select.query_map([FOR_EVER_DAYS], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get(2)?,
        ))
    })?;
    let mut retentions = HashMap::new();
    for row in rows {
        let (project, logstore, ttl_days) = row?;
        retentions.insert(key(&project, &logstore)?, ttl_days);
    }
    Ok(retentions)
}

fn check_ttl(days: u32) -> Result<(), LogError> {
    if !(1..=FOR_EVER_DAYS).contains(&days) {
        let clause = format_args!(
            "allowed are whole numbers of days from 1 to {FOR_EVER_DAYS}, which is for ever"
        );
        return Err(LogError::parameter("ttl", clause));
    }
    Ok(())
}
