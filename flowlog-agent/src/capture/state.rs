//! How the capture stands, for metrics and people.
use flowlog_model::{record::Eni, security_group::SecurityMode};

use super::{Capture, Captured, match_device};
use crate::{
    bpf::{Hook, RunStats},
    firewall::FirewallState,
    security::{InForce, Security},
};

/// How a captured device stands, for metrics and status.
#[derive(Clone, Debug)]
pub struct CapturedDevice {
    /// Its ENI.
    pub eni_id: String,
    /// Its name.
    pub device: String,
    /// Hooks of ingress and egress.
    pub hooks: [Hook; 2],
    /// What the programs at ingress and egress have cost.
    pub run_stats: [RunStats; 2],
}

/// How a device that is an ENI stands, for people.
#[derive(Clone, Debug)]
pub struct InterfaceState {
    /// Its ENI; none where the inventory says that it is several.
    pub eni_id: Option<String>,
    /// Its name.
    pub device: String,
    /// Its named network namespace; none for the host's.
    pub namespace: Option<String>,
    /// Hooks of ingress and egress, if it is captured.
    pub hooks: Option<[Hook; 2]>,
    /// Why it is not captured.
    pub reason: Option<String>,
    /// Attempts to capture it that have failed.
    pub failed_attempts: u32,
}

/// What judges the packets of a captured ENI.
#[derive(Clone, Debug)]
pub struct JudgedEni {
    /// The ENI.
    pub eni_id: String,
    /// What is done with the security groups' verdict.
    pub mode: SecurityMode,
    /// Its groups.
    pub groups: usize,
    /// The policy that holds; none if nothing is judged.
    pub(crate) in_force: Option<InForce>,
    /// Why that is not the inventory's, if it is not.
    pub error: Option<String>,
    /// Whether the host firewall's verdicts are wanted.
    pub netfilter: bool,
}

impl Capture {
    /// The captured devices.
    #[must_use]
    pub fn captured(&self) -> Vec<CapturedDevice> {
        self.captured
            .values()
            .map(|captured| CapturedDevice {
                eni_id: captured.entry.eni.eni_id.clone(),
                device: captured.device.name.clone(),
                hooks: captured.observer.hooks(),
                run_stats: captured.observer.run_stats().unwrap_or_default(),
            })
            .collect()
    }

    /// The devices that are ENIs, captured or not.
    pub fn interfaces(&self) -> impl Iterator<Item = InterfaceState> {
        let captured = self.captured.values().map(|captured| InterfaceState {
            eni_id: Some(captured.entry.eni.eni_id.clone()),
            device: captured.device.name.clone(),
            namespace: captured.device.namespace_name.clone(),
            hooks: Some(captured.observer.hooks()),
            reason: None,
            failed_attempts: 0,
        });
        let waiting = self.waiting.values().map(|waiting| {
            let entry = match_device(&self.inventory, &waiting.device)
                .ok()
                .flatten();
            InterfaceState {
                eni_id: entry.map(|entry| entry.eni.eni_id),
                device: waiting.device.name.clone(),
                namespace: waiting.device.namespace_name.clone(),
                hooks: None,
                reason: Some(waiting.reason.clone()),
                failed_attempts: waiting.failed_attempts,
            }
        });
        captured.chain(waiting)
    }

    /// Devices that should be captured and are not: name and reason.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.waiting
            .values()
            .map(|waiting| (waiting.device.name.as_str(), waiting.reason.as_str()))
    }

    /// The ENIs that have a device, and whether that is captured; one with several devices several times. A device that could be each of
    /// several ENIs is none's.
    pub fn known_enis(&self) -> impl Iterator<Item = (Eni, bool)> {
        let captured = self
            .captured
            .values()
            .map(|captured| (captured.entry.eni.clone(), true));
        let waiting = self.waiting.values().filter_map(|waiting| {
            let entry = match_device(&self.inventory, &waiting.device).ok()??;
            Some((entry.eni, false))
        });
        captured.chain(waiting)
    }

    /// What judges the packets of the captured ENIs.
    pub fn judged(&self) -> impl Iterator<Item = JudgedEni> {
        self.captured.values().map(|captured| JudgedEni {
            eni_id: captured.entry.eni.eni_id.clone(),
            mode: captured.mode,
            groups: captured.entry.security.group_ids.len(),
            in_force: self.security.in_force(captured.slot),
            error: why_not(captured, &self.security),
            netfilter: captured.entry.netfilter,
        })
    }

    /// How the host firewall's verdicts stand.
    #[must_use]
    pub(crate) fn firewall(&self) -> FirewallState {
        self.firewall.state()
    }
}

/// Why an ENI is not judged as its entry says, if it is not.
fn why_not(captured: &Captured, security: &Security) -> Option<String> {
    if let Some(behind) = &captured.behind {
        let mode = captured.entry.security.mode;
        return Some(format!(
            "its security mode cannot be {mode}: {}",
            behind.reason
        ));
    }
    security.reason(captured.slot).map(str::to_owned)
}
