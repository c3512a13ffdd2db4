//! The oracle reads crafted frames as their builders meant them, and random ones as etherparse does as a whole.

use flowlog_tests::packets::build::{DST_PORT, SRC_PORT};
use flowlog_tests::packets::oracle::{Flow, Fragment, Oracle, Reading, comparable, read_alone};
use flowlog_tests::packets::{corpus, sequences, strategy};
use proptest::prelude::*;

/// What the sampled frames of the corpus were built to mean: protocol, ports, octets, flags.
#[test]
fn oracle_reads_what_the_builders_meant() {
    let corpus = corpus();
    let reading = |name: &str| {
        let packet = corpus.iter().find(|packet| packet.name == name);
        read_alone(&packet.unwrap_or_else(|| panic!("no packet {name}")).frame)
    };
    let (src, dst) = (SRC_PORT, DST_PORT);
    let flows = [
        ("plain-ipv4-tcp-100", 6, (src, dst), 20 + 20 + 100, 0x18),
        ("plain-ipv6-udp-1400", 17, (src, dst), 40 + 8 + 1400, 0),
        ("jumbo-ipv4-udp-8900", 17, (src, dst), 20 + 8 + 8900, 0),
        ("tcp-ipv6-flags-ff", 6, (src, dst), 40 + 20, 0xff),
        ("padding-ipv4-udp", 17, (src, dst), 28, 0),
        (
            "padding-ipv4-tcp-flags-only-in-padding",
            6,
            (src, dst),
            33,
            0,
        ),
        ("tags-qinq-ipv4", 6, (src, dst), 20 + 20 + 6, 0x18),
        ("tags-four-ipv6", 17, (src, dst), 40 + 8 + 6, 0),
        ("ipv4-options-40-tcp", 6, (src, dst), 60 + 20 + 7, 0x10),
        (
            "ipv6-ext-usual-6-tcp",
            6,
            (src, dst),
            40 + 8 + 8 + 8 + 8 + 24 + 8 + 20 + 8,
            0x12,
        ),
        (
            "ipv6-ext-unusual-order-udp",
            17,
            (src, dst),
            40 + 6 * 8 + 8 + 8,
            0,
        ),
        (
            "ipv6-ext-hop-by-hop-late-icmpv6",
            58,
            (0, 0),
            40 + 16 + 8,
            0,
        ),
        (
            "ipv6-ext-destination-12-times-udp",
            17,
            (src, dst),
            40 + 96 + 8 + 8,
            0,
        ),
        ("ipv6-ext-atomic-none", 59, (0, 0), 48, 0),
        ("protocol-ipv4-sctp", 132, (src, dst), 20 + 16, 0),
        ("protocol-ipv6-dccp", 33, (src, dst), 40 + 16, 0),
        ("protocol-ipv4-udp-lite", 136, (src, dst), 20 + 8, 0),
        ("protocol-ipv4-auth", 51, (0, 0), 20 + 24, 0),
        ("protocol-ipv4-reserved", 255, (0, 0), 36, 0),
        ("udp-length-0", 17, (src, dst), 36, 0),
        ("ipv4-total-length-24", 6, (src, dst), 24, 0),
        ("ipv4-total-length-34", 6, (src, dst), 34, 0x10),
        ("ipv4-tcp-data-offset-0", 6, (src, dst), 60, 0x10),
    ];
    for (name, protocol, ports, octets, tcp_flags) in flows {
        let Reading::Flow(flow) = reading(name) else {
            panic!("{name}: {:?}", reading(name))
        };
        let Flow {
            sport,
            dport,
            fragment,
            ..
        } = flow;
        assert_eq!(
            (
                flow.protocol,
                (sport, dport),
                flow.ip_octets,
                flow.tcp_flags,
                fragment
            ),
            (protocol, ports, octets, tcp_flags, Fragment::None),
            "{name}"
        );
        let addresses = if flow.src.is_ipv4() {
            ["192.0.2.1", "198.51.100.2"]
        } else {
            ["2001:db8::1", "2001:db8::2"]
        };
        assert_eq!(
            [flow.src.to_string(), flow.dst.to_string()],
            addresses,
            "{name}"
        );
    }
    for name in [
        "not-ip-arp",
        "not-ip-lldp",
        "not-ip-mpls",
        "not-ip-llc-snap-ipv4",
        "tags-three-arp",
    ] {
        assert_eq!(reading(name), Reading::NotIp, "{name}");
    }
    for name in [
        "tags-five-ipv4",
        "cut-ipv4-tcp-at-13",
        "cut-ipv4-tcp-at-57",
        "cut-qinq-ipv4-udp-at-21",
        "short-ipv6-udp-3",
        "padding-ipv4-ports-only-in-padding",
        "ipv4-ihl-4",
        "ipv4-version-6",
        "ipv4-total-length-19",
        "ipv4-total-length-one-too-many",
        "ipv6-payload-length-one-too-many",
        "ipv6-extension-60-too-long",
        "ipv6-extension-ends-in-padding",
        "ipv6-ext-destination-13-times-tcp",
        "fragment-ipv4-udp-first-with-half-the-ports",
    ] {
        assert_eq!(reading(name), Reading::Unparsable, "{name}");
    }
}

