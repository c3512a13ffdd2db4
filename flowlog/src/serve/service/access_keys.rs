//! Access keys: an id, a secret, an account and a role.
use flowlog_model::flow_log::Status;
use flowlog_model::text::Id;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::json;

use super::{Caller, Context, Need, Role, audit, checked, presence, shown, transitions};
use crate::api;
use crate::serve::error::{ApiError, Code};
use crate::serve::moment::Moment;
use crate::serve::secrets::{MIXED, Seal, random_text};

const ID_PREFIX: &str = "FLAK";
/// Random characters of an id.
const ID_CHARS: usize = 20;
/// Characters of a secret: more than 230 bits.
const SECRET_CHARS: usize = 40;
/// Longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 256;

/// Who a key is, and its sealed secret, to check signatures with.
///
/// # Errors
/// Where there is no such key, or it is not active.
pub fn find_sealed(state: &Transaction<'_>, key_id: &str) -> Result<(Caller, Vec<u8>), ApiError> {
    let found = state
        .prepare_cached("SELECT account_id, role, status, secret FROM access_key WHERE id = ?")?
        .query_row([key_id], |row| {
            let texts: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok((texts, row.get::<_, Vec<u8>>(3)?))
        })
        .optional()?;
    let ([account_id, role, status], sealed) = found.ok_or_else(|| not_found(key_id))?;
    if status != Status::Active.as_str() {
        return Err(ApiError::new(
            Code::AccessKeyInactive,
            format!("The access key {key_id} is not active."),
        ));
    }
    let caller = Caller {
        key_id: key_id.to_owned(),
        account_id,
        role: role.parse().map_err(ApiError::internal)?,
    };
    Ok((caller, sealed))
}

fn not_found(key_id: &str) -> ApiError {
    ApiError::new(
        Code::AccessKeyNotFound,
        format!("There is no access key \"{}\".", shown(key_id)),
    )
}

/// Creates an access key.
///
/// # Errors
/// Where a value is not allowed, or there are too many keys.
pub fn create(
    state: &Transaction<'_>,
    cx: &Context,
    seal: &Seal,
    asked: &api::CreateAccessKey,
) -> Result<api::CreatedAccessKey, ApiError> {
    cx.caller.may(Need::Change)?;
    let role: Role = checked::text("role", &asked.role)?;
    if asked.description.chars().count() > MAX_DESCRIPTION_CHARS
        || asked.description.contains(char::is_control)
    {
        return Err(ApiError::invalid(
            "description",
            "allowed are at most 256 characters",
        ));
    }
    let account_id = match &asked.account_id {
        Some(id) => checked::text::<Id>("account_id", id)?.to_string(),
        None => cx.caller.account_id.clone(),
    };
    if account_id != cx.caller.account_id && cx.caller.account_id != cx.config.account_id {
        return Err(ApiError::new(
            Code::ForbiddenRole,
            "An administrator makes access keys of other accounts only in the service's own account.",
        ));
    }
    let count: i64 = state.query_row(
        "SELECT count(*) FROM access_key WHERE account_id = ?",
        [&account_id],
        |row| row.get(0),
    )?;
    if count.unsigned_abs() >= cx.config.access_keys_per_account {
        let message =
            format!("The account {account_id} has {count} access keys, and no more are allowed.");
        return Err(ApiError::new(Code::QuotaAccessKeys, message));
    }
    let created = api::CreatedAccessKey {
        id: format!("{ID_PREFIX}{}", random_text(MIXED, ID_CHARS)?),
        secret: random_text(MIXED, SECRET_CHARS)?,
        account_id,
        role: role.to_string(),
    };
    state.execute(
        "INSERT INTO access_key (id, account_id, secret, role, status, description, created_at) VALUES (?, ?, ?, ?, 'Active', ?, ?)",
        params![
            created.id,
            created.account_id,
            seal.seal(&created.id, &created.secret)?,
            created.role,
            asked.description,
            cx.now.0,
        ],
    )?;
    let detail = json!({ "role": created.role, "account_id": created.account_id, "description": asked.description });
    audit::note(state, cx, "CreateAccessKey", &created.id, &detail)?;
    Ok(created)
}

