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

    /// When the next window is to be closed, as a boot time.
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

    /// Closes all windows before their time, and opens the next ones.
    pub(crate) fn close_all(&mut self, now: Now, captured: &CapturedEnis) -> Vec<Closed> {
        self.series
            .iter_mut()
            .map(|series| {
                let opened = series.schedule.opened();
                let label = series.schedule.cut(now);
                series.close(label, opened, captured)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        flows::{Flow, Run},
        output::{OutputOptions, outputs},
        store::Drained,
    };
    use flowlog_common::{FlowCounters, FlowKeyV4};

    fn outputs_with(lengths: &[&str]) -> Vec<Arc<Output>> {
        let flow_logs: String = lengths
            .iter()
            .map(|length| {
                format!(
                    "[[flow-log]]\nname = \"of-{length}\"\nresource-type = \"VPC\"\nresource-id = \"vpc\"\n\
                     window = \"{length}\"\ndestination = {{ type = \"stdout\" }}\n"
                )
            })
            .collect();
        let text = format!("inventory = \"inventory.toml\"\n{flow_logs}");
        let config = Config::parse(&text, "agent.toml").unwrap();
        outputs(&config.flow_logs, &OutputOptions::default())
    }

    fn at(wall_seconds: u64) -> Now {
        Now {
            wall: Duration::from_secs(wall_seconds),
            boot: Duration::from_secs(wall_seconds - 1_000_000),
        }
    }

    fn packets(packets: u64) -> SharedDrain {
        let counters = FlowCounters {
            packets,
            bytes: packets * 100,
            tcp_flags: 0,
        };
        let flow = Flow::new(FlowKeyV4::default(), &counters);
        SharedDrain::from(Drained {
            v4: Run::from_distinct(vec![flow]),
            ..Drained::default()
        })
    }

    /// Length, label and packets of closed windows.
    fn told(closed: &[Closed]) -> Vec<(u64, u64, u64, u64)> {
        closed
            .iter()
            .map(
                |Closed {
                     length_seconds,
                     window,
                 }| {
                    let packets = window.v4().map(|flow| flow.packets).sum();
                    (
                        *length_seconds,
                        window.window.start,
                        window.window.end,
                        packets,
                    )
                },
            )
            .collect()
    }

    fn close_due(windows: &mut Windows, now: Now) -> (Vec<(u64, u64, u64, u64)>, bool) {
        let (closed, longest): (Vec<Closed>, Vec<bool>) = windows
            .close_due(now, &CapturedEnis::default())
            .into_iter()
            .unzip();
        (told(&closed), longest.contains(&true))
    }

    #[test]
    fn each_length_has_windows_of_its_own_with_all_that_was_drained_in_them() {
        let mut windows = Windows::new(&outputs_with(&["5m", "1m"]), 10, at(1_000_090));
        assert_eq!(windows.shortest_seconds(), 60);
        assert_eq!(windows.next_deadline(), Duration::from_secs(140));
        windows.add(&packets(5));
        let due = close_due(&mut windows, at(1_000_140));
        assert_eq!(due, (vec![(60, 1_000_090, 1_000_140, 5)], false));
        windows.add(&packets(7));
        let due = close_due(&mut windows, at(1_000_200));
        let both = vec![
            (60, 1_000_140, 1_000_200, 7),
            (300, 1_000_090, 1_000_200, 12),
        ];
        assert_eq!(due, (both, true));
    }

    #[test]
    fn windows_closed_before_their_time_have_what_was_drained_and_their_successors_have_not() {
        let mut windows = Windows::new(&outputs_with(&["1m", "5m"]), 10, at(1_000_090));
        windows.add(&packets(5));
        let closed = windows.close_all(at(1_000_100), &CapturedEnis::default());
        let both = [
            (60, 1_000_090, 1_000_100, 5),
            (300, 1_000_090, 1_000_100, 5),
        ];
        assert_eq!(told(&closed), both);
        windows.set_lengths(&outputs_with(&["5m", "10m"]), at(1_000_100));
        windows.add(&packets(7));
        let due = close_due(&mut windows, at(1_000_200));
        let both = vec![
            (300, 1_000_100, 1_000_200, 7),
            (600, 1_000_100, 1_000_200, 7),
        ];
        assert_eq!(due, (both, true));
    }
}
