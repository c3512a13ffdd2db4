//! IPv6 (RFC 8200) and its extension headers.
use flowlog_common::{ACTION_ACCEPT, FlowKeyV6, FragmentKey, Volume};

use crate::{
    eni, fragment, gso,
    packet::{MAX_OFFSET, Packet, Segments},
    transport::{self, Transport},
};

/// A counted packet.
pub struct Counted {
    pub key: FlowKeyV6,
    pub volume: Volume,
    pub tcp_flags: u8,
}

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
pub fn read<P: Packet>(packet: &P, offset: u32, zero: u32, direction: u8) -> Option<Counted> {
    let start: [u8; 8] = packet.read(offset)?;
    if start[0] >> 4 != 6 {
        return None;
    }
    let present = packet.octets() - offset;
    let said = HEADER_OCTETS + u32::from(u16::from_be_bytes([start[4], start[5]]));
    let segments = packet.segments(said);
    let octets = match segments {
        Segments::One | Segments::OfDatagram(_) => said,
        Segments::OfPayload(_) | Segments::Count(_) => present,
    };
    if octets > present {
        return None;
    }
    let mut key = FlowKeyV6 {
        eni: eni::slot(),
        src_addr: packet.read(offset + 8)?,
        dst_addr: packet.read(offset + 24)?,
        src_port: [0; 2],
        dst_port: [0; 2],
        protocol: 0,
        direction,
        action: ACTION_ACCEPT,
        reserved: 0,
    };
    let end = offset + octets;
    let upper = upper_layer(packet, start[6], offset + HEADER_OCTETS, end, zero)?;
    key.protocol = upper.protocol;
    if let Fragment::Later(id) = upper.fragment {
        if let Some(ports) = fragment::recall(&fragment_key(&key, id)) {
            key.src_port = ports.src_port;
            key.dst_port = ports.dst_port;
            key.protocol = ports.protocol;
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
    let transport: Transport = transport::read(packet, upper.protocol, upper.offset, end)?;
    key.src_port = transport.src_port;
    key.dst_port = transport.dst_port;
    if let Fragment::First(id) = upper.fragment {
        fragment::remember(&fragment_key(&key, id), &transport, upper.protocol);
    }
    let volume = gso::volume(
        packet,
        segments,
        offset,
        upper.offset,
        upper.protocol,
        &transport,
        octets,
    );
    Some(Counted {
        key,
        volume,
        tcp_flags: transport.tcp_flags,
    })
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
fn fragment_key(key: &FlowKeyV6, id: [u8; 4]) -> FragmentKey {
    FragmentKey {
        eni: key.eni,
        id,
        src_addr: key.src_addr,
        dst_addr: key.dst_addr,
        protocol: 0,
        direction: key.direction,
        version: 6,
        reserved: 0,
    }
}
