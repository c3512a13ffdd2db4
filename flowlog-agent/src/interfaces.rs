//! `flowlog-agent interfaces`: devices, which ENI each is, what is attached to it and in which order, and why one is not captured.
use std::{collections::HashMap, path::Path};

use comfy_table::Table;
use flowlog_model::inventory::{EniEntry, Hook, Inventory};
use serde::Serialize;

use crate::{
    agent::{AgentError, load_inventory},
    bpf::{self, ChainEntry, DeviceDirection},
    capture::match_device,
    discovery::{Device, Settings, XdpMode, in_namespace},
    lock,
    report::{self, DEFAULT_CONFIG, ReportForm},
};

/// `ARPHRD_LOOPBACK` of include/uapi/linux/if_arp.h.
const LOOPBACK: u16 = 772;

/// How the names of the agent's programs begin.
const OUR_PREFIX: &str = "flowlog_";

/// A device, and how it stands.
#[derive(Debug, Serialize)]
struct Interface {
    /// Named network namespace; none for the host's.
    namespace: Option<String>,
    device: String,
    mac: Option<String>,
    eni_id: Option<String>,
    side: Option<&'static str>,
    /// What is to count ingress.
    hook: Option<&'static str>,
    ingress: Chain,
    egress: Chain,
    captured: bool,
    /// How it is captured, or why it is not.
    state: String,
}

/// The programs of one direction of the device, in the order in which they run.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Chain {
    programs: Vec<Program>,
    /// Where ours stands, from 1.
    our_position: Option<usize>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Program {
    /// Its hook: `xdp native`, `xdp generic`, `tcx`, `clsact`.
    at: &'static str,
    name: String,
    program_id: Option<u32>,
    ours: bool,
}

/// Lists, and prints the list. Works with and without a running agent, and without a configuration.
///
/// # Errors
///
/// If the configuration or the inventory is wrong, or netlink fails.
pub(crate) fn run(config_path: Option<&Path>, form: ReportForm) -> Result<(), AgentError> {
    let config = report::configuration(config_path)?.map(|(_, config)| config);
    let inventory = match &config {
        Some(config) => Some(load_inventory(&config.inventory)?),
        None => None,
    };
    let agent = config
        .as_ref()
        .and_then(|config| lock::holder(&config.lock_file));
    let names = inventory.iter().flat_map(Inventory::namespaces);
    let settings = Settings {
        namespaces: names.map(str::to_owned).collect(),
        ..Settings::default()
    };
    let namespaces = settings.namespace_folder.clone();
    let listing = report::devices(settings)?;
    let mut interfaces: Vec<Interface> = listing
        .devices
        .iter()
        .map(|device| interface(device, inventory.as_ref(), agent.is_some(), &namespaces))
        .collect();
    explain_doubles(&mut interfaces);
    match form {
        ReportForm::Json => report::print_json(&interfaces),
        ReportForm::Table => {
            report::print_lines(table(&interfaces).lines());
            let mut notes: Vec<String> = listing
                .unavailable
                .iter()
                .map(|(name, reason)| format!("Network namespace {name}: {reason}."))
                .collect();
            if !sees_programs() {
                notes.push("Without root, what is attached is not seen.".to_owned());
            }
            notes.push(match (&config, agent) {
                (None, _) => format!(
                    "There is no {DEFAULT_CONFIG}: name a configuration by --config to see ENIs."
                ),
                (_, Some(pid)) => format!("The agent is running (process {pid})."),
                (_, None) => "The agent is not running.".to_owned(),
            });
            report::print_lines([""]);
            report::print_lines(notes);
        }
    }
    Ok(())
}

/// Whether the kernel shows this process others' programs.
fn sees_programs() -> bool {
    caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_SYS_ADMIN,
    )
    .unwrap_or(false)
}

