//! ICMP (RFC 792) and ICMPv6 (RFC 4443), as far as sessions need them.
use core::mem::MaybeUninit;

use flowlog_common::{DIRECTION_OUT, PacketKind};

use crate::{
    ipv4, ipv6,
    packet::{MAX_OFFSET, Packet},
    session::Key,
    transport,
};

pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// Octets of the header, also that of an error, behind which it quotes a packet.
const HEADER_OCTETS: u32 = 8;

/// What kind of packet it is to sessions, and a query's identifier: a word, as [`flowlog_common::FragmentPorts`] has them in memory behind
/// the protocol, whose octet is 0 here. So the verifier has one number to tell paths apart by, and not two.
#[derive(Clone, Copy)]
pub struct Kind(u32);

impl Kind {
    /// Not ICMP.
    pub const TUPLE: Self = Self::new(PacketKind::Tuple);
    /// Of no session.
    pub const ALONE: Self = Self::new(PacketKind::Alone);

    const fn new(kind: PacketKind) -> Self {
        Self((kind as u32) << 8)
    }

    /// Of the packet whose header begins at `offset` of a datagram that ends at `end`. `zero` is [`flowlog_common::Active::zero`].
    #[inline(always)]
    pub fn read<P: Packet>(packet: &P, protocol: u8, offset: u32, end: u32, zero: u32) -> Self {
        if protocol == ICMP || protocol == ICMPV6 {
            Self(read_kind(packet, protocol, offset, end, zero))
        } else {
            Self::TUPLE
        }
    }

    /// From the first fragment's word, with the protocol.
    #[inline(always)]
    pub fn from_word(word: u32) -> Self {
        Self(word & !0xff)
    }

    /// That word.
    #[inline(always)]
    pub fn to_word(self, protocol: u8) -> u32 {
        self.0 | u32::from(protocol)
    }

    #[inline(always)]
    pub fn is_tuple(self) -> bool {
        self.0 & 0xff00 == Self::TUPLE.0
    }

    #[inline(always)]
    pub fn kind(self) -> PacketKind {
        PacketKind::from_number((self.0 >> 8) as u8)
    }

    /// Of a query, as it lies in the packet.
    #[inline(always)]
    pub fn identifier(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The same, of which the verifier knows nothing any more.
    #[inline(always)]
    pub fn forgotten(self, zero: u32) -> Self {
        Self(self.0.wrapping_add(zero))
    }
}

/// The word of [`Kind`], which to the verifier is any: it tells no path apart from another.
///
/// A function of its own because of the stack.
#[inline(never)]
fn read_kind<P: Packet>(packet: &P, protocol: u8, offset: u32, end: u32, zero: u32) -> u32 {
    let alone = Kind::ALONE.0.wrapping_add(zero);
    if offset + HEADER_OCTETS > end {
        return alone;
    }
    let Some([icmp_type, _, _, _, i0, i1, _, _]) = packet.read::<[u8; 8]>(offset) else {
        return alone;
    };
    let kind = kind_of(protocol, icmp_type) as u8;
    u32::from_ne_bytes([0, kind, i0, i1]).wrapping_add(zero)
}

#[inline(always)]
fn kind_of(protocol: u8, icmp_type: u8) -> PacketKind {
    match (protocol, icmp_type) {
        // Echo, timestamp, information, address mask; RFC 792 and RFC 950.
        (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128) => PacketKind::Request,
        (ICMP, 0 | 14 | 16 | 18) | (ICMPV6, 129) => PacketKind::Reply,
        // Unreachable, time exceeded, parameter problem; for ICMPv6 packet too big too.
        (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => PacketKind::Error,
        // Solicitations and advertisements of routers and neighbours.
        (ICMPV6, 133..=136) => PacketKind::NeighborDiscovery,
        _ => PacketKind::Alone,
    }
}

/// Where an ICMP error is.
pub struct Error {
    /// Where it begins and ends, as [`MAX_OFFSET`] bounds the first.
    pub offset: u32,
    pub end: u32,
    /// Of IP.
    pub version: u8,
    pub direction: u8,
}

impl Error {
    /// In one word, for functions take few arguments.
    #[inline(always)]
    pub fn pack(&self) -> u64 {
        const { assert!(MAX_OFFSET <= 0xffff) };
        let [o0, o1, _, _] = self.offset.to_ne_bytes();
        let low = u32::from_ne_bytes([o0, o1, self.version, self.direction]);
        u64::from(low) | u64::from(self.end) << 32
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Self {
        let [o0, o1, version, direction] = (packed as u32).to_ne_bytes();
        Self {
            offset: u32::from_ne_bytes([o0, o1, 0, 0]),
            end: (packed >> 32) as u32,
            version,
            direction,
        }
    }
}

/// Makes `key` that of the session of the packet that an error quotes, which went the other way than the error. `false` if it is cut
/// short, a later fragment, or of no session. `packed` is [`Error::pack`].
///
/// A function of its own because of the stack.
#[inline(never)]
pub fn quoted<P: Packet>(packet: &P, key: &mut MaybeUninit<Key>, packed: u64, zero: u32) -> bool {
    match read_quoted(packet, &Error::unpack(packed), zero) {
        Some(found) => {
            key.write(found);
            true
        }
        None => false,
    }
}

#[inline(always)]
fn read_quoted<P: Packet>(packet: &P, error: &Error, zero: u32) -> Option<Key> {
    let offset = (error.offset + HEADER_OCTETS + zero) & MAX_OFFSET;
    let end = error.end;
    let direction = error.direction ^ DIRECTION_OUT;
    let (mut ends, upper) = if error.version == 6 {
        ipv6::quoted(packet, offset, end, zero)?
    } else {
        ipv4::quoted(packet, offset, end)?
    };
    let upper = (upper + zero) & MAX_OFFSET;
    let of = Kind::read(packet, ends.protocol, upper, end, zero);
    match of.kind() {
        PacketKind::Tuple => {
            ends.ports = transport::read_ports(packet, ends.protocol, upper, end)?;
            Some(Key::new(&ends, direction))
        }
        kind @ (PacketKind::Request | PacketKind::Reply) => {
            let mut key = Key::new(&ends, direction);
            key.make_query(kind, of.identifier(), direction);
            Some(key)
        }
        _ => None,
    }
}
