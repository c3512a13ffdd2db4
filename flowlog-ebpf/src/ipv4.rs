//! IPv4 (RFC 791).
use flowlog_common::{FragmentKey, Volume};

use crate::{
    count::Counted,
    fragment, gso,
    key::{AddressesV4, KeyV4, Rest},
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

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the packet whose IPv4 header begins at `offset`. `None` if its headers are cut short or contradict themselves.
/// `zero` is [`flowlog_common::Active::zero`].
#[inline(always)]
pub fn read<P: Packet>(
    packet: &P,
    offset: u32,
    zero: u32,
    direction: u8,
) -> Option<Counted<KeyV4>> {
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
    let addresses = AddressesV4 {
        src: header.src_addr,
        dst: header.dst_addr,
    };
    let mut rest = Rest {
        ports: 0,
        protocol: header.protocol,
        direction,
    };
    let fragment = u16::from_be(header.fragment);
    if fragment & FRAGMENT_OFFSET != 0 {
        if let Some(first) =
            fragment::recall(&fragment_key(packet.slot(), &addresses, &rest, header.id))
        {
            rest.ports = first.ports;
        }
        return Some(Counted {
            key: KeyV4::new(&addresses, &rest),
            volume: Volume {
                packets: 1,
                bytes: u64::from(octets),
            },
            tcp_flags: 0,
        });
    }
    let payload = (offset + header_octets) & MAX_OFFSET;
    let transport = transport::read(packet, header.protocol, payload, offset + octets)?;
    rest.ports = transport.ports;
    if fragment & MORE_FRAGMENTS != 0 {
        fragment::remember(
            &fragment_key(packet.slot(), &addresses, &rest, header.id),
            transport.ports,
            header.protocol,
        );
    }
    let headers = gso::headers(
        packet,
        segments,
        (offset, payload),
        header.protocol,
        &transport,
        zero,
    );
    Some(Counted {
        key: KeyV4::new(&addresses, &rest),
        volume: gso::volume(segments, headers, octets),
        tcp_flags: transport.tcp_flags,
    })
}

#[inline(always)]
fn fragment_key(slot: u32, addresses: &AddressesV4, rest: &Rest, id: u16) -> FragmentKey {
    let [s0, s1, s2, s3] = addresses.src.to_ne_bytes();
    let [d0, d1, d2, d3] = addresses.dst.to_ne_bytes();
    let [i0, i1] = id.to_ne_bytes();
    FragmentKey {
        eni: slot,
        id: [i0, i1, 0, 0],
        src_addr: [s0, s1, s2, s3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        dst_addr: [d0, d1, d2, d3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        protocol: rest.protocol,
        direction: rest.direction,
        version: 4,
        reserved: 0,
    }
}
