//! Super-packets in tunnels: each segment repeats the headers of the tunnel and of what is in it.
use flowlog_agent::bpf::trial::{SkbMetadata, TrialProgram};
use flowlog_tests::{
    lab::skip_unless_root,
    packets::build::{self, IPV4, IPV6},
};

use crate::rig::{ROOMY, Rig, eni};

/// Payload octets of each segment.
const SIZE: usize = 900;

/// What is around the inner datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnel {
    /// IP in IP, of either version.
    Ip,
    /// GRE with so many of its optional words: checksum, key, sequence number.
    Gre { words: usize },
    /// An Ethernet frame in GRE.
    GreBridged,
    /// VXLAN at this UDP port.
    Vxlan { port: u16 },
    /// Geneve with so many words of options; whether it carries an Ethernet frame.
    Geneve { words: u8, bridged: bool },
}

const TUNNELS: [Tunnel; 10] = [
    Tunnel::Ip,
    Tunnel::Gre { words: 0 },
    Tunnel::Gre { words: 1 },
    Tunnel::Gre { words: 3 },
    Tunnel::GreBridged,
    Tunnel::Vxlan { port: 4789 },
    Tunnel::Vxlan { port: 8472 },
    Tunnel::Geneve {
        words: 0,
        bridged: true,
    },
    Tunnel::Geneve {
        words: 5,
        bridged: true,
    },
    Tunnel::Geneve {
        words: 1,
        bridged: false,
    },
];

impl Tunnel {
    /// The tunnel's protocol, and its header with the inner datagram.
    fn around(self, inner_v6: bool, inner: &[u8]) -> (u8, Vec<u8>) {
        const BRIDGED: u16 = 0x6558;
        let ip = if inner_v6 { IPV6 } else { IPV4 };
        let frame = build::ethernet(ip, inner);
        match self {
            Self::Ip => (if inner_v6 { 41 } else { 4 }, inner.to_vec()),
            Self::Gre { words } => {
                let flags = [0x00, 0x20, 0xa0, 0xb0][words];
                let header = [&[flags, 0][..], &ip.to_be_bytes()].concat();
                (47, [&header[..], &vec![0; words * 4], inner].concat())
            }
            Self::GreBridged => (47, [&[0, 0], &BRIDGED.to_be_bytes()[..], &frame].concat()),
            Self::Vxlan { port } => {
                let header = [8, 0, 0, 0, 0, 0, 42, 0];
                (17, udp(port, &[&header[..], &frame].concat()))
            }
            Self::Geneve { words, bridged } => {
                let (kind, carried) = if bridged {
                    (BRIDGED, &frame[..])
                } else {
                    (ip, inner)
                };
                let [k0, k1] = kind.to_be_bytes();
                let header = [words, 0, k0, k1, 0, 0, 42, 0];
                let options = vec![0; usize::from(words) * 4];
                (17, udp(6081, &[&header[..], &options, carried].concat()))
            }
        }
    }
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = build::udp(payload);
    datagram.splice(2..4, port.to_be_bytes());
    datagram
}

fn ip(v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if v6 {
        build::ipv6(&[], protocol, payload)
    } else {
        build::plain_ipv4(protocol, payload)
    }
}

/// A frame with so much payload in a TCP segment, or in a UDP datagram, in a tunnel.
fn frame(tunnel: Tunnel, [outer_v6, inner_v6]: [bool; 2], tcp: bool, octets: usize) -> Vec<u8> {
    let payload = vec![0x5a; octets];
    let inner = if tcp {
        // With 12 octets of options, as with timestamps.
        let mut segment = build::tcp(0x10, &[1; 12]);
        segment[12] = 8 << 4;
        segment.extend(payload);
        ip(inner_v6, 6, &segment)
    } else {
        ip(inner_v6, 17, &build::udp(&payload))
    };
    let (protocol, carried) = tunnel.around(inner_v6, &inner);
    let kind = if outer_v6 { IPV6 } else { IPV4 };
    build::ethernet(kind, &ip(outer_v6, protocol, &carried))
}

#[test]
fn super_packets_in_tunnels_count_as_what_the_wire_carries() {
    if skip_unless_root("super_packets_in_tunnels_count_as_what_the_wire_carries") {
        return;
    }
    use TrialProgram::{Egress, Ingress};
    let mut rig = Rig::new(ROOMY, &[(eni(0, false), &[Ingress, Egress])]);
    let metadata = SkbMetadata {
        gso_size: SIZE as u32,
        gso_segs: 3,
        ..SkbMetadata::default()
    };
    let mut wrong = Vec::new();
    for tunnel in TUNNELS {
        for versions in [[false, false], [false, true], [true, false], [true, true]] {
            for tcp in [true, false] {
                // The last segment is shorter than the headers, and all are whole.
                for last in [10, SIZE] {
                    let wire =
                        [SIZE, SIZE, last].map(|octets| frame(tunnel, versions, tcp, octets));
                    let whole = frame(tunnel, versions, tcp, 2 * SIZE + last);
                    rig.send_super_packet(&whole, metadata, &wire);
                }
                if let Err(differences) = rig.check() {
                    wrong.push(format!(
                        "{tunnel:?}, IPv6 outside and inside {versions:?}, TCP {tcp}: {differences}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
