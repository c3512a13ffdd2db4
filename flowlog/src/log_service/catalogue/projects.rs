//! Projects.
use flowlog_model::managed::Project;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::json;

use super::{Page, Range, check_quota, valid};
use crate::log_service::api::{Code, LogError};
use crate::serve::moment::Moment;
use crate::serve::service::{Context, audit, shown};

/// The most projects of an account.
const MAX_PROJECTS: u64 = 1000;
/// Longest description of a project, in characters.
const MAX_DESCRIPTION_CHARS: usize = 256;

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectEntry {
    /// Its name.
    pub name: String,
    /// The account.
    pub account_id: String,
    /// What it is for; it may be empty.
    pub description: String,
    /// When it was created.
    pub created: Moment,
    /// When its description was changed.
    pub changed: Moment,
}

/// A project of the caller's account.
///
/// # Errors
/// [`Code::ProjectNotExist`]; [`Code::Unauthorized`] if it is another account's.
pub fn project(
    state: &Transaction<'_>,
    cx: &Context,
    name: &str,
) -> Result<ProjectEntry, LogError> {
    let found = state
        .prepare_cached("SELECT name, account_id, description, created_at, changed_at FROM project WHERE name = ?")?
        .query_row([name], read_project)
        .optional()?;
    let found = found.ok_or_else(|| {
        let message = format!("There is no project \"{}\".", shown(name));
        LogError::new(Code::ProjectNotExist, message)
    })?;
    if found.account_id != cx.caller.account_id {
        let message = format!("The project {name} is another account's.");
        return Err(LogError::new(Code::Unauthorized, message));
    }
    Ok(found)
}

fn read_project(row: &Row<'_>) -> rusqlite::Result<ProjectEntry> {
    Ok(ProjectEntry {
        name: row.get(0)?,
        account_id: row.get(1)?,
        description: row.get(2)?,
        created: Moment(row.get(3)?),
        changed: Moment(row.get(4)?),
    })
}

/// Creates a project.
///
/// # Errors
/// [`Code::ProjectAlreadyExist`], [`Code::ParameterInvalid`], [`Code::QuotaExceed`].
pub fn create_project(
    state: &Transaction<'_>,
    cx: &Context,
    name: &str,
    description: &str,
) -> Result<(), LogError> {
    let name: Project = valid("projectName", name)?;
    check_description(description)?;
    let exists = state
        .query_row(
            "SELECT 1 FROM project WHERE name = ?",
            [name.as_str()],
            |_| Ok(()),
        )
        .optional()?;
    if exists.is_some() {
        let message = format!(
            "There is a project {name} already; the name is given once among all accounts."
        );
        return Err(LogError::new(Code::ProjectAlreadyExist, message));
    }
    let count = "SELECT count(*) FROM project WHERE account_id = ?";
    check_quota(
        state,
        count,
        &cx.caller.account_id,
        MAX_PROJECTS,
        "projects of an account",
    )?;
    state.execute(
        "INSERT INTO project (name, account_id, description, created_at, changed_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        params![name.as_str(), cx.caller.account_id, description, cx.now.0],
    )?;
    audit::note(
        state,
        cx,
        "CreateProject",
        name.as_str(),
        &json!({ "description": description }),
    )?;
    Ok(())
}

/// Changes a project's description.
///
/// # Errors
/// As [`project`]; [`Code::ParameterInvalid`].
pub fn update_project(
    state: &Transaction<'_>,
    cx: &Context,
    name: &str,
    description: &str,
) -> Result<(), LogError> {
    project(state, cx, name)?;
    check_description(description)?;
    state.execute(
        "UPDATE project SET description = ?, changed_at = ? WHERE name = ?",
        params![description, cx.now.0, name],
    )?;
    audit::note(
        state,
        cx,
        "UpdateProject",
        name,
        &json!({ "description": description }),
    )?;
    Ok(())
}

/// Lists the projects of the account.
///
/// # Errors
/// Of the state.
pub fn projects(
    state: &Transaction<'_>,
    cx: &Context,
    range: Range<'_>,
) -> Result<Page<ProjectEntry>, LogError> {
    let account = &cx.caller.account_id;
    let total: i64 = state.query_row(
        "SELECT count(*) FROM project WHERE account_id = ? AND instr(name, ?)",
        [account, range.name],
        |row| row.get(0),
    )?;
    let mut select = state.prepare_cached(
        "SELECT name, account_id, description, created_at, changed_at FROM project
        WHERE account_id = ? AND instr(name, ?) ORDER BY name LIMIT ? OFFSET ?",
    )?;
    let entries = select
        .query_map(
            params![account, range.name, range.size, range.offset],
            read_project,
        )?
        .collect::<Result<_, _>>()?;
    Ok(Page {
        entries,
        total: total.unsigned_abs(),
    })
}

/// Removes a project, whose logstores are all gone.
///
/// # Errors
/// As [`project`]; [`Code::ServerBusy`] where a logstore was created meanwhile.
pub fn remove_project(state: &Transaction<'_>, cx: &Context, name: &str) -> Result<(), LogError> {
    project(state, cx, name)?;
    let left = state
        .query_row(
            "SELECT 1 FROM logstore WHERE project = ? LIMIT 1",
            [name],
            |_| Ok(()),
        )
        .optional()?;
    if left.is_some() {
        let message = format!("A logstore was created in the project {name} meanwhile: try again.");
        return Err(LogError::new(Code::ServerBusy, message));
    }
    state.execute("DELETE FROM project WHERE name = ?", [name])?;
    audit::note(state, cx, "DeleteProject", name, &json!({}))?;
    Ok(())
}

fn check_description(description: &str) -> Result<(), LogError> {
    if description.chars().count() > MAX_DESCRIPTION_CHARS {
        let clause = format_args!("allowed are {MAX_DESCRIPTION_CHARS} characters");
        return Err(LogError::parameter("description", clause));
    }
    Ok(())
}
