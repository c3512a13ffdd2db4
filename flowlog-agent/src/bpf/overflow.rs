//! Packets for whose flow the flow map had no room.
//!
//! They wait in a ring until the agent adds them to their flows, so that a flow map that fills faster than it can be drained loses
//! nothing, as long as the ring has room.
use std::{os::fd::AsFd as _, path::Path};

use flowlog_common::{FlowKeyV4, FlowKeyV6, Overflow};

use super::{
    error::BpfError,
    object::OVERFLOW,
    ring::{Item, Ring},
    sys,
};

/// A packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverflowPacket {
    /// IPv4.
    V4(Overflow<FlowKeyV4>),
    /// IPv6.
    V6(Overflow<FlowKeyV6>),
}

impl OverflowPacket {
    /// From an item of the ring; none if it is of no known length.
    pub(super) fn read(item: &Item<'_>) -> Option<Self> {
        let v4 = || item.read().map(Self::V4);
        item.read().map(Self::V6).or_else(v4)
    }
}

/// The ring. Reading it leaves the packets in it; [`OverflowRing::advance`] makes room for others. So what was read and not yet written
/// anywhere safe is still there for the next agent. Positions are octets since the ring was made.
pub struct OverflowRing(Ring);

impl OverflowRing {
    /// Opens the ring.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        sys::obj_get(&pin_folder.join(OVERFLOW))
            .and_then(|map| Ring::open(map.as_fd()))
            .map(Self)
            .map_err(BpfError::map(format!("open the map {OVERFLOW}")))
    }

    /// Up to where packets were given back to the kernel.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.0.consumed()
    }

    /// Reads the packets that wait, and tells the position that was reached. After a flip, all packets of the still generation are before
    /// it, unless a packet of the active one is still being written before them: then they come with the next read.
    pub fn read(&self, each: impl FnMut(OverflowPacket)) -> u64 {
        self.read_from(self.consumed(), each)
    }

    /// Likewise, from a position on that an earlier read has told.
    pub fn read_from(&self, position: u64, mut each: impl FnMut(OverflowPacket)) -> u64 {
        self.0.walk(position, |item| {
            if let Some(packet) = OverflowPacket::read(&item) {
                each(packet);
            } else {
                tracing::error!(
                    octets = item.octets(),
                    "an item of the overflow ring is of no known length"
                );
            }
        })
    }

    /// Gives the packets before a position that a read has told back to the kernel. Never goes back, nor beyond what was written.
    pub fn advance(&mut self, to: u64) {
        self.0.advance(to);
    }
}
