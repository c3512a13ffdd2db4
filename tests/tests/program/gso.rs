//! Super-packets: what the stack segments later (GSO) or has merged before (GRO) counts as what the wire carries.
use std::cell::RefCell;

use flowlog_agent::bpf::{
    EniConstants,
    trial::{SkbMetadata, TrialProgram},
};
use flowlog_tests::{
    lab::skip_unless_root,
    packets::{
        build::{self, DESTINATION, Extension, HOP_BY_HOP, IPV4, IPV6, Piece},
        strategy,
    },
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};

use crate::rig::{MAX_LINEAR_FRAME, ROOMY, Rig, eni};

/// TCP flags.
const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

/// Upper layers that are segmented, and what of their header each segment repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upper {
    /// With so many words of options, 10 at most.
    Tcp { option_words: u8 },
    /// Segments are datagrams of their own (`UDP_SEGMENT`).
    Udp,
}

/// How the length field of the IP header is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// The super-packet's.
    Whole,
    /// 0, as in one over 64 KiB (BIG TCP).
    Zero,
}

/// A super-packet.
#[derive(Clone, Debug)]
struct Super {
    v6: bool,
    tags: usize,
    /// Words of IPv4 options, or IPv6 destination options of 8 octets each.
    network_options: usize,
    upper: Upper,
    flags: u8,
    payload_octets: usize,
    length: Length,
}

impl Super {
    /// A plain one.
    fn of(v6: bool, upper: Upper, payload_octets: usize) -> Self {
        Self {
            v6,
            tags: 0,
            network_options: 0,
            upper,
            flags: ACK | PSH | FIN | CWR,
            payload_octets,
            length: Length::Whole,
        }
    }

    fn frame(&self) -> Vec<u8> {
        let mut datagram = self.datagram(self.flags, self.payload_octets);
        if self.length == Length::Zero {
            let at = if self.v6 { 4 } else { 2 };
            datagram[at..at + 2].fill(0);
        }
        self.link(&datagram)
    }

    /// What the wire carries of it: each segment has all headers, `size` octets of payload, and the last one what is left.
    fn wire(&self, size: usize) -> Vec<Vec<u8>> {
        let segments = self.payload_octets.div_ceil(size).max(1);
        (0..segments)
            .map(|number| {
                let (first, last) = (number == 0, number + 1 == segments);
                let octets = size.min(self.payload_octets - number * size);
                // As tcp_gso_segment of net/ipv4/tcp_offload.c does.
                let kept =
                    if first { u8::MAX } else { !CWR } & if last { u8::MAX } else { !(FIN | PSH) };
                self.link(&self.datagram(self.flags & kept, octets))
            })
            .collect()
    }

    /// Octets of the network and transport headers.
    fn header_octets(&self) -> usize {
        self.datagram(0, 0).len()
    }

    fn datagram(&self, flags: u8, payload_octets: usize) -> Vec<u8> {
        let payload = vec![0x5a; payload_octets];
        let (protocol, segment) = match self.upper {
            Upper::Tcp { option_words } => (6, tcp_with_options(flags, option_words, &payload)),
            Upper::Udp => (17, build::udp(&payload)),
        };
        if self.v6 {
            let chain = vec![Extension::Plain(DESTINATION, 0); self.network_options];
            build::ipv6(&chain, protocol, &segment)
        } else {
            let options = vec![1; self.network_options * 4];
            build::ipv4(protocol, &options, Piece::default(), &segment)
        }
    }

    fn link(&self, datagram: &[u8]) -> Vec<u8> {
        let kind = if self.v6 { IPV6 } else { IPV4 };
        build::tagged(&[(0x8100, 7)].repeat(self.tags), kind, datagram)
    }
}

/// A TCP segment with so many words of "no operation".
fn tcp_with_options(flags: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = build::tcp(flags, &vec![1; usize::from(words) * 4]);
    segment[12] = (5 + words) << 4;
    segment.extend(payload);
    segment
}

