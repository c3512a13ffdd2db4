//! Every transport that has ports, and those that have none.

use super::NamedPacket;
use super::build::{self, IPV4, IPV6, ethernet};

pub(super) fn packets() -> Vec<NamedPacket> {
    let with_ports = |rest: &[u8]| [&build::ports()[..], rest].concat();
    let protocols: [(&str, u8, Vec<u8>); 15] = [
        ("icmp", 1, vec![8, 0, 0xf7, 0xfd, 0, 1, 0, 1]),
        ("igmp", 2, vec![0x16, 0, 0x08, 0x04, 224, 0, 0, 251]),
        ("ipip", 4, build::plain_ipv4(17, &build::udp(b"inner"))),
        (
            "dccp",
            33,
            with_ports(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        ("sit", 41, build::ipv6(&[], 17, &build::udp(b"inner"))),
        (
            "gre",
            47,
            [
                &[0, 0, 0x08, 0][..],
                &build::plain_ipv4(17, &build::udp(b"inner")),
            ]
            .concat(),
        ),
        ("esp", 50, vec![0xe5; 40]),
        ("auth", 51, build::Extension::Auth(4).bytes(6)),
        ("icmpv6", 58, vec![128, 0, 0, 0, 0, 1, 0, 1]),
        ("none", 59, Vec::new()),
        ("ospf", 89, vec![2, 1, 0, 44, 10, 0, 0, 1]),
        (
            "sctp",
            132,
            with_ports(&[0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 20]),
        ),
        ("udp-lite", 136, with_ports(&[0, 8, 0, 0])),
        ("mpls-in-ip", 137, vec![0, 0, 0x11, 0xff]),
        ("reserved", 255, vec![0xff; 16]),
    ];
    let mut packets = Vec::new();
    for (name, protocol, payload) in &protocols {
        let v4 = build::plain_ipv4(*protocol, payload);
        packets.push(NamedPacket::new(
            format!("protocol-ipv4-{name}"),
            ethernet(IPV4, &v4),
        ));
        let v6 = build::ipv6(&[], *protocol, payload);
        packets.push(NamedPacket::new(
            format!("protocol-ipv6-{name}"),
            ethernet(IPV6, &v6),
        ));
    }
    // In IPv4 the numbers of IPv6's extension headers are protocols like any other.
    for protocol in [0, 43, 44, 60, 135, 139, 140] {
        let datagram = build::plain_ipv4(protocol, &[0x5a; 2]);
        packets.push(NamedPacket::new(
            format!("protocol-ipv4-{protocol}"),
            ethernet(IPV4, &datagram),
        ));
    }
    packets
}
