//! What was drained in an open window, bounded; and the window once it is closed.
use std::{collections::BTreeMap, sync::Arc};

use flowlog_common::{EniCounters, FlowKeyV4, FlowKeyV6};

use crate::{
    flows::{ByDirection, Flow, FlowKey, Run, merge},
    slots::EniTable,
    window::Window,
};

/// Runs that may gather before they are merged into one: few enough that reading them in one pass stays quick.
const MAX_RUNS: usize = 8;

/// One drain of a generation.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// IPv4 flows.
    pub v4: Run<FlowKeyV4>,
    /// IPv6 flows.
    pub v6: Run<FlowKeyV6>,
    /// What is in no flow, by `slot * 2 + direction`.
    pub enis: Vec<EniCounters>,
}

/// Flows of one family, in runs that may be shared with windows of another length.
#[derive(Debug)]
struct Runs<K> {
    runs: Vec<Arc<Run<K>>>,
    flows: usize,
}

impl<K> Default for Runs<K> {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            flows: 0,
        }
    }
}

impl<K: FlowKey> Runs<K> {
    /// Adds a run; merges when there are many runs, or many flows. What then has no room is given to `skip`.
    fn add(&mut self, run: &Arc<Run<K>>, limit: usize, mut skip: impl FnMut(&Flow<K>)) {
        if run.flows().is_empty() {
            return;
        }
        if self.runs.len() < MAX_RUNS && self.flows + run.flows().len() <= limit {
            self.flows += run.flows().len();
            self.runs.push(Arc::clone(run));
            return;
        }
        let merged = self.runs.drain(..).fold(Run::default(), |sum, next| {
            sum.merged(&next, usize::MAX, |_| {})
        });
        let merged = merged.merged(run, limit, &mut skip);
        self.flows = merged.flows().len();
        self.runs.push(Arc::new(merged));
    }

    fn iter(&self) -> impl Iterator<Item = Flow<K>> {
        merge(self.runs.iter().map(Arc::as_ref))
    }
}

/// What an open window holds.
#[derive(Debug, Default)]
pub struct OpenWindow {
    v4: Runs<FlowKeyV4>,
    v6: Runs<FlowKeyV6>,
    skipped: BTreeMap<u32, ByDirection>,
}

/// A drain, ready to be shared among windows of several lengths.
#[derive(Clone, Debug)]
pub struct SharedDrain {
    v4: Arc<Run<FlowKeyV4>>,
    v6: Arc<Run<FlowKeyV6>>,
    enis: Arc<Vec<EniCounters>>,
}

impl From<Drained> for SharedDrain {
    fn from(drained: Drained) -> Self {
        Self {
            v4: Arc::new(drained.v4),
            v6: Arc::new(drained.v6),
            enis: Arc::new(drained.enis),
        }
    }
}

impl OpenWindow {
    /// Adds a drain. At most `max_flows` flows of each family are kept; the others are counted as skipped.
    pub fn add(&mut self, drain: &SharedDrain, max_flows: usize) {
        let Self { v4, v6, skipped } = self;
        v4.add(&drain.v4, max_flows, |flow| skip(skipped, flow));
        v6.add(&drain.v6, max_flows, |flow| skip(skipped, flow));
        for (index, counters) in (0_u32..).zip(drain.enis.iter()) {
            for volume in [counters.map_full, counters.unparsable] {
                if volume.packets > 0 {
                    skipped.entry(index / 2).or_default().add(
                        (index % 2) as u8,
                        volume.packets,
                        volume.bytes,
                    );
                }
            }
        }
    }

    /// Closes the window. `enis` are those that were captured in it, at any time.
    #[must_use]
    pub fn close(self, window: Window, enis: EniTable) -> ClosedWindow {
        ClosedWindow {
            window,
            contents: self,
            enis,
        }
    }
}

fn skip<K: FlowKey>(skipped: &mut BTreeMap<u32, ByDirection>, flow: &Flow<K>) {
    skipped
        .entry(flow.key.slot())
        .or_default()
        .add(flow.key.direction(), flow.packets, flow.bytes);
}

/// A window that nothing is added to any more.
#[derive(Debug)]
pub struct ClosedWindow {
    /// Its label.
    pub window: Window,
    /// The ENIs that were captured in it, by slot.
    pub enis: EniTable,
    contents: OpenWindow,
}

impl ClosedWindow {
    /// IPv4 flows, by slot and then by the rest of the key.
    pub fn v4(&self) -> impl Iterator<Item = Flow<FlowKeyV4>> {
        self.contents.v4.iter()
    }

    /// IPv6 flows, likewise.
    pub fn v6(&self) -> impl Iterator<Item = Flow<FlowKeyV6>> {
        self.contents.v6.iter()
    }

    /// What is in no flow, by slot.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<u32, ByDirection> {
        &self.contents.skipped
    }
}
