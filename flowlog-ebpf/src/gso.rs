//! Super-packets: what the wire would carry of a packet that is segmented later (GSO) or was merged before (GRO).
use flowlog_common::Volume;

use crate::{
    packet::{Packet, Segments},
    transport::Transport,
    tunnel,
};

/// Octets of the headers that each segment of a packet has: from its network header at `network` to the payload that is cut into
/// segments. Its transport header begins at `offset`.
#[inline(always)]
pub fn headers<P: Packet>(
    packet: &P,
    segments: Segments,
    (network, offset): (u32, u32),
    protocol: u8,
    transport: &Transport,
    zero: u32,
) -> u32 {
    let inner = match segments {
        Segments::OfPayload(_) => tunnel::payload(packet, protocol, transport.ports, offset, zero),
        _ => 0,
    };
    let payload = if inner == 0 {
        offset + transport.header_octets
    } else {
        inner
    };
    payload - network
}

/// The volume of a datagram of `octets`, of which `headers` are its network and transport headers: each segment after the first
/// repeats them.
#[inline(always)]
pub fn volume(segments: Segments, headers: u32, octets: u32) -> Volume {
    let carried = octets.saturating_sub(headers);
    let packets = match segments {
        Segments::One => 1,
        Segments::OfPayload(size) => div_ceil(carried, size),
        Segments::Count(count) => count,
        Segments::OfDatagram(size) if size > headers => div_ceil(carried, size - headers),
        Segments::OfDatagram(_) => 1,
    }
    .max(1);
    Volume {
        packets: u64::from(packets),
        bytes: u64::from(octets) + u64::from(packets - 1) * u64::from(headers),
    }
}

/// Rounds up. A plain division would bring in a panic for a divisor of 0, which the verifier refuses.
#[inline(always)]
fn div_ceil(dividend: u32, divisor: u32) -> u32 {
    (dividend + divisor - 1).checked_div(divisor).unwrap_or(1)
}
