//! What was drained in an open window, bounded; and the window once it is closed.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flowlog_common::{EniCounters, FlowKeyV4, FlowKeyV6};
use flowlog_model::record::Eni;

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

    /// Closes the window, which was opened at the boot time `opened`.
    #[must_use]
    pub fn close(self, window: Window, opened: Duration, captured: &CapturedEnis) -> ClosedWindow {
        let captured = captured.clone();
        ClosedWindow {
            window,
            opened,
            captured,
            contents: self,
        }
    }
}

/// The ENIs of the host when a window is closed.
#[derive(Clone, Debug, Default)]
pub struct CapturedEnis {
    /// Those that are captured, or were in the window, by slot.
    pub by_slot: EniTable,
    /// Those that should be captured and cannot be.
    pub not_captured: Vec<Arc<Eni>>,
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
    /// When it was opened, as a boot time.
    opened: Duration,
    captured: CapturedEnis,
    contents: OpenWindow,
}

impl ClosedWindow {
    /// The ENIs that the window's flows are of, by slot.
    pub fn enis(&self) -> impl Iterator<Item = Option<&Eni>> {
        self.captured
            .by_slot
            .iter()
            .map(|slot| slot.as_ref().map(|slot| slot.eni.as_ref()))
    }

    /// Whether the ENI of a slot was captured in the window, be it for a part of it.
    #[must_use]
    pub fn was_captured(&self, slot: usize) -> bool {
        let slot = self.captured.by_slot.get(slot).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.gone_at.is_none_or(|gone_at| gone_at >= self.opened))
    }

    /// The ENIs that should have been captured and could not be.
    pub fn not_captured(&self) -> impl Iterator<Item = &Eni> {
        self.captured.not_captured.iter().map(Arc::as_ref)
    }

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
