//! What is captured: the devices that are ENIs, the programs on them, and the counters that they share.
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use flowlog_model::{
    inventory::{self, DeviceIdentity, EniEntry, Inventory, Match, Side},
    record::Eni,
};

use crate::{
    bpf::{
        self, AttachPlan, BpfError, EniConstants, Hook, Identities, Observer, Prepared, RunStats,
        Target,
    },
    config::CaptureConfig,
    discovery::{Device, DeviceKey, HeldNamespace, in_namespace},
    slots::{CapturedEnis, Slots},
};

/// First wait before a device that could not be attached is tried again; it doubles up to [`RETRY_LONGEST`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` of include/uapi/linux/if_arp.h: frames have an Ethernet header.
const LINK_TYPES_WITH_ETHERNET: [u16; 2] = [1, 772];

/// A device that is captured.
struct Captured {
    device: Device,
    entry: EniEntry,
    slot: u32,
    observer: Observer,
    /// Held, so that nothing is left on the device if its namespace loses its name and lives on.
    namespace: HeldNamespace,
}

/// A device that should be captured and is not.
#[derive(Clone, Debug)]
struct Waiting {
    device: Device,
    reason: String,
    retry_at: Option<Duration>,
    failed_attempts: u32,
}

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

/// What has changed of an ENI's capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The ENI.
    pub eni_id: String,
    /// Its slot.
    pub slot: u32,
    /// The device.
    pub device: DeviceKey,
    /// Which end of the link the device is.
    pub side: Side,
    /// Whether it is captured now.
    pub captured: bool,
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

/// Captures devices.
pub struct Capture {
    pin_folder: PathBuf,
    namespaces: PathBuf,
    plan: AttachPlan,
    slots: Slots,
    identities: Identities,
    inventory: Inventory,
    captured: HashMap<DeviceKey, Captured>,
    waiting: BTreeMap<DeviceKey, Waiting>,
    /// Whether the table of ENIs has changed since somebody asked.
    changed: bool,
    /// Since somebody asked.
    changes: Vec<Change>,
}

impl Capture {
    /// Captures nothing yet. `namespaces` is the folder of named ones.
    #[must_use]
    pub fn new(
        (pin_folder, namespaces): (PathBuf, PathBuf),
        config: &CaptureConfig,
        inventory: Inventory,
        (slots, identities): (Slots, Identities),
    ) -> Self {
        Self {
            identities,
            slots,
            plan: AttachPlan {
                mode: config.attach,
                position: config.position,
                clsact_priority: config.clsact_priority,
                xdp: false,
            },
            pin_folder,
            namespaces,
            inventory,
            captured: HashMap::new(),
            waiting: BTreeMap::new(),
            changed: true,
            changes: Vec::new(),
        }
    }

