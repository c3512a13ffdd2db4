//! The devices of one namespace, as far as they have been told.
//!
//! Turns what netlink says into events, each told once. Pure: it is given messages, and gives events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::device::{Device, DeviceEvent};

/// The devices of one namespace. Its size is bounded by the number of devices the kernel has there.
#[derive(Debug, Default)]
pub(super) struct DeviceTable {
    devices: BTreeMap<u32, Device>,
    dump: Option<Dump>,
}

/// A dump while it is being read.
#[derive(Debug, Default)]
struct Dump {
    seen: BTreeMap<u32, Device>,
    /// Devices that notifications told of meanwhile. Those win over the dump, in whatever order the two arrive: a part of
    /// a dump may be filled before a change and be queued behind its notification, and a change after the notification
    /// would have given another.
    notified: BTreeSet<u32>,
}

impl DeviceTable {
    /// The devices, by index.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// A notification: there is this device, and it is so.
    pub(super) fn notified(&mut self, device: Device, events: &mut VecDeque<DeviceEvent>) {
        if let Some(dump) = &mut self.dump {
            dump.notified.insert(device.key.index);
        }
        self.put(device, events);
    }

    /// A notification: the device of this index is gone.
    pub(super) fn gone(&mut self, index: u32, events: &mut VecDeque<DeviceEvent>) {
        if let Some(dump) = &mut self.dump {
            dump.notified.insert(index);
        }
        self.remove(index, events);
    }

    /// A dump begins.
    pub(super) fn begin_dump(&mut self) {
        self.dump = Some(Dump::default());
    }

    /// A dump has this device.
    pub(super) fn dumped(&mut self, device: Device) {
        if let Some(dump) = &mut self.dump {
            dump.seen.insert(device.key.index, device);
        }
    }

    /// The dump is over. Only a `complete` one proves that what it lacks is gone.
    pub(super) fn end_dump(&mut self, complete: bool, events: &mut VecDeque<DeviceEvent>) {
        let Some(Dump { seen, notified }) = self.dump.take() else {
            return;
        };
        if complete {
            let gone = |index: &u32| !seen.contains_key(index) && !notified.contains(index);
            let gone: Vec<u32> = self.devices.keys().copied().filter(gone).collect();
            for index in gone {
                self.remove(index, events);
            }
        }
        for (index, device) in seen {
            if !notified.contains(&index) {
                self.put(device, events);
            }
        }
    }

    /// Every device is gone, with its namespace.
    pub(super) fn clear(&mut self, events: &mut VecDeque<DeviceEvent>) {
        self.dump = None;
        events.extend(
            std::mem::take(&mut self.devices)
                .into_values()
                .map(|device| DeviceEvent::Vanished(device.key)),
        );
    }

    fn put(&mut self, device: Device, events: &mut VecDeque<DeviceEvent>) {
        let before = self.devices.insert(device.key.index, device.clone());
        match before {
            None => events.push_back(DeviceEvent::Appeared(device)),
            Some(before) if before == device => {}
            // A device's kind never changes: this is another one that got the same index, and the notifications of
            // the one's end and the other's beginning were lost.
            Some(before) if before.kind != device.kind => {
                events.extend([
                    DeviceEvent::Vanished(before.key),
                    DeviceEvent::Appeared(device),
                ]);
            }
            Some(_) => events.push_back(DeviceEvent::Changed(device)),
        }
    }

    fn remove(&mut self, index: u32, events: &mut VecDeque<DeviceEvent>) {
        if let Some(device) = self.devices.remove(&index) {
            events.push_back(DeviceEvent::Vanished(device.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::DeviceKey;
    use super::super::namespace::NamespaceId;
    use super::DeviceEvent::{Appeared, Changed, Vanished};
    use super::*;

    fn key(index: u32) -> DeviceKey {
        DeviceKey {
            namespace: NamespaceId {
                device: 4,
                inode: 7,
            },
            index,
        }
    }

    fn device(index: u32, name: &str) -> Device {
        Device {
            key: key(index),
            namespace_name: None,
            name: name.into(),
            mac: None,
            alias: None,
            kind: Some("veth".into()),
            link_type: 1,
            up: false,
            mtu: 1500,
            xdp_attached: None,
        }
    }

    /// A table that knows of the given devices, with their events told.
    fn table(devices: &[Device]) -> DeviceTable {
        let mut table = DeviceTable::default();
        for device in devices {
            table.notified(device.clone(), &mut VecDeque::new());
        }
        table
    }

    fn told(act: impl FnOnce(&mut VecDeque<DeviceEvent>)) -> Vec<DeviceEvent> {
        let mut events = VecDeque::new();
        act(&mut events);
        events.into()
    }

    #[test]
    fn the_same_news_twice_is_told_once() {
        let mut table = table(&[device(2, "a")]);
        assert_eq!(told(|events| table.notified(device(2, "a"), events)), []);
        assert_eq!(
            told(|events| table.notified(device(2, "b"), events)),
            [Changed(device(2, "b"))]
        );
        assert_eq!(told(|events| table.gone(2, events)), [Vanished(key(2))]);
        assert_eq!(told(|events| table.gone(2, events)), []);
    }

    #[test]
    fn a_dump_tells_the_differences_alone() {
        let mut table = table(&[device(2, "a"), device(3, "b"), device(4, "c")]);
        table.begin_dump();
        for device in [device(2, "a"), device(3, "renamed"), device(5, "new")] {
            table.dumped(device);
        }
        let events = told(|events| table.end_dump(true, events));
        assert_eq!(
            events,
            [
                Vanished(key(4)),
                Changed(device(3, "renamed")),
                Appeared(device(5, "new"))
            ]
        );
    }

    #[test]
    fn notifications_win_over_the_dump_they_arrive_in() {
        let mut table = table(&[device(2, "a"), device(3, "b")]);
        table.begin_dump();
        table.dumped(device(2, "a"));
        assert_eq!(told(|events| table.gone(2, events)), [Vanished(key(2))]);
        assert_eq!(
            told(|events| table.notified(device(3, "newer"), events)),
            [Changed(device(3, "newer"))]
        );
        assert_eq!(
            told(|events| table.notified(device(4, "new"), events)),
            [Appeared(device(4, "new"))]
        );
        table.dumped(device(3, "b"));
        assert_eq!(told(|events| table.end_dump(true, events)), []);
    }

    #[test]
    fn a_dump_that_is_not_complete_proves_nothing_gone() {
        let mut table = table(&[device(2, "a")]);
        table.begin_dump();
        table.dumped(device(3, "b"));
        assert_eq!(
            told(|events| table.end_dump(false, events)),
            [Appeared(device(3, "b"))]
        );
    }

    #[test]
    fn another_kind_under_the_same_index_is_another_device() {
        let mut table = table(&[device(2, "a")]);
        let bridge = Device {
            kind: Some("bridge".into()),
            ..device(2, "a")
        };
        table.begin_dump();
        table.dumped(bridge.clone());
        assert_eq!(
            told(|events| table.end_dump(true, events)),
            [Vanished(key(2)), Appeared(bridge)]
        );
    }

    #[test]
    fn clearing_tells_of_each_device_once() {
        let mut table = table(&[device(2, "a"), device(3, "b")]);
        assert_eq!(
            told(|events| table.clear(events)),
            [Vanished(key(2)), Vanished(key(3))]
        );
        assert_eq!(told(|events| table.clear(events)), []);
    }
}
