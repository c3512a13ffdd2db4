//! What is known of an account's network: ENIs, VSwitches and VPCs that agents have reported, and the agents.
use rusqlite::{Transaction, params};

use super::presence::{IS_PRESENT, LAST_SEEN, away_before};
use super::{Context, Need};
use crate::api;
use crate::serve::error::ApiError;
use crate::serve::moment::Moment;

/// What agents have reported.
///
/// # Errors
/// Of the state.
pub fn resources(state: &Transaction<'_>, cx: &Context) -> Result<api::Resources, ApiError> {
    cx.caller.may(Need::Read)?;
    let account = &cx.caller.account_id;
    let vpcs = state
        .prepare_cached(
            "SELECT vpc_id, count(DISTINCT vswitch_id), count(*) FROM eni WHERE account_id = ? GROUP BY vpc_id ORDER BY vpc_id",
        )?
        .query_map([account], |row| {
            Ok(api::Vpc {
                id: row.get(0)?,
                vswitches: row.get::<_, i64>(1)?.unsigned_abs(),
                enis: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })?
        .collect::<Result<_, _>>()?;
    let vswitches = state
        .prepare_cached(
            "SELECT vswitch_id, min(vpc_id), count(*) FROM eni WHERE account_id = ? GROUP BY vswitch_id ORDER BY vswitch_id",
        )?
        .query_map([account], |row| {
            Ok(api::VSwitch {
                id: row.get(0)?,
                vpc_id: row.get(1)?,
                enis: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })?
        .collect::<Result<_, _>>()?;
    let enis = state
        .prepare_cached(
            "SELECT eni_id, vswitch_id, vpc_id, vm_id, region, host_id, captured FROM eni WHERE account_id = ? ORDER BY eni_id",
        )?
        .query_map([account], |row| {
            Ok(api::Eni {
                id: row.get(0)?,
                vswitch_id: row.get(1)?,
                vpc_id: row.get(2)?,
                vm_id: row.get(3)?,
                region: row.get(4)?,
                host_id: row.get(5)?,
                captured: row.get(6)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(api::Resources {
        vpcs,
        vswitches,
        enis,
    })
}

/// The agents.
///
/// # Errors
/// Of the state.
pub fn agents(state: &Transaction<'_>, cx: &Context) -> Result<api::Agents, ApiError> {
    cx.caller.may(Need::Read)?;
    let mut statement = state.prepare_cached(&format!(
        "SELECT host_id, agent_version, key_id, applied_version, desired_version, {LAST_SEEN}, {IS_PRESENT},
             (SELECT count(*) FROM eni WHERE eni.account_id = agent.account_id AND eni.host_id = agent.host_id)
         FROM agent WHERE account_id = ? ORDER BY host_id",
    ))?;
    let away_before = away_before(cx.uptime_ms, &cx.config);
    let rows = statement.query_map(params![away_before, cx.caller.account_id], |row| {
        Ok(api::Agent {
            host_id: row.get(0)?,
            version: row.get(1)?,
            access_key_id: row.get(2)?,
            applied_version: row.get::<_, i64>(3)?.unsigned_abs(),
            desired_version: row.get::<_, i64>(4)?.unsigned_abs(),
            last_seen: Moment(row.get(5)?).rfc3339(),
            present: row.get(6)?,
            enis: row.get::<_, i64>(7)?.unsigned_abs(),
        })
    })?;
    Ok(api::Agents {
        agents: rows.collect::<Result<_, _>>()?,
    })
}
