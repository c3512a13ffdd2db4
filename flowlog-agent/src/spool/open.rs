//! The open windows: what becomes of them when windows are closed.
use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use super::{OpenSeries, window::Manifest};

/// Where the newest closed windows end: there the open ones begin.
#[derive(Debug, Default)]
pub(super) struct Newest {
    by_length: HashMap<u64, End>,
    /// By length and flow log.
    by_flow_log: HashMap<(u64, String), End>,
}

/// The end of a closed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    /// The drain after its last.
    next_drain: u64,
    /// That of its label, in Unix seconds.
    second: u64,
    /// The boot time at which it was closed, in nanoseconds.
    closed_ns: u64,
}

impl Newest {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }

    /// Takes note of a closed window; in any order.
    pub(super) fn note(&mut self, manifest: &Manifest) {
        let length = manifest.length_seconds;
        let end = End {
            next_drain: manifest.next_drain,
            second: manifest.end,
            closed_ns: manifest.closed_ns,
        };
        let later = |known: &mut End| *known = end.max(*known);
        self.by_length
            .entry(length)
            .and_modify(later)
            .or_insert(end);
        for flow_log in &manifest.flow_logs {
            let key = (length, flow_log.clone());
            self.by_flow_log.entry(key).and_modify(later).or_insert(end);
        }
    }

    /// Moves open windows on over those that were closed: what is open of a closed window begins after it. A window that was closed for
    /// some of its flow logs goes on for the others.
    pub(super) fn bring_up(&self, open: &mut Vec<OpenSeries>) {
        // By length, first drain and start: so windows that begin together are one.
        let mut moved: BTreeMap<(u64, u64, u64), OpenSeries> = BTreeMap::new();
        for series in std::mem::take(open) {
            for part in self.parts(series) {
                let key = (part.length_seconds, part.first_drain, part.start);
                match moved.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(part);
                    }
                    Entry::Occupied(mut entry) => {
                        entry.get_mut().flow_logs.extend(part.flow_logs);
                    }
                }
            }
        }
        open.extend(moved.into_values());
    }

    /// A window, by where it begins for each of its flow logs.
    fn parts(&self, mut series: OpenSeries) -> Vec<OpenSeries> {
        let length = series.length_seconds;
        let later = |end: Option<&End>, series: &OpenSeries| {
            end.copied()
                .filter(|end| series.begins_before((end.next_drain, end.second)))
        };
        if series.flow_logs.is_empty() {
            let end = later(self.by_length.get(&length), &series);
            return vec![series.moved(end)];
        }
        let mut by_end: BTreeMap<Option<End>, Vec<String>> = BTreeMap::new();
        for flow_log in std::mem::take(&mut series.flow_logs) {
            let key = (length, flow_log);
            let end = later(self.by_flow_log.get(&key), &series);
            by_end.entry(end).or_default().push(key.1);
        }
        let part = |(end, flow_logs)| OpenSeries {
            flow_logs,
            ..series.clone().moved(end)
        };
        by_end.into_iter().map(part).collect()
    }
}

impl OpenSeries {
    /// Whether it begins before a drain and, where that is its first, before a second.
    pub(super) fn begins_before(&self, (drain, second): (u64, u64)) -> bool {
        (self.first_drain, self.start) < (drain, second)
    }

    /// Whether it is for one of these flow logs, as far as it is known for whom it is.
    pub(super) fn is_for_any_of(&self, flow_logs: &[String]) -> bool {
        self.flow_logs.is_empty() || self.flow_logs.iter().any(|name| flow_logs.contains(name))
    }

    /// It, beginning where a closed window has ended, if there is one.
    fn moved(self, end: Option<End>) -> Self {
        match end {
            None => self,
            Some(end) => Self {
                start: end.second,
                opened_ns: end.closed_ns,
                first_drain: end.next_drain,
                ..self
            },
        }
    }
}
