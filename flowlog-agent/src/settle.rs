//! Settling: what netfilter made of a flow's packets, put together with what the ENI's program counted of them.
//!
//! The program counts a packet at ingress before netfilter sees it, and at egress after. So what netfilter drops at ingress was counted as
//! accepted, mostly; a flow of origin [`ORIGIN_NETFILTER_AFTER`] says how many packets of it are rejected. What it drops before egress
//! nobody else has counted: those are flows of [`ORIGIN_NETFILTER_BEFORE`]. Of each flow in a window there are so
//!
//! ```text
//! turned   = the least of what netfilter dropped afterwards and what was accepted
//! ACCEPT   = accepted - turned
//! REJECT   = rejected by the security groups + turned + dropped by netfilter before
//! ```
//!
//! and no packet is made or lost by it, whatever the numbers are. What was dropped and is in no accepted flow of the window was counted in
//! the window before: between the program and the firewall a packet may wait in a queue while the window ends. It stays ACCEPT there.
use flowlog_common::{
    ACTION_REJECT, DECIDED_BY_NETFILTER, FlowMarks, ORIGIN_NETFILTER_AFTER,
    ORIGIN_NETFILTER_BEFORE, Volume,
};

use crate::flows::{Flow, FlowKey};

/// What became of the packets of one flow in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled<K> {
    /// Their key, as if they were accepted.
    pub key: K,
    /// Accepted; none if there are no such packets.
    pub accepted: Option<Verdict>,
    /// Rejected; none if there are no such packets.
    pub rejected: Option<Verdict>,
    /// What netfilter dropped of packets that are in no flow of the window, and so are not among these.
    pub excess: Volume,
}

/// Packets with one verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many.
    pub volume: Volume,
    /// TCP flags, and what decided.
    pub marks: FlowMarks,
}

impl Verdict {
    fn add(&mut self, volume: Volume, marks: FlowMarks) {
        self.volume.packets = self.volume.packets.saturating_add(volume.packets);
        self.volume.bytes = self.volume.bytes.saturating_add(volume.bytes);
        self.marks = self.marks.merged(marks);
    }

    /// With its packets, or none if there are none.
    fn if_any(self) -> Option<Self> {
        (self.volume.packets > 0).then_some(self)
    }
}

/// Settles flows in order of their keys, each key once.
pub fn settled<K: FlowKey>(
    flows: impl Iterator<Item = Flow<K>>,
) -> impl Iterator<Item = Settled<K>> {
    let mut flows = flows.peekable();
    std::iter::from_fn(move || {
        let first = flows.next()?;
        let mut group = Group::new(&first);
        while let Some(next) = flows.next_if(|next| next.key.accepted() == group.key) {
            group.add(&next);
        }
        Some(group.settled())
    })
}

/// What was counted of one flow, by verdict and by who counted.
struct Group<K> {
    key: K,
    accepted: Verdict,
    /// By the security groups.
    rejected: Verdict,
    /// By netfilter, after the program counted them.
    after: Verdict,
    /// By netfilter, before the program could count them.
    before: Verdict,
}

impl<K: FlowKey> Group<K> {
    fn new(first: &Flow<K>) -> Self {
        let nothing = Verdict::default();
        let mut group = Self {
            key: first.key.accepted(),
            accepted: nothing,
            rejected: nothing,
            after: nothing,
            before: nothing,
        };
        group.add(first);
        group
    }

    fn add(&mut self, flow: &Flow<K>) {
        let verdict = match (flow.key.origin(), flow.key.action()) {
            (ORIGIN_NETFILTER_AFTER, _) => &mut self.after,
            (ORIGIN_NETFILTER_BEFORE, _) => &mut self.before,
            (_, ACTION_REJECT) => &mut self.rejected,
            _ => &mut self.accepted,
        };
        let (packets, bytes) = (flow.packets, flow.bytes);
        verdict.add(Volume { packets, bytes }, flow.marks);
    }

