//! Closed windows.
use std::sync::Arc;

use flowlog_common::Volume;
use flowlog_model::record::Eni;
use serde::{Deserialize, Serialize};

use super::{
    RuleIds, SpoolError, Volumes, WindowReader,
    catalog::Shared,
    durable::{self, Unreadable},
    flows_file::DamageCount,
    names,
};
use crate::window::Window;

/// Slots that a manifest may name: more than an agent has, for windows that are joined have the ENIs of both.
pub(super) const MAX_SLOTS: u32 = 4096;

/// An ENI of a closed window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WindowEni {
    pub(super) slot: u32,
    pub(super) eni: Eni,
    /// Whether it was captured in the window, be it for a part of it.
    pub(super) captured: bool,
}

/// All that is known of a closed window but its flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) id: u64,
    /// The first of the windows that were joined to this one; its own id if none was.
    pub(super) first_id: u64,
    pub(super) length_seconds: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Boot time.
    pub(super) opened_ns: u64,
    /// Boot time.
    pub(super) closed_ns: u64,
    pub(super) enis: Vec<WindowEni>,
    pub(super) not_captured: Vec<Eni>,
    pub(super) flow_logs: Vec<String>,
    pub(super) first_drain: u64,
    /// The drain after its last.
    pub(super) next_drain: u64,
    /// What the flows of its drains sum up to.
    pub(super) volumes: Volumes,
    /// What is in no flow.
    pub(super) skipped: Volumes,
    /// Ids of the rules that its flows name.
    #[serde(default, skip_serializing_if = "RuleIds::is_empty")]
    pub(super) rule_ids: RuleIds,
    /// Something was lost that is in no sum.
    pub(super) loss_unknown: bool,
    /// Its flows are not kept for its sake any more.
    pub(super) given_up: bool,
}

impl Manifest {
    pub(super) fn read(shared: &Shared, id: u64) -> Result<(Self, u64), Unreadable> {
        let (manifest, octets) = durable::read::<Self>(&shared.folder, &names::window(id))?;
        let sane = manifest.id == id
            && manifest.first_id <= id
            && manifest.start <= manifest.end
            && manifest.first_drain <= manifest.next_drain
            && manifest.next_drain <= names::MAX_NUMBER
            && manifest.enis.iter().all(|eni| eni.slot < MAX_SLOTS);
        if sane {
            Ok((manifest, octets))
        } else {
            Err(Unreadable::Damaged("it contradicts itself".to_owned()))
        }
    }

    pub(super) fn label(&self) -> Window {
        Window {
            start: self.start,
            end: self.end,
        }
    }

    /// What its flows sum up to.
    pub(super) fn total(&self) -> Volume {
        let mut total = Volume::default();
        for volume in self.volumes.values().flat_map(|v| [v.r#in, v.out]) {
            total.packets = total.packets.saturating_add(volume.packets);
            total.bytes = total.bytes.saturating_add(volume.bytes);
        }
        total
    }
}

/// A closed window: what identifies it. What is in it is read by [`StoredWindow::read`], from any thread.
#[derive(Debug)]
pub struct StoredWindow {
    pub(super) id: u64,
    pub(super) length_seconds: u64,
    pub(super) label: Window,
    pub(super) flow_logs: Arc<[String]>,
    pub(super) shared: Arc<Shared>,
}

impl StoredWindow {
    /// Its number: later windows have higher ones.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Length that it should have had, in seconds.
    #[must_use]
    pub fn length_seconds(&self) -> u64 {
        self.length_seconds
    }

    /// Its label.
    #[must_use]
    pub fn label(&self) -> Window {
        self.label
    }

    /// Names of the flow logs that are to have it, or have it already.
    #[must_use]
    pub fn flow_logs(&self) -> &[String] {
        &self.flow_logs
    }

    /// Opens what is in it.
    ///
    /// # Errors
    ///
    /// If files cannot be opened, which may pass; or if its manifest is damaged, and the window with it: see [`super::Spool::abandon`].
    pub fn read(&self) -> Result<WindowReader, SpoolError> {
        let (manifest, _) = Manifest::read(&self.shared, self.id).map_err(|unreadable| {
            SpoolError::unreadable(self.shared.folder.file(&names::window(self.id)), unreadable)
        })?;
        let damage = Arc::new(DamageCount::default());
        let files = self
            .shared
            .open_files(manifest.first_drain, manifest.next_drain, &damage)?;
        Ok(WindowReader::new(manifest, files, damage))
    }
}
