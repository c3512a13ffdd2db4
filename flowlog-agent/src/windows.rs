//! The open windows: one for each length that a flow log asks for.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    sink::Output,
    store::{CapturedEnis, ClosedWindow, OpenWindow, SharedDrain},
    window::{Now, Schedule, Window},
};

/// Length of a window when there is no flow log, so that the kernel's counters are drained all the same.
const IDLE_SECONDS: u64 = 600;

struct Series {
    schedule: Schedule,
    open: OpenWindow,
}

/// A closed window of one length.
pub(crate) struct Closed {
    /// Length that it should have had, in seconds.
    pub length_seconds: u64,
    /// The window.
    pub window: Arc<ClosedWindow>,
}

/// The open windows.
pub(crate) struct Windows {
    /// By length, the shortest first.
    series: Vec<Series>,
    max_flows: usize,
}

impl Windows {
    /// Opens a window of each length that the outputs ask for. Each holds up to `max_flows` flows of a family.
    #[must_use]
    pub(crate) fn new(outputs: &[Arc<Output>], max_flows: usize, now: Now) -> Self {
        let mut windows = Self {
            series: Vec::new(),
            max_flows,
        };
        windows.set_lengths(outputs, now);
        windows
    }

    /// Follows other flow logs: windows of lengths that are no longer asked for end, those of new lengths begin now.
    pub(crate) fn set_lengths(&mut self, outputs: &[Arc<Output>], now: Now) {
        let mut lengths: BTreeSet<u64> = outputs
            .iter()
            .map(|output| output.flow_log.window.seconds())
            .collect();
        if lengths.is_empty() {
            lengths.insert(IDLE_SECONDS);
        }
        self.series
            .retain(|series| lengths.remove(&series.schedule.length_seconds()));
        self.series
            .extend(lengths.into_iter().map(|seconds| Series {
                schedule: Schedule::start(seconds, now),
                open: OpenWindow::default(),
            }));
        self.series
            .sort_by_key(|series| series.schedule.length_seconds());
    }

    /// When the next window is to be closed, on the monotonic clock.
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Duration {
        self.series
            .iter()
            .map(|series| series.schedule.deadline())
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// The shortest length, in seconds.
    #[must_use]
    pub(crate) fn shortest_seconds(&self) -> u64 {
        self.series
            .first()
            .map_or(IDLE_SECONDS, |series| series.schedule.length_seconds())
    }

    /// Adds a drain to every open window.
    pub(crate) fn add(&mut self, drain: &SharedDrain) {
        for series in &mut self.series {
            series.open.add(drain, self.max_flows);
        }
    }

    /// Closes the windows whose time has come; tells of each whether it is of the longest kind.
    pub(crate) fn close_due(&mut self, now: Now, captured: &CapturedEnis) -> Vec<(Closed, bool)> {
        let last = self.series.len().saturating_sub(1);
        self.series
            .iter_mut()
            .enumerate()
            .filter_map(|(index, series)| {
                let opened = series.schedule.opened();
                let label = series.schedule.close_if_due(now)?;
                Some((series.close(label, opened, captured), index == last))
            })
            .collect()
    }

    /// Closes all windows before their time.
    pub(crate) fn close_all(&mut self, now: Now, captured: &CapturedEnis) -> Vec<Closed> {
        self.series
            .iter_mut()
            .map(|series| {
                series.close(
                    series.schedule.close_now(now),
                    series.schedule.opened(),
                    captured,
                )
            })
            .collect()
    }
}

impl Series {
    fn close(&mut self, label: Window, opened: Duration, captured: &CapturedEnis) -> Closed {
        let window = std::mem::take(&mut self.open).close(label, opened, captured);
        Closed {
            length_seconds: self.schedule.length_seconds(),
            window: Arc::new(window),
        }
    }
}