    fn settled(mut self) -> Settled<K> {
        let turned = self.turned();
        let excess = minus(self.after.volume, turned);
        self.accepted.volume = minus(self.accepted.volume, turned);
        let mut rejected = self.rejected;
        for (volume, marks) in [
            (turned, self.after.marks),
            (self.before.volume, self.before.marks),
        ] {
            if volume.packets > 0 {
                rejected.add(volume, marks);
            }
        }
        // Where the security groups rejected some, their decision is the flow's.
        let decided_by = if self.rejected.volume.packets > 0 {
            self.rejected.marks.decided_by()
        } else {
            DECIDED_BY_NETFILTER
        };
        rejected.marks = FlowMarks::new(rejected.marks.tcp_flags(), decided_by);
        Settled {
            key: self.key,
            accepted: self.accepted.if_any(),
            rejected: rejected.if_any(),
            excess: if excess.packets > 0 {
                excess
            } else {
                Volume::default()
            },
        }
    }

    /// What was counted as accepted and is rejected: of all packets, all octets, so that neither is left without the other.
    fn turned(&self) -> Volume {
        let (accepted, after) = (self.accepted.volume, self.after.volume);
        if after.packets >= accepted.packets {
            return accepted;
        }
        Volume {
            packets: after.packets,
            bytes: after.bytes.min(accepted.bytes),
        }
    }
}

