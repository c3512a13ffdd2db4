//! Compaction: many small drains become one, so that a window is read in few runs.
//!
//! 32 consecutive drains (or as many as have 32 runs) that were merged equally often become one. So a flow is rewritten once for each
//! factor of 32 in the number of drains, and between two boundaries of windows there are at most 31 runs of each such level, plus those of
//! one drain. No drain goes across a boundary of a window.
use std::{collections::BTreeSet, io, sync::Arc};

use flowlog_common::{FlowKeyV4, FlowKeyV6};

use super::{
    Spool, add_volumes,
    catalog::{Drain, Entry, Meta, OpenDrain, Shared},
    durable::{self, Unreadable},
    flows_file::{DamageCount, FlowsFile, FlowsWriter},
    names::DrainRange,
    reader::runs,
};
use crate::{failpoint, flows::merge_sorted};

/// Drains, or runs, that are merged at once.
const MERGED: usize = 32;

/// What the spool remembers of compaction.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A job is not taken back yet.
    running: bool,
    /// After one that came to nothing there is none before this drain.
    not_before: u64,
    /// First sequence numbers of drains that cannot be read in full. They are left as they are: what is sound of them is not copied
    /// over and over.
    damaged: BTreeSet<u64>,
}

/// Drains that are to be merged into one.
#[derive(Debug)]
pub struct CompactionJob {
    shared: Arc<Shared>,
    sources: Vec<Arc<Drain>>,
}

/// The outcome of a job.
#[derive(Debug)]
pub struct Compacted {
    sources: Vec<Arc<Drain>>,
    range: DrainRange,
    outcome: Result<Box<Meta>, Failure>,
}

#[derive(Debug)]
enum Failure {
    /// The drain that begins here is damaged, or is not needed any more.
    Source(u64),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Spool {
    /// Drains that should be merged, if there are such and no other job is out. The job is to be run on another thread.
    pub fn compaction_due(&mut self) -> Option<CompactionJob> {
        if self.compaction.running || self.next_drain < self.compaction.not_before {
            return None;
        }
        let first_open = self.open.as_ref().map(|_| self.first_open())?;
        let sources = self.mergeable(first_open)?;
        let octets: u64 = sources.iter().map(|drain| drain.flows_bytes).sum();
        // For a while both are there.
        if self.bytes().saturating_add(octets) > self.config.max_bytes {
            return None;
        }
        self.compaction.running = true;
        Some(CompactionJob {
            shared: Arc::clone(&self.shared),
            sources,
        })
    }

    /// The oldest drains from `first_open` on that are worth merging.
    fn mergeable(&self, first_open: u64) -> Option<Vec<Arc<Drain>>> {
        let drains = self.shared.drains();
        let open = || drains.range(first_open..).map(|(_, entry)| &entry.drain);
        open().nth(1)?;
        let boundaries = self.boundaries(first_open);
        let mut group: Vec<Arc<Drain>> = Vec::new();
        let mut runs = 0;
        for drain in open() {
            let goes_on = group.last().is_some_and(|last| {
                last.range.last + 1 == drain.range.first && last.tier == drain.tier
            });
            if !goes_on || boundaries.contains(&drain.range.first) {
                group.clear();
                runs = 0;
            }
            if self.compaction.damaged.contains(&drain.range.first) {
                continue;
            }
            group.push(Arc::clone(drain));
            runs += drain.runs_to_merge();
            if group.len() >= MERGED || (group.len() > 1 && runs >= MERGED) {
                return Some(group);
            }
        }
        None
    }

    /// First drains of windows, and the drains after the last ones.
    fn boundaries(&self, first_open: u64) -> BTreeSet<u64> {
        let open = self.open.iter().flatten().map(|series| series.first_drain);
        let closed = self
            .windows
            .values()
            .filter(|pending| pending.next_drain > first_open && !pending.given_up)
            .flat_map(|pending| [pending.first_drain, pending.next_drain]);
        open.chain(closed).collect()
    }

    /// Takes the outcome of a job over.
    pub fn compacted(&mut self, compacted: Compacted) {
        self.compaction.running = false;
        let Compacted {
            sources,
            range,
            outcome,
        } = compacted;
        match outcome {
            Ok(meta) if self.are_as_they_were(&sources) => {
                if let Err(error) = self.replace(&sources, &meta) {
                    self.compaction_failed(range, &error);
                }
            }
            // Nobody needs them any more.
            Ok(_) => {
                self.shared.folder.drop_file(&range.flows());
                self.compaction.not_before = self.next_drain + 1;
            }
            Err(Failure::Source(first)) => {
                let first_open = self.first_open();
                self.compaction.damaged.retain(|first| *first >= first_open);
                self.compaction.damaged.insert(first);
            }
            Err(Failure::Io(error)) => self.compaction_failed(range, &error),
        }
        failpoint::reached("compaction-swapped");
    }

    fn compaction_failed(&mut self, range: DrainRange, error: &io::Error) {
        tracing::warn!("cannot merge the drains {range} of the spool: {error}");
        self.shared.folder.drop_file(&range.flows());
        self.compaction.not_before = self.next_drain + MERGED as u64;
    }

    /// Whether all are there, and needed by the same windows.
    fn are_as_they_were(&self, sources: &[Arc<Drain>]) -> bool {
        let drains = self.shared.drains();
        let holders = |drain: &Arc<Drain>| {
            let entry = drains.get(&drain.range.first)?;
            Arc::ptr_eq(&entry.drain, drain).then_some(entry.holders)
        };
        let of_first = sources.first().and_then(holders);
        of_first.is_some() && sources.iter().all(|drain| holders(drain) == of_first)
    }

    /// Puts the merged drain in the place of its sources.
    fn replace(&mut self, sources: &[Arc<Drain>], meta: &Meta) -> io::Result<()> {
        let range = meta.range();
        // The merged flows are durable before their meta file is there, which makes them count instead of the others.
        self.shared.folder.sync()?;
        let octets =
            durable::write(&self.shared.folder, &range.meta(), meta).inspect_err(|_| {
                self.shared.folder.drop_file(&range.meta());
            })?;
        let drain = Arc::new(Drain::new(meta, octets));
        self.drain_bytes += drain.flows_bytes + drain.meta_bytes;
        let mut drains = self.shared.drains();
        let mut holders = 0;
        for source in sources {
            if let Some(entry) = drains.remove(&source.range.first) {
                holders = entry.holders;
            }
        }
        drains.insert(range.first, Entry { drain, holders });
        drop(drains);
        if sources
            .iter()
            .any(|source| source.range.first == self.marked)
        {
            self.marked = range.first;
        }
        for source in sources {
            self.shared.folder.drop_file(&source.range.meta());
            self.shared.folder.drop_file(&source.range.flows());
            let bytes = source.flows_bytes + source.meta_bytes;
            self.drain_bytes = self.drain_bytes.saturating_sub(bytes);
        }
        // They may have been needed only while they were merged.
        self.collect(range.first, range.last + 1);
        Ok(())
    }
}

impl CompactionJob {
    /// Merges. Reads and writes files, and no more; nothing counts before [`Spool::compacted`].
    #[must_use]
    pub fn run(self) -> Compacted {
        let first = self.sources.first().map_or(0, |drain| drain.range.first);
        let last = self.sources.last().map_or(first, |drain| drain.range.last);
        let range = DrainRange { first, last };
        let outcome = self.merge(range).map(Box::new);
        failpoint::reached("compaction-written");
        Compacted {
            sources: self.sources,
            range,
            outcome,
        }
    }

