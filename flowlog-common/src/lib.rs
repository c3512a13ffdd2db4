//! The ABI between Flowlog's BPF programs and its user space.
//!
//! Every type here is shared memory: `#[repr(C)]`, without padding that either side could leave unset (a hash map compares
//! keys byte by byte), and with its size and alignment asserted at compile time. Whoever changes one raises [`ABI_VERSION`].
//!
//! Addresses and ports are in network byte order, as in the packet. Everything else is in the host's order.
#![no_std]

/// Asserts size and alignment at compile time, so that kernel and user space cannot drift apart.
macro_rules! assert_layout {
    ($($type:ty: $size:literal, $align:literal;)+) => {
        $(const _: () = assert!(size_of::<$type>() == $size && align_of::<$type>() == $align);)+
    };
}

mod policies;
mod sessions;

pub use policies::*;
pub use sessions::*;

/// Version of everything in this crate; part of the path under which maps are pinned.
pub const ABI_VERSION: u32 = 3;

/// Flow maps that a generation of counters consists of: IPv4 and IPv6.
pub const FAMILIES: usize = 2;

/// Generations of counters: one active, one still.
pub const GENERATIONS: usize = 2;

/// ENIs that one host can have, and so the length of the counters that are kept per ENI.
pub const MAX_ENIS: u32 = 1024;

/// Fragmented datagrams whose first fragment is remembered, so that the later ones find their ports.
pub const MAX_FRAGMENTED_DATAGRAMS: u32 = 8192;

/// Size of the ring that wakes user space when a flow map passes half full, in bytes.
pub const WAKE_RING_BYTES: u32 = 4096;

/// Size of the ring in which packets wait that had no room in a flow map, in bytes, unless user space chooses another.
pub const OVERFLOW_RING_BYTES: u32 = 4 << 20;

/// `in`: towards the ENI's owner (the VM).
pub const DIRECTION_IN: u8 = 0;
/// `out`: away from the ENI's owner.
pub const DIRECTION_OUT: u8 = 1;

/// ACCEPT.
pub const ACTION_ACCEPT: u8 = 0;
/// REJECT.
pub const ACTION_REJECT: u8 = 1;

/// [`FlowKeyV4::origin`]: the ENI's own program counted the packets.
pub const ORIGIN_PROGRAM: u8 = 0;
/// [`FlowKeyV4::origin`], of REJECT: netfilter dropped packets that the program had counted before. They are in no other place than the flow
/// that the program counted them in, be it ACCEPT; this says how many of those are REJECT.
pub const ORIGIN_NETFILTER_AFTER: u8 = 1;
/// [`FlowKeyV4::origin`], of REJECT: netfilter dropped packets before they came to the program, so they are counted here alone.
pub const ORIGIN_NETFILTER_BEFORE: u8 = 2;

/// [`FlowMarks::decided_by`]: nothing judged the packets.
pub const DECIDED_BY_NOTHING: u32 = 0;
/// [`FlowMarks::decided_by`]: the inner access policy of a security group.
pub const DECIDED_BY_INNER_ACCESS: u32 = 1;
/// [`FlowMarks::decided_by`]: no rule of the security groups matched.
pub const DECIDED_BY_DEFAULT: u32 = 2;
/// [`FlowMarks::decided_by`]: there was no room for the session.
pub const DECIDED_BY_NO_ROOM: u32 = 3;
/// [`FlowMarks::decided_by`]: netfilter.
pub const DECIDED_BY_NETFILTER: u32 = 4;
/// [`FlowMarks::decided_by`]: the first number that stands for a rule. User space gives the numbers out.
pub const DECIDED_BY_FIRST_RULE: u32 = 16;
/// The greatest number of [`FlowMarks::decided_by`].
pub const DECIDED_BY_MAX: u32 = (1 << 24) - 1;

