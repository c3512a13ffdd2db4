//! What a packet was when its ENI's program counted it: before its fragments were put together, and before netfilter translated its
//! addresses.
use flowlog_common::{KernelLayout, Volume};

use crate::{
    dropped::Dropped,
    kernel::Address,
    key::{AddressesV4, AddressesV6, FlowKey, KeyV4, KeyV6},
    layout,
    packet::Plain,
};

/// Fragments of a datagram that are counted one by one; others are left out. At an MTU of 576 octets, the longest datagram has 119.
const MAX_FRAGMENTS: u32 = 128;

/// Octets of an IPv6 header.
const HEADER_V6: u32 = 40;
/// Octets of its fragment header, which is gone when the fragments are put together.
const FRAGMENT_HEADER_V6: u32 = 8;

/// What is to be known for it. All of it is read before the packet is parsed, for the verifier walks what comes after a branch once for each
/// way through it.
pub struct Received {
    /// The later fragments, as they hang on the first one.
    later: Later,
    /// Octets of the largest fragment; 0 for a datagram that came in whole.
    largest: u32,
    tracked: Tracked,
}

impl Received {
    /// Of a packet that came in by the interface `received_by`. `zero` is [`flowlog_common::Active::zero`].
    #[inline(always)]
    pub fn new(skb: Address, packet: &Dropped, is_v6: bool, received_by: u32, zero: u32) -> Self {
        let frag_max_size = if is_v6 {
            layout!(ipv6_frag_max_size)
        } else {
            layout!(ipv4_frag_max_size)
        };
        Self {
            later: Later::of(packet, zero),
            largest: largest_fragment(skb, received_by, frag_max_size),
            tracked: Tracked::of(skb),
        }
    }

    #[inline(always)]
    pub fn apply_v4(&self, packet: &Dropped, key: &mut KeyV4, volume: &mut Volume) {
        let [first, _] = packet.start.read::<[u8; 2]>(0);
        self.as_fragments(volume, u32::from(first & 0xf) * 4, 0);
        if self.tracked.is_of(key) {
            let tuple = self.tracked.tuple;
            key.set_addresses(&AddressesV4 {
                src: tuple.read(layout!(tuple_src_addr)),
                dst: tuple.read(layout!(tuple_dst_addr)),
            });
            self.tracked.set_ports(key);
        }
    }

    #[inline(always)]
    pub fn apply_v6(&self, key: &mut KeyV6, volume: &mut Volume) {
        self.as_fragments(volume, HEADER_V6, FRAGMENT_HEADER_V6);
        if self.tracked.is_of(key) {
            let tuple = self.tracked.tuple;
            let Words(src) = tuple.read(layout!(tuple_src_addr));
            let Words(dst) = tuple.read(layout!(tuple_dst_addr));
            key.set_addresses(&AddressesV6 { src, dst });
            self.tracked.set_ports(key);
        }
    }

    /// Makes as many packets and octets of a reassembled datagram as its fragments were counted.
    ///
    /// Its later fragments hang on the first one, with their headers; except where they were merged into it (IPv4 in INPUT, without connection
    /// tracking): of these, all but the last are taken to have been as long as the largest, as senders make them. `headers` are the octets that
    /// each fragment repeats of the datagram's headers, `added` those that it has besides.
    #[inline(always)]
    fn as_fragments(&self, volume: &mut Volume, headers: u32, added: u32) {
        if self.largest == 0 {
            return;
        }
        let each_headers = headers + added;
        let whole = volume.bytes as u32;
        let of_first = whole.saturating_sub(self.later.payload + headers);
        // What a fragment carries is a multiple of 8 octets, unless it is the last one.
        let each = self.largest.saturating_sub(each_headers) & !7;
        let merged = of_first.saturating_sub(1).checked_div(each).unwrap_or(0);
        *volume = Volume {
            packets: u64::from(1 + merged + self.later.packets),
            bytes: u64::from(whole + added)
                + u64::from(merged) * u64::from(each_headers)
                + u64::from(self.later.headers),
        };
    }
}

