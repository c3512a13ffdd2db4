//! From a port to a class, by binary search.
use std::collections::BTreeMap;

use super::vector::{Class, Classes, Vector};
use crate::security_group::PortRange;

/// Halvings of a binary search. There are at most 2,001 intervals: a rule begins one and ends one.
const STEPS: u32 = 11;

/// The class of each port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTable {
    /// The first port of each interval and its class, in order. The first interval begins at 0.
    intervals: Vec<(u16, Class)>,
}

impl PortTable {
    /// A table in which each port leads to the outcomes whose range it is in.
    pub(super) fn new(
        ranges: impl Iterator<Item = (usize, PortRange)>,
        classes: &mut Classes,
    ) -> Self {
        // The outcomes whose range begins at a port, and those whose range ended before it.
        let mut edges: BTreeMap<u16, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        edges.entry(0).or_default();
        for (outcome, range) in ranges {
            edges.entry(range.first()).or_default().0.push(outcome);
            if let Some(next) = range.last().checked_add(1) {
                edges.entry(next).or_default().1.push(outcome);
            }
        }
        let mut current = Vector::default();
        let intervals = edges.into_iter().map(|(port, (begin, end))| {
            end.into_iter().for_each(|outcome| current.remove(outcome));
            begin
                .into_iter()
                .for_each(|outcome| current.insert(outcome));
            (port, classes.of(current))
        });
        Self {
            intervals: intervals.collect(),
        }
    }

    /// The class of a port, by as many steps whatever there is to find: the kernel's verifier unrolls them.
    pub(super) fn look_up(&self, port: u16) -> Class {
        let mut found = 0;
        for step in (0..STEPS).rev() {
            let next = found + (1 << step);
            if self
                .intervals
                .get(next)
                .is_some_and(|(first, _)| *first <= port)
            {
                found = next;
            }
        }
        self.intervals.get(found).map_or(0, |(_, class)| *class)
    }

    /// The first port of each interval and its class, in order. The first interval begins at 0.
    #[must_use]
    pub fn intervals(&self) -> &[(u16, Class)] {
        &self.intervals
    }
}
