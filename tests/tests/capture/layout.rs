//! How a packet lies in memory does not matter.

use flowlog_tests::agent::{AgentPlan, AttachMode, Direction, Hook, Volume, conserved, volume};
use flowlog_tests::lab::{FrameSender, skip_unless_root};
use flowlog_tests::packets::build::{
    self, Extension, IPV4, IPV6, Piece, ethernet, etherparse_frame, tagged,
};
use flowlog_tests::packets::oracle::{Flow, Reading, read_alone};

use crate::support::{LEFT, RIGHT, both_ends, start, stop_after, wire};

const MTU: u32 = 9000;
/// Payload that makes a frame longer than a page of memory, with whatever headers.
const PAYLOAD: usize = 6000;

/// Frames of which the kernel keeps only the Ethernet header in the linear part: net/packet/af_packet.c does so
/// (`packet_alloc_skb`) with all that are longer than a page. Everything from the IP header on then lies in fragments.
fn paged_frames() -> Vec<(&'static str, Vec<u8>)> {
    let payload = vec![0x5a; PAYLOAD];
    let udp = build::udp(&payload);
    let tcp = build::tcp(0x12, &payload);
    let options = [7, 39, 4].repeat(13);
    let chain = [
        Extension::Plain(build::HOP_BY_HOP, 3),
        Extension::Plain(build::ROUTING, 2),
        Extension::Auth(4),
        Extension::Plain(build::DESTINATION, 200),
    ];
    let first = Piece {
        id: 0x7001,
        offset: 0,
        more: true,
    };
    let later = Piece {
        id: 0x7001,
        offset: 1000,
        more: false,
    };
    let fragment = |piece| build::ipv6(&[Extension::Fragment(piece)], 17, &udp);
    vec![
        ("udp over IPv4", etherparse_frame(false, false, &payload)),
        ("tcp over IPv4", etherparse_frame(false, true, &payload)),
        ("udp over IPv6", etherparse_frame(true, false, &payload)),
        ("tcp over IPv6", etherparse_frame(true, true, &payload)),
        (
            "IPv4 options",
            ethernet(IPV4, &build::ipv4(6, &options, Piece::default(), &tcp)),
        ),
        (
            "IPv6 extension headers",
            ethernet(IPV6, &build::ipv6(&chain, 6, &tcp)),
        ),
        (
            "two tags",
            tagged(
                &[(0x88a8, 200), (0x8100, 100)],
                IPV4,
                &build::plain_ipv4(17, &udp),
            ),
        ),
        (
            "IPv4 first fragment",
            ethernet(IPV4, &build::ipv4(17, &[], first, &udp)),
        ),
        (
            "IPv4 later fragment",
            ethernet(IPV4, &build::ipv4(17, &[], later, &udp)),
        ),
        ("IPv6 first fragment", ethernet(IPV6, &fragment(first))),
        ("IPv6 later fragment", ethernet(IPV6, &fragment(later))),
        (
            "another protocol",
            ethernet(IPV4, &build::plain_ipv4(47, &payload)),
        ),
    ]
}

#[test]
fn headers_outside_the_linear_part_are_read() {
    if skip_unless_root("headers_outside_the_linear_part_are_read") {
        return;
    }
    for (attach, hook) in [
        (AttachMode::Auto, Hook::Tc),
        (AttachMode::Clsact, Hook::Tc),
        (AttachMode::Auto, Hook::Xdp),
    ] {
        let pair = wire(MTU);
        let mut plan = AgentPlan {
            attach,
            ..both_ends(&pair)
        };
        plan.enis[1].hook = hook;
        let agent = start(&plan);
        let mut sender =
            FrameSender::open(&pair.left().namespace, &pair.left().name).expect("a sender");
        let (mut sent, mut flows) = (Volume::default(), Vec::new());
        let mut oracle = flowlog_tests::packets::oracle::Oracle::default();
        for (name, frame) in paged_frames() {
            sender.send(&frame).expect("sent");
            let Reading::Flow(flow) = oracle.read(&frame) else {
                panic!("{name} is {:?}", read_alone(&frame));
            };
            sent += Volume {
                packets: 1,
                bytes: flow.ip_octets,
            };
            flows.push((name, flow));
        }
        let expected = [(LEFT, Direction::Out, sent), (RIGHT, Direction::In, sent)];
        let records = stop_after(agent, &expected).records;
        conserved(&records, &expected);
        for (name, flow) in &flows {
            for (eni, direction) in [(LEFT, Direction::Out), (RIGHT, Direction::In)] {
                let of_flow = |record: &flowlog_tests::agent::Record| is_of(record, flow);
                let same: Vec<_> = records
                    .iter()
                    .filter(|record| of_flow(record))
                    .cloned()
                    .collect();
                let alike = flows.iter().filter(|(_, other)| same_key(other, flow));
                let (mut packets, mut bytes) = (0, 0);
                for (_, other) in alike {
                    packets += 1;
                    bytes += other.ip_octets;
                }
                assert_eq!(
                    volume(&same, eni, direction),
                    Volume { packets, bytes },
                    "{name} at {eni}, by {attach:?} and {hook:?}"
                );
            }
        }
    }
}

fn key(flow: &Flow) -> impl PartialEq {
    (flow.src, flow.dst, flow.sport, flow.dport, flow.protocol)
}

fn same_key(a: &Flow, b: &Flow) -> bool {
    key(a) == key(b)
}

fn is_of(record: &flowlog_tests::agent::Record, flow: &Flow) -> bool {
    record.srcaddr == Some(flow.src)
        && record.dstaddr == Some(flow.dst)
        && record.srcport == Some(flow.sport)
        && record.dstport == Some(flow.dport)
        && record.protocol == Some(flow.protocol)
}
