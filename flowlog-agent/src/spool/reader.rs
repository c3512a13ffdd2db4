//! Reading a closed window.
use flowlog_common::{FlowKeyV4, FlowKeyV6};
use flowlog_model::record::Eni;

use super::Volumes;
use crate::{flows::Flow, window::Window};

/// What is in a closed window. It can be read any number of times, also after the spool has given it up.
#[derive(Debug)]
pub struct WindowReader {
    label: Window,
    volumes: Volumes,
    skipped: Volumes,
}

impl Default for WindowReader {
    fn default() -> Self {
        Self {
            label: Window { start: 0, end: 60 },
            volumes: Volumes::new(),
            skipped: Volumes::new(),
        }
    }
}

impl WindowReader {
    /// Its label.
    #[must_use]
    pub fn label(&self) -> Window {
        self.label
    }

    /// The ENIs that the window's flows are of, by slot.
    pub fn enis(&self) -> impl Iterator<Item = Option<&Eni>> {
        std::iter::empty()
    }

    /// Whether the ENI of a slot was captured in the window, be it for a part of it.
    #[must_use]
    pub fn was_captured(&self, _slot: usize) -> bool {
        false
    }

    /// The ENIs that should have been captured and could not be.
    pub fn not_captured(&self) -> impl Iterator<Item = &Eni> {
        std::iter::empty()
    }

    /// What the window's flows sum up to. What [`Self::v4`] and [`Self::v6`] give less than that is lost, to the packet and the octet.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// What is in no flow, by slot.
    #[must_use]
    pub fn skipped(&self) -> &Volumes {
        &self.skipped
    }

    /// Whether something was lost of which not even the sums are known.
    #[must_use]
    pub fn loss_unknown(&self) -> bool {
        false
    }

    /// IPv4 flows, by slot and then by the rest of the key, each key once.
    pub fn v4(&self) -> impl Iterator<Item = Flow<FlowKeyV4>> {
        std::iter::empty()
    }

    /// IPv6 flows, likewise.
    pub fn v6(&self) -> impl Iterator<Item = Flow<FlowKeyV6>> {
        std::iter::empty()
    }

    /// Parts of files that could not be read so far.
    #[must_use]
    pub fn damage(&self) -> u64 {
        0
    }
}
