//! Which agents are present: those that were heard of lately.
//!
//! Agents are heard of all the time, so this is kept in memory (a temporary table of the state's connection), and measured by how long the
//! service has run: neither costs a sync of the disk, and a wall clock that is set makes no agent go away or stay. The state has the
//! moment too, for people and for after a restart, written every few minutes.
use rusqlite::{Transaction, params};

use super::Context;
use crate::serve::config::Config;
use crate::serve::error::ApiError;

/// The table; the connection makes it when it is opened.
pub const TABLE: &str = "CREATE TEMP TABLE presence (
    account_id TEXT NOT NULL,
    host_id TEXT NOT NULL,
    -- How long the service had run, in milliseconds.
    heard_ms INTEGER NOT NULL,
    -- By the wall clock, in Unix milliseconds.
    heard_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, host_id)
) STRICT, WITHOUT ROWID";

/// How far the state's moment may be behind, in milliseconds.
const STORED_EVERY_MS: i64 = 5 * 60 * 1000;

/// Whether an `agent` is present: a condition with one value, that of [`away_before`]. One that was not heard of since the service
/// started is as if it was heard of then, for it must have the time to come back.
pub(crate) const IS_PRESENT: &str = "coalesce((SELECT heard_ms FROM presence
    WHERE presence.account_id = agent.account_id AND presence.host_id = agent.host_id), 0) >= ?";

/// When an `agent` was last heard of, by the wall clock.
pub(super) const LAST_SEEN: &str = "coalesce((SELECT heard_at FROM presence
    WHERE presence.account_id = agent.account_id AND presence.host_id = agent.host_id), last_seen)";

/// Agents that were not heard of since the service had run for so long, in milliseconds, are away.
#[must_use]
pub const fn away_before(uptime_ms: i64, config: &Config) -> i64 {
    uptime_ms.saturating_sub(config.agent_away_ms)
}

/// Notes that the caller's agent is heard of.
///
/// # Errors
/// Of the state.
pub(super) fn heard(state: &Transaction<'_>, cx: &Context, host: &str) -> Result<(), ApiError> {
    let account = &cx.caller.account_id;
    state
        .prepare_cached(
            "INSERT INTO presence (account_id, host_id, heard_ms, heard_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (account_id, host_id) DO UPDATE SET heard_ms = max(heard_ms, excluded.heard_ms), heard_at = excluded.heard_at",
        )?
        .execute(params![account, host, cx.uptime_ms, cx.now.0])?;
    state
        .prepare_cached(
            "UPDATE agent SET last_seen = ?1 WHERE account_id = ?2 AND host_id = ?3 AND abs(?1 - last_seen) >= ?4",
        )?
        .execute(params![cx.now.0, account, host, STORED_EVERY_MS])?;
    Ok(())
}

/// Forgets the agent of an access key that is deleted.
///
/// # Errors
/// Of the state.
pub(super) fn forget(state: &Transaction<'_>, cx: &Context, host: &str) -> Result<(), ApiError> {
    state
        .prepare_cached("DELETE FROM presence WHERE account_id = ? AND host_id = ?")?
        .execute([cx.caller.account_id.as_str(), host])?;
    Ok(())
}
