//! The kernel's sign that a flow map has passed half full.
use std::{io, path::Path};

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::error::BpfError;
use crate::readiness::register;

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

    /// Returns when a flow map has passed half full since the last call. Cancel-safe.
    pub async fn wait(&mut self) {
        loop {
            let Ok(mut guard) = self.ring.readable_mut().await else {
                // The ring's descriptor is ours; without it nothing ever wakes.
                return std::future::pending().await;
            };
            let ring = guard.get_inner_mut();
            let mut woken = false;
            while ring.next().is_some() {
                woken = true;
            }
            guard.clear_ready();
            if woken {
                return;
            }
        }
    }
}
