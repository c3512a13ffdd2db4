//! Counting: every IP packet ends in exactly one flow, or in the ENI's counters of what is in none.
use core::intrinsics::cold_path;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    btf_maps::ArrayOfMaps,
};
use flowlog_common::{
    DECIDED_BY_NOTHING, FAMILY_V4, FAMILY_V6, FlowCounters, FlowMarks, GENERATIONS, Overflow,
    Volume,
};

use crate::{
    atomic, eni, ipv4, ipv6,
    link::{self, Network},
    maps::{ACTIVE, ENIS, FLOWS_V4, FLOWS_V6, Flows, OCCUPANCY, OVERFLOW, WAKE},
    packet::Packet,
};

/// Why a packet is in no flow.
enum Aside {
    MapFull,
    Unparsable,
    NotIp,
}

/// Counts a packet. Never fails, never changes the packet.
#[inline(always)]
pub fn packet<P: Packet>(packet: &P, direction: u8) {
    let Some(active) = ACTIVE.get(0) else {
        return;
    };
    let generation = active.generation;
    // SAFETY: a live map value. Volatile, for the compiler must not know that it is 0 either.
    let zero = unsafe { (&raw const active.zero).read_volatile() };
    match link::network(packet, zero) {
        Some(Network::V4(offset)) => match ipv4::read(packet, offset, zero, direction) {
            Some(counted) => counted.add(
                &FLOWS_V4,
                Place {
                    generation,
                    family: FAMILY_V4,
                    direction,
                },
            ),
            None => unparsable(packet, offset, generation, direction),
        },
        Some(Network::V6(offset)) => match ipv6::read(packet, offset, zero, direction) {
            Some(counted) => counted.add(
                &FLOWS_V6,
                Place {
                    generation,
                    family: FAMILY_V6,
                    direction,
                },
            ),
            None => unparsable(packet, offset, generation, direction),
        },
        Some(Network::Other) => aside(Aside::NotIp, one(packet.octets()), generation, direction),
        None => aside(
            Aside::Unparsable,
            one(packet.octets()),
            generation,
            direction,
        ),
    }
}

#[inline(always)]
fn one(octets: u32) -> Volume {
    Volume {
        packets: 1,
        bytes: u64::from(octets),
    }
}

/// What is unparsable has no length that could be believed, so all octets from the network layer on are counted.
#[inline(always)]
fn unparsable<P: Packet>(packet: &P, offset: u32, generation: u32, direction: u8) {
    aside(
        Aside::Unparsable,
        one(packet.octets() - offset),
        generation,
        direction,
    );
}

/// A packet that was read: its flow, and what it adds to it.
pub struct Counted<K> {
    pub key: K,
    pub volume: Volume,
    pub tcp_flags: u8,
}

/// Where to count.
struct Place {
    generation: u32,
    family: u32,
    direction: u8,
}

impl<K> Counted<K> {
    #[inline(always)]
    fn add<F>(&self, flows: &ArrayOfMaps<Flows<F>, GENERATIONS>, place: Place)
    where
        K: AsRef<F>,
        F: Copy,
    {
        if self.volume.packets > 1 {
            // What this takes is put out of the way of ordinary packets, which pay one comparison.
            cold_path();
            extra_segments(self.volume.packets - 1, &place);
        }
        let Some(map) = flows.get(place.generation) else {
            return self.map_full(&place);
        };
        let key = self.key.as_ref();
        if let Some(counters) = map.get_ptr_mut(key) {
            return add_to(counters, self.volume, self.tcp_flags);
        }
        let first = FlowCounters {
            packets: self.volume.packets,
            bytes: self.volume.bytes,
            marks: FlowMarks::new(self.tcp_flags, DECIDED_BY_NOTHING),
            judged: 0,
        };
        if map.insert(key, &first, u64::from(BPF_NOEXIST)).is_ok() {
            return inserted(place.generation, place.family);
        }
        // Another CPU was first with this flow, or there is no room.
        match map.get_ptr_mut(key) {
            Some(counters) => add_to(counters, self.volume, self.tcp_flags),
            None => self.overflow(*key, &place),
        }
    }

    /// User space adds the packet to its flow; where the ring is full too, it is counted aside. It was woken when the map was half full,
    /// and reads the ring with the map.
    #[inline(always)]
    fn overflow<F: Copy>(&self, key: F, place: &Place) {
        let packet = Overflow {
            packets: self.volume.packets,
            bytes: self.volume.bytes,
            marks: FlowMarks::new(self.tcp_flags, DECIDED_BY_NOTHING),
            key,
        };
        let flags = u64::from(BPF_RB_NO_WAKEUP);
        if OVERFLOW
            .output_untyped::<Overflow<F>>(packet, flags)
            .is_err()
        {
            self.map_full(place);
        }
    }

    #[inline(always)]
    fn map_full(&self, place: &Place) {
        aside(
            Aside::MapFull,
            self.volume,
            place.generation,
            place.direction,
        );
    }
}

/// Adds a packet to its flow.
#[inline(always)]
pub fn add_to(counters: *mut FlowCounters, volume: Volume, tcp_flags: u8) {
    // SAFETY: a live map value: entries of the active generation are never deleted.
    unsafe {
        atomic::add(&raw mut (*counters).packets, volume.packets);
        atomic::add(&raw mut (*counters).bytes, volume.bytes);
        let flags = u32::from(tcp_flags);
        // Most packets bring no new flag, and a read is cheaper than a locked write.
        if flags != 0 && (*counters).marks.0 & flags != flags {
            atomic::or(&raw mut (*counters).marks.0, flags);
        }
    }
}

/// Tells user space once when the map passes half full.
#[inline(always)]
pub fn inserted(generation: u32, family: u32) {
    let Some(occupancy) = OCCUPANCY.get_ptr_mut(generation * 2 + family) else {
        return;
    };
    // SAFETY: a live map value; `wake_at` is written by user space only while the generation is still.
    unsafe {
        if atomic::fetch_increment(&raw mut (*occupancy).flows) + 1 == (*occupancy).wake_at {
            // Were the ring full, user space would have been woken already.
            let _ = WAKE.output(&u64::from(generation), 0);
        }
    }
}

/// Counts what a super-packet adds to the frames that its device counts.
#[inline(always)]
fn extra_segments(segments: u64, place: &Place) {
    let index = eni::slot() * 2 + u32::from(place.direction);
    if let Some(counters) = ENIS.get_value_ptr_mut(place.generation, &index) {
        // SAFETY: a live map value.
        unsafe { atomic::add(&raw mut (*counters).extra_segments, segments) };
    }
}

#[inline(always)]
fn aside(why: Aside, volume: Volume, generation: u32, direction: u8) {
    let index = eni::slot() * 2 + u32::from(direction);
    let Some(counters) = ENIS.get_value_ptr_mut(generation, &index) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        let counter = match why {
            Aside::MapFull => &raw mut (*counters).map_full,
            Aside::Unparsable => &raw mut (*counters).unparsable,
            Aside::NotIp => &raw mut (*counters).not_ip,
        };
        add_volume(counter, volume);
    }
}

/// # Safety
///
/// `counter` points into a live map value.
#[inline(always)]
unsafe fn add_volume(counter: *mut Volume, volume: Volume) {
    // SAFETY: the caller's.
    unsafe {
        atomic::add(&raw mut (*counter).packets, volume.packets);
        atomic::add(&raw mut (*counter).bytes, volume.bytes);
    }
}
