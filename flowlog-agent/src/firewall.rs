//! The host firewall's verdicts: which devices they are wanted of.
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, path::PathBuf};

use crate::bpf::{BpfError, NetfilterDrops, netfilter};

/// What netfilter drops is counted as long as it is wanted of a device.
pub(crate) struct Firewall {
    pin_folder: PathBuf,
    drops: Drops,
    /// By inode of the network namespace and interface index.
    devices: BTreeSet<(u64, u32)>,
}

enum Drops {
    /// Nobody wants them; or nobody has yet, and a previous agent's program may count on.
    NotWanted,
    Counted(NetfilterDrops),
    /// Why they cannot be had.
    Unavailable(String),
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirewallState {
    /// No ENI wants it.
    NotWanted,
    /// It is counted.
    Counted {
        /// Drops of the host that the program could not look at, for it was running on that CPU.
        missed: u64,
    },
    /// Why it cannot be had.
    Unavailable(String),
}

impl Firewall {
    /// Of no device yet.
    #[must_use]
    pub(crate) fn new(pin_folder: PathBuf) -> Self {
        Self {
            pin_folder,
            drops: Drops::NotWanted,
            devices: BTreeSet::new(),
        }
    }

    /// Counts what netfilter drops of a device, which is the ENI in this slot, or does not; in place of what held before.
    pub(crate) fn set(&mut self, device: (u64, u32), eni: Option<(u32, bool)>) {
        let result = match eni {
            Some((slot, host_side)) => self.add(device, slot, host_side),
            None => self.remove(device),
        };
        if let Err(error) = result {
            tracing::error!(
                "{error}: what netfilter drops of a device is not as the inventory says"
            );
        }
    }

    fn add(&mut self, device: (u64, u32), slot: u32, host_side: bool) -> Result<(), BpfError> {
        self.attach();
        if let Drops::Counted(drops) = &self.drops {
            let (namespace, index) = device;
            drops.set_device(namespace, index, slot, host_side)?;
        }
        self.devices.insert(device);
        Ok(())
    }

    fn attach(&mut self) {
        if !matches!(self.drops, Drops::NotWanted) {
            return;
        }
        self.drops = match NetfilterDrops::attach(&self.pin_folder) {
            Ok(drops) => Drops::Counted(drops),
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!("{reason}: what netfilter drops is ACCEPT, or not recorded");
                Drops::Unavailable(reason)
            }
        };
    }

    fn remove(&mut self, (namespace, index): (u64, u32)) -> Result<(), BpfError> {
        if !self.devices.remove(&(namespace, index)) {
            return Ok(());
        }
        if let Drops::Counted(drops) = &self.drops {
            drops.remove_device(namespace, index)?;
        }
        if self.devices.is_empty() {
            // Where they could not be had, the next device that wants them tries anew.
            let drops = std::mem::replace(&mut self.drops, Drops::NotWanted);
            if let Drops::Counted(drops) = drops {
                drops.detach()?;
            }
        }
        Ok(())
    }

    /// Forgets what a previous agent has left of devices that are not ENIs any more.
    pub(crate) fn remove_leftovers(&mut self) {
        let removed = match &self.drops {
            Drops::Counted(drops) => self.remove_other_devices(drops),
            Drops::NotWanted | Drops::Unavailable(_) => netfilter::remove_left(&self.pin_folder),
        };
        if let Err(error) = removed {
            tracing::warn!("{error}");
        }
    }

    fn remove_other_devices(&self, drops: &NetfilterDrops) -> Result<(), BpfError> {
        for (key, _) in drops.devices()? {
            let device = (u64::from(key.namespace), key.index);
            if !self.devices.contains(&device) {
                drops.remove_device(device.0, device.1)?;
            }
        }
        Ok(())
    }

    /// Leaves the program attached, for the next agent to take over.
    pub(crate) fn leave(&mut self) {
        if let Drops::Counted(drops) = std::mem::replace(&mut self.drops, Drops::NotWanted) {
            drops.leave();
        }
        self.devices.clear();
    }

    /// How it stands.
    #[must_use]
    pub(crate) fn state(&self) -> FirewallState {
        match &self.drops {
            Drops::NotWanted => FirewallState::NotWanted,
            Drops::Counted(drops) => FirewallState::Counted {
                missed: drops.missed().unwrap_or_default(),
            },
            Drops::Unavailable(reason) => FirewallState::Unavailable(reason.clone()),
        }
    }
}
