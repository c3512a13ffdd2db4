//! What the devices count by themselves: the ledger's independent witness.
use std::{collections::HashMap, time::Duration};

use flowlog_model::inventory::Side;

use super::Agent;
use crate::{
    capture::{Capture, Change},
    discovery::{DeviceCounters, DeviceKey},
    ledger::{DeviceCount, DeviceId, Reading},
};

/// What devices have counted, as far as it is known.
pub(super) type Counters = HashMap<DeviceKey, DeviceCounters>;

impl Agent {
    /// Has the capture do something that concerns these devices, and enters in the ledger whose capture begins or ends by it. `gone` is the
    /// device that has vanished, with what it had counted.
    pub(super) fn with_capture(
        &mut self,
        devices: impl IntoIterator<Item = DeviceKey>,
        gone: Option<(DeviceKey, Option<DeviceCounters>)>,
        act: impl FnOnce(&mut Capture, Duration),
    ) {
        let before = self.discovery.counters(devices);
        act(&mut self.capture, self.clock.now().boot);
        let changes = self.capture.take_changes();
        if changes.is_empty() {
            return;
        }
        let after = self
            .discovery
            .counters(changes.iter().map(|change| change.device));
        for change in changes {
            let count = match gone {
                Some((device, counters)) if device == change.device => {
                    counters.map(|counters| count_of_gone(change.side, &counters))
                }
                _ => count(change.side, change.device, &before, &after),
            };
            if change.captured {
                self.captured(&change, count.unwrap_or_default());
            } else {
                self.ledger.released(&change.eni_id, count);
            }
        }
    }

    fn captured(&mut self, change: &Change, count: DeviceCount) {
        let device = device_id(change.device);
        if self.ledger.lost_enis().contains(&change.eni_id)
            && let Some(missing) = self.ledger.missing(&change.eni_id, device, count)
        {
            self.ledger
                .lose_packets(&change.eni_id, change.slot, &missing);
            tracing::error!(
                eni = change.eni_id,
                "its interface has counted {} packets in and {} out that are lost",
                missing.r#in.packets,
                missing.out.packets
            );
        }
        self.ledger.captured(&change.eni_id, device, count);
    }

    /// What the captured devices have counted until now.
    pub(super) fn device_counters(&mut self) -> Counters {
        let devices: Vec<DeviceKey> = self.capture.devices().map(|(_, key, _)| key).collect();
        self.discovery.counters(devices)
    }

    /// Enters what the captured devices had counted at a drain, between two readings.
    pub(super) fn enter_counters(&mut self, before: &Counters, after: &Counters) {
        let counts = self
            .capture
            .devices()
            .filter_map(|(eni_id, key, side)| Some((eni_id, count(side, key, before, after)?)));
        self.ledger.read(counts);
    }
}

fn device_id(key: DeviceKey) -> DeviceId {
    DeviceId {
        namespace: key.namespace.inode,
        index: key.index,
    }
}

fn count(side: Side, key: DeviceKey, before: &Counters, after: &Counters) -> Option<DeviceCount> {
    let after = after.get(&key)?;
    // Without an earlier reading nothing is known but that it had counted no more.
    let before = before.get(&key).copied().unwrap_or_default();
    let reading = |low, (high, bytes)| Reading { low, high, bytes };
    let (before, after) = (directions(side, &before), directions(side, after));
    let [(in_before, _), (out_before, _)] = before;
    let [in_after, out_after] = after;
    Some([reading(in_before, in_after), reading(out_before, out_after)])
}

fn count_of_gone(side: Side, counters: &DeviceCounters) -> DeviceCount {
    directions(side, counters).map(|(low, bytes)| Reading {
        low,
        high: u64::MAX,
        bytes,
    })
}

/// Packets and octets in and out, as the ENI's owner sees it. What a device has no room for has been through the programs before.
fn directions(side: Side, counters: &DeviceCounters) -> [(u64, u64); 2] {
    let received = (counters.rx_packets, counters.rx_bytes);
    let sent = (
        counters.tx_packets.saturating_add(counters.tx_dropped),
        counters.tx_bytes,
    );
    match side {
        Side::Guest => [received, sent],
        Side::Host => [sent, received],
    }
}
