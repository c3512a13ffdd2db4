//! What is captured: the devices that are ENIs, the programs on them, and what judges their packets.
mod attach;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use flowlog_model::{
    inventory::{DeviceIdentity, EniEntry, Inventory, Match, Side},
    record::Eni,
    security_group::{SecurityMode, session::WhenFull},
};

use crate::{
    bpf::{self, AttachPlan, Identities, Observer},
    config::Config,
    discovery::{Device, DeviceKey, HeldNamespace},
    firewall::Firewall,
    security::Security,
    slots::{CapturedEnis, Slots},
};
pub(crate) use state::{InterfaceState, JudgedEni};

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
    /// What its programs do with the security groups' verdict.
    mode: SecurityMode,
    /// Why that is not what the entry says, if it is not.
    behind: Option<Behind>,
    /// Held, so that nothing is left on the device if its namespace loses its name and lives on.
    namespace: HeldNamespace,
}

/// A captured device on which other programs should be and cannot be.
#[derive(Clone, Debug)]
struct Behind {
    reason: String,
    retry_at: Duration,
    failed_attempts: u32,
}

/// A device that should be captured and is not.
#[derive(Clone, Debug)]
struct Waiting {
    device: Device,
    reason: String,
    retry_at: Option<Duration>,
    failed_attempts: u32,
    /// The slot into which the programs count on it that a previous agent has left, if they stay.
    left: Option<u32>,
}

/// Into which slots the programs count that a previous agent has left on devices: by inode of the network namespace and interface index.
pub(crate) type LeftOn = BTreeMap<(u64, u32), u32>;

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

/// Captures devices.
pub struct Capture {
    pin_folder: PathBuf,
    namespaces: PathBuf,
    plan: AttachPlan,
    slots: Slots,
    identities: Identities,
    security: Security,
    when_full: WhenFull,
    firewall: Firewall,
    inventory: Inventory,
    captured: HashMap<DeviceKey, Captured>,
    waiting: BTreeMap<DeviceKey, Waiting>,
    /// Where they may still count.
    left_on: LeftOn,
    /// Whether what a previous agent has left is off all devices on which it does not stay.
    are_leftovers_removed: bool,
    /// Whether the table of ENIs has changed since somebody asked.
    changed: bool,
    /// Since somebody asked.
    changes: Vec<Change>,
}

impl Capture {
    /// Captures nothing yet; what a previous agent has left in force is brought to what the inventory says of it. `namespaces` is the
    /// folder of named ones.
    #[must_use]
    pub(crate) fn new(
        (pin_folder, namespaces): (PathBuf, PathBuf),
        config: &Config,
        inventory: Inventory,
        (slots, identities, mut security): (Slots, Identities, Security),
        left_on: LeftOn,
    ) -> Self {
        security.follow(&inventory, &slots.table());
        Self {
            identities,
            slots,
            security,
            when_full: config.security.when_full,
            firewall: Firewall::new(pin_folder.clone()),
            plan: AttachPlan {
                mode: config.capture.attach,
                position: config.capture.position,
                clsact_priority: config.capture.clsact_priority,
                xdp: false,
            },
            pin_folder,
            namespaces,
            inventory,
            captured: HashMap::new(),
            waiting: BTreeMap::new(),
            left_on,
            are_leftovers_removed: false,
            changed: true,
            changes: Vec::new(),
        }
    }

