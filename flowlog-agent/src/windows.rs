//! The open windows: one for each length that a flow log asks for, as a rule.
//!
//! What an open window holds is in the spool: all drains from its first one on. So a drain is kept once, however many lengths there are.
//!
//! A flow log that comes, goes or changes concerns nobody else: its window is closed, or opened, and those of the others go on. So there may
//! be several open windows of a length, which began at different times. They end together, and are one from then on.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use flowlog_model::flow_log::Status;

use crate::{
    sink::Output,
    spool::OpenSeries,
    window::{Now, Schedule, Window},
};

/// Length of a window when there is no flow log, so that the kernel's counters are drained all the same.
const IDLE_SECONDS: u64 = 600;

/// So many open windows of a length are too many to add to: with the next change all of that length are closed, and one follows.
const MANY: usize = 16;

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
    /// Whether it is of the shortest length, and no other that was closed with it counts as that; a part of a window never does.
    pub(crate) is_shortest: bool,
}

/// The open windows.
pub(crate) struct Windows {
    /// By length, the shortest first; those of a length in the order of their beginnings.
    series: Vec<Series>,
    /// The end of the last label that is taken, in Unix seconds; 0 if none is.
    labelled_until: u64,
}

/// What outputs ask for.
struct Wanted<'o> {
    /// Lengths of windows, in seconds, those of flow logs that do not capture now included.
    lengths: BTreeSet<u64>,
    /// The flow logs that are to have windows, each with its length.
    flow_logs: BTreeMap<&'o str, u64>,
}

impl<'o> Wanted<'o> {
    fn of(outputs: &'o [Arc<Output>]) -> Self {
        let length = |output: &Output| output.flow_log.window.seconds();
        let mut lengths: BTreeSet<u64> = outputs.iter().map(|output| length(output)).collect();
        if lengths.is_empty() {
            lengths.insert(IDLE_SECONDS);
        }
        let active = |output: &&'o Arc<Output>| output.flow_log.status == Status::Active;
        Self {
            lengths,
            flow_logs: outputs
                .iter()
                .filter(active)
                .map(|output| (output.flow_log.name.as_str(), length(output)))
                .collect(),
        }
    }

    /// Whether a flow log is to have windows of a length. Of one that no output asks for nobody knows: `others_stay` says it.
    fn allows(&self, flow_log: &str, length_seconds: u64, others_stay: bool) -> bool {
        let asked = self.flow_logs.get(flow_log);
        asked.map_or(others_stay, |asked| *asked == length_seconds)
    }
}

impl Series {
    fn length_seconds(&self) -> u64 {
        self.schedule.length_seconds()
    }

    fn start(&self) -> u64 {
        self.schedule.open().start
    }

    /// Windows with the same key are one.
    fn key(&self) -> (u64, u64, u64) {
        (self.length_seconds(), self.start(), self.first_drain)
    }
}

impl Windows {
    /// Opens the windows that the outputs ask for. The next drain is the first that is in them; no label begins before `not_before`, in
    /// Unix seconds.
    #[must_use]
    pub(crate) fn new(outputs: &[Arc<Output>], not_before: u64, now: Now, next_drain: u64) -> Self {
        let mut windows = Self {
            series: Vec::new(),
            labelled_until: not_before,
        };
        windows.follow(outputs, false, now, next_drain);
        windows
    }

    /// Goes on with the windows that an agent has left open in this boot of the kernel.
    #[must_use]
    pub(crate) fn restored(left_open: &[OpenSeries], not_before: u64, now: Now) -> Self {
        let series = |open: &OpenSeries| Series {
            schedule: Schedule::restored(
                open.length_seconds,
                open.start,
                Duration::from_nanos(open.opened_ns),
                now,
            ),
            first_drain: open.first_drain,
            flow_logs: open.flow_logs.clone(),
        };
        let starts = left_open.iter().map(|open| open.start);
        let mut windows = Self {
            series: left_open.iter().map(series).collect(),
            labelled_until: starts.fold(not_before, u64::max),
        };
        windows.arrange();
        windows
    }