/// Index of the IPv4 flow map in a generation.
pub const FAMILY_V4: u32 = 0;
/// Index of the IPv6 flow map in a generation.
pub const FAMILY_V6: u32 = 1;

/// What identifies an IPv4 flow: a record's key and no more, in a third of a cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKeyV4 {
    /// Slot of the ENI: an index that user space gives out, so that the same 5-tuple on two ENIs is two flows.
    pub eni: u32,
    /// Source address.
    pub src_addr: [u8; 4],
    /// Destination address.
    pub dst_addr: [u8; 4],
    /// Source port, big endian; 0 where the protocol has none.
    pub src_port: [u8; 2],
    /// Destination port, big endian; 0 where the protocol has none.
    pub dst_port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// [`DIRECTION_IN`] or [`DIRECTION_OUT`].
    pub direction: u8,
    /// [`ACTION_ACCEPT`] or [`ACTION_REJECT`].
    pub action: u8,
    /// Who counted: [`ORIGIN_PROGRAM`], [`ORIGIN_NETFILTER_AFTER`] or [`ORIGIN_NETFILTER_BEFORE`].
    pub origin: u8,
}

/// What identifies an IPv6 flow; the fields are those of [`FlowKeyV4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKeyV6 {
    /// Slot of the ENI.
    pub eni: u32,
    /// Source address.
    pub src_addr: [u8; 16],
    /// Destination address.
    pub dst_addr: [u8; 16],
    /// Source port, big endian; 0 where the protocol has none.
    pub src_port: [u8; 2],
    /// Destination port, big endian; 0 where the protocol has none.
    pub dst_port: [u8; 2],
    /// IANA protocol number of the upper layer: the header after the last extension header.
    pub protocol: u8,
    /// [`DIRECTION_IN`] or [`DIRECTION_OUT`].
    pub direction: u8,
    /// [`ACTION_ACCEPT`] or [`ACTION_REJECT`].
    pub action: u8,
    /// Who counted, as in [`FlowKeyV4`].
    pub origin: u8,
}

/// What is known of a flow besides its volume, in one word so that it can be changed at once: TCP flags OR-ed over the flow's packets (FIN
/// 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128) in the lowest 8 bits, and above them what decided its action.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowMarks(pub u32);

impl FlowMarks {
    /// From its parts; of `decided_by` what exceeds [`DECIDED_BY_MAX`] is cut off.
    #[must_use]
    pub const fn new(tcp_flags: u8, decided_by: u32) -> Self {
        Self(tcp_flags as u32 | decided_by << 8)
    }

    /// TCP flags OR-ed over the flow's packets.
    #[must_use]
    pub const fn tcp_flags(self) -> u8 {
        self.0 as u8
    }

    /// What decided the flow's action last: one of `DECIDED_BY_…`, or the number of a rule.
    #[must_use]
    pub const fn decided_by(self) -> u32 {
        self.0 >> 8
    }

    /// Of two parts of one flow. Of two that decided, the greater number counts, which is that of the newer rule; whatever the order, the
    /// result is the same.
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        let (a, b) = (self.decided_by(), other.decided_by());
        Self::new(
            self.tcp_flags() | other.tcp_flags(),
            if a > b { a } else { b },
        )
    }
}

/// What is counted of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Packets as on the wire: a segmentation super-packet counts as its segments.
    pub packets: u64,
    /// Octets of the IP datagrams, without link-layer headers (as IPFIX octetDeltaCount).
    pub bytes: u64,
    /// TCP flags, and what decided.
    pub marks: FlowMarks,
    /// Until when the flow's session need not be looked up again, and by which policy it was judged; 0 if it must be. For the programs alone.
    pub judged: u32,
}

/// A packet for whose flow the flow map had no room; it waits in a ring for user space. Of which generation it was does not matter: a drain
/// takes all that is in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow<K> {
    /// Packets as on the wire.
    pub packets: u64,
    /// Octets of the IP datagrams.
    pub bytes: u64,
    /// TCP flags as in its header, and what decided.
    pub marks: FlowMarks,
    /// Its flow.
    pub key: K,
}

