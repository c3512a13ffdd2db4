//! Super-packets: what segmentation or merging leaves together is counted as the wire would carry it.
//!
//! The judge is the kernel's TCP, which counts the segments of every super-packet that it hands down (RFC 4022 `tcpOutSegs` and
//! `tcpRetransSegs`); and the devices, where there are no super-packets.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use flowlog_tests::agent::{
    AgentPlan, AttachMode, Direction, EniPlan, Hook, Outcome, Volume, conserved, volume,
};
use flowlog_tests::lab::traffic::tcp_transfer;
use flowlog_tests::lab::{
    DeviceStats, EndPlan, Namespace, Offload, VethPair, set_offload, skip_unless_root,
};
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};

use crate::support::{LEFT, RIGHT, both_ends, start, stats, stop_after, wire};

/// Payload of the transfers, in octets.
const TRANSFER: u64 = 50_000_000;
const ETHERNET: u64 = 14;
/// Of TCP with timestamps, as Linux sends it.
const TCP: u64 = 32;
/// A SYN has as many octets of options more: MSS, SACK permitted, window scale.
const SYN_OPTIONS: u64 = 8;

/// Octets of an IP header of the address's family.
pub(crate) fn ip_header(address: IpAddr) -> u64 {
    if address.is_ipv4() { 20 } else { 40 }
}

/// Where the right end listens, by IPv4 and by IPv6.
fn servers(pair: &VethPair) -> [SocketAddr; 2] {
    [0, 1].map(|index| SocketAddr::new(pair.right().addresses[index].0, 0))
}

/// A counter of `/proc/net/snmp` in a namespace.
fn snmp(namespace: &Namespace, protocol: &str, name: &str) -> u64 {
    let text = namespace
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))
        .expect("the namespace")
        .expect("its statistics");
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let column = names.split(' ').position(|column| column == name);
    let value = values.split(' ').nth(column.expect("the counter"));
    value.and_then(|text| text.parse().ok()).expect("a number")
}

/// Segments that TCP has sent from a namespace, those sent again included.
pub(crate) fn segments_sent(namespace: &Namespace) -> u64 {
    snmp(namespace, "Tcp", "OutSegs") + snmp(namespace, "Tcp", "RetransSegs")
}

/// A TCP transfer from left to right, captured at both ends.
struct Transfer {
    server: IpAddr,
    outcome: Outcome,
    left: DeviceStats,
    right: DeviceStats,
    segments: u64,
}

fn transfer(pair: &VethPair, plan: &AgentPlan, server: SocketAddr) -> Transfer {
    let (left, right) = (pair.left(), pair.right());
    let before = (stats(left), stats(right), segments_sent(&left.namespace));
    let agent = start(plan);
    let done =
        tcp_transfer(&left.namespace, (&right.namespace, server), TRANSFER).expect("a transfer");
    assert_eq!(done.received, TRANSFER);
    let (left_stats, right_stats) = (stats(left).since(&before.0), stats(right).since(&before.1));
    // Each ENI's counts are at least those of its device, for a super-packet is at least one.
    let expected = [
        (RIGHT, Direction::In, Volume::received(&right_stats)),
        (LEFT, Direction::In, Volume::received(&left_stats)),
    ];
    Transfer {
        server: server.ip(),
        outcome: stop_after(agent, &expected),
        left: left_stats,
        right: right_stats,
        segments: segments_sent(&left.namespace) - before.2,
    }
}

impl Transfer {
    /// What the wire would have carried from left to right: the segments that TCP counted; and the payload that the device
    /// carried, with headers on each segment.
    fn on_the_wire(&self) -> Volume {
        let headers = ip_header(self.server) + TCP;
        let super_packets = self.left.tx_packets;
        let octets = self.left.tx_bytes - super_packets * ETHERNET;
        Volume {
            packets: self.segments,
            bytes: octets + (self.segments - super_packets) * headers,
        }
    }

    /// The least that `TRANSFER` octets take: full segments, SYN, ACK and FIN.
    fn least(&self, mtu: u64) -> Volume {
        let headers = ip_header(self.server) + TCP;
        let packets = TRANSFER.div_ceil(mtu - headers) + 2;
        Volume {
            packets,
            bytes: TRANSFER + packets * headers + SYN_OPTIONS,
        }
    }

    fn count(&self, eni: &str, direction: Direction) -> Volume {
        volume(&self.outcome.records, eni, direction)
    }
}

