//! Frames from the wire's left end to its right end, or by way of that to somewhere else.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowlog_tests::lab::Mac;

/// Addresses of the wire's ends, as `VethPlan::between` gives them.
const LEFT_MAC: Mac = [0x02, 0xf1, 0, 0, 0, 1];
const RIGHT_MAC: Mac = [0x02, 0xf1, 0, 0, 0, 2];
const LEFT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const LEFT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);

const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_DESTINATION_OPTIONS: u8 = 60;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What an IP datagram carries: its protocol and its octets.
#[derive(Clone)]
pub(crate) struct Carried {
    protocol: u8,
    octets: Vec<u8>,
}

/// The address of the other side.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A UDP datagram to an address.
pub(crate) fn udp(to: IpAddr, (from_port, to_port): (u16, u16), payload: usize) -> Carried {
    let length = (8 + payload) as u16;
    let mut octets = ports(from_port, to_port);
    octets.extend(length.to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(vec![0x5a; payload]);
    with_checksum(to, UDP, octets, 6)
}

/// A TCP segment without payload, with these flags.
pub(crate) fn tcp(to: IpAddr, (from_port, to_port): (u16, u16), flags: u8) -> Carried {
    let mut octets = ports(from_port, to_port);
    octets.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    with_checksum(to, TCP, octets, 16)
}

/// An echo request.
pub(crate) fn echo(to: IpAddr, id: u16, payload: usize) -> Carried {
    let (protocol, kind) = if to.is_ipv4() {
        (ICMP, 8)
    } else {
        (ICMPV6, 128)
    };
    let mut octets = vec![kind, 0, 0, 0];
    octets.extend(id.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(vec![0x5a; payload]);
    with_checksum(to, protocol, octets, 2)
}

impl Carried {
    /// The same with a checksum that is wrong.
    pub(crate) fn damaged(mut self) -> Self {
        if let Some(last) = self.octets.last_mut() {
            *last ^= 0xff;
        }
        self
    }

    /// Behind an IPv6 header of destination options.
    pub(crate) fn behind_options(self) -> Self {
        let mut octets = vec![self.protocol, 0, 1, 4, 0, 0, 0, 0];
        octets.extend(self.octets);
        Self {
            protocol: IPV6_DESTINATION_OPTIONS,
            octets,
        }
    }
}

/// A frame with the whole of it.
pub(crate) fn frame(to: IpAddr, carried: &Carried) -> Vec<u8> {
    frame_from(source(to), to, carried)
}

/// Likewise, from a source of one's own.
pub(crate) fn frame_from(from: IpAddr, to: IpAddr, carried: &Carried) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ethernet(&ipv4((from, to), carried.protocol, 0, &carried.octets))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ethernet(&ipv6((from, to), carried.protocol, &carried.octets))
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// A frame with VLAN tags, outermost first.
pub(crate) fn tagged(tags: &[u16], frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let mut tagged = addresses.to_vec();
    for vlan in tags {
        tagged.extend([0x81, 0]);
        tagged.extend(vlan.to_be_bytes());
    }
    tagged.extend(rest);
    tagged
}

/// A frame for each fragment, of which the payloads are of these lengths: multiples of 8, and the rest in the last one.
pub(crate) fn fragments(to: IpAddr, carried: &Carried, lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut offset = 0;
    let last = carried.octets.len() - lengths.iter().sum::<usize>();
    for (index, length) in lengths.iter().chain([&last]).enumerate() {
        let more = index < lengths.len();
        let part = &carried.octets[offset..offset + length];
        frames.push(match (source(to), to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
                ethernet(&ipv4((from, to), carried.protocol, field, part))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let field = offset as u16 | u16::from(more);
                let mut octets = vec![carried.protocol, 0];
                octets.extend(field.to_be_bytes());
                octets.extend([0, 0, 0, 7]);
                octets.extend(part);
                ethernet(&ipv6((from, to), IPV6_FRAGMENT, &octets))
            }
            _ => panic!("another family"),
        });
        offset += length;
    }
    frames
}

fn source(to: IpAddr) -> IpAddr {
    if to.is_ipv4() {
        LEFT_V4.into()
    } else {
        LEFT_V6.into()
    }
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

fn ethernet(datagram: &[u8]) -> Vec<u8> {
    let kind = if datagram[0] >> 4 == 4 { IPV4 } else { IPV6 };
    let mut frame = [RIGHT_MAC, LEFT_MAC].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(datagram);
    frame
}

fn ipv4((from, to): (Ipv4Addr, Ipv4Addr), protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(((20 + payload.len()) as u16).to_be_bytes());
    header.extend([0, 7]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header.extend(payload);
    header
}

fn ipv6((from, to): (Ipv6Addr, Ipv6Addr), next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next, 64]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(payload);
    header
}

/// Fills in the checksum at `at`, which covers the addresses too, but for ICMP over IPv4.
fn with_checksum(to: IpAddr, protocol: u8, mut octets: Vec<u8>, at: usize) -> Carried {
    let mut summed = Vec::new();
    if protocol != ICMP {
        match (source(to), to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                summed.extend([from.octets(), to.octets()].concat());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                summed.extend([from.octets(), to.octets()].concat());
            }
            _ => panic!("another family"),
        }
        summed.extend(u32::from(protocol).to_be_bytes());
        summed.extend((octets.len() as u32).to_be_bytes());
    }
    summed.extend(&octets);
    octets[at..at + 2].copy_from_slice(&checksum(&summed).to_be_bytes());
    Carried { protocol, octets }
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
