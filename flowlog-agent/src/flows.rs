//! Flows in user space: as drained from the kernel, sorted by key, and merged.
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

impl<K: FlowKey> Run<K> {
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

    /// The flows, to be added to.
    #[must_use]
    pub fn into_flows(self) -> Vec<Flow<K>> {
        self.0
    }
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

    fn sorted(flows: &BTreeMap<u32, u64>) -> Vec<Flow<FlowKeyV4>> {
        flows
            .iter()
            .map(|(eni, packets)| flow(*eni, *packets))
            .collect()
    }

    fn merged(maps: &[BTreeMap<u32, u64>]) -> Vec<Flow<FlowKeyV4>> {
        merge_sorted(maps.iter().map(|map| sorted(map).into_iter())).collect()
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
            let merged: Vec<_> = merged(&maps).iter().map(|f| (f.key.eni, f.packets)).collect();
            prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn flows_of_any_order_and_number_add_up_by_key(maps in runs()) {
            let flows = maps.iter().flatten().map(|(eni, packets)| flow(*eni, *packets)).collect();
            prop_assert_eq!(Run::from_any(flows).into_flows(), merged(&maps));
        }
    }
}
