//! Flow keys on the stack, written in the widest words.
//!
//! The kernel hashes a key by words of 4 octets and compares it by words of 8. Were the key written field by field, those reads would
//! span several writes that have just been made, and each would wait until they have left the store buffer.
mod rewrite;

use flowlog_common::{ACTION_ACCEPT, FlowKeyV4, FlowKeyV6};

pub use rewrite::FlowKey;

use crate::{eni, session::Ends};

/// A flow's key that can become the key of another flow of the same session.
pub trait Key {
    /// Makes it that of the flow with this action.
    fn set_action(&mut self, action: u8);

    /// Makes it that of the flow in the other direction.
    fn reverse(&mut self);

    /// The ends of its packets.
    fn ends(&self) -> Ends;

    /// Leaves it as it is, but the verifier forgets what it knows of it. `zero` is [`flowlog_common::Active::zero`].
    fn forget(&mut self, zero: u32);

    /// 4 or 6.
    const VERSION: u8;
}

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
    /// Not written yet.
    pub const UNWRITTEN: Self = Self {
        words: [0; 2],
        last: 0,
    };

    /// Writes all of it.
    #[inline(always)]
    pub fn write(&mut self, addresses: &AddressesV4, rest: &Rest) {
        self.words = [
            pair(eni::slot(), addresses.src),
            pair(addresses.dst, rest.ports),
        ];
        self.last = rest.last_word();
    }
}

impl Key for KeyV4 {
    const VERSION: u8 = 4;

    #[inline(always)]
    fn set_action(&mut self, action: u8) {
        self.last = with_action(self.last, action);
    }

    #[inline(always)]
    fn reverse(&mut self) {
        let [slot_and_src, dst_and_ports] = self.words;
        self.words = [
            slot_and_src & 0xffff_ffff | dst_and_ports << 32,
            slot_and_src >> 32 | u64::from(((dst_and_ports >> 32) as u32).rotate_left(16)) << 32,
        ];
        self.last ^= OTHER_DIRECTION;
    }

    #[inline(always)]
    fn forget(&mut self, zero: u32) {
        self.words = self.words.map(|word| word + u64::from(zero));
        self.last += zero;
    }

    #[inline(always)]
    fn ends(&self) -> Ends {
        let [slot_and_src, dst_and_ports] = self.words;
        let [protocol, ..] = self.last.to_ne_bytes();
        Ends {
            src: [(slot_and_src >> 32) as u32, 0, 0, 0],
            dst: [dst_and_ports as u32, 0, 0, 0],
            ports: (dst_and_ports >> 32) as u32,
            protocol,
            version: Self::VERSION,
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
    /// Not written yet.
    pub const UNWRITTEN: Self = Self {
        words: [0; 5],
        last: 0,
    };

    /// Writes the addresses, which need not be kept elsewhere then, but for the last four octets of the destination. These are returned: they
    /// share a word with the ports.
    #[inline(always)]
    pub fn write_addresses(&mut self, addresses: &AddressesV6) -> u32 {
        let AddressesV6 {
            src: [s0, s1, s2, s3],
            dst: [d0, d1, d2, d3],
        } = *addresses;
        self.words[0] = pair(eni::slot(), s0);
        self.words[1] = pair(s1, s2);
        self.words[2] = pair(s3, d0);
        self.words[3] = pair(d1, d2);
        d3
    }

    /// Writes the rest, with what [`KeyV6::write_addresses`] returned.
    #[inline(always)]
    pub fn write_rest(&mut self, dst_end: u32, rest: &Rest) {
        self.words[4] = pair(dst_end, rest.ports);
        self.last = rest.last_word();
    }
}

impl Key for KeyV6 {
    const VERSION: u8 = 6;

    #[inline(always)]
    fn set_action(&mut self, action: u8) {
        self.last = with_action(self.last, action);
    }

    #[inline(always)]
    fn reverse(&mut self) {
        let Ends {
            src, dst, ports, ..
        } = self.ends();
        let [s0, s1, s2, s3] = src;
        let [d0, d1, d2, d3] = dst;
        self.words = [
            pair(self.words[0] as u32, d0),
            pair(d1, d2),
            pair(d3, s0),
            pair(s1, s2),
            pair(s3, ports.rotate_left(16)),
        ];
        self.last ^= OTHER_DIRECTION;
    }

    #[inline(always)]
    fn forget(&mut self, zero: u32) {
        self.words = self.words.map(|word| word + u64::from(zero));
        self.last += zero;
    }

    #[inline(always)]
    fn ends(&self) -> Ends {
        let [w0, w1, w2, w3, w4] = self.words;
        let (first, second) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        let [protocol, ..] = self.last.to_ne_bytes();
        Ends {
            src: [second(w0), first(w1), second(w1), first(w2)],
            dst: [second(w2), first(w3), second(w3), first(w4)],
            ports: second(w4),
            protocol,
            version: Self::VERSION,
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

/// The last word of a key with another action.
#[inline(always)]
fn with_action(last: u32, action: u8) -> u32 {
    last & !0x00ff_0000 | u32::from(action) << 16
}

/// In a key's last word, what is another in the other direction.
const OTHER_DIRECTION: u32 = 0x0100;

/// Two words as they lie one after the other in memory; the target is little endian.
#[inline(always)]
pub fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}