#[test]
fn offloaded_tcp_counts_as_the_wire_would_carry_it() {
    if skip_unless_root("offloaded_tcp_counts_as_the_wire_would_carry_it") {
        return;
    }
    for (attach, family) in [
        (AttachMode::Auto, 0),
        (AttachMode::Auto, 1),
        (AttachMode::Clsact, 0),
    ] {
        let pair = wire(1500);
        let plan = AgentPlan {
            attach,
            ..both_ends(&pair)
        };
        let transfer = transfer(&pair, &plan, servers(&pair)[family]);
        let case = format!("{attach:?}, {}", transfer.server);
        let (wire, least) = (transfer.on_the_wire(), transfer.least(1500));
        assert!(
            transfer.left.tx_packets * 2 < wire.packets,
            "{case}: nothing was offloaded"
        );
        assert_eq!(transfer.count(LEFT, Direction::Out), wire, "{case}");
        if transfer.left.tx_dropped == 0 {
            assert_eq!(transfer.count(RIGHT, Direction::In), wire, "{case}");
        }
        assert!(
            wire.packets >= least.packets && wire.bytes >= least.bytes,
            "{case}: {wire:?}"
        );
        // Acknowledgements have no payload to be segmented.
        let acks = Volume::sent(&transfer.right);
        assert_eq!(transfer.count(RIGHT, Direction::Out), acks, "{case}");
        assert_eq!(transfer.count(LEFT, Direction::In), acks, "{case}");
    }
}

#[test]
fn tcp_without_offloads_is_exactly_what_the_devices_count() {
    if skip_unless_root("tcp_without_offloads_is_exactly_what_the_devices_count") {
        return;
    }
    for (attach, family) in [
        (AttachMode::Auto, 0),
        (AttachMode::Auto, 1),
        (AttachMode::Clsact, 0),
    ] {
        let pair = wire(1500);
        pair.without_offloads().expect("offloads off");
        let plan = AgentPlan {
            attach,
            ..both_ends(&pair)
        };
        let transfer = transfer(&pair, &plan, servers(&pair)[family]);
        let out = Volume {
            // What the receiver's backlog refused has passed the sender's egress all the same.
            packets: transfer.left.tx_packets + transfer.left.tx_dropped,
            ..transfer.count(LEFT, Direction::Out)
        };
        if transfer.left.tx_dropped == 0 {
            assert_eq!(out, Volume::sent(&transfer.left));
        }
        conserved(
            &transfer.outcome.records,
            &[
                (LEFT, Direction::Out, out),
                (RIGHT, Direction::In, Volume::received(&transfer.right)),
                (RIGHT, Direction::Out, Volume::sent(&transfer.right)),
                (LEFT, Direction::In, Volume::received(&transfer.left)),
            ],
        );
        assert_eq!(out.packets, transfer.segments);
        let least = transfer.least(1500);
        assert!(
            out.packets >= least.packets && out.bytes >= least.bytes,
            "{out:?} for at least {least:?}"
        );
    }
}

/// What a veth received that polls (for XDP, or to merge): it counts octets after it has taken the Ethernet header off.
pub(crate) fn polled(stats: &DeviceStats) -> Volume {
    Volume {
        packets: stats.rx_packets,
        bytes: stats.rx_bytes,
    }
}

#[test]
fn merged_segments_are_counted_one_by_one() {
    if skip_unless_root("merged_segments_are_counted_one_by_one") {
        return;
    }
    for family in [0, 1] {
        let pair = wire(1500);
        let (left, right) = (pair.left(), pair.right());
        // Segments cross the wire one by one, and the receiver merges them before TC ingress.
        let segmenting = [Offload::Tso, Offload::Gso];
        set_offload(&left.namespace, &left.name, &segmenting, false).expect("offloads off");
        set_offload(&right.namespace, &right.name, &[Offload::Gro], true).expect("merging on");
        let transfer = transfer(&pair, &both_ends(&pair), servers(&pair)[family]);
        let received = polled(&transfer.right);
        if family == 0 {
            let merged = snmp(&right.namespace, "Ip", "InReceives");
            assert!(
                merged * 2 < received.packets,
                "nothing was merged: {merged} of {received:?}"
            );
        }
        assert_eq!(transfer.count(RIGHT, Direction::In), received);
        assert_eq!(
            transfer.count(RIGHT, Direction::Out),
            Volume::sent(&transfer.right)
        );
        assert_eq!(
            transfer.count(LEFT, Direction::Out).packets,
            transfer.segments
        );
    }
}

#[test]
fn xdp_counts_tcp_exactly_as_its_device_does() {
    if skip_unless_root("xdp_counts_tcp_exactly_as_its_device_does") {
        return;
    }
    for family in [0, 1] {
        let pair = wire(1500);
        let mut plan = both_ends(&pair);
        for eni in &mut plan.enis {
            eni.hook = Hook::Xdp;
        }
        let transfer = transfer(&pair, &plan, servers(&pair)[family]);
        let acks = polled(&transfer.left);
        assert_eq!(
            transfer.count(RIGHT, Direction::In),
            polled(&transfer.right)
        );
        assert_eq!(transfer.count(LEFT, Direction::In), acks);
        assert_eq!(
            transfer.count(LEFT, Direction::Out).packets,
            transfer.segments
        );
        assert_eq!(transfer.count(RIGHT, Direction::Out), acks);
    }
}

