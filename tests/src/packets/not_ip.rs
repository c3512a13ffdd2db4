//! What is not IP.

use super::NamedPacket;
use super::build::{self, ethernet};

pub(super) fn packets() -> Vec<NamedPacket> {
    let datagram = build::plain_ipv4(17, &build::udp(b"inside"));
    let labelled = [&[0, 0x06, 0x41, 64][..], &datagram].concat();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &build::SRC_MAC,
        &build::SRC_V4,
        &[0; 6],
        &build::DST_V4,
    ]
    .concat();
    let kinds: [(&'static str, u16, Vec<u8>); 11] = [
        ("arp", 0x0806, arp),
        ("rarp", 0x8035, vec![0; 28]),
        (
            "lldp",
            0x88cc,
            vec![
                0x02, 7, 4, 2, 0xf1, 0, 0, 0, 1, 0x04, 2, 7, b'1', 0x06, 2, 0, 120, 0, 0,
            ],
        ),
        ("mpls", 0x8847, labelled.clone()),
        ("mpls-multicast", 0x8848, labelled),
        (
            "pppoe",
            0x8864,
            [&[0x11, 0, 0, 1, 0, 38, 0, 0x21][..], &datagram].concat(),
        ),
        ("macsec", 0x88e5, vec![0; 40]),
        // 802.3: the field is a length, what follows is LLC (spanning tree).
        ("llc-stp", 38, vec![0x42, 0x42, 0x03, 0, 0, 0, 0, 0]),
        (
            "llc-snap-ipv4",
            46,
            [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &datagram].concat(),
        ),
        ("ether-type-ffff", 0xffff, datagram.clone()),
        ("without-payload", 0x88b5, Vec::new()),
    ];
    kinds
        .into_iter()
        .map(|(name, kind, payload)| {
            NamedPacket::new(format!("not-ip-{name}"), ethernet(kind, &payload))
        })
        .collect()
}
