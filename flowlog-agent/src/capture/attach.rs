//! Attaching to devices, and taking off.
use std::time::Duration;

use flowlog_model::{
    inventory::{self, EniEntry, Side},
    security_group::SecurityMode,
};

use super::{
    Behind, Capture, Captured, Change, LINK_TYPES_WITH_ETHERNET, Waiting, in_kernel, wait_after,
};
use crate::{
    bpf::{self, AttachPlan, BpfError, EniConstants, Observer, Prepared, Target},
    discovery::{Device, DeviceKey, HeldNamespace, in_namespace},
};

/// Why a device could not be attached to.
#[derive(Debug)]
pub(super) struct NotAttached {
    reason: String,
    /// The programs that were on it are as they were.
    is_untouched: bool,
}

impl NotAttached {
    /// For a reason that was found before anything was attached.
    fn before(reason: String) -> Self {
        Self {
            reason,
            is_untouched: true,
        }
    }
}

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
        if entry.security.mode != captured.mode {
            self.reattach(key, now);
        } else if let Some(captured) = self.captured.get_mut(&key) {
            captured.behind = None;
        }
    }

    /// Puts programs of the mode that the entry says in the place of those that are on a device. It is captured on, without a gap; if that
    /// cannot be, by those that are there.
    pub(super) fn reattach(&mut self, key: DeviceKey, now: Duration) {
        let Some(captured) = self.captured.get(&key) else {
            return;
        };
        let entry = &captured.entry;
        let attached = self.attach_as(captured.slot, &captured.device, entry);
        let (eni_id, mode) = (entry.eni.eni_id.as_str(), entry.security.mode);
        match &attached {
            Ok(_) => tracing::info!(eni = eni_id, "its security mode is {mode}"),
            Err(NotAttached { reason, .. }) => tracing::error!(
                eni = eni_id,
                "its security mode cannot be {mode}, and is {}: {reason}",
                captured.mode
            ),
        }
        match attached {
            Ok((observer, namespace)) => {
                if let Some(captured) = self.captured.get_mut(&key) {
                    let before = std::mem::replace(&mut captured.observer, observer);
                    // They are the programs of the same links and filters, by now.
                    before.leave();
                    captured.namespace = namespace;
                    captured.mode = captured.entry.security.mode;
                    captured.behind = None;
                }
            }
            Err(NotAttached {
                reason,
                is_untouched: true,
            }) => {
                if let Some(captured) = self.captured.get_mut(&key) {
                    let before = captured.behind.as_ref();
                    let failed_attempts = before.map_or(0, |behind| behind.failed_attempts);
                    captured.behind = Some(Behind {
                        reason,
                        retry_at: now + wait_after(failed_attempts),
                        failed_attempts: failed_attempts.saturating_add(1),
                    });
                }
            }
            Err(NotAttached { reason, .. }) => {
                if let Some(captured) = self.captured.remove(&key) {
                    captured.observer.leave();
                    self.released(&captured.device, &captured.entry, captured.slot, now);
                    self.wait(captured.device, &captured.entry, reason, (0, None), now);
                }
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
            Err(NotAttached::before(format!(
                "{} is captured on another device already",
                entry.eni.eni_id
            )))
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
                    mode: entry.security.mode,
                    entry,
                    slot,
                    observer,
                    behind: None,
                    namespace,
                };
                self.nothing_left(key, now);
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
            Err(NotAttached {
                reason,
                is_untouched,
            }) => {
                let left = self.left_on(&device, &entry).filter(|_| is_untouched);
                self.wait(device, &entry, reason, (failed_attempts, left), now);
            }
        }
    }

    /// The slot into which the programs count that a previous agent has left on a device, if it is that of the ENI that the device is.
    fn left_on(&self, device: &Device, entry: &EniEntry) -> Option<u32> {
        let slot = self.left_on.get(&in_kernel(device.key)).copied();
        slot.filter(|slot| self.slots.is_free_for(*slot, &entry.eni))
    }

    /// A device cannot be captured, and is tried again later. With a slot in `left`, the programs that a previous agent has left there stay
    /// until then: they count on, and drop on what they are to.
    fn wait(
        &mut self,
        device: Device,
        entry: &EniEntry,
        reason: String,
        (failed_attempts, left): (u32, Option<u32>),
        now: Duration,
    ) {
        let wait = wait_after(failed_attempts);
        tracing::warn!(eni = entry.eni.eni_id, device = device.name, retry = ?wait, "not captured: {reason}");
        if left.is_none() {
            // If it was another ENI before, that one's programs are still on it.
            self.take_off(&device, now);
        }
        let is_host = entry.side == Side::Host;
        let wanted = left.filter(|_| entry.netfilter).map(|slot| (slot, is_host));
        self.firewall.set(in_kernel(device.key), wanted);
        self.changed = true;
        let waiting = Waiting {
            retry_at: Some(now + wait),
            failed_attempts: failed_attempts.saturating_add(1),
            reason,
            device,
            left,
        };
        self.waiting.insert(waiting.device.key, waiting);
    }

    fn try_attach(
        &mut self,
        device: &Device,
        entry: &EniEntry,
    ) -> Result<(u32, Observer, HeldNamespace), NotAttached> {
        let taken = self.slots.take(&entry.eni);
        let slot = taken.map_err(|error| NotAttached::before(error.to_string()))?;
        let predecessor = self.slots.predecessor(slot);
        // First, so that its programs have something to judge by.
        let judged = self.security.judge(slot, &self.inventory, entry);
        let attached = judged.map_err(NotAttached::before).and_then(|()| {
            self.carry_over(predecessor, slot, entry);
            self.attach_as(slot, device, entry)
        });
        match &attached {
            Ok(_) => {
                self.slots.captured(slot);
                // What was opened before the other programs took their place.
                self.carry_over(predecessor, slot, entry);
            }
            Err(_) if self.slots.cancel(slot) => self.freed(slot),
            Err(_) => {}
        }
        attached.map(|(observer, namespace)| (slot, observer, namespace))
    }

    /// An ENI that has another identity goes on with its sessions.
    fn carry_over(&mut self, predecessor: Option<u32>, slot: u32, entry: &EniEntry) {
        if let Some(predecessor) = predecessor
            && entry.security.mode != SecurityMode::Off
        {
            self.security.carry_over(predecessor, slot);
        }
    }

    fn attach_as(
        &self,
        slot: u32,
        device: &Device,
        entry: &EniEntry,
    ) -> Result<(Observer, HeldNamespace), NotAttached> {
        let failed = |error: BpfError| NotAttached::before(error.to_string());
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
        let no_entry =
            |error| NotAttached::before(format!("cannot enter its network namespace: {error}"));
        let namespace =
            HeldNamespace::open(&device.namespace_ref(&self.namespaces)).map_err(no_entry)?;
        let observer = namespace
            .enter(|| Observer::attach(prepared, target(device), plan))
            .map_err(no_entry)?
            .map_err(|error| NotAttached {
                reason: error.to_string(),
                is_untouched: !plan.xdp && !matches!(error, BpfError::Attach { .. }),
            })?;
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
    pub(super) fn take_off(&mut self, device: &Device, now: Duration) {
        // Where its namespace is gone, so is the device.
        let _ = in_namespace(&device.namespace_ref(&self.namespaces), || {
            bpf::remove_leftovers(&self.pin_folder, target(device));
        });
        self.nothing_left(device.key, now);
    }

    /// The programs that a previous agent has left are not on a device any more.
    pub(super) fn nothing_left(&mut self, key: DeviceKey, now: Duration) {
        // Before that, they may be on other devices.
        if let Some(slot) = self.left_on.remove(&in_kernel(key))
            && self.are_leftovers_removed
        {
            self.slots.nothing_left(slot, now);
        }
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
            ..
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

/// The slot of a device and whether it is the host's end, if the host firewall's verdicts on its packets are wanted.
fn wants_drops(captured: &Captured) -> Option<(u32, bool)> {
    let entry = &captured.entry;
    entry
        .netfilter
        .then_some((captured.slot, entry.side == Side::Host))
}
