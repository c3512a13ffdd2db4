//! Reading a closed window.
use std::sync::Arc;

use flowlog_common::{FlowKeyV4, FlowKeyV6};
use flowlog_model::record::Eni;

use super::{
    Volumes,
    blocks::StoredKey,
    catalog::OpenDrain,
    flows_file::{DamageCount, RunReader},
    window::{Manifest, WindowEni},
};
use crate::{
    flows::{Flow, merge_sorted},
    window::Window,
};

/// What is in a closed window. It can be read any number of times, also after the spool has given it up. While flows are read it has
/// 32 KiB of memory for each sorted run of their family.
#[derive(Debug)]
pub struct WindowReader {
    manifest: Manifest,
    /// By slot.
    enis: Vec<Option<WindowEni>>,
    files: Vec<OpenDrain>,
    damage: Arc<DamageCount>,
}

impl WindowReader {
    pub(super) fn new(
        mut manifest: Manifest,
        files: Vec<OpenDrain>,
        damage: Arc<DamageCount>,
    ) -> Self {
        let mut enis = Vec::new();
        for eni in std::mem::take(&mut manifest.enis) {
            let slot = eni.slot as usize;
            if enis.len() <= slot {
                enis.resize(slot + 1, None);
            }
            if let Some(entry) = enis.get_mut(slot) {
                *entry = Some(eni);
            }
        }
        Self {
            manifest,
            enis,
            files,
            damage,
        }
    }

    /// Its label.
    #[must_use]
    pub fn label(&self) -> Window {
        self.manifest.label()
    }

    /// The ENIs that the window's flows are of, by slot.
    pub fn enis(&self) -> impl Iterator<Item = Option<&Eni>> {
        self.enis
            .iter()
            .map(|entry| entry.as_ref().map(|entry| &entry.eni))
    }

    /// Whether the ENI of a slot was captured in the window, be it for a part of it.
    #[must_use]
    pub fn was_captured(&self, slot: usize) -> bool {
        let entry = self.enis.get(slot).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.captured)
    }

    /// The ENIs that should have been captured and could not be.
    pub fn not_captured(&self) -> impl Iterator<Item = &Eni> {
        self.manifest.not_captured.iter()
    }

    /// What the window's flows sum up to. What [`Self::v4`] and [`Self::v6`] give less than that is lost, to the packet and the octet:
    /// [`super::missing`] tells.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.manifest.volumes
    }

    /// What is in no flow, by slot.
    #[must_use]
    pub fn skipped(&self) -> &Volumes {
        &self.manifest.skipped
    }

    /// The id of the rule that a number stands for in its flows; none if that is not known.
    #[must_use]
    pub fn rule_id(&self, number: u32) -> Option<&str> {
        self.manifest.rule_ids.get(&number).map(String::as_str)
    }

    /// Whether something was lost of which not even the sums are known.
    #[must_use]
    pub fn loss_unknown(&self) -> bool {
        self.manifest.loss_unknown
    }

    /// IPv4 flows, by slot and then by the rest of the key, each key once. What is damaged is left out.
    pub fn v4(&self) -> impl Iterator<Item = Flow<FlowKeyV4>> {
        merge_sorted(self.runs())
    }

    /// IPv6 flows, likewise.
    pub fn v6(&self) -> impl Iterator<Item = Flow<FlowKeyV6>> {
        merge_sorted(self.runs())
    }

    /// Files, and parts of files each time that they were read, that turned out damaged so far.
    #[must_use]
    pub fn damage(&self) -> u64 {
        self.damage.get()
    }

    fn runs<K: StoredKey>(&self) -> impl Iterator<Item = RunReader<K>> {
        runs(&self.files)
    }
}

/// The runs of one family in these files.
pub(super) fn runs<K: StoredKey>(files: &[OpenDrain]) -> impl Iterator<Item = RunReader<K>> {
    files
        .iter()
        .filter_map(|(drain, file)| Some((drain, file.as_ref()?)))
        .flat_map(|(drain, file)| {
            (0..)
                .zip(&drain.runs)
                .filter(|(_, index)| index.family == K::FAMILY)
                .map(move |(run, index)| RunReader::new(file, run, index))
        })
}
