//! The open windows: one for each length that a flow log asks for.
//!
//! What an open window holds is in the spool: all drains from its first one on. So a drain is kept once, however many lengths there are.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flowlog_model::flow_log::Status;

use crate::{
    sink::Output,
    spool::OpenSeries,
    window::{Now, Schedule, Window},
};

/// Names of the flow logs that are to have the windows of each length, in seconds.
pub(crate) type FlowLogsByLength = BTreeMap<u64, Vec<String>>;

/// Length of a window when there is no flow log, so that the kernel's counters are drained all the same.
const IDLE_SECONDS: u64 = 600;

struct Series {
    schedule: Schedule,
    first_drain: u64,
    flow_logs: Vec<String>,
}

/// A window that has just been closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Length that it should have had, in seconds.
    pub(crate) length_seconds: u64,
    /// Its label.
    pub(crate) label: Window,
    /// The boot time at which it was opened.
    pub(crate) opened: Duration,
    /// The first drain that is in it; the last is the newest.
    pub(crate) first_drain: u64,
    /// Names of the flow logs that are to have it.
    pub(crate) flow_logs: Vec<String>,
    /// Whether it is of the shortest length.
    pub(crate) is_shortest: bool,
}

/// The open windows.
pub(crate) struct Windows {
    /// By length, the shortest first.
    series: Vec<Series>,
}

impl Windows {
    /// Opens a window of each length that the outputs ask for. The next drain is the first that is in them; no label begins before
    /// `not_before`, in Unix seconds.
    #[must_use]
    pub(crate) fn new(outputs: &[Arc<Output>], not_before: u64, now: Now, next_drain: u64) -> Self {
        let start = now.wall.as_secs().max(not_before);
        let series = wanted(outputs)
            .into_iter()
            .map(|(length_seconds, flow_logs)| Series {
                schedule: Schedule::restored(length_seconds, start, now.boot, now),
                first_drain: next_drain,
                flow_logs,
            });
        Self {
            series: series.collect(),
        }
    }

    /// Goes on with the windows that an agent has left open in this boot of the kernel.
    #[must_use]
    pub(crate) fn restored(
        left_open: &[OpenSeries],
        flow_logs: &FlowLogsByLength,
        now: Now,
    ) -> Self {
        let mut series: Vec<Series> = left_open
            .iter()
            .map(|open| Series {
                schedule: Schedule::restored(
                    open.length_seconds,
                    open.start,
                    Duration::from_nanos(open.opened_ns),
                    now,
                ),
                first_drain: open.first_drain,
                flow_logs: flow_logs
                    .get(&open.length_seconds)
                    .cloned()
                    .unwrap_or_default(),
            })
            .collect();
        series.sort_by_key(|series| series.schedule.length_seconds());
        Self { series }
    }

    /// Whether the windows are those that these outputs ask for.
    #[must_use]
    pub(crate) fn suit(&self, outputs: &[Arc<Output>]) -> bool {
        self.flow_logs() == wanted(outputs)
    }

    /// Who is to have the windows.
    #[must_use]
    pub(crate) fn flow_logs(&self) -> FlowLogsByLength {
        let of = |series: &Series| (series.schedule.length_seconds(), series.flow_logs.clone());
        self.series.iter().map(of).collect()
    }

    /// The end of the last label that is taken, in Unix seconds; 0 if none is.
    #[must_use]
    pub(crate) fn labelled_until(&self) -> u64 {
        let starts = self
            .series
            .iter()
            .map(|series| series.schedule.open().start);
        starts.max().unwrap_or(0)
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

    /// Whether the window of the shortest length is to be closed by the boot time `now`.
    #[must_use]
    pub(crate) fn is_shortest_due(&self, now: Duration) -> bool {
        let shortest = self.series.first();
        shortest.is_some_and(|series| series.schedule.deadline() <= now)
    }

    /// The boot time at which the window was opened that has been open for longest.
    #[must_use]
    pub(crate) fn opened(&self) -> Duration {
        let opened = self.series.iter().map(|series| series.schedule.opened());
        opened.min().unwrap_or_default()
    }

    /// The open windows, as they are kept for the next agent.
    #[must_use]
    pub(crate) fn open(&self) -> Vec<OpenSeries> {
        let open = |series: &Series| OpenSeries {
            length_seconds: series.schedule.length_seconds(),
            start: series.schedule.open().start,
            opened_ns: u64::try_from(series.schedule.opened().as_nanos()).unwrap_or(u64::MAX),
            first_drain: series.first_drain,
        };
        self.series.iter().map(open).collect()
    }

    /// The labels of the open windows.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (u64, Window)> {
        self.series
            .iter()
            .map(|series| (series.schedule.length_seconds(), series.schedule.open()))
    }

