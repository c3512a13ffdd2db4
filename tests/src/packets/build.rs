//! Builders of frames. Everything is well formed unless the caller asks otherwise; lengths and IPv4's checksum are filled in.

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, TcpHeader,
};

use crate::lab::{Mac, NOBODY_MAC};

/// Source MAC address of every crafted frame.
pub const SRC_MAC: Mac = [0x02, 0xf1, 0, 0, 0xff, 0x01];
/// Destination MAC address of every crafted frame: nobody's, so that no stack answers.
pub const DST_MAC: Mac = NOBODY_MAC;
/// Source of IPv4 packets (TEST-NET-1).
pub const SRC_V4: [u8; 4] = [192, 0, 2, 1];
/// Destination of IPv4 packets (TEST-NET-2).
pub const DST_V4: [u8; 4] = [198, 51, 100, 2];
/// Source of IPv6 packets, 2001:db8::1.
pub const SRC_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Destination of IPv6 packets, 2001:db8::2.
pub const DST_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Source port, where there are ports.
pub const SRC_PORT: u16 = 53_870;
/// Destination port, where there are ports.
pub const DST_PORT: u16 = 443;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A frame: addresses, EtherType, payload.
#[must_use]
pub fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ether_type, payload)
}

/// A frame with VLAN tags, each a tag protocol and a VLAN id, outermost first.
#[must_use]
pub fn tagged(tags: &[(u16, u16)], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [DST_MAC, SRC_MAC].concat();
    for (protocol, vlan) in tags {
        frame.extend(protocol.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Where a fragment stands in its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Identification; IPv4 takes the lower 16 bits.
    pub id: u32,
    /// Offset in units of 8 octets, below 8,192.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
}

/// An IPv4 datagram. `options` is cut to 40 octets and padded to a multiple of 4 with "end of options"; a piece that neither
/// has an offset nor more to follow is a whole datagram.
#[must_use]
pub fn ipv4(protocol: u8, options: &[u8], piece: Piece, payload: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    let mut header = Ipv4Header {
        identification: piece.id as u16,
        more_fragments: piece.more,
        fragment_offset: IpFragOffset::try_new(piece.offset & 0x1fff).unwrap_or_default(),
        time_to_live: 64,
        protocol: IpNumber(protocol),
        source: SRC_V4,
        destination: DST_V4,
        // Never fails: the length is a multiple of 4 up to 40.
        options: options.as_slice().try_into().unwrap_or_default(),
        ..Ipv4Header::default()
    };
    header.total_len = (header.header_len() + payload.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// A whole IPv4 datagram without options.
#[must_use]
pub fn plain_ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4(protocol, &[], Piece::default(), payload)
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Any of the headers of RFC 6564's form (hop-by-hop 0, routing 43, destination options 60, mobility 135, HIP 139, Shim6 140)
    /// by its number, with so many units of 8 octets after its first 8.
    Plain(u8, u8),
    /// Authentication (51), with so many units of 4 octets after its first 8; RFC 4302 has at least 1.
    Auth(u8),
    /// Fragment (44).
    Fragment(Piece),
}

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Authentication header.
pub const AUTH: u8 = 51;
/// Destination options.
pub const DESTINATION: u8 = 60;
/// Mobility header.
pub const MOBILITY: u8 = 135;
/// Host Identity Protocol.
pub const HIP: u8 = 139;
/// Shim6.
pub const SHIM6: u8 = 140;
/// The extension headers of the common form.
pub const PLAIN_EXTENSIONS: [u8; 6] = [HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY, HIP, SHIM6];

impl Extension {
    /// Its number, as in the header before it.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Plain(number, _) => number,
            Self::Auth(_) => AUTH,
            Self::Fragment(_) => FRAGMENT,
        }
    }

    /// Its octets.
    #[must_use]
    pub fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Self::Plain(number, units) => {
                let mut bytes = vec![0; (usize::from(units) + 1) * 8];
                bytes[..2].copy_from_slice(&[next, units]);
                if matches!(number, HOP_BY_HOP | DESTINATION) {
                    pad_options(&mut bytes[2..]);
                } else if number == ROUTING {
                    // An experimental type (RFC 4727), no segments left.
                    bytes[2] = 253;
                }
                bytes
            }
            Self::Auth(units) => {
                let mut bytes = vec![0xa5; (usize::from(units) + 2) * 4];
                bytes[..4].copy_from_slice(&[next, units, 0, 0]);
                bytes
            }
            Self::Fragment(Piece { id, offset, more }) => {
                let [high, low] = ((offset << 3) | u16::from(more)).to_be_bytes();
                let [a, b, c, d] = id.to_be_bytes();
                vec![next, 0, high, low, a, b, c, d]
            }
        }
    }
}

/// Fills an option area with `PadN` options (RFC 8200 §4.2).
fn pad_options(area: &mut [u8]) {
    for piece in area.chunks_mut(128) {
        // Areas are 6 octets and a multiple of 8 long: no piece has a single octet.
        if let [kind, length, rest @ ..] = piece {
            *kind = 1;
            *length = rest.len() as u8;
        }
    }
}

/// A chain of extension headers that ends in `upper`, and the number of its first.
#[must_use]
pub fn chain(extensions: &[Extension], upper: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut next = upper;
    let mut bytes = payload.to_vec();
    for extension in extensions.iter().rev() {
        bytes.splice(..0, extension.bytes(next));
        next = extension.number();
    }
    (next, bytes)
}

/// An IPv6 datagram with extension headers.
#[must_use]
pub fn ipv6(extensions: &[Extension], upper: u8, payload: &[u8]) -> Vec<u8> {
    let (next, bytes) = chain(extensions, upper, payload);
    raw_ipv6(next, bytes.len() as u16, &bytes)
}

/// An IPv6 header that says whatever the caller wants, and what follows it.
#[must_use]
pub fn raw_ipv6(next: u8, payload_length: u16, rest: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length,
        next_header: IpNumber(next),
        hop_limit: 64,
        source: SRC_V6,
        destination: DST_V6,
    };
    [&header.to_bytes()[..], rest].concat()
}

/// A TCP header with these flags (octet 13, CWR to FIN) and `payload`; its checksum is 0.
#[must_use]
pub fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let header = TcpHeader::new(SRC_PORT, DST_PORT, 1, 1024);
    let mut bytes = header.to_bytes().to_vec();
    bytes[13] = flags;
    bytes.extend(payload);
    bytes
}

/// A UDP header, without checksum, and `payload`.
#[must_use]
pub fn udp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = ports();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// The four octets with which TCP, UDP, DCCP, SCTP and UDP-Lite begin.
#[must_use]
pub fn ports() -> Vec<u8> {
    [SRC_PORT.to_be_bytes(), DST_PORT.to_be_bytes()].concat()
}

/// A frame as etherparse builds it, with right checksums: TCP with ACK and PSH, or UDP.
#[must_use]
pub fn etherparse_frame(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(SRC_MAC, DST_MAC);
    let ip = if v6 {
        ethernet.ipv6(SRC_V6, DST_V6, 64)
    } else {
        ethernet.ipv4(SRC_V4, DST_V4, 64)
    };
    let mut frame = Vec::new();
    // Writing to memory fails only for a payload over 64 KiB, and then the frame is empty.
    let written = if tcp {
        ip.tcp(SRC_PORT, DST_PORT, 1, 1024)
            .ack(7)
            .psh()
            .write_to_vec(&mut frame, payload)
    } else {
        ip.udp(SRC_PORT, DST_PORT).write_to_vec(&mut frame, payload)
    };
    debug_assert!(written.is_ok());
    frame
}
