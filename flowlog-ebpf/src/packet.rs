//! A packet as a hook hands it over: one view for TC and XDP.
use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, xdp_md},
    helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};

use crate::{
    eni,
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

/// A packet's headers lie within this many octets; what would lie further off is not parsed. Also what keeps offsets within
/// the bounds that the verifier asks for.
pub const MAX_OFFSET: u32 = 0x7fff;

/// What is known of the segments of a super-packet.
#[derive(Clone, Copy)]
pub enum Segments {
    /// An ordinary packet.
    One,
    /// Each segment carries this much payload, the last one what is left.
    OfPayload(u32),
    /// This many, of unequal size (SCTP).
    Count(u32),
    /// Each segment is a datagram of this many octets, the last one what is left.
    OfDatagram(u32),
}

impl Segments {
    /// Of a packet of the kernel's, by its `gso_size` and `gso_segs`.
    #[inline(always)]
    pub fn of_gso(size: u32, count: impl FnOnce() -> u32) -> Self {
        /// `GSO_BY_FRAGS` of include/linux/skbuff.h: segments are as long as they are.
        const GSO_BY_FRAGS: u32 = 0xffff;
        match size {
            0 => Self::One,
            GSO_BY_FRAGS => Self::Count(count()),
            size => Self::OfPayload(size),
        }
    }
}

/// A type whose every bit pattern is a value, and that may be read at any address.
///
/// # Safety
///
/// It consists of integers without padding.
pub unsafe trait Plain: Copy {}
// SAFETY: octets.
unsafe impl<const N: usize> Plain for [u8; N] {}

// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}

/// A packet.
pub trait Packet {
    /// Slot of its ENI.
    #[inline(always)]
    fn slot(&self) -> u32 {
        eni::slot()
    }

    /// How a first fragment is remembered: over what is known of its datagram, or (`BPF_NOEXIST`) only if nothing is.
    const REMEMBER: u64 = BPF_ANY as u64;

    /// Octets of the whole frame.
    fn octets(&self) -> u32;

    /// Reads a header at `offset` from the frame's start, wherever the kernel keeps those octets. `None` if the frame ends
    /// before the header does.
    fn read<T: Plain>(&self, offset: u32) -> Option<T>;

    /// Whether the kernel says that it carries IP.
    fn is_said_to_be_ip(&self) -> bool;

    /// Whether this is a super-packet, and of what.
    fn segments(&self, network_octets: u32) -> Segments;
}

/// The direct way, for what is in the linear part; checked right where it is read, as the verifier wants it.
#[inline(always)]
fn read_linear<T: Plain>(data: usize, data_end: usize, offset: u32) -> Option<T> {
    // For a single octet, the compiler turns the check into one that the verifier takes nothing from.
    const { assert!(size_of::<T>() > 1) };
    let start = data + (offset & MAX_OFFSET) as usize;
    if start + size_of::<T>() > data_end {
        return None;
    }
    // SAFETY: the octets from `start` on are within the packet, as checked; `T` may have any bit pattern; alignment is not
    // assumed.
    Some(unsafe { (start as *const T).read_unaligned() })
}

/// A packet at a TC hook.
pub struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn octets(&self) -> u32 {
        // SAFETY: the kernel's context, valid while the program runs.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        // SAFETY: the kernel's context.
        let (data, data_end) =
            unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        if let Some(value) = read_linear(data, data_end, offset) {
            return Some(value);
        }
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the buffer is as long as is said; the helper fills all of it or fails.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: filled.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn is_said_to_be_ip(&self) -> bool {
        // SAFETY: the kernel's context.
        let protocol = u16::from_be(unsafe { (*self.skb).protocol } as u16);
        protocol == ETHERTYPE_IPV4 || protocol == ETHERTYPE_IPV6
    }

    #[inline(always)]
    fn segments(&self, _network_octets: u32) -> Segments {
        // SAFETY: the kernel's context.
        let size = unsafe { (*self.skb).gso_size };
        // SAFETY: the kernel's context.
        Segments::of_gso(size, || unsafe { (*self.skb).gso_segs })
    }
}

/// A packet at an XDP hook.
pub struct XdpFrame {
    xdp: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { xdp: ctx.ctx }
    }
}

impl Packet for XdpFrame {
    #[inline(always)]
    fn octets(&self) -> u32 {
        // SAFETY: the kernel's context. The helper also counts the fragments of a frame in several buffers.
        unsafe { bpf_xdp_get_buff_len(self.xdp) as u32 }
    }

    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        // SAFETY: the kernel's context.
        let (data, data_end) =
            unsafe { ((*self.xdp).data as usize, (*self.xdp).data_end as usize) };
        if let Some(value) = read_linear(data, data_end, offset) {
            return Some(value);
        }
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the buffer is as long as is said; the helper fills all of it or fails.
        let result = unsafe {
            bpf_xdp_load_bytes(
                self.xdp,
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: filled.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    /// XDP runs before anything could be said of the packet.
    #[inline(always)]
    fn is_said_to_be_ip(&self) -> bool {
        false
    }

    #[inline(always)]
    fn segments(&self, network_octets: u32) -> Segments {
        match eni::xdp_mtu() {
            mtu if mtu != 0 && network_octets > mtu => Segments::OfDatagram(mtu),
            _ => Segments::One,
        }
    }
}
