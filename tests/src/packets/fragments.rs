//! Fragments, one by one and in sequences.

use super::build::{self, DESTINATION, Extension, HOP_BY_HOP, IPV4, IPV6, Piece, ethernet};
use super::{NamedPacket, NamedSequence};

/// Octets of payload that each fragment but the last carries; a multiple of 8.
const STEP: usize = 64;

/// A datagram of three fragments: first, middle, last. The payload begins with `upper`'s header and is 0x5a from there on, so
/// that a parser that takes it for ports in a later fragment is found out.
fn pieces(v6: bool, protocol: u8, upper: &[u8], id: u32) -> [Vec<u8>; 3] {
    let mut payload = upper.to_vec();
    payload.resize(2 * STEP + 40, 0x5a);
    [0, 1, 2].map(|number| {
        let (start, more) = (number * STEP, number < 2);
        let end = if more { start + STEP } else { payload.len() };
        let piece = Piece {
            id,
            offset: (start / 8) as u16,
            more,
        };
        fragment(v6, protocol, piece, &payload[start..end])
    })
}

fn fragment(v6: bool, protocol: u8, piece: Piece, payload: &[u8]) -> Vec<u8> {
    if v6 {
        ethernet(
            IPV6,
            &build::ipv6(&[Extension::Fragment(piece)], protocol, payload),
        )
    } else {
        ethernet(IPV4, &build::ipv4(protocol, &[], piece, payload))
    }
}

pub(super) fn packets() -> Vec<NamedPacket> {
    let mut packets = Vec::new();
    let uppers = [
        ("tcp", 6, build::tcp(0x02, &[])),
        ("udp", 17, build::udp(&[0; 160])),
        ("icmp", 1, vec![8, 0, 0, 0, 0, 1, 0, 1]),
    ];
    let mut id = 0x1000;
    for (version, v6) in [("ipv4", false), ("ipv6", true)] {
        for (name, protocol, upper) in &uppers {
            for (number, place) in ["first", "middle", "last"].into_iter().enumerate() {
                // An identification each, so that none is another's first fragment.
                id += 1;
                let frame = pieces(v6, *protocol, upper, id)[number].clone();
                packets.push(NamedPacket::new(
                    format!("fragment-{version}-{name}-{place}-alone"),
                    frame,
                ));
            }
        }
        for (name, octets) in [
            ("without-ports", 0),
            ("with-half-the-ports", 3),
            ("with-ports-alone", 8),
        ] {
            id += 1;
            let piece = Piece {
                id,
                offset: 0,
                more: true,
            };
            let frame = fragment(v6, 17, piece, &build::udp(&[])[..octets]);
            packets.push(NamedPacket::new(
                format!("fragment-{version}-udp-first-{name}"),
                frame,
            ));
        }
        id += 1;
        let piece = Piece {
            id,
            offset: 0x1fff,
            more: false,
        };
        packets.push(NamedPacket::new(
            format!("fragment-{version}-greatest-offset"),
            fragment(v6, 17, piece, &[0x5a; 8]),
        ));
    }
    packets.extend(in_chains());
    packets
}

/// IPv6 fragments with other headers before and after the fragment header.
fn in_chains() -> Vec<NamedPacket> {
    let before = Extension::Plain(HOP_BY_HOP, 0);
    let after = Extension::Plain(DESTINATION, 0);
    let frame = |piece: Piece, behind: &[Extension], upper: u8, payload: &[u8]| {
        let chain = [&[before, Extension::Fragment(piece)], behind].concat();
        ethernet(IPV6, &build::ipv6(&chain, upper, payload))
    };
    let tcp = build::tcp(0x18, b"chained!");
    let first = frame(
        Piece {
            id: 0x2001,
            offset: 0,
            more: true,
        },
        &[after],
        6,
        &tcp,
    );
    // A later fragment's next header is the first header of the fragmentable part; what follows is the middle of a datagram.
    let later = frame(
        Piece {
            id: 0x2002,
            offset: 8,
            more: true,
        },
        &[],
        DESTINATION,
        &[0x5a; 24],
    );
    let lone_ah = frame(
        Piece {
            id: 0x2003,
            offset: 8,
            more: false,
        },
        &[],
        build::AUTH,
        &[0xff; 4],
    );
    let empty = frame(
        Piece {
            id: 0x2004,
            offset: 8,
            more: false,
        },
        &[],
        6,
        &[],
    );
    vec![
        NamedPacket::new("fragment-ipv6-first-in-chain", first),
        NamedPacket::new("fragment-ipv6-later-names-destination-options", later),
        NamedPacket::new("fragment-ipv6-later-names-auth", lone_ah),
        NamedPacket::new("fragment-ipv6-later-empty", empty),
    ]
}

/// Fragments in orders in which they may cross an ENI. Identifications are not those of [`super::corpus`]; each sequence means
/// the same whichever came before it.
#[must_use]
pub fn sequences() -> Vec<NamedSequence> {
    let tcp = build::tcp(0x02, &[]);
    let udp = build::udp(&[0; 160]);
    let mut sequences = Vec::new();
    let mut push = |name, frames| sequences.push(NamedSequence { name, frames });

    let [a, b, c] = pieces(false, 6, &tcp, 0x3001);
    push("ipv4-tcp-in-order", vec![a, b, c]);
    let [a, b, c] = pieces(false, 17, &udp, 0x3002);
    push("ipv4-udp-last-before-middle", vec![a, c, b]);
    let [a, b, c] = pieces(false, 17, &udp, 0x3003);
    push("ipv4-udp-first-comes-last", vec![c, b, a]);
    let [a, b, c] = pieces(false, 17, &udp, 0x3004);
    push("ipv4-udp-first-in-the-middle", vec![b, a, c]);
    let [a, b, _] = pieces(false, 6, &tcp, 0x3005);
    let [_, other, _] = pieces(false, 6, &tcp, 0x3006);
    push("ipv4-other-identification", vec![a, other, b]);
    let [a, b, _] = pieces(false, 6, &tcp, 0x3007);
    let [_, other, _] = pieces(false, 17, &udp, 0x3007);
    push(
        "ipv4-other-protocol-with-the-same-identification",
        vec![a, other, b],
    );

    let [a, b, c] = pieces(true, 6, &tcp, 0x0001_3001);
    push("ipv6-tcp-in-order", vec![a, b, c]);
    let [a, b, c] = pieces(true, 17, &udp, 0x0001_3002);
    push("ipv6-udp-first-comes-last", vec![c, b, a]);
    let [a, b, _] = pieces(true, 17, &udp, 0x0001_3003);
    // The upper 16 bits alone differ.
    let [_, other, _] = pieces(true, 17, &udp, 0x0002_3003);
    push("ipv6-other-identification", vec![a, other, b]);
    push(
        "ipv6-chain-behind-the-fragment-header",
        chained(0x0001_3004),
    );
    sequences
}

/// The later fragment names destination options; the first tells that TCP is behind them.
fn chained(id: u32) -> Vec<Vec<u8>> {
    let (next, mut part) = build::chain(
        &[Extension::Plain(DESTINATION, 0)],
        6,
        &build::tcp(0x10, &[]),
    );
    part.resize(STEP + 24, 0x5a);
    let first = fragment(
        true,
        next,
        Piece {
            id,
            offset: 0,
            more: true,
        },
        &part[..STEP],
    );
    let last = fragment(
        true,
        next,
        Piece {
            id,
            offset: (STEP / 8) as u16,
            more: false,
        },
        &part[STEP..],
    );
    vec![first, last]
}
