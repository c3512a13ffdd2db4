//! A packet that the kernel is about to free, as the parser sees it; and what it was when it came in.
use flowlog_common::{KernelLayout, Volume};

use crate::{
    count::Counted,
    kernel::Address,
    key::{AddressesV4, AddressesV6, FlowKey as _, KeyV4, KeyV6},
    layout,
    packet::{Packet, Plain, Segments},
};

/// Fragments of a datagram that are counted one by one; those beyond it are taken for part of the last one. At an MTU of 576 octets, the
/// longest datagram has 119.
const MAX_FRAGMENTS: u32 = 192;

/// A packet, from its network header on: what is before that may be gone.
pub struct Dropped {
    skb: Address,
    /// `struct skb_shared_info`.
    shared: Address,
    /// Where the network header is.
    start: Address,
    octets: u32,
    /// Of these, how many are in the linear part. Others cannot be read here.
    linear_octets: u32,
    slot: u32,
}

impl Dropped {
    #[inline(always)]
    pub fn new(skb: Address, slot: u32) -> Option<Self> {
        let Address(head) = skb.follow(layout!(skb_head))?;
        let Address(data) = skb.follow(layout!(skb_data))?;
        let network: u16 = skb.read(layout!(skb_network_header))?;
        let start = head + u64::from(network);
        let length: u32 = skb.read(layout!(skb_len))?;
        let elsewhere: u32 = skb.read(layout!(skb_data_len))?;
        let end: u32 = skb.read(layout!(skb_end))?;
        // Positive where the link layer's header is still there, negative where the network header is taken off already.
        let octets = (data + u64::from(length)).wrapping_sub(start) as u32;
        Some(Self {
            skb,
            shared: Address(head + u64::from(end)),
            start: Address(start),
            octets,
            linear_octets: octets.checked_sub(elsewhere)?,
            slot,
        })
    }

    /// Makes of a packet what its ENI's program counted when it came in: before its fragments were put together, and before its addresses
    /// were translated.
    #[inline(always)]
    pub fn as_received_v4(&self, counted: &mut Counted<KeyV4>) {
        let headers = self
            .start
            .read::<[u8; 2]>(0)
            .map_or(20, |[first, _]| u32::from(first & 0xf) * 4);
        let fragmentable = Fragmentable { headers, added: 0 };
        self.as_fragments(counted, layout!(ipv4_frag_max_size), fragmentable);
        let ports = counted.key.ports();
        let Some(tuple) = self.translated_from(counted.key.protocol()) else {
            return;
        };
        let read = |offset| tuple.read::<u32>(offset);
        let (Some(src), Some(dst)) = (read(layout!(tuple_src_addr)), read(layout!(tuple_dst_addr)))
        else {
            return;
        };
        counted.key.set_addresses(&AddressesV4 { src, dst });
        counted.key.set_ports(original_ports(tuple, ports));
    }

    /// Likewise.
    #[inline(always)]
    pub fn as_received_v6(&self, counted: &mut Counted<KeyV6>) {
        let fragmentable = Fragmentable {
            headers: 40,
            added: 8,
        };
        self.as_fragments(counted, layout!(ipv6_frag_max_size), fragmentable);
        let ports = counted.key.ports();
        let Some(tuple) = self.translated_from(counted.key.protocol()) else {
            return;
        };
        let read = |offset| tuple.read::<Words>(offset);
        let (Some(src), Some(dst)) = (read(layout!(tuple_src_addr)), read(layout!(tuple_dst_addr)))
        else {
            return;
        };
        counted.key.set_addresses(&AddressesV6 {
            src: src.0,
            dst: dst.0,
        });
        counted.key.set_ports(original_ports(tuple, ports));
    }

    /// The tuple that the packet had before netfilter translated it, if it did. Connection tracking has it for both directions.
    #[inline(always)]
    fn translated_from(&self, protocol: u8) -> Option<Address> {
        /// `NFCT_INFOMASK`, and of `enum ip_conntrack_info` (include/uapi/linux/netfilter/nf_conntrack_common.h).
        const INFO: u64 = 7;
        const RELATED: u64 = 1;
        const REPLY: u64 = 3;
        const RELATED_REPLY: u64 = 4;
        /// `IPS_NAT_MASK` of the same file.
        const TRANSLATED: u64 = 0x30;
        const ICMP: u8 = 1;
        const ICMPV6: u8 = 58;
        if layout!(skb_connection) == KernelLayout::ABSENT {
            return None;
        }
        let Address(word) = self.skb.follow(layout!(skb_connection))?;
        let (connection, info) = (Address(word & !INFO), word & INFO);
        let Address(status) = connection.follow(layout!(connection_status))?;
        if status & TRANSLATED == 0 {
            return None;
        }
        // An error about the connection is of addresses of its own.
        let is_icmp = protocol == ICMP || protocol == ICMPV6;
        if is_icmp && (info == RELATED || info == RELATED_REPLY) {
            return None;
        }
        let reply = u64::from(info >= REPLY);
        let tuple = connection.0
            + u64::from(layout!(connection_tuples))
            + reply * u64::from(layout!(tuple_step));
        let tuple = Address(tuple);
        let [of, _] = tuple.read::<[u8; 2]>(layout!(tuple_protocol))?;
        (of == protocol).then_some(tuple)
    }