/// Packets and octets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets as on the wire.
    pub packets: u64,
    /// Octets from the network layer up.
    pub bytes: u64,
}

/// What one ENI saw in one direction beside its flows. The array's index is `eni * 2 + direction`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EniCounters {
    /// IP packets for which neither the flow map nor the overflow ring had room.
    pub map_full: Volume,
    /// IP packets whose headers are cut short or contradict themselves. Octets are those that are there from the network header on; of the
    /// whole frame, where it ends before it says what it carries.
    pub unparsable: Volume,
    /// Frames that are not IP: ARP, LLDP, … They are not part of a flow log. Octets are those of the whole frame.
    pub not_ip: Volume,
    /// Packets that were counted beyond the frames that carried them: a super-packet of n segments adds n - 1, wherever it was counted. A
    /// device counts such a frame once.
    pub extra_segments: u64,
    /// Packets that were counted and then dropped before the device saw them, because the security groups reject them: those that it would
    /// have sent. Super-packets count as their segments here too, and not among `extra_segments`.
    pub dropped: Volume,
    /// Packets for whose session there was no room.
    pub without_session: u64,
    /// Packets that netfilter dropped and whose flow could not be told; they stay in the flow that the program counted them in, if it did.
    pub unmatched_drops: u64,
}

/// Which generation of counters is active.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// 0 or 1.
    pub generation: u32,
    /// Always 0, which the verifier does not know: adding it makes the verifier forget a number's range, so that paths that differ
    /// in nothing else become one to it.
    pub zero: u32,
    /// How often user space has switched to the other generation. For user space alone.
    pub flips: u64,
}

/// How full one flow map of one generation is. The array's index is `generation * 2 + family`. Each has a cache line of its own,
/// for all CPUs add to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Flows that were added to the map.
    pub flows: u64,
    /// User space is woken when `flows` becomes this; 0 for never.
    pub wake_at: u64,
    /// Always 0: fills the cache line.
    pub reserved: [u64; 6],
}

/// Which earlier fragment a later fragment belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Slot of the ENI.
    pub eni: u32,
    /// Identification of the datagram, as in the packet; IPv4's 16 bits are in the first two octets.
    pub id: [u8; 4],
    /// Source address; IPv4 in the first four octets.
    pub src_addr: [u8; 16],
    /// Destination address; IPv4 in the first four octets.
    pub dst_addr: [u8; 16],
    /// IPv4: the protocol (RFC 791). IPv6: 0, for RFC 8200 identifies a datagram without it.
    pub protocol: u8,
    /// [`DIRECTION_IN`] or [`DIRECTION_OUT`].
    pub direction: u8,
    /// 4 or 6.
    pub version: u8,
    /// Always 0.
    pub reserved: u8,
}

/// What a first fragment tells of the later ones: their ports, and what kind of ICMP they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, big endian.
    pub src_port: [u8; 2],
    /// Destination port, big endian.
    pub dst_port: [u8; 2],
    /// Protocol of the upper layer.
    pub protocol: u8,
    /// A [`PacketKind`].
    pub kind: u8,
    /// Of ICMP queries, the identifier, as in the packet.
    pub identifier: [u8; 2],
}

mod netfilter;

pub use netfilter::{Device, DeviceKey, KernelLayout, MAX_DEVICES};

assert_layout! {
    FlowKeyV4: 20, 4;
    FlowKeyV6: 44, 4;
    FlowCounters: 24, 8;
    Volume: 16, 8;
    EniCounters: 88, 8;
    FlowMarks: 4, 4;
    Active: 16, 8;
    Occupancy: 64, 8;
    FragmentKey: 44, 4;
    FragmentPorts: 8, 1;
    Overflow<FlowKeyV4>: 40, 8;
    Overflow<FlowKeyV6>: 64, 8;
}