    fn merge(&self, range: DrainRange) -> Result<Meta, Failure> {
        let mut merged = self.sums(range)?;
        let mut files: Vec<OpenDrain> = Vec::new();
        let mut damages = Vec::new();
        for drain in self.sources.iter().filter(|drain| !drain.runs.is_empty()) {
            let (first, damage) = (drain.range.first, Arc::new(DamageCount::default()));
            let file = match FlowsFile::open(&self.shared.folder, drain.range, &damage) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                result => result?,
            };
            let file = file.ok_or(Failure::Source(first))?;
            files.push((Arc::clone(drain), Some(Arc::new(file))));
            damages.push((first, damage));
        }
        if files.is_empty() {
            return Ok(merged);
        }
        let mut writer = FlowsWriter::create(&self.shared.folder, range)?;
        writer.write_run(merge_sorted(runs::<FlowKeyV4>(&files)))?;
        writer.write_run(merge_sorted(runs::<FlowKeyV6>(&files)))?;
        if let Some((first, _)) = damages.iter().find(|(_, damage)| damage.get() > 0) {
            return Err(Failure::Source(*first));
        }
        (merged.runs, merged.flows_octets) = writer.finish()?;
        Ok(merged)
    }

    /// What the drains sum up to.
    fn sums(&self, range: DrainRange) -> Result<Meta, Failure> {
        let mut merged = Meta::empty(range);
        for drain in &self.sources {
            let name = drain.range.meta();
            let meta = match durable::read::<Meta>(&self.shared.folder, &name) {
                Ok((meta, _)) if meta.is_sane(drain.range) => meta,
                Err(Unreadable::Io(error)) => return Err(error.into()),
                _ => return Err(Failure::Source(drain.range.first)),
            };
            merged.tier = merged.tier.max(meta.tier.saturating_add(1));
            add_volumes(&mut merged.volumes, &meta.volumes);
            add_volumes(&mut merged.skipped, &meta.skipped);
            merged.loss_unknown |= meta.loss_unknown;
            merged.rule_ids.extend(meta.rule_ids);
            if meta.mark.is_some() {
                (merged.mark, merged.extras) = (meta.mark, meta.extras);
            }
        }
        Ok(merged)
    }
}
