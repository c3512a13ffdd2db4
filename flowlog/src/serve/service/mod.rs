//! What the service does, whichever face it is asked by: each operation is a function of a transaction, who asks, and what is asked.
//!
//! | module | what it holds |
//! |---|---|
//! | [`flow_logs`] | creating, describing and changing flow logs |
//! | [`checked`] | what is asked, held against the rules |
//! | [`tags`] | tags and resource groups |
//! | [`transitions`] | versions of the desired state, and states that follow the agents |
//! | [`agents`], [`enis`] | reports and desired states |
//! | [`presence`] | which agents were heard of lately |
//! | [`resources`] | what is known of the network, and the agents |
//! | [`access_keys`] | access keys |
//! | [`audit`] | who changed what |
pub mod access_keys;
pub mod agents;
pub mod audit;
pub mod checked;
mod enis;
pub mod flow_logs;
pub mod presence;
pub mod resources;
pub mod tags;
#[cfg(test)]
mod tests;
pub mod transitions;

use std::sync::Arc;

use flowlog_model::spelled_enum;
use rusqlite::{OptionalExtension as _, Transaction};

use super::config::Config;
use super::error::{ApiError, Code};
use super::moment::Moment;
use crate::api;

spelled_enum! {
    /// What an access key may do.
    pub enum Role {
        /// Everything but what agents do.
        Administrator = "administrator",
        /// Reading.
        Reader = "reader",
        /// Reporting, and following the desired state.
        Agent = "agent",
    }
}

/// What an operation needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To read what is the account's.
    Read,
    /// To change it.
    Change,
    /// To speak the agent protocol.
    Agent,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The access key.
    pub key_id: String,
    /// Its account: all that the caller sees is of this account.
    pub account_id: String,
    /// Its role.
    pub role: Role,
}

impl Caller {
    /// Checks that the caller may do it.
    ///
    /// # Errors
    /// [`Code::ForbiddenRole`].
    pub fn may(&self, need: Need) -> Result<(), ApiError> {
        let allowed = match need {
            Need::Read => self.role != Role::Agent,
            Need::Change => self.role == Role::Administrator,
            Need::Agent => self.role == Role::Agent,
        };
        if allowed {
            return Ok(());
        }
        let message = format!("An access key of the role {} may not do this.", self.role);
        Err(ApiError::new(Code::ForbiddenRole, message))
    }
}

/// A request, as operations know it.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who asks.
    pub caller: Caller,
    /// When.
    pub now: Moment,
    /// The request's id.
    pub request_id: String,
    /// The configuration.
    pub config: Arc<Config>,
    /// How long the service has run, in milliseconds, by a clock that nobody sets: presence is measured by it.
    pub uptime_ms: i64,
}

impl Context {
    /// The region that is meant.
    ///
    /// # Errors
    /// Where there is no such region.
    pub fn region(&self, given: Option<&str>) -> Result<String, ApiError> {
        let region = given.unwrap_or(&self.config.default_region);
        let regions = &self.config.regions;
        if region.parse::<flowlog_model::text::Id>().is_err()
            || !(regions.is_empty() || regions.iter().any(|known| known == region))
        {
            return Err(ApiError::new(
                Code::RegionNotFound,
                format!("There is no region \"{}\".", shown(region)),
            ));
        }
        Ok(region.to_owned())
    }

    /// Whether the account may use one region more than it does. Where any region is taken, the quotas of each would be none without this.
    ///
    /// # Errors
    /// [`Code::QuotaRegions`].
    fn check_regions(&self, used: i64) -> Result<(), ApiError> {
        let quota = self.config.regions_per_account;
        if !self.config.regions.is_empty() || used.unsigned_abs() < quota {
            return Ok(());
        }
        let message = format!("The account uses {used} regions, and the quota allows {quota}.");
        Err(ApiError::new(Code::QuotaRegions, message))
    }
}

/// A text of a client as a message repeats it: short, on one line.
#[must_use]
pub fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    let short: String = text.chars().take(MAX_CHARS).collect();
    short.escape_debug().to_string()
}

/// Whether the account has opened the service in a region.
///
/// # Errors
/// Of the region or the state.
pub fn service(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
) -> Result<api::Service, ApiError> {
    cx.caller.may(Need::Read)?;
    let region = cx.region(region)?;
    let opened = state
        .prepare_cached("SELECT 1 FROM service WHERE account_id = ? AND region = ?")?
        .query_row([&cx.caller.account_id, &region], |_| Ok(()))
        .optional()?;
    Ok(api::Service {
        enabled: opened.is_some(),
    })
}

/// Opens the service in a region for the account. Nothing but [`service`] depends on it: there is nothing to pay for.
///
/// # Errors
/// [`Code::ServiceOpen`] where it is open; of the region or the state.
pub fn open_service(
    state: &Transaction<'_>,
    cx: &Context,
    region: Option<&str>,
) -> Result<api::Service, ApiError> {
    cx.caller.may(Need::Change)?;
    let region = cx.region(region)?;
    let opened = state.execute(
        "INSERT OR IGNORE INTO service (account_id, region, opened_at) VALUES (?, ?, ?)",
        (&cx.caller.account_id, &region, cx.now.0),
    )?;
    if opened == 0 {
        return Err(ApiError::new(
            Code::ServiceOpen,
            format!("The service is open in the region {region} already."),
        ));
    }
    let before: i64 = state.query_row(
        "SELECT count(*) - 1 FROM service WHERE account_id = ?",
        [&cx.caller.account_id],
        |row| row.get(0),
    )?;
    cx.check_regions(before)?;
    audit::note(
        state,
        cx,
        "OpenFlowLogService",
        &region,
        &serde_json::json!({}),
    )?;
    Ok(api::Service { enabled: true })
}