fn interface(
    device: &Device,
    inventory: Option<&Inventory>,
    agent_runs: bool,
    namespaces: &Path,
) -> Interface {
    let [ingress, egress] = chains(device, namespaces);
    let entry = match inventory {
        Some(inventory) => match_device(inventory, device),
        None => Ok(None),
    };
    let captured = agent_runs && ingress.our_position.is_some() && egress.our_position.is_some();
    let state = match &entry {
        Ok(Some(entry)) => state(entry, &ingress, &egress, agent_runs),
        Ok(None) if inventory.is_none() => "no configuration".to_owned(),
        Ok(None) if device.link_type == LOOPBACK => "no entry: loopback".to_owned(),
        Ok(None) => "no inventory entry".to_owned(),
        Err(reason) => format!("ambiguous: {reason}"),
    };
    let entry = entry.ok().flatten();
    Interface {
        namespace: device.namespace_name.clone(),
        device: device.name.clone(),
        mac: device.mac.map(mac_text),
        eni_id: entry.as_ref().map(|entry| entry.eni.eni_id.clone()),
        side: entry.as_ref().map(|entry| entry.side.as_str()),
        hook: entry.as_ref().map(|entry| entry.hook.as_str()),
        captured: captured && entry.is_some(),
        ingress,
        egress,
        state,
    }
}

/// How a device that is an ENI is captured, or why it is not.
fn state(entry: &EniEntry, ingress: &Chain, egress: &Chain, agent_runs: bool) -> String {
    let attached = ingress.our_position.is_some() && egress.our_position.is_some();
    let other_xdp = ingress
        .programs
        .iter()
        .find(|program| program.at.starts_with("xdp") && !program.ours);
    match (agent_runs, attached, other_xdp) {
        (true, true, _) => "captured".to_owned(),
        (false, true, _) => "programs are attached, but no agent is running".to_owned(),
        (false, false, _) => "the agent is not running".to_owned(),
        (true, false, Some(other)) if entry.hook == Hook::Xdp => {
            format!("XDP is busy: {} is attached", other.name)
        }
        (true, false, _) if ingress.error.is_some() || egress.error.is_some() => {
            "not known".to_owned()
        }
        (true, false, _) => "not attached: the agent's log says why".to_owned(),
    }
}

/// Says of a device that is not captured that its ENI is captured on another one.
fn explain_doubles(interfaces: &mut [Interface]) {
    let captured: HashMap<String, String> = interfaces
        .iter()
        .filter(|interface| interface.captured)
        .filter_map(|interface| Some((interface.eni_id.clone()?, interface.device.clone())))
        .collect();
    for interface in interfaces.iter_mut().filter(|i| !i.captured) {
        if let Some(eni) = &interface.eni_id
            && let Some(device) = captured.get(eni)
        {
            interface.state = format!("{eni} is captured on {device} already");
        }
    }
}

/// Ingress and egress of a device.
fn chains(device: &Device, namespaces: &Path) -> [Chain; 2] {
    let queried = in_namespace(&device.namespace_ref(namespaces), || {
        [DeviceDirection::Ingress, DeviceDirection::Egress]
            .map(|direction| bpf::chain(device.key.index, &device.name, direction))
    });
    match queried {
        Ok([ingress, egress]) => [
            Chain::new(xdp(device), ingress.map_err(|error| error.to_string())),
            Chain::new(None, egress.map_err(|error| error.to_string())),
        ],
        Err(error) => {
            let unknown = || Chain::new(None, Err(error.to_string()));
            [unknown(), unknown()]
        }
    }
}

fn xdp(device: &Device) -> Option<Program> {
    let attached = device.xdp_attached?;
    let name = attached.program_id.and_then(bpf::program_name);
    let name = name.unwrap_or_else(|| "a program without a name".to_owned());
    Some(Program {
        at: match attached.mode {
            XdpMode::Native => "xdp native",
            XdpMode::Generic => "xdp generic",
            XdpMode::Offloaded => "xdp offloaded",
            XdpMode::Multiple => "xdp, several",
            XdpMode::Other(_) => "xdp",
        },
        ours: name.starts_with(OUR_PREFIX),
        name,
        program_id: attached.program_id,
    })
}