fn gso(size: usize, segments: usize) -> SkbMetadata {
    SkbMetadata {
        gso_size: size as u32,
        gso_segs: segments as u32,
        ..SkbMetadata::default()
    }
}

fn rig_at_tc() -> Rig {
    use TrialProgram::{Egress, Ingress};
    let enis = [
        (eni(0, false), &[Ingress, Egress][..]),
        (eni(1, true), &[Ingress]),
    ];
    Rig::new(ROOMY, &enis)
}

/// Sends a super-packet; once with the number of its segments, and once, as from a virtual machine, without.
fn send(rig: &mut Rig, packet: &Super, size: usize) -> Result<(), String> {
    let (frame, wire) = (packet.frame(), packet.wire(size));
    assert!(frame.len() <= MAX_LINEAR_FRAME);
    rig.send_super_packet(&frame, gso(size, wire.len()), &wire);
    rig.send_super_packet(&frame, gso(size, 0), &wire);
    rig.check()
        .map_err(|differences| format!("{packet:?} in segments of {size}: {differences}"))
}

#[test]
fn super_packets_at_the_edges_count_as_what_the_wire_carries() {
    if skip_unless_root("super_packets_at_the_edges_count_as_what_the_wire_carries") {
        return;
    }
    let mut rig = rig_at_tc();
    let mut wrong = Vec::new();
    let timestamps = Upper::Tcp { option_words: 3 };
    for (payload_octets, size) in [
        (3000, 1448),
        // An exact multiple, one octet less and one more.
        (2896, 1448),
        (2895, 1448),
        (2897, 1448),
        // No more than one segment, which a lying guest may still call a super-packet.
        (1448, 1448),
        (1, 1448),
        (0, 1448),
        (3000, 1),
        (3000, 65_534),
    ] {
        for v6 in [false, true] {
            for upper in [Upper::Tcp { option_words: 0 }, timestamps, Upper::Udp] {
                let packet = Super::of(v6, upper, payload_octets);
                wrong.extend(send(&mut rig, &packet, size).err());
            }
            let big = Super {
                length: Length::Zero,
                ..Super::of(v6, timestamps, payload_octets)
            };
            wrong.extend(send(&mut rig, &big, size).err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn any_super() -> impl Strategy<Value = (Super, usize)> {
    let upper = prop_oneof![
        2 => (0..=10_u8).prop_map(|option_words| Upper::Tcp { option_words }),
        1 => Just(Upper::Udp),
    ];
    let network = (any::<bool>(), 0..=4_usize, 0..=10_usize);
    let length = select(vec![Length::Whole, Length::Zero]);
    (
        network,
        upper,
        any::<u8>(),
        0..3000_usize,
        length,
        1..1500_usize,
    )
        .prop_map(
            |((v6, tags, network_options), upper, flags, payload_octets, length, size)| {
                let packet = Super {
                    v6,
                    tags,
                    network_options,
                    upper,
                    flags,
                    payload_octets,
                    length,
                };
                (packet, size)
            },
        )
}

#[test]
fn random_super_packets_count_as_what_the_wire_carries() {
    if skip_unless_root("random_super_packets_count_as_what_the_wire_carries") {
        return;
    }
    let rig = RefCell::new(rig_at_tc());
    let config = Config {
        cases: 128,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&any_super(), |(packet, size)| {
        send(&mut rig.borrow_mut(), &packet, size).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// SCTP's segments are as long as they are: only their number is known (`GSO_BY_FRAGS`).
#[test]
fn sctp_super_packets_count_by_their_number_of_segments() {
    if skip_unless_root("sctp_super_packets_count_by_their_number_of_segments") {
        return;
    }
    const GSO_BY_FRAGS: usize = 0xffff;
    let header = [&build::ports()[..], &[0; 8]].concat();
    let segment = |v6: bool, chunks: &[u8]| {
        let payload = [&header[..], chunks].concat();
        if v6 {
            build::ethernet(IPV6, &build::ipv6(&[], 132, &payload))
        } else {
            build::ethernet(IPV4, &build::plain_ipv4(132, &payload))
        }
    };
    let mut rig = rig_at_tc();
    for v6 in [false, true] {
        let wire = [1000, 16, 700].map(|octets| segment(v6, &vec![0x5a; octets]));
        let whole = segment(v6, &[0x5a; 1000 + 16 + 700]);
        rig.send_super_packet(&whole, gso(GSO_BY_FRAGS, wire.len()), &wire);
    }
    if let Err(differences) = rig.check() {
        panic!("{differences}");
    }
}

/// Where IPv6 packets over 64 KiB carry a jumbo payload option (`ipv6_hopopt_jumbo` of include/net/ipv6.h), it is taken off before
/// they are segmented.
#[test]
fn the_jumbo_option_of_ipv6_big_tcp_is_not_on_the_wire() {
    if skip_unless_root("the_jumbo_option_of_ipv6_big_tcp_is_not_on_the_wire") {
        return;
    }
    let packet = Super::of(true, Upper::Tcp { option_words: 3 }, 3000);
    let segment = tcp_with_options(packet.flags, 3, &[0x5a; 3000]);
    let (_, mut rest) = build::chain(&[Extension::Plain(HOP_BY_HOP, 0)], 6, &segment);
    // RFC 2675: option 0xc2, 4 octets, the length of everything behind the IPv6 header.
    let length = rest.len() as u32;
    rest.splice(2..8, [0xc2, 4].into_iter().chain(length.to_be_bytes()));
    let frame = build::ethernet(IPV6, &build::raw_ipv6(HOP_BY_HOP, 0, &rest));
    let mut rig = rig_at_tc();
    rig.send_super_packet(&frame, gso(1428, 3), &packet.wire(1428));
    if let Err(differences) = rig.check() {
        panic!("{differences}");
    }
}

/// Generic XDP is handed merged segments without a word about their size: more than the device's MTU cannot have come as one.
#[test]
fn xdp_counts_what_exceeds_the_mtu_as_segments() {
    if skip_unless_root("xdp_counts_what_exceeds_the_mtu_as_segments") {
        return;
    }
    const MTU: usize = 1500;
    let constants = EniConstants {
        xdp_mtu: MTU as u32,
        ..eni(0, false)
    };
    let mut rig = Rig::new(ROOMY, &[(constants, &[TrialProgram::Xdp])]);
    let mut wrong = Vec::new();
    for v6 in [false, true] {
        for upper in [Upper::Tcp { option_words: 3 }, Upper::Udp] {
            let headers = Super::of(v6, upper, 0).header_octets();
            let size = MTU - headers;
            for payload_octets in [
                0,
                1,
                size - 1,
                size,
                size + 1,
                2 * size,
                2 * size + 1,
                60_000,
            ] {
                for tags in [0, 2] {
                    let packet = Super {
                        tags,
                        ..Super::of(v6, upper, payload_octets)
                    };
                    let (frame, wire) = (packet.frame(), packet.wire(size));
                    rig.send_super_packet(&frame, SkbMetadata::default(), &wire);
                    if let Err(differences) = rig.check() {
                        wrong.push(format!("{packet:?}: {differences}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a lying guest says of segments changes no verdict, and each frame is counted: as one packet, and as what it has besides.
#[test]
fn whatever_is_said_of_segments_a_frame_counts() {
    if skip_unless_root("whatever_is_said_of_segments_a_frame_counts") {
        return;
    }
    let rig = RefCell::new(rig_at_tc());
    let config = Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    };
    let frames = prop::collection::vec((strategy::any_frame(), any::<u16>(), any::<u16>()), 1..50);
    let result = TestRunner::new(config).run(&frames, |frames| {
        let mut rig = rig.borrow_mut();
        let mut sent = 0;
        for (frame, size, segments) in frames {
            sent += rig.send_unjudged(&frame, gso(size.into(), segments.into()));
        }
        prop_assert_eq!(rig.drain().frames(), sent);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
