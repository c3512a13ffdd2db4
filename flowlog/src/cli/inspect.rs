//! `flowlog resources`, `flowlog agents` and `flowlog audit`: what the service knows.
use super::{
    CliError,
    output::{OutputForm, or_dash, print, table},
    session::Session,
};
use crate::api::{Agents, Audit, AuditFilter, Resources};

#[derive(Debug, clap::Args)]
pub(super) struct AuditOptions {
    /// Only changes of this flow log or access key.
    #[arg(long, value_name = "ID")]
    resource: Option<String>,
    /// Only changes with smaller numbers, to go on where the last list ended.
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// At most this many: 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

/// The VPCs, VSwitches and ENIs.
pub(super) fn resources(session: &Session, form: OutputForm) -> Result<(), CliError> {
    let resources: Resources = session.get("/resources", &())?;
    print(form, &resources, || resource_lines(&resources));
    Ok(())
}

fn resource_lines(resources: &Resources) -> Vec<String> {
    let Resources {
        vpcs,
        vswitches,
        enis,
    } = resources;
    if enis.is_empty() {
        return vec!["No agent has reported an ENI yet.".to_owned()];
    }
    let mut of_vpcs = table(["VPC", "VSWITCHES", "ENIS"]);
    for vpc in vpcs {
        let counts = [vpc.vswitches.to_string(), vpc.enis.to_string()];
        let [vswitches, enis] = counts;
        of_vpcs.add_row([vpc.id.clone(), vswitches, enis]);
    }
    let mut of_vswitches = table(["VSWITCH", "VPC", "ENIS"]);
    for vswitch in vswitches {
        of_vswitches.add_row([
            vswitch.id.clone(),
            vswitch.vpc_id.clone(),
            vswitch.enis.to_string(),
        ]);
    }
    let mut of_enis = table(["ENI", "VSWITCH", "VPC", "VM", "HOST", "STATE"]);
    for eni in enis {
        let state = if eni.captured {
            "captured"
        } else {
            "not captured"
        };
        of_enis.add_row([
            eni.id.clone(),
            eni.vswitch_id.clone(),
            eni.vpc_id.clone(),
            or_dash(&eni.vm_id),
            eni.host_id.clone(),
            state.to_owned(),
        ]);
    }
    [of_vpcs, of_vswitches, of_enis]
        .iter()
        .map(|table| table.lines().collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .join(&String::new())
}

/// The agents.
pub(super) fn agents(session: &Session, form: OutputForm) -> Result<(), CliError> {
    let agents: Agents = session.get("/agents", &())?;
    print(form, &agents, || agent_lines(&agents));
    Ok(())
}

fn agent_lines(agents: &Agents) -> Vec<String> {
    if agents.agents.is_empty() {
        return vec!["No agent has reported yet.".to_owned()];
    }
    let mut table = table([
        "HOST",
        "VERSION",
        "ACCESS KEY",
        "ENIS",
        "APPLIED",
        "DESIRED",
        "LAST SEEN",
        "STATE",
    ]);
    for agent in &agents.agents {
        let state = match (
            agent.present,
            agent.applied_version == agent.desired_version,
        ) {
            (false, _) => "away",
            (true, false) => "following",
            (true, true) => "up to date",
        };
        table.add_row([
            agent.host_id.clone(),
            agent.version.clone(),
            agent.access_key_id.clone(),
            agent.enis.to_string(),
            agent.applied_version.to_string(),
            agent.desired_version.to_string(),
            agent.last_seen.clone(),
            state.to_owned(),
        ]);
    }
    table.lines().collect()
}

/// The changes.
pub(super) fn audit(
    session: &Session,
    options: &AuditOptions,
    form: OutputForm,
) -> Result<(), CliError> {
    let filter = AuditFilter {
        resource_id: options.resource.clone(),
        before: options.before,
        limit: Some(options.limit),
    };
    let audit: Audit = session.get("/audit", &filter)?;
    print(form, &audit, || audit_lines(&audit));
    Ok(())
}

fn audit_lines(audit: &Audit) -> Vec<String> {
    let mut table = table(["NUMBER", "AT", "WHO", "WHAT", "OF", "REQUEST", "DETAIL"]);
    for entry in &audit.entries {
        table.add_row([
            entry.number.to_string(),
            entry.at.clone(),
            entry.access_key_id.clone(),
            entry.action.clone(),
            or_dash(&entry.resource_id),
            or_dash(&entry.request_id),
            or_dash(&entry.detail),
        ]);
    }
    table.lines().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Agent, Eni, VSwitch, Vpc};

    fn trimmed(lines: &[String]) -> Vec<&str> {
        lines.iter().map(|line| line.trim_end()).collect()
    }

    #[test]
    fn resources_are_three_tables() {
        let resources = Resources {
            vpcs: vec![Vpc {
                id: "vpc-1".to_owned(),
                vswitches: 1,
                enis: 1,
            }],
            vswitches: vec![VSwitch {
                id: "vsw-1".to_owned(),
                vpc_id: "vpc-1".to_owned(),
                enis: 1,
            }],
            enis: vec![Eni {
                id: "eni-1".to_owned(),
                vswitch_id: "vsw-1".to_owned(),
                vpc_id: "vpc-1".to_owned(),
                vm_id: String::new(),
                region: String::new(),
                host_id: "host".to_owned(),
                captured: true,
            }],
        };
        assert_eq!(
            trimmed(&resource_lines(&resources)),
            [
                " VPC    VSWITCHES  ENIS",
                " vpc-1  1          1",
                "",
                " VSWITCH  VPC    ENIS",
                " vsw-1    vpc-1  1",
                "",
                " ENI    VSWITCH  VPC    VM  HOST  STATE",
                " eni-1  vsw-1    vpc-1  -   host  captured",
            ]
        );
        let none = Resources {
            vpcs: Vec::new(),
            vswitches: Vec::new(),
            enis: Vec::new(),
        };
        assert_eq!(resource_lines(&none), ["No agent has reported an ENI yet."]);
    }

    #[test]
    fn an_agent_is_away_following_or_up_to_date() {
        let agent = |present, applied_version| Agent {
            host_id: "host".to_owned(),
            version: "0.1.0".to_owned(),
            access_key_id: "k".to_owned(),
            applied_version,
            desired_version: 7,
            last_seen: "2026-11-22T04:52:11Z".to_owned(),
            present,
            enis: 2,
        };
        let agents = Agents {
            agents: vec![agent(true, 7), agent(true, 6), agent(false, 6)],
        };
        let lines = agent_lines(&agents);
        let ends: Vec<bool> = trimmed(&lines)[1..]
            .iter()
            .zip(["up to date", "following", "away"])
            .map(|(line, state)| line.ends_with(state))
            .collect();
        assert_eq!(ends, [true; 3], "{lines:#?}");
    }
}
