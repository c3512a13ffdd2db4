//! From the kernel to the service's disk: a million flows of a real agent, in a window that is closed by the agent's end.
//!
//! The time is from the signal to the end, which is when the last put is answered. Reading the kernel's counters and writing the spool
//! are part of it.
use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Runtime;

use super::served::{LOGSTORE, PROJECT, Service};
use crate::{
    agent::{Agent, FLOWS, flood},
    setting::Link,
};

/// What it took.
pub(super) struct Shipped {
    /// That the service had when the agent had ended.
    pub(super) records: f64,
    pub(super) seconds: f64,
    /// Of the service, in MiB.
    pub(super) peak_mib: f64,
}

pub(super) fn measure(runtime: &Runtime, folder: &Path) -> Result<Shipped> {
    let service = runtime.block_on(Service::start(folder))?;
    let link = Link::new()?;
    let of_agent = folder.with_extension("agent");
    fs::create_dir_all(&of_agent)?;
    let agent = Agent::start(
        &link,
        &of_agent,
        &format!(
            "destination = {{ type = \"log-service\", endpoint = \"{}\", project = \"{PROJECT}\", logstore = \"{LOGSTORE}\", access-key-file = \"{}\" }}",
            service.url,
            service.access_key.display(),
        ),
    )?;
    let sent = flood(&link)?;
    let begun = Instant::now();
    agent.stop()?;
    let seconds = begun.elapsed().as_secs_f64();
    let found = "log-status: OK | SELECT count(1) AS records, sum(packets) AS packets";
    let found = runtime.block_on(service.ask(found))?;
    let number = |name: &str| -> Result<f64> {
        let number = found[name].as_str().context("a number")?;
        Ok(number.parse()?)
    };
    // The agent's end waits for no more than 10 s: what is left then is in its spool.
    let records = number("records")?;
    if records >= f64::from(FLOWS) && number("packets")? != sent as f64 {
        bail!("{sent} packets were sent, but the service has {found}");
    }
    Ok(Shipped {
        records,
        seconds,
        peak_mib: service.peak_mib()?,
    })
}
