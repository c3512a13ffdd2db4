//! Frames cut at every octet of their headers, and datagrams that honestly end there.

use super::NamedPacket;
use super::build::{
    self, DESTINATION, Extension, HOP_BY_HOP, IPV4, IPV6, Piece, ROUTING, ethernet, tagged,
};

pub(super) fn packets() -> Vec<NamedPacket> {
    let mut packets = cut_frames();
    packets.extend(short_uppers());
    packets.extend(short_chains());
    packets
}

/// The frame ends early while the lengths still promise all of it, as in a capture with a snap length.
fn cut_frames() -> Vec<NamedPacket> {
    let tcp = build::tcp(0x12, &[0x5a; 4]);
    let chain = [
        Extension::Plain(HOP_BY_HOP, 0),
        Extension::Plain(ROUTING, 1),
        Extension::Fragment(Piece::default()),
        Extension::Auth(4),
        Extension::Plain(DESTINATION, 0),
    ];
    let whole = [
        ("ipv4-tcp", ethernet(IPV4, &build::plain_ipv4(6, &tcp))),
        (
            "ipv4-udp",
            ethernet(IPV4, &build::plain_ipv4(17, &build::udp(&[]))),
        ),
        (
            "ipv4-options-tcp",
            ethernet(IPV4, &build::ipv4(6, &[1; 12], Piece::default(), &tcp)),
        ),
        ("ipv6-tcp", ethernet(IPV6, &build::ipv6(&[], 6, &tcp))),
        (
            "ipv6-chain-tcp",
            ethernet(IPV6, &build::ipv6(&chain, 6, &tcp)),
        ),
        (
            "qinq-ipv4-udp",
            tagged(
                &[(0x88a8, 2), (0x8100, 1)],
                IPV4,
                &build::plain_ipv4(17, &build::udp(&[])),
            ),
        ),
    ];
    let mut packets = Vec::new();
    for (name, frame) in &whole {
        for length in 0..frame.len() {
            packets.push(NamedPacket::new(
                format!("cut-{name}-at-{length}"),
                frame[..length].to_vec(),
            ));
        }
    }
    packets
}

/// Datagrams that end within the upper layer's header, and say so.
fn short_uppers() -> Vec<NamedPacket> {
    let protocols = [
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("sctp", 132),
        ("udp-lite", 136),
        ("icmp", 1),
        ("gre", 47),
    ];
    let header = build::tcp(0xff, &[]);
    let mut packets = Vec::new();
    for (name, protocol) in protocols {
        for length in 0..header.len() {
            let upper = &header[..length];
            let v4 = ethernet(IPV4, &build::plain_ipv4(protocol, upper));
            let v6 = ethernet(IPV6, &build::ipv6(&[], protocol, upper));
            packets.push(NamedPacket::new(format!("short-ipv4-{name}-{length}"), v4));
            packets.push(NamedPacket::new(format!("short-ipv6-{name}-{length}"), v6));
        }
    }
    packets
}

/// Datagrams that end within a chain of extension headers, and say so.
fn short_chains() -> Vec<NamedPacket> {
    let extensions = [
        Extension::Plain(HOP_BY_HOP, 1),
        Extension::Fragment(Piece::default()),
        Extension::Auth(2),
        Extension::Plain(DESTINATION, 0),
    ];
    let (next, chain) = build::chain(&extensions, 17, &build::udp(&[]));
    (0..chain.len())
        .map(|length| {
            let datagram = build::raw_ipv6(next, length as u16, &chain[..length]);
            NamedPacket::new(
                format!("short-ipv6-chain-{length}"),
                ethernet(IPV6, &datagram),
            )
        })
        .collect()
}
