//! The kernel's sign that a flow map has passed half full, or that sessions have no room.
use std::{io, path::Path};

use aya::maps::{Map, MapData, RingBuf};
use flowlog_common::WAKE_FOR_SESSIONS;
use tokio::io::unix::AsyncFd;

use super::error::BpfError;
use crate::readiness::register;

/// What there was a sign of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// A flow map has passed half full: it is time to drain.
    pub for_flows: bool,
    /// Sessions had no room: [`super::Sessions::sweep`] may make some.
    pub for_sessions: bool,
}

/// Waits for the sign.
pub struct Wake {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Wake {
    /// Opens the ring. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(pin_folder: &Path) -> Result<Self, BpfError> {
        let failed = |error: &dyn std::fmt::Display| BpfError::Map {
            what: "open the map WAKE".to_owned(),
            source: io::Error::other(error.to_string()),
        };
        let data = MapData::from_pin(pin_folder.join("WAKE")).map_err(|error| failed(&error))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| failed(&error))?;
        Ok(Self {
            ring: register(ring).map_err(|error| failed(&error))?,
        })
    }

    /// Returns when there was a sign since the last call. Cancel-safe.
    pub async fn wait(&mut self) -> Woken {
        loop {
            let Ok(mut guard) = self.ring.readable_mut().await else {
                // The ring's descriptor is ours; without it nothing ever wakes.
                return std::future::pending().await;
            };
            let ring = guard.get_inner_mut();
            let mut woken = Woken::default();
            while let Some(sign) = ring.next() {
                if *sign == WAKE_FOR_SESSIONS.to_ne_bytes() {
                    woken.for_sessions = true;
                } else {
                    woken.for_flows = true;
                }
            }
            guard.clear_ready();
            if woken != Woken::default() {
                return woken;
            }
        }
    }
}
