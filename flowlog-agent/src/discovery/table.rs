//! The devices of one namespace, as far as they have been told.
//!
//! Turns what netlink says into events, each told once. Pure: it is given messages, and gives events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::device::{Device, DeviceCounters, DeviceEvent};

/// The devices of one namespace. Its size is bounded by the number of devices the kernel has there.
#[derive(Debug, Default)]
pub(super) struct DeviceTable {
    devices: BTreeMap<u32, Known>,
    dump: Option<Dump>,
}

#[derive(Debug)]
struct Known {
    device: Device,
    /// The highest that were told.
    counters: Option<DeviceCounters>,
}

/// A dump while it is being read.
#[derive(Debug, Default)]
struct Dump {
    seen: BTreeMap<u32, (Device, Option<DeviceCounters>)>,
    /// Devices that notifications told of meanwhile. Those win over the dump, in whatever order the two arrive: a part of
    /// a dump may be filled before a change and be queued behind its notification, and a change after the notification
    /// would have given another.
    notified: BTreeSet<u32>,
}

impl DeviceTable {
    /// The devices, by index.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(|known| &known.device)
    }

    /// The device of this index has counted so much; gives what is known now.
    pub(super) fn counted(&mut self, index: u32, counters: DeviceCounters) -> DeviceCounters {
        let Some(known) = self.devices.get_mut(&index) else {
            return counters;
        };
        let highest = known
            .counters
            .map_or(counters, |told| told.highest(counters));
        known.counters = Some(highest);
        highest
    }

    /// A notification: there is this device, and it is so.
    pub(super) fn notified(
        &mut self,
        device: Device,
        counters: Option<DeviceCounters>,
        events: &mut VecDeque<DeviceEvent>,
    ) {
        if let Some(dump) = &mut self.dump {
            dump.notified.insert(device.key.index);
        }
        self.put(device, counters, events);
    }

    /// A notification: the device of this index is gone.
    pub(super) fn gone(
        &mut self,
        index: u32,
        counters: Option<DeviceCounters>,
        events: &mut VecDeque<DeviceEvent>,
    ) {
        if let Some(dump) = &mut self.dump {
            dump.notified.insert(index);
        }
        self.remove(index, counters, events);
    }

    /// A dump begins.
    pub(super) fn begin_dump(&mut self) {
        self.dump = Some(Dump::default());
    }

    /// A dump has this device.
    pub(super) fn dumped(&mut self, device: Device, counters: Option<DeviceCounters>) {
        if let Some(dump) = &mut self.dump {
            dump.seen.insert(device.key.index, (device, counters));
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
                self.remove(index, None, events);
            }
        }
        for (index, (device, counters)) in seen {
            if !notified.contains(&index) {
                self.put(device, counters, events);
            }
        }
    }

    /// Every device is gone, with its namespace; `last_counters` tells what the one of an index has counted.
    pub(super) fn clear(
        &mut self,
        mut last_counters: impl FnMut(u32) -> Option<DeviceCounters>,
        events: &mut VecDeque<DeviceEvent>,
    ) {
        self.dump = None;
        let indices: Vec<u32> = self.devices.keys().copied().collect();
        for index in indices {
            self.remove(index, last_counters(index), events);
        }
    }

    fn put(
        &mut self,
        device: Device,
        counters: Option<DeviceCounters>,
        events: &mut VecDeque<DeviceEvent>,
    ) {
        let index = device.key.index;
        // A device's kind never changes: this is another one that got the same index, and the notifications of the one's end and
        // the other's beginning were lost.
        let other_kind = |known: &Known| known.device.kind != device.kind;
        if self.devices.get(&index).is_some_and(other_kind) {
            self.remove(index, None, events);
        }
        let Some(known) = self.devices.get_mut(&index) else {
            let known = Known {
                device: device.clone(),
                counters,
            };
            self.devices.insert(index, known);
            events.push_back(DeviceEvent::Appeared(device, counters));
            return;
        };
        known.counters = later(known.counters, counters);
        if known.device != device {
            known.device = device.clone();
            events.push_back(DeviceEvent::Changed(device, known.counters));
        }
    }

    fn remove(
        &mut self,
        index: u32,
        counters: Option<DeviceCounters>,
        events: &mut VecDeque<DeviceEvent>,
    ) {
        if let Some(known) = self.devices.remove(&index) {
            let last = later(known.counters, counters);
            events.push_back(DeviceEvent::Vanished(known.device.key, last));
        }
    }
}

