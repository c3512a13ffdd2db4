//! Random packets for proptest: well-formed ones of every kind, and the same with octets changed, cut off or added.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::build::{self, Extension, IPV4, IPV6, PLAIN_EXTENSIONS, Piece};

/// Any frame: well formed, mutated, or noise behind an Ethernet header.
pub fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => well_formed(), 4 => mutated(), 1 => noise()]
}

/// A well-formed frame: 0 to 5 VLAN tags, then IPv4, IPv6 or something else.
pub fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let tag = (select(vec![0x8100_u16, 0x88a8, 0x9100]), any::<u16>());
    let tags = prop_oneof![6 => Just(0_usize..1), 3 => Just(1..5), 1 => Just(5..6)]
        .prop_flat_map(move |n| vec(tag.clone(), n));
    let network = prop_oneof![
        5 => ipv4_datagram().prop_map(|datagram| (IPV4, datagram)),
        5 => ipv6_datagram().prop_map(|datagram| (IPV6, datagram)),
        1 => (select(vec![0x0806_u16, 0x88cc, 0x8847, 0x0026, 0x88f7]), vec(any::<u8>(), 0..64)),
    ];
    let padding = prop_oneof![3 => Just(0_usize), 1 => 0..32_usize];
    (tags, network, padding).prop_map(|(tags, (kind, payload), padding)| {
        let mut frame = build::tagged(&tags, kind, &payload);
        frame.resize(frame.len() + padding, 0xee);
        frame
    })
}

/// A well-formed frame of which some octets were changed, and the end cut off or lengthened.
pub fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    // Headers are where it matters: half of the changes fall on the first 64 octets behind the MAC addresses.
    let aimed = vec((12_usize..76, any::<u8>()), 0..4);
    let end = prop_oneof![
        2 => Just(None),
        2 => any::<prop::sample::Index>().prop_map(Some),
    ];
    (well_formed(), changes, aimed, end).prop_map(|(mut frame, changes, aimed, end)| {
        for (index, octet) in changes {
            *index.get_mut(&mut frame) = octet;
        }
        for (at, octet) in aimed {
            if let Some(target) = frame.get_mut(at) {
                *target = octet;
            }
        }
        if let Some(index) = end {
            frame.truncate(index.index(frame.len() + 1));
        }
        frame
    })
}

/// Random octets behind an EtherType that promises IP.
pub fn noise() -> impl Strategy<Value = Vec<u8>> {
    (select(vec![IPV4, IPV6, 0x8100]), vec(any::<u8>(), 0..128))
        .prop_map(|(kind, payload)| build::ethernet(kind, &payload))
}

/// An upper layer: its number and octets. Whole TCP and UDP headers with random ports, or random octets, sometimes too few for
/// ports.
fn upper() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let ports = any::<[u8; 4]>();
    let whole = (any::<bool>(), ports, any::<u8>(), vec(any::<u8>(), 0..64)).prop_map(
        |(tcp, ports, flags, payload)| {
            let (protocol, mut octets) = if tcp {
                (6, build::tcp(flags, &payload))
            } else {
                (17, build::udp(&payload))
            };
            octets.splice(..4, ports);
            (protocol, octets)
        },
    );
    let protocol = prop_oneof![
        6 => select(vec![6_u8, 17, 33, 132, 136]),
        2 => select(vec![1_u8, 2, 4, 41, 47, 50, 51, 58, 59, 89, 255]),
        1 => any::<u8>(),
    ];
    let octets = prop_oneof![5 => vec(any::<u8>(), 20..120), 1 => vec(any::<u8>(), 0..20)];
    prop_oneof![whole, (protocol, octets)]
}

/// A whole datagram most often. Few identifications, so that fragments find each other.
fn piece() -> impl Strategy<Value = Piece> {
    let fragment = (
        0..8_u32,
        prop_oneof![Just(0_u16), 1..0x2000_u16],
        any::<bool>(),
    );
    prop_oneof![
        3 => any::<u16>().prop_map(|id| Piece { id: u32::from(id), ..Piece::default() }),
        2 => fragment.prop_map(|(id, offset, more)| Piece { id, offset, more }),
    ]
}

fn ipv4_datagram() -> impl Strategy<Value = Vec<u8>> {
    let options = prop_oneof![3 => Just(Vec::new()), 2 => vec(any::<u8>(), 0..=40)];
    (upper(), options, piece()).prop_map(|((protocol, payload), options, piece)| {
        build::ipv4(protocol, &options, piece, &payload)
    })
}

fn ipv6_datagram() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        5 => (select(PLAIN_EXTENSIONS.to_vec()), 0..4_u8).prop_map(|(number, units)| Extension::Plain(number, units)),
        1 => (1..6_u8).prop_map(Extension::Auth),
        1 => piece().prop_map(Extension::Fragment),
    ];
    let chain = prop_oneof![2 => vec(extension.clone(), 0..1), 4 => vec(extension.clone(), 1..6), 1 => vec(extension, 6..15)];
    (upper(), chain)
        .prop_map(|((protocol, payload), chain)| build::ipv6(&chain, protocol, &payload))
}
