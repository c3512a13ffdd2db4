//! Flows in user space: as drained from the kernel, sorted by key, and merged.
use std::cmp::Ordering;

use flowlog_common::{
    ACTION_ACCEPT, DIRECTION_OUT, FlowCounters, FlowKeyV4, FlowKeyV6, FlowMarks, ORIGIN_PROGRAM,
    Volume,
};
use itertools::Itertools as _;
use serde::{Deserialize, Serialize};

/// What a flow's key tells, whichever family it is of.
pub trait FlowKey: Copy + Ord {
    /// Slot of the ENI.
    fn slot(&self) -> u32;
    /// [`flowlog_common::DIRECTION_IN`] or [`DIRECTION_OUT`].
    fn direction(&self) -> u8;
    /// [`ACTION_ACCEPT`] or [`flowlog_common::ACTION_REJECT`].
    fn action(&self) -> u8;
    /// Who counted: one of `flowlog_common::ORIGIN_…`.
    fn origin(&self) -> u8;
    /// The key of the same packets if they are accepted, which is less than those of the other verdicts on them.
    #[must_use]
    fn accepted(self) -> Self;
}

macro_rules! flow_key {
    ($($key:ty),+) => {$(
        impl FlowKey for $key {
            fn slot(&self) -> u32 {
                self.eni
            }

            fn direction(&self) -> u8 {
                self.direction
            }

            fn action(&self) -> u8 {
                self.action
            }

            fn origin(&self) -> u8 {
                self.origin
            }

            fn accepted(self) -> Self {
                Self {
                    action: ACTION_ACCEPT,
                    origin: ORIGIN_PROGRAM,
                    ..self
                }
            }
        }
    )+};
}

flow_key!(FlowKeyV4, FlowKeyV6);

/// A flow and what was counted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<K> {
    /// What identifies it.
    pub key: K,
    /// TCP flags, and what decided.
    pub marks: FlowMarks,
    /// Packets as on the wire.
    pub packets: u64,
    /// Octets of the IP datagrams.
    pub bytes: u64,
}

impl<K: FlowKey> Flow<K> {
    /// From what the kernel counted.
    #[must_use]
    pub fn new(key: K, counters: &FlowCounters) -> Self {
        Self {
            key,
            marks: counters.marks,
            packets: counters.packets,
            bytes: counters.bytes,
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.marks = self.marks.merged(other.marks);
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Flows sorted by key, each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<K>(Vec<Flow<K>>);

impl<K> Default for Run<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: FlowKey> Run<K> {
    /// Sorts flows of which no two have the same key.
    #[must_use]
    pub fn from_distinct(mut flows: Vec<Flow<K>>) -> Self {
        flows.sort_unstable_by_key(|flow| flow.key);
        Self(flows)
    }

    /// Sorts flows and adds those of the same key together.
    #[must_use]
    pub fn from_any(mut flows: Vec<Flow<K>>) -> Self {
        flows.sort_unstable_by_key(|flow| flow.key);
        flows.dedup_by(|later, first| {
            let same = later.key == first.key;
            if same {
                first.absorb(later);
            }
            same
        });
        Self(flows)
    }

    /// The flows.
    #[must_use]
    pub fn flows(&self) -> &[Flow<K>] {
        &self.0
    }

    /// The flows, to be added to.
    #[must_use]
    pub fn into_flows(self) -> Vec<Flow<K>> {
        self.0
    }

    /// Adds the flows of `newer`. No more than `limit` flows are kept: those that have no place are given to `skip`, each once,
    /// and a flow that is here already always has one.
    #[must_use]
    pub fn merged(&self, newer: &Self, limit: usize, mut skip: impl FnMut(&Flow<K>)) -> Self {
        let mut room = limit.saturating_sub(self.0.len());
        let mut merged =
            Vec::with_capacity((self.0.len() + newer.0.len()).min(limit.max(self.0.len())));
        let (mut old, mut new) = (self.0.iter().peekable(), newer.0.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(a), Some(b)) => a.key.cmp(&b.key),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Self(merged),
            };
            match order {
                Ordering::Less => merged.extend(old.next().copied()),
                Ordering::Equal => {
                    if let (Some(a), Some(b)) = (old.next(), new.next()) {
                        let mut flow = *a;
                        flow.absorb(b);
                        merged.push(flow);
                    }
                }
                Ordering::Greater => {
                    if let Some(flow) = new.next() {
                        if room > 0 {
                            room -= 1;
                            merged.push(*flow);
                        } else {
                            skip(flow);
                        }
                    }
                }
            }
        }
    }
}

/// The flows of several runs, in order of their keys, each key once.
pub fn merge<'r, K: FlowKey + 'r>(
    runs: impl IntoIterator<Item = &'r Run<K>>,
) -> impl Iterator<Item = Flow<K>> {
    merge_sorted(runs.into_iter().map(|run| run.0.iter().copied()))
}

/// The flows of several streams, each in order of its keys: in that order, each key once.
pub fn merge_sorted<K: FlowKey>(
    streams: impl IntoIterator<Item = impl Iterator<Item = Flow<K>>>,
) -> impl Iterator<Item = Flow<K>> {
    streams
        .into_iter()
        .kmerge_by(|a, b| a.key < b.key)
        .coalesce(|mut a, b| {
            if a.key == b.key {
                a.absorb(&b);
                Ok(a)
            } else {
                Err((a, b))
            }
        })
}

/// Packets and octets by direction, of one ENI. As JSON: packets and octets `in`, packets and octets `out`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct ByDirection {
    /// [`flowlog_common::DIRECTION_IN`].
    pub r#in: Volume,
    /// [`DIRECTION_OUT`].
    pub out: Volume,
}

