//! VLAN tags, from none to more than are followed.

use super::NamedPacket;
use super::build::{self, IPV4, IPV6, tagged};

const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
/// Not a standard, but in use for the outer tag before 802.1ad.
const OLD_S_TAG: u16 = 0x9100;

pub(super) fn packets() -> Vec<NamedPacket> {
    let stacks: [(&str, &[(u16, u16)]); 12] = [
        ("8021q", &[(C_TAG, 100)]),
        ("8021q-priority", &[(C_TAG, 0xe000)]),
        ("8021ad", &[(S_TAG, 200)]),
        ("9100", &[(OLD_S_TAG, 300)]),
        ("qinq", &[(S_TAG, 200), (C_TAG, 100)]),
        ("8021q-twice", &[(C_TAG, 200), (C_TAG, 100)]),
        ("9100-8021q", &[(OLD_S_TAG, 200), (C_TAG, 100)]),
        ("three", &[(S_TAG, 300), (S_TAG, 200), (C_TAG, 100)]),
        (
            "four",
            &[(OLD_S_TAG, 4), (S_TAG, 3), (S_TAG, 2), (C_TAG, 1)],
        ),
        (
            "five",
            &[(C_TAG, 5), (C_TAG, 4), (C_TAG, 3), (C_TAG, 2), (C_TAG, 1)],
        ),
        (
            "six",
            &[
                (C_TAG, 6),
                (C_TAG, 5),
                (C_TAG, 4),
                (C_TAG, 3),
                (C_TAG, 2),
                (C_TAG, 1),
            ],
        ),
        ("vlan-0", &[(C_TAG, 0)]),
    ];
    let mut packets = Vec::new();
    for (name, stack) in stacks {
        let v4 = build::plain_ipv4(6, &build::tcp(0x18, b"tagged"));
        let v6 = build::ipv6(&[], 17, &build::udp(b"tagged"));
        packets.push(NamedPacket::new(
            format!("tags-{name}-ipv4"),
            tagged(stack, IPV4, &v4),
        ));
        packets.push(NamedPacket::new(
            format!("tags-{name}-ipv6"),
            tagged(stack, IPV6, &v6),
        ));
        packets.push(NamedPacket::new(
            format!("tags-{name}-arp"),
            tagged(stack, 0x0806, &[0; 28]),
        ));
    }
    packets
}
