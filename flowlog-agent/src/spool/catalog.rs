//! The drains that are on the disk, as the spool and the readers of its windows know them.
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    KernelMark, RuleIds, SpoolError, Volumes,
    durable::{Folder, on_disk},
    flows_file::{DamageCount, FlowsFile, HEADER_OCTETS, RunIndex},
    names::DrainRange,
};

/// What is in a drain, or in several consecutive ones that were merged. Its file makes it count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) first: u64,
    pub(super) last: u64,
    /// How often its flows were merged with those of others.
    pub(super) tier: u8,
    /// Where the kernel stood; none where that is not known any more.
    pub(super) mark: Option<KernelMark>,
    /// The caller's.
    pub(super) extras: serde_json::Value,
    /// What its flows sum up to.
    pub(super) volumes: Volumes,
    /// What is in no flow.
    pub(super) skipped: Volumes,
    /// Ids of the rules that its flows name.
    #[serde(default, skip_serializing_if = "RuleIds::is_empty")]
    pub(super) rule_ids: RuleIds,
    /// Something was lost that is in no sum.
    pub(super) loss_unknown: bool,
    /// Size of the file of flows; 0 if there is none.
    pub(super) flows_octets: u64,
    pub(super) runs: Vec<RunIndex>,
}

impl Meta {
    /// Nothing.
    pub(super) fn empty(range: DrainRange) -> Self {
        Self {
            first: range.first,
            last: range.last,
            tier: 0,
            mark: None,
            extras: serde_json::Value::Null,
            volumes: Volumes::new(),
            skipped: Volumes::new(),
            rule_ids: RuleIds::new(),
            loss_unknown: false,
            flows_octets: 0,
            runs: Vec::new(),
        }
    }

    pub(super) fn range(&self) -> DrainRange {
        DrainRange {
            first: self.first,
            last: self.last,
        }
    }

    /// Whether it is of this range, and all runs are within the file.
    pub(super) fn is_sane(&self, range: DrainRange) -> bool {
        let within = |run: &RunIndex| {
            run.offset >= HEADER_OCTETS && run.end().is_some_and(|end| end <= self.flows_octets)
        };
        self.range() == range && self.runs.iter().all(within)
    }
}

/// A drain on the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) range: DrainRange,
    pub(super) tier: u8,
    /// Empty if there is no file of flows.
    pub(super) runs: Vec<RunIndex>,
    /// What the file of flows takes on the disk, in bytes.
    pub(super) flows_bytes: u64,
    /// What the meta file takes on the disk, in bytes.
    pub(super) meta_bytes: u64,
}

impl Drain {
    pub(super) fn new(meta: &Meta, meta_octets: u64) -> Self {
        Self {
            range: meta.range(),
            tier: meta.tier,
            runs: meta.runs.clone(),
            flows_bytes: on_disk(meta.flows_octets),
            meta_bytes: on_disk(meta_octets),
        }
    }

    /// The drain when its file of flows is removed.
    pub(super) fn without_flows(&self) -> Self {
        Self {
            runs: Vec::new(),
            flows_bytes: 0,
            ..*self
        }
    }

    /// Runs of the family that has more.
    pub(super) fn runs_to_merge(&self) -> usize {
        let of = |family| self.runs.iter().filter(|run| run.family == family).count();
        of(super::blocks::Family::V4).max(of(super::blocks::Family::V6))
    }
}

/// A drain and who needs it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) drain: Arc<Drain>,
    /// Closed windows that have it and are not given up.
    pub(super) holders: u32,
}

/// The drains by their first sequence number. No two overlap.
pub(super) type Drains = BTreeMap<u64, Entry>;

/// What the spool shares with the readers of its windows.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: Arc<Folder>,
    drains: Mutex<Drains>,
}

/// Of a drain whose flows are read: what is in its file, and the file if it can be read.
pub(super) type OpenDrain = (Arc<Drain>, Option<Arc<FlowsFile>>);

impl Shared {
    pub(super) fn new(folder: Arc<Folder>, drains: Drains) -> Self {
        Self {
            folder,
            drains: Mutex::new(drains),
        }
    }

    /// The drains. Nothing is done under the lock that could leave them half changed.
    pub(super) fn drains(&self) -> MutexGuard<'_, Drains> {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The drains with flows from `first` on and before `next`.
    fn with_flows(&self, first: u64, next: u64) -> Vec<Arc<Drain>> {
        self.drains()
            .range(first..next.max(first))
            .map(|(_, entry)| &entry.drain)
            .filter(|drain| !drain.runs.is_empty() && drain.range.last < next)
            .map(Arc::clone)
            .collect()
    }

    /// Opens the files of the drains from `first` on and before `next`. They can be read then, also if the spool removes them.
    pub(super) fn open_files(
        &self,
        first: u64,
        next: u64,
        damage: &Arc<DamageCount>,
    ) -> Result<Vec<OpenDrain>, SpoolError> {
        loop {
            let drains = self.with_flows(first, next);
            let mut opened: Vec<OpenDrain> = Vec::with_capacity(drains.len());
            let mut missing = Vec::new();
            for drain in &drains {
                let name = drain.range.flows();
                let file = match FlowsFile::open(&self.folder, drain.range, damage) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        missing.push(self.folder.file(&name));
                        None
                    }
                    result => result.map_err(|source| self.error("open", &name, source))?,
                };
                opened.push((Arc::clone(drain), file.map(Arc::new)));
            }
            // The spool takes drains off the list before it removes their files: then there is another list by now.
            let is_same = || {
                let now = self.with_flows(first, next);
                now.len() == drains.len() && now.iter().zip(&drains).all(|(a, b)| Arc::ptr_eq(a, b))
            };
            if missing.is_empty() || is_same() {
                for path in missing {
                    damage.add(&path, "it is missing");
                }
                return Ok(opened);
            }
        }
    }

    pub(super) fn error(&self, what: &'static str, name: &str, source: io::Error) -> SpoolError {
        SpoolError::Io {
            what,
            path: self.folder.file(name),
            source,
        }
    }
}

/// The drains that overlap `first..next`.
pub(super) fn overlapping(drains: &Drains, first: u64, next: u64) -> impl Iterator<Item = &Entry> {
    let from = reaching_into(drains, first);
    drains.range(from..next.max(from)).map(|(_, entry)| entry)
}

/// Likewise, to be changed.
pub(super) fn overlapping_mut(
    drains: &mut Drains,
    first: u64,
    next: u64,
) -> impl Iterator<Item = &mut Entry> {
    let from = reaching_into(drains, first);
    drains
        .range_mut(from..next.max(from))
        .map(|(_, entry)| entry)
}

/// Where the drain begins that has `first`: it may have begun before.
fn reaching_into(drains: &Drains, first: u64) -> u64 {
    drains
        .range(..first)
        .next_back()
        .filter(|(_, entry)| entry.drain.range.last >= first)
        .map_or(first, |(from, _)| *from)
}
