//! The ledger: of each ENI, what its interface counted and what became of it, since it was first captured and over restarts.
//!
//! An interface and the programs on it count at different places, so the two agree when
//!
//! ```text
//! interface + merged segments = recorded + skipped + not IP - unseen
//! ```
//!
//! for the programs count each segment of a super-packet, and a device counts it once, or after it was cut, or before it was merged: which,
//! depends on the device and its offloads. Unseen is what was recorded and dropped before it came to the interface. So the merged segments are between none and all extra segments of super-packets. The interface's
//! counters are read while packets go on: a count is known only to lie between a reading before the moment that matters and one after it.
//! [`Conservation`] allows for that, and for no more.
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use flowlog_common::{EniCounters, MAX_ENIS, Volume};
use flowlog_model::spelled_enum;
use serde::{Deserialize, Serialize};

use crate::{
    flows::ByDirection,
    slots::EniTable,
    spool::{Committed, Volumes},
};

/// Packets of an ENI and direction, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counted {
    /// In flows.
    pub recorded: u64,
    /// In SKIPDATA.
    pub skipped: u64,
    /// Frames that are not IP.
    pub not_ip: u64,
    /// Packets counted beyond the frames that carried them.
    pub extra_segments: u64,
    /// In flows, and dropped before the interface could see them: sent packets that the security groups or netfilter rejected.
    #[serde(default)]
    pub unseen: u64,
}

impl Counted {
    /// All packets that the programs have counted.
    fn packets(&self) -> u64 {
        self.recorded + self.skipped + self.not_ip
    }

    /// Those that came to the interface.
    fn seen(&self) -> u64 {
        self.packets().saturating_sub(self.unseen)
    }
}

/// What a device has counted at a moment that lies between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Packets by the reading before the moment.
    pub low: u64,
    /// Packets by the reading after it; [`u64::MAX`] if there is none, for the device was gone.
    pub high: u64,
    /// Octets of frames, by the later reading that there is.
    pub bytes: u64,
}

impl Reading {
    fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            high: self.high.saturating_add(other.high),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What was counted since a base.
    fn since(self, base: Self) -> Self {
        Self {
            low: self.low.saturating_sub(base.high),
            high: if self.high == u64::MAX {
                u64::MAX
            } else {
                self.high.saturating_sub(base.low)
            },
            bytes: self.bytes.saturating_sub(base.bytes),
        }
    }

    /// What comes nearest to a number.
    fn nearest(self, number: u64) -> u64 {
        number.clamp(self.low, self.high.max(self.low))
    }
}

/// What a device has counted, by direction as the ENI's owner sees it: in, out.
pub type DeviceCount = [Reading; 2];

/// What identifies a device until the host is booted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceId {
    /// Inode of its network namespace.
    pub namespace: u64,
    /// Interface index.
    pub index: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OnDevice {
    device: DeviceId,
    /// When its capture began.
    base: DeviceCount,
    /// When it was last read.
    last: DeviceCount,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    /// Of devices that are gone, or that it is not captured on any more.
    before: DeviceCount,
    on: Option<OnDevice>,
    counted: [Counted; 2],
}

/// Whether all that an interface counted is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conservation {
    /// What the interface counted, in frames: within the bounds, what comes nearest to what was counted.
    pub interface: u64,
    /// What became of it.
    pub counted: Counted,
    /// Segments that the interface has counted together with others; as many as explain its number, if they can.
    pub merged_segments: u64,
    /// Frames that the interface counted and the programs did not, or, below 0, the reverse; 0 if what was seen lies within the bounds.
    pub difference: i64,
}