const SELECT: &str =
    "SELECT id, access_key.account_id, role, status, description, coalesce(host_id, ''), created_at
    FROM access_key LEFT JOIN agent ON key_id = id WHERE access_key.account_id = ?1";

fn read(row: &Row<'_>) -> rusqlite::Result<api::AccessKey> {
    Ok(api::AccessKey {
        id: row.get(0)?,
        account_id: row.get(1)?,
        role: row.get(2)?,
        status: row.get(3)?,
        description: row.get(4)?,
        host_id: row.get(5)?,
        created_at: Moment(row.get(6)?).rfc3339(),
    })
}

/// The access keys of the account.
///
/// # Errors
/// Of the state.
pub fn list(state: &Transaction<'_>, cx: &Context) -> Result<api::AccessKeys, ApiError> {
    cx.caller.may(Need::Read)?;
    let mut statement = state.prepare_cached(&format!("{SELECT} ORDER BY created_at, id"))?;
    let keys = statement.query_map([&cx.caller.account_id], read)?;
    Ok(api::AccessKeys {
        access_keys: keys.collect::<Result<_, _>>()?,
    })
}

fn find(state: &Transaction<'_>, cx: &Context, id: &str) -> Result<api::AccessKey, ApiError> {
    let found = state
        .prepare_cached(&format!("{SELECT} AND id = ?2"))?
        .query_row([&cx.caller.account_id, id], read)
        .optional()?;
    found.ok_or_else(|| not_found(id))
}

/// Activates or deactivates an access key.
///
/// # Errors
/// Where there is no such key, or it is the last administrator's.
pub fn modify(
    state: &Transaction<'_>,
    cx: &Context,
    id: &str,
    asked: &api::ModifyAccessKey,
) -> Result<api::AccessKey, ApiError> {
    cx.caller.may(Need::Change)?;
    let status: Status = checked::text("status", &asked.status)?;
    let before = find(state, cx, id)?;
    state.execute(
        "UPDATE access_key SET status = ? WHERE id = ?",
        [status.as_str(), id],
    )?;
    keep_an_administrator(state, cx)?;
    let detail = json!({ "from": before.status, "to": status.as_str() });
    audit::note(state, cx, "ModifyAccessKey", id, &detail)?;
    wake(state, cx)?;
    find(state, cx, id)
}

/// Deletes an access key, and, if it is an agent's, what that agent has reported.
///
/// # Errors
/// Where there is no such key, or it is the last administrator's.
pub fn delete(state: &Transaction<'_>, cx: &Context, id: &str) -> Result<api::AccessKey, ApiError> {
    cx.caller.may(Need::Change)?;
    let deleted = find(state, cx, id)?;
    state.execute("DELETE FROM access_key WHERE id = ?", [id])?;
    keep_an_administrator(state, cx)?;
    let detail = json!({ "role": deleted.role, "host_id": deleted.host_id });
    audit::note(state, cx, "DeleteAccessKey", id, &detail)?;
    presence::forget(state, cx, &deleted.host_id)?;
    wake(state, cx)?;
    Ok(deleted)
}

/// A new version has those look that wait for a desired state: one of them may have waited with this key.
fn wake(state: &Transaction<'_>, cx: &Context) -> Result<(), ApiError> {
    transitions::next_version(state, cx.now).map(|_| ())
}

/// Nobody may lock the account out.
fn keep_an_administrator(state: &Transaction<'_>, cx: &Context) -> Result<(), ApiError> {
    let left = state
        .prepare_cached(
            "SELECT 1 FROM access_key WHERE account_id = ? AND role = 'administrator' AND status = 'Active' LIMIT 1",
        )?
        .query_row([&cx.caller.account_id], |_| Ok(()))
        .optional()?;
    left.ok_or_else(|| {
        ApiError::new(
            Code::LastAdministrator,
            "It is the only active administrator's access key of the account.",
        )
    })
}
