//! The ENIs that agents report, and whose they are.
use std::collections::{BTreeMap, BTreeSet};

use flowlog_model::protocol::{EniReport, RefusedEni, Report};
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde_json::json;

use super::presence::{IS_PRESENT, away_before};
use super::{Context, audit, transitions};
use crate::serve::error::ApiError;

/// The most ENIs that an entry of the audit trail names of each kind.
const MAX_NAMED: usize = 20;

/// What changes with a report: for the audit trail.
#[derive(Debug, Default)]
struct Changes<'r> {
    added: Vec<&'r str>,
    moved: Vec<&'r str>,
    removed: Vec<String>,
    /// Added too: from an agent that is away.
    taken: Vec<String>,
}

/// Takes the ENIs that are the agent's; gives those that are not, and how many are.
///
/// # Errors
/// Of the state.
pub(super) fn take(
    state: &Transaction<'_>,
    cx: &Context,
    report: &Report,
) -> Result<(Vec<RefusedEni>, usize), ApiError> {
    let host = &report.host_id;
    let before = resources_of(state, cx, host)?;
    let mut known = known(state, cx, host)?;
    let mut changes = Changes::default();
    let (mut refused, mut robbed) = (Vec::new(), BTreeSet::new());
    let mut written = 0;
    for eni in &report.enis {
        // Most reports say what the last one said: then nothing is asked of the state, and nothing written.
        if known.get(&eni.eni_id) == Some(&reported(eni)) && eni.account_id == cx.caller.account_id
        {
            known.remove(&eni.eni_id);
            continue;
        }
        let previous = owner(state, cx, eni)?.filter(|(owner, _)| owner != host);
        if let Some(reason) = refusal(cx, eni, previous.as_ref()) {
            refused.push(RefusedEni {
                eni_id: eni.eni_id.clone(),
                reason,
            });
            continue;
        }
        if let Some((owner, _)) = previous {
            changes.taken.push(format!("{} of {owner}", eni.eni_id));
            robbed.insert(owner);
        }
        write(state, cx, host, eni)?;
        written += 1;
        match known.remove(&eni.eni_id) {
            None => changes.added.push(&eni.eni_id),
            Some((place, _)) if place != placed(eni) => changes.moved.push(&eni.eni_id),
            Some(_) => {}
        }
    }
    changes.removed = known.into_keys().collect();
    written += forget(state, cx, &changes.removed)?;
    for host in robbed {
        index(state, cx, &host)?;
        renew(state, cx, &host)?;
    }
    if written > 0 {
        index(state, cx, host)?;
        if resources_of(state, cx, host)? != before {
            renew(state, cx, host)?;
        }
    }
    note(state, cx, host, &changes)?;
    let accepted = report.enis.len() - refused.len();
    Ok((refused, accepted))
}

/// Why an ENI is not the agent's; `owner` is another agent that has it, and whether that is present.
fn refusal(cx: &Context, eni: &EniReport, owner: Option<&(String, bool)>) -> Option<String> {
    if eni.account_id != cx.caller.account_id {
        return Some(format!(
            "it is of the account {}, and the access key is of another",
            eni.account_id
        ));
    }
    let (owner, _) = owner.filter(|(_, is_present)| *is_present)?;
    Some(format!("the agent on {owner} has reported it"))
}

/// Where an ENI is: VSwitch, VPC, VM and region.
type Place = [String; 4];

fn placed(eni: &EniReport) -> Place {
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        eni.vswitch_id.clone(),
        eni.vpc_id.clone(),
        optional(&eni.vm_id),
        optional(&eni.region),
    ]
}

/// Where an ENI is, and whether it is captured.
type Reported = (Place, bool);

fn reported(eni: &EniReport) -> Reported {
    (placed(eni), eni.captured)
}

