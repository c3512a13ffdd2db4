//! What is captured: the devices that are ENIs, the programs on them, and the counters that they share.
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use flowlog_model::inventory::{self, DeviceIdentity, EniEntry, Inventory, Match, Side};

use crate::{
    bpf::{
        self, AttachPlan, BpfError, EniConstants, Fill, Hook, Identities, MapSizes, Observer,
        Prepared, RunStats, Target, pins::Pins,
    },
    config::CaptureConfig,
    discovery::{Device, DeviceKey, HeldNamespace, in_namespace},
    drain::Drainer,
    kernel::Kernel,
    sizing::Sizing,
    slots::Slots,
    store::CapturedEnis,
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
    wait: Duration,
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

/// Captures devices.
pub struct Capture {
    pin_folder: PathBuf,
    namespaces: PathBuf,
    plan: AttachPlan,
    drainer: Drainer,
    slots: Slots,
    identities: Identities,
    inventory: Inventory,
    captured: HashMap<DeviceKey, Captured>,
    waiting: BTreeMap<DeviceKey, Waiting>,
}

impl Capture {
    /// Makes the counters in the kernel, or takes over those that a previous agent has `left`. `namespaces` is the folder of named
    /// ones.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new(
        pin_folder: PathBuf,
        left: Pins,
        namespaces: PathBuf,
        config: &CaptureConfig,
        inventory: Inventory,
    ) -> Result<Self, BpfError> {
        let sizing = Sizing::new(config.flow_map_min_entries, config.flow_map_max_entries);
        let ring_bytes = config.overflow_ring_kib.saturating_mul(1024);
        let Kernel {
            counters,
            identities,
            slots,
        } = match left {
            Pins::Left => Kernel::take_over(&pin_folder, sizing.sizes(), ring_bytes)?,
            Pins::New => Kernel::create(&pin_folder, sizing.sizes(), ring_bytes)?,
        };
        Ok(Self {
            drainer: Drainer::new(counters, sizing, &pin_folder)?,
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
        })
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
            Ok(Some(entry)) => self.attach(device, entry, RETRY_FIRST, now),
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(device = device.name, "not captured: {reason}");
                self.waiting.insert(
                    device.key,
                    Waiting {
                        device,
                        reason,
                        retry_at: None,
                        wait: RETRY_FIRST,
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
                self.attach(
                    waiting.device,
                    entry,
                    (waiting.wait * 2).min(RETRY_LONGEST),
                    now,
                );
            }
        }
    }

    fn attach(&mut self, device: Device, entry: EniEntry, wait: Duration, now: Duration) {
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
                let [ingress, egress] = observer.hooks();
                tracing::info!(
                    eni = entry.eni.eni_id,
                    device = device.name,
                    namespace = device.namespace_name,
                    "captured: ingress by {}, egress by {}",
                    ingress.as_str(),
                    egress.as_str()
                );
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
                tracing::warn!(eni = entry.eni.eni_id, device = device.name, retry = ?wait, "not captured: {reason}");
                // If it was another ENI before, that one's programs are still on it.
                self.take_off(&device);
                self.waiting.insert(
                    device.key,
                    Waiting {
                        device,
                        reason,
                        retry_at: Some(now + wait),
                        wait,
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
        if let Some(captured) = self.captured.remove(&key) {
            captured.observer.leave();
            self.slots.release(captured.slot, now);
            tracing::info!(
                eni = captured.entry.eni.eni_id,
                device = captured.device.name,
                "no longer captured"
            );
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
        self.slots.release(slot, now);
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
    pub fn remove_leftovers(&self, devices: impl IntoIterator<Item = Device>) {
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
    }

    /// The counters.
    pub fn drainer(&mut self) -> &mut Drainer {
        &mut self.drainer
    }

    /// How full the active maps are, and their sizes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn fill(&self) -> Result<(Fill, MapSizes), BpfError> {
        self.drainer.fill()
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

    /// A window of the longest kind was closed.
    pub fn all_windows_closed(&mut self) {
        self.slots.all_windows_closed();
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

    /// Devices that should be captured and are not: name and reason.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.waiting
            .values()
            .map(|waiting| (waiting.device.name.as_str(), waiting.reason.as_str()))
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
