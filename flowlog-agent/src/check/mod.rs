//! `flowlog-agent check`: whether this kernel and this configuration will do, and what each missing thing costs.
//!
//! What can be tried is tried, in a folder of pins and in a network namespace of its own, which are gone afterwards; a running agent
//! is not disturbed.
mod attach;
mod host;
mod kernel;
mod memory;
mod probe;
mod spool;

use std::{path::Path, process::ExitCode};

use flowlog_model::inventory::{Hook, Inventory};
use serde::Serialize;

use crate::{
    agent::{AgentError, load_inventory},
    cli::EXIT_CONFIGURATION,
    config::{CaptureConfig, Config},
    report::{self, DEFAULT_CONFIG, ReportForm},
};

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// The agent runs, but something is amiss or missed.
    Warn,
    /// The agent does not run.
    Fail,
}

impl Status {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: String,
    status: Status,
    found: String,
    /// What it costs that it is so, and what helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    consequence: Option<String>,
}

impl Finding {
    fn new(check: impl Into<String>, status: Status, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status,
            found: found.into(),
            consequence: None,
        }
    }

    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, found)
    }

    fn warn(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, Status::Warn, found)
    }

    fn fail(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(check, Status::Fail, found)
    }

    /// With what it costs, and what helps.
    fn so(self, consequence: impl Into<String>) -> Self {
        Self {
            consequence: Some(consequence.into()),
            ..self
        }
    }
}

#[derive(Serialize)]
struct Report<'f> {
    /// Whether the agent would work.
    works: bool,
    checks: &'f [Finding],
}

/// What the agent is asked to do, as far as it is known.
struct Wishes<'c> {
    capture: CaptureConfig,
    pin_path: &'c Path,
    /// Some ENI is in a named network namespace.
    named_namespaces: bool,
    /// Some ENI is to be counted by XDP.
    xdp: bool,
}

/// Checks, prints what was found, and gives the exit code: 0 if the agent would work, 1 if not, 64 for a bad configuration.
pub(crate) fn run(config_path: Option<&Path>, form: ReportForm) -> ExitCode {
    let mut findings = Vec::new();
    let (config, inventory, valid) = match read(config_path, &mut findings) {
        Ok((config, inventory)) => (config, inventory, true),
        Err(error) => {
            let finding = Finding::fail("configuration", error.to_string());
            findings.push(finding.so("what is below was checked with the defaults"));
            (None, None, false)
        }
    };
    let wishes = wishes(config.as_ref(), inventory.as_ref());
    findings.extend(kernel::findings());
    findings.extend(kernel::capabilities(&wishes));
    findings.extend(memory::finding(&wishes.capture));
    findings.extend(probe::findings(&wishes));
    if let Some(config) = &config {
        findings.extend(host::findings(config, inventory.as_ref()));
    }
    let works = findings
        .iter()
        .all(|finding| finding.status != Status::Fail);
    match form {
        ReportForm::Table => print_table(&findings, works),
        ReportForm::Json => report::print_json(&Report {
            works,
            checks: &findings,
        }),
    }
    match (valid, works) {
        (false, _) => ExitCode::from(EXIT_CONFIGURATION),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::FAILURE,
    }
}

fn read(
    path: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> Result<(Option<Config>, Option<Inventory>), AgentError> {
    let Some((path, config)) = report::configuration(path)? else {
        let finding = Finding::warn("configuration", format!("there is no {DEFAULT_CONFIG}"));
        findings.push(finding.so("the kernel was checked with the defaults; name one by --config"));
        return Ok((None, None));
    };
    let found = format!(
        "{}: {}",
        path.display(),
        counted(config.flow_logs.len(), "flow log")
    );
    findings.push(if config.flow_logs.is_empty() {
        Finding::warn("configuration", found).so("without a flow log, nothing is recorded")
    } else {
        Finding::ok("configuration", found)
    });
    let inventory = load_inventory(&config.inventory)?;
    let found = format!(
        "{}: {}",
        config.inventory.display(),
        counted(inventory.entries().len(), "ENI")
    );
    findings.push(if inventory.entries().is_empty() {
        Finding::warn("inventory", found).so("nothing is captured until it has an entry")
    } else {
        Finding::ok("inventory", found)
    });
    Ok((Some(config), Some(inventory)))
}

fn wishes<'c>(config: Option<&'c Config>, inventory: Option<&Inventory>) -> Wishes<'c> {
    let entries = inventory.map(Inventory::entries).unwrap_or_default();
    Wishes {
        capture: config.map(|config| config.capture).unwrap_or_default(),
        pin_path: config.map_or(Path::new(probe::DEFAULT_PIN_PATH), |config| {
            &config.pin_path
        }),
        named_namespaces: inventory.is_some_and(|inventory| !inventory.namespaces().is_empty()),
        xdp: entries.iter().any(|entry| entry.hook == Hook::Xdp),
    }
}

fn print_table(findings: &[Finding], works: bool) {
    let mut table = report::table(["", "CHECK", "FOUND", "WHAT IT MEANS"]);
    for finding in findings {
        table.add_row([
            finding.status.mark(),
            &finding.check,
            &finding.found,
            finding.consequence.as_deref().unwrap_or_default(),
        ]);
    }
    report::print_lines(table.lines());
    report::print_lines(["", &verdict(findings, works)]);
}

fn verdict(findings: &[Finding], works: bool) -> String {
    let count = |status| findings.iter().filter(|f| f.status == status).count();
    match (works, count(Status::Warn)) {
        (true, 0) => "The agent works here.".to_owned(),
        (true, warnings) => format!(
            "The agent works here, with {}.",
            counted(warnings, "warning")
        ),
        (false, _) => format!(
            "The agent does not work here: {}.",
            counted(count(Status::Fail), "failure")
        ),
    }
}

/// A number and its noun.
fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_counts_what_matters() {
        let ok = Finding::ok("a", "");
        let warn = Finding::warn("b", "");
        let fail = Finding::fail("c", "");
        for (findings, works, said) in [
            (vec![ok.clone()], true, "The agent works here."),
            (
                vec![ok.clone(), warn.clone()],
                true,
                "The agent works here, with 1 warning.",
            ),
            (
                vec![ok, warn, fail.clone(), fail],
                false,
                "The agent does not work here: 2 failures.",
            ),
        ] {
            assert_eq!(verdict(&findings, works), said);
        }
    }
}
