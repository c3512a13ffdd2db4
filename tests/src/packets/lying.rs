//! Headers that contradict the frame or themselves.

use super::NamedPacket;
use super::build::{self, DESTINATION, Extension, HOP_BY_HOP, IPV4, IPV6, Piece, ethernet};

/// Where the IP header begins.
const IP: usize = 14;

/// An IPv4 TCP frame with one octet of its header, or two, written over.
fn v4(name: &'static str, at: usize, octets: &[u8]) -> NamedPacket {
    let mut frame = ethernet(IPV4, &build::plain_ipv4(6, &build::tcp(0x10, &[0x5a; 20])));
    frame.splice(IP + at..IP + at + octets.len(), octets.iter().copied());
    NamedPacket::new(name, frame)
}

/// The same with IPv6.
fn v6(name: &'static str, at: usize, octets: &[u8]) -> NamedPacket {
    let mut frame = ethernet(IPV6, &build::ipv6(&[], 6, &build::tcp(0x10, &[0x5a; 20])));
    frame.splice(IP + at..IP + at + octets.len(), octets.iter().copied());
    NamedPacket::new(name, frame)
}

pub(super) fn packets() -> Vec<NamedPacket> {
    let mut packets = vec![
        v4("ipv4-version-6", 0, &[0x65]),
        v4("ipv4-version-0", 0, &[0x05]),
        v4("ipv4-version-15", 0, &[0xf5]),
        v4("ipv4-ihl-0", 0, &[0x40]),
        v4("ipv4-ihl-4", 0, &[0x44]),
        v4("ipv4-ihl-15-into-the-payload", 0, &[0x4f]),
        v4("ipv4-total-length-0", 2, &[0, 0]),
        v4("ipv4-total-length-19", 2, &[0, 19]),
        v4("ipv4-total-length-20", 2, &[0, 20]),
        v4("ipv4-total-length-23", 2, &[0, 23]),
        v4("ipv4-total-length-24", 2, &[0, 24]),
        v4("ipv4-total-length-33", 2, &[0, 33]),
        v4("ipv4-total-length-34", 2, &[0, 34]),
        v4("ipv4-total-length-one-too-many", 2, &[0, 61]),
        v4("ipv4-total-length-65535", 2, &[0xff, 0xff]),
        v4("ipv4-wrong-checksum", 10, &[0xde, 0xad]),
        v4("ipv4-reserved-flag", 6, &[0x80, 0]),
        v4("ipv4-dont-fragment", 6, &[0x40, 0]),
        v4("ipv4-tcp-data-offset-0", 20 + 12, &[0x00]),
        v4("ipv4-tcp-data-offset-15", 20 + 12, &[0xf0]),
        v6("ipv6-version-4", 0, &[0x40]),
        v6("ipv6-version-0", 0, &[0x00]),
        v6("ipv6-payload-length-0", 4, &[0, 0]),
        v6("ipv6-payload-length-3", 4, &[0, 3]),
        v6("ipv6-payload-length-4", 4, &[0, 4]),
        v6("ipv6-payload-length-13", 4, &[0, 13]),
        v6("ipv6-payload-length-14", 4, &[0, 14]),
        v6("ipv6-payload-length-one-too-many", 4, &[0, 41]),
        v6("ipv6-payload-length-65535", 4, &[0xff, 0xff]),
        v6(
            "ipv6-traffic-class-and-flow-label",
            0,
            &[0x6f, 0xff, 0xff, 0xff],
        ),
        v6("ipv6-tcp-data-offset-0", 40 + 12, &[0x00]),
    ];
    packets.extend(udp_length());
    packets.extend(ipv6_chains());
    packets
}

/// UDP's own length is not looked at.
fn udp_length() -> Vec<NamedPacket> {
    let frame = |length: u16| {
        let mut datagram = build::udp(b"whatever");
        datagram.splice(4..6, length.to_be_bytes());
        ethernet(IPV4, &build::plain_ipv4(17, &datagram))
    };
    vec![
        NamedPacket::new("udp-length-0", frame(0)),
        NamedPacket::new("udp-length-7", frame(7)),
        NamedPacket::new("udp-length-65535", frame(0xffff)),
    ]
}

fn ipv6_chains() -> Vec<NamedPacket> {
    let datagram =
        |next: u8, rest: &[u8]| ethernet(IPV6, &build::raw_ipv6(next, rest.len() as u16, rest));
    let mut packets = Vec::new();
    for number in build::PLAIN_EXTENSIONS {
        let frame = datagram(number, &[6, 255, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packets.push(NamedPacket::new(
            format!("ipv6-extension-{number}-too-long"),
            frame,
        ));
        packets.push(NamedPacket::new(
            format!("ipv6-extension-{number}-absent"),
            datagram(number, &[]),
        ));
    }
    let auth = datagram(build::AUTH, &[6, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packets.push(NamedPacket::new("ipv6-extension-51-too-long", auth));
    // Behind the datagram's end there are octets that would make the header whole.
    let mut padded = ethernet(
        IPV6,
        &build::raw_ipv6(DESTINATION, 4, &Extension::Plain(DESTINATION, 0).bytes(59)),
    );
    padded.extend([0; 16]);
    packets.push(NamedPacket::new("ipv6-extension-ends-in-padding", padded));
    packets.extend(incomparable());
    packets
}

/// What the oracle is not asked about: see [`super::oracle::Incomparable`].
fn incomparable() -> Vec<NamedPacket> {
    let segment = build::tcp(0x10, &[]);
    let (_, chain) = build::chain(&[Extension::Plain(HOP_BY_HOP, 0)], 6, &segment);
    let mut jumbo = chain;
    // RFC 2675: option 0xc2, 4 octets, the length of everything behind the IPv6 header.
    let length = jumbo.len() as u32;
    jumbo.splice(2..8, [0xc2, 4].into_iter().chain(length.to_be_bytes()));
    let piece = |id, offset| {
        Extension::Fragment(Piece {
            id,
            offset,
            more: true,
        })
    };
    let twice = build::ipv6(&[piece(0x7001, 0), piece(0x7002, 8)], 6, &segment);
    vec![
        NamedPacket::new(
            "ipv6-jumbogram",
            ethernet(IPV6, &build::raw_ipv6(HOP_BY_HOP, 0, &jumbo)),
        ),
        NamedPacket::new(
            "ipv6-auth-length-zero",
            ethernet(IPV6, &build::ipv6(&[Extension::Auth(0)], 6, &segment)),
        ),
        NamedPacket::new("ipv6-fragment-header-twice", ethernet(IPV6, &twice)),
    ]
}