/// What is known of a device's counters after a reading.
fn later(known: Option<DeviceCounters>, read: Option<DeviceCounters>) -> Option<DeviceCounters> {
    match (known, read) {
        (Some(known), Some(read)) => Some(known.highest(read)),
        (known, read) => read.or(known),
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::{DeviceCounters, DeviceKey};
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

    /// Counters by which they are known again.
    fn counted(rx_packets: u64) -> Option<DeviceCounters> {
        Some(DeviceCounters {
            rx_packets,
            ..DeviceCounters::default()
        })
    }

    /// A table that knows of the given devices, with their events told.
    fn table(devices: &[Device]) -> DeviceTable {
        let mut table = DeviceTable::default();
        for device in devices {
            table.notified(device.clone(), None, &mut VecDeque::new());
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
        assert_eq!(
            told(|events| table.notified(device(2, "a"), counted(1), events)),
            [],
            "that it has counted is no news"
        );
        assert_eq!(
            told(|events| table.notified(device(2, "b"), counted(2), events)),
            [Changed(device(2, "b"), counted(2))]
        );
        assert_eq!(
            told(|events| table.gone(2, counted(3), events)),
            [Vanished(key(2), counted(3))]
        );
        assert_eq!(told(|events| table.gone(2, None, events)), []);
    }

    #[test]
    fn counters_are_told_as_high_as_they_were_ever_known() {
        let sent = |tx_packets| DeviceCounters {
            tx_packets,
            ..DeviceCounters::default()
        };
        let mut table = DeviceTable::default();
        table.notified(device(2, "a"), counted(5), &mut VecDeque::new());
        let both = DeviceCounters {
            rx_packets: 5,
            ..sent(7)
        };
        assert_eq!(table.counted(2, sent(7)), both);
        assert_eq!(table.counted(3, sent(7)), sent(7), "nothing is known of it");
        assert_eq!(
            told(|events| table.notified(device(2, "b"), Some(sent(1)), events)),
            [Changed(device(2, "b"), Some(both))]
        );
        assert_eq!(
            told(|events| table.gone(2, Some(sent(8)), events)),
            [Vanished(
                key(2),
                Some(DeviceCounters {
                    tx_packets: 8,
                    ..both
                })
            )]
        );
        assert_eq!(
            told(|events| table.notified(device(2, "b"), counted(1), events)),
            [Appeared(device(2, "b"), counted(1))],
            "another device"
        );
    }

    #[test]
    fn a_dump_tells_the_differences_alone() {
        let mut table = table(&[device(2, "a"), device(3, "b"), device(4, "c")]);
        table.begin_dump();
        for device in [device(2, "a"), device(3, "renamed"), device(5, "new")] {
            table.dumped(device, counted(4));
        }
        let events = told(|events| table.end_dump(true, events));
        assert_eq!(
            events,
            [
                Vanished(key(4), None),
                Changed(device(3, "renamed"), counted(4)),
                Appeared(device(5, "new"), counted(4))
            ]
        );
    }

    #[test]
    fn notifications_win_over_the_dump_they_arrive_in() {
        let mut table = table(&[device(2, "a"), device(3, "b")]);
        table.begin_dump();
        table.dumped(device(2, "a"), None);
        assert_eq!(
            told(|events| table.gone(2, None, events)),
            [Vanished(key(2), None)]
        );
        assert_eq!(
            told(|events| table.notified(device(3, "newer"), None, events)),
            [Changed(device(3, "newer"), None)]
        );
        assert_eq!(
            told(|events| table.notified(device(4, "new"), None, events)),
            [Appeared(device(4, "new"), None)]
        );
        table.dumped(device(3, "b"), None);
        assert_eq!(told(|events| table.end_dump(true, events)), []);
    }

    #[test]
    fn a_dump_that_is_not_complete_proves_nothing_gone() {
        let mut table = table(&[device(2, "a")]);
        table.begin_dump();
        table.dumped(device(3, "b"), None);
        assert_eq!(
            told(|events| table.end_dump(false, events)),
            [Appeared(device(3, "b"), None)]
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
        table.dumped(bridge.clone(), counted(5));
        assert_eq!(
            told(|events| table.end_dump(true, events)),
            [Vanished(key(2), None), Appeared(bridge, counted(5))]
        );
    }

    #[test]
    fn clearing_tells_of_each_device_once() {
        let mut table = table(&[device(2, "a"), device(3, "b")]);
        assert_eq!(
            told(|events| table.clear(|index| counted(index.into()), events)),
            [Vanished(key(2), counted(2)), Vanished(key(3), counted(3))]
        );
        assert_eq!(told(|events| table.clear(|_| None, events)), []);
    }
}