#[test]
fn generic_xdp_counts_super_packets_segment_by_segment() {
    const DEVICE: &str = "macvlan0";
    const ADDRESSES: [&str; 2] = ["10.79.0.", "fd00:79::"];
    if skip_unless_root("generic_xdp_counts_super_packets_segment_by_segment") {
        return;
    }
    for (family, prefix) in ADDRESSES.into_iter().enumerate() {
        let pair = wire(1500);
        let (left, right) = (pair.left(), pair.right());
        let ip = |end: &EndPlan, text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            end.namespace.ip(&words).expect("a macvlan device");
        };
        // Its driver has no XDP of its own.
        ip(
            right,
            &format!("link add {DEVICE} link right0 address 02:f1:00:00:02:02 type macvlan"),
        );
        ip(right, &format!("link set {DEVICE} arp off up"));
        for (end, device, host, peer, mac) in [
            (left, "left0", 1, 2, "02:f1:00:00:02:02"),
            (right, DEVICE, 2, 1, "02:f1:00:00:00:01"),
        ] {
            let length = [24, 64][family];
            ip(
                end,
                &format!("address add {prefix}{host}/{length} dev {device} nodad"),
            );
            ip(
                end,
                &format!(
                    "neighbour replace {prefix}{peer} lladdr {mac} dev {device} nud permanent"
                ),
            );
        }
        let mut plan = both_ends(&pair);
        plan.enis[1] = EniPlan::device(RIGHT, &right.namespace, DEVICE);
        plan.enis[1].hook = Hook::Xdp;
        let server = SocketAddr::new(format!("{prefix}2").parse().expect("an address"), 0);
        let transfer = transfer(&pair, &plan, server);
        let wire = transfer.on_the_wire();
        assert!(transfer.outcome.stderr.contains("ingress by xdp generic"));
        assert!(
            transfer.left.tx_packets * 2 < wire.packets,
            "nothing was offloaded"
        );
        assert_eq!(transfer.left.tx_dropped, 0, "the wire lost packets");
        assert_eq!(transfer.count(RIGHT, Direction::In), wire);
    }
}

/// Sends each payload in one call from left to right, to be cut into datagrams of `segment` octets of payload.
fn send_segmented(pair: &VethPair, server: SocketAddr, segment: u16, payloads: &[usize]) {
    let (left, right): (&EndPlan, &EndPlan) = (pair.left(), pair.right());
    let bind = |end: &EndPlan, address: SocketAddr| {
        end.namespace
            .enter(|| UdpSocket::bind(address))
            .expect("the namespace")
            .expect("a socket")
    };
    let there = bind(right, server);
    let family = usize::from(server.is_ipv6());
    let here = bind(left, SocketAddr::new(left.addresses[family].0, 0));
    setsockopt(&here, sockopt::UdpGsoSegment, &i32::from(segment)).expect("UDP_SEGMENT");
    let to = SockaddrStorage::from(there.local_addr().expect("an address"));
    for &payload in payloads {
        let octets = vec![0x5a; payload];
        let sent = sendmsg(
            here.as_raw_fd(),
            &[IoSlice::new(&octets)],
            &[],
            MsgFlags::empty(),
            Some(&to),
        );
        assert_eq!(sent, Ok(payload));
    }
}

#[test]
fn segmented_udp_is_exact() {
    const SEGMENT: u16 = 1000;
    /// Less than a segment, whole ones, and whole ones with a rest.
    const PAYLOADS: [usize; 7] = [500, 1000, 1001, 2000, 9999, 50_000, 60_001];
    if skip_unless_root("segmented_udp_is_exact") {
        return;
    }
    let packets: u64 = PAYLOADS
        .iter()
        .map(|&payload| payload.div_ceil(1000) as u64)
        .sum();
    let payload: u64 = PAYLOADS.iter().map(|&payload| payload as u64).sum();
    for (offloads, hook, family) in [
        (true, Hook::Tc, 0),
        (true, Hook::Tc, 1),
        (false, Hook::Tc, 1),
        (true, Hook::Xdp, 0),
    ] {
        let pair = wire(1500);
        if !offloads {
            pair.without_offloads().expect("offloads off");
        }
        let mut plan = both_ends(&pair);
        plan.enis[1].hook = hook;
        let agent = start(&plan);
        let server = servers(&pair)[family];
        send_segmented(&pair, server, SEGMENT, &PAYLOADS);
        let crossed = stats(pair.left()).tx_packets;
        assert_eq!(
            crossed < packets,
            offloads && hook == Hook::Tc,
            "{crossed} packets crossed"
        );
        let expected = Volume {
            packets,
            bytes: payload + packets * (ip_header(server.ip()) + 8),
        };
        let expected = [
            (LEFT, Direction::Out, expected),
            (RIGHT, Direction::In, expected),
        ];
        conserved(&stop_after(agent, &expected).records, &expected);
    }
}