/// Octets of the largest fragment that a datagram came in; 0 if it came in whole.
#[inline(always)]
fn largest_fragment(skb: Address, received_by: u32, frag_max_size: u32) -> u32 {
    if frag_max_size == KernelLayout::ABSENT {
        return 0;
    }
    let noted: u32 = skb.read(layout!(skb_cb) + layout!(ipv4_iif));
    let largest: u16 = skb.read(layout!(skb_cb) + frag_max_size);
    // Before IP has begun its notes with the interface, others have theirs there.
    if noted == received_by {
        u32::from(largest)
    } else {
        0
    }
}

/// The fragments that hang on the first one.
struct Later {
    packets: u32,
    /// Octets of their data.
    payload: u32,
    /// Octets of their headers.
    headers: u32,
}

impl Later {
    #[inline(always)]
    fn of(packet: &Dropped, zero: u32) -> Self {
        let (mut packets, mut payload, mut headers) = (0, 0, 0);
        let mut fragment = packet.shared.follow(layout!(shared_frag_list));
        for _ in 0..MAX_FRAGMENTS {
            if fragment.is_none() {
                break;
            }
            let Address(head) = fragment.follow(layout!(skb_head));
            let Address(data) = fragment.follow(layout!(skb_data));
            let network: u16 = fragment.read(layout!(skb_network_header));
            packets += 1;
            payload += fragment.read::<u32>(layout!(skb_len));
            headers += data.wrapping_sub(head) as u32 - u32::from(network);
            fragment = fragment.follow(layout!(skb_next));
        }
        Self {
            // One path for the verifier, however many there were.
            packets: packets + zero,
            payload: payload + zero,
            headers: headers + zero,
        }
    }
}

/// What connection tracking knows of a packet.
struct Tracked {
    /// What the packet's addresses and ports were before netfilter translated them; none if it did not.
    tuple: Address,
    /// It is part of a connection that another one has brought about, or an error about one.
    related: bool,
}

impl Tracked {
    #[inline(always)]
    fn of(skb: Address) -> Self {
        /// `NFCT_PTRMASK`, and of `enum ip_conntrack_info` (include/uapi/linux/netfilter/nf_conntrack_common.h).
        const INFO: u64 = 7;
        const RELATED: u64 = 1;
        const REPLY: u64 = 3;
        const RELATED_REPLY: u64 = 4;
        /// `IPS_NAT_MASK` of the same file.
        const TRANSLATED: u64 = 0x30;
        if layout!(skb_connection) == KernelLayout::ABSENT {
            return Self {
                tuple: Address(0),
                related: false,
            };
        }
        let Address(word) = skb.follow(layout!(skb_connection));
        let (connection, info) = (word & !INFO, word & INFO);
        let status: Address = Address(connection).read(layout!(connection_status));
        let step = if info >= REPLY {
            layout!(tuple_step)
        } else {
            0
        };
        let tuple = connection + u64::from(layout!(connection_tuples) + step);
        let is_translated = connection != 0 && status.0 & TRANSLATED != 0;
        Self {
            tuple: Address(if is_translated { tuple } else { 0 }),
            related: info == RELATED || info == RELATED_REPLY,
        }
    }

    /// Whether the tuple is that of a packet with this key: an ICMP error about a connection has addresses of its own.
    #[inline(always)]
    fn is_of(&self, key: &impl FlowKey) -> bool {
        const ICMP: u8 = 1;
        const ICMPV6: u8 = 58;
        if self.tuple.is_none() {
            return false;
        }
        let [protocol, _] = self.tuple.read::<[u8; 2]>(layout!(tuple_protocol));
        let is_icmp = protocol == ICMP || protocol == ICMPV6;
        protocol == key.protocol() && !(is_icmp && self.related)
    }

    /// Where the protocol has ports.
    #[inline(always)]
    fn set_ports(&self, key: &mut impl FlowKey) {
        if key.ports() != 0 {
            let [s0, s1] = self.tuple.read(layout!(tuple_src_port));
            let [d0, d1] = self.tuple.read(layout!(tuple_dst_port));
            key.set_ports(u32::from_ne_bytes([s0, s1, d0, d1]));
        }
    }
}

/// An IPv6 address as it lies in memory.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Words([u32; 4]);
// SAFETY: integers.
unsafe impl Plain for Words {}
