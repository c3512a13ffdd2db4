//! IPv6 (RFC 8200) and its extension headers.
use core::mem::MaybeUninit;

use flowlog_common::Volume;

use crate::{
    count::Counted,
    fragment::{self, Datagram, First},
    gso,
    judge::Subject,
    key::{AddressedV6, AddressesV6, KeyV6, Rest},
    packet::{MAX_OFFSET, Packet, Plain, Segments},
    session::Ends,
    transport,
};

/// The fixed header, in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: u8,
    flow: [u8; 3],
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    addresses: AddressesV6,
}
const _: () = assert!(size_of::<Header>() == HEADER_OCTETS as usize);
// SAFETY: integers, 40 octets of them without padding.
unsafe impl Plain for Header {}

/// Octets of the fixed header.
const HEADER_OCTETS: u32 = 40;

/// Extension headers that are walked; a packet with more is counted as unparsable.
const MAX_EXTENSIONS: usize = 12;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// What the extension headers lead to.
struct UpperLayer {
    protocol: u8,
    offset: u32,
    fragment: Fragment,
}

#[derive(Clone, Copy)]
enum Fragment {
    Whole,
    /// With the identification, as it lies in the packet.
    First(u32),
    Later(u32),
}

/// Reads the packet whose IPv6 header begins at `offset`, and writes its flow's `key`. `None` if its headers are cut short or contradict themselves.
/// `zero` is [`flowlog_common::Active::zero`]; `JUDGE` says whether to read what only sessions need.
#[inline(always)]
pub fn read<'k, P: Packet, const JUDGE: bool>(
    packet: &P,
    offset: u32,
    zero: u32,
    direction: u8,
    key: &'k mut MaybeUninit<KeyV6>,
) -> Option<(Counted, &'k mut KeyV6)> {
    let header: Header = packet.read(offset)?;
    if header.version >> 4 != 6 {
        return None;
    }
    let key = AddressedV6::new(key, &header.addresses);
    let present = packet.octets() - offset;
    let said = HEADER_OCTETS + u32::from(u16::from_be(header.payload_length));
    let segments = packet.segments(said);
    let octets = match segments {
        Segments::One | Segments::OfDatagram(_) => said,
        Segments::OfPayload(_) | Segments::Count(_) => present,
    };
    if octets > present {
        return None;
    }
    let end = offset + octets;
    let upper = upper_layer::<P, MAX_EXTENSIONS>(
        packet,
        header.next_header,
        offset + HEADER_OCTETS,
        end,
        zero,
    )?;
    let mut rest = Rest {
        ports: 0,
        protocol: upper.protocol,
        direction,
    };
    if let Fragment::Later(id) = upper.fragment {
        let protocol_and_direction = u32::from(upper.protocol) << 8 | u32::from(direction);
        let first = First::unpack(recall(packet, offset, id, protocol_and_direction));
        rest.ports = first.ports;
        rest.protocol = first.protocol;
        let counted = Counted {
            volume: Volume {
                packets: 1,
                bytes: u64::from(octets),
            },
            tcp_flags: 0,
            subject: Subject::of_later_fragment(first.kind),
        };
        return Some((counted, key.finish(&rest)));
    }
    let transport = transport::read(packet, upper.protocol, upper.offset, end)?;
    rest.ports = transport.ports;
    let jumbo = jumbo_option_octets(header.payload_length, header.next_header, segments);
    let subject = Subject::read::<P, JUDGE>(packet, upper.protocol, (upper.offset, end), zero);
    if let Fragment::First(id) = upper.fragment {
        let first = First {
            ports: transport.ports,
            protocol: upper.protocol,
            kind: subject.kind,
        };
        remember(packet, offset, id, direction, first.pack());
    }
    let headers = gso::headers(
        packet,
        segments,
        (offset, upper.offset),
        upper.protocol,
        &transport,
        zero,
    );
    let counted = Counted {
        volume: gso::volume(segments, headers - jumbo, octets - jumbo),
        tcp_flags: transport.tcp_flags,
        subject,
    };
    Some((counted, key.finish(&rest)))
}

/// Extension headers that are walked of a packet that an ICMP error quotes; with more, it is of no session.
const MAX_QUOTED_EXTENSIONS: usize = 4;

