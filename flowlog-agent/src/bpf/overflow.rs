//! Packets for whose flow the flow map had no room.
//!
//! They wait in a ring until the agent adds them to their flows, so that a flow map that fills faster than it can be drained loses
//! nothing, as long as the ring has room.
use std::{io, path::Path};

use aya::maps::{Map, MapData, RingBuf};
use flowlog_common::{FlowKeyV4, FlowKeyV6, Overflow};
use tokio::io::unix::AsyncFd;

use super::{error::BpfError, object::OVERFLOW};
use crate::readiness::register;

/// A packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverflowPacket {
    /// IPv4.
    V4(Overflow<FlowKeyV4>),
    /// IPv6.
    V6(Overflow<FlowKeyV6>),
}

/// The ring.
pub struct OverflowRing(AsyncFd<RingBuf<MapData>>);

impl OverflowRing {
    /// Opens the ring. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        let failed = |error: &dyn std::fmt::Display| BpfError::Map {
            what: format!("open the map {OVERFLOW}"),
            source: io::Error::other(error.to_string()),
        };
        let data = MapData::from_pin(pin_folder.join(OVERFLOW)).map_err(|error| failed(&error))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| failed(&error))?;
        register(ring).map(Self).map_err(|error| failed(&error))
    }

    /// Returns when packets may be waiting. Cancel-safe.
    pub async fn ready(&mut self) {
        match self.0.readable_mut().await {
            // What comes in from now on makes it ready anew; what is there is taken by the caller.
            Ok(mut guard) => guard.clear_ready(),
            // The ring's descriptor is ours; without it nothing is ever ready.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes all packets that wait.
    pub fn take(&mut self, mut each: impl FnMut(OverflowPacket)) {
        while let Some(item) = self.0.get_mut().next() {
            // The longer one first: the other would be read from it, too.
            // SAFETY: `#[repr(C)]`, integers only.
            if let Some(packet) = unsafe { read(&item) } {
                each(OverflowPacket::V6(packet));
            // SAFETY: as above.
            } else if let Some(packet) = unsafe { read(&item) } {
                each(OverflowPacket::V4(packet));
            }
        }
    }
}

/// Reads an item of the ring; `None` if it is too short.
///
/// # Safety
///
/// Any bit pattern is a `T`.
unsafe fn read<T: Copy>(item: &[u8]) -> Option<T> {
    // SAFETY: as long as is checked, and read without regard to alignment; the caller says that any bit pattern will do.
    (item.len() >= size_of::<T>()).then(|| unsafe { item.as_ptr().cast::<T>().read_unaligned() })
}