impl ByDirection {
    /// The volume of a direction.
    pub fn of_mut(&mut self, direction: u8) -> &mut Volume {
        if direction == DIRECTION_OUT {
            &mut self.out
        } else {
            &mut self.r#in
        }
    }

    /// Adds to a direction.
    pub fn add(&mut self, direction: u8, packets: u64, bytes: u64) {
        let volume = self.of_mut(direction);
        volume.packets = volume.packets.saturating_add(packets);
        volume.bytes = volume.bytes.saturating_add(bytes);
    }

    /// What `other` has less, by direction; nothing where it has more.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let minus = |a: Volume, b: Volume| Volume {
            packets: a.packets.saturating_sub(b.packets),
            bytes: a.bytes.saturating_sub(b.bytes),
        };
        Self {
            r#in: minus(self.r#in, other.r#in),
            out: minus(self.out, other.out),
        }
    }
}

impl From<[u64; 4]> for ByDirection {
    fn from([packets_in, bytes_in, packets_out, bytes_out]: [u64; 4]) -> Self {
        let volume = |packets, bytes| Volume { packets, bytes };
        Self {
            r#in: volume(packets_in, bytes_in),
            out: volume(packets_out, bytes_out),
        }
    }
}

impl From<ByDirection> for [u64; 4] {
    fn from(ByDirection { r#in, out }: ByDirection) -> Self {
        [r#in.packets, r#in.bytes, out.packets, out.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn flow(eni: u32, packets: u64) -> Flow<FlowKeyV4> {
        Flow {
            key: FlowKeyV4 {
                eni,
                ..FlowKeyV4::default()
            },
            marks: FlowMarks::new(1 << (packets % 8), packets as u32),
            packets,
            bytes: packets * 100,
        }
    }

    fn run(flows: &BTreeMap<u32, u64>) -> Run<FlowKeyV4> {
        Run::from_distinct(
            flows
                .iter()
                .rev()
                .map(|(eni, packets)| flow(*eni, *packets))
                .collect(),
        )
    }

    fn runs() -> impl Strategy<Value = Vec<BTreeMap<u32, u64>>> {
        prop::collection::vec(
            prop::collection::btree_map(0..50_u32, 1..1000_u64, 0..40),
            0..6,
        )
    }

    proptest! {
        #[test]
        fn merging_runs_adds_up_by_key(maps in runs()) {
            let mut expected = BTreeMap::new();
            for (eni, packets) in maps.iter().flatten() {
                *expected.entry(*eni).or_insert(0) += packets;
            }
            let runs: Vec<_> = maps.iter().map(run).collect();
            let merged: Vec<_> = merge(&runs).map(|f| (f.key.eni, f.packets)).collect();
            prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn flows_of_any_order_and_number_add_up_by_key(maps in runs()) {
            let flows = maps.iter().flatten().map(|(eni, packets)| flow(*eni, *packets)).collect();
            let runs: Vec<_> = maps.iter().map(run).collect();
            prop_assert_eq!(Run::from_any(flows).into_flows(), merge(&runs).collect::<Vec<_>>());
        }

        #[test]
        fn what_a_bounded_merge_skips_and_keeps_is_all_there_was(maps in runs(), limit in 0..60_usize) {
            let total: u64 = maps.iter().flat_map(BTreeMap::values).sum();
            let mut skipped = 0;
            let merged = maps.iter().map(run).fold(Run::default(), |sum, next| sum.merged(&next, limit, |f| skipped += f.packets));
            let kept: u64 = merged.flows().iter().map(|f| f.packets).sum();
            prop_assert_eq!(kept + skipped, total);
            prop_assert!(merged.flows().len() <= limit);
            prop_assert!(merged.flows().is_sorted_by(|a, b| a.key < b.key));
        }
    }
}
