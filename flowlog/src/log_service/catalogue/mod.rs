//! Projects and logstores, in the service's state. A project belongs to an account, and its name is given once among all accounts.
mod logstores;
mod projects;

use rusqlite::Transaction;

use super::api::{Code, LogError};

pub use logstores::{
    FOR_EVER_DAYS, LogstoreEntry, create_logstore, forget, going, key, logstore, logstores,
    mark_going, retentions, set_index, update_logstore,
};
pub use projects::{
    ProjectEntry, create_project, project, projects, remove_project, update_project,
};

/// A page of a list, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The page, sorted by name.
    pub entries: Vec<T>,
    /// How many there are.
    pub total: u64,
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Range<'r> {
    /// Part of the names.
    pub name: &'r str,
    /// How many are passed over.
    pub offset: u32,
    /// How many at most.
    pub size: u32,
}

fn valid<T: flowlog_model::text::Text>(parameter: &str, text: &str) -> Result<T, LogError> {
    T::from_text(text).ok_or_else(|| LogError::parameter(parameter, T::allowed()))
}

fn check_quota(
    state: &Transaction<'_>,
    count: &str,
    of: &str,
    limit: u64,
    what: &str,
) -> Result<(), LogError> {
    let count: i64 = state.query_row(count, [of], |row| row.get(0))?;
    if count.unsigned_abs() >= limit {
        let message = format!("Allowed are {limit} {what}.");
        return Err(LogError::new(Code::QuotaExceed, message));
    }
    Ok(())
}
