//! IPv6 (RFC 8200) and its extension headers.
use flowlog_common::{FragmentKey, Volume};

use crate::{
    count::Counted,
    fragment, gso,
    key::{AddressesV6, KeyV6, Rest},
    packet::{MAX_OFFSET, Packet, Plain, Segments},
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
    First([u8; 4]),
    Later([u8; 4]),
}

/// Reads the packet whose IPv6 header begins at `offset`. `None` if its headers are cut short or contradict themselves.
/// `zero` is [`flowlog_common::Active::zero`].
#[inline(always)]
pub fn read<P: Packet>(
    packet: &P,
    offset: u32,
    zero: u32,
    direction: u8,
) -> Option<Counted<KeyV6>> {
    let header: Header = packet.read(offset)?;
    if header.version >> 4 != 6 {
        return None;
    }
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
    let upper = upper_layer(
        packet,
        header.next_header,
        offset + HEADER_OCTETS,
        end,
        zero,
    )?;
    let addresses = header.addresses;
    let mut rest = Rest {
        ports: 0,
        protocol: upper.protocol,
        direction,
    };
    if let Fragment::Later(id) = upper.fragment {
        if let Some(first) =
            fragment::recall(&fragment_key(packet.slot(), &addresses, direction, id))
        {
            rest.ports = first.ports;
            rest.protocol = first.protocol;
        }
        return Some(Counted {
            key: KeyV6::new(&addresses, &rest),
            volume: Volume {
                packets: 1,
                bytes: u64::from(octets),
            },
            tcp_flags: 0,
        });
    }
    let transport = transport::read(packet, upper.protocol, upper.offset, end)?;
    rest.ports = transport.ports;
    let jumbo = jumbo_option_octets(&header, segments);
    if let Fragment::First(id) = upper.fragment {
        fragment::remember(
            &fragment_key(packet.slot(), &addresses, direction, id),
            transport.ports,
            upper.protocol,
        );
    }
    let headers = gso::headers(
        packet,
        segments,
        (offset, upper.offset),
        upper.protocol,
        &transport,
        zero,
    );
    Some(Counted {
        key: KeyV6::new(&addresses, &rest),
        volume: gso::volume(segments, headers - jumbo, octets - jumbo),
        tcp_flags: transport.tcp_flags,
    })
}

/// Octets of the hop-by-hop options that a super-packet over 64 KiB has within the host and not on the wire (BIG TCP: struct
/// `hop_jumbo_hdr` of include/net/ipv6.h).
#[inline(always)]
fn jumbo_option_octets(header: &Header, segments: Segments) -> u32 {
    match segments {
        Segments::OfPayload(_)
            if header.payload_length == 0 && header.next_header == HOP_BY_HOP =>
        {
            8
        }
        _ => 0,
    }
}

/// Walks the extension headers from `offset` on. A later fragment has no upper-layer header, so its walk ends there.
#[inline(always)]
fn upper_layer<P: Packet>(
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
    for _ in 0..MAX_EXTENSIONS {
        let octets = match upper.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 => {
                let [next, length] = extension::<P, 2>(packet, upper.offset, end)?;
                upper.protocol = next;
                (u32::from(length) + 1) * 8
            }
            AUTHENTICATION => {
                let [next, length] = extension::<P, 2>(packet, upper.offset, end)?;
                upper.protocol = next;
                (u32::from(length) + 2) * 4
            }
            FRAGMENT => {
                let [next, _, o0, o1, i0, i1, i2, i3] =
                    extension::<P, 8>(packet, upper.offset, end)?;
                let fragment = u16::from_be_bytes([o0, o1]);
                upper.protocol = next;
                if fragment & !7 != 0 {
                    upper.fragment = Fragment::Later([i0, i1, i2, i3]);
                    return Some(upper);
                }
                if fragment & 1 != 0 {
                    upper.fragment = Fragment::First([i0, i1, i2, i3]);
                }
                8
            }
            _ => return Some(upper),
        };
        // One path for the verifier, whichever headers there were: else their number grows with each round.
        upper.offset = (upper.offset + octets + zero) & MAX_OFFSET;
        if upper.offset > end {
            return None;
        }
    }
    (!is_extension(upper.protocol)).then_some(upper)
}

#[inline(always)]
fn extension<P: Packet, const N: usize>(packet: &P, offset: u32, end: u32) -> Option<[u8; N]> {
    if offset + N as u32 > end {
        return None;
    }
    packet.read(offset)
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6
    )
}

#[inline(always)]
fn fragment_key(slot: u32, addresses: &AddressesV6, direction: u8, id: [u8; 4]) -> FragmentKey {
    FragmentKey {
        eni: slot,
        id,
        src_addr: octets(addresses.src),
        dst_addr: octets(addresses.dst),
        protocol: 0,
        direction,
        version: 6,
        reserved: 0,
    }
}

#[inline(always)]
fn octets(address: [u32; 4]) -> [u8; 16] {
    // SAFETY: as many octets, and any is a value.
    unsafe { core::mem::transmute(address) }
}
