//! Packets for whose flow the flow map had no room.
//!
//! They wait in rings until the agent adds them to their flows, so that a flow map that fills faster than it can be drained loses
//! nothing, as long as the rings have room.
use std::{io, path::Path};

use aya::maps::{Map, MapData, RingBuf};
use flowlog_common::{FlowKeyV4, FlowKeyV6, Overflow};
use tokio::io::unix::AsyncFd;

use super::{
    error::BpfError,
    object::{OVERFLOW_V4, OVERFLOW_V6},
};
use crate::readiness::register;

type Ring = AsyncFd<RingBuf<MapData>>;

/// The rings.
pub struct OverflowRings {
    v4: Ring,
    v6: Ring,
}

impl OverflowRings {
    /// Opens the rings. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        Ok(Self {
            v4: open(pin_folder, OVERFLOW_V4)?,
            v6: open(pin_folder, OVERFLOW_V6)?,
        })
    }

    /// Returns when packets may be waiting. Cancel-safe.
    pub async fn ready(&mut self) {
        tokio::select! {
            () = ready(&mut self.v4) => {}
            () = ready(&mut self.v6) => {}
        }
    }

    /// Takes all packets that wait.
    pub fn take(
        &mut self,
        mut each_v4: impl FnMut(&Overflow<FlowKeyV4>),
        mut each_v6: impl FnMut(&Overflow<FlowKeyV6>),
    ) {
        while let Some(item) = self.v4.get_mut().next() {
            // SAFETY: `#[repr(C)]`, integers only.
            if let Some(packet) = unsafe { read(&item) } {
                each_v4(&packet);
            }
        }
        while let Some(item) = self.v6.get_mut().next() {
            // SAFETY: as above.
            if let Some(packet) = unsafe { read(&item) } {
                each_v6(&packet);
            }
        }
    }
}

fn open(pin_folder: &Path, name: &str) -> Result<Ring, BpfError> {
    let failed = |error: &dyn std::fmt::Display| BpfError::Map {
        what: format!("open the map {name}"),
        source: io::Error::other(error.to_string()),
    };
    let data = MapData::from_pin(pin_folder.join(name)).map_err(|error| failed(&error))?;
    let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| failed(&error))?;
    register(ring).map_err(|error| failed(&error))
}

async fn ready(ring: &mut Ring) {
    match ring.readable_mut().await {
        // What comes in from now on makes it ready anew; what is there is taken by the caller.
        Ok(mut guard) => guard.clear_ready(),
        // The ring's descriptor is ours; without it nothing is ever ready.
        Err(_) => std::future::pending().await,
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