/// The ENIs that a host has, as they were last reported.
fn known(
    state: &Transaction<'_>,
    cx: &Context,
    host: &str,
) -> Result<BTreeMap<String, Reported>, ApiError> {
    let mut statement = state.prepare_cached(
        "SELECT eni_id, vswitch_id, vpc_id, vm_id, region, captured FROM eni WHERE account_id = ? AND host_id = ?",
    )?;
    let rows = statement.query_map([cx.caller.account_id.as_str(), host], |row| {
        let place = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        Ok((row.get(0)?, (place, row.get(5)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes an ENI that is new or another than before.
fn write(
    state: &Transaction<'_>,
    cx: &Context,
    host: &str,
    eni: &EniReport,
) -> Result<(), ApiError> {
    let mut upsert = state.prepare_cached(
        "INSERT INTO eni (account_id, eni_id, host_id, vswitch_id, vpc_id, vm_id, region, captured) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (account_id, eni_id) DO UPDATE SET host_id = excluded.host_id, vswitch_id = excluded.vswitch_id,
             vpc_id = excluded.vpc_id, vm_id = excluded.vm_id, region = excluded.region, captured = excluded.captured",
    )?;
    let [vswitch, vpc, vm, region] = placed(eni);
    let account = &cx.caller.account_id;
    let values = params![
        account,
        eni.eni_id,
        host,
        vswitch,
        vpc,
        vm,
        region,
        eni.captured
    ];
    upsert.execute(values)?;
    Ok(())
}

/// Whose an ENI is, and whether that agent is not away.
fn owner(
    state: &Transaction<'_>,
    cx: &Context,
    eni: &EniReport,
) -> Result<Option<(String, bool)>, ApiError> {
    Ok(state
        .prepare_cached(&format!(
            "SELECT host_id, {IS_PRESENT} FROM eni JOIN agent USING (account_id, host_id) WHERE account_id = ? AND eni_id = ?",
        ))?
        .query_row(
            params![away_before(cx.uptime_ms, &cx.config), cx.caller.account_id, eni.eni_id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?)
}

/// Forgets ENIs that the agent's host no longer has.
fn forget(state: &Transaction<'_>, cx: &Context, eni_ids: &[String]) -> Result<usize, ApiError> {
    let mut delete = state.prepare_cached("DELETE FROM eni WHERE account_id = ? AND eni_id = ?")?;
    let mut forgotten = 0;
    for eni_id in eni_ids {
        forgotten += delete.execute([&cx.caller.account_id, eni_id])?;
    }
    Ok(forgotten)
}

/// Resources of a host: type, id, region.
type HostResources = BTreeSet<[String; 3]>;

fn resources_of(
    state: &Transaction<'_>,
    cx: &Context,
    host: &str,
) -> Result<HostResources, ApiError> {
    let mut statement = state.prepare_cached(
        "SELECT resource_type, resource_id, region FROM host_resource WHERE account_id = ? AND host_id = ?",
    )?;
    let rows = statement.query_map([cx.caller.account_id.as_str(), host], |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?])
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes `host_resource` of a host anew from its ENIs.
fn index(state: &Transaction<'_>, cx: &Context, host: &str) -> Result<(), ApiError> {
    let key = [cx.caller.account_id.as_str(), host];
    state
        .prepare_cached("DELETE FROM host_resource WHERE account_id = ? AND host_id = ?")?
        .execute(key)?;
    state
        .prepare_cached(
            "INSERT OR IGNORE INTO host_resource (account_id, resource_type, resource_id, host_id, region)
             SELECT account_id, 'NetworkInterface', eni_id, host_id, region FROM eni WHERE account_id = ?1 AND host_id = ?2
             UNION SELECT account_id, 'VSwitch', vswitch_id, host_id, region FROM eni WHERE account_id = ?1 AND host_id = ?2
             UNION SELECT account_id, 'VPC', vpc_id, host_id, region FROM eni WHERE account_id = ?1 AND host_id = ?2",
        )?
        .execute(key)?;
    Ok(())
}

/// The host's ENIs are others than before: its desired state has to be looked at again.
fn renew(state: &Transaction<'_>, cx: &Context, host: &str) -> Result<(), ApiError> {
    let version = transitions::next_version(state, cx.now)?;
    state
        .prepare_cached(
            "UPDATE agent SET desired_version = ? WHERE account_id = ? AND host_id = ?",
        )?
        .execute(params![version, cx.caller.account_id, host])?;
    Ok(())
}

/// Notes what has changed with a report, if anything has.
fn note(
    state: &Transaction<'_>,
    cx: &Context,
    host: &str,
    changes: &Changes<'_>,
) -> Result<(), ApiError> {
    let removed: Vec<&str> = changes.removed.iter().map(String::as_str).collect();
    let taken: Vec<&str> = changes.taken.iter().map(String::as_str).collect();
    let mut detail = serde_json::Map::new();
    for (kind, enis) in [
        ("added", &changes.added),
        ("moved", &changes.moved),
        ("removed", &removed),
        ("taken", &taken),
    ] {
        if let Some(named) = enis
            .get(..enis.len().min(MAX_NAMED))
            .filter(|named| !named.is_empty())
        {
            detail.insert(kind.into(), json!(named));
        }
        if let Some(more) = enis.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            detail.insert(format!("{kind}_and_more"), json!(more));
        }
    }
    if detail.is_empty() {
        return Ok(());
    }
    audit::note(state, cx, "ReportEnis", host, &detail.into())
}
