//! IPv4 options and IPv6 extension headers.

use super::NamedPacket;
use super::build::{
    self, DESTINATION, Extension, HIP, HOP_BY_HOP, IPV4, IPV6, MOBILITY, PLAIN_EXTENSIONS, Piece,
    ROUTING, SHIM6, ethernet,
};

/// Extension headers that are walked at most.
const MAX_EXTENSIONS: usize = 12;

/// The octets of a whole datagram that comes with a fragment header: neither an offset nor more to follow.
const fn atomic(id: u32) -> Extension {
    Extension::Fragment(Piece {
        id,
        offset: 0,
        more: false,
    })
}

pub(super) fn ipv4_options() -> Vec<NamedPacket> {
    let mut packets = Vec::new();
    for words in 1..=10_usize {
        // "No operation" throughout: a parser that takes the header for 20 octets long reads ports of 257.
        let options = vec![1; words * 4];
        for (name, protocol, upper) in [
            ("tcp", 6, build::tcp(0x10, b"options")),
            ("udp", 17, build::udp(b"options")),
        ] {
            let datagram = build::ipv4(protocol, &options, Piece::default(), &upper);
            packets.push(NamedPacket::new(
                format!("ipv4-options-{}-{name}", words * 4),
                ethernet(IPV4, &datagram),
            ));
        }
    }
    // Router alert (RFC 2113), as IGMP carries it.
    let alert = build::ipv4(
        2,
        &[0x94, 4, 0, 0],
        Piece::default(),
        &[0x16, 0, 0, 0, 224, 0, 0, 251],
    );
    packets.push(NamedPacket::new(
        "ipv4-options-router-alert-igmp",
        ethernet(IPV4, &alert),
    ));
    packets
}

pub(super) fn ipv6_extensions() -> Vec<NamedPacket> {
    let plain = |number| Extension::Plain(number, 0);
    let mut chains: Vec<(String, Vec<Extension>)> = Vec::new();
    for number in PLAIN_EXTENSIONS {
        for units in [0, 1, 7, 31] {
            chains.push((
                format!("{number}-of-{}", (usize::from(units) + 1) * 8),
                vec![Extension::Plain(number, units)],
            ));
        }
    }
    for units in [1, 2, 4, 7] {
        chains.push((
            format!("auth-of-{}", (usize::from(units) + 2) * 4),
            vec![Extension::Auth(units)],
        ));
    }
    chains.push(("atomic".into(), vec![atomic(0x6001)]));
    // The order that RFC 8200 §4.1 recommends.
    let usual = [
        plain(HOP_BY_HOP),
        plain(DESTINATION),
        plain(ROUTING),
        atomic(0x6002),
        Extension::Auth(4),
        plain(DESTINATION),
    ];
    for length in 2..=usual.len() {
        chains.push((format!("usual-{length}"), usual[..length].to_vec()));
    }
    let all = [MOBILITY, HIP, SHIM6, HOP_BY_HOP, DESTINATION, ROUTING].map(plain);
    chains.push(("unusual-order".into(), all.to_vec()));
    chains.push(("hop-by-hop-twice".into(), vec![plain(HOP_BY_HOP); 2]));
    chains.push((
        "hop-by-hop-late".into(),
        vec![plain(DESTINATION), plain(HOP_BY_HOP)],
    ));
    chains.push(("atomic-twice".into(), vec![atomic(0x6003), atomic(0x6004)]));
    for length in [
        8,
        MAX_EXTENSIONS - 1,
        MAX_EXTENSIONS,
        MAX_EXTENSIONS + 1,
        MAX_EXTENSIONS + 4,
    ] {
        chains.push((
            format!("destination-{length}-times"),
            vec![plain(DESTINATION); length],
        ));
    }
    let mixed = [
        plain(ROUTING),
        Extension::Auth(1),
        Extension::Plain(DESTINATION, 2),
    ];
    chains.push(("mixed-12".into(), mixed.repeat(4)));

    let uppers = [
        ("tcp", 6, build::tcp(0x12, b"extended")),
        ("udp", 17, build::udp(b"extended")),
        ("icmpv6", 58, vec![128, 0, 0, 0, 0, 1, 0, 1]),
        ("none", 59, Vec::new()),
    ];
    let mut packets = Vec::new();
    for (name, chain) in &chains {
        for (upper, protocol, payload) in &uppers {
            let datagram = build::ipv6(chain, *protocol, payload);
            packets.push(NamedPacket::new(
                format!("ipv6-ext-{name}-{upper}"),
                ethernet(IPV6, &datagram),
            ));
        }
    }
    packets
}
