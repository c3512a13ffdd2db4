//! Attaching to devices, and taking off.
use std::time::Duration;

use flowlog_model::inventory::{self, EniEntry, Side};

use super::{
    Capture, Captured, Change, LINK_TYPES_WITH_ETHERNET, RETRY_FIRST, RETRY_LONGEST, Waiting,
};
use crate::{
    bpf::{self, AttachPlan, BpfError, EniConstants, Observer, Prepared, Target},
    discovery::{Device, DeviceKey, HeldNamespace, in_namespace},
};

impl Capture {
    /// The entry of a captured device has changed in what is no reason to begin its capture anew.
    pub(super) fn follow_entry(&mut self, key: DeviceKey, before: &EniEntry, now: Duration) {
        let Some(captured) = self.captured.get(&key) else {
            return;
        };
        let entry = &captured.entry;
        if entry.netfilter != before.netfilter {
            self.firewall.set(in_kernel(key), wants_drops(captured));
        }
        if entry.security.mode != before.security.mode {
            self.reattach(key, now);
        }
    }

    /// Puts programs with other constants in the place of those that are on a device. It is captured on, without a gap.
    fn reattach(&mut self, key: DeviceKey, now: Duration) {
        let Some(captured) = self.captured.remove(&key) else {
            return;
        };
        let Captured {
            device,
            entry,
            slot,
            observer,
            namespace: _,
        } = captured;
        observer.leave();
        match self.attach_as(slot, &device, &entry) {
            Ok((observer, namespace)) => {
                tracing::info!(
                    eni = entry.eni.eni_id,
                    "its security mode is {}",
                    entry.security.mode
                );
                let captured = Captured {
                    device,
                    entry,
                    slot,
                    observer,
                    namespace,
                };
                self.captured.insert(key, captured);
            }
            Err(reason) => {
                self.released(&device, &entry, slot, now);
                self.wait(device, &entry, reason, 0, now);
            }
        }
    }

    pub(super) fn attach(
        &mut self,
        device: Device,
        entry: EniEntry,
        failed_attempts: u32,
        now: Duration,
    ) {
        let attached = if self.slots.is_captured(&entry.eni.eni_id) {
            Err(format!(
                "{} is captured on another device already",
                entry.eni.eni_id
            ))
        } else {
            self.try_attach(&device, &entry)
        };
        match attached {
            Ok((slot, observer, namespace)) => {
                self.changed = true;
                self.changes.push(change(&device, &entry, slot, true));
                let key = device.key;
                let captured = Captured {
                    device,
                    entry,
                    slot,
                    observer,
                    namespace,
                };
                self.firewall.set(in_kernel(key), wants_drops(&captured));
                let [ingress, egress] = captured.observer.hooks();
                tracing::info!(
                    eni = captured.entry.eni.eni_id,
                    device = captured.device.name,
                    namespace = captured.device.namespace_name,
                    "captured: ingress by {}, egress by {}",
                    ingress.as_str(),
                    egress.as_str()
                );
                self.captured.insert(key, captured);
            }
            Err(reason) => self.wait(device, &entry, reason, failed_attempts, now),
        }
    }

    /// A device cannot be captured, and is tried again later.
    fn wait(
        &mut self,
        device: Device,
        entry: &EniEntry,
        reason: String,
        failed_attempts: u32,
        now: Duration,
    ) {
        let wait = RETRY_LONGEST.min(RETRY_FIRST.saturating_mul(1 << failed_attempts.min(16)));
        tracing::warn!(eni = entry.eni.eni_id, device = device.name, retry = ?wait, "not captured: {reason}");
        // If it was another ENI before, that one's programs are still on it.
        self.take_off(&device);
        self.firewall.set(in_kernel(device.key), None);
        self.changed = true;
        let waiting = Waiting {
            retry_at: Some(now + wait),
            failed_attempts: failed_attempts.saturating_add(1),
            reason,
            device,
        };
        self.waiting.insert(waiting.device.key, waiting);
    }

