//! Tunnels, as far as super-packets need them: the segments of an encapsulated one repeat the outer and the inner headers.
use crate::{
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    packet::{MAX_OFFSET, Packet},
    transport::{TCP, UDP},
};

const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;

/// An Ethernet frame within GRE or Geneve.
const ETHERTYPE_BRIDGED: u16 = 0x6558;

/// UDP ports of VXLAN: IANA's, and that of Linux before.
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;

const UDP_OCTETS: u32 = 8;
const VXLAN_OCTETS: u32 = 8;
const ETHERNET_OCTETS: u32 = 14;
const IPV6_OCTETS: u32 = 40;

/// Where the payload of the innermost transport header begins, of a packet whose outer transport header begins at `offset`; 0 if it is no
/// tunnel that is known here, or carries something else.
///
/// A function of its own because of the stack.
#[inline(never)]
pub fn payload<P: Packet>(packet: &P, protocol: u8, ports: u32, offset: u32, zero: u32) -> u32 {
    find_payload(packet, protocol, ports, offset, zero).unwrap_or(0)
}

#[inline(always)]
fn find_payload<P: Packet>(
    packet: &P,
    protocol: u8,
    ports: u32,
    offset: u32,
    zero: u32,
) -> Option<u32> {
    let (ethertype, inner) = match protocol {
        IPIP => (ETHERTYPE_IPV4, offset),
        IPV6_IN_IP => (ETHERTYPE_IPV6, offset),
        GRE => gre(packet, offset)?,
        UDP => over_udp(packet, ports, offset)?,
        _ => return None,
    };
    let (ethertype, inner) = if ethertype == ETHERTYPE_BRIDGED {
        let ethertype = u16::from_be(packet.read(inner + 12)?);
        (ethertype, inner + ETHERNET_OCTETS)
    } else {
        (ethertype, inner)
    };
    // One path for the verifier, whichever tunnel it was.
    let inner = (inner + zero) & MAX_OFFSET;
    let (protocol, transport) = match ethertype {
        ETHERTYPE_IPV4 => {
            let header: [u8; 10] = packet.read(inner)?;
            (header[9], inner + u32::from(header[0] & 0xf) * 4)
        }
        ETHERTYPE_IPV6 => {
            let [protocol, _] = packet.read(inner + 6)?;
            (protocol, inner + IPV6_OCTETS)
        }
        _ => return None,
    };
    match protocol {
        TCP => {
            let [data_offset, _] = packet.read(transport + 12)?;
            Some(transport + u32::from(data_offset >> 4) * 4)
        }
        UDP => Some(transport + UDP_OCTETS),
        _ => None,
    }
}

/// GRE (RFC 2784, RFC 2890): what it carries, and where that begins.
#[inline(always)]
fn gre<P: Packet>(packet: &P, offset: u32) -> Option<(u16, u32)> {
    let [flags, _, t0, t1] = packet.read::<[u8; 4]>(offset)?;
    // Checksum, key and sequence number are of 4 octets each.
    let optional =
        u32::from(flags >> 7 & 1) + u32::from(flags >> 5 & 1) + u32::from(flags >> 4 & 1);
    Some((u16::from_be_bytes([t0, t1]), offset + 4 + optional * 4))
}

/// VXLAN (RFC 7348) and Geneve (RFC 8926).
#[inline(always)]
fn over_udp<P: Packet>(packet: &P, ports: u32, offset: u32) -> Option<(u16, u32)> {
    let [_, _, d0, d1] = ports.to_ne_bytes();
    let port = u16::from_be_bytes([d0, d1]);
    let header = offset + UDP_OCTETS;
    if port == VXLAN[0] || port == VXLAN[1] {
        return Some((ETHERTYPE_BRIDGED, header + VXLAN_OCTETS));
    }
    if port != GENEVE {
        return None;
    }
    let [length, _, t0, t1] = packet.read::<[u8; 4]>(header)?;
    Some((
        u16::from_be_bytes([t0, t1]),
        header + 8 + u32::from(length & 0x3f) * 4,
    ))
}