    /// Takes note of a device that is there, new or changed, and captures it if it is an ENI.
    pub fn device(&mut self, device: Device, now: Duration) {
        let entry = match_device(&self.inventory, &device);
        if let Some(captured) = self.captured.get_mut(&device.key) {
            if let Ok(Some(entry)) = &entry
                && captured.device.link_type == device.link_type
                && is_same_capture(entry, &captured.entry)
            {
                let before = std::mem::replace(&mut captured.entry, entry.clone());
                let key = device.key;
                captured.device = device;
                self.follow_entry(key, &before, now);
                return;
            }
            if matches!(entry, Ok(Some(_))) {
                self.hand_over(device.key, now);
            } else {
                self.release(device.key, now);
            }
        }
        let waited = self.waiting.remove(&device.key);
        if !matches!(entry, Ok(Some(_))) && waited.is_some_and(|waited| waited.left.is_some()) {
            self.take_off(&device, now);
            self.firewall.set(in_kernel(device.key), None);
        }
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
                        left: None,
                    },
                );
            }
        }
    }

    /// A device is gone. What was counted of it is still in the kernel and comes with the next drain.
    pub fn vanished(&mut self, key: DeviceKey, now: Duration) {
        self.waiting.remove(&key);
        self.nothing_left(key, now);
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
        // First, so that programs which begin to judge have something to judge by.
        self.security.follow(&self.inventory, &self.slots.table());
        for device in devices {
            self.device(device, now);
        }
        // An ENI may have moved to a device that came before the one that it was on.
        self.retry_waiting(now, true);
    }

    /// When the next retry is due, as a boot time.
    #[must_use]
    pub fn next_retry(&self) -> Option<Duration> {
        let waiting = self.waiting.values();
        let behind = self.captured.values();
        waiting
            .filter_map(|waiting| waiting.retry_at)
            .chain(behind.filter_map(|captured| Some(captured.behind.as_ref()?.retry_at)))
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
        let is_due = |captured: &Captured| {
            let behind = captured.behind.as_ref();
            behind.is_some_and(|behind| all || behind.retry_at <= now)
        };
        let captured = self.captured.iter();
        let due: Vec<DeviceKey> = captured
            .filter(|(_, captured)| is_due(captured))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.reattach(key, now);
        }
    }

    /// Takes all programs off.
    pub fn release_all(&mut self, now: Duration) {
        let keys: Vec<DeviceKey> = self.captured.keys().copied().collect();
        for key in keys {
            self.release(key, now);
        }
        let waiting = std::mem::take(&mut self.waiting).into_values();
        for Waiting { device, .. } in waiting.filter(|waiting| waiting.left.is_some()) {
            self.take_off(&device, now);
            self.firewall.set(in_kernel(device.key), None);
        }
    }

    /// Leaves all programs where they are, for the next agent to take over.
    pub fn leave_all(&mut self) {
        for (_, captured) in self.captured.drain() {
            captured.observer.leave();
        }
        self.firewall.leave();
    }

    /// Takes off what a previous agent has left on devices that are not captured any more, unless it stays until they can be captured.
    /// `devices` are those that are there.
    pub fn remove_leftovers(&mut self, devices: impl IntoIterator<Item = Device>, now: Duration) {
        let waiting = self.waiting.iter();
        let left: Vec<(DeviceKey, u32)> = waiting
            .filter_map(|(key, waiting)| Some((*key, waiting.left?)))
            .collect();
        let stays: BTreeSet<DeviceKey> = left
            .iter()
            .map(|(key, _)| *key)
            .chain(self.captured.keys().copied())
            .collect();
        for device in devices
            .into_iter()
            .filter(|device| !stays.contains(&device.key))
        {
            self.take_off(&device, now);
        }
        let kept: Vec<_> = stays.into_iter().map(in_kernel).collect();
        bpf::pins::remove_devices_but(&self.pin_folder, &kept);
        self.firewall.remove_leftovers();
        let slots: Vec<u32> = left.into_iter().map(|(_, slot)| slot).collect();
        self.slots.leftovers_removed(&slots, now);
        self.are_leftovers_removed = true;
    }

    /// The ENIs, as they are captured or were in the open windows.
    #[must_use]
    pub fn enis(&self) -> CapturedEnis {
        // Where a previous agent's programs count on, nothing is missed.
        let missed = |waiting: &&Waiting| waiting.left.is_none();
        let not_captured = self.waiting.values().filter(missed).filter_map(|waiting| {
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
            self.freed(slot);
        }
    }

    /// A slot is nobody's any more.
    fn freed(&mut self, slot: u32) {
        // Lest the next agent takes its ENI for one that is there.
        if let Err(error) = self.identities.remove(slot) {
            tracing::warn!("{error}");
        }
        self.security.forget(slot);
    }

    /// The security groups in the kernel.
    #[must_use]
    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// Likewise.
    #[must_use]
    pub(crate) fn security_mut(&mut self) -> &mut Security {
        &mut self.security
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
}

/// A device, as the kernel's programs know it.
fn in_kernel(key: DeviceKey) -> (u64, u32) {
    (key.namespace.inode, key.index)
}

/// How long to wait before the next attempt.
fn wait_after(failed_attempts: u32) -> Duration {
    RETRY_LONGEST.min(RETRY_FIRST.saturating_mul(1 << failed_attempts.min(16)))
}

/// Whether an ENI is captured in the same way by both entries. Where an entry stands in the file does not matter.
fn is_same_capture(a: &EniEntry, b: &EniEntry) -> bool {
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