    fn try_attach(
        &mut self,
        device: &Device,
        entry: &EniEntry,
    ) -> Result<(u32, Observer, HeldNamespace), String> {
        let slot = self
            .slots
            .take(&entry.eni)
            .map_err(|error| error.to_string())?;
        // First, so that its programs have something to judge by.
        let judged = self.security.judge(slot, &self.inventory, entry);
        let attached = judged
            .map_err(|error| error.to_string())
            .and_then(|()| self.attach_as(slot, device, entry));
        match &attached {
            Ok(_) => self.slots.captured(slot),
            Err(_) => self.slots.cancel(slot),
        }
        attached.map(|(observer, namespace)| (slot, observer, namespace))
    }

    fn attach_as(
        &self,
        slot: u32,
        device: &Device,
        entry: &EniEntry,
    ) -> Result<(Observer, HeldNamespace), String> {
        let failed = |error: BpfError| error.to_string();
        self.identities.set(slot, &entry.eni).map_err(failed)?;
        let constants = EniConstants {
            slot,
            host_side: entry.side == Side::Host,
            ethernet: LINK_TYPES_WITH_ETHERNET.contains(&device.link_type),
            xdp_mtu: 0,
            security_mode: entry.security.mode,
            when_full: self.when_full,
        };
        let plan = AttachPlan {
            xdp: entry.hook == inventory::Hook::Xdp,
            ..self.plan
        };
        let prepared = Prepared::new(&self.pin_folder, constants).map_err(failed)?;
        let no_entry = |error| format!("cannot enter its network namespace: {error}");
        let namespace =
            HeldNamespace::open(&device.namespace_ref(&self.namespaces)).map_err(no_entry)?;
        let observer = namespace
            .enter(|| Observer::attach(prepared, target(device), plan))
            .map_err(no_entry)?
            .map_err(failed)?;
        Ok((observer, namespace))
    }

    /// Ends the capture of a device under one identity and leaves its programs, so that those of the next one can take their place
    /// without a gap.
    pub(super) fn hand_over(&mut self, key: DeviceKey, now: Duration) {
        if let Some(Captured {
            device,
            entry,
            slot,
            observer,
            ..
        }) = self.captured.remove(&key)
        {
            observer.leave();
            self.released(&device, &entry, slot, now);
        }
    }

    /// Takes off a device whatever programs of ours are on it.
    pub(super) fn take_off(&self, device: &Device) {
        // Where its namespace is gone, so is the device.
        let _ = in_namespace(&device.namespace_ref(&self.namespaces), || {
            bpf::remove_leftovers(&self.pin_folder, target(device));
        });
    }

    pub(super) fn release(&mut self, key: DeviceKey, now: Duration) {
        let Some(captured) = self.captured.remove(&key) else {
            return;
        };
        let Captured {
            device,
            entry,
            slot,
            observer,
            namespace,
        } = captured;
        if let Err(error) = namespace.enter(|| observer.detach(target(&device))) {
            tracing::warn!(
                device = device.name,
                "cannot enter its network namespace to take the programs off: {error}"
            );
        }
        self.firewall.set(in_kernel(device.key), None);
        self.released(&device, &entry, slot, now);
    }

    fn released(&mut self, device: &Device, entry: &EniEntry, slot: u32, now: Duration) {
        self.slots.release(slot, now);
        self.changed = true;
        self.changes.push(change(device, entry, slot, false));
        tracing::info!(
            eni = entry.eni.eni_id,
            device = device.name,
            "no longer captured"
        );
    }
}

fn change(device: &Device, entry: &EniEntry, slot: u32, captured: bool) -> Change {
    Change {
        eni_id: entry.eni.eni_id.clone(),
        slot,
        device: device.key,
        side: entry.side,
        captured,
    }
}

fn target(device: &Device) -> Target<'_> {
    Target {
        namespace_inode: device.key.namespace.inode,
        index: device.key.index,
        name: &device.name,
        mtu: device.mtu,
    }
}

/// A device, as the kernel's programs know it.
fn in_kernel(key: DeviceKey) -> (u64, u32) {
    (key.namespace.inode, key.index)
}

/// The slot of a device and whether it is the host's end, if the host firewall's verdicts on its packets are wanted.
fn wants_drops(captured: &Captured) -> Option<(u32, bool)> {
    let entry = &captured.entry;
    entry
        .netfilter
        .then_some((captured.slot, entry.side == Side::Host))
}
