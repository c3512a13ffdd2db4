//! IPv4 (RFC 791).
use flowlog_common::{ACTION_ACCEPT, FlowKeyV4, FragmentKey, Volume};

use crate::{
    eni, fragment, gso,
    packet::{MAX_OFFSET, Packet, Plain, Segments},
    transport,
};

/// The fixed part of the header, in network byte order. Whole words: octet by octet, the loads would be four times as many.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    id: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    src_addr: u32,
    dst_addr: u32,
}
const _: () = assert!(size_of::<Header>() == 20);
// SAFETY: integers, 20 octets of them without padding.
unsafe impl Plain for Header {}

/// A counted packet.
pub struct Counted {
    pub key: FlowKeyV4,
    pub volume: Volume,
    pub tcp_flags: u8,
}

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the packet whose IPv4 header begins at `offset`. `None` if its headers are cut short or contradict themselves.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, offset: u32, direction: u8) -> Option<Counted> {
    let header: Header = packet.read(offset)?;
    let header_octets = u32::from(header.version_and_length & 0xf) * 4;
    if header.version_and_length >> 4 != 4 || header_octets < 20 {
        return None;
    }
    let present = packet.octets() - offset;
    let said = u32::from(u16::from_be(header.total_length));
    let segments = packet.segments(said);
    let octets = match segments {
        Segments::One | Segments::OfDatagram(_) => said,
        // A super-packet can be longer than the field can say; what it carries is never padded.
        Segments::OfPayload(_) | Segments::Count(_) => present,
    };
    if octets < header_octets || octets > present {
        return None;
    }
    let mut key = FlowKeyV4 {
        eni: eni::slot(),
        src_addr: header.src_addr.to_ne_bytes(),
        dst_addr: header.dst_addr.to_ne_bytes(),
        src_port: [0; 2],
        dst_port: [0; 2],
        protocol: header.protocol,
        direction,
        action: ACTION_ACCEPT,
        reserved: 0,
    };
    let fragment = u16::from_be(header.fragment);
    if fragment & FRAGMENT_OFFSET != 0 {
        if let Some(ports) = fragment::recall(&fragment_key(&key, header.id.to_ne_bytes())) {
            key.src_port = ports.src_port;
            key.dst_port = ports.dst_port;
        }
        return Some(Counted {
            key,
            volume: Volume {
                packets: 1,
                bytes: u64::from(octets),
            },
            tcp_flags: 0,
        });
    }
    let payload = (offset + header_octets) & MAX_OFFSET;
    let end = offset + octets;
    let transport = transport::read(packet, header.protocol, payload, end)?;
    key.src_port = transport.src_port;
    key.dst_port = transport.dst_port;
    if fragment & MORE_FRAGMENTS != 0 {
        fragment::remember(
            &fragment_key(&key, header.id.to_ne_bytes()),
            &transport,
            header.protocol,
        );
    }
    let volume = gso::volume(
        packet,
        segments,
        offset,
        payload,
        header.protocol,
        &transport,
        octets,
    );
    Some(Counted {
        key,
        volume,
        tcp_flags: transport.tcp_flags,
    })
}

#[inline(always)]
fn fragment_key(key: &FlowKeyV4, id: [u8; 2]) -> FragmentKey {
    let mut src_addr = [0; 16];
    let mut dst_addr = [0; 16];
    [src_addr[0], src_addr[1], src_addr[2], src_addr[3]] = key.src_addr;
    [dst_addr[0], dst_addr[1], dst_addr[2], dst_addr[3]] = key.dst_addr;
    FragmentKey {
        eni: key.eni,
        id: [id[0], id[1], 0, 0],
        src_addr,
        dst_addr,
        protocol: key.protocol,
        direction: key.direction,
        version: 4,
        reserved: 0,
    }
}
