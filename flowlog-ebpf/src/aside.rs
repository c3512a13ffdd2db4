//! What is counted of an ENI beside its flows.
use flowlog_common::{EniCounters, Volume};

use crate::{atomic, count::Fate, eni, maps::ENIS};

/// Why a packet is in no flow.
pub enum Aside {
    MapFull,
    Unparsable,
    NotIp,
}

/// Where to count.
#[derive(Clone, Copy)]
pub struct Place {
    pub generation: u32,
    pub direction: u8,
    /// The device is about to send the packet.
    pub is_egress: bool,
}

impl Place {
    /// In one word, for functions take few arguments.
    #[inline(always)]
    pub fn pack(self) -> u32 {
        u32::from_ne_bytes([
            self.generation as u8,
            self.direction,
            u8::from(self.is_egress),
            0,
        ])
    }

    #[inline(always)]
    pub fn unpack(packed: u32) -> Self {
        let [generation, direction, is_egress, _] = packed.to_ne_bytes();
        Self {
            generation: u32::from(generation),
            direction,
            is_egress: is_egress != 0,
        }
    }

    /// The ENI's counters.
    #[inline(always)]
    fn counters(self) -> Option<*mut EniCounters> {
        let index = eni::slot() * 2 + u32::from(self.direction);
        ENIS.get_value_ptr_mut(self.generation, &index)
    }
}

/// One packet of so many octets.
#[inline(always)]
pub fn one(octets: u32) -> Volume {
    Volume {
        packets: 1,
        bytes: u64::from(octets),
    }
}

/// Counts what a super-packet adds to the frames that its device counts.
#[inline(always)]
pub fn extra_segments(segments: u64, place: Place) {
    if let Some(counters) = place.counters() {
        // SAFETY: a live map value.
        unsafe { atomic::add(&raw mut (*counters).extra_segments, segments) };
    }
}

/// Counts what is dropped before the device could send it.
#[inline(always)]
pub fn dropped(volume: Volume, place: Place) {
    if let Some(counters) = place.counters() {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*counters).dropped, volume) };
    }
}

/// Counts a packet for whose session there was no room.
#[inline(always)]
pub fn without_session(place: Place) {
    if let Some(counters) = place.counters() {
        // SAFETY: a live map value.
        unsafe { atomic::add(&raw mut (*counters).without_session, 1) };
    }
}

/// Counts what is in no flow, and lets it go on.
#[inline(always)]
pub fn aside(why: Aside, volume: Volume, place: Place) -> Fate {
    let Some(counters) = place.counters() else {
        return Fate::GoesOn;
    };
    // SAFETY: a live map value.
    unsafe {
        let counter = match why {
            Aside::MapFull => &raw mut (*counters).map_full,
            Aside::Unparsable => &raw mut (*counters).unparsable,
            Aside::NotIp => &raw mut (*counters).not_ip,
        };
        add(counter, volume);
    }
    Fate::GoesOn
}

/// # Safety
///
/// `counter` points into a live map value.
#[inline(always)]
unsafe fn add(counter: *mut Volume, volume: Volume) {
    // SAFETY: the caller's.
    unsafe {
        atomic::add(&raw mut (*counter).packets, volume.packets);
        atomic::add(&raw mut (*counter).bytes, volume.bytes);
    }
}