    /// Whether the windows are those that these outputs ask for. `others_stay` is as in [`Self::follow`].
    #[must_use]
    pub(crate) fn suit(&self, outputs: &[Arc<Output>], others_stay: bool) -> bool {
        let wanted = Wanted::of(outputs);
        let held: BTreeSet<&str> = self.flow_logs().collect();
        self.unwanted(outputs, others_stay).is_empty()
            && wanted.flow_logs.keys().all(|name| held.contains(name))
    }

    /// The flow logs with windows that these outputs do not ask for. `others_stay` is as in [`Self::follow`].
    #[must_use]
    pub(crate) fn unwanted(&self, outputs: &[Arc<Output>], others_stay: bool) -> BTreeSet<String> {
        let wanted = Wanted::of(outputs);
        let of_series = |series: &Series| {
            let length = series.length_seconds();
            let names = series.flow_logs.iter();
            names
                .filter(|name| !wanted.allows(name, length, others_stay))
                .cloned()
                .collect::<Vec<_>>()
        };
        self.series.iter().flat_map(of_series).collect()
    }

    /// The flow logs that are to have the windows.
    pub(crate) fn flow_logs(&self) -> impl Iterator<Item = &str> {
        self.series
            .iter()
            .flat_map(|series| series.flow_logs.iter().map(String::as_str))
    }

    /// The end of the last label that is taken, in Unix seconds; 0 if none is.
    #[must_use]
    pub(crate) fn labelled_until(&self) -> u64 {
        self.labelled_until
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

    /// Whether a window of the shortest length is to be closed by the boot time `now`.
    #[must_use]
    pub(crate) fn is_shortest_due(&self, now: Duration) -> bool {
        let shortest = self.series.first().map(Series::length_seconds);
        self.series
            .iter()
            .take_while(|series| Some(series.length_seconds()) == shortest)
            .any(|series| series.schedule.deadline() <= now)
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
            length_seconds: series.length_seconds(),
            start: series.start(),
            opened_ns: u64::try_from(series.schedule.opened().as_nanos()).unwrap_or(u64::MAX),
            first_drain: series.first_drain,
            flow_logs: series.flow_logs.clone(),
        };
        self.series.iter().map(open).collect()
    }

