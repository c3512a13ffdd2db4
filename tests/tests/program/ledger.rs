//! What is in one generation of counters: as the kernel has it, or as it must be.
use std::{collections::BTreeMap, fmt::Debug, net::IpAddr};

use flowlog_agent::bpf::{Counters, Still};
use flowlog_common::{
    ACTION_ACCEPT, DECIDED_BY_NOTHING, EniCounters, FlowCounters, FlowKeyV4, FlowKeyV6, FlowMarks,
    ORIGIN_PROGRAM, Volume,
};
use flowlog_tests::packets::oracle::{Flow, Reading};

/// Differences that are told one by one.
const MAX_TOLD: usize = 8;

/// One generation's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) v4: BTreeMap<FlowKeyV4, FlowCounters>,
    pub(crate) v6: BTreeMap<FlowKeyV6, FlowCounters>,
    /// What is beside the flows, by slot and direction. None is all zeros.
    pub(crate) aside: BTreeMap<(u32, u8), EniCounters>,
}

impl Ledger {
    /// Adds a frame that crossed an ENI. `aside_octets` are counted where it is in no flow.
    pub(crate) fn add(&mut self, slot: u32, direction: u8, reading: Reading, aside_octets: u64) {
        let aside = Volume {
            packets: 1,
            bytes: aside_octets,
        };
        match reading {
            Reading::Flow(flow) => self.add_flow(slot, direction, &flow),
            Reading::NotIp => add(&mut self.aside(slot, direction).not_ip, aside),
            Reading::Unparsable => add(&mut self.aside(slot, direction).unparsable, aside),
        }
    }

    fn add_flow(&mut self, eni: u32, direction: u8, flow: &Flow) {
        let (src_port, dst_port) = (flow.sport.to_be_bytes(), flow.dport.to_be_bytes());
        let (protocol, action, origin) = (flow.protocol, ACTION_ACCEPT, ORIGIN_PROGRAM);
        let counters = match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self
                .v4
                .entry(FlowKeyV4 {
                    eni,
                    src_addr: src.octets(),
                    dst_addr: dst.octets(),
                    src_port,
                    dst_port,
                    protocol,
                    direction,
                    action,
                    origin,
                })
                .or_default(),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self
                .v6
                .entry(FlowKeyV6 {
                    eni,
                    src_addr: src.octets(),
                    dst_addr: dst.octets(),
                    src_port,
                    dst_port,
                    protocol,
                    direction,
                    action,
                    origin,
                })
                .or_default(),
            addresses => panic!("a packet from one family to the other: {addresses:?}"),
        };
        counters.packets += 1;
        counters.bytes += flow.ip_octets;
        let marks = FlowMarks::new(flow.tcp_flags, DECIDED_BY_NOTHING);
        counters.marks = counters.marks.merged(marks);
    }

    /// Adds what a super-packet whose segments are so many packets in flows is beyond the one frame that carried it.
    pub(crate) fn add_extra_segments(&mut self, slot: u32, direction: u8, packets: u64) {
        if packets > 1 {
            self.aside(slot, direction).extra_segments += packets - 1;
        }
    }

    fn aside(&mut self, slot: u32, direction: u8) -> &mut EniCounters {
        self.aside.entry((slot, direction)).or_default()
    }

    /// Reads all of a still generation. A flow that is read twice is a failure.
    pub(crate) fn read(counters: &Counters, still: &Still) -> Self {
        let mut ledger = Self::default();
        let read = counters.read_v4(still, |keys, values| put(&mut ledger.v4, keys, values));
        read.expect("the IPv4 flows");
        let read = counters.read_v6(still, |keys, values| put(&mut ledger.v6, keys, values));
        read.expect("the IPv6 flows");
        let enis = counters.read_enis(still).expect("the ENIs' counters");
        for (index, counters) in (0..).zip(enis) {
            if counters != EniCounters::default() {
                ledger
                    .aside
                    .insert((index / 2, (index % 2) as u8), counters);
            }
        }
        ledger
    }

    /// IPv4 and IPv6 flows.
    pub(crate) fn flows(&self) -> (u64, u64) {
        (self.v4.len() as u64, self.v6.len() as u64)
    }

    /// Packets and octets of everything, in flows and in none.
    pub(crate) fn total(&self) -> Volume {
        let mut total = Volume::default();
        for counters in self.v4.values().chain(self.v6.values()) {
            let FlowCounters { packets, bytes, .. } = *counters;
            add(&mut total, Volume { packets, bytes });
        }
        for counters in self.aside.values() {
            let EniCounters {
                map_full,
                unparsable,
                not_ip,
                ..
            } = *counters;
            for volume in [map_full, unparsable, not_ip] {
                add(&mut total, volume);
            }
        }
        total
    }

    /// Frames that carried what is counted: a super-packet is one.
    pub(crate) fn frames(&self) -> u64 {
        let extra: u64 = self.aside.values().map(|aside| aside.extra_segments).sum();
        self.total().packets - extra
    }

    /// How the kernel's ledger is not what it must be.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let mut told = differences(&self.v4, &found.v4);
        told.extend(differences(&self.v6, &found.v6));
        told.extend(differences(&self.aside, &found.aside));
        let others = told.len().saturating_sub(MAX_TOLD);
        told.truncate(MAX_TOLD);
        if others > 0 {
            told.push(format!("and {others} others"));
        }
        told
    }
}

fn add(sum: &mut Volume, volume: Volume) {
    sum.packets += volume.packets;
    sum.bytes += volume.bytes;
}

fn put<K: Copy + Debug + Ord>(
    flows: &mut BTreeMap<K, FlowCounters>,
    keys: &[K],
    values: &[FlowCounters],
) {
    for (key, counters) in keys.iter().zip(values) {
        assert!(
            flows.insert(*key, *counters).is_none(),
            "{key:?} is there twice"
        );
    }
}

fn differences<K: Ord + Debug, V: PartialEq + Debug>(
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Vec<String> {
    let missing = expected
        .iter()
        .filter_map(|(key, must)| match found.get(key) {
            Some(is) if is == must => None,
            Some(is) => Some(format!("{key:?}: {is:?} is counted, not {must:?}")),
            None => Some(format!("{key:?}: not counted, and must be {must:?}")),
        });
    let others = found.iter().filter(|(key, _)| !expected.contains_key(key));
    missing
        .chain(others.map(|(key, is)| format!("{key:?}: {is:?} is counted, and must not be")))
        .collect()
}
