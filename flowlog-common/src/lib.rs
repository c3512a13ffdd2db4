//! The ABI between Flowlog's BPF programs and its user space.
//!
//! Every type here is shared memory: `#[repr(C)]`, without padding that either side could leave unset (a hash map compares
//! keys byte by byte), and with its size and alignment asserted at compile time. Whoever changes one raises [`ABI_VERSION`].
//!
//! Addresses and ports are in network byte order, as in the packet. Everything else is in the host's order.
#![no_std]

/// Version of everything in this crate; part of the path under which maps are pinned.
pub const ABI_VERSION: u32 = 2;

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
    /// Always 0.
    pub reserved: u8,
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
    /// Always 0.
    pub reserved: u8,
}

/// What is counted of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Packets as on the wire: a segmentation super-packet counts as its segments.
    pub packets: u64,
    /// Octets of the IP datagrams, without link-layer headers (as IPFIX octetDeltaCount).
    pub bytes: u64,
    /// TCP flags OR-ed over the flow's packets: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub tcp_flags: u64,
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
    /// TCP flags as in its header.
    pub tcp_flags: u32,
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

/// What a first fragment tells of the later ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, big endian.
    pub src_port: [u8; 2],
    /// Destination port, big endian.
    pub dst_port: [u8; 2],
    /// Protocol of the upper layer.
    pub protocol: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

/// Asserts size and alignment at compile time, so that kernel and user space cannot drift apart.
macro_rules! assert_layout {
    ($($type:ty: $size:literal, $align:literal;)+) => {
        $(const _: () = assert!(size_of::<$type>() == $size && align_of::<$type>() == $align);)+
    };
}

assert_layout! {
    FlowKeyV4: 20, 4;
    FlowKeyV6: 44, 4;
    FlowCounters: 24, 8;
    Volume: 16, 8;
    EniCounters: 56, 8;
    Active: 16, 8;
    Occupancy: 64, 8;
    FragmentKey: 44, 4;
    FragmentPorts: 8, 1;
    Overflow<FlowKeyV4>: 40, 8;
    Overflow<FlowKeyV6>: 64, 8;
}
