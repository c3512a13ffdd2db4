//! The audit trail: every change, with who made it, when and in which request.
use rusqlite::{Transaction, params};

use super::{Context, Need};
use crate::api;
use crate::serve::error::ApiError;
use crate::serve::moment::Moment;

/// How many entries beyond the limit are removed with each new one, so that a lowered limit is reached without a long pause.
const REMOVED_AT_ONCE: i64 = 100;

/// Notes a change; it is part of the same transaction.
///
/// # Errors
/// Of the state.
pub fn note(
    state: &Transaction<'_>,
    cx: &Context,
    action: &str,
    resource_id: &str,
    detail: &serde_json::Value,
) -> Result<(), ApiError> {
    state
        .prepare_cached(
            "INSERT INTO audit (at, account_id, key_id, action, resource_id, request_id, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            cx.now.0,
            cx.caller.account_id,
            cx.caller.key_id,
            action,
            resource_id,
            cx.request_id,
            detail.to_string(),
        ])?;
    trim(state, cx)
}

/// Removes the account's oldest entries beyond the limit. How many it has stands in `meta`, for counting them would take long.
fn trim(state: &Transaction<'_>, cx: &Context) -> Result<(), ApiError> {
    let account = &cx.caller.account_id;
    let counter = format!("audit-entries {account}");
    let count: i64 = state
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, (SELECT count(*) FROM audit WHERE account_id = ?2))
             ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
        )?
        .query_row([&counter, account], |row| row.get(0))?;
    let most = i64::try_from(cx.config.audit_entries_per_account).unwrap_or(i64::MAX);
    let over = count.saturating_sub(most).min(REMOVED_AT_ONCE);
    if over <= 0 {
        return Ok(());
    }
    let removed = state
        .prepare_cached(
            "DELETE FROM audit WHERE number IN (SELECT number FROM audit WHERE account_id = ? ORDER BY number LIMIT ?)",
        )?
        .execute(params![account, over])?;
    state
        .prepare_cached("UPDATE meta SET value = value - ? WHERE name = ?")?
        .execute(params![i64::try_from(removed).unwrap_or(0), counter])?;
    Ok(())
}

/// Lists changes of the account, the newest first.
///
/// # Errors
/// Where the filter is not valid; of the state.
pub fn list(
    state: &Transaction<'_>,
    cx: &Context,
    filter: &api::AuditFilter,
) -> Result<api::Audit, ApiError> {
    cx.caller.may(Need::Read)?;
    let limit = filter.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(ApiError::invalid(
            "limit",
            "allowed are whole numbers from 1 to 1000",
        ));
    }
    let before = filter
        .before
        .map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    let mut statement = state.prepare_cached(
        "SELECT number, at, key_id, action, resource_id, request_id, detail FROM audit
         WHERE account_id = ?1 AND number < ?2 AND (?3 IS NULL OR resource_id = ?3) ORDER BY number DESC LIMIT ?4",
    )?;
    let rows = statement.query_map(
        params![
            cx.caller.account_id,
            before,
            filter.resource_id,
            i64::try_from(limit).unwrap_or(1)
        ],
        |row| {
            Ok(api::AuditEntry {
                number: row.get::<_, i64>(0)?.unsigned_abs(),
                at: Moment(row.get(1)?).rfc3339(),
                access_key_id: row.get(2)?,
                action: row.get(3)?,
                resource_id: row.get(4)?,
                request_id: row.get(5)?,
                detail: row.get(6)?,
            })
        },
    )?;
    Ok(api::Audit {
        entries: rows.collect::<Result<_, _>>()?,
    })
}