    /// The labels of the open windows.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (u64, Window)> {
        self.series
            .iter()
            .map(|series| (series.length_seconds(), series.schedule.open()))
    }

    /// Closes the windows whose time has come. All drains so far are in them, and the next one is not.
    pub(crate) fn close_due(&mut self, now: Now, next_drain: u64) -> Vec<Closed> {
        // A clock that was adjusted meanwhile puts the deadlines of windows with the same end a little apart.
        let end = |series: &Series| (series.length_seconds(), series.schedule.open().end);
        let is_due = |series: &&Series| series.schedule.deadline() <= now.boot;
        let due: BTreeSet<(u64, u64)> = self.series.iter().filter(is_due).map(end).collect();
        self.close(next_drain, |series| {
            due.contains(&end(series))
                .then(|| series.schedule.close_due(now))
        })
    }

    /// Closes all windows before their time, and opens the next ones.
    pub(crate) fn close_all(&mut self, now: Now, next_drain: u64) -> Vec<Closed> {
        self.close(next_drain, |series| Some(series.schedule.cut(now)))
    }

    /// Closes the windows of these flow logs before their time, and opens the next ones. Those of others go on, but where a length has
    /// too many.
    pub(crate) fn close_of(
        &mut self,
        flow_logs: &BTreeSet<String>,
        now: Now,
        next_drain: u64,
    ) -> Vec<Closed> {
        let mut of_length: BTreeMap<u64, usize> = BTreeMap::new();
        for series in &self.series {
            *of_length.entry(series.length_seconds()).or_default() += 1;
        }
        of_length.retain(|_, count| *count >= MANY);
        self.set_apart(flow_logs);
        self.close(next_drain, |series| {
            let is_concerned = of_length.contains_key(&series.length_seconds())
                || series.flow_logs.iter().any(|name| flow_logs.contains(name));
            is_concerned.then(|| series.schedule.cut(now))
        })
    }

    /// Gives these flow logs windows of their own, with the same label and the same drains, where they share one with others.
    fn set_apart(&mut self, flow_logs: &BTreeSet<String>) {
        let mut apart = Vec::new();
        for series in &mut self.series {
            let names = std::mem::take(&mut series.flow_logs).into_iter();
            let (concerned, others): (Vec<_>, Vec<_>) =
                names.partition(|name| flow_logs.contains(name));
            if others.is_empty() || concerned.is_empty() {
                series.flow_logs = [concerned, others].concat();
                continue;
            }
            series.flow_logs = others;
            apart.push(Series {
                schedule: series.schedule.clone(),
                first_drain: series.first_drain,
                flow_logs: concerned,
            });
        }
        self.series.append(&mut apart);
    }

    /// Follows these outputs from now on: opens windows for the flow logs that have none, of which the next drain is the first, and drops
    /// those of others and of other lengths. Nothing must have been drained into these since they were opened; windows of flow logs that no
    /// output asks for go on if `others_stay`.
    pub(crate) fn follow(
        &mut self,
        outputs: &[Arc<Output>],
        others_stay: bool,
        now: Now,
        next_drain: u64,
    ) {
        let wanted = Wanted::of(outputs);
        for series in &mut self.series {
            let length = series.length_seconds();
            series
                .flow_logs
                .retain(|name| wanted.allows(name, length, others_stay));
        }
        self.series.retain(|series| !series.flow_logs.is_empty());
        let mut lacking: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for length in wanted.lengths {
            if self
                .series
                .iter()
                .all(|series| series.length_seconds() != length)
            {
                lacking.insert(length, Vec::new());
            }
        }
        let held: BTreeSet<&str> = self.flow_logs().collect();
        for (name, length) in wanted.flow_logs {
            if !held.contains(name) {
                lacking.entry(length).or_default().push(name.to_owned());
            }
        }
        let start = now.wall.as_secs().max(self.labelled_until);
        let opened = lacking.into_iter().map(|(length, flow_logs)| Series {
            schedule: Schedule::restored(length, start, now.boot, now),
            first_drain: next_drain,
            flow_logs,
        });
        self.series.extend(opened);
        self.arrange();
    }

    fn close(
        &mut self,
        next_drain: u64,
        mut close: impl FnMut(&mut Series) -> Option<Window>,
    ) -> Vec<Closed> {
        let mut shortest = self.series.iter().map(Series::length_seconds).min();
        let mut of_key: BTreeMap<_, usize> = BTreeMap::new();
        for series in &self.series {
            *of_key.entry(series.key()).or_default() += 1;
        }
        let mut closed = Vec::new();
        for series in &mut self.series {
            let (key, opened) = (series.key(), series.schedule.opened());
            let length_seconds = series.length_seconds();
            if let Some(label) = close(series) {
                let is_whole = of_key.get(&key) == Some(&1);
                closed.push(Closed {
                    length_seconds,
                    label,
                    opened,
                    first_drain: std::mem::replace(&mut series.first_drain, next_drain),
                    flow_logs: series.flow_logs.clone(),
                    is_shortest: is_whole && shortest.take_if(|of| *of == length_seconds).is_some(),
                });
                self.labelled_until = self.labelled_until.max(label.end);
            }
        }
        self.arrange();
        closed
    }

    /// Puts the windows in order; those that are the same but for their flow logs become one.
    fn arrange(&mut self) {
        self.series.sort_by_key(Series::key);
        self.series.dedup_by(|later, kept| {
            let is_same = later.key() == kept.key();
            if is_same {
                kept.flow_logs.append(&mut later.flow_logs);
            }
            is_same
        });
    }
}

#[cfg(test)]
mod tests;