    /// Closes the windows whose time has come. All drains so far are in them, and the next one is not.
    pub(crate) fn close_due(&mut self, now: Now, next_drain: u64) -> Vec<Closed> {
        self.close(next_drain, |schedule| schedule.close_if_due(now))
    }

    /// Closes all windows before their time, and opens the next ones.
    pub(crate) fn close_all(&mut self, now: Now, next_drain: u64) -> Vec<Closed> {
        self.close(next_drain, |schedule| Some(schedule.cut(now)))
    }

    fn close(
        &mut self,
        next_drain: u64,
        mut close: impl FnMut(&mut Schedule) -> Option<Window>,
    ) -> Vec<Closed> {
        let mut closed = Vec::new();
        for (index, series) in self.series.iter_mut().enumerate() {
            let opened = series.schedule.opened();
            if let Some(label) = close(&mut series.schedule) {
                closed.push(Closed {
                    length_seconds: series.schedule.length_seconds(),
                    label,
                    opened,
                    first_drain: std::mem::replace(&mut series.first_drain, next_drain),
                    flow_logs: series.flow_logs.clone(),
                    is_shortest: index == 0,
                });
            }
        }
        closed
    }
}

fn wanted(outputs: &[Arc<Output>]) -> FlowLogsByLength {
    let mut wanted = FlowLogsByLength::new();
    for output in outputs {
        let names = wanted.entry(output.flow_log.window.seconds()).or_default();
        if output.flow_log.status == Status::Active {
            names.push(output.flow_log.name.as_str().to_owned());
        }
    }
    if wanted.is_empty() {
        wanted.insert(IDLE_SECONDS, Vec::new());
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        output::{OutputOptions, outputs},
    };

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

    /// Length, label and first drain of closed windows.
    fn told(closed: &[Closed]) -> Vec<(u64, u64, u64, u64)> {
        let told = |closed: &Closed| {
            let Window { start, end } = closed.label;
            (closed.length_seconds, start, end, closed.first_drain)
        };
        closed.iter().map(told).collect()
    }

    #[test]
    fn each_length_has_windows_of_its_own_with_all_drains_made_in_them() {
        let mut windows = Windows::new(&outputs_with(&["5m", "1m"]), 0, at(1_000_090), 7);
        assert_eq!(windows.next_deadline(), Duration::from_secs(140));
        let due = windows.close_due(at(1_000_140), 9);
        assert_eq!(told(&due), [(60, 1_000_090, 1_000_140, 7)]);
        assert!(due[0].is_shortest);
        assert_eq!(due[0].flow_logs, ["of-1m"]);
        let due = windows.close_due(at(1_000_200), 12);
        let both = [
            (60, 1_000_140, 1_000_200, 9),
            (300, 1_000_090, 1_000_200, 7),
        ];
        assert_eq!(told(&due), both);
    }

    #[test]
    fn windows_closed_before_their_time_are_followed_at_once() {
        let mut windows = Windows::new(&outputs_with(&["1m", "5m"]), 0, at(1_000_090), 1);
        let closed = windows.close_all(at(1_000_100), 3);
        let both = [
            (60, 1_000_090, 1_000_100, 1),
            (300, 1_000_090, 1_000_100, 1),
        ];
        assert_eq!(told(&closed), both);
        assert_eq!(windows.labelled_until(), 1_000_100);
        let windows = Windows::new(
            &outputs_with(&["10m"]),
            windows.labelled_until(),
            at(1_000_095),
            3,
        );
        assert_eq!(windows.open()[0].start, 1_000_100, "never a second time");
    }

    #[test]
    fn windows_go_on_over_a_restart() {
        let outputs = outputs_with(&["1m", "5m"]);
        let mut windows = Windows::new(&outputs, 0, at(1_000_090), 1);
        let _ = windows.close_due(at(1_000_140), 4);
        let mut windows = Windows::restored(&windows.open(), &windows.flow_logs(), at(1_000_150));
        assert!(windows.suit(&outputs));
        assert!(!windows.suit(&outputs_with(&["1m"])));
        let due = windows.close_due(at(1_000_200), 6);
        let both = [
            (60, 1_000_140, 1_000_200, 4),
            (300, 1_000_090, 1_000_200, 1),
        ];
        assert_eq!(told(&due), both);
    }
}
