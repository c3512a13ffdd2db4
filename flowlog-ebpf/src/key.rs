//! Flow keys on the stack, written in the widest words.
//!
//! The kernel hashes a key by words of 4 octets and compares it by words of 8. Were the key written field by field, those reads would
//! span several writes that have just been made, and each would wait until they have left the store buffer.
//!
//! Room for a key is not filled with zeros first: the compiler makes a loop over octets of that.
mod rewrite;

use core::mem::MaybeUninit;

use flowlog_common::{ACTION_ACCEPT, FlowKeyV4, FlowKeyV6};

pub use rewrite::FlowKey;

use crate::eni;

/// A flow's key that can become the key of another flow of the same session.
pub trait Key {
    /// Makes it that of the flow with this action.
    fn set_action(&mut self, action: u8);

    /// Makes it that of the flow in the other direction.
    fn reverse(&mut self);

    /// Its words but the last, as those of IPv6: of an IPv4 address, all but the first four octets are 0.
    fn words(&self) -> [u64; 5];

    /// IANA protocol number.
    fn protocol(&self) -> u8;

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
    fn words(&self) -> [u64; 5] {
        let [slot_and_src, dst_and_ports] = self.words;
        [
            slot_and_src,
            0,
            dst_and_ports << 32,
            0,
            dst_and_ports >> 32 << 32,
        ]
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.last as u8
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

/// A [`KeyV6`] that has its addresses, which need not be kept elsewhere then; but for the last four octets of the destination, which share a
/// word with the ports.
pub struct AddressedV6<'k> {
    key: &'k mut MaybeUninit<KeyV6>,
    dst_end: u32,
}

impl<'k> AddressedV6<'k> {
    /// Writes the addresses.
    #[inline(always)]
    pub fn new(key: &'k mut MaybeUninit<KeyV6>, addresses: &AddressesV6) -> Self {
        let AddressesV6 {
            src: [s0, s1, s2, s3],
            dst: [d0, d1, d2, dst_end],
        } = *addresses;
        // SAFETY: all but the last of its words, which are written and not read.
        let words: &mut [MaybeUninit<u64>; 4] = unsafe { &mut *key.as_mut_ptr().cast() };
        words[0].write(pair(eni::slot(), s0));
        words[1].write(pair(s1, s2));
        words[2].write(pair(s3, d0));
        words[3].write(pair(d1, d2));
        Self { key, dst_end }
    }

    /// Writes the rest.
    #[inline(always)]
    pub fn finish(self, rest: &Rest) -> &'k mut KeyV6 {
        let Self { key, dst_end } = self;
        let to = key.as_mut_ptr();
        // SAFETY: the other fields were written by `new`.
        unsafe {
            (&raw mut (*to).words[4]).write(pair(dst_end, rest.ports));
            (&raw mut (*to).last).write(rest.last_word());
            key.assume_init_mut()
        }
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
        self.words = reversed(self.words);
        self.last ^= OTHER_DIRECTION;
    }

    #[inline(always)]
    fn forget(&mut self, zero: u32) {
        self.words = self.words.map(|word| word + u64::from(zero));
        self.last += zero;
    }

    #[inline(always)]
    fn words(&self) -> [u64; 5] {
        self.words
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.last as u8
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

/// The words of an IPv6 flow's key, with the ends exchanged.
#[inline(always)]
pub fn reversed([w0, w1, w2, w3, w4]: [u64; 5]) -> [u64; 5] {
    [
        pair(w0 as u32, second(w2)),
        w3,
        pair(w4 as u32, second(w0)),
        w1,
        pair(w2 as u32, second(w4).rotate_left(16)),
    ]
}

/// The second of a [`pair`].
#[inline(always)]
pub fn second(pair: u64) -> u32 {
    (pair >> 32) as u32
}

/// Two words as they lie one after the other in memory; the target is little endian.
#[inline(always)]
pub fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}