impl Chain {
    /// XDP runs before TC.
    fn new(xdp: Option<Program>, tc: Result<Vec<ChainEntry>, String>) -> Self {
        let (tc, error) = match tc {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let programs: Vec<Program> = xdp
            .into_iter()
            .chain(tc.into_iter().map(|entry| Program {
                at: entry.hook,
                ours: entry.name.starts_with(OUR_PREFIX),
                name: entry.name,
                program_id: entry.program_id,
            }))
            .collect();
        Self {
            our_position: programs
                .iter()
                .position(|program| program.ours)
                .map(|index| index + 1),
            programs,
            error,
        }
    }

    fn render(&self) -> String {
        let count = self.programs.len();
        let mut lines: Vec<String> = (1..)
            .zip(&self.programs)
            .map(|(position, program)| match self.our_position {
                Some(ours) if ours == position => {
                    format!("{} {} ({position}/{count})", program.at, program.name)
                }
                _ => format!("{} {}", program.at, program.name),
            })
            .collect();
        lines.extend(self.error.as_ref().map(|error| format!("unknown: {error}")));
        if lines.is_empty() {
            lines.push("-".to_owned());
        }
        lines.join("\n")
    }
}

fn table(interfaces: &[Interface]) -> Table {
    let mut table = report::table(["NAMESPACE", "DEVICE", "ENI", "INGRESS", "EGRESS", "STATE"]);
    for interface in interfaces {
        let eni = match (&interface.eni_id, interface.side) {
            (Some(eni), Some(side)) => format!("{eni} ({side})"),
            _ => "-".to_owned(),
        };
        table.add_row([
            interface.namespace.as_deref().unwrap_or("host's"),
            &interface.device,
            &eni,
            &interface.ingress.render(),
            &interface.egress.render(),
            &interface.state,
        ]);
    }
    table
}

fn mac_text([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(hook: &str) -> EniEntry {
        let text = format!(
            "[[eni]]\neni-id = 'eni-1'\nvswitch-id = 'v'\nvpc-id = 'p'\naccount-id = '1'\nhook = '{hook}'\n\
             match = {{ name = 'eth0' }}\n"
        );
        Inventory::parse(&text, "inventory.toml").unwrap().entries()[0].clone()
    }

    fn chain(names: &[&str]) -> Chain {
        let entries = names
            .iter()
            .map(|name| ChainEntry {
                hook: "tcx",
                name: (*name).to_owned(),
                program_id: None,
            })
            .collect();
        Chain::new(None, Ok(entries))
    }

    fn xdp(name: &str) -> Option<Program> {
        Some(Program {
            at: "xdp native",
            name: name.to_owned(),
            program_id: None,
            ours: name.starts_with(OUR_PREFIX),
        })
    }

    #[test]
    fn xdp_runs_first_and_our_place_is_counted_from_one() {
        let second = chain(&["other", "flowlog_ingress", "third"]);
        assert_eq!(second.our_position, Some(2));
        assert_eq!(
            second.render(),
            "tcx other\ntcx flowlog_ingress (2/3)\ntcx third"
        );
        let behind_xdp = Chain::new(xdp("firewall"), Ok(Vec::new()));
        assert_eq!(behind_xdp.our_position, None);
        assert_eq!(behind_xdp.render(), "xdp native firewall");
        assert_eq!(chain(&[]).render(), "-");
    }

    #[test]
    fn the_state_says_why_an_eni_is_not_captured() {
        let (ours_in, ours_out, none) = (
            || chain(&["flowlog_ingress"]),
            || chain(&["flowlog_egress"]),
            || chain(&[]),
        );
        let busy = || Chain::new(xdp("firewall"), Ok(Vec::new()));
        let unknown = || Chain::new(None, Err("no".to_owned()));
        for (hook, ingress, egress, runs, expected) in [
            ("tc", ours_in(), ours_out(), true, "captured"),
            (
                "tc",
                ours_in(),
                ours_out(),
                false,
                "programs are attached, but no agent is running",
            ),
            ("tc", none(), none(), false, "the agent is not running"),
            (
                "tc",
                none(),
                none(),
                true,
                "not attached: the agent's log says why",
            ),
            (
                "tc",
                busy(),
                none(),
                true,
                "not attached: the agent's log says why",
            ),
            (
                "xdp",
                busy(),
                none(),
                true,
                "XDP is busy: firewall is attached",
            ),
            ("tc", unknown(), none(), true, "not known"),
        ] {
            assert_eq!(state(&entry(hook), &ingress, &egress, runs), expected);
        }
    }

    #[test]
    fn an_eni_with_two_devices_is_said_to_be_captured_on_the_other() {
        let interface = |device: &str, captured| Interface {
            namespace: None,
            device: device.to_owned(),
            mac: None,
            eni_id: Some("eni-1".to_owned()),
            side: Some("guest"),
            hook: Some("tc"),
            ingress: chain(&[]),
            egress: chain(&[]),
            captured,
            state: String::new(),
        };
        let mut interfaces = [interface("eth0", true), interface("eth1", false)];
        explain_doubles(&mut interfaces);
        assert_eq!(interfaces[0].state, "");
        assert_eq!(interfaces[1].state, "eni-1 is captured on eth0 already");
    }
}
