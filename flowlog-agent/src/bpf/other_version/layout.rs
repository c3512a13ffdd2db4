//! How the maps of other versions look, where they look otherwise than ours.
//!
//! | | version 1 | version 2 | ours |
//! |---|---|---|---|
//! | `Active` | without the number of flips | as ours | |
//! | `EniCounters` | the first three volumes | and the extra segments | and what concerns verdicts |
//! | `Overflow` | with the generation | as ours | |
//! | TCP flags of a flow | 64 bits, of which 8 are used | likewise | 8 bits, and what decided above them |
//! | the last octet of a key | 0 | 0 | who counted; 0 for the program |
use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use flowlog_common::{
    Active, DECIDED_BY_NOTHING, EniCounters, FlowKeyV4, FlowKeyV6, FlowMarks, MAX_ENIS, Overflow,
    Volume,
};

use crate::bpf::{
    counters::{open_array, open_inner, renew::empty_enis},
    error::BpfError,
    overflow::OverflowPacket,
    ring::Item,
    sys::{self, MapData, read_all},
};

/// A version that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

/// `Active` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ActiveV1 {
    generation: u32,
    zero: u32,
}

/// `EniCounters` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EniCountersV1 {
    pub(super) map_full: Volume,
    pub(super) unparsable: Volume,
    pub(super) not_ip: Volume,
}

/// `EniCounters` of version 2.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EniCountersV2 {
    pub(super) first: EniCountersV1,
    pub(super) extra_segments: u64,
}

/// `Overflow` of version 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct OverflowV1<K> {
    pub(super) generation: u32,
    pub(super) tcp_flags: u32,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) key: K,
    pub(super) reserved: u32,
}

const _: () = assert!(
    size_of::<ActiveV1>() == 8
        && size_of::<EniCountersV1>() == 48
        && size_of::<EniCountersV2>() == 56
        && size_of::<OverflowV1<FlowKeyV4>>() == 48
        && size_of::<OverflowV1<FlowKeyV6>>() == 72
);

// SAFETY: `#[repr(C)]`, integers only, without padding as the sizes above say; so are those below.
unsafe impl MapData for ActiveV1 {}
// SAFETY: as above.
unsafe impl MapData for EniCountersV1 {}
// SAFETY: as above.
unsafe impl MapData for EniCountersV2 {}
// SAFETY: as above.
unsafe impl MapData for OverflowV1<FlowKeyV4> {}
// SAFETY: as above.
unsafe impl MapData for OverflowV1<FlowKeyV6> {}

impl<K> From<OverflowV1<K>> for Overflow<K> {
    fn from(packet: OverflowV1<K>) -> Self {
        Self {
            packets: packet.packets,
            bytes: packet.bytes,
            // Flags are one octet of the header, and nothing was judged.
            marks: FlowMarks::new(packet.tcp_flags as u8, DECIDED_BY_NOTHING),
            key: packet.key,
        }
    }
}

impl From<&EniCountersV1> for EniCounters {
    fn from(counters: &EniCountersV1) -> Self {
        Self {
            map_full: counters.map_full,
            unparsable: counters.unparsable,
            not_ip: counters.not_ip,
            ..Self::default()
        }
    }
}

impl From<&EniCountersV2> for EniCounters {
    fn from(counters: &EniCountersV2) -> Self {
        Self {
            extra_segments: counters.extra_segments,
            ..Self::from(&counters.first)
        }
    }
}

impl Layout {
    /// That of a version; none if it is not known.
    pub(super) fn of(version: u32) -> Option<Self> {
        match version {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// Opens the map that says which generation is active; gives the number of flips and the active one, where it has them.
    pub(super) fn open_active(
        self,
        folder: &Path,
    ) -> Result<(OwnedFd, Option<(u64, usize)>), BpfError> {
        if self == Self::V1 {
            return Ok((open_array::<ActiveV1>(folder, "ACTIVE")?, None));
        }
        let map = open_array::<Active>(folder, "ACTIVE")?;
        let active: Option<Active> = sys::map_lookup(map.as_fd(), &0_u32)
            .map_err(BpfError::map("read which generation is active"))?;
        let Active {
            generation, flips, ..
        } = active.unwrap_or_default();
        Ok((map, Some((flips, usize::from(generation != 0)))))
    }

    /// Opens what is beside the flows of a generation.
    pub(super) fn open_enis(self, outer: &OwnedFd, generation: u32) -> Result<OwnedFd, BpfError> {
        let array = sys::MAP_TYPE_ARRAY;
        match self {
            Self::V1 => open_inner::<u32, EniCountersV1>(outer, generation, array),
            Self::V2 => open_inner::<u32, EniCountersV2>(outer, generation, array),
        }
    }

    /// Reads it.
    pub(super) fn read_enis(self, enis: &OwnedFd) -> Result<Vec<EniCounters>, BpfError> {
        let mut all = Vec::with_capacity(MAX_ENIS as usize * 2);
        match self {
            Self::V1 => read_all(enis.as_fd(), |_: &[u32], values: &[EniCountersV1]| {
                all.extend(values.iter().map(EniCounters::from));
            }),
            Self::V2 => read_all(enis.as_fd(), |_: &[u32], values: &[EniCountersV2]| {
                all.extend(values.iter().map(EniCounters::from));
            }),
        }
        .map_err(BpfError::map("read the counters of what is in no flow"))?;
        Ok(all)
    }

    /// Sets it back to 0.
    pub(super) fn empty_enis(self, enis: &OwnedFd) -> Result<(), BpfError> {
        match self {
            Self::V1 => empty_enis::<EniCountersV1>(enis),
            Self::V2 => empty_enis::<EniCountersV2>(enis),
        }
    }

    /// A packet of the overflow ring; none if the item is of no known length.
    pub(super) fn packet(self, item: &Item<'_>) -> Option<OverflowPacket> {
        match self {
            Self::V1 => {
                let v4 = || item.read::<OverflowV1<FlowKeyV4>>();
                let v6 = || item.read::<OverflowV1<FlowKeyV6>>();
                v6().map(|packet| OverflowPacket::V6(packet.into()))
                    .or_else(|| v4().map(|packet| OverflowPacket::V4(packet.into())))
            }
            Self::V2 => OverflowPacket::read(item),
        }
    }
}
