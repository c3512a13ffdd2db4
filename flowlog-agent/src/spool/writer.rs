//! Writing a drain.
use flowlog_common::{DECIDED_BY_FIRST_RULE, FlowKeyV4, FlowKeyV6};

use super::{
    Cause, Committed, Full, Kept, KernelMark, Spool, SpoolError, Volumes, add_flows, add_unseen,
    add_volumes,
    blocks::StoredKey,
    catalog::{Drain, Entry, Meta},
    durable::{self, is_full, on_disk},
    flows_file::{FlowsWriter, HEADER_OCTETS},
    names::DrainRange,
};
use crate::{
    failpoint,
    flows::{Flow, Run},
};

/// A drain that is being written. What goes wrong on the way is told by [`DrainWriter::commit`].
///
/// It gathers up to `max_flows_in_memory` flows, of 40 octets (IPv4) or 64 octets (IPv6), and then writes a sorted run.
#[derive(Debug)]
pub struct DrainWriter<'s> {
    spool: &'s mut Spool,
    range: DrainRange,
    max_flows: usize,
    v4: Vec<Flow<FlowKeyV4>>,
    v6: Vec<Flow<FlowKeyV6>>,
    file: Option<FlowsWriter>,
    error: Option<SpoolError>,
    /// What there is to tell.
    committed: Committed,
}

impl<'s> DrainWriter<'s> {
    pub(super) fn new(spool: &'s mut Spool) -> Self {
        let sequence = spool.next_drain;
        Self {
            max_flows: spool.config.max_flows_in_memory.max(2),
            spool,
            range: DrainRange {
                first: sequence,
                last: sequence,
            },
            v4: Vec::new(),
            v6: Vec::new(),
            file: None,
            error: None,
            committed: Committed {
                sequence,
                ..Committed::default()
            },
        }
    }

    /// Adds IPv4 flows, in any order; the same flow any number of times.
    pub fn v4(&mut self, flows: impl IntoIterator<Item = Flow<FlowKeyV4>>) {
        for flow in flows {
            self.committed.flows_v4 += 1;
            push(&mut self.v4, flow, self.max_flows);
            self.keep_bound();
        }
    }

    /// Adds IPv6 flows, likewise.
    pub fn v6(&mut self, flows: impl IntoIterator<Item = Flow<FlowKeyV6>>) {
        for flow in flows {
            self.committed.flows_v6 += 1;
            push(&mut self.v6, flow, self.max_flows);
            self.keep_bound();
        }
    }

    /// Writes the family that has more flows, when they are as many as may be in memory.
    fn keep_bound(&mut self) {
        if self.v4.len() + self.v6.len() < self.max_flows {
            return;
        }
        if self.v4.len() >= self.v6.len() {
            let gathered = std::mem::take(&mut self.v4);
            self.v4 = self.write_unless_halved(gathered);
        } else {
            let gathered = std::mem::take(&mut self.v6);
            self.v6 = self.write_unless_halved(gathered);
        }
    }

    /// Sorts and writes flows, unless half of them can be added to others. Gives what is not written.
    fn write_unless_halved<K: StoredKey>(&mut self, gathered: Vec<Flow<K>>) -> Vec<Flow<K>> {
        let before = gathered.len();
        let run = self.sorted(gathered);
        if run.len() <= before / 2 {
            return run;
        }
        self.write(&run);
        let mut emptied = run;
        emptied.clear();
        emptied
    }

    /// In order, each key once; as they are where only their sums matter.
    fn sorted<K: StoredKey>(&self, gathered: Vec<Flow<K>>) -> Vec<Flow<K>> {
        if self.writes_flows() {
            Run::from_any(gathered).into_flows()
        } else {
            gathered
        }
    }

    fn writes_flows(&self) -> bool {
        self.error.is_none() && self.committed.sums_only.is_none()
    }

    fn write<K: StoredKey>(&mut self, run: &[Flow<K>]) {
        add_flows(&mut self.committed.volumes, run);
        add_unseen(&mut self.committed.unseen, run);
        self.add_rules(run);
        if run.is_empty() || !self.writes_flows() {
            return;
        }
        match self.write_run(run) {
            Ok(None) => {}
            Ok(Some(full)) => self.keep_sums_only(full),
            Err(error) => {
                self.error = Some(error);
                self.file = None;
            }
        }
    }

    fn add_rules<K: StoredKey>(&mut self, run: &[Flow<K>]) {
        // Neighbours were decided by the same rule as a rule.
        let mut last = None;
        for rule in run.iter().map(|flow| flow.marks.decided_by()) {
            if rule >= DECIDED_BY_FIRST_RULE && last != Some(rule) {
                self.committed.rules.insert(rule);
                last = Some(rule);
            }
        }
    }

    /// Writes a run, if need be after closed windows were given up. Tells of what there is not enough.
    fn write_run<K: StoredKey>(&mut self, run: &[Flow<K>]) -> Result<Option<Full>, SpoolError> {
        let so_far = self
            .file
            .as_ref()
            .map_or(HEADER_OCTETS, FlowsWriter::octets);
        let octets = K::FAMILY.run_octets(run.len() as u64).unwrap_or(u64::MAX);
        if !self.spool.make_room(on_disk(so_far.saturating_add(octets))) {
            return Ok(Some(Full::Limit));
        }
        loop {
            let folder = &self.spool.shared.folder;
            let written = match &mut self.file {
                Some(file) => file.write_run(run.iter().copied()),
                none => FlowsWriter::create(folder, self.range)
                    .and_then(|file| none.insert(file).write_run(run.iter().copied())),
            };
            match written {
                Ok(()) => return Ok(None),
                Err(error) if !is_full(&error) => return Err(self.error(error)),
                Err(_) if self.spool.give_up_oldest(Cause::Disk) => {}
                Err(_) => return Ok(Some(Full::Disk)),
            }
        }
    }