/// Ports (of the source) and protocol of each fragment, in the order of the sequence.
#[test]
fn later_fragments_have_their_first_ones_ports_once_it_was_seen() {
    let expected: [(&str, &[(u8, u16)]); 10] = [
        (
            "ipv4-tcp-in-order",
            &[(6, SRC_PORT), (6, SRC_PORT), (6, SRC_PORT)],
        ),
        (
            "ipv4-udp-last-before-middle",
            &[(17, SRC_PORT), (17, SRC_PORT), (17, SRC_PORT)],
        ),
        (
            "ipv4-udp-first-comes-last",
            &[(17, 0), (17, 0), (17, SRC_PORT)],
        ),
        (
            "ipv4-udp-first-in-the-middle",
            &[(17, 0), (17, SRC_PORT), (17, SRC_PORT)],
        ),
        (
            "ipv4-other-identification",
            &[(6, SRC_PORT), (6, 0), (6, SRC_PORT)],
        ),
        (
            "ipv4-other-protocol-with-the-same-identification",
            &[(6, SRC_PORT), (17, 0), (6, SRC_PORT)],
        ),
        (
            "ipv6-tcp-in-order",
            &[(6, SRC_PORT), (6, SRC_PORT), (6, SRC_PORT)],
        ),
        (
            "ipv6-udp-first-comes-last",
            &[(17, 0), (17, 0), (17, SRC_PORT)],
        ),
        (
            "ipv6-other-identification",
            &[(17, SRC_PORT), (17, 0), (17, SRC_PORT)],
        ),
        (
            "ipv6-chain-behind-the-fragment-header",
            &[(6, SRC_PORT), (6, SRC_PORT)],
        ),
    ];
    let sequences = sequences();
    assert_eq!(sequences.len(), expected.len());
    let mut oracle = Oracle::default();
    for (sequence, (name, flows)) in sequences.iter().zip(expected) {
        let read: Vec<_> = sequence
            .frames
            .iter()
            .map(|frame| match oracle.read(frame) {
                Reading::Flow(flow) => (flow.protocol, flow.sport),
                other => panic!("{}: {other:?}", sequence.name),
            })
            .collect();
        assert_eq!((sequence.name, &read[..]), (name, flows));
    }
}

proptest! {
    /// Where etherparse reads a whole frame strictly by itself, from one end to the other, the oracle says the same.
    #[test]
    fn oracle_agrees_with_etherparse_as_a_whole(frame in strategy::any_frame()) {
        use etherparse::{NetSlice, SlicedPacket, TransportSlice};
        let Ok(packet) = SlicedPacket::from_ethernet(&frame) else { return Ok(()) };
        let Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_)) = packet.net else { return Ok(()) };
        let Some(transport) = &packet.transport else { return Ok(()) };
        let ports = match transport {
            TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
            TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
            _ => (0, 0),
        };
        // An AH in IPv4, which etherparse walks and a flow log does not.
        let through_auth = packet.net.as_ref().is_some_and(|net| match net {
            NetSlice::Ipv4(v4) => v4.extensions().auth.is_some(),
            _ => false,
        });
        if through_auth || !comparable(&frame) {
            return Ok(());
        }
        let Reading::Flow(flow) = read_alone(&frame) else {
            // Etherparse takes IPv6's payload length 0 for "unknown" and counts no extension headers.
            let lenient = matches!(&packet.net, Some(NetSlice::Ipv6(v6))
                if v6.header().payload_length() == 0 || v6.extensions().clone().into_iter().count() > 12);
            prop_assert!(lenient, "etherparse reads {packet:?}");
            return Ok(());
        };
        prop_assert_eq!((flow.sport, flow.dport), ports);
        prop_assert_eq!(flow.fragment, Fragment::None);
    }
}
