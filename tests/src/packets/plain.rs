//! Plain TCP and UDP, as hosts send them.

use super::NamedPacket;
use super::build::{self, IPV4, IPV6, ethernet, etherparse_frame};

pub(super) fn packets() -> Vec<NamedPacket> {
    let mut packets = Vec::new();
    for (version, v6) in [("ipv4", false), ("ipv6", true)] {
        for (protocol, tcp) in [("tcp", true), ("udp", false)] {
            for (size, payload) in [("empty", 0), ("100", 100), ("1400", 1400)] {
                let frame = etherparse_frame(v6, tcp, &vec![0x5a; payload]);
                packets.push(NamedPacket::new(
                    format!("plain-{version}-{protocol}-{size}"),
                    frame,
                ));
            }
        }
        for payload in [3000, 8900] {
            let frame = etherparse_frame(v6, false, &vec![0x5a; payload]);
            packets.push(NamedPacket::new(
                format!("jumbo-{version}-udp-{payload}"),
                frame,
            ));
        }
        for bit in 0..8 {
            packets.push(NamedPacket::new(
                format!("tcp-{version}-flag-{bit}"),
                tcp_frame(v6, 1 << bit),
            ));
        }
        for flags in [0x00, 0x12, 0xff] {
            packets.push(NamedPacket::new(
                format!("tcp-{version}-flags-{flags:02x}"),
                tcp_frame(v6, flags),
            ));
        }
    }
    packets.extend(padded());
    packets
}

fn tcp_frame(v6: bool, flags: u8) -> Vec<u8> {
    let segment = build::tcp(flags, &[]);
    if v6 {
        ethernet(IPV6, &build::ipv6(&[], 6, &segment))
    } else {
        ethernet(IPV4, &build::plain_ipv4(6, &segment))
    }
}

/// Ethernet's least frame has 60 octets: what is behind the datagram is padding, and must not be counted or read.
fn padded() -> Vec<NamedPacket> {
    let mut udp = ethernet(IPV4, &build::plain_ipv4(17, &build::udp(&[])));
    udp.resize(60, 0xee);
    let mut without_ports = ethernet(IPV4, &build::plain_ipv4(17, &[]));
    without_ports.resize(60, 0xee);
    let mut tcp = ethernet(IPV4, &build::plain_ipv4(6, &build::tcp(0x02, &[])[..13]));
    tcp.resize(60, 0xee);
    let mut v6 = ethernet(IPV6, &build::ipv6(&[], 17, &build::udp(&[])));
    v6.resize(80, 0xee);
    vec![
        NamedPacket::new("padding-ipv4-udp", udp),
        NamedPacket::new("padding-ipv4-ports-only-in-padding", without_ports),
        NamedPacket::new("padding-ipv4-tcp-flags-only-in-padding", tcp),
        NamedPacket::new("padding-ipv6-udp", v6),
    ]
}
