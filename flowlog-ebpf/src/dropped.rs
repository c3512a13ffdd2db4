//! A packet that the kernel is about to free, as the parser sees it.
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::{
    kernel::Address,
    layout,
    packet::{MAX_OFFSET, Packet, Plain, Segments},
};

/// A packet, from its network header on: what is before that may be gone.
pub struct Dropped {
    /// `struct skb_shared_info`.
    pub shared: Address,
    /// Where the network header is.
    pub start: Address,
    octets: u32,
    /// Of these, how many are in the linear part. Others cannot be read here.
    linear_octets: u32,
    slot: u32,
}

impl Dropped {
    #[inline(always)]
    pub fn new(skb: Address, slot: u32) -> Self {
        let Address(head) = skb.follow(layout!(skb_head));
        let Address(data) = skb.follow(layout!(skb_data));
        let network: u16 = skb.read(layout!(skb_network_header));
        let start = head + u64::from(network);
        let length: u32 = skb.read(layout!(skb_len));
        let elsewhere: u32 = skb.read(layout!(skb_data_len));
        let end: u32 = skb.read(layout!(skb_end));
        // The link layer's header may still be there, and then is before the network header.
        let octets = (data + u64::from(length)).wrapping_sub(start) as u32;
        Self {
            shared: Address(head + u64::from(end)),
            start: Address(start),
            octets,
            linear_octets: octets.saturating_sub(elsewhere),
            slot,
        }
    }
}

impl Packet for Dropped {
    /// The ENI's program, which may have seen it before, knows more of it.
    const REMEMBER: u64 = BPF_NOEXIST as u64;

    #[inline(always)]
    fn slot(&self) -> u32 {
        self.slot
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        self.octets
    }

    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let offset = offset & MAX_OFFSET;
        (offset + size_of::<T>() as u32 <= self.linear_octets).then(|| self.start.read(offset))
    }

    #[inline(always)]
    fn is_said_to_be_ip(&self) -> bool {
        true
    }

    #[inline(always)]
    fn segments(&self, _network_octets: u32) -> Segments {
        let number = |offset| u32::from(self.shared.read::<u16>(offset));
        Segments::of_gso(number(layout!(shared_gso_size)), || {
            number(layout!(shared_gso_segs))
        })
    }
}