/// The ends of a packet that is quoted at `offset` of a datagram that ends at `end`, without its ports, and where its upper layer begins.
/// `None` if it is a later fragment, or its headers are cut short.
#[inline(always)]
pub fn quoted<P: Packet>(packet: &P, offset: u32, end: u32, zero: u32) -> Option<(Ends, u32)> {
    let upper = offset + HEADER_OCTETS;
    if upper > end {
        return None;
    }
    let header: Header = packet.read(offset)?;
    if header.version >> 4 != 6 {
        return None;
    }
    let next = header.next_header;
    let upper = upper_layer::<P, MAX_QUOTED_EXTENSIONS>(packet, next, upper, end, zero)?;
    if let Fragment::Later(_) = upper.fragment {
        return None;
    }
    let ends = Ends {
        src: header.addresses.src,
        dst: header.addresses.dst,
        ports: 0,
        protocol: upper.protocol,
        version: 6,
    };
    Some((ends, upper.offset))
}

/// Octets of the hop-by-hop options that a super-packet over 64 KiB has within the host and not on the wire (BIG TCP: struct
/// `hop_jumbo_hdr` of include/net/ipv6.h).
#[inline(always)]
fn jumbo_option_octets(payload_length: u16, next_header: u8, segments: Segments) -> u32 {
    match segments {
        Segments::OfPayload(_) if payload_length == 0 && next_header == HOP_BY_HOP => 8,
        _ => 0,
    }
}

/// Walks up to `MAX` extension headers from `offset` on. A later fragment has no upper-layer header, so its walk ends there.
#[inline(always)]
fn upper_layer<P: Packet, const MAX: usize>(
    packet: &P,
    next: u8,
    offset: u32,
    end: u32,
    zero: u32,
) -> Option<UpperLayer> {
    let mut upper = UpperLayer {
        protocol: next,
        offset: (offset + zero) & MAX_OFFSET,
        fragment: Fragment::Whole,
    };
    for _ in 0..MAX {
        if !is_extension(upper.protocol) {
            return Some(upper);
        }
        // None is shorter. One way to read them all: else the verifier's paths grow with each round.
        if upper.offset + 8 > end {
            return None;
        }
        let [next, length, o0, o1, i0, i1, i2, i3] = packet.read::<[u8; 8]>(upper.offset)?;
        let octets = match upper.protocol {
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            FRAGMENT => {
                let fragment = u16::from_be_bytes([o0, o1]);
                let id = u32::from_ne_bytes([i0, i1, i2, i3]);
                if fragment & !7 != 0 {
                    upper.protocol = next;
                    upper.fragment = Fragment::Later(id);
                    return Some(upper);
                }
                if fragment & 1 != 0 {
                    upper.fragment = Fragment::First(id);
                }
                8
            }
            _ => (u32::from(length) + 1) * 8,
        };
        upper.protocol = next;
        // One path for the verifier, whichever headers there were.
        upper.offset = (upper.offset + octets + zero) & MAX_OFFSET;
        if upper.offset > end {
            return None;
        }
    }
    (!is_extension(upper.protocol)).then_some(upper)
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6
    )
}

/// Remembers what a first fragment tells; see [`recall`].
#[inline(never)]
fn remember<P: Packet>(packet: &P, offset: u32, id: u32, direction: u8, first: u64) {
    if let Some(header) = packet.read::<Header>(offset) {
        let key = fragment_key(packet.slot(), &header.addresses, direction, id);
        fragment::remember(&key, first, P::REMEMBER);
    }
}

/// What the first fragment told of the later one at `offset`: [`First::pack`]. The protocol, which is that of the later one's own header, is
/// in the second octet beside the direction.
///
/// A function of its own, which reads the header again, because of the stack.
#[inline(never)]
fn recall<P: Packet>(packet: &P, offset: u32, id: u32, protocol_and_direction: u32) -> u64 {
    let [direction, protocol, _, _] = protocol_and_direction.to_ne_bytes();
    let Some(header) = packet.read::<Header>(offset) else {
        return 0;
    };
    let key = fragment_key(packet.slot(), &header.addresses, direction, id);
    fragment::recall(&key, protocol)
}

#[inline(always)]
fn fragment_key(slot: u32, addresses: &AddressesV6, direction: u8, id: u32) -> fragment::Key {
    let datagram = Datagram {
        id,
        protocol: 0,
        direction,
        version: 6,
    };
    fragment::Key::new(slot, [addresses.src, addresses.dst], datagram)
}