spelled_enum! {
    /// Why packets are in SKIPDATA records.
    pub enum Cause {
        /// Neither the flow map nor the overflow ring in the kernel had room.
        MapFull = "map-full",
        /// Headers that are cut short or contradict themselves.
        Unparsable = "unparsable",
        /// The counters in the kernel were lost, or are of a version that cannot be read; packets are those that the interfaces counted
        /// meanwhile.
        CountersLost = "counters-lost",
        /// Counted in the kernel when the host went down. How many they were is not known: packets and bytes are 0.
        PowerLoss = "power-loss",
        /// The spool had no room for flows of open windows.
        SpoolFull = "spool-full",
        /// Given up because the spool was larger than it may be.
        GivenUpSize = "given-up-size",
        /// Given up because no destination took them in time.
        GivenUpAge = "given-up-age",
        /// Given up because the file system was full.
        GivenUpDisk = "given-up-disk",
    }
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
    /// Windows that were given up.
    pub windows: u64,
}

/// The ledger of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Grows with each change, so that of two copies the newer one is known.
    revision: u64,
    enis: BTreeMap<String, Entry>,
    losses: BTreeMap<Cause, Loss>,
    /// What is lost and not yet in a drain, by slot.
    #[serde(default)]
    lost: Volumes,
    /// ENIs whose counters are lost, and of which it is not known how much.
    #[serde(default)]
    lost_enis: BTreeSet<String>,
}

impl Ledger {
    /// An ENI is captured on a device that had counted so much. An ENI that was captured on it before, by an agent that has left its
    /// programs there, goes on.
    pub fn captured(&mut self, eni_id: &str, device: DeviceId, count: DeviceCount) {
        self.revision += 1;
        let entry = self.enis.entry(eni_id.to_owned()).or_default();
        if entry.on.as_ref().is_some_and(|on| on.device == device) {
            return;
        }
        entry.leave();
        entry.on = Some(OnDevice {
            device,
            base: count,
            last: count,
        });
    }

    /// An ENI is no longer captured on its device, which had counted so much; none if that could not be read. If the device was gone, what it
    /// has counted is settled by [`Self::settle`].
    pub fn released(&mut self, eni_id: &str, count: Option<DeviceCount>) {
        self.revision += 1;
        if let Some(entry) = self.enis.get_mut(eni_id) {
            if let (Some(on), Some(count)) = (&mut entry.on, count) {
                on.last = count;
            }
            entry.leave();
        }
    }

    /// The devices on which ENIs are captured.
    pub fn devices(&self) -> impl Iterator<Item = (&str, DeviceId)> {
        let on = |(eni_id, entry): (_, &Entry)| Some((eni_id, entry.on.as_ref()?.device));
        let enis = self
            .enis
            .iter()
            .map(|(eni_id, entry)| (eni_id.as_str(), entry));
        enis.filter_map(on)
    }

