//! First fragments have the ports; later ones find them here.
use flowlog_common::{FragmentKey, FragmentPorts};

use crate::{icmp::Kind, key::pair, maps::FRAGMENTS};

/// A [`FragmentKey`], in the widest words: the compiler joins what is written octet by octet in ways that the verifier refuses.
#[repr(C)]
pub struct Key {
    words: [u64; 5],
    last: u32,
}

/// What identifies a datagram besides its addresses.
#[derive(Clone, Copy)]
pub struct Datagram {
    /// As it lies in the packet.
    pub id: u32,
    /// Of IPv4, else 0.
    pub protocol: u8,
    pub direction: u8,
    /// 4 or 6.
    pub version: u8,
}

impl Key {
    /// Of the ENI in `slot`; of IPv4 the address is in the first word.
    #[inline(always)]
    pub fn new(slot: u32, [src, dst]: [[u32; 4]; 2], datagram: Datagram) -> Self {
        let [s0, s1, s2, s3] = src;
        let [d0, d1, d2, d3] = dst;
        let Datagram {
            id,
            protocol,
            direction,
            version,
        } = datagram;
        Self {
            words: [
                pair(slot, id),
                pair(s0, s1),
                pair(s2, s3),
                pair(d0, d1),
                pair(d2, d3),
            ],
            last: u32::from_ne_bytes([protocol, direction, version, 0]),
        }
    }
}

impl AsRef<FragmentKey> for Key {
    #[inline(always)]
    fn as_ref(&self) -> &FragmentKey {
        const { assert!(size_of::<Key>() >= size_of::<FragmentKey>()) };
        // SAFETY: the words are those of a `FragmentKey` in order, of which any bit pattern is a value; alignment is 8 for 4.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// What a first fragment told.
#[derive(Clone, Copy)]
pub struct First {
    /// Both ports as they lie in the packet, the source's first.
    pub ports: u32,
    pub protocol: u8,
    pub kind: Kind,
}

impl First {
    /// In one word, for functions take few arguments: as a [`FragmentPorts`] lies in memory.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        pair(self.ports, self.kind.to_word(self.protocol))
    }

    #[inline(always)]
    pub fn unpack(packed: u64) -> Self {
        let upper = (packed >> 32) as u32;
        Self {
            ports: packed as u32,
            protocol: upper as u8,
            kind: Kind::from_word(upper),
        }
    }
}

const _: () = assert!(size_of::<FragmentPorts>() == size_of::<u64>());

/// Remembers what a first fragment tells, which is [`First::pack`]; `flags` are [`crate::packet::Packet::REMEMBER`].
#[inline(always)]
pub fn remember(key: &Key, first: u64, flags: u64) {
    // SAFETY: as many octets, of which any are a value; alignment is 8 for 1.
    let ports: &FragmentPorts = unsafe { &*(&raw const first).cast() };
    // Where there is no room, later fragments are counted with ports 0.
    let _ = FRAGMENTS.insert(key.as_ref(), ports, flags);
}

/// What the first fragment told, if it came by and is not forgotten: [`First::pack`]. Else `protocol`, ports 0, and that it is of no
/// session.
#[inline(always)]
pub fn recall(key: &Key, protocol: u8) -> u64 {
    // SAFETY: read at once. Another CPU may write the same entry meanwhile only for another datagram with the same addresses and
    // identification, for which either answer is as good.
    match unsafe { FRAGMENTS.get(key.as_ref()) } {
        // SAFETY: values are at multiples of 8, and as many octets long.
        Some(ports) => unsafe { (&raw const *ports).cast::<u64>().read() },
        None => First {
            ports: 0,
            protocol,
            kind: Kind::ALONE,
        }
        .pack(),
    }
}