    fn keep_sums_only(&mut self, full: Full) {
        let what = match full {
            Full::Limit => "max-bytes are reached",
            Full::Disk => "the disk is full",
        };
        if self.spool.full != Some(full) {
            tracing::warn!(
                "the spool {} has no room for the flows of open windows ({what}): only their sums are kept, for SKIPDATA",
                self.spool.config.path.display()
            );
        }
        self.committed.sums_only = Some(full);
        self.file = None;
    }

    fn error(&self, source: std::io::Error) -> SpoolError {
        self.spool
            .shared
            .error("write", &self.range.flows(), source)
    }

    /// Commits the drain: it is on the disk, when this returns. `skipped` is what was counted in no flow; `keep` says what is kept
    /// besides, made with what is known of the flows.
    ///
    /// # Errors
    ///
    /// If it cannot be written; on the disk everything is as before then, and the drain can be made again.
    pub fn commit(
        mut self,
        mark: KernelMark,
        skipped: &Volumes,
        keep: impl FnOnce(&Committed) -> Kept,
    ) -> Result<Committed, SpoolError> {
        let (v4, v6) = (std::mem::take(&mut self.v4), std::mem::take(&mut self.v6));
        let run = self.sorted(v4);
        self.write(&run);
        let run = self.sorted(v6);
        self.write(&run);
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let (runs, flows_octets) = self.finish_flows()?;
        failpoint::reached("drain-flows-written");
        let Kept { rule_ids, extras } = keep(&self.committed);
        let mut meta = Meta {
            first: self.range.first,
            last: self.range.last,
            tier: 0,
            mark: Some(mark),
            extras,
            volumes: self.committed.volumes.clone(),
            skipped: skipped.clone(),
            rule_ids,
            loss_unknown: self.spool.loss_unknown,
            flows_octets,
            runs,
        };
        if self.committed.sums_only.is_some() {
            without_flows(&mut meta);
        }
        let octets = self.write_meta(&mut meta).map_err(|source| {
            // It may have got its name before something failed.
            let folder = &self.spool.shared.folder;
            folder.drop_file(&self.range.meta());
            folder.drop_file(&self.range.flows());
            let _ = folder.sync();
            self.spool.shared.error("write", &self.range.meta(), source)
        })?;
        self.spool.insert(&meta, octets);
        self.spool.set_full(self.committed.sums_only);
        Ok(self.committed)
    }

    /// The runs of the finished file and its size; none if only the sums are kept.
    fn finish_flows(&mut self) -> Result<(Vec<super::flows_file::RunIndex>, u64), SpoolError> {
        let Some(file) = self.file.take() else {
            return Ok((Vec::new(), 0));
        };
        // The flows are durable before their meta file is there, which says that they are.
        let finished = file
            .finish()
            .and_then(|finished| self.spool.shared.folder.sync().map(|()| finished));
        match finished {
            Ok(finished) => Ok(finished),
            // Some file systems find out only now. The flows are not in memory any more.
            Err(error) if is_full(&error) => {
                self.keep_sums_only(Full::Disk);
                self.spool.shared.folder.drop_file(&self.range.flows());
                Ok((Vec::new(), 0))
            }
            Err(error) => {
                self.spool.shared.folder.drop_file(&self.range.flows());
                Err(self.error(error))
            }
        }
    }

    /// Writes the meta file. On a full disk closed windows make room for it, then the drain's own flows, then the reserve.
    fn write_meta(&mut self, meta: &mut Meta) -> std::io::Result<u64> {
        let name = self.range.meta();
        loop {
            match durable::write(&self.spool.shared.folder, &name, meta) {
                Err(error) if is_full(&error) => {
                    if self.spool.give_up_oldest(Cause::Disk) {
                        continue;
                    }
                    if !meta.runs.is_empty() {
                        self.keep_sums_only(Full::Disk);
                        self.spool.shared.folder.drop_file(&self.range.flows());
                        without_flows(meta);
                    } else if !self.spool.shared.folder.release_reserve() {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }
}

/// What the flows sum up to is in no flow.
fn without_flows(meta: &mut Meta) {
    add_volumes(&mut meta.skipped, &std::mem::take(&mut meta.volumes));
    meta.rule_ids.clear();
    meta.runs.clear();
    meta.flows_octets = 0;
}

/// Pushes without room for more than `max`.
fn push<K>(flows: &mut Vec<Flow<K>>, flow: Flow<K>, max: usize) {
    if flows.len() == flows.capacity() {
        let more = flows
            .len()
            .clamp(16, max.saturating_sub(flows.len()).max(16));
        flows.reserve_exact(more);
    }
    flows.push(flow);
}

impl Spool {
    fn set_full(&mut self, full: Option<Full>) {
        if self.full.is_some() && full.is_none() {
            tracing::info!(
                "the spool {} has room for flows again",
                self.config.path.display()
            );
        }
        self.full = full;
    }

    /// Takes a committed drain into the books.
    fn insert(&mut self, meta: &Meta, meta_octets: u64) {
        let drain = Drain::new(meta, meta_octets);
        let before = std::mem::replace(&mut self.marked, drain.range.first);
        self.next_drain = drain.range.last + 1;
        self.drain_bytes += drain.flows_bytes + drain.meta_bytes;
        let entry = Entry {
            drain: drain.into(),
            holders: 0,
        };
        self.shared.drains().insert(meta.first, entry);
        // The drain says what they were kept for.
        self.loss_unknown = false;
        for witness in std::mem::take(&mut self.witnesses) {
            self.shared.folder.drop_file(&witness);
        }
        self.collect(before, meta.first);
    }
}