    /// Makes as many packets and octets of a reassembled datagram as its fragments were counted.
    ///
    /// The later fragments hang on the first one, each with its headers before its data, unless they were merged into it: then all but the
    /// last are taken to have been as long as the longest.
    #[inline(always)]
    fn as_fragments<K>(
        &self,
        counted: &mut Counted<K>,
        frag_max_size: u32,
        fragmentable: Fragmentable,
    ) {
        if !matches!(self.segments(0), Segments::One) {
            return;
        }
        let Some(largest) = self.largest_fragment(frag_max_size) else {
            return;
        };
        let mut later = Later::default();
        let mut next = self.shared.follow(layout!(shared_frag_list));
        for _ in 0..MAX_FRAGMENTS {
            let Some(fragment) = next else {
                break;
            };
            if later.add(fragment).is_none() {
                break;
            }
            next = fragment.follow(layout!(skb_next));
        }
        let Fragmentable { headers, added } = fragmentable;
        let octets = counted.volume.bytes as u32;
        let of_first = octets.saturating_sub(later.payload).saturating_sub(headers);
        let each = largest.saturating_sub(headers + added) & !7;
        let merged = of_first.saturating_sub(1).checked_div(each).unwrap_or(0);
        let packets = 1 + merged + later.packets;
        counted.volume = Volume {
            packets: u64::from(packets),
            bytes: u64::from(octets + added)
                + u64::from(merged) * u64::from(headers + added)
                + u64::from(later.headers),
        };
    }

    /// Octets of the largest fragment that the datagram came in; `None` if it came in whole.
    #[inline(always)]
    fn largest_fragment(&self, frag_max_size: u32) -> Option<u32> {
        if frag_max_size == KernelLayout::ABSENT {
            return None;
        }
        // Before IP has looked at the packet, others have their notes there.
        let received_by: u32 = self.skb.read(layout!(skb_iif))?;
        let noted: u32 = self.skb.read(layout!(skb_cb) + layout!(ipv4_iif))?;
        let largest: u16 = self.skb.read(layout!(skb_cb) + frag_max_size)?;
        (noted == received_by && largest != 0).then_some(u32::from(largest))
    }
}

/// The part of a datagram's headers that each of its fragments has, in octets.
#[derive(Clone, Copy)]
struct Fragmentable {
    /// That the datagram has too.
    headers: u32,
    /// That fragments have besides: IPv6's fragment header.
    added: u32,
}

/// The fragments that hang on the first one.
#[derive(Default)]
struct Later {
    packets: u32,
    /// Octets of their data.
    payload: u32,
    /// Octets of their headers.
    headers: u32,
}

impl Later {
    #[inline(always)]
    fn add(&mut self, fragment: Address) -> Option<()> {
        let Address(head) = fragment.follow(layout!(skb_head))?;
        let Address(data) = fragment.follow(layout!(skb_data))?;
        let network: u16 = fragment.read(layout!(skb_network_header))?;
        let length: u32 = fragment.read(layout!(skb_len))?;
        self.packets += 1;
        self.payload += length;
        self.headers += data.wrapping_sub(head) as u32 - u32::from(network);
        Some(())
    }
}

/// Ports as they were received, where the protocol has ports.
#[inline(always)]
fn original_ports(tuple: Address, ports: u32) -> u32 {
    let read = |offset| tuple.read::<[u8; 2]>(offset);
    match (read(layout!(tuple_src_port)), read(layout!(tuple_dst_port))) {
        (Some([s0, s1]), Some([d0, d1])) if ports != 0 => u32::from_ne_bytes([s0, s1, d0, d1]),
        _ => ports,
    }
}

/// An IPv6 address as it lies in the packet.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Words([u32; 4]);
// SAFETY: integers.
unsafe impl Plain for Words {}

impl Packet for Dropped {
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
        if offset + size_of::<T>() as u32 > self.linear_octets {
            return None;
        }
        self.start.read(offset)
    }

    #[inline(always)]
    fn is_said_to_be_ip(&self) -> bool {
        true
    }

    #[inline(always)]
    fn segments(&self, _network_octets: u32) -> Segments {
        let read = |offset| self.shared.read::<u16>(offset).map_or(0, u32::from);
        Segments::of_gso(read(layout!(shared_gso_size)), || {
            read(layout!(shared_gso_segs))
        })
    }
}