    /// Takes note of a device that is there, new or changed, and captures it if it is an ENI.
    pub fn device(&mut self, device: Device, now: Duration) {
        let entry = match_device(&self.inventory, &device);
        if let Some(captured) = self.captured.get_mut(&device.key) {
            let same = matches!(&entry, Ok(Some(entry)) if entry_is_same(entry, &captured.entry));
            if same && captured.device.link_type == device.link_type {
                captured.device = device;
                return;
            }
            if matches!(entry, Ok(Some(_))) {
                self.hand_over(device.key, now);
            } else {
                self.release(device.key, now);
            }
        }
        self.waiting.remove(&device.key);
        match entry {
            Ok(Some(entry)) => self.attach(device, entry, 0, now),
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(device = device.name, "not captured: {reason}");
                self.waiting.insert(
                    device.key,
                    Waiting {
                        device,
                        reason,
                        retry_at: None,
                        failed_attempts: 0,
                    },
                );
            }
        }
    }

    /// A device is gone. What was counted of it is still in the kernel and comes with the next drain.
    pub fn vanished(&mut self, key: DeviceKey, now: Duration) {
        self.waiting.remove(&key);
        self.release(key, now);
        self.retry_waiting(now, true);
    }

    /// Follows another inventory. `devices` are those that are known.
    pub fn set_inventory(
        &mut self,
        inventory: Inventory,
        devices: impl IntoIterator<Item = Device>,
        now: Duration,
    ) {
        self.inventory = inventory;
        for device in devices {
            self.device(device, now);
        }
        // An ENI may have moved to a device that came before the one that it was on.
        self.retry_waiting(now, true);
    }

    /// When the next retry is due, as a boot time.
    #[must_use]
    pub fn next_retry(&self) -> Option<Duration> {
        self.waiting
            .values()
            .filter_map(|waiting| waiting.retry_at)
            .min()
    }

    /// Tries devices again whose time has come.
    pub fn retry(&mut self, now: Duration) {
        self.retry_waiting(now, false);
    }

    fn retry_waiting(&mut self, now: Duration, all: bool) {
        let due: Vec<DeviceKey> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.retry_at.is_some_and(|at| all || at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            if let Some(waiting) = self.waiting.remove(&key)
                && let Ok(Some(entry)) = match_device(&self.inventory, &waiting.device)
            {
                self.attach(waiting.device, entry, waiting.failed_attempts, now);
            }
        }
    }

    fn attach(&mut self, device: Device, entry: EniEntry, failed_attempts: u32, now: Duration) {
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
                let [ingress, egress] = observer.hooks();
                tracing::info!(
                    eni = entry.eni.eni_id,
                    device = device.name,
                    namespace = device.namespace_name,
                    "captured: ingress by {}, egress by {}",
                    ingress.as_str(),
                    egress.as_str()
                );
                self.changes.push(change(&device, &entry, slot, true));
                self.captured.insert(
                    device.key,
                    Captured {
                        device,
                        entry,
                        slot,
                        observer,
                        namespace,
                    },
                );
            }
            Err(reason) => {
                let wait =
                    RETRY_LONGEST.min(RETRY_FIRST.saturating_mul(1 << failed_attempts.min(16)));
                tracing::warn!(eni = entry.eni.eni_id, device = device.name, retry = ?wait, "not captured: {reason}");
                // If it was another ENI before, that one's programs are still on it.
                self.take_off(&device);
                self.changed = true;
                self.waiting.insert(
                    device.key,
                    Waiting {
                        device,
                        reason,
                        retry_at: Some(now + wait),
                        failed_attempts: failed_attempts.saturating_add(1),
                    },
                );
            }
        }
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
        let attached = self.attach_as(slot, device, entry);
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
            ..EniConstants::default()
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
    fn hand_over(&mut self, key: DeviceKey, now: Duration) {
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
    fn take_off(&self, device: &Device) {
        // Where its namespace is gone, so is the device.
        let _ = in_namespace(&device.namespace_ref(&self.namespaces), || {
            bpf::remove_leftovers(&self.pin_folder, target(device));
        });
    }

    fn release(&mut self, key: DeviceKey, now: Duration) {
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

    /// Takes all programs off.
    pub fn release_all(&mut self, now: Duration) {
        let keys: Vec<DeviceKey> = self.captured.keys().copied().collect();
        for key in keys {
            self.release(key, now);
        }
    }

    /// Leaves all programs where they are, for the next agent to take over.
    pub fn leave_all(&mut self) {
        for (_, captured) in self.captured.drain() {
            captured.observer.leave();
        }
    }

    /// Takes off what a previous agent has left on devices that are not captured any more. `devices` are those that are there.
    pub fn remove_leftovers(&mut self, devices: impl IntoIterator<Item = Device>, now: Duration) {
        for device in devices
            .into_iter()
            .filter(|device| !self.captured.contains_key(&device.key))
        {
            self.take_off(&device);
        }
        let kept: Vec<_> = self
            .captured
            .keys()
            .map(|key| (key.namespace.inode, key.index))
            .collect();
        bpf::pins::remove_devices_but(&self.pin_folder, &kept);
        self.slots.leftovers_removed(now);
    }

    /// The ENIs, as they are captured or were in the open windows.
    #[must_use]
    pub fn enis(&self) -> CapturedEnis {
        let not_captured = self.waiting.values().filter_map(|waiting| {
            let entry = match_device(&self.inventory, &waiting.device).ok()??;
            Some(Arc::new(entry.eni))
        });
        CapturedEnis {
            by_slot: self.slots.table(),
            not_captured: not_captured.collect(),
        }
    }

    /// All open windows were opened at the boot time `opened` or later.
    pub fn windows_opened(&mut self, opened: Duration) {
        for slot in self.slots.windows_opened(opened) {
            // Lest the next agent takes its ENI for one that is there.
            if let Err(error) = self.identities.remove(slot) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Whose capture has begun or ended since this was asked last, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The captured ENIs, their devices, and which end of the link each is.
    pub fn devices(&self) -> impl Iterator<Item = (&str, DeviceKey, Side)> {
        self.captured.iter().map(|(key, captured)| {
            let entry = &captured.entry;
            (entry.eni.eni_id.as_str(), *key, entry.side)
        })
    }

    /// Devices that wait for another attempt.
    pub fn waiting_devices(&self) -> impl Iterator<Item = DeviceKey> {
        self.waiting.keys().copied()
    }

    /// The slot of an ENI; one is given to it if it has none, as if it had been captured until now. None if there is no room.
    pub fn slot_of(&mut self, eni: &Eni, now: Duration) -> Option<u32> {
        let slot = self.slots.take(eni).ok()?;
        self.slots.release(slot, now);
        self.changed = true;
        Some(slot)
    }

    /// Whether other ENIs are captured than when this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

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

/// Where an entry stands in the file does not matter.
fn entry_is_same(a: &EniEntry, b: &EniEntry) -> bool {
    a.eni == b.eni && a.side == b.side && a.hook == b.hook
}

/// Which ENI a device is; an error where that is ambiguous.
///
/// # Errors
///
/// A sentence for people.
pub fn match_device(inventory: &Inventory, device: &Device) -> Result<Option<EniEntry>, String> {
    let identity = DeviceIdentity {
        name: &device.name,
        mac: device.mac,
        alias: device.alias.as_deref(),
        namespace: device.namespace_name.as_deref(),
    };
    match inventory.find(&identity) {
        Match::One(entry) => Ok(Some(entry.clone())),
        Match::None => Ok(None),
        Match::Ambiguous(enis) => Err(format!(
            "the inventory says that it is each of {}",
            enis.join(", ")
        )),
    }
}