fn minus(a: Volume, b: Volume) -> Volume {
    Volume {
        packets: a.packets.saturating_sub(b.packets),
        bytes: a.bytes.saturating_sub(b.bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flowlog_common::{
        ACTION_ACCEPT, DECIDED_BY_DEFAULT, DECIDED_BY_FIRST_RULE, FlowKeyV4, ORIGIN_PROGRAM,
    };
    use proptest::prelude::*;

    use super::*;

    /// Packets by host, as accepted, rejected, dropped after and dropped before.
    type Counted = BTreeMap<u8, [u64; 4]>;

    const VERDICTS: [(u8, u8); 4] = [
        (ACTION_ACCEPT, ORIGIN_PROGRAM),
        (ACTION_REJECT, ORIGIN_PROGRAM),
        (ACTION_REJECT, ORIGIN_NETFILTER_AFTER),
        (ACTION_REJECT, ORIGIN_NETFILTER_BEFORE),
    ];

    fn key(host: u8) -> FlowKeyV4 {
        FlowKeyV4 {
            src_addr: [10, 0, 0, host],
            direction: host % 2,
            ..FlowKeyV4::default()
        }
    }

    fn flow(host: u8, verdict: usize, packets: u64, bytes: u64) -> Flow<FlowKeyV4> {
        let (action, origin) = VERDICTS[verdict];
        let decided_by = match verdict {
            0 => DECIDED_BY_FIRST_RULE + 1,
            1 => DECIDED_BY_DEFAULT,
            _ => DECIDED_BY_NETFILTER,
        };
        Flow {
            key: FlowKeyV4 {
                action,
                origin,
                ..key(host)
            },
            marks: FlowMarks::new(1 << verdict, decided_by),
            packets,
            bytes,
        }
    }

    fn flows(counted: &Counted) -> Vec<Flow<FlowKeyV4>> {
        let mut flows: Vec<_> = counted
            .iter()
            .flat_map(|(host, packets)| {
                (0..)
                    .zip(packets)
                    .map(|(verdict, packets)| flow(*host, verdict, *packets, packets * 100))
            })
            .filter(|flow| flow.packets > 0)
            .collect();
        flows.sort_by_key(|flow| flow.key);
        flows
    }

    fn counted() -> impl Strategy<Value = Counted> {
        let packets = prop_oneof![Just(0), 0..20_u64];
        prop::collection::btree_map(
            0..20_u8,
            [packets.clone(), packets.clone(), packets.clone(), packets],
            0..20,
        )
    }

    /// Packet by packet: each that was dropped afterwards takes one that was accepted, if there is one left.
    fn naive([mut accepted, rejected, after, before]: [u64; 4]) -> [u64; 3] {
        let (mut turned, mut excess) = (0, 0);
        for _ in 0..after {
            if accepted > 0 {
                accepted -= 1;
                turned += 1;
            } else {
                excess += 1;
            }
        }
        [accepted, rejected + turned + before, excess]
    }

    fn packets(verdict: Option<Verdict>) -> u64 {
        verdict.map_or(0, |verdict| verdict.volume.packets)
    }

    proptest! {
        #[test]
        fn each_packet_is_settled_once(counted in counted()) {
            let settled: Vec<_> = settled(flows(&counted).into_iter()).collect();
            let expected: Vec<_> = counted
                .iter()
                .filter(|(_, packets)| packets.iter().any(|packets| *packets > 0))
                .map(|(host, packets)| (key(*host), naive(*packets)))
                .collect();
            let mut got: Vec<_> = settled
                .iter()
                .map(|of| (of.key, [packets(of.accepted), packets(of.rejected), of.excess.packets]))
                .collect();
            got.sort_by_key(|(key, _)| key.src_addr);
            prop_assert_eq!(got, expected);
            for of in &settled {
                // Each had 100 octets here, so each keeps them.
                for verdict in [of.accepted, of.rejected].into_iter().flatten() {
                    prop_assert_eq!(verdict.volume.bytes, verdict.volume.packets * 100);
                }
            }
        }

        #[test]
        fn packets_and_octets_are_as_many_before_and_after(of in any::<[(u32, u32); 4]>()) {
            let flows: Vec<_> = (0..)
                .zip(of)
                .map(|(verdict, (packets, bytes))| flow(1, verdict, packets.into(), bytes.into()))
                .filter(|flow| flow.packets > 0)
                .collect();
            let mut before = Volume::default();
            for flow in flows.iter().filter(|flow| flow.key.origin != ORIGIN_NETFILTER_AFTER) {
                before.packets += flow.packets;
                before.bytes += flow.bytes;
            }
            let mut after = Volume::default();
            for of in settled(flows.into_iter()) {
                for verdict in [of.accepted, of.rejected].into_iter().flatten() {
                    after.packets += verdict.volume.packets;
                    after.bytes += verdict.volume.bytes;
                    prop_assert!(verdict.volume.packets > 0);
                }
            }
            prop_assert_eq!(after, before);
        }
    }

    fn only(flows: Vec<Flow<FlowKeyV4>>) -> Settled<FlowKeyV4> {
        let settled: Vec<_> = settled(flows.into_iter()).collect();
        assert_eq!(settled.len(), 1);
        settled[0]
    }

    #[test]
    fn the_groups_decision_names_the_rule_and_netfilter_what_is_its_alone() {
        let marks = |verdict: Option<Verdict>| {
            verdict.map(|verdict| (verdict.marks.tcp_flags(), verdict.marks.decided_by()))
        };
        let of = only(vec![
            flow(1, 0, 5, 500),
            flow(1, 2, 3, 300),
            flow(1, 3, 1, 100),
        ]);
        assert_eq!(
            marks(of.accepted),
            Some((0b0001, DECIDED_BY_FIRST_RULE + 1))
        );
        assert_eq!(marks(of.rejected), Some((0b1100, DECIDED_BY_NETFILTER)));
        let of = only(vec![
            flow(1, 0, 5, 500),
            flow(1, 1, 2, 200),
            flow(1, 2, 5, 500),
        ]);
        assert_eq!(of.accepted, None);
        assert_eq!(marks(of.rejected), Some((0b0110, DECIDED_BY_DEFAULT)));
    }

    #[test]
    fn what_was_counted_in_another_window_turns_nothing() {
        let of = only(vec![flow(1, 2, 3, 300)]);
        assert_eq!((of.accepted, of.rejected), (None, None));
        assert_eq!((of.excess.packets, of.excess.bytes), (3, 300));
    }
}
