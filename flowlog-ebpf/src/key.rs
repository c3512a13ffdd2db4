//! Flow keys on the stack, written in the widest words.
//!
//! The kernel hashes a key by words of 4 octets and compares it by words of 8. Were the key written field by field, those reads would
//! span several writes that have just been made, and each would wait until they have left the store buffer.
mod rewrite;

use flowlog_common::{ACTION_ACCEPT, FlowKeyV4, FlowKeyV6};

pub use rewrite::FlowKey;

use crate::eni;

/// The addresses of an IPv4 header, each as it lies in the packet.
#[derive(Clone, Copy)]
pub struct AddressesV4 {
    pub src: u32,
    pub dst: u32,
}

/// The addresses of an IPv6 header, each as it lies in the packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AddressesV6 {
    pub src: [u32; 4],
    pub dst: [u32; 4],
}

/// What a key has besides the addresses.
#[derive(Clone, Copy)]
pub struct Rest {
    /// Both ports as they lie in the packet, the source's first.
    pub ports: u32,
    pub protocol: u8,
    pub direction: u8,
}

impl Rest {
    #[inline(always)]
    fn last_word(&self) -> u32 {
        u32::from_ne_bytes([self.protocol, self.direction, ACTION_ACCEPT, 0])
    }
}

/// A [`FlowKeyV4`].
#[repr(C)]
pub struct KeyV4 {
    words: [u64; 2],
    last: u32,
}

impl KeyV4 {
    #[inline(always)]
    pub fn new(addresses: &AddressesV4, rest: &Rest) -> Self {
        Self {
            words: [
                pair(eni::slot(), addresses.src),
                pair(addresses.dst, rest.ports),
            ],
            last: rest.last_word(),
        }
    }
}

impl AsRef<FlowKeyV4> for KeyV4 {
    #[inline(always)]
    fn as_ref(&self) -> &FlowKeyV4 {
        const { assert!(size_of::<KeyV4>() >= size_of::<FlowKeyV4>()) };
        // SAFETY: the words are those of a `FlowKeyV4` in order, of which any bit pattern is a value; alignment is 8 for 4.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// A [`FlowKeyV6`].
#[repr(C)]
pub struct KeyV6 {
    words: [u64; 5],
    last: u32,
}

impl KeyV6 {
    #[inline(always)]
    pub fn new(addresses: &AddressesV6, rest: &Rest) -> Self {
        let AddressesV6 {
            src: [s0, s1, s2, s3],
            dst: [d0, d1, d2, d3],
        } = *addresses;
        Self {
            words: [
                pair(eni::slot(), s0),
                pair(s1, s2),
                pair(s3, d0),
                pair(d1, d2),
                pair(d3, rest.ports),
            ],
            last: rest.last_word(),
        }
    }
}

impl AsRef<FlowKeyV6> for KeyV6 {
    #[inline(always)]
    fn as_ref(&self) -> &FlowKeyV6 {
        const { assert!(size_of::<KeyV6>() >= size_of::<FlowKeyV6>()) };
        // SAFETY: as for IPv4.
        unsafe { &*(&raw const *self).cast() }
    }
}

/// Two words as they lie one after the other in memory; the target is little endian.
#[inline(always)]
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}
