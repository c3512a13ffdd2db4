//! IPv4 (RFC 791).
use core::mem::MaybeUninit;

use flowlog_common::Volume;

use crate::{
    count::Counted,
    fragment::{self, Datagram, First},
    gso,
    judge::Subject,
    key::{AddressesV4, KeyV4, Rest},
    packet::{MAX_OFFSET, Packet, Plain, Segments},
    session::Ends,
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

/// Reads the packet whose IPv4 header begins at `offset`, and writes its flow's `key`. `None` if its headers are cut short or contradict themselves.
/// `zero` is [`flowlog_common::Active::zero`]; `JUDGE` says whether to read what only sessions need.
#[inline(always)]
pub fn read<'k, P: Packet, const JUDGE: bool>(
    packet: &P,
    offset: u32,
    zero: u32,
    direction: u8,
    key: &'k mut MaybeUninit<KeyV4>,
) -> Option<(Counted, &'k mut KeyV4)> {
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
        let first = First::unpack(recall(packet, offset, direction));
        rest.ports = first.ports;
        let counted = Counted {
            volume: Volume {
                packets: 1,
                bytes: u64::from(octets),
            },
            tcp_flags: 0,
            subject: Subject::of_later_fragment(first.kind),
        };
        return Some((counted, key.write(KeyV4::new(&addresses, &rest))));
    }
    let payload = (offset + header_octets) & MAX_OFFSET;
    let transport = transport::read(packet, header.protocol, payload, offset + octets)?;
    rest.ports = transport.ports;
    let subject =
        Subject::read::<P, JUDGE>(packet, header.protocol, (payload, offset + octets), zero);
    if fragment & MORE_FRAGMENTS != 0 {
        let first = First {
            ports: transport.ports,
            protocol: header.protocol,
            kind: subject.kind,
        };
        remember(packet, offset, direction, first.pack());
    }
    let headers = gso::headers(
        packet,
        segments,
        (offset, payload),
        header.protocol,
        &transport,
        zero,
    );
    let counted = Counted {
        volume: gso::volume(segments, headers, octets),
        tcp_flags: transport.tcp_flags,
        subject,
    };
    Some((counted, key.write(KeyV4::new(&addresses, &rest))))
}

/// The ends of a packet that is quoted at `offset` of a datagram that ends at `end`, without its ports, and where its upper layer begins.
/// `None` if it is a later fragment, or its header is cut short.
#[inline(always)]
pub fn quoted<P: Packet>(packet: &P, offset: u32, end: u32) -> Option<(Ends, u32)> {
    if offset + size_of::<Header>() as u32 > end {
        return None;
    }
    let header: Header = packet.read(offset)?;
    let header_octets = u32::from(header.version_and_length & 0xf) * 4;
    let is_later = u16::from_be(header.fragment) & FRAGMENT_OFFSET != 0;
    if header.version_and_length >> 4 != 4 || header_octets < 20 || is_later {
        return None;
    }
    let ends = Ends {
        src: [header.src_addr, 0, 0, 0],
        dst: [header.dst_addr, 0, 0, 0],
        ports: 0,
        protocol: header.protocol,
        version: 4,
    };
    Some((ends, offset + header_octets))
}

/// Remembers what a first fragment tells; see [`recall`].
#[inline(never)]
fn remember<P: Packet>(packet: &P, offset: u32, direction: u8, first: u64) {
    if let Some(header) = packet.read::<Header>(offset) {
        let key = fragment_key(packet.slot(), &header, direction);
        fragment::remember(&key, first, P::REMEMBER);
    }
}

/// What the first fragment told of the later one at `offset`: [`First::pack`].
///
/// A function of its own, which reads the header again, because of the stack.
#[inline(never)]
fn recall<P: Packet>(packet: &P, offset: u32, direction: u8) -> u64 {
    let Some(header) = packet.read::<Header>(offset) else {
        return 0;
    };
    let key = fragment_key(packet.slot(), &header, direction);
    fragment::recall(&key, header.protocol)
}

#[inline(always)]
fn fragment_key(slot: u32, header: &Header, direction: u8) -> fragment::Key {
    let addresses = [header.src_addr, header.dst_addr].map(|address| [address, 0, 0, 0]);
    let datagram = Datagram {
        id: u32::from(header.id),
        protocol: header.protocol,
        direction,
        version: 4,
    };
    fragment::Key::new(slot, addresses, datagram)
}