    /// Whether there are devices that were gone before they could be read, and all that was counted on them is not drained yet.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.enis.values().any(Entry::is_unsettled)
    }

    /// All that was counted is drained. A device that was gone before it could be read had counted as much as the programs on it, but not
    /// less than is known.
    pub fn settle(&mut self) {
        for entry in self.enis.values_mut().filter(|entry| entry.is_unsettled()) {
            self.revision += 1;
            entry.settle();
        }
    }

    /// No program is left on any device: the host was booted anew, or the last agent took all off. What the devices had counted since they
    /// were read is not known.
    pub fn released_all(&mut self) {
        self.revision += 1;
        self.lost.clear();
        self.lost_enis.clear();
        for entry in self.enis.values_mut().filter(|entry| entry.on.is_some()) {
            entry.leave_unread();
            entry.settle();
        }
    }

    /// The devices of these ENIs have counted so much until the last drain.
    pub fn read<'e>(&mut self, counts: impl IntoIterator<Item = (&'e str, DeviceCount)>) {
        self.revision += 1;
        for (eni_id, count) in counts {
            let entry = self.enis.get_mut(eni_id);
            if let Some(on) = entry.and_then(|entry| entry.on.as_mut()) {
                on.last = count;
            }
        }
    }

    /// What a device has counted that is in no drain, of an ENI that was captured on it until now: by direction. Octets are in proportion
    /// to the frames that it counted.
    #[must_use]
    pub fn missing(&self, eni_id: &str, device: DeviceId, now: DeviceCount) -> Option<ByDirection> {
        let entry = self.enis.get(eni_id)?;
        let on = entry.on.as_ref().filter(|on| on.device == device)?;
        let on = OnDevice {
            last: now,
            ..on.clone()
        };
        let mut missing = ByDirection::default();
        // Whether it counts super-packets as one, it has shown until now.
        let merged = entry.conservation().map(|of| of.merged_segments);
        let counted = on.counted_on(entry.before).into_iter().zip(&entry.counted);
        for (direction, ((interface, counted), merged)) in (0..).zip(counted.zip(merged)) {
            let packets = (interface.low + merged).saturating_sub(counted.seen());
            let bytes = u128::from(interface.bytes) * u128::from(packets)
                / u128::from(interface.low.max(1));
            missing.add(direction, packets, u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        Some(missing)
    }

    /// The counters of these ENIs are lost. How much was in them, their interfaces tell: see [`Self::missing`] and [`Self::lose_packets`].
    pub fn lose_counters(&mut self, eni_ids: impl IntoIterator<Item = String>) {
        self.revision += 1;
        self.lost_enis.extend(eni_ids);
    }

    /// ENIs whose counters are lost, and of which it is not known how much.
    #[must_use]
    pub fn lost_enis(&self) -> &BTreeSet<String> {
        &self.lost_enis
    }

    /// So much of an ENI was lost with its counters. The next drain tells it under its slot.
    pub fn lose_packets(&mut self, eni_id: &str, slot: u32, missing: &ByDirection) {
        self.revision += 1;
        self.lost_enis.remove(eni_id);
        let lost = self.lost.entry(slot).or_default();
        for (direction, volume) in [(0, missing.r#in), (1, missing.out)] {
            lost.add(direction, volume.packets, volume.bytes);
        }
    }

    /// What is lost and not yet in a drain, by slot.
    #[must_use]
    pub fn lost(&self) -> &Volumes {
        &self.lost
    }

    /// Every window that the loss of counters concerns has told of it.
    pub fn lost_enis_told(&mut self) {
        if !self.lost_enis.is_empty() {
            self.revision += 1;
            self.lost_enis.clear();
        }
    }

    /// A drain has brought these flows, and what is in none, and tells what is lost besides.
    pub fn drained(&mut self, drain: &Committed, aside: &[EniCounters], enis: &EniTable) {
        self.revision += 1;
        for (slot, volumes) in &drain.unseen {
            self.count(enis, *slot, volumes, |counted, packets| {
                counted.unseen += packets;
            });
        }
        for (slot, volumes) in &drain.volumes {
            self.count(enis, *slot, volumes, |counted, packets| {
                counted.recorded += packets;
            });
        }
        for (slot, volumes) in std::mem::take(&mut self.lost) {
            self.count(enis, slot, &volumes, |counted, packets| {
                counted.skipped += packets;
            });
            for volume in [volumes.r#in, volumes.out] {
                self.lose(Cause::CountersLost, volume, 0);
            }
        }
        for (index, counters) in (0_u32..).zip(aside) {
            if *counters == EniCounters::default() {
                continue;
            }
            if let Some(counted) = self.counted(enis, index / 2, index % 2) {
                counted.skipped += counters.map_full.packets + counters.unparsable.packets;
                counted.not_ip += counters.not_ip.packets;
                counted.extra_segments += counters.extra_segments;
                counted.unseen += counters.dropped.packets;
            }
            self.lose(Cause::MapFull, counters.map_full, 0);
            self.lose(Cause::Unparsable, counters.unparsable, 0);
        }
    }

    fn count(
        &mut self,
        enis: &EniTable,
        slot: u32,
        volumes: &ByDirection,
        add: impl Fn(&mut Counted, u64),
    ) {
        for (direction, volume) in (0..).zip([volumes.r#in, volumes.out]) {
            if volume.packets > 0
                && let Some(counted) = self.counted(enis, slot, direction)
            {
                add(counted, volume.packets);
            }
        }
    }

    fn counted(&mut self, enis: &EniTable, slot: u32, direction: u32) -> Option<&mut Counted> {
        let eni_id = &enis.get(slot as usize)?.as_ref()?.eni.eni_id;
        if !self.enis.contains_key(eni_id) {
            self.enis.insert(eni_id.clone(), Entry::default());
        }
        let entry = self.enis.get_mut(eni_id)?;
        entry.counted.get_mut(direction as usize)
    }

    /// Of what a drain has brought, only the sums were kept: these packets are in SKIPDATA.
    pub fn kept_sums_only(&mut self, flows: &Volumes, enis: &EniTable) {
        for (slot, volumes) in flows {
            self.count(enis, *slot, volumes, |counted, packets| {
                counted.recorded = counted.recorded.saturating_sub(packets);
                counted.skipped += packets;
            });
            for volume in [volumes.r#in, volumes.out] {
                self.lose(Cause::SpoolFull, volume, 0);
            }
        }
    }

    /// So much is lost; of windows that were given up, in so many of them.
    pub fn lose(&mut self, cause: Cause, volume: Volume, windows: u64) {
        if volume.packets > 0 || windows > 0 {
            self.revision += 1;
            let loss = self.losses.entry(cause).or_default();
            loss.packets += volume.packets;
            loss.bytes += volume.bytes;
            loss.windows += windows;
        }
    }

    /// What was lost, by cause.
    #[must_use]
    pub fn losses(&self) -> &BTreeMap<Cause, Loss> {
        &self.losses
    }

    /// The newer one of two copies.
    #[must_use]
    pub fn newer(self, other: Self) -> Self {
        if other.revision > self.revision {
            other
        } else {
            self
        }
    }

    /// Whether all is accounted for, by ENI, in both directions.
    pub fn conservation(&self) -> impl Iterator<Item = (&str, [Conservation; 2])> {
        self.enis
            .iter()
            .map(|(eni_id, entry)| (eni_id.as_str(), entry.conservation()))
    }

    /// Whether it has more ENIs than a host captures at once. It is kept with each drain.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.enis.len() > MAX_ENIS as usize
    }

    /// Forgets ENIs that are captured on no device and that `keep` says no to.
    pub fn forget(&mut self, keep: impl Fn(&str) -> bool) {
        self.revision += 1;
        self.enis
            .retain(|eni_id, entry| entry.on.is_some() || keep(eni_id));
    }
}

impl Entry {
    /// What the device counted is of the past.
    fn leave(&mut self) {
        if let Some(on) = self.on.take() {
            self.before = on.counted_on(self.before);
        }
    }

    /// Likewise, when it was not read at the end.
    fn leave_unread(&mut self) {
        if let Some(on) = &mut self.on {
            for reading in &mut on.last {
                reading.high = u64::MAX;
            }
        }
        self.leave();
    }

    fn is_unsettled(&self) -> bool {
        self.on.is_none() && self.before.iter().any(|reading| reading.high == u64::MAX)
    }

    fn settle(&mut self) {
        for (before, counted) in self.before.iter_mut().zip(&self.counted) {
            let settled = before.nearest(counted.seen());
            (before.low, before.high) = (settled, settled);
        }
    }

    fn conservation(&self) -> [Conservation; 2] {
        let interface = match &self.on {
            Some(on) => on.counted_on(self.before),
            None => self.before,
        };
        let of = |interface: Reading, counted: Counted| {
            let seen = counted.seen();
            let interface = interface.nearest(seen);
            let merged_segments = seen.saturating_sub(interface).min(counted.extra_segments);
            let crossed = interface.saturating_add(merged_segments);
            Conservation {
                interface,
                counted,
                merged_segments,
                difference: crossed.cast_signed() - seen.cast_signed(),
            }
        };
        let [interface_in, interface_out] = interface;
        let [counted_in, counted_out] = self.counted;
        [of(interface_in, counted_in), of(interface_out, counted_out)]
    }
}

impl OnDevice {
    fn counted_on(&self, before: DeviceCount) -> DeviceCount {
        let ([before_in, before_out], [base_in, base_out]) = (before, self.base);
        let [last_in, last_out] = self.last;
        [
            before_in.plus(last_in.since(base_in)),
            before_out.plus(last_out.since(base_out)),
        ]
    }
}
